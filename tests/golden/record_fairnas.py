"""Golden values of FairNAS-A in xiaomi-automl/FairNAS: a pass of the released network in training, its gradients, and its
logits by the statistics behind it.

Neither the supernet nor the training was released; this network is what there is. It is without dropout here.
"""

import torch
import torch.nn.functional as F
from observe import DIGEST, ROUNDING, digest, golden_environment, moved_buffer_table, provenance, write
from official import load
from rule import FIRST_IMAGE_ORDINAL, fill_weights, images, train_labels

REPOSITORY = "xiaomi-automl/FairNAS"
CASES = ("fairnas_a",)
SETTINGS = {
    "network": "FairNAS-A",
    "classes": 10,
    "batch": 4,
    "image_size": 64,
    "image_ordinal": FIRST_IMAGE_ORDINAL,
    "evaluated_ordinal": FIRST_IMAGE_ORDINAL + 2,
}


def record(case, checkout, folder):
    """Record the case."""
    module, _ = load(checkout, ["models"], "FairNAS_A.py")
    with golden_environment():
        model = module.FairNasA(n_class=SETTINGS["classes"], input_size=SETTINGS["image_size"])
        fill_weights(model.named_parameters())
        model.classifier[0].p = 0.0
        logits = model(images(SETTINGS["image_ordinal"], SETTINGS["batch"], SETTINGS["image_size"]))
        loss = F.cross_entropy(logits, train_labels(SETTINGS["batch"]))
        loss.backward()
        largest = max(p.grad.norm() for p in model.parameters())
        rows = [
            [n, name, list(p.shape), digest(p.grad) if p.grad.norm() > ROUNDING * largest else None]
            for n, (name, p) in enumerate(model.named_parameters())
        ]
        buffers = moved_buffer_table(model)
        model.eval()
        with torch.no_grad():
            evaluated = model(images(SETTINGS["evaluated_ordinal"], SETTINGS["batch"], SETTINGS["image_size"]))
    content = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_fairnas.py"),
        "settings": SETTINGS,
        "logits": logits.tolist(),
        "loss": loss.item(),
        "weights": {"digest": DIGEST, "columns": ["ordinal", "name", "shape", "grad"], "rows": rows},
        "buffers": buffers,
        "evaluated": evaluated.tolist(),
    }
    return [write(folder, case, content)]
