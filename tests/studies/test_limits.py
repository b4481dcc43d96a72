import json

import pytest

from gapless.core.bound import budget
from gapless.core.cost import count_macs
from gapless.core.errors import UserError
from gapless.runs.checked import check_recipe
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies import limits, search
from gapless.studies.pipeline import Callback
from gapless.studies.resume import resume

SPACE = {"name": "nasbench201", "width": 4, "cells": 1}
DATA = {"name": "digits", "train_images": 64, "test_images": 20}


def recipe(method="darts", limit=None, **settings):
    train = {"epochs": 2, "batch": 16, "lr": 0.05}
    return Recipe(space=SPACE, method={"name": method, **settings}, train=train, data=DATA, limit=limit or {})


@pytest.mark.parametrize("method", ["darts", "drnas", "dropnas", "random"])
def test_the_answer_holds_the_limits(method, tmp_path):
    settings = {} if method == "random" else {"arch_lr": 0.3}
    found = search.search(recipe(method, {"macs": "1M", "params": "150k"}, **settings), out=tmp_path / "run")
    network = found.space.alone().network(found.arch)
    assert count_macs(network, (1, 8, 8)) <= 1e6
    told = {entry["unit"]: entry for entry in found.summary()["limits"]}
    assert told["macs"] == {"unit": "macs", "most": 1e6, "cost": found.summary()["macs"]}
    assert told["params"]["cost"] == found.summary()["params"] <= 150_000
    trace = list(Run.open(tmp_path / "run").trace())
    assert all(record["cost"]["macs"] > 0 for record in trace)
    asked = budget(found.space, ["macs=1M", "params=150k"])
    assert all(asked.respects(found.space.read(record["arch"])) for record in trace)


def test_the_expected_cost_falls_below_the_limit():
    told = []
    asked = recipe("darts", {"macs": "1M"}, arch_lr=0.1).over(train={"epochs": 12})
    search.search(asked, on_progress=told.append)
    assert told[0].cost["macs"] > 1.2e6
    assert told[-1].cost["macs"] < 1e6
    free = []
    search.search(asked.over(limit={"strength": 0.0}), on_progress=free.append)
    assert free[-1].cost["macs"] > 1.2e6


def test_what_no_architecture_can_hold_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"at most 10,000 parameters: the smallest has 73,018"):
        search.search(recipe(limit={"params": "10k"}), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_the_retraining_is_what_counts():
    asked = recipe(limit={"params": "30k"})
    smaller = Recipe(**{**asked.__dict__, "retrain": {"protocol": "nasbench201", "space": {"cells": 1, "width": 8}}})
    found = search.search(smaller)
    assert found.limits[0].cost <= 30_000
    with pytest.raises(UserError, match="the smallest has"):
        search.search(asked)


@pytest.fixture
def measurements(monkeypatch):
    """Latencies that are MACs: deterministic, and true of every network."""

    known = {}  # a module is asked in each of many rounds

    def timer(module, inputs):
        if module not in known:
            known[module] = count_macs(module, *(tuple(x.shape[1:]) for x in inputs)) / 1e6
        return known[module]

    measure, measured, asked = limits.measure, limits.measured, []

    def counted(*given, **named):
        asked.append(given)
        return measure(*given, **{**named, "timer": timer})

    monkeypatch.setattr(limits, "measure", counted)
    monkeypatch.setattr(
        limits,
        "measured",
        lambda network, shape, device, **named: measured(network, shape, device, timer=timer, **named),
    )
    return asked


def test_latency_is_measured_once_and_kept_with_the_run(measurements, tmp_path):
    found = search.search(recipe("darts", {"latency": "1ms"}, arch_lr=0.3), out=tmp_path / "run")
    held = found.limits[0]
    assert held.unit == "latency"
    assert held.cost == pytest.approx(found.summary()["macs"] / 1e6)
    assert held.cost <= 1.0
    assert json.loads((tmp_path / "run" / "latency.json").read_text())
    assert len(measurements) == 1
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "arch.json").unlink()
    again = resume(tmp_path / "run")
    assert again.arch == found.arch
    assert len(measurements) == 1
    other = recipe("darts", {"latency": "1ms", "latency_file": str(tmp_path / "run" / "latency.json")}, arch_lr=0.3)
    assert search.search(other).arch == found.arch
    assert len(measurements) == 1


def test_a_table_of_another_machine_is_believed_and_that_is_said(measurements, monkeypatch, tmp_path):
    class Ear(Callback):
        notice = None

        def on_start(self, resolved, run, notice):
            self.notice = notice

    limit, near, far = {"latency": "1ms"}, Ear(), Ear()
    search.search(recipe("darts", limit, arch_lr=0.3), out=tmp_path / "run", on_progress=near)
    assert near.notice == ""
    file = tmp_path / "phone.json"
    content = json.loads((tmp_path / "run" / "latency.json").read_text())
    file.write_text(json.dumps({**content, "device": "a phone"}))
    monkeypatch.setattr(limits, "measured", None)  # nothing is measured here
    for method in ("darts", "random"):
        other = recipe(method, {**limit, "latency_file": str(file)})
        found = search.search(other, on_progress=far)
        assert "a phone" in far.notice
        assert "not measured here" in far.notice
        assert found.limits[0].cost == pytest.approx(found.summary()["macs"] / 1e6)
        assert found.limits[0].cost <= 1


def test_a_network_slower_than_its_table_is_replaced(measurements, monkeypatch):
    other = {"seed": 2}  # under seed 0 the free answer is the cheapest of all
    free = search.search(recipe("darts", {"latency": "100ms"}).over(run=other))
    timed = limits.Limits.timed
    monkeypatch.setattr(limits.Limits, "timed", lambda self, arch: 1.5 * timed(self, arch))
    most = 1.2 * free.limits[0].cost
    found = search.search(recipe("darts", {"latency": f"{most}ms"}).over(run=other))
    assert found.arch != free.arch
    assert found.limits[0].cost <= most


def test_of_judged_candidates_the_next_best_takes_the_place_of_one_that_is_too_slow(measurements, monkeypatch):
    free = search.search(recipe("rsps", {"latency": "100ms"}, archs=12, images=8, finalists=3))
    timed = limits.Limits.timed
    slow = {str(free.arch)}
    monkeypatch.setattr(limits.Limits, "timed", lambda self, arch: 1e3 if str(arch) in slow else timed(self, arch))
    found = search.search(recipe("rsps", {"latency": "100ms"}, archs=12, images=8, finalists=3))
    assert str(found.arch) not in slow
    assert found.judged["images"] == 32  # another finalist
    assert found.judged["accuracy"] <= free.judged["accuracy"]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"macs": "fast"}, "macs takes a number"),
        ({"flops": "1M"}, "It has: macs, params, latency"),
        ({"params": 5}, "must be text"),
        ({"latency": "5"}, "us, ms, s"),
    ],
)
def test_wrong_limits(limit, said):
    with pytest.raises(UserError, match=said):
        check_recipe(recipe(limit=limit))


def test_random_says_when_it_finds_none(monkeypatch):
    monkeypatch.setattr(limits, "DRAWS", 3)
    with pytest.raises(UserError, match="None of 3 random architectures holds params=73.1k"):
        search.search(recipe("random", {"params": "73.1k"}))
