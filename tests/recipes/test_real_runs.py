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
    "random": {"name": "random"},
}


@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", VARIANTS)
def test_search(method, space, data, request, tmp_path):
    images = {"name": "digits", "train_images": 600}
    if data == "cifar10":
        images = {"name": str(request.getfixturevalue("cifar10")), "size": 16, "train_images": 600, "test_images": 100}
    fields = {"name": space, **SPACES[space]}
    if method == "drnas-progressive" and space == "darts":
        fields["width"] = 12
    recipe = Recipe(
        space=fields,
        method=VARIANTS[method],
        train={"epochs": 4, "batch": 32, "lr": 0.025},
        data=images,
        run={"threads": 1},
    )
    found = search(recipe, out=tmp_path / "run")
    records = list(found.run.trace())
    assert found.run.found()[0] == found.arch
    if method != "random":
        assert [r["epoch"] for r in records] == [0, 1, 2, 3]
        assert records[-1]["train_loss"] < records[0]["train_loss"]
