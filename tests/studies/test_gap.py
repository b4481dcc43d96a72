"""``gapless gap`` as a function."""

import json
import math
from dataclasses import replace

import in_turn
import pyarrow.parquet as pq
import pytest
from scored import searched

from gapless.analysis.ranking import kendall
from gapless.core.errors import UserError
from gapless.measure.gap import Yardstick
from gapless.runs.run import Run
from gapless.studies.alone import Trainings
from gapless.studies.evaluate import evaluate
from gapless.studies.gap import drawn, gap, ranked
from gapless.studies.jobs import Here
from gapless.studies.results import SearchResult
from gapless.studies.retrain import retrain

FEW = {"archs": 4, "images": 40, "budgets": (1, 3), "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def measured(supernet, made_up):
    before = contents(supernet)
    found = gap(supernet.path, table=made_up, **FEW)
    assert {name: value for name, value in contents(supernet).items() if name in before} == before
    assert sorted(set(contents(supernet)) - set(before)) == ["gap.json"]
    assert json.loads((supernet.path / "gap.json").read_text()) == found.plain(), "the file holds the same"
    return found


def contents(run):
    own = ("gap", "manifest", ".lock")
    return {path.name: path.read_bytes() for path in run.path.iterdir() if not path.name.startswith(own)} | {
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
    assert measured.sample[0].arch == str(SearchResult.read(supernet).arch)
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
    assert [d["name"] for d in measured.decisions] == [d.name for d in SearchResult.read(supernet).space.decisions]
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


@pytest.mark.slow
def test_stability_over_seeds(supernet, made_up, tmp_path):
    """Against the same run every ranking is the same; another seed ranks otherwise, and both answers count."""
    same = gap(supernet.path, table=made_up, beside=[supernet.path], **FEW).seeds
    assert same == {"runs": 2, "tau": 1.0, "largest": 1.0, "smallest": 1.0, "agreement": 1.0}
    other = searched(tmp_path / "other", run={"threads": 1, "seed": 5})
    found = gap(supernet.path, beside=[other.path], **{**FEW, "archs": 8}).seeds
    ours, theirs = SearchResult.read(supernet).arch, SearchResult.read(other).arch
    assert found["tau"] == found["largest"] == found["smallest"] < 1
    equal = [ours[name] == theirs[name] for name in ours]
    assert found["agreement"] == pytest.approx(0.5 + 0.5 * sum(equal) / len(equal), abs=1e-4)
    with pytest.raises(UserError, match="`beside` must be runs of the same space"):
        gap(
            supernet.path,
            beside=[searched(tmp_path / "darts", space={"name": "darts", "width": 4, "cells": 2}).path],
            **FEW,
        )
    elsewhere = searched(tmp_path / "images", data={"name": "digits", "train_images": 200, "test_images": 40})
    with pytest.raises(UserError, match="`beside` must be runs of the same images"):
        gap(supernet.path, beside=[elsewhere.path], **FEW)
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


def test_without_a_table_there_is_no_truth(supernet):
    found = gap(supernet.path, **FEW)
    assert (found.truth, found.measures, found.ceiling) == (None, {}, None)
    assert found.chain[-1].name == "tuned"
    assert all(judged.truth is None for judged in found.sample)


def test_a_method_that_runs_one_path_has_probabilities_and_no_mix_to_fix(tmp_path):
    run = searched(tmp_path / "run", "dsnas")
    found = gap(run.path, **FEW)
    assert [step.name for step in found.chain] == ["supernet", "discretised", "recalibrated", "tuned"]
    assert (found.fixing, len(found.decisions)) == ((), 6)
    assert all(decision["entropy"] > 0.9 for decision in found.decisions)  # not those of the path
    assert drawn(run.path).path.read_text().startswith("# The gap of a search")


def test_a_method_that_learns_no_scores_is_told_nothing_of_them(tmp_path):
    """Its trace has one choice throughout, the first of equals, and that is no stability."""
    run = searched(tmp_path / "run", "spos", evaluations=2)
    found = gap(run.path, **FEW)
    assert "the mean of 20 draws" in found.chain[0].what
    assert (found.decisions, found.fixing, found.late) == ((), (), None)
    assert [finding.sound for finding in drawn(run.path).findings][1:] == [None, None]


def test_nothing_is_judged_twice(supernet, monkeypatch):
    asked = []
    inherited = Yardstick.inherited
    monkeypatch.setattr(Yardstick, "inherited", lambda self, *given: asked.append(given) or inherited(self, *given))
    gap(supernet.path, **FEW)
    assert len(asked) == len(set(asked)) == 3 + 2 * FEW["archs"]


def test_the_page_is_written_with_its_figures(measured, supernet):
    supernet.write_listed("gap.json", measured.plain())
    page = drawn(supernet.path)
    text = page.path.read_text()
    for name in ("gap-chain", "gap-ranking", "gap-fixing"):
        assert f"({name}.svg)" in text
        assert (supernet.path / f"{name}.svg").read_text().lstrip().startswith("<?xml")
    assert all(finding.text in text for finding in page.findings)


def test_what_cannot_be_is_a_sentence(supernet, made_up, tmp_path):
    for settings, message in [
        ({"archs": 1}, "`archs` must be at least 2; got 1"),
        ({"images": 0}, "`images` must be at least 1; got 0"),
        ({"budgets": (64, 8)}, r"`budgets` must be ascending .*; got \[64, 8\]"),
        ({"budgets": (0, 8)}, r"`budgets` must be ascending .*; got \[0, 8\]"),
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


SHORT = {"epochs": 1, "batch": 500, "aux_weight": 0.0, "drop_path": 0.0}


@pytest.fixture(scope="module")
def from_scratch(tmp_path_factory):
    """A tiny search, and its gap with all of the sample trained twice at both sizes."""
    run = searched(tmp_path_factory.mktemp("scratch") / "darts", retrain={"space": {"width": 4, "cells": 2}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Here, "run", in_turn.run)
        return run, gap(run.path, trainings=Trainings(2, protocol=SHORT), **{**FEW, "archs": 2})


def test_trainings_from_scratch_are_the_truth_where_there_is_no_table(from_scratch):
    run, found = from_scratch
    assert [step.name for step in found.chain] == [
        "supernet", "discretised", "recalibrated", "tuned", "retrained", "alone",
    ]  # fmt: skip
    assert found.truth == "test accuracy from scratch, the mean of 2 trainings"
    for judged in found.sample:
        assert {size: len(values) for size, values in judged.trainings.items()} == {"small": 2, "full": 2}
        assert judged.truth == pytest.approx(sum(judged.trainings["full"]) / 2, abs=1e-4)
        assert judged.scores["retrained"] == pytest.approx(sum(judged.trainings["small"]) / 2, abs=1e-4)
    assert found.chain[-2].accuracy == pytest.approx(found.sample[0].scores["retrained"], abs=1e-4)
    assert found.chain[-1].accuracy == pytest.approx(found.sample[0].truth, abs=1e-4)
    first, second = zip(*(judged.trainings["full"] for judged in found.sample), strict=True)
    assert found.ceiling == pytest.approx(kendall(first, second), abs=1e-4, nan_ok=True)
    here, truth = [j.scores["retrained"] for j in found.sample], [j.truth for j in found.sample]
    assert found.small["depth"] == ranked(here, truth) == found.measures["retrained"]
    assert found.small["sharing"] == ranked([j.scores["recalibrated"] for j in found.sample], here)
    text = drawn(run.path).path.read_text()
    assert "retrained" in text and "test accuracy from scratch" in text


def test_each_training_is_that_of_the_command(from_scratch):
    """A training comes to what ``gapless retrain`` makes of the architecture, at each size."""
    _, found = from_scratch
    data = {"name": "digits", "test_images": 40}
    for size, cells in (("small", 1), ("full", 2)):
        fields = {"width": 4, "cells": cells}
        alone = retrain(
            found.sample[1].notation, data=data, fields=fields, protocol=SHORT, run={"seed": 1, "threads": 1}
        )
        assert found.sample[1].trainings[size][1] == alone.accuracy
        assert alone.space.cells == cells


def test_trainings_that_ended_are_not_run_again_and_keep_to_their_settings(from_scratch, made_up, monkeypatch):
    run, found = from_scratch
    monkeypatch.setattr("gapless.studies.alone.Here.run", lambda *given: pytest.fail("a training was run again"))
    few = {**FEW, "archs": 2}
    again = gap(run.path, trainings=Trainings(2, protocol=SHORT), **few)
    assert again.sample == found.sample
    with pytest.raises(UserError, match=r"by other settings: retrain.epochs is 3, and was 1\..*remove that folder"):
        gap(run.path, trainings=Trainings(2, protocol={**SHORT, "epochs": 3}), **few)
    small = gap(run.path, table=made_up, trainings=Trainings(2, protocol=SHORT), **few)
    assert set(small.sample[0].trainings) == {"small"} and small.truth == "cifar10_test_200"
    assert [step.name for step in small.chain][-2:] == ["retrained", "alone"]


@pytest.mark.process
def test_a_training_that_fails_is_a_sentence_and_the_others_are_kept(tmp_path, monkeypatch):
    run = searched(tmp_path / "run", retrain={"space": {"width": 4, "cells": 1}})
    here = Here.run

    def run_them(self, jobs, told):
        broken = [replace(jobs[0], given={**jobs[0].given, "space": "nowhere"}), *jobs[1:]]
        return here(self, broken, told)

    monkeypatch.setattr(Here, "run", run_them)
    with pytest.raises(UserError, match=r"1 trainings did not come to their end; full-\w+-seed0: .*nowhere.*goes on"):
        gap(run.path, trainings=Trainings(1, protocol=SHORT), **{**FEW, "archs": 2})
    assert not (run.path / "gap.json").exists()
    assert len(list((run.path / "alone").glob("full-*/result.json"))) == 2
    monkeypatch.setattr(Here, "run", here)
    found = gap(run.path, trainings=Trainings(1, protocol=SHORT), **{**FEW, "archs": 2})
    assert found.small is None and found.ceiling is None  # the supernet had that size; one training shows no noise
    assert "retrained" not in found.sample[0].scores


def test_trainings_that_cannot_be(supernet, made_up, tmp_path):
    with pytest.raises(UserError, match="`trainings` must be from 1 to 1,000; got 0"):
        Trainings(0)
    run = searched(tmp_path / "run", retrain={"space": {"width": 4, "cells": 1}})
    with pytest.raises(UserError, match=r"has that depth and width: leave `trainings` out"):
        gap(run.path, table=made_up, trainings=Trainings(1), **FEW)
    with pytest.raises(UserError, match=r"Did you mean 'epochs'"):
        gap(run.path, trainings=Trainings(1, protocol={"epoch": 1}), **FEW)
    assert not (run.path / "alone").exists()
