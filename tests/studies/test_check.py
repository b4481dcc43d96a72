"""``gapless check``: what it tells, and that it and ``load`` agree on every set, good or bad."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cyclopts import App
from PIL import Image

from gapless.commands import check as command
from gapless.core.errors import UserError
from gapless.data import load
from gapless.studies import check as study
from gapless.studies.check import check

NAMES = ("cat", "dog", "eel")


def folder(root: Path, n: int = 6, classes: tuple[str, ...] = NAMES, *, size: int = 8, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def broken(root: Path) -> Path:
    file = folder(root) / "dog" / "3.png"
    file.write_bytes(b"")
    return root


def all_broken(root: Path) -> Path:
    for file in folder(root).rglob("*.png"):
        file.write_text("x")
    return root


def mixed(root: Path) -> Path:
    Image.new("L", (5, 9)).save(folder(root) / "eel" / "odd.png")
    return root


def one_alone(root: Path) -> Path:
    return folder(folder(root), 1, ("fox",)).parent / root.name


def empty_class(root: Path) -> Path:
    (folder(root) / "fox").mkdir()
    return root


def unknown_class(root: Path) -> Path:
    folder(root / "train")
    folder(root / "test", 2, ("cat", "gnu"))
    return root


def with_test(root: Path) -> Path:
    folder(root / "train")
    folder(root / "val", 2, seed=1)
    return root


def no_set(root: Path) -> Path:
    root.mkdir()
    (root / "a.png").write_text("x")
    return root


Case = namedtuple("Case", "make settings told")
CASES = {
    "good": Case(folder, {}, None),
    "good with a test split": Case(with_test, {}, None),
    "subset": Case(folder, {"train_images": 6, "test_images": 3, "size": 4}, None),
    "mixed sizes made one": Case(mixed, {"size": 6}, None),
    "windows and all variations": Case(
        folder,
        {"size": 6, "stored": 7, "crop_scale": 0.2, "jitter": (0.4, 0.4, 0.4, 0.2), "randaugment": (2, 9)},
        None,
    ),
    "mixed sizes": Case(mixed, {}, "odd.png is 5 x 9"),
    "broken file": Case(broken, {}, "dog/3.png"),
    "nothing readable": Case(all_broken, {}, "no readable image"),
    "one class": Case(lambda root: folder(root, classes=("cat",)), {}, "two are needed"),
    "one image in a class": Case(one_alone, {}, "'fox' has a single image"),
    "empty class": Case(empty_class, {}, "fox holds no images"),
    "unknown test class": Case(unknown_class, {}, "gnu is no class"),
    "no set": Case(no_set, {}, "holds no set of images"),
    "column of a folder": Case(folder, {"label": "kind"}, "not columns"),
    "too large a subset": Case(folder, {"train_images": 99}, "99 train images"),
    "two windows": Case(folder, {"crop_scale": 0.1, "pad": 1}, "Leave one 0"),
    "stored too small": Case(folder, {"size": 8, "stored": 4}, "less than the size"),
    "nowhere": Case(lambda root: root, {}, "There is no folder"),
}


@pytest.mark.parametrize("name", CASES)
def test_check_and_load_agree(tmp_path: Path, name: str):
    make: Callable[[Path], Path] = CASES[name].make
    settings, told = CASES[name].settings, CASES[name].told
    path = make(tmp_path / "set")
    report = check(path, device="cpu", **settings)
    try:
        data, error = load(path, **settings), None
    except UserError as wrong:
        data, error = None, str(wrong)
    assert report["error"] == error
    assert report["usable"] == (error is None) == (told is None)
    assert told is None or told in error
    assert json.loads(json.dumps(report)) is not None
    assert (report["used"] is None) == (data is None)
    if data is not None:
        used = report["used"]
        assert (used["train"], used["test"]) == (len(data.train), len(data.test))
        assert (tuple(used["size"]), used["channels"]) == (data.size, data.channels)
        assert tuple(used["stored"]) == tuple(data.train.pixels.shape[2:])
        assert (tuple(used["mean"]), tuple(used["std"])) == (data.mean, data.std)
        assert used["augment"]["crop_scale"] == data.augment.crop_scale
        assert used["fingerprint"] == data.fingerprint
        assert report["memory"]["bytes"] == sum(
            split.pixels.numel() + 8 * len(split.labels) for split in (data.train, data.test)
        )


def test_memory_that_is_too_small_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder(tmp_path, 100, size=4)
    monkeypatch.setattr(study, "free_memory", lambda: 1000)
    monkeypatch.setattr(study, "load", lambda *_, **__: pytest.fail("loaded"))
    report = check(tmp_path, device="cpu")
    assert report["memory"] == {"bytes": 300 * (3 * 16 + 8), "free": 1000, "device": "cpu", "fits": False}
    assert not report["usable"]
    assert list(report["found"]["train"]) == [80, 80, 80]
    # 0.8 * 1000 / 16800 of 300 images, and the root of that of 4 pixels
    for part in ("16.4 KiB", "cpu has 1000 bytes free", "a `size` of 1", "14 images in all"):
        assert part in report["error"]


def test_what_is_said_to_fit_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder(tmp_path, 40, size=32)
    monkeypatch.setattr(study, "free_memory", lambda: 100_000)
    # 120 * (3 * 1024 + 8) = 369,600 bytes; 80,000 are 0.216 of them, and 0.465 is the root of that
    assert "a `size` of 14, or 25 images in all" in check(tmp_path, device="cpu")["error"]
    assert check(tmp_path, device="cpu", size=14)["usable"]
    assert check(tmp_path, device="cpu", train_images=19, test_images=6)["usable"]


def test_a_host_that_does_not_tell_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "free_memory", lambda: None)
    report = check(folder(tmp_path / "set"), device="cpu")
    assert report["usable"] and report["memory"]["free"] is None
    assert any("unknown amount" in line for line in command.lines(report))


def test_the_memory_of_this_host():
    assert study.free_memory() is None or study.free_memory() > 2**20
    assert study.in_units(1023) == "1023 bytes"
    assert study.in_units(3 * 2**30) == "3.0 GiB"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sise": 3}, "Did you mean 'size'"),
        ({"size": "many"}, "whole number"),
        ({"jitter": [0.1, 0.2]}, "must be 4 values"),
        ({"device": "tpu"}, "There is no device 'tpu'"),
    ],
)
def test_wrong_settings_raise(settings: dict[str, Any], told: str):
    with pytest.raises(UserError, match=told):
        check("digits", **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_memory_of_a_gpu(tmp_path: Path):
    memory = check(folder(tmp_path / "set"), device="cuda")["memory"]
    assert memory["device"] == "cuda" and memory["free"] > 2**20 and memory["fits"]


# The command


def run(*arguments: object) -> UserError | None:
    """Run the command and return the error that ``gapless`` turns into exit status 2."""
    app = App(name="gapless")
    app.command(command.command(["check"]), name="check")
    try:
        app(["check", *map(str, arguments)], exit_on_error=False, print_error=False, result_action="return_value")
    except UserError as error:
        return error
    return None


def test_a_good_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with_test(tmp_path / "set")
    typed = ("--data.size", 6, "--data.jitter", 0.1, 0.2, 0, 0, "--device", "cpu", "--json")
    assert run("--data", tmp_path / "set", *typed) is None
    out = capsys.readouterr().out
    told = json.loads(out.strip().splitlines()[-1])
    assert told["usable"] is True
    assert told["used"]["augment"]["jitter"] == [0.1, 0.2, 0.0, 0.0]
    for part in (
        "18 training images and 6 test images (val) in 3 classes",
        "cat: 6 + 2",
        "8x8 to 8x8",
        "RGB: 24 images (kept)",
        "the network sees 6x6 pixels, colour",
        "flip on, jitter 0.1 0.2 0.0 0.0",
        "memory: 2.7 KiB on cpu",  # 24 * (3 * 36 + 8) = 2784 bytes
        "These images can be used.",
    ):
        assert part in out
    assert "\x1b" not in out


def test_a_bad_set_is_told_whole_before_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "set"
    with_test(root)
    (root / "train" / "cat" / "0.png").write_text("x")
    (root / "train" / "dog" / "5.png").write_text("x")
    (root / "train" / "dog" / "a.heic").write_text("x")
    Image.open(root / "train" / "eel" / "1.png").save(root / "val" / "eel" / "leak.png")
    error = run("--data", root, "--device", "cpu")
    assert "cat/0.png" in str(error)
    out = capsys.readouterr().out
    for part in (
        "images that cannot be read: 2",
        "dog/5.png",
        "too: 1",
        "leak.png equals",
        "ignored by suffix: 1 .heic",
    ):
        assert part in out
    assert "can be used" not in out


def test_no_set_at_all():
    assert "gapless check --data FOLDER" in str(run())
    assert "There is no folder" in str(run("--data", "nowhere/at/all"))


def test_many_classes_are_not_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder(tmp_path, 2, tuple(f"kind{i:02}" for i in range(30)), size=2)
    assert run("--data", tmp_path, "--device", "cpu") is None
    out = capsys.readouterr().out
    assert "kind19" in out and "kind20" not in out and "and 10 more classes" in out
