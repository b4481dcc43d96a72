"""Black-box searches from a recipe to a run."""

import json
import os
import signal

import pyarrow.parquet as pq
import pytest
import torch

import gapless
from gapless.core.bound import budget
from gapless.core.cost import count_macs
from gapless.core.errors import Stopped, UserError
from gapless.core.searcher import explore
from gapless.reports import show as report
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.searchers.regularized_evolution import RegularizedEvolution
from gapless.spaces.nasbench201 import NASBench201
from gapless.studies import limits
from gapless.studies.show import figures
from gapless.tables import load

SPACE = NASBench201()
SEARCHERS = ("random", "regularized_evolution", "local_search", "evolution")


def recipe(file, method="regularized_evolution", *, evaluations=30, limit=None, seed=0, **settings):
    score = {"name": "table", "file": str(file), "evaluations": evaluations}
    space = {"name": "nasbench201"}
    return Recipe(space=space, method={"name": method, **settings}, score=score, limit=limit or {}, run={"seed": seed})


def shown(run):
    return [{k: v for k, v in r.items() if k not in ("seconds", "peak_memory_mb")} for r in run.trace()]


@pytest.mark.parametrize("method", SEARCHERS)
def test_a_search_by_a_table(method, made_up, tmp_path):
    found = gapless.search(recipe(made_up, method), out=tmp_path / "run")
    trace = shown(found.run)
    assert [r["epoch"] for r in trace] == list(range(30))
    table = load(made_up)
    row = table.row(found.arch)
    best = max(r["score"] for r in trace)
    assert row["cifar10_valid_12"] == pytest.approx(best, abs=1e-3)
    assert trace[-1]["best"] == best == found.score["value"]
    assert trace[-1]["arch"] == str(found.arch)
    assert found.score["evaluations"] == 30
    assert found.score["architectures"] == len({r["asked"] for r in trace})
    assert found.summary()["score"]["title"] == "cifar10_valid_12 of accuracy.parquet"
    assert (found.space.size, found.space.channels, found.space.classes) == (32, 3, 10)  # no image was read
    again = gapless.resume(found.run)
    assert (again.arch, again.score) == (found.arch, found.score)


def test_the_run_is_what_the_plain_loop_does(made_up):
    found = gapless.search(recipe(made_up, seed=4))
    table = load(made_up)
    searcher = RegularizedEvolution(SPACE, seed=4)
    explore(searcher, lambda arch: table.row(arch)["cifar10_valid_12"], 30)
    assert searcher.best() == found.arch


def test_random_without_a_score_is_one_draw_as_ever(tmp_path):
    given = Recipe(space={"name": "nasbench201"}, method={"name": "random"}, data={"name": "digits"})
    found = gapless.search(given, out=tmp_path / "run")
    assert found.score is None
    assert "score" not in found.summary()
    assert not (tmp_path / "run" / "trace.jsonl").exists()


@pytest.mark.parametrize("method", SEARCHERS)
def test_the_answer_and_all_that_is_asked_hold_the_limits(method, made_up, tmp_path):
    found = gapless.search(recipe(made_up, method, limit={"macs": "60M", "params": "500k"}), out=tmp_path / "run")
    asked = budget(SPACE, ["macs=60M", "params=500k"])
    assert all(asked.respects(SPACE.read(r["asked"])) for r in found.run.trace())
    assert count_macs(SPACE.alone().network(found.arch), (3, 32, 32)) <= 60e6
    assert {held.unit for held in found.limits} == {"macs", "params"}


def test_limits_that_nothing_holds_are_told_before_anything_is_written(made_up, tmp_path):
    with pytest.raises(UserError, match="the smallest has"):
        gapless.search(recipe(made_up, limit={"params": "1k"}), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_best_that_holds_the_limits_as_measured_is_the_answer(monkeypatch):
    asked = limits.Limits(budget(SPACE, ["macs=100G"]), None, "cpu")
    first, second = (SPACE.sample(torch.Generator().manual_seed(i)) for i in (1, 2))
    assert limits.best_within([first, second], asked)[0] == first
    monkeypatch.setattr(
        limits.Limits,
        "costs",
        lambda self, arch, ms=None: (limits.BoundCost("macs", 1.0, 2.0 if arch == first else 0.5),),
    )
    assert limits.best_within([first, second], asked)[0] == second
    with pytest.raises(UserError, match="none holds"):
        limits.best_within([first], asked)


class Stop:
    """Asks the run to stop after so many evaluations, as an interrupt does."""

    def __init__(self, after):
        self.after = after

    def __call__(self, record):
        if record.epoch + 1 == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("after", "pause"), [(1, 0.0), (13, 0.0), (30, 0.0), (13, 60.0)])
@pytest.mark.parametrize("method", SEARCHERS)
def test_an_interrupted_run_goes_on_to_the_same_end(method, after, pause, made_up, tmp_path, monkeypatch):
    monkeypatch.setattr("gapless.studies.explore.PAUSE", pause)
    whole = gapless.search(recipe(made_up, method), out=tmp_path / "whole")
    with pytest.raises(Stopped):
        gapless.search(recipe(made_up, method), out=tmp_path / "cut", on_progress=Stop(after))
    cut = Run.open(tmp_path / "cut")
    assert not cut.ended
    assert (cut.path / "checkpoint.pt").is_file() == (pause == 0)
    with (cut.path / "trace.jsonl").open("a") as file:  # killed between the trace and the checkpoint, and in a line
        file.write(json.dumps({"epoch": after, "asked": "?", "seconds": 0.0}) + '\n{"epo')
    found = gapless.resume(cut)
    assert shown(cut) == shown(whole.run)
    for name in ("arch.json", "recipe.toml", "cell.svg"):
        assert (cut.path / name).read_bytes() == (whole.run.path / name).read_bytes()
    assert (found.arch, found.score) == (whole.arch, whole.score)


