"""Golden steps of RSPS in D-X-Y/AutoDL-Projects, on NAS-Bench-201: three consecutive steps on three given cells.

The script's training function takes the steps. What it draws, an operation for each edge, is given; the rate stays as
it is; and its measure of accuracy, whose reshapes current PyTorch does not allow, has a stand-in. Convolutions whose
normalisation has no shift have a bias there. It changes no logits, since the normalisation takes it away; it starts at
zero here, where nothing but rounding moves it, and it is left out of the record.
"""

from types import SimpleNamespace
from unittest import mock

import torch
from observe import (
    DIGEST,
    ROUNDING,
    Trace,
    around_step,
    digest,
    golden_environment,
    moved_buffer_table,
    provenance,
    write,
)
from official import load
from record_enas import percent
from rule import FIRST_IMAGE_ORDINAL, fill_weights, images, train_labels
from torch import nn

REPOSITORY = "D-X-Y/AutoDL-Projects"
CASES = ("rsps_nb201",)
SETTINGS = {
    "space": "201-space",
    "C": 4,
    "N": 1,
    "classes": 10,
    "batch": 4,
    "image_size": 16,
    "lr": 0.025,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "image_ordinals": [FIRST_IMAGE_ORDINAL, FIRST_IMAGE_ORDINAL + 2, FIRST_IMAGE_ORDINAL + 4],
    "evaluated_ordinal": FIRST_IMAGE_ORDINAL + 6,
}
CELLS = ([3, 1, 2, 4, 3, 2], [3, 2, 2, 0, 1, 3], [2, 2, 0, 3, 0, 3])
"""Columns of the edges, which are sorted. Options that rested do not run again, as old PyTorch moves what rests. In the
last cell nothing reads the first node, which a convolution leads to."""


def ordinary_weights(model):
    """Named weights without the biases that have no effect."""
    biased = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    return [(n, p) for n, p in model.named_parameters() if not (n.endswith(".bias") and n[: -len(".bias")] in biased)]


def build(module, options):
    """The official network with weights from the rule and without those biases."""
    model = module.TinyNetworkRANDOM(SETTINGS["C"], SETTINGS["N"], 4, SETTINGS["classes"], options, False, True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    fill_weights(ordinary_weights(model))
    return model


def described(model, seen):
    """A step as plain values: of each weight that moved its gradient before the clip (None where there is nothing but
    rounding), its value, and whether it ran with an effect."""
    named, clip = ordinary_weights(model), seen["clip"]
    largest = max(g.norm() for g in clip["grads"].values() if g is not None)
    rows = []
    for ordinal, (name, weight) in enumerate(named):
        grad, before, after = clip["grads"][id(weight)], seen["before"][name], seen["after"][name]
        if torch.equal(before, after):
            continue
        ran = bool(grad.any())
        if ran and grad.norm() <= ROUNDING * largest:
            raise ValueError(f"the gradient of {name} is nothing but rounding")
        rows.append([ordinal, name, list(weight.shape), digest(grad) if ran else None, digest(after), ran])
    return {
        "logits": seen["logits"],
        "loss": seen["loss"],
        "clip": {"max_norm": clip["max_norm"], "total_norm": clip["total_norm"]},
        "weights": {"digest": DIGEST, "columns": ["ordinal", "name", "shape", "grad", "after", "ran"], "rows": rows},
        "buffers": seen["buffers"],
    }


def steps_of(script, model, options):
    """Take the official steps; return what each of them showed."""
    named, trace, seen = ordinary_weights(model), Trace(), []
    criterion, network = nn.CrossEntropyLoss(), nn.DataParallel(model)
    optimizer = torch.optim.SGD(
        network.parameters(), **{name: SETTINGS[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    )

    def values():
        return {name: p.detach().clone() for name, p in named}

    def before():
        seen[-1] |= {"before": values(), "clip": trace.clips[-1]}

    def after():
        seen[-1] |= {"after": values(), "buffers": moved_buffer_table(model)}

    model.register_forward_hook(lambda *args: seen.append({"logits": args[-1][1].tolist()}))
    criterion.register_forward_hook(lambda *args: seen[-1].update(loss=args[-1].item()))
    labels = train_labels(SETTINGS["batch"])
    batches = [
        (images(ordinal, SETTINGS["batch"], SETTINGS["image_size"]), labels, None, labels)
        for ordinal in SETTINGS["image_ordinals"]
    ]
    drawn = [options[column] for cell in CELLS for column in cell]
    scheduler, logger = SimpleNamespace(update=lambda *args: None), SimpleNamespace(log=lambda text: None)
    with (
        mock.patch("random.choice", side_effect=drawn),
        mock.patch.dict(vars(script), obtain_accuracy=percent),
        trace.clipping(),
        around_step(optimizer, before, after),
    ):
        script.search_func(batches, network, criterion, scheduler, optimizer, "golden", 1000, logger)
    model._forward_hooks.clear()
    return seen


def record(case, checkout, folder):
    """Record the case."""
    script, loaded = load(checkout, ["exps/NAS-Bench-201-algos", "."], "RANDOM-NAS.py")
    module = next(m for name, m in loaded.items() if name.endswith("search_model_random"))
    options = next(m for name, m in loaded.items() if name.endswith("cell_operations")).NAS_BENCH_201
    with golden_environment():
        model = build(module, options)
        steps = [
            {"cell": cell, **described(model, seen)}
            for cell, seen in zip(CELLS, steps_of(script, model, options), strict=True)
        ]
        model.eval()
        with mock.patch("random.choice", side_effect=[options[column] for column in CELLS[-1]]), torch.no_grad():
            model.random_genotype(True)
            seen = images(SETTINGS["evaluated_ordinal"], SETTINGS["batch"], SETTINGS["image_size"])
            evaluated = model(seen)[1].tolist()
    content = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_rsps.py")
        | {
            "functions": "exps/NAS-Bench-201-algos/RANDOM-NAS.py search_func; "
            "xautodl/models/cell_searchs/search_model_random.py TinyNetworkRANDOM"
        },
        "settings": SETTINGS,
        "steps": steps,
        "evaluated": evaluated,
    }
    return [write(folder, case, content)]
