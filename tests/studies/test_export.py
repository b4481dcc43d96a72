"""Exports of runs and texts: whose weights, what is told, and that a failure leaves nothing."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import gapless
from gapless.core.errors import UserError
from gapless.engine.supernet import Supernet
from gapless.formats.python import module_of
from gapless.runs.run import Run
from gapless.studies import export as study
from gapless.studies.export import FORMATS, export
from gapless.studies.retrain import retrain

CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
SMALL = {"width": 4, "cells": 1, "size": 8}
DATA = {"name": "digits", "train_images": 60, "test_images": 20}
STAGED = gapless.Recipe(
    space={"name": "nasbench201", "width": 8, "cells": 1},
    method={"name": "drnas", "progressive": True, "warmup": 0},
    train={"epochs": 2, "batch": 16},
    data=DATA,
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of two stages, the second wider than the first."""
    path = tmp_path_factory.mktemp("runs") / "searched"
    gapless.search(STAGED, out=path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training of a small DARTS network, with an auxiliary head and drop path."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    fields = {"width": 4, "cells": 3}
    retrain("DARTS_V2", data=DATA, fields=fields, protocol={"epochs": 1, "batch": 20}, out=path)
    return path


def images_of(told, count=3):
    return torch.randn(count, told["channels"], told["size"], told["size"])


def test_a_training_gives_its_weights_and_its_accuracy(trained, tmp_path):
    found = export(trained, out=tmp_path / "out")
    told = json.loads((tmp_path / "out" / "model.json").read_text())
    assert told == found.told
    result = Run.open(trained).result()
    assert told["trained"] is True and told["accuracy"] == result["test_accuracy"]
    assert (told["params"], told["macs"]) == (result["params"], result["macs"])
    assert (told["classes"], told["channels"], told["size"], len(told["names"])) == (10, 1, 8, 10)
    assert found.summary()["warning"] == ""
    arch, space = Run.open(trained).found()
    assert space.auxiliary and space.drop_path
    network = space.network(arch).eval()
    network.load_state_dict(load_file(trained / "weights.safetensors"))
    model = module_of(tmp_path / "out" / "model.py")
    x = images_of(told)
    with torch.no_grad():
        assert torch.equal(model.load()(x), network(x))
    assert list(model.MEAN) == told["mean"] and list(model.STD) == told["std"] and list(model.NAMES) == told["names"]
    digits = gapless.data.load("digits", train_images=60, test_images=20)
    assert list(digits.mean) == told["mean"] and list(digits.std) == told["std"]
    plain = (digits.test.pixels[:4].float() / 255 - torch.tensor(model.MEAN).view(1, -1, 1, 1)) / model.STD[0]
    torch.testing.assert_close(plain, digits.batch(digits.test, torch.arange(4))[0])


def test_files_are_listed_with_their_hashes(searched, tmp_path):
    told = export(searched, formats=("py", "torch"), out=tmp_path / "out", fields=SMALL).told
    assert set(told["files"]) == {"model.py", "weights.safetensors", "model.pt2"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*told["files"], "model.json"}
    for name, digest in told["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert told["differences"] == {"py": 0.0, "torch": 0.0}


def test_a_search_gives_its_architecture_untrained_at_the_size_of_the_paper(searched, tmp_path):
    found = export(searched, out=tmp_path / "out")
    arch, space = Run.open(searched).found()
    assert found.model.space == space.alone()
    assert (found.told["trained"], found.told["accuracy"]) == (False, None)
    assert found.told["params"] == gapless.evaluate(searched)["params"]
    assert found.told["arch"] == str(arch)
    assert "UNTRAINED" in found.summary()["warning"]
    assert "UNTRAINED" in (tmp_path / "out" / "model.py").read_text()


def test_inherited_weights_are_those_of_the_last_stage(searched, tmp_path):
    found = export(searched, out=tmp_path / "out", inherit=True)
    arch, space = Run.open(searched).found()
    last = space.replace(partial=2)
    assert found.model.space == last
    supernet = Supernet(last)
    weights = load_file(searched / "weights.safetensors")
    supernet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("method.")})
    x = images_of(found.told)
    with torch.no_grad():
        wanted = supernet.eval().inherit(arch)(x)
        assert torch.equal(module_of(tmp_path / "out" / "model.py").load()(x), wanted)
    assert (found.told["weights"], found.told["trained"]) == ("inherited", False)
    assert "supernet" in found.summary()["warning"]


