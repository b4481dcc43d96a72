"""``gapless gap`` as a function."""

import json
import math

import pyarrow.parquet as pq
import pytest
from scored import searched

from gapless.core.errors import UserError
from gapless.runs.run import Run
from gapless.studies.evaluate import evaluate
from gapless.studies.gap import drawn, gap, ranked
from gapless.studies.search import finished

FEW = {"archs": 4, "images": 40, "budgets": (1, 3), "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def measured(supernet, made_up):
    before = contents(supernet)
    found = gap(supernet.path, table=made_up, **FEW)
    assert {name: value for name, value in contents(supernet).items() if name in before} == before
    assert sorted(set(contents(supernet)) - set(before)) == ["gap.json"]
    return found


def contents(run):
    return {path.name: path.read_bytes() for path in run.path.iterdir() if not path.name.startswith("gap")} | {
        path.name: b"" for path in run.path.glob("gap*")
    }


def test_the_chain(measured, supernet, made_up):
    assert [step.name for step in measured.chain] == ["supernet", "discretised", "recalibrated", "tuned", "alone"]
    told = evaluate(supernet.path, table=made_up)
    assert measured.chain[-1].accuracy == told["table"]["cifar10_test_200"]
    assert measured.notation == told["notation"]
    assert measured.statistics["recalibrated"] == measured.chain[2].accuracy
    assert measured.statistics["running"] == measured.chain[1].accuracy
    assert measured.error == pytest.approx(100 * math.sqrt(0.25 / 40))


def test_the_sample(measured, supernet, made_up):
    """The answer first, every architecture once, the truth that of the table."""
    assert measured.sample[0].arch == str(finished(supernet).arch)
    assert len({judged.arch for judged in measured.sample}) == 5
    rows = pq.read_table(made_up).to_pydict()
    truth = dict(zip(rows["arch"], rows["cifar10_test_200"], strict=True))
    assert [judged.truth for judged in measured.sample] == [round(truth[j.notation], 4) for j in measured.sample]
    assert list(measured.sample[0].scores) == ["inherited", "recalibrated", "tuned 1", "tuned 3", "params", "macs"]
    assert measured.sample[0].scores["inherited"] == measured.chain[1].accuracy
    assert measured.sample[0].scores["tuned 3"] == measured.chain[3].accuracy
    for name, told in measured.measures.items():
        scores = [judged.scores[name] for judged in measured.sample]
        assert told == ranked(scores, [judged.truth for judged in measured.sample])


def test_how_firmly_it_had_decided(measured, supernet):
    assert [d["name"] for d in measured.decisions] == [d.name for d in finished(supernet).space.decisions]
    for decision in measured.decisions:
        assert 0.9 < decision["entropy"] <= 1  # two epochs hardly move it
        assert 0 <= decision["margin"] < 0.2
        assert 0.15 < decision["kept"] < 0.4
    assert len(measured.fixing) == 6
    assert measured.fixing[-1][1] == pytest.approx(measured.chain[1].accuracy)
    assert measured.late == {
        "epochs": 2,
        "changes": measured.late["distinct"] - 1,
        "distinct": measured.late["distinct"],
    }


def test_stability_over_seeds(supernet, made_up, tmp_path):
    """Against the same run every ranking is the same; another seed ranks otherwise, and both answers count."""
    same = gap(supernet.path, table=made_up, beside=[supernet.path], **FEW).seeds
    assert same == {"runs": 2, "tau": 1.0, "largest": 1.0, "smallest": 1.0, "agreement": 1.0}
    other = searched(tmp_path / "other", run={"threads": 1, "seed": 5})
    found = gap(supernet.path, beside=[other.path], **{**FEW, "archs": 8}).seeds
    ours, theirs = finished(supernet).arch, finished(other).arch
    assert found["tau"] == found["largest"] == found["smallest"] < 1
    equal = [ours[name] == theirs[name] for name in ours]
    assert found["agreement"] == pytest.approx(0.5 + 0.5 * sum(equal) / len(equal), abs=1e-4)
    with pytest.raises(UserError, match="--beside takes runs of the same space"):
        gap(
            supernet.path,
            beside=[searched(tmp_path / "darts", space={"name": "darts", "width": 4, "cells": 2}).path],
            **FEW,
        )
    assert not (other.path / "gap.json").exists()


def test_it_is_the_same_when_repeated(measured, supernet, made_up):
    again, before = gap(supernet.path, table=made_up, **FEW).plain(), measured.plain()
    for told in (again, before):
        del told["seconds"]
        for step in told["chain"]:
            del step["seconds"]
    assert again == before
    other = gap(supernet.path, table=made_up, **{**FEW, "budgets": ()}, seed=1).plain()
    assert [j["arch"] for j in other["sample"][1:]] != [j["arch"] for j in before["sample"][1:]]
    assert [step["name"] for step in other["chain"]] == ["supernet", "discretised", "recalibrated", "alone"]


def test_the_file_holds_the_same(supernet, made_up):
    found = gap(supernet.path, table=made_up, **FEW)
    assert json.loads((supernet.path / "gap.json").read_text()) == found.plain()


def test_without_a_table_there_is_no_truth(supernet):
    found = gap(supernet.path, **FEW)
    assert (found.truth, found.measures, found.ceiling) == (None, {}, None)
    assert found.chain[-1].name == "tuned"
    assert all(judged.truth is None for judged in found.sample)


@pytest.mark.parametrize("method", ["gdas", "spos"])
def test_methods_that_draw(method, tmp_path):
    settings = {"evaluations": 2} if method == "spos" else {}
    run = searched(tmp_path / "run", method, **settings)
    found = gap(run.path, **FEW)
    assert len(found.chain) == 4
    page = drawn(run.path)
    assert page.path.read_text().startswith("# The gap of a search")


def test_the_page_is_written_with_its_figures(supernet, made_up):
    gap(supernet.path, table=made_up, **FEW)
    page = drawn(supernet.path)
    text = page.path.read_text()
    for name in ("gap-chain", "gap-ranking", "gap-fixing"):
        assert f"({name}.svg)" in text
        assert (supernet.path / f"{name}.svg").read_text().lstrip().startswith("<?xml")
    assert all(finding.text in text for finding in page.findings)


def test_what_cannot_be_is_a_sentence(supernet, made_up, tmp_path):
    for settings, message in [
        ({"archs": 1}, "--archs is 1; it must be at least 2"),
        ({"images": 0}, "--images is 0; it must be at least 1"),
        ({"budgets": (64, 8)}, r"--budgets are \[64, 8\]; give ascending"),
        ({"budgets": (0, 8)}, r"--budgets are \[0, 8\]; give ascending"),
        ({"table": made_up, "column": "cifar10_test_2000"}, "cifar10_test_200"),
        ({"table": tmp_path / "none"}, "There is no table"),
    ]:
        with pytest.raises(UserError, match=message):
            gap(supernet.path, **{**FEW, **settings})
    with pytest.raises(UserError, match="no run"):
        gap(tmp_path)
    (tmp_path / "new").mkdir()
    run = Run.create(tmp_path / "new" / "run")
    run.write("recipe.toml", supernet.recipe().toml())
    with pytest.raises(UserError, match="has not ended"):
        gap(run.path)
    with pytest.raises(UserError, match="was not measured yet. Measure it with: gapless gap"):
        drawn(run.path)
