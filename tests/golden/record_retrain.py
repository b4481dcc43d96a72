"""Golden forward passes of the fixed networks of quark0/darts (cnn/model.py), for CIFAR and ImageNet."""

import torch
from observe import buffer_table, golden_environment, provenance, write
from official import load
from rule import FIRST_IMAGE_ORDINAL, fill_weights, images

REPOSITORY = "quark0/darts"
COMMON = {
    "C": 4,
    "layers": 5,
    "classes": 10,
    "auxiliary": True,
    "genotype_name": "DARTS_V2",
    "drop_path_prob": 0.0,
    "image_ordinals": [FIRST_IMAGE_ORDINAL],
}
CASES = {
    "retrain_cifar": {**COMMON, "network": "NetworkCIFAR", "batch": 4, "image_size": 32},
    "retrain_imagenet": {**COMMON, "network": "NetworkImageNet", "batch": 2, "image_size": 224},
}


def record(case, checkout, folder):
    """Record an evaluation pass with the default running statistics, then a training pass."""
    settings = CASES[case]
    script, _ = load(checkout, ["cnn"], "model.py")
    genotype = getattr(load(checkout, ["cnn"], "genotypes.py")[0], settings["genotype_name"])
    with golden_environment():
        sizes = (settings["C"], settings["classes"], settings["layers"])
        model = getattr(script, settings["network"])(*sizes, settings["auxiliary"], genotype)
        model.drop_path_prob = settings["drop_path_prob"]
        fill_weights(model.named_parameters())
        batch = images(FIRST_IMAGE_ORDINAL, settings["batch"], settings["image_size"])
        with torch.no_grad():
            logits, aux = model.eval()(batch)
            assert aux is None
            train_logits, train_aux = model.train()(batch)
        rows = [[i, name, list(weight.shape)] for i, (name, weight) in enumerate(model.named_parameters())]
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_retrain.py"),
            "settings": {**settings, "genotype": str(genotype)},
            "eval": {"logits": logits.tolist()},
            "train": {"logits": train_logits.tolist(), "logits_aux": train_aux.tolist()},
            "weights": {"columns": ["ordinal", "name", "shape"], "rows": rows},
            "buffers_after_train": buffer_table(model),
        }
    return [write(folder, case, content)]
