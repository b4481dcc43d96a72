"""The scale of errors."""

import numpy as np
import pytest

from gapless.reports.scale import APART, ErrorScale


def test_the_scale_and_its_inverse():
    scale, accuracies = ErrorScale(0.0, 94.37), np.array([0.0, 10.0, 50.0, 90.0, 94.37])
    places = scale.forward(accuracies)
    assert (np.diff(places) > 0).all()
    np.testing.assert_allclose(scale.inverse(places), accuracies, atol=1e-12)
    np.testing.assert_allclose(places[3] - places[2], np.log(50 / 10))


@pytest.mark.parametrize("ends", [(8.0, 94.6), (93.1, 94.4), (0.5, 47.5), (99.2, 99.9)])
@pytest.mark.parametrize("apart", [APART, 0.2])
def test_ticks_are_round_apart_and_enough(ends, apart):
    scale = ErrorScale(*ends, apart)
    low, high = scale.limits
    assert low < ends[0] and ends[1] < high
    assert len(scale.marks) >= 3
    assert all(low <= mark <= high and mark == round(mark, 2) for mark in scale.marks)
    places = scale.forward(scale.marks) / (scale.forward(high) - scale.forward(low))
    assert (np.diff(places) >= apart - 1e-9).all()


@pytest.mark.parametrize("ends", [(90.0, 90.0), (0.0, 0.0), (100.0, 100.0), (50.0, 100.0)])
def test_ends_that_meet_and_ends_that_are_all_right(ends):
    low, high = ErrorScale(*ends).limits
    assert np.isfinite([low, high]).all() and low < high