def test_a_text_gives_random_weights_that_are_always_the_same(tmp_path):
    first = export(CELL, out=tmp_path / "a", fields=SMALL)
    again = export(CELL, out=tmp_path / "b", fields=SMALL)
    assert first.told["files"] == again.told["files"]
    assert (first.told["mean"], first.told["names"], first.told["trained"]) == (None, None, False)
    full = export("DARTS_V2", out=tmp_path / "c", fields={"classes": 37})
    assert full.told["params"] == 3_349_342 + 27 * 577
    assert "auxiliary" not in " ".join(load_file(tmp_path / "c" / "weights.safetensors"))


def test_images_that_are_gone_are_not_needed(searched, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for file in searched.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace('name = "digits"', f'name = "{tmp_path / "gone"}"'))
    Run(run).end()
    found = export(run, out=tmp_path / "out", inherit=True)
    digits = gapless.data.load("digits", train_images=60, test_images=20)
    assert tuple(found.told["mean"]) == digits.mean
    assert tuple(found.told["names"]) == digits.classes


def test_without_a_folder_exports_are_named_and_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [str(export(CELL, fields=SMALL).path) for _ in range(2)]
    assert paths == ["exports/network", "exports/network-2"]
    fields = {"width": 4, "cells": 1, "size": 8}
    assert str(export("DARTS_V1", fields=fields).path) == "exports/DARTS_V1"


# ---------------------------------------------------------------------- what is refused, and leaves nothing


def test_what_contradicts_itself_is_answered_in_words(searched, trained, tmp_path):
    cases = [
        ((trained,), {"inherit": True}, "leave out `inherit`"),
        ((trained,), {"fields": {"width": 8}}, "`width` cannot be changed: .* trained"),
        ((searched,), {"inherit": True, "fields": {"cells": 2}}, "`cells` cannot be changed: .* supernet"),
        ((CELL,), {"inherit": True}, "give its run folder"),
        ((CELL,), {"formats": ("py", "onxx")}, "Did you mean 'onnx'"),
        ((CELL,), {"formats": ()}, "Give a format: py, onnx, torch"),
        ((CELL,), {"fields": {"widht": 8}}, "Did you mean 'width'"),
    ]
    for given, options, said in cases:
        with pytest.raises(UserError, match=said):
            export(*given, out=tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_a_supernet_has_nothing_to_inherit(tmp_path):
    recipe = gapless.Recipe(space={"name": "nasbench201"}, method={"name": "random"}, data=DATA)
    gapless.search(recipe, out=tmp_path / "run")
    with pytest.raises(UserError, match="random trains no supernet"):
        export(tmp_path / "run", out=tmp_path / "out", inherit=True)
    assert export(tmp_path / "run", out=tmp_path / "out", fields=SMALL).told["trained"] is False


def test_weights_that_do_not_fit_are_said_so(searched, trained, tmp_path):
    for source, options in ((searched, {"inherit": True}), (trained, {})):
        run = tmp_path / source.name
        run.mkdir()
        for file in source.iterdir():
            (run / file.name).write_bytes(file.read_bytes())
        weights = load_file(run / "weights.safetensors")
        weights.pop(next(n for n in weights if "classifier.bias" in n and "auxiliary" not in n))
        save_file(weights, run / "weights.safetensors")
        Run(run).end()
        with pytest.raises(UserError, match="do not fit"):
            export(run, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match="already there and not empty"):
        export(CELL, out=tmp_path / "out", fields=SMALL)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine"]
    (tmp_path / "empty").mkdir()
    assert export(CELL, out=tmp_path / "empty", fields=SMALL).path == tmp_path / "empty"


@pytest.mark.parametrize("error", [UserError("no"), RuntimeError("no"), KeyboardInterrupt(), OSError(28, "disk full")])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(model, folder):
        (folder / "half").write_text("half")
        raise error

    monkeypatch.setitem(study.FORMATS, "torch", fail)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        export(CELL, formats=("py", "torch"), out=tmp_path / "deep" / "out", fields=SMALL)
    assert list(tmp_path.iterdir()) == []
    assert list(FORMATS) == ["py", "onnx", "torch"]
