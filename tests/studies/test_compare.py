"""Comparisons as one job: killed, gone on with, extended, refused."""

import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from killing import finish, outcome, start

import gapless
from gapless.core.errors import Stopped, UserError
from gapless.runs.comparison import ComparisonCell, Folder
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies import compare as study
from gapless.studies import job_work
from gapless.studies.compare import compare
from gapless.studies.job_work import finish_search
from gapless.studies.jobs import Outcome

SPACE = {"name": "nasbench201", "width": 4, "cells": 1}
BASE = Recipe(
    space=SPACE,
    methods={"drnas": {"arch_lr": 0.01}},
    train={"epochs": 6, "batch": 32},
    data={"name": "digits", "train_images": 100, "test_images": 20},
    run={"threads": 1, "save_every": 1e-9, "execution": "reference"},
)
ENDED = Outcome("ended")


@pytest.fixture
def inside(monkeypatch):
    """Do jobs in this process, in milliseconds; the list of their names as they come."""
    done = []

    def run(self, jobs, told):
        came = {}
        for job in jobs:
            done.append(job.name)
            try:
                job.work(**job.given)
                came[job.name] = ENDED
            except (UserError, RuntimeError) as error:
                job.log.parent.mkdir(exist_ok=True)
                job.log.write_text(f"Failed: {error}\n")
                came[job.name] = Outcome("failed", str(error))
            told(job, came[job.name])
        return came

    monkeypatch.setattr(study.Here, "run", run)
    return done


def by_table(file, **more):
    score = {"name": "table", "file": str(file), "evaluations": 5}
    return Recipe(space={"name": "nasbench201"}, score=score, **more)


@pytest.mark.process
def test_a_killed_comparison_goes_on(tmp_path):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(BASE.over(method={"name": "darts"}).toml())
    process = start("compare", recipe, "--methods", "random,drnas", "--seeds", 3, "--out", out)
    half = out / "drnas-digits-seed3"
    end = time.monotonic() + 120
    while len(list(Run(half).trace())) < 2:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = Run.open(out / "random-digits-seed3")
    assert first.ended and not Run.open(half).ended
    before = {p: p.stat().st_mtime_ns for p in first.path.iterdir() if p.name != ".lock"}
    said = finish("compare", out)
    assert "2 runs. 1 of them had ended before." in said
    assert before == {p: p.stat().st_mtime_ns for p in first.path.iterdir() if p.name != ".lock"}
    log = (out / "logs" / "drnas-digits-seed3.log").read_text()
    assert log.count("Begun ") == 2
    assert log.count("epoch 1: ") == log.count("epoch 6: ") == 1  # it went on and did not begin again
    alone = BASE.over(method={"name": "drnas", **BASE.methods["drnas"]}, run={"seed": 3})
    one, other = outcome(gapless.search(alone, out=tmp_path / "whole").run.path), outcome(half)
    for name in set(one) - {"recipe.toml"}:
        assert other[name] == one[name], name


def test_what_has_ended_is_not_run_again_and_more_can_be_added(inside, made_up, tmp_path):
    base = by_table(made_up)
    given = {"table": made_up, "out": tmp_path / "c"}
    compare(base, methods=["random", "local_search"], seeds=[0, 1], **given)
    assert inside == ["check", "random-seed0", "local_search-seed0", "random-seed1", "local_search-seed1"]
    inside.clear()
    again = compare(base, methods=["random", "local_search"], seeds=[0, 1], **given)
    assert (inside, again.came) == ([], {})
    more = compare(base, methods=["random", "local_search", "evolution"], seeds=[0, 1, 2], **given)
    assert inside == [
        "evolution-seed0", "evolution-seed1", "random-seed2", "local_search-seed2", "evolution-seed2",
    ]  # fmt: skip
    assert more.failed == {}
    assert [len(rows) for rows in more.report.groups[0].rows.values()] == [3, 3, 3]
    fewer = compare(base, methods=["evolution"], seeds=[0], **given)
    assert list(fewer.report.groups[0].rows) == ["evolution"]
    assert all(path.is_file() for path in fewer.files.values())


def test_other_settings_are_refused_and_nothing_is_written(inside, made_up, tmp_path):
    plain, out = by_table(made_up), tmp_path / "c"
    base = by_table(made_up, methods={"evolution": {"parents": 4}})
    assert compare(base, methods=["random", "evolution"], seeds=[0], table=made_up, out=out).failed == {}
    compare(plain, methods=["random"], seeds=[0], table=made_up, out=out)  # evolution is left out in between
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    inside.clear()
    for other, said in (
        (base.over(score={"evaluations": 6}), "score.evaluations is 6, and was 5"),
        (plain, "evolution: parents is not set, and was 4"),
    ):
        with pytest.raises(UserError, match=f"holds runs with other settings: {said}"):
            compare(other, methods=["evolution"], seeds=[0, 1], table=made_up, out=out)
    assert inside == []
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_one_run_that_fails_does_not_sink_the_rest(inside, made_up, tmp_path):
    out, given = tmp_path / "c", {"methods": ["random", "evolution"], "table": made_up, "out": tmp_path / "c"}
    compare(by_table(made_up), seeds=[0], **given)
    (out / "random-seed1").mkdir()
    (out / "random-seed1" / "mine.txt").write_text("something else")
    found = compare(by_table(made_up), seeds=[0, 1, 2], **given)
    assert list(found.failed) == ["random-seed1"]
    assert [r.state for r in found.report.groups[0].rows["random"]] == ["ended", "failed", "ended"]
    assert "is already there and not empty" in found.report.groups[0].rows["random"][1].error
    assert len(found.report.groups[0].differences["evolution"].differences) == 2
    assert "1 of 6 runs are not in the means. random-seed1: " in found.report.notes[0]
    (out / "random-seed1" / "mine.txt").unlink()
    inside.clear()
    assert compare(by_table(made_up), seeds=[0, 1, 2], **given).failed == {}
    assert inside[-1:] == ["random-seed1"]


