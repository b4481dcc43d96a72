"""What few numbers can show, by hand, and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from gapless.analysis.statistics import (
    bootstrap_mean,
    can_show,
    deviation,
    difference,
    least_permutation,
    least_sign_flip,
    mean,
    permutation,
    sign_flip,
    span_coverage,
)


def test_mean_and_deviation():
    assert mean([2, 4, 9]) == 5
    assert deviation([2, 4, 9]) == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert deviation([0.1, 0.1, 0.1]) == pytest.approx(0, abs=1e-15)
    assert math.isnan(mean([]))
    assert math.isnan(deviation([3.0]))


def test_three_against_three():
    # 20 divisions: only the one seen and its mirror image have means 3 apart
    assert permutation([4, 5, 6], [1, 2, 3]) == 2 / 20
    # 1, 2, 4 against 3, 5, 6: 2 1/3 apart; 1, 2, 3 against 4, 5, 6 is further; each with its mirror image
    assert permutation([1, 2, 4], [3, 5, 6]) == 4 / 20
    assert permutation([1, 6, 2], [3, 4, 2]) == 1.0
    assert permutation([7, 7, 7], [7, 7, 7]) == 1.0


def test_signs_of_three_pairs():
    assert sign_flip([1, 2, 3]) == 2 / 8
    assert sign_flip([1, 2, -3]) == 1.0  # nothing is nearer to zero than zero
    assert sign_flip([-1, 2, 3]) == 4 / 8  # 4 or 6 from zero, both ways
    assert sign_flip([0.1 + 0.2, -0.3]) == 1.0  # rounding is no difference


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 4), (2, 3), (1, 4), (5, 4)])
def test_the_least_p_is_reached_and_not_undercut(n, m):
    low, high = [0.0] * n, [10.0] * m
    assert permutation(low, high) == pytest.approx(least_permutation(n, m))
    generator = np.random.default_rng(n + 10 * m)
    assert all(
        permutation(list(generator.normal(size=n)), list(generator.normal(size=m) + 9)) >= least_permutation(n, m)
        for _ in range(20)
    )
    assert sign_flip([1.0] * n) == least_sign_flip(n) == min(1, 2 / 2**n)


def test_they_are_scipys():
    generator = np.random.default_rng(1)
    for n, m in ((3, 3), (4, 6), (5, 5)):
        a, b = generator.normal(size=n), generator.normal(size=m) + 1
        apart = {"statistic": lambda x, y: abs(x.mean() - y.mean()), "alternative": "greater", "n_resamples": np.inf}
        theirs = stats.permutation_test((a, b), **apart)  # its own two-sided p doubles the smaller tail
        assert permutation(list(a), list(b)) == pytest.approx(theirs.pvalue)
    d = generator.normal(size=7) + 0.5
    theirs = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(list(d)) == pytest.approx(theirs.pvalue)


def test_many_values_are_drawn_and_not_counted_out():
    generator = np.random.default_rng(2)
    a, b = list(generator.normal(size=30)), list(generator.normal(size=30) + 0.5)
    assert permutation(a, b) == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.01)
    d = [x - y for x, y in zip(a, b, strict=True)]
    assert sign_flip(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert sign_flip([9.0] * 30) == 1 / 200_001  # never zero


def test_the_bootstrap_of_few_is_their_span_and_of_many_the_textbooks():
    assert bootstrap_mean([1.0, 2.0, 6.0]) == (1.0, 6.0)  # a mean of 1 has 1/27 of all resamples: above 2.5 %
    assert bootstrap_mean([1.0, 5.0]) == (1.0, 5.0)
    assert math.isnan(bootstrap_mean([1.0]).low)
    values = np.random.default_rng(3).normal(size=400)
    low, high = bootstrap_mean(list(values))
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert bootstrap_mean(list(values)) == (low, high)


def test_how_often_a_span_holds_the_median():
    generator = np.random.default_rng(4)
    drawn = generator.normal(size=(20_000, 3))
    held = ((drawn.min(axis=1) < 0) & (drawn.max(axis=1) > 0)).mean()
    assert held == pytest.approx(span_coverage(3), abs=0.01)


def test_a_difference():
    d = difference([(93.0, 90.0), (92.0, 91.0), (94.0, 92.0)], [93.0, 92.0, 94.0], [90.0, 91.0, 92.0])
    assert d.differences == (3.0, 1.0, 2.0)
    assert (d.mean, d.low, d.high) == (2.0, 1.0, 3.0)
    assert (d.p_paired, d.least_paired) == (0.25, 0.25)
    # 279 of 552: sums of three as far from 276 as 3: {93, 94, 92}, both 92s; and the mirror images
    assert (d.p_unpaired, d.least_unpaired) == (0.2, 0.1)


def test_a_difference_without_pairs_still_compares_the_groups():
    d = difference([], [3.0, 4.0], [1.0, 2.0])
    assert math.isnan(d.mean)
    assert math.isnan(d.p_paired)
    assert d.p_unpaired == pytest.approx(2 / 6)


def test_what_is_said_of_so_many():
    assert "cannot go below p = 0.10 (2 of 20 divisions)" in can_show(3)
    assert "no difference, however large, is significant at 0.05" in can_show(3)
    assert "no paired difference" in can_show(5)
    assert "significant" not in can_show(6)
    for n in (0, 1):
        assert "nothing can be said about chance" in can_show(n)
