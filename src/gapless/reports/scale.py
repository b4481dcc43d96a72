"""Accuracies on a logarithmic scale of the error: the worst lie near chance, and the best tenths of a percent apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

STEPS = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
TICKS, APART = 5, 0.08  # so many ticks are enough; they are at least this part of the axis apart


@dataclass(frozen=True)
class ErrorScale:
    """The scale of an axis: the place of an accuracy is minus the logarithm of its error in percent.

    Parameters
    ----------
    low, best
        What is shown, in percent: nothing between them is cut off.
    apart
        Least distance of two ticks, as a part of the axis.
    """

    low: float
    best: float
    apart: float = APART

    def forward(self, accuracy: ArrayLike) -> NDArray[np.float64]:
        """Return the places of accuracies."""
        rest = 0.5 * (100 - self.best) if self.best < 100 else 0.01  # keeps the logarithm finite where 100 % is reached
        return -np.log(np.maximum(100 - np.asarray(accuracy, dtype=np.float64), rest))

    def inverse(self, place: ArrayLike) -> NDArray[np.float64]:
        """Return the accuracies at places."""
        return 100 - np.exp(-np.asarray(place, dtype=np.float64))

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The ends of the axis, with a little air."""
        bottom, ceiling = float(self.forward(self.low)), float(self.forward(self.best))
        air = 0.03 * (ceiling - bottom) or 0.1
        return float(self.inverse(bottom - air)), float(self.inverse(ceiling + air))

    @cached_property
    def marks(self) -> list[float]:
        """The ticks: round accuracies, the rounder first, that lie far enough apart."""
        low, high = self.limits
        bottom, top = float(self.forward(low)), float(self.forward(high))
        taken: dict[float, float] = {}
        for step in STEPS:
            if len(taken) >= TICKS:
                break
            for number in range(ceil(low / step), floor(high / step) + 1):
                value = round(number * step, 2)
                place = (float(self.forward(value)) - bottom) / (top - bottom)
                if all(abs(place - other) >= self.apart for other in taken.values()):
                    taken[value] = place
        return sorted(taken)

    def upwards(self, axes: Axes) -> None:
        """Give a panel this scale from its foot to its top."""
        axes.set_yscale("function", functions=(self.forward, self.inverse))
        axes.set_ylim(*self.limits)
        self._mark(axes.yaxis)

    def across(self, axes: Axes) -> None:
        """Give a panel this scale from left to right."""
        axes.set_xscale("function", functions=(self.forward, self.inverse))
        axes.set_xlim(*self.limits)
        self._mark(axes.xaxis)

    def _mark(self, axis: Axis) -> None:
        axis.set_major_locator(FixedLocator(self.marks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FormatStrFormatter("%g"))
