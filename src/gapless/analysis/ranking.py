"""How well one list of numbers orders architectures as another does.

``scores`` is what is judged (inherited accuracies, parameters, a proxy), ``truth`` what it is judged by (accuracies of
networks trained alone); both hold a number for each of the same n architectures, larger is better. Definitions are
those of arXiv 2001.01431 ("Deeper Insights into Weight Sharing", section 3) where it has them. Where a measure takes
the first of an order, ties count against the scores: of equal scores the worse architecture comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.progress import stream

Numbers = Sequence[float] | Tensor
RESAMPLES = 2000
"""Of a bootstrap, and draws of a simulated ceiling; ours."""


class Interval(NamedTuple):
    """From the 2.5th to the 97.5th percentile of what resampling gives; NaN where it gives nothing."""

    low: float
    high: float


def kendall(scores: Numbers, truth: Numbers) -> float:
    """Return Kendall's tau-b in [-1, 1]: agreeing less disagreeing pairs, over the geometric mean of the pairs
    that each list tells apart (Kendall, Biometrika 1945); NaN where one of them tells nothing apart."""
    return _tau(_signs(scores), _signs(truth))


def spearman(scores: Numbers, truth: Numbers) -> float:
    """Return Spearman's rho in [-1, 1], the correlation of ranks, equal values having their mean rank; NaN where one
    list tells nothing apart."""
    a, b = _ranks(scores), _ranks(truth)
    a, b = a - a.mean(), b - b.mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def rounded(values: Numbers, to: float = 0.1) -> Tensor:
    """Return values at the nearest multiple of ``to``: what differs by less is called equal ("sparse" tau, with 0.1
    percentage points)."""
    return (_vector(values) / to).round() * to


def recall(scores: Numbers, truth: Numbers, k: int) -> float:
    """Return which share of the k architectures that the scores put first are among the k truly best, those that equal
    the k-th included."""
    truth = _vector(truth)
    best = truth.topk(k).values.min()
    return float((truth[_order(scores, truth)[:k]] >= best).double().mean())


def best_rank(scores: Numbers, truth: Numbers, n: int) -> int:
    """Return the true rank, from 1, of the best of the n architectures that the scores put first: ``T_nR``."""
    truth = _vector(truth)
    return 1 + int((truth > truth[_order(scores, truth)[:n]].max()).sum())


def regret(scores: Numbers, truth: Numbers, k: int = 1) -> float:
    """Return by how much the best architecture of all is better than the best of the k that the scores put first."""
    truth = _vector(truth)
    return float(truth.max() - truth[_order(scores, truth)[:k]].max())


def bootstrap(
    scores: Numbers, truth: Numbers, measure: Callable[[Tensor, Tensor], float] = kendall, *, seed: int = 0
) -> Interval:
    """Return the interval of a measure over resampled architectures (percentile bootstrap, 2,000 resamples)."""
    scores, truth, generator = _vector(scores), _vector(truth), stream(seed, "bootstrap")
    drawn = torch.randint(len(scores), (RESAMPLES, len(scores)), generator=generator)
    if measure is kendall:
        return interval(_taus(scores, truth, drawn))
    return interval([measure(scores[index], truth[index]) for index in drawn])


def interval(values: Numbers) -> Interval:
    """Return the central 95 % of values; those that are NaN are left out."""
    known = _vector(values)
    known = known[~known.isnan()]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=known.dtype)).tolist()
    return Interval(low, high)


class Ceiling(NamedTuple):
    """What tau noise in the truth allows: no estimator can honestly exceed it.

    Attributes
    ----------
    against_truth
        Mean tau of single trainings of all architectures with the means over many.
    spread
        Its standard deviation.
    between
        Mean tau of two such trainings with each other.
    """

    against_truth: float
    spread: float
    between: float


def simulated_ceiling(mean: Numbers, deviation: Numbers, draws: int = RESAMPLES, *, seed: int = 0) -> Ceiling:
    """Return the ceiling that normal noise leaves: trainings of every architecture drawn with these means and standard
    deviations."""
    mean, deviation, generator = _vector(mean), _vector(deviation), stream(seed, "ceiling")
    noise = torch.randn(2 * draws, len(mean), dtype=torch.float64, generator=generator)
    truth, runs = _signs(mean), [_signs(mean + deviation * row) for row in noise]
    alone = torch.tensor([_tau(run, truth) for run in runs], dtype=torch.float64)
    between = [_tau(one, other) for one, other in zip(runs[::2], runs[1::2], strict=True)]
    return Ceiling(float(alone.mean()), float(alone.std()), float(torch.tensor(between).double().mean()))


def stability(rankings: Sequence[Numbers]) -> tuple[float, float, float]:
    """Return ``S-Tau``: (mean, largest, smallest) tau between every two of several score lists of the same
    architectures."""
    signs = [_signs(scores) for scores in rankings]
    taus = [_tau(a, b) for i, a in enumerate(signs) for b in signs[:i]]
    return sum(taus) / len(taus), max(taus), min(taus)


def _vector(values: Numbers) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _signs(values: Numbers) -> Tensor:
    """Return [n, n]: which of two is larger, as -1, 0, 1."""
    v = _vector(values)
    return (v[:, None] - v[None, :]).sign()


def _tau(a: Tensor, b: Tensor) -> float:
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _taus(scores: Tensor, truth: Tensor, drawn: Tensor) -> Tensor:
    """Return [R]: tau of each of R resamples, ``drawn`` [R, n]; in blocks of at most some millions of pairs."""
    a, b, found = _signs(scores), _signs(truth), []
    for index in drawn.split(max(1, 2**21 // drawn.shape[1] ** 2)):
        pairs = index[:, :, None], index[:, None, :]
        one, other = a[pairs], b[pairs]
        scale = (one.square().sum(dim=(1, 2)) * other.square().sum(dim=(1, 2))).sqrt()
        found.append((one * other).sum(dim=(1, 2)) / scale)  # 0 / 0 is NaN
    return torch.cat(found)


def _ranks(values: Numbers) -> Tensor:
    return _signs(values).sum(dim=1)  # twice the mean rank, less a constant


def _order(scores: Numbers, truth: Tensor) -> Tensor:
    """Return the places from the best score to the worst, the worse architecture first where scores are equal."""
    order = truth.argsort(stable=True)
    return order[_vector(scores)[order].argsort(descending=True, stable=True)]
