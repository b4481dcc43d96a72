"""``gapless diagnose`` as a function."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from scored import searched

from gapless.analysis.ranking import spearman
from gapless.core.errors import UserError
from gapless.runs.run import Run
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.studies.diagnose import clusters, course, diagnose, drawn, ends, matthew, plane

FEW = {"images": 60, "threads": 1, "device": "cpu"}
WATCH = {"threads": 1, "watch": True}
NAN = math.nan


@pytest.fixture(scope="module")
def darts(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("runs") / "darts", run=WATCH)


@pytest.fixture(scope="module")
def dropnas(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("runs") / "dropnas", "dropnas", run=WATCH)


@pytest.fixture(scope="module")
def both(darts, dropnas):
    before = {path.name: path.read_bytes() for path in darts.path.iterdir() if path.name != "manifest.json"}
    found = diagnose(darts.path, beside=dropnas.path, **FEW)
    after = {path.name: path.read_bytes() for path in darts.path.iterdir() if path.name != "manifest.json"}
    assert {name: after.pop(name) for name in before} == before
    assert list(after) == ["diagnose.json"]
    assert not (dropnas.path / "diagnose.json").exists()
    return found


def test_the_feature_maps_of_a_finished_search(both, darts):
    one, other = both.runs
    assert both.images == 60 and (one.method, other.method) == ("darts", "dropnas")
    assert {place.decision for place in one.places} == {"1<-0", "3<-2"} and len(one.places) == 6
    place = one.places[0]
    assert place.options == ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    matrix = np.array(place.correlation)
    assert np.allclose(matrix, matrix.T) and np.allclose(matrix.diagonal(), 1) and (np.abs(matrix) < 1 + 1e-6).all()
    assert place.alike["weights"] == pytest.approx(abs(matrix[1, 2]), abs=1e-6)
    assert place.alike["free"] == pytest.approx(abs(matrix[0, 3]), abs=1e-6)
    assert place.alike["across"] == pytest.approx(np.abs(matrix[[0, 3]][:, [1, 2]]).mean(), abs=1e-5)
    own = [p.alike["across"] for p in one.places if p.decision == "1<-0"]
    assert one.alike["1<-0"]["across"] == pytest.approx(sum(own) / 3, abs=1e-5)
    assert {count: len(set(labels)) for count, labels in place.clusters.items()} == {"2": 2, "3": 3, "4": 4}
    assert json.loads((darts.path / "diagnose.json").read_text()) == both.plain()


def test_the_course_is_what_the_trace_holds(both, darts):
    records, found = list(darts.trace()), both.runs[0].course
    assert both.runs[0].watched and both.runs[0].epochs == 2 and both.runs[0].part == 1
    for column, option in enumerate(("none", "skip_connect")):
        expected = [np.mean([row[column] for row in record["scores"]]) for record in records]
        assert found.scores[option] == pytest.approx(expected, abs=1e-6)
    for option, values in found.gradient_share.items():
        assert values == pytest.approx([record["gradient_share"][option] for record in records], abs=1e-6)
    assert set(found.gradient_share) == {"nor_conv_1x1", "nor_conv_3x3"}
    assert list(found.option_accuracy) == ["skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    assert found.hessian == pytest.approx([record["hessian"] for record in records], abs=1e-6)
    early, late = ([row[2:4] for row in r] for r in (records[0]["scores"], records[1]["decision_gradient_share"]))
    values = [spearman(a, b) for a, b in zip(early, late, strict=True)]
    assert found.matthew == {
        "rho": pytest.approx(sum(values) / 6, abs=1e-6),
        "chance": pytest.approx(1 / math.sqrt(6), abs=1e-6),
        "decisions": 6,
    }


def test_the_page(both, darts):
    page = drawn(darts.path)
    files = {path.name for path in darts.path.glob("diagnose*")}
    figures = {f"diagnose-{name}.svg" for name in ("features-1-0", "features-3-2", "course", "hessian")}
    assert files == {"diagnose.json", "diagnose.md", *figures}
    text = page.path.read_text()
    assert all(f"({name})" in text for name in figures)
    assert all(finding in text for finding in page.findings)
    assert {finding.partition(":")[0] for finding in page.findings} == {"darts", "dropnas"}
    bytes_before = {name: (darts.path / name).read_bytes() for name in figures}
    drawn(darts.path)
    assert {name: (darts.path / name).read_bytes() for name in figures} == bytes_before


def test_a_search_that_was_not_watched_is_told_what_is_missing(supernet):
    found = diagnose(supernet.path, **FEW)
    (one,) = found.runs
    assert not one.watched and one.course.matthew is None and one.course.hessian == (None, None)
    page = drawn(supernet.path)
    assert sum("`watch`" in finding for finding in page.findings) == 1
    assert not (supernet.path / "diagnose-hessian.svg").exists() and (supernet.path / "diagnose-course.svg").exists()
    for path in supernet.path.glob("diagnose*"):
        path.unlink()


def test_watching_changes_no_weight_of_a_run(darts, supernet):
    watched, plain = darts.weights(), supernet.weights()
    assert watched.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in watched.items())
    assert [r["scores"] for r in darts.trace()] == [r["scores"] for r in supernet.trace()]
    assert "hessian" not in next(supernet.trace())


@pytest.mark.slow
def test_blocks_and_paths(tmp_path):
    space = {
        "name": "shufflenet",
        "stem_width": 4,
        "widths": [8, 16],
        "repeats": [2, 1],
        "strides": [1, 1, 2],
        "head_width": 8,
    }
    run = searched(tmp_path / "run", "spos", space=space, run=WATCH)
    (one,) = diagnose(run.path, **FEW).runs
    assert [p.decision for p in one.places] == sorted(ends(run.found()[1])) == ["1.0", "2.0"]
    assert one.course.scores == {} and one.course.hessian == (None,) * one.epochs
    findings = drawn(run.path).findings
    assert any("No score told options apart" in finding for finding in findings)
    assert any("no loss that is differentiable" in finding for finding in findings)


# ---------------------------------------------------------------------- refusals


def test_refusals(darts, supernet, tmp_path):
    with pytest.raises(UserError, match="`images` must be at least 2; got 1"):
        diagnose(darts.path, images=1)
    with pytest.raises(UserError, match="is no run"):
        diagnose(tmp_path)
    with pytest.raises(UserError, match="another run"):
        diagnose(darts.path, beside=darts.path)
    other = searched(tmp_path / "darts space", space={"name": "darts", "width": 4, "cells": 1})
    with pytest.raises(UserError, match="same space"):
        diagnose(darts.path, beside=other.path)
    data = {"name": "digits", "train_images": 200, "test_images": 40}
    with pytest.raises(UserError, match="same images"):
        diagnose(darts.path, beside=searched(tmp_path / "other images", data=data).path)
    with pytest.raises(UserError, match="trains no supernet"):
        diagnose(searched(tmp_path / "random", "random").path)
    shutil.copytree(supernet.path, tmp_path / "half")
    (tmp_path / "half" / "manifest.json").unlink()
    (tmp_path / "half" / "arch.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        diagnose(tmp_path / "half")
    with pytest.raises(UserError, match="was not diagnosed yet"):
        drawn(tmp_path / "half")
    (tmp_path / "half" / "diagnose.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        drawn(tmp_path / "half")
    assert Run.open(tmp_path / "half").kind == "search"


# ---------------------------------------------------------------------- arithmetic


def test_the_first_and_the_last_edge_of_each_kind_of_cell():
    assert ends(Darts()) == {"normal:2<-0", "normal:5<-4", "reduce:2<-0", "reduce:5<-4"}
    assert ends(NASBench201()) == {"1<-0", "3<-2"}


def test_the_plane_keeps_distances_of_what_lies_in_one():
    g = torch.Generator().manual_seed(0)
    flat = torch.randn(5, 2, dtype=torch.float64, generator=g)
    basis = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64, generator=g)).Q
    points = torch.tensor(plane(flat @ basis.T + 7), dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(flat, flat), atol=1e-5, rtol=0)
    assert plane(torch.tensor([[1.0], [3.0]])) == ((-1.0, 0.0), (1.0, 0.0))


def test_clusters_find_what_lies_together():
    maps = torch.tensor([[0.0, 0.0], [9.0, 9.0], [0.1, 0.0], [9.0, 9.1], [-9.0, 9.0]])
    assert clusters(maps, 3) == (0, 1, 0, 1, 2)


def test_the_matthew_index_by_hand():
    early = [torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0], [0.6, 0.4, 0.0]])] * 2
    late = [torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.3, NAN], [0.1, 0.9, NAN]])]
    # within the decisions: 1, no order, -1
    assert matthew(early, late) == {
        "rho": 0.0,
        "chance": pytest.approx(math.sqrt(1 / 2 + 1) / 2, abs=1e-6),
        "decisions": 2,
    }
    assert matthew(early, []) is None
    assert matthew(early, [torch.full((3, 3), NAN)]) is None


def test_a_trace_with_holes():
    space = NASBench201()
    even = [[0.2] * 5] * 6
    apart = [[0.1, 0.3, 0.2, None, -math.inf]] * 6
    records = [{"scores": even}, {"scores": apart, "hessian": NAN, "option_accuracy": {"none": 5.0}}]
    found = course(records, space, 1)
    assert found.scores["none"] == (0.2, 0.1) and found.scores["avg_pool_3x3"] == (0.2, None)
    assert found.option_accuracy == {"none": (None, 5.0)} and found.hessian == (None, None)
    assert course(records[:1], space, 1).scores == {}
