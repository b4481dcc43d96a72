"""Event files, read back."""

import sys
from itertools import pairwise

import pytest

from gapless.core.errors import UserError
from gapless.reports.tensorboard import Board, rebuild
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    """Return tag -> [(step, value, time)]."""
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value, e.wall_time) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def values(found, tag):
    return [(step, pytest.approx(value)) for step, value, _ in found[tag]]  # float32


def test_a_board_holds_the_record(tmp_path, trace):
    space = Ragged()
    records = trace(space, 3)
    board = Board(tmp_path)
    for record in records:
        board.add(record, space)
    board.close()
    found = read(tmp_path)
    scored = {f"scores/{d.name}/{o}" for d in space.decisions for o in d.options}
    assert {tag for tag in found if tag.startswith("scores/")} == scored
    assert [(r["epoch"] + 1, r["scores"][3][1]) for r in records] == values(found, "scores/2<-0/skip")
    assert [(r["epoch"] + 1, r["train_loss"]) for r in records] == values(found, "loss/training")
    assert values(found, "loss/architecture") == [(2, 2.2), (3, 2.2)], "None is left out"
    assert values(found, "accuracy/held-out") == [(2, 9.0)]
    assert set(found) - scored == {
        "loss/training",
        "loss/architecture",
        "accuracy/training",
        "accuracy/held-out",
        "learning rate",
        "images per second",
    }
    times = [time for *_, time in found["loss/training"]]
    assert [b - a for a, b in pairwise(times)] == pytest.approx([2.0, 2.0], abs=1e-3)


def test_what_is_not_finite_is_left_out(tmp_path, trace):
    space = NASBench201()
    (record,) = trace(space, 1)
    record["scores"][0][0] = float("-inf")
    board = Board(tmp_path)
    board.add(record, space)
    board.close()
    found = read(tmp_path)
    assert "scores/1<-0/none" not in found and "scores/1<-0/skip_connect" in found


def test_rebuilding_replaces_the_events_and_nothing_else(trace, run_of):
    space = NASBench201()
    records = trace(space, 4)
    run = run_of(space, records)
    board = Board(run.path / "tensorboard")
    for record in records[:2]:
        board.add({**record, "train_loss": 99.0}, space)
    board.close()
    (run.path / "tensorboard" / "notes.txt").write_text("mine")
    for _ in range(2):
        assert rebuild(run) == run.path / "tensorboard"
        assert len(list((run.path / "tensorboard").iterdir())) == 2
        found = read(run.path / "tensorboard")
        assert [(r["epoch"] + 1, r["train_loss"]) for r in records] == values(found, "loss/training")
    assert not list(run.path.glob(".tensorboard*"))


def test_a_network_trained_alone(retrained, trace, run_of):
    space = NASBench201()
    run = run_of(space, retrained, ended=False, arch=trace(space, 1)[0]["arch"])
    found = read(rebuild(run))
    assert values(found, "accuracy/test") == [(4, 42.0)]
    assert not [tag for tag in found if tag.startswith("scores")]


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'gapless\[tensorboard\]'"):
        Board(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Board(tmp_path / "file" / "board")
