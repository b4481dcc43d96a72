"""The range of what a search draws: quartiles by hand, a scale on which nothing is cut off."""

import numpy as np
import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.table import Column
from gapless.reports.draws import CHOICE, Range, draw_ranges, ranges, summary
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.tables import load
from gapless.tables.nasbench201 import NASBench201Table

SPACE, COLUMN = NASBench201(), "cifar10_test_200"
WORTH = {"000000": 10.0, "111111": 20.0, "222222": 30.0, "333333": 40.0, "444444": 90.0, "012340": 95.0}


def arch(packed):
    return SPACE.unpack(packed)


def table_of(values, unit="%", name=COLUMN):
    column = Column(name, torch.tensor(list(values), dtype=torch.float64), unit=unit, higher_is_better=unit == "%")
    return NASBench201Table([SPACE.write(arch(p)) for p in WORTH], [column])


@pytest.fixture
def table():
    return table_of(WORTH.values())


@pytest.fixture
def records():
    """Five different draws, then all alike; the choice is no draw."""
    draws = [["444444", "111111", "000000", "333333", "222222"], ["444444"] * 5]
    choice = str(arch("012340"))
    return [{"epoch": i, "stage": i, "draws": packed, "arch": choice} for i, packed in enumerate(draws)]


def test_ranges_by_hand(records, table):
    one, two = ranges(records, SPACE, table, COLUMN)
    assert one == Range(1, 5, 10.0, 20.0, 30.0, 40.0, 90.0, 95.0)
    assert two == Range(2, 5, 90.0, 90.0, 90.0, 90.0, 90.0, 95.0)
    assert summary([one], table, "cifar10_test_200") == {
        "column": "cifar10_test_200",
        "epoch": 1,
        "draws": 5,
        "min": 10.0,
        "lower_quartile": 20.0,
        "median": 30.0,
        "upper_quartile": 40.0,
        "max": 90.0,
        "choice": 95.0,
        "optimum": 95.0,
    }


def test_older_traces_have_no_draws(records, table):
    assert ranges([{**records[0], "draws": []}, records[1]], SPACE, table, COLUMN) == []
    assert ranges([{k: v for k, v in records[0].items() if k != "draws"}], SPACE, table, COLUMN) == []


def test_wrong_column_and_wrong_space(records, table):
    with pytest.raises(UserError, match="Did you mean 'cifar10_test_200'"):
        ranges(records, SPACE, table, "cifar10_test_20")
    with pytest.raises(UserError, match="searched darts"):
        ranges(records, Darts(), table, COLUMN)
    with pytest.raises(UserError, match="holds no accuracies but ms"):
        ranges(records, SPACE, table_of(WORTH.values(), "ms", "latency"), "latency")


@pytest.mark.parametrize("count", [1, 2])
def test_the_figure_shows_the_numbers(count, records, table):
    found = ranges(records, SPACE, table, COLUMN)[:count]
    figure = draw_ranges(found, table, "cifar10_test_200", records[:count])
    assert figure.get_size_inches()[0] == 3.25
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["median"].get_ydata(), [30, 90][:count])
    np.testing.assert_array_equal(lines["choice"].get_ydata(), [95, 95][:count])
    assert lines["choice"].get_color() == CHOICE.colour
    outer, inner = (band.get_paths()[0].vertices[:, 1] for band in axes.collections)
    assert (outer.min(), outer.max()) == (10, 90)
    assert (inner.min(), inner.max()) == ((20, 90) if count == 2 else (20, 40))
    low, high = axes.get_ylim()
    assert low < 10 and high > 95, "nothing is cut off"
    said = {t.get_text() for t in figure.texts}
    assert {"best of all 6: 95.00", "best of 5", "worst of 5", "choice", "accuracy (%)"} <= said


def test_a_table_may_reach_all_right(records):
    perfect = table_of([100.0] * len(WORTH))
    draw_ranges(ranges(records, SPACE, perfect, COLUMN), perfect, "cifar10_test_200", records).canvas.draw()


def test_the_real_table(table_file, trace):
    real = load(table_file)
    records = trace(SPACE, 3, draws=100)
    found = ranges(records, SPACE, real, COLUMN)
    wanted = [real.row(arch(p))["cifar10_test_200"] for p in records[-1]["draws"]]
    assert found[-1].min == pytest.approx(min(wanted), abs=1e-4)
    assert found[-1].max == pytest.approx(max(wanted), abs=1e-4)
    assert found[-1].median == pytest.approx(np.median(wanted), abs=1e-4)
    numbers = summary(found, real, "cifar10_test_200")
    assert numbers["optimum"] == 94.3733 and numbers["draws"] == 100
