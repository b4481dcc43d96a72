"""What every run shares: a recipe that is checked once, callbacks, and what is refused before anything is written."""

import pytest

import gapless
from gapless.core.errors import UserError
from gapless.runs import checked
from gapless.runs.recipe import Recipe
from gapless.runs.resolved import ResolvedDraw, ResolvedSearch, ResolvedTraining, resolve
from gapless.runs.run import Run
from gapless.studies.pipeline import Callback
from gapless.studies.results import SearchResult, TrainingResult
from gapless.studies.retrain import plan, train

DATA = {"name": "digits", "train_images": 64, "test_images": 40}
SMALL = {"width": 4, "cells": 1}


def recipe(method="random", retrain=None, **settings):
    return Recipe(
        space={"name": "nasbench201", **SMALL},
        method={"name": method, **settings},
        train={"epochs": 2, "batch": 16},
        data=DATA,
        retrain=retrain or {},
        run={"threads": 1, "execution": "reference"},
    )


class Log(Callback):
    """Keeps what it is called with."""

    def __init__(self):
        self.resolved, self.notice, self.records, self.judgements = None, None, [], []

    def on_start(self, resolved, run, notice):
        assert not self.records
        self.resolved, self.notice = resolved, notice

    def on_record(self, record):
        self.records.append(record)

    def on_judged(self, judgement):
        self.judgements.append(judgement)


@pytest.fixture
def found(monkeypatch):
    """The tables of recipes whose names are looked up, in order."""
    tables, component = [], checked.component

    def counted(recipe, table, *kinds):
        tables.append(table)
        return component(recipe, table, *kinds)

    monkeypatch.setattr(checked, "component", counted)
    return tables


def test_a_recipe_is_checked_once(found, tmp_path):
    gapless.search(recipe("darts"), out=tmp_path / "run")
    assert found == ["space", "method"]
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "arch.json").unlink()
    found.clear()
    gapless.resume(tmp_path / "run")
    assert found == ["space", "method"]


def test_a_training_is_checked_once_and_resumes(found, tmp_path):
    text = "|none~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
    given = plan(text, data=DATA, fields=SMALL, protocol={"epochs": 1, "batch": 32}, run={"threads": 1})
    assert found == []
    trained = train(given, out=tmp_path / "run")
    assert found == ["space"]
    assert isinstance(gapless.resume(tmp_path / "run"), TrainingResult)
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "result.json").unlink()
    found.clear()
    log = Log()
    again = gapless.resume(tmp_path / "run", on_progress=log)
    assert found == ["space"]
    assert isinstance(log.resolved, ResolvedTraining)
    assert log.records == []  # the checkpoint is behind its last epoch
    assert again.accuracy == trained.accuracy


def test_a_callback_is_called_at_the_start_with_each_record_and_with_each_judgement():
    log, records = Log(), []
    result = gapless.search(recipe("rsps", archs=4, images=8, finalists=2), on_progress=log)
    assert isinstance(log.resolved, ResolvedSearch)
    assert log.notice == ""
    assert [record.epoch for record in log.records] == [0, 1]
    assert len(log.judgements) >= result.judged["archs"] == 4
    gapless.search(recipe("darts"), on_progress=records.append)
    assert [record.epoch for record in records] == [0, 1]


def test_a_draw_has_nothing_to_loop_over(tmp_path):
    log = Log()
    result = gapless.search(recipe(), out=tmp_path / "run", on_progress=log)
    assert isinstance(log.resolved, ResolvedDraw)
    assert log.records == []
    assert SearchResult.read(result.run).arch == result.arch
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "arch.json").unlink()
    assert gapless.resume(tmp_path / "run").arch == result.arch


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (recipe("darts", arch_lr="fast"), "`arch_lr` must be a number"),
        (recipe(retrain={"start": "inherited"}), "random trains no supernet"),
        (recipe().over(data={"size": 0}), "size"),
        (recipe().over(run={"device": "abacus"}), "no device 'abacus'"),
        (Recipe(arch="x", space={"name": "nasbench201"}), "a search takes a recipe without `arch`"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(given, said, tmp_path):
    with pytest.raises(UserError, match=said):
        gapless.search(given, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_resolved_without_a_second_look(found):
    """Its kind, typed settings and objects are all there: nothing behind it reads a table again."""
    resolved = resolve(recipe("dropnas"))
    assert found == ["space", "method"]
    found.clear()
    assert (resolved.run.threads, resolved.train.epochs, resolved.space.width) == (1, 2, 4)
    assert resolved.method.make(resolved.space).plan.coupling == "joint"
    assert resolved.full().toml().startswith("[space]")
    assert found == []


def test_another_process_keeps_the_folder(tmp_path):
    gapless.search(recipe(), out=tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="already there and not empty"):
        gapless.search(recipe(), out=Run.open(tmp_path / "run").path)
    assert sorted(tmp_path.rglob("*")) == before