def test_answers_are_trained_alone_with_the_seed_of_their_search(inside, tmp_path):
    base = BASE.over(retrain={"epochs": 1, "batch": 32, "space": {"width": 4, "cells": 1}})
    found = compare(base, methods=["random"], seeds=[4], retrain=True, out=tmp_path / "c")
    trained = Run.open(tmp_path / "c" / "random-digits-seed4-retrained")
    assert trained.recipe().run["seed"] == 4
    (row,) = found.report.groups[0].rows["random"]
    assert row.value == trained.result()["test_accuracy"]
    assert row.facts["params"] == trained.result()["params"]
    assert found.report.groups[0].measure == "test accuracy"
    with pytest.raises(UserError, match="retrain.epochs is 2, and was 1"):
        compare(base.over(retrain={"epochs": 2}), methods=["random"], seeds=[4], retrain=True, out=tmp_path / "c")
    (trained.path / "manifest.json").unlink()
    (trained.path / "result.json").unlink()
    inside.clear()
    assert compare(base, methods=["random"], seeds=[4], retrain=True, out=tmp_path / "c").failed == {}
    assert inside == ["random-digits-seed4"]
    assert trained.ended


def test_without_table_or_retraining_only_costs_are_compared(inside, tmp_path):
    found = compare(BASE, methods=["random"], seeds=[0, 1], out=tmp_path / "c")
    assert found.report.notes[-1].startswith("Nothing here says what the architectures are worth, only what it cost")
    assert found.report.groups[0].measure == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["rando"]}, "random"),
        ({"methods": ["regularized_evolution"]}, "searches by a score, and none is given"),
        ({"methods": ["random"], "table": "nowhere.parquet"}, "nowhere.parquet"),
        ({"methods": ["random"], "data": ["nowhere/at/all"]}, "nowhere/at/all"),
        ({"methods": ["random"], "jobs": 0}, "`jobs` must be at least 1; got 0"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(inside, tmp_path, given, said):
    with pytest.raises(UserError, match=said):
        compare(BASE, **given, seeds=[0], out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_table_is_of_one_space_and_has_columns(inside, made_up, tmp_path):
    with pytest.raises(UserError, match="There is no column 'cifar10'"):
        compare(BASE, methods=["random"], table=made_up, columns=["cifar10"], out=tmp_path / "c")
    with pytest.raises(UserError, match="The table holds cells of nasbench201; this comparison is of darts"):
        compare(Recipe(space={"name": "darts"}), methods=["random"], table=made_up, out=tmp_path / "c")


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path):
    def run(self, jobs, told):
        if jobs[0].name != "check":
            raise KeyboardInterrupt
        return {"check": ENDED}

    monkeypatch.setattr(study.Here, "run", run)
    with pytest.raises(Stopped, match=f"Go on with: gapless compare {tmp_path}"):
        compare(BASE, methods=["random"], out=tmp_path / "c")
    assert Folder.open(tmp_path / "c").comparison().methods == ("random",)


def test_a_run_that_a_killed_call_still_saves_is_waited_for(tmp_path, monkeypatch):
    recipe, out = BASE.over(method={"name": "random"}, run={"seed": 0}), tmp_path / "run"
    gapless.search(recipe, out=out)
    (out / "manifest.json").unlink()
    (out / "arch.json").unlink()
    code = (
        "import sys, time; from pathlib import Path; from gapless.runs.checkpoint import held\n"
        "from gapless.runs.run import Run\n"
        "with held(Run(Path(sys.argv[1]))): print(flush=True); time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        monkeypatch.setattr(job_work, "PATIENCE", 0.0)
        with pytest.raises(UserError, match="Another process is running"):
            finish_search(recipe, out)
        monkeypatch.setattr(job_work, "PATIENCE", 60.0)
        finish_search(recipe, out)
    assert Run.open(out).ended


def test_a_draft_of_a_killed_process_is_in_nobodys_way(tmp_path):
    out = tmp_path / ComparisonCell("random", "digits", 0).name
    out.mkdir()
    (out / ".recipe.toml.0123456789abcdef.tmp").write_text("cut o")
    finish_search(BASE.over(method={"name": "random"}), out)
    assert Run.open(out).ended


@pytest.mark.needs_ray
def test_the_same_command_on_a_ray_cluster(tmp_path, cluster, made_up):
    given = {"methods": ["random", "evolution"], "seeds": [1], "table": made_up}
    compare(by_table(made_up), **given, ray=cluster, out=tmp_path / "ray")
    for method in given["methods"]:
        for seed in given["seeds"]:
            one = gapless.search(by_table(made_up, method={"name": method}, run={"seed": seed}))
            assert Run.open(tmp_path / "ray" / f"{method}-seed{seed}").found()[0] == one.arch
    again = compare(by_table(made_up), **given, ray=cluster, out=tmp_path / "ray")
    assert again.came == {}


def test_values_are_those_of_the_table(inside, made_up, tmp_path):
    found = compare(
        by_table(made_up),
        methods=["random"],
        seeds=[0],
        table=made_up,
        columns=["cifar10_test_200"],
        out=tmp_path / "c",
    )
    (row,) = found.report.groups[0].rows["random"]
    rows = {r["arch"]: r for r in pq.read_table(made_up).to_pylist()}
    assert row.value == pytest.approx(rows[row.facts["architecture"]]["cifar10_test_200"], abs=1e-4)
