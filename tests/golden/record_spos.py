"""Golden steps of SPOS in megvii-model/SinglePathOneShot: the ShuffleNet supernet, two consecutive steps of its training
on two given paths.

The official training function takes the steps: drawing a path, loss, backward pass, the removal of gradients that sum
to 0, by which it tells what did not run, and the step of SGD in its two groups of weights. What it draws is given: the
first range of multiply-adds and then the path, which is not weighed. The rate stays as it is, and its measure of
accuracy, whose reshapes current PyTorch does not allow, is left out. The network is without dropout; its last pooling
is 7x7, for images of 224 pixels, and for ours of 64 it is replaced by 2x2, as wide as the map.
"""

from types import SimpleNamespace
from unittest import mock

import torch
from observe import DIGEST, ROUNDING, around_step, digest, golden_environment, moved_buffer_table, provenance, write
from official import load
from rule import FIRST_IMAGE_ORDINAL, fill_weights, images, train_labels
from torch import nn

REPOSITORY = "megvii-model/SinglePathOneShot"
CASES = ("spos_shufflenet",)
SETTINGS = {
    "classes": 10,
    "batch": 4,
    "image_size": 64,
    "smoothing": 0.1,
    "lr": 0.05,
    "momentum": 0.9,
    "weight_decay": 4e-5,
    "blocks": "shuffle 3x3, shuffle 5x5, shuffle 7x7, xception",
    "stage_repeats": [4, 4, 8, 4],
    "image_ordinals": [FIRST_IMAGE_ORDINAL, FIRST_IMAGE_ORDINAL + 2],
    "evaluated_ordinal": FIRST_IMAGE_ORDINAL + 4,
}
FIRST = [(d + d // 4 - d // 16) % 4 for d in range(20)]
PATHS = (FIRST, [(column + (d % 3 == 0)) % 4 for d, column in enumerate(FIRST)])
"""Columns of the blocks. The first path holds all four kinds, both where the size is kept and where it is halved. Two
blocks of three are the same in the second, which moves them by momentum, too; the third rests."""
ADAPTED = (("from flops import get_cand_flops", "get_cand_flops = None"),)
"""It would read a table from the working folder, which no case needs."""


class Feed:
    """Gives the official function its batches."""

    def __init__(self, ordinals):
        self.ordinals = iter(ordinals)

    def next(self):
        """Return the next images and labels."""
        count = SETTINGS["batch"]
        return images(next(self.ordinals), count, SETTINGS["image_size"]), train_labels(count)


def draws(path):
    """What stands in place of NumPy in the script: random numbers that give the first range and then the path."""
    given = iter([0, *path])
    return SimpleNamespace(random=SimpleNamespace(randint=lambda high: next(given)))


def step_of(script, model, arguments, path, number):
    """What an official step on a path showed, and where it left what it moved."""
    named = list(model.named_parameters())
    seen = {"before": {name: p.detach().clone() for name, p in named}}

    def keep_gradients():
        seen["grads"] = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}

    def keep_logits(module, inputs, output):
        seen["logits"] = output.tolist()

    def keep_loss(module, inputs, output):
        seen["loss"] = output.item()

    handles = [
        model.register_forward_hook(keep_logits),
        arguments.loss_function.register_forward_hook(keep_loss),
    ]
    patches = mock.patch.multiple(
        script,
        np=draws(path),
        get_cand_flops=lambda path: 290e6,
        accuracy=lambda logits, labels, topk: (torch.zeros(()), torch.zeros(())),
    )
    with patches, around_step(arguments.optimizer, before=keep_gradients):
        script.train(model, torch.device("cpu"), arguments, val_interval=1, all_iters=number)
    for handle in handles:
        handle.remove()
    return seen


def described(model, path, seen):
    """The step as plain values."""
    largest = max(g.norm() for g in seen["grads"].values())
    rows = []
    for ordinal, (name, weight) in enumerate(model.named_parameters()):
        moved = not torch.equal(weight, seen["before"][name])
        if moved != (name in seen["grads"]):
            raise ValueError(f"{name} has a gradient and rests, or has none and moves")
        if moved:
            grad = seen["grads"][name]
            kept = digest(grad) if grad.norm() > ROUNDING * largest else None
            rows.append([ordinal, name, list(weight.shape), kept, digest(weight)])
    return {
        "path": path,
        "logits": seen["logits"],
        "loss": seen["loss"],
        "weights": {"digest": DIGEST, "columns": ["ordinal", "name", "shape", "grad", "after"], "rows": rows},
        "buffers": moved_buffer_table(model),
    }


def record(case, checkout, folder):
    """Record the case."""
    script, _ = load(checkout, ["src/Supernet"], "train.py", replacements=ADAPTED)
    with golden_environment():
        model = script.ShuffleNetV2_OneShot(input_size=SETTINGS["image_size"], n_class=SETTINGS["classes"])
        fill_weights(model.named_parameters())
        model.dropout.p = 0.0
        model.globalpool = nn.AvgPool2d(SETTINGS["image_size"] // 32)
        arguments = SimpleNamespace(
            optimizer=torch.optim.SGD(
                script.get_parameters(model),
                lr=SETTINGS["lr"],
                momentum=SETTINGS["momentum"],
                weight_decay=SETTINGS["weight_decay"],
            ),
            loss_function=script.CrossEntropyLabelSmooth(SETTINGS["classes"], SETTINGS["smoothing"]),
            scheduler=SimpleNamespace(step=lambda: None),
            train_dataprovider=Feed(SETTINGS["image_ordinals"]),
            display_interval=1000,
            save_interval=1000,
        )
        steps = [
            described(model, path, step_of(script, model, arguments, path, number)) for number, path in enumerate(PATHS)
        ]
        model.eval()
        seen = images(SETTINGS["evaluated_ordinal"], SETTINGS["batch"], SETTINGS["image_size"])
        with torch.no_grad():
            evaluated = [model(seen, path).tolist() for path in PATHS]
    content = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_spos.py")
        | {"functions": "src/Supernet/train.py train; network.py ShuffleNetV2_OneShot; blocks.py; utils.py"},
        "settings": SETTINGS,
        "steps": steps,
        "evaluated": evaluated,
    }
    return [write(folder, case, content)]
