"""Measures of rankings, by hand, against SciPy, and against the published table of 64 networks (arXiv 2001.01431)."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy import stats

from gapless.analysis.ranking import (
    best_rank,
    bootstrap,
    interval,
    kendall,
    recall,
    regret,
    rounded,
    simulated_ceiling,
    spearman,
    stability,
)
from gapless.core.progress import stream


def numbers(n: int, seed: int, *, ties: bool = False) -> torch.Tensor:
    values = torch.randn(n, dtype=torch.float64, generator=stream(seed, "numbers"))
    return (2 * values).round() if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 7, 40])
def test_they_are_scipys(n, ties):
    x, y = numbers(n, 1, ties=ties), numbers(n, 2, ties=ties)
    if n == 2:
        x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_same_reversed_and_constant():
    x = numbers(9, 0)
    for measure in (kendall, spearman):
        assert measure(x, x) == pytest.approx(1)
        assert measure(x, -x) == pytest.approx(-1)
        assert math.isnan(measure(x, [1.0] * 9))
    assert regret(x, x) == 0
    assert best_rank(x, x, 1) == 1


def test_a_constant_added_to_all_scores_changes_no_measure():
    x, y = numbers(12, 1), numbers(12, 2)
    for measure in (kendall, spearman):
        assert measure(x + 8.0, y) == pytest.approx(measure(x, y))
    for k in range(1, 13):
        assert (recall(x + 8.0, y, k), regret(x + 8.0, y, k)) == (recall(x, y, k), regret(x, y, k))


def test_by_hand():
    """Four architectures: the scores swap the two best and the two worst."""
    scores, truth = [3.0, 4.0, 1.0, 2.0], [90.0, 89.0, 70.0, 60.0]
    assert kendall(scores, truth) == pytest.approx(2 / 6)
    assert [recall(scores, truth, k) for k in (1, 2, 3)] == [0.0, 1.0, pytest.approx(2 / 3)]
    assert [best_rank(scores, truth, n) for n in (1, 2)] == [2, 1]
    assert [regret(scores, truth, k) for k in (1, 2)] == [1.0, 0.0]


def test_ties_count_against_the_scores():
    assert regret([1.0, 1.0, 0.0], [90.0, 80.0, 70.0]) == 10.0
    assert regret([1.0, 1.0, 0.0], [80.0, 90.0, 70.0]) == 10.0
    assert recall([1.0, 1.0, 0.0], [90.0, 80.0, 70.0], 1) == 0.0
    assert best_rank([1.0] * 3, [70.0, 80.0, 90.0], 1) == 3
    assert recall([3.0, 2.0, 1.0], [90.0, 80.0, 80.0], 2) == 1.0  # the third equals the second in truth


def test_regret_never_grows_with_k_and_ends_at_nothing():
    x, y = numbers(30, 3), numbers(30, 4)
    found = [regret(x, y, k) for k in range(1, 31)]
    assert all(a >= b for a, b in pairwise(found)) and found[-1] == 0
    ranks = [best_rank(x, y, n) for n in range(1, 31)]
    assert all(a >= b for a, b in pairwise(ranks)) and ranks[-1] == 1


def test_rounding_calls_near_values_equal():
    assert kendall(rounded([90.01, 90.02, 91.0]), [1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(3 * 2))


def test_the_interval_of_a_bootstrap_holds_the_value_and_is_the_same_each_time():
    x = numbers(25, 5)
    y = x + numbers(25, 6)
    low, high = bootstrap(x, y)
    assert low < kendall(x, y) < high
    assert high - low < 0.6
    assert bootstrap(x, y) == (low, high) != bootstrap(x, y, seed=1)
    assert all(map(math.isnan, interval([float("nan")])))


# ---------------------------------------------------------------------- the table of 64 networks

PUBLISHED = Path(__file__).parents[2] / "results" / "insights64_published.csv"
MEANS = torch.tensor(
    [float(row["accuracy"]) for row in csv.DictReader(PUBLISHED.read_text().splitlines())], dtype=torch.float64
)
"""Mean accuracy of ten trainings of each, 111, 112, ..., 444."""
DEVIATION = 0.42
"""Mean over the networks of the standard deviation over those ten."""


def test_the_ceiling_of_the_published_table():
    """Published: a single training has tau 0.7985 +- 0.026 with the truth, and two have 0.7120 with each other."""
    ceiling = simulated_ceiling(MEANS, [DEVIATION] * 64, draws=400)
    assert ceiling.against_truth == pytest.approx(0.7985, abs=0.03)
    assert ceiling.between == pytest.approx(0.7120, abs=0.03)
    assert 0.005 < ceiling.spread < 0.03


def test_without_noise_the_ceiling_is_one():
    ceiling = simulated_ceiling(MEANS[:5], [0.0] * 5, draws=3)
    assert (ceiling.against_truth, ceiling.spread, ceiling.between) == (
        pytest.approx(1),
        pytest.approx(0, abs=1e-12),
        pytest.approx(1),
    )


def test_stability():
    assert stability([MEANS, MEANS + 1, 2 * MEANS]) == pytest.approx((1, 1, 1))
    mean, largest, smallest = stability([numbers(64, seed) for seed in range(30)])
    assert abs(mean) < 0.03 and smallest < -0.1 and largest > 0.1
