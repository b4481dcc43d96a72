"""Every command that reports an accuracy says what it is of."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gapless.commands.app import run

FEW = ("--threads", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A set with a validation and a test split, which can be told apart by their numbers of images."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 12), ("val", 3), ("test", 2)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(100 * count + i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return root


def test_each_says_on_which_split(photos, tmp_path, monkeypatch, capsys):
    """Also those that follow: the split that a search was told to leave alone is the one that its training is tested
    on."""
    monkeypatch.chdir(tmp_path)

    def told(*words):
        assert run([str(word) for word in words]) == 0
        return capsys.readouterr().out

    search = ("search", "--space", "nasbench201", "--space.width", 4, "--space.cells", 1, "--method", "darts")
    data = ("--data", photos, "--data.test_split", "val", "--train.epochs", 1, "--train.batch", 4)
    assert "Test images, which are not trained on: 6, the val split." in told(
        *search, *data, "--execution", "reference", *FEW, "--out", "run"
    )
    few = ("--archs", 2, "--budgets", 1, *FEW)
    assert "Accuracies are of 6 test images, which the search never saw: the val split." in told("gap", "run", *few)
    small = ("--space.width", 4, "--space.cells", 1, "--retrain.batch", 8, *FEW)
    out = told("retrain", "run", "--epochs", 1, *small, "--out", "alone")
    assert "on 6 images: the val split" in out
    assert "on 6 images: the val split" in told("export", "alone", "--out", "exported")
    model = json.loads((tmp_path / "exported" / "model.json").read_text())
    assert model["tested_on"] == "6 images: the val split"
    assert "% of 6 images: the val split" in (tmp_path / "exported" / "model.py").read_text()
    told("report", "alone")
    assert "They are the val split." in (tmp_path / "alone" / "report.html").read_text()


def test_options_of_a_space_are_known_before_its_run_has_ended(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    search = ("search", "--space", "nasbench201", "--space.width", 4, "--space.cells", 1, "--method", "random")
    assert run([*map(str, search), "--data", str(photos), *FEW, "--out", "run"]) == 0
    for name in ("manifest.json", "arch.json"):
        (tmp_path / "run" / name).unlink()
    capsys.readouterr()
    assert run(["retrain", "run", "--space.width", "8", "--out", "alone"]) == 2
    said = capsys.readouterr().err
    assert "has not ended" in said and "gapless resume run" in said
    shutil.rmtree(tmp_path / "run")