def test_a_table_that_changed_is_not_gone_on_with(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr("gapless.studies.explore.PAUSE", 0.0)
    file = tmp_path / "accuracy.parquet"
    table = pq.read_table(made_up)
    pq.write_table(table, file)
    with pytest.raises(Stopped):
        gapless.search(recipe(file), out=tmp_path / "run", on_progress=Stop(5))
    pq.write_table(table.set_column(1, "cifar10_valid_12", table["cifar10_test_200"]), file)
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != ".lock"}
    with pytest.raises(UserError, match="what gives its scores has changed"):
        gapless.resume(tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != ".lock"} == before


def test_figures_of_a_run_on_its_way_and_at_its_end(made_up, tmp_path):
    with pytest.raises(Stopped):
        gapless.search(recipe(made_up), out=tmp_path / "run", on_progress=Stop(7))
    found = figures(tmp_path / "run")
    assert list(found.files) == ["cell", "evaluations"]
    assert "after evaluation 7" in found.notes[0]
    gapless.resume(tmp_path / "run")
    assert figures(tmp_path / "run").notes == ()
    with pytest.raises(UserError, match="black-box search"):
        figures(tmp_path / "run", table=made_up)
    assert list(report.draw_run(Run.open(tmp_path / "run")).figures) == ["cell", "evaluations"]


def test_images_that_are_named_are_read(made_up, tmp_path):
    given = recipe(made_up).over(data={"name": "digits", "train_images": 60, "test_images": 20})
    found = gapless.search(given, out=tmp_path / "run")
    assert (found.space.size, found.space.channels) == (8, 1)
    assert len(found.run.images()["names"]) == 10
    assert gapless.search(recipe(made_up), out=tmp_path / "other").run.images() == {}


def test_a_search_by_an_inherited_score(supernet, tmp_path):
    given = Recipe(
        method={"name": "evolution", "population": 6, "parents": 3, "mutations": 3, "crossovers": 3},
        score={"name": "inherited", "run": str(supernet.path), "images": 60, "calibration": 2, "evaluations": 14},
    )
    found = gapless.search(given, out=tmp_path / "run")
    assert found.score["architectures"] == 14
    assert found.run.found()[1].width == 4
    assert found.run.images()["names"] == supernet.images()["names"]
    assert found.run.recipe().data["name"] == "digits"  # for the training of the answer
    whole = shown(found.run)
    with pytest.raises(Stopped):
        gapless.search(given, out=tmp_path / "cut", on_progress=Stop(9))
    gapless.resume(tmp_path / "cut")
    assert shown(Run.open(tmp_path / "cut")) == whole
    with pytest.raises(UserError, match="Leave them out"):
        gapless.search(given.over(data={"name": "elsewhere"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": {"evaluations": 0}}, "`evaluations` must be at least 1; got 0"),
        ({"score": {"evaluations": "many"}}, "whole number"),
        ({"score": {"colum": "x"}}, "`colum` is no setting of table"),
        ({"score": {"name": "inherited"}}, "needs `run`"),
        ({"score": {"name": "tabel"}}, "Did you mean 'table'"),
        ({"method": {"name": "darts"}}, "darts trains a supernet and asks for no score"),
        ({"method": {"name": "evolution", "rate": 2.0}}, "from 0 to 1; got 2.0"),
    ],
)
def test_wrong_recipes(changes, said, made_up, tmp_path):
    with pytest.raises(UserError, match=said):
        gapless.search(recipe(made_up).over(**changes), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_needs_a_score_says_what_to_type():
    with pytest.raises(UserError, match="Set `score` to table, with the `score.file`"):
        gapless.search(Recipe(space={"name": "nasbench201"}, method={"name": "evolution"}))


def test_another_score_keeps_the_number_of_evaluations():
    one = Recipe(score={"name": "table", "file": "x", "evaluations": 7})
    assert one.over(score={"name": "inherited", "run": "y"}).score == {
        "name": "inherited", "run": "y", "evaluations": 7,
    }  # fmt: skip


def test_each_search_has_a_usual_number_of_evaluations(made_up):
    given = recipe(made_up, "evolution")
    given = Recipe(**{**given.__dict__, "score": {"name": "table", "file": str(made_up)}})
    assert gapless.search(given).score["evaluations"] == 1000


def test_an_interrupt_saves_and_stops(made_up, tmp_path):
    def interrupt(record):
        if record.epoch == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="gapless resume"):
        gapless.search(recipe(made_up), out=tmp_path / "run", on_progress=interrupt)
    assert [r["epoch"] for r in Run.open(tmp_path / "run").trace()] == [0, 1, 2, 3, 4]
    assert gapless.resume(tmp_path / "run").score["evaluations"] == 30
