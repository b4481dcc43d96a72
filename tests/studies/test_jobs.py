"""Jobs in processes of their own, here and on a real Ray cluster: they end, fail, are killed, and are stopped."""

import os
import signal
import subprocess
import time

import pytest

from gapless.core.errors import UserError
from gapless.runs.checkpoint import NAME
from gapless.runs.log import last_failure
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies.job_work import finish_search
from gapless.studies.jobs import Here, Job, OnRay, _Running

KILLED = "kill -9 $PPID"


def job(folder, name, work, **given):
    return Job(name, work, given, folder / "logs" / f"{name}.log")


def some_of_each(folder):
    """A job that ends, one that raises, one with an error of the user's, one that is killed, and one that ends."""
    return [
        job(folder, "good", os.mkdir, path=folder / "made"),
        job(folder, "raises", os.rmdir, path=folder / "nowhere"),
        job(folder, "wrong", Recipe.read, given="no_such_recipe"),
        job(folder, "killed", subprocess.run, args=["sh", "-c", KILLED]),
        job(folder, "last", os.mkdir, path=folder / "made_last"),
    ]


def endless(folder, name="run"):
    """A search that runs until it is stopped."""
    recipe = Recipe(
        space={"name": "nasbench201", "width": 4, "cells": 1},
        method={"name": "darts"},
        train={"epochs": 10_000, "batch": 32},
        data={"name": "digits", "train_images": 100, "test_images": 20},
        run={"threads": 1, "save_every": 1e-9, "execution": "reference"},
    )
    return job(folder, name, finish_search, recipe=recipe, out=folder / name)


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


def check_some_of_each(folder, came):
    assert {name: c.state for name, c in came.items()} == {
        "good": "ended", "raises": "failed", "wrong": "failed", "killed": "failed", "last": "ended",
    }  # fmt: skip
    assert (folder / "made").is_dir()
    assert (folder / "made_last").is_dir()
    assert came["raises"].error.startswith("FileNotFoundError: ")
    log = (folder / "logs" / "raises.log").read_text()
    assert "Traceback" in log
    assert log.splitlines()[-1] == f"Failed: {came['raises'].error}"
    assert came["wrong"].error.startswith("There is no recipe 'no_such_recipe'.")
    assert "Traceback" not in (folder / "logs" / "wrong.log").read_text()
    assert (folder / "logs" / "killed.log").read_text().splitlines()[-1] == f"Failed: {came['killed'].error}"


def test_a_job_that_fails_or_is_killed_does_not_sink_the_others(tmp_path):
    told = []
    came = Here(2).run(some_of_each(tmp_path), lambda job, came: told.append((job.name, came)))
    check_some_of_each(tmp_path, came)
    assert came["killed"].error == "killed by signal 9 (SIGKILL), as a system out of memory does."
    assert [name for name, c in told if c is None] == ["good", "raises", "wrong", "killed", "last"]
    assert {name: c for name, c in told if c is not None} == came
    running = ended = 0
    for _, c in told:
        running, ended = running + (c is None), ended + (c is not None)
        assert running - ended <= 2
    (tmp_path / "nowhere").mkdir()
    again = Here().run([job(tmp_path, "raises", os.rmdir, path=tmp_path / "nowhere")], lambda job, came: None)
    assert (again["raises"].state, again["raises"].error) == ("ended", "")
    log = (tmp_path / "logs" / "raises.log").read_text()
    assert log.count("Begun ") == 2
    assert not last_failure(tmp_path / "logs" / "raises.log")


def test_an_interrupt_lets_runs_save_and_begins_no_more(tmp_path):
    jobs = [endless(tmp_path), job(tmp_path, "never", os.mkdir, path=tmp_path / "never")]

    def told(job, came):
        wait_for(tmp_path / "run" / NAME)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        Here().run(jobs, told)
    assert signal.getsignal(signal.SIGTERM) == before
    run = Run.open(tmp_path / "run")
    assert not run.ended
    assert "Stopped. Go on with: gapless resume" in (tmp_path / "logs" / "run.log").read_text()
    assert not (tmp_path / "never").exists()


def test_a_job_stops_when_whoever_gave_it_is_gone(tmp_path):
    running = _Running.begin(endless(tmp_path), 0, 1)
    wait_for(tmp_path / "run" / NAME)
    running.close()  # as the system does for a process that is killed
    assert running.process.wait(timeout=60) == 130
    assert not Run.open(tmp_path / "run").ended


def test_how_many_at_once():
    with pytest.raises(UserError, match="`jobs` must be at least 1; got 0"):
        Here(0)


@pytest.mark.needs_ray
def test_the_same_on_a_ray_cluster(tmp_path, cluster):
    mark = tmp_path / "mark"
    lost = f"[ -e {mark} ] || {{ touch {mark}; {KILLED}; }}"
    once = job(tmp_path, "lost_once", subprocess.run, args=["sh", "-c", lost])
    came = OnRay(cluster).run([*some_of_each(tmp_path), once], lambda job, came: None)
    assert came.pop("lost_once").state == "ended"  # begun again on another worker
    assert mark.exists()
    check_some_of_each(tmp_path, came)


@pytest.mark.needs_ray
def test_an_interrupt_of_jobs_on_ray(tmp_path, cluster):
    first = job(tmp_path, "first", os.mkdir, path=tmp_path / "first")

    def told(job, came):
        wait_for(tmp_path / "run" / NAME)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OnRay(cluster).run([endless(tmp_path), first, endless(tmp_path, "second")], told)
    run = Run.open(tmp_path / "run")
    assert not run.ended
    assert "Stopped. Go on with: gapless resume" in (tmp_path / "logs" / "run.log").read_text()


@pytest.mark.needs_ray
def test_no_cluster_is_an_error_with_a_way_out(cluster):
    with pytest.raises(UserError, match=r"There is no Ray cluster at nowhere:x .*give `ray` as local"):
        OnRay("nowhere:x").run([], lambda job, came: None)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'gapless\[ray\]'"):
        OnRay("auto").run([], lambda job, came: None)
