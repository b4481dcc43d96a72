"""Tiny real runs, minutes in all: each method on each space with digits and with CIFAR-10 images at a reduced size."""

import pytest

from gapless.runs.recipe import Recipe
from gapless.studies.search import search

pytestmark = pytest.mark.recipe
SPACES = {"nasbench201": {"width": 8, "cells": 1}, "darts": {"width": 4, "cells": 3}}
VARIANTS = {
    "darts": {"name": "darts"},
    "darts-unrolled": {"name": "darts", "unrolled": True},
    "drnas": {"name": "drnas"},
    "drnas-progressive": {"name": "drnas", "progressive": True, "warmup": 0},
    "dropnas": {"name": "dropnas"},
    "pc_darts": {"name": "pc_darts"},
    "beta_darts": {"name": "beta_darts"},
    "gdas": {"name": "gdas"},
    "gdas-scalar-fill": {"name": "gdas", "estimator": "scalar_fill"},
    "snas": {"name": "snas"},
    "snas-bilevel-resource": {"name": "snas", "bilevel": True, "resource": 1e-3},
    "dsnas": {"name": "dsnas"},
    "dsnas-macs-coast": {"name": "dsnas", "macs": 1e-3, "macs_from": 0.0, "freeze": 0.02, "inactive": "coast"},
    "enas": {"name": "enas", "steps": 3, "samples": 3, "candidates": 5},
    "enas-per-epoch": {"name": "enas", "steps": 3, "samples": 3, "candidates": 5, "baseline": "per_epoch_last"},
    "rsps": {"name": "rsps", "archs": 12, "images": 100, "finalists": 3},
    "spos": {"name": "spos", "evaluations": 12, "images": 100, "calibration": 200},
    "fairnas": {"name": "fairnas", "evaluations": 12, "images": 100, "calibration": 200},
    "fairnas-own": {"name": "fairnas", "batches": "own", "gradients": "mean", "evaluations": 8, "calibration": 200},
    "da_nas": {"name": "da_nas", "classes": (0.5, 1.0)},
    "random": {"name": "random"},
}
BATCH = {"fairnas-own": 8, "da_nas": 16}
"""Where a batch of 32 leaves but a few updates: seven batches are one, or half of the epochs see half of the images."""
BLOCKS = {
    "shufflenet": {"stem_width": 8, "widths": (16, 32), "repeats": (2, 2), "strides": (1, 2, 2), "head_width": 32},
    "mobile": {"width": 0.25, "layers": (1, 2, 1, 1, 1, 1), "strides": (1, 1, 2, 2, 1, 2, 1)},
}


def run(space, method, data, request, out):
    """Search for four epochs, check what every search leaves, and return the records."""
    images = {"name": "digits", "train_images": 600}
    if data == "cifar10":
        images = {"name": str(request.getfixturevalue("cifar10")), "size": 16, "train_images": 600, "test_images": 100}
    recipe = Recipe(
        space=space,
        method=VARIANTS[method],
        train={"epochs": 4, "batch": BATCH.get(method, 32), "lr": 0.025, "lr_warmup": 0, "arch_share": 0.5},
        data=images,
        run={"threads": 1},
    )
    found = search(recipe, out=out)
    records = list(found.run.trace())
    assert found.run.found()[0] == found.arch
    judged = found.run.judged()
    if VARIANTS[method]["name"] in ("enas", "rsps", "spos", "fairnas"):
        assert str(found.arch) in [row["arch"] for row in judged["archs"]]
        assert all(0 <= row["accuracy"] <= 100 for row in judged["archs"])
    if method != "random":
        assert [r["epoch"] for r in records] == [0, 1, 2, 3]
        last = records[-1]
        same = [r for r in records if method != "da_nas" or r["stage"] == last["stage"]]  # it adds classes
        assert last["train_loss"] < same[0]["train_loss"]
    return records


@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", VARIANTS)
def test_search(method, space, data, request, tmp_path):
    fields = {"name": space, **SPACES[space]}
    if method == "drnas-progressive" and space == "darts":
        fields["width"] = 12
    run(fields, method, data, request, tmp_path / "run")


@pytest.mark.parametrize(
    ("space", "method"),
    [
        *(("shufflenet", m) for m in ("snas", "dsnas-macs-coast", "enas", "rsps", "spos", "fairnas", "da_nas")),
        *(("mobile", m) for m in ("dsnas-macs-coast", "enas", "spos", "fairnas", "da_nas")),
    ],
)
def test_search_of_blocks(space, method, request, tmp_path):
    run({"name": space, **BLOCKS[space]}, method, "cifar10", request, tmp_path / "run")
