import os
import pickle
import re
import zipfile

import lines
import pytest
import torch

from gapless.core.errors import UserError
from gapless.runs import checkpoint
from gapless.runs.checkpoint import FORMAT, NAME, held, load, save
from gapless.runs.run import Run

STATE = {"epoch": 3, "weights": {"a": torch.arange(4.0)}, "none": None, "list": [1, "x", 0.1]}


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write("recipe.toml", '[space]\nname = "darts"\n[method]\nname = "darts"\n')
    return run


def contents(run):
    return {p.name: p.read_bytes() for p in run.path.iterdir()}


def test_what_is_saved_is_loaded(run):
    assert load(run, images="f") is None
    save(run, STATE, images="f")
    found, trace = load(run, images="f")
    assert trace == []
    assert found["epoch"] == 3
    assert found["none"] is None
    assert found["list"] == [1, "x", 0.1]
    assert torch.equal(found["weights"]["a"], torch.arange(4.0))
    assert not list(run.path.glob(".*tmp"))


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_named_and_left_alone(run, keep):
    save(run, STATE, images="f")
    path = run.path / NAME
    path.write_bytes(path.read_bytes()[:keep])
    before = contents(run)
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*the run begins anew"):
        load(run, images="f")
    assert contents(run) == before


def test_a_damaged_byte_is_found(run):
    save(run, {"weights": torch.zeros(1000)}, images="f")
    path = run.path / NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(run, images="f")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("form", ["torch", "pickle", "in the state"])
def test_a_checkpoint_from_a_stranger_executes_nothing(run, form):
    path = run.path / NAME
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif form == "torch":
        torch.save(Bomb(), path)
    else:
        save(run, STATE, images="f")
        whole = torch.load(path, weights_only=True)
        torch.save({**whole, "state": {"epoch": Bomb()}}, path)
    with pytest.raises(UserError, match="damaged, or is no checkpoint"):
        load(run, images="f")


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_another_file_is_no_checkpoint(run, content):
    (run.path / NAME).write_bytes(content)
    with pytest.raises(UserError, match="no checkpoint"):
        load(run, images="f")


def test_a_zip_or_a_tensor_is_no_checkpoint(run):
    with zipfile.ZipFile(run.path / NAME, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(UserError, match="no checkpoint"):
        load(run, images="f")
    torch.save({"weights": torch.zeros(2)}, run.path / NAME)
    with pytest.raises(UserError, match="no checkpoint of Gapless"):
        load(run, images="f")


def test_another_version_recipe_or_set_of_images_is_named(run, monkeypatch):
    save(run, STATE, images="f")
    with pytest.raises(UserError, match="images are not those"):
        load(run, images="g")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "version", lambda _: "9.9")
        with pytest.raises(UserError, match=r"written by Gapless .*; this is 9\.9.*pip install gapless=="):
            load(run, images="f")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", FORMAT + 1)
        with pytest.raises(UserError, match="written by Gapless"):
            load(run, images="f")
    (run.path / "recipe.toml").write_text('[space]\nname = "darts"\n[method]\nname = "drnas"\n')
    with pytest.raises(UserError, match="belongs to another run, or .* was changed since"):
        load(run, images="f")


def test_a_full_disk_leaves_the_checkpoint_before(run, monkeypatch):
    save(run, STATE, images="f")
    before = contents(run)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*saved before is whole.*gapless resume"):
        save(run, {"epoch": 4}, images="f")
    with pytest.raises(UserError, match=re.escape("trace.jsonl cannot be written")):
        run.append(lines.line())
    monkeypatch.undo()
    (run.path / "trace.jsonl").unlink()
    assert contents(run) == before


def test_a_folder_that_cannot_be_written(run, monkeypatch):
    save(run, STATE, images="f")
    before, really = contents(run), os.open

    def refuse(path, flags, *given, **named):
        if flags & os.O_WRONLY:
            raise PermissionError(13, "Permission denied")
        return really(path, flags, *given, **named)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        save(run, {"epoch": 4}, images="f")
    assert contents(run) == before


def test_one_process_at_a_time(run):
    with held(run), pytest.raises(UserError, match="Another process is running"), held(run):
        pass
    with held(run):
        pass


def test_the_trace_is_restored(run):
    """Epochs after the checkpoint, a line that was cut off, and damage are taken back."""
    told = [lines.line(epoch=epoch) for epoch in range(3)]
    save(run, STATE, images="f", trace=told[:2])
    for line in told:
        run.append(line)
    with (run.path / "trace.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss"')
    assert [r["epoch"] for r in run.trace()] == [0, 1, 2]
    _, trace = load(run, images="f")
    assert trace == told[:2]
    for damage in (b"", b"{}\n", b"3\n", b"\xff", told[1].encode() + b"\n"):
        (run.path / "trace.jsonl").write_bytes(damage)
        run.restore(trace)
        assert [r["epoch"] for r in run.trace()] == [0, 1]
    (run.path / "trace.jsonl").unlink()
    run.restore(trace)
    assert (run.path / "trace.jsonl").read_text() == "".join(f"{line}\n" for line in told[:2])
