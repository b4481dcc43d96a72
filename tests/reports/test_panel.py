"""Labels that do not overlap, looks that a grey print tells apart, gaps that stay gaps."""

import random
from itertools import pairwise

import numpy as np
import pytest

from gapless.reports.draw import STYLES
from gapless.reports.panel import Look, curve, epochs, last, looks, panel, sheet, shortened, spread, text_width
from gapless.spaces.darts import OPTIONS as DARTS_OPTIONS
from gapless.spaces.nasbench201 import OPTIONS


@pytest.mark.parametrize("seed", range(20))
def test_spread_is_the_nearest_order_preserving_placement(seed):
    chance = random.Random(seed)
    places = [chance.uniform(0, 5) for _ in range(chance.randint(1, 7))]
    found = spread(places, 0.5, -100, 100)
    order = sorted(range(len(places)), key=places.__getitem__)
    assert all(b - a > 0.5 - 1e-9 for a, b in pairwise(found[i] for i in order))

    def moved(at):
        return sum((a - b) ** 2 for a, b in zip(at, places, strict=True))

    for _ in range(300):  # no legal placement near by is better
        other = [f + chance.gauss(0, 0.1) for f in found]
        if all(b - a >= 0.5 for a, b in pairwise(other[i] for i in order)):
            assert moved(other) >= moved(found) - 1e-9


def test_spread_leaves_alone_what_is_apart_and_stays_inside():
    assert spread([3.0, 1.0], 1.0, 0.0, 4.0) == [3.0, 1.0]
    assert spread([0.1, 0.0], 1.0, 0.0, 4.0) == [1.0, 0.0]
    assert spread([4.0, 4.0, 4.0], 1.0, 0.0, 4.0) == [2.0, 3.0, 4.0]
    assert spread([], 1.0, 0.0, 1.0) == []


@pytest.mark.parametrize("options", [OPTIONS, *DARTS_OPTIONS.values()])
def test_options_have_the_colour_of_their_family_and_dashes_of_their_own(options):
    found = looks(options)
    assert len({look.dashes for look in found.values()}) == len(options)
    for option, look in found.items():
        family = next((f for f in ("conv", "pool", "skip", "none") if f in option), "other")
        assert look.colour == STYLES[family].outline


def test_many_options_of_one_family_look_different():
    found = looks([f"op{i}" for i in range(12)])
    assert len({(look.colour, look.dashes) for look in found.values()}) == 12


def test_missing_values_leave_gaps_and_lonely_ones_are_dots():
    axes = panel(sheet(3, 2), 0.5, 0.1, 2, 1)
    values = curve(axes, [1.0, None, 3.0, None, float("nan"), 6.0, 7.0, float("inf")], Look("#000000"))
    np.testing.assert_array_equal(values, [1, np.nan, 3, np.nan, np.nan, 6, 7, np.nan])
    line, dots = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), values)
    assert list(dots.get_xdata()) == [1, 3] and list(dots.get_ydata()) == [1, 3]
    assert last(values) == 7
    assert last(curve(axes, [None, None], Look("#000000"))) is None


def test_epochs_are_whole_numbers_from_one():
    axes = panel(sheet(3, 2), 0.5, 0.1, 2, 1)
    epochs(axes, 7, [2, 5])
    assert axes.get_xlim() == (1, 7)
    assert all(float(x).is_integer() for x in axes.get_xticks())
    assert [line.get_xdata()[0] for line in axes.lines] == [2, 5]


def test_names_are_shortened_from_the_front():
    name = "backbone.layer4.1.conv2"
    short = shortened(name, 0.7)
    assert short.startswith("…") and name.endswith(short[1:]) and text_width(short) <= 0.7
    assert shortened("2<-0", 0.7) == "2<-0"
