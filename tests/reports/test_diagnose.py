"""What a diagnosis says, and its figures, from made-up numbers."""

import copy
import re

import numpy as np
import pytest
from diagnosed import OPTIONS, place, run, told

from gapless.reports.diagnose import (
    alike_table,
    apart,
    clusters_table,
    course_table,
    figures,
    findings,
    names,
    overall,
    page,
)
from gapless.reports.draw import svg
from gapless.reports.features import free_box, mean_matrix


def said(**course):
    return " ".join(findings(told(run(**course))))


def test_what_is_said():
    text = said()
    assert "0.90 between options with weights, 0.70 between options without and 0.25 between one of each" in text
    assert "they gather in a cluster" in text and "at 1 of 2 places" in text
    assert "highest mean score is pool" in text and "and still late" in text
    assert "reach 17.0 % early and 62.0 % late on average, those without 29.0 % and 29.0 %" in text
    assert "mature first, and are overtaken" in text
    assert "conv_5x5 receives 75 % late (early 75 %)" in text
    assert (
        "Matthew index +0.50" in text and "averaged over 28 decisions: what is ahead early receives more of it" in text
    )
    assert "is 0.2 early and 0.2 late; the criterion" in text


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ({"matthew": {"rho": -0.5, "chance": 0.1, "decisions": 28}}, "receives less of it"),
        ({"matthew": {"rho": 0.19, "chance": 0.1, "decisions": 28}}, "cannot be told from chance"),
        ({"sharp": 19}, "would have stopped, at the latest after epoch 19"),
        ({"epochs": 8}, "too short for the criterion"),
        ({"hessian": [None] * 20}, "darts has no loss that is differentiable"),
        ({"scores": {}}, "No score told options apart"),
        ({"option_accuracy": {o: [20.0] * 20 for o in OPTIONS}}, "neither is clearly ahead early"),
        (
            {"option_accuracy": {o: [40.0 if "conv" in o else 20.0] * 20 for o in OPTIONS}},
            "those with weights mature first",
        ),
        ({"option_accuracy": {o: [20.0 if "conv" in o else 40.0] * 20 for o in OPTIONS}}, "and are not overtaken"),
        ({"scores": {"a": [1.0] * 10 + [0.0] * 10, "b": [0.5] * 20}}, "is a (1.0000) early and b (0.5000) late"),
    ],
)
def test_other_numbers_are_other_words(course, expected):
    assert expected in said(**course)


@pytest.mark.parametrize(
    ("weights", "across", "words"), [(0.3, 0.28, "as much like"), (0.1, 0.4, "complement each other")]
)
def test_how_alike_in_words(weights, across, words):
    one = run()
    one["alike"] = {"a:1<-0": {"weights": weights, "free": None, "across": across}}
    assert words in findings(told(one))[0]
    one["alike"] = {"a:1<-0": {"weights": None, "free": None, "across": None}}
    assert "No two feature maps vary" in findings(told(one))[0]
    assert "no decision" in findings(told({**one, "places": []}))[0].lower()


def test_means_over_decisions_leave_out_what_is_unknown():
    one = run()
    one["alike"] = {
        "a": {"weights": 0.2, "free": None, "across": 0.5},
        "b": {"weights": 0.4, "free": None, "across": None},
    }
    assert overall(one) == {"weights": pytest.approx(0.3), "free": None, "across": 0.5}


def test_whether_two_clusters_are_the_groups():
    assert apart(place()) is True
    assert apart(place(clusters={"2": [0, 1, 0, 0]})) is False
    assert apart(place(groups=dict.fromkeys(OPTIONS, "free"))) is None
    assert apart(place(clusters={})) is None


def test_the_matrix_has_options_with_weights_first_and_leaves_out_what_is_unknown():
    second = place()
    second["correlation"] = [[None] * 4, *[[None, *row[1:]] for row in np.array(second["correlation"])[1:].tolist()]]
    second["correlation"][1][2] = second["correlation"][2][1] = -0.5
    found = mean_matrix([place(), second])
    assert found[0].tolist() == pytest.approx([1, 0.7, 0.1, 0.3])  # conv_3x3: itself, conv_5x5, skip, pool
    flat = place()
    flat["correlation"] = [[None] * 4] * 4
    assert np.isnan(mean_matrix([flat])).all()


def test_tables():
    both = told(run("one"), run("two"))
    assert alike_table(both).rows[1] == ("one", "all", "0.90", "0.70", "0.25")
    assert clusters_table(both).rows[0] == (
        "one",
        "cells.0",
        "[skip pool] [conv_3x3 conv_5x5]",
        "[skip] [conv_3x3 conv_5x5] [pool]",
        "-",
    )
    rows = {row[1]: row[2:] for row in course_table(told()).rows}
    assert rows["none"] == ("0.2000", "0.2000", "-", "-", "-", "-")
    assert rows["conv_3x3"][2:] == ("16.0", "61.0", "25.0", "25.0")
    assert len({len(row) for row in clusters_table(both).rows}) == 1


def test_runs_of_one_name_are_told_apart():
    one, two = run("a/same"), run("b/same")
    assert names(told(one, two)) == ["a/same", "b/same"] and names(told(one, run("b/other"))) == ["same", "other"]
    assert all(re.match("(one|two): ", text) for text in findings(told(run("one"), run("two"))))


@pytest.mark.parametrize("count", [1, 2])
def test_the_figures(count):
    both = told(*[run(name, sharp=18) for name in ("one", "two")][:count])
    drawn = figures(both)
    assert list(drawn) == ["diagnose-features-a-1-0", "diagnose-course", "diagnose-hessian"]
    for figure in drawn.values():
        width, height = figure.get_size_inches()
        assert width <= 6.75 and height < 9
        for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")):
            assert text.get_fontsize() >= 7, text.get_text()
    text = svg(drawn["diagnose-features-a-1-0"])
    assert "mean of 2 places" in text and (">two<" in text) == (count == 2)
    files = {name: f"{name}.svg" for name in drawn}
    assert all(f"({file})" in page(both, files) for file in files.values())


def test_a_line_where_a_stage_starts():
    plain, staged = (figures(told({**run(), "starts": starts}))["diagnose-course"] for starts in ([], [8]))
    assert all(len(b.lines) == len(a.lines) + 1 for a, b in zip(plain.axes, staged.axes, strict=True))
    assert [list(line.get_xdata()) for line in staged.axes[0].lines].count([8, 8]) == 1


def test_a_figure_of_what_is_missing():
    one, two = run("one"), run("two", gradient_share={}, option_accuracy={}, hessian=[None] * 20)
    text = svg(figures(told(one, two))["diagnose-course"])
    assert text.count("not recorded") >= 2
    bare = copy.deepcopy(two)
    bare["course"]["scores"] = {}
    bare["places"], bare["alike"] = [], {}
    assert figures(told(bare)) == {}
    assert "![" not in page(told(bare), {})


def test_labels_do_not_cover_each_other():
    taken = []
    for y in (0.8, 0.82, 0.84, 0.86):
        box = free_box(1.0, y, 0.5, 3.0, taken)
        assert all(box[2] <= a or box[0] >= c or box[3] <= b or box[1] >= d for a, b, c, d in taken)
        assert box[0] >= 0 and box[2] <= 3.0 and box[1] >= 0 and box[3] <= 1.7
        taken.append(box)
    assert free_box(2.9, 0.8, 0.5, 3.0, [])[2] <= 3.0  # left of a point at the right border
