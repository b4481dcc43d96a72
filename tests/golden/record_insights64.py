"""Golden values of the 64 networks of ultmaster/deeper-insights-weight-sharing: a pass of the supernet under a soft mix,
its gradients and statistics, and one under the path 434 by these statistics.
"""

import torch
import torch.nn.functional as F
from observe import DIGEST, ROUNDING, digest, golden_environment, moved_buffer_table, provenance, write
from official import load
from rule import FIRST_IMAGE_ORDINAL, fill_weights, images, train_labels

REPOSITORY = "ultmaster/deeper-insights-weight-sharing"
CASES = ("insights64",)
SETTINGS = {
    "space": "insights64",
    "width": 4,
    "cells": 2,
    "classes": 10,
    "momentum": 0.4,
    "batch": 4,
    "image_size": 8,
    "image_ordinal": FIRST_IMAGE_ORDINAL,
    "evaluated_ordinal": FIRST_IMAGE_ORDINAL + 2,
    "mix": [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.25, 0.3, 0.15, 0.3]],
    "path": "434",
}


def by_node(rows):
    """Return rows of weights, one for each edge, as the code takes them: a matrix for each node."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return [matrix[:1], matrix[1:]]


def record(case, checkout, folder):
    """Record the case."""
    module, _ = load(checkout, ["models", "."], "search_cnn.py")
    with golden_environment():
        model = module.SearchCNN(
            3,
            SETTINGS["width"],
            SETTINGS["classes"],
            SETTINGS["cells"],
            n_nodes=2,
            bn_momentum=SETTINGS["momentum"],
        )
        fill_weights(model.named_parameters())
        model.train()
        x = images(SETTINGS["image_ordinal"], SETTINGS["batch"], SETTINGS["image_size"])
        logits = model(x, by_node(SETTINGS["mix"]))
        loss = F.cross_entropy(logits, train_labels(SETTINGS["batch"]))
        loss.backward()
        largest = max(p.grad.norm() for p in model.parameters())
        rows = [
            [n, name, list(p.shape), digest(p.grad) if p.grad.norm() > ROUNDING * largest else None]
            for n, (name, p) in enumerate(model.named_parameters())
        ]
        buffers = moved_buffer_table(model)
        path = F.one_hot(torch.tensor([int(d) - 1 for d in SETTINGS["path"]]), 4).tolist()
        model.eval()
        with torch.no_grad():
            x = images(SETTINGS["evaluated_ordinal"], SETTINGS["batch"], SETTINGS["image_size"])
            evaluated = model(x, by_node(path))
    content = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_insights64.py"),
        "settings": SETTINGS,
        "logits": logits.tolist(),
        "loss": loss.item(),
        "weights": {"digest": DIGEST, "columns": ["ordinal", "name", "shape", "grad"], "rows": rows},
        "buffers": buffers,
        "evaluated": evaluated.tolist(),
    }
    return [write(folder, case, content)]
