"""What a few numbers of each of two groups can show: means, differences, exact tests and what they cannot reach.

All values are plain numbers, one a seed. Tests are permutation tests of the difference of means (Fisher, The Design of
Experiments, 1935; Pitman, 1937): they assume nothing about how values are distributed, and with few seeds they have a
smallest p-value, whatever was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from gapless.analysis.ranking import RESAMPLES, Interval, interval
from gapless.core.progress import stream

EXACT = 200_000
"""Rearrangements that are all tried; of more, so many are drawn."""
LEVEL = 0.05
"""The usual level of significance."""
SLACK = 1e-9
"""Relative: sums of the same numbers in another order count as equal."""


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of no values.

    >>> mean([1, 2, 6])
    3.0
    """
    return math.fsum(values) / len(values) if values else math.nan


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1); NaN of fewer than two values.

    >>> deviation([1, 2, 3])
    1.0
    """
    if len(values) < 2:
        return math.nan
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the 95 % interval of the mean over resampled values (percentile bootstrap, 2,000 resamples); NaN of fewer
    than two values.

    Of n values it cannot leave the span from the smallest to the largest, and of two or three it is that span:
    :func:`span_coverage` says how seldom that holds the truth.
    """
    if len(values) < 2:
        return Interval(math.nan, math.nan)
    numbers = torch.tensor(values, dtype=torch.float64)
    drawn = torch.randint(len(values), (RESAMPLES, len(values)), generator=stream(seed, "bootstrap"))
    return interval(numbers[drawn].mean(dim=1))


def span_coverage(n: int) -> float:
    """Return how often the span from the smallest to the largest of n values holds their true median.

    >>> span_coverage(3)
    0.75
    """
    return 1.0 - 2.0 / 2.0**n


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of paired differences: the share of all 2^n choices of their signs whose mean is at
    least as far from zero. NaN of no pairs.

    >>> sign_flip([1.0, 2.0, 3.0])
    0.25
    """
    n = len(differences)
    if not n:
        return math.nan
    numbers = torch.tensor(differences, dtype=torch.float64)
    if 2**n <= EXACT:
        signs = 1.0 - 2.0 * ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1)
    else:
        signs = 1.0 - 2.0 * torch.randint(2, (EXACT, n), generator=stream(seed, "signs"))
    return _share(signs.double() @ numbers, float(numbers.sum()), exact=2**n <= EXACT)


def permutation(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p-value of two unpaired groups: the share of all divisions of their values into groups of
    these sizes whose means are at least as far apart. NaN where a group is empty.

    >>> permutation([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    0.1
    """
    n, m = len(first), len(second)
    if not n or not m:
        return math.nan
    values = torch.tensor([*first, *second], dtype=torch.float64)
    exact = math.comb(n + m, n) <= EXACT
    if exact:
        chosen = torch.tensor(list(combinations(range(n + m), n)))
    else:
        chosen = torch.rand(EXACT, n + m, generator=stream(seed, "division")).argsort(dim=1)[:, :n]
    own = values[chosen].sum(dim=1)
    apart = own / n - (values.sum() - own) / m
    return _share(apart, mean(first) - mean(second), exact=exact)


def _share(all_of_them: torch.Tensor, seen: float, *, exact: bool) -> float:
    far = int((all_of_them.abs() >= abs(seen) * (1 - SLACK)).sum())
    return far / len(all_of_them) if exact else (far + 1) / (len(all_of_them) + 1)


def least_sign_flip(n: int) -> float:
    """Return the smallest p-value that :func:`sign_flip` can give of n pairs.

    >>> least_sign_flip(3)
    0.25
    """
    return min(1.0, 2.0 / 2.0**n)


def least_permutation(n: int, m: int) -> float:
    """Return the smallest p-value that :func:`permutation` can give of groups of n and m.

    With as many on both sides the mirrored division is as far apart; otherwise it is none of the divisions.

    >>> least_permutation(3, 3), least_permutation(2, 3)
    (0.1, 0.1)
    """
    return min(1.0, (2 if n == m else 1) / math.comb(n + m, n))


@dataclass(frozen=True)
class Difference:
    """How far one group lies above another.

    Attributes
    ----------
    differences
        One for each pair.
    mean, low, high
        Of the differences, with the 95 % bootstrap interval of the mean; NaN where there are too few.
    p_paired, least_paired
        Of the sign-flip test, and the smallest value that it can have with so many pairs.
    p_unpaired, least_unpaired
        Of the permutation test over all values of both groups, paired or not, and the smallest value that it can have.
    """

    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_paired: float
    least_paired: float
    p_unpaired: float
    least_unpaired: float


def difference(pairs: Sequence[tuple[float, float]], first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two groups.

    Parameters
    ----------
    pairs
        (value of the first, value of the second) under the same seed.
    first, second
        All values of each group.
    """
    apart = tuple(a - b for a, b in pairs)
    low, high = bootstrap_mean(apart)
    return Difference(
        apart,
        mean(apart),
        low,
        high,
        sign_flip(apart),
        least_sign_flip(len(apart)),
        permutation(first, second),
        least_permutation(len(first), len(second)),
    )


def can_show(n: int) -> str:
    """Return what a comparison of n seeds on each side can and cannot show, in plain sentences.

    >>> print(can_show(3))
    With 3 seeds against 3 an exact two-sided test cannot go below p = 0.10 (2 of 20 divisions), nor below 0.25 (2 of 8 signs) for pairs: no difference, however large, is significant at 0.05. That takes at least 4 seeds each (unpaired, 0.029), or 6 pairs (0.031). The bootstrap interval of 3 differences is at best the span from the smallest to the largest, which holds the true median in 75 % of all cases, not in 95 %.
    """  # noqa: E501 (one line is printed)
    if n < 2:
        return "With fewer than two pairs nothing can be said about chance: a second run could differ by as much."
    divisions, signs = math.comb(2 * n, n), 2**n
    unpaired, paired = least_permutation(n, n), least_sign_flip(n)
    floor = (
        f"With {n} seeds against {n} an exact two-sided test cannot go below p = {_p(unpaired)} (2 of {divisions:,} "
        f"divisions), nor below {_p(paired)} (2 of {signs:,} signs) for pairs"
    )
    few = next(k for k in range(2, 99) if least_permutation(k, k) <= LEVEL)
    many = next(k for k in range(2, 99) if least_sign_flip(k) <= LEVEL)
    enough = (
        f"at least {few} seeds each (unpaired, {_p(least_permutation(few, few))}), or {many} pairs "
        f"({_p(least_sign_flip(many))})"
    )
    if unpaired > LEVEL:
        floor += f": no difference, however large, is significant at {LEVEL}. That takes {enough}."
    elif paired > LEVEL:
        floor += f": no paired difference, however large, is significant at {LEVEL}. That takes {many} pairs."
    else:
        return floor + "."
    return floor + (
        f" The bootstrap interval of {n} differences is at best the span from the smallest to the largest, which "
        f"holds the true median in {100 * span_coverage(n):.0f} % of all cases, not in 95 %."
    )


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"
