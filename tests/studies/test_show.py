"""Figures of runs from Python."""

import json

import pytest

import gapless
from gapless.studies.show import figures, show

TINY = {
    "space": {"name": "nasbench201", "width": 4, "cells": 1},
    "train": {"epochs": 2, "batch": 16},
    "data": {"train_images": 60, "test_images": 20},
    "run": {"threads": 1},
}


@pytest.fixture
def run(tmp_path):
    found = gapless.search(gapless.Recipe.read("demo").over(**TINY), out=tmp_path / "run")
    assert found.run is not None
    return found.run


def test_figures_of_a_search(run, tmp_path, table_file):
    found = figures(run.path, table=table_file, tensorboard=True)
    assert {name: path.name for name, path in found.files.items()} == {
        "cell": "cell.svg",
        "scores": "scores.svg",
        "training": "training.svg",
        "range": "range.svg",
    }
    assert all(path.parent == run.path and b"</svg>" in path.read_bytes() for path in found.files.values())
    assert str(found.arch) == json.loads((run.path / "arch.json").read_text())["arch"]
    assert found.notes == ()
    assert found.range["epoch"] == 2 and found.range["draws"] == 100
    assert found.range["min"] <= found.range["lower_quartile"] <= found.range["upper_quartile"] <= found.range["max"]
    assert found.tensorboard == run.path / "tensorboard" and len(list(found.tensorboard.iterdir())) == 1

    elsewhere = figures(run.path, out=tmp_path / "paper", kind="pdf")
    assert {p.name for p in (tmp_path / "paper").iterdir()} == {"cell.pdf", "scores.pdf", "training.pdf"}
    assert elsewhere.range is None and elsewhere.tensorboard is None
    assert show(run.path, out=tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawn_cell_has_no_curves(tmp_path):
    recipe = gapless.Recipe.read("demo").over(**{**TINY, "method": {"name": "random"}, "train": {}})
    gapless.search(recipe, out=tmp_path / "run")
    found = figures(tmp_path / "run")
    assert list(found.files) == ["cell"]
    assert "nothing was trained" in found.notes[0]


def test_wrong_input_is_told(tmp_path):
    with pytest.raises(gapless.UserError, match="svg, png or pdf"):
        figures(tmp_path, kind="gif")
    with pytest.raises(gapless.UserError, match="is no run"):
        figures(tmp_path)
    with pytest.raises(gapless.UserError, match=r"\.svg, \.png, \.pdf"):
        show("DARTS_V1", out=tmp_path / "cell.gif")
