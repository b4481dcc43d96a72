"""Images that are not square: every size is a height and a width."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import gapless
from gapless.core.cost import count_macs
from gapless.core.errors import UserError
from gapless.spaces.darts import Darts
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet

HEIGHT, WIDTH = 16, 24


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("wide")
    chance = np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for i in range(20):
            pixels = chance.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def found(images, tmp_path_factory):
    recipe = gapless.Recipe(
        space={"name": "nasbench201", "width": 4, "cells": 1},
        method={"name": "darts"},
        train={"epochs": 1, "batch": 16},
        data={"name": str(images)},
        run={"threads": 1},
        retrain={"space": {"cells": 1, "width": 4}},
        limit={"macs": "1.2M"},
    )
    return gapless.search(recipe, out=tmp_path_factory.mktemp("run") / "run")


@pytest.mark.parametrize(
    "space",
    [
        NASBench201(size=(HEIGHT, WIDTH), width=4, cells=1),
        Darts(size=(HEIGHT, WIDTH), width=4, cells=3),
        ShuffleNet(size=(HEIGHT, WIDTH)),
        Mobile(size=(HEIGHT, WIDTH)),
    ],
    ids=lambda s: s.label,
)
def test_costs_are_those_of_the_network(space):
    arch = space.sample(torch.Generator().manual_seed(0))
    network = space.network(arch).eval()
    macs = count_macs(network, (3, HEIGHT, WIDTH))
    table, constant = space.cost_table("macs")
    assert constant + int((table * space.encode(arch)).sum()) == macs
    assert macs != count_macs(space.replace(size=WIDTH).network(arch), (3, WIDTH, WIDTH))
    if space.label in ("shufflenet", "mobile"):
        (drawn,) = space.pictures(arch)
        assert f"{HEIGHT // 2}x{WIDTH // 2}" in drawn.nodes[0]


def test_a_square_of_two_numbers_is_one_number():
    assert NASBench201(size=(8, 8)) == NASBench201(size=8)
    assert NASBench201(size=[8, 16]).image_shape == (3, 8, 16)
    with pytest.raises(UserError, match="`size` must each be at least 1; got 0"):
        NASBench201(size=(8, 0))


def test_a_search_counts_and_records_them(found):
    arch, space = found.run.found()
    assert space.size == (HEIGHT, WIDTH)
    network = space.alone().replace(cells=1, width=4).network(arch)
    (limit,) = found.limits
    assert limit.cost == count_macs(network, (3, HEIGHT, WIDTH)) <= limit.most


def test_what_is_exported_takes_them(found, images, tmp_path):
    trained = gapless.retrain(found.run.path, protocol={"epochs": 1, "batch": 16}, out=tmp_path / "alone")
    gapless.export(trained.run.path, formats=["py", "onnx"], out=tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "model.json").read_text())
    assert facts["size"] == [HEIGHT, WIDTH]
    text = (tmp_path / "out" / "model.py").read_text()
    assert f"SIZE = ({HEIGHT}, {WIDTH})  # height, width" in text
    assert f"3 x {HEIGHT} x {WIDTH} images" in text
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, HEIGHT, WIDTH]
