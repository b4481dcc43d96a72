"""The interface of every implementation of a fan.

A *fan* is all options on the edges that leave one state of a cell, computed together. Three modules implement
:class:`Backend`: :mod:`gapless.kernels.plain`, :mod:`gapless.kernels.cpu.backend` and
:mod:`gapless.kernels.gpu.backend`; :mod:`gapless.kernels.fan` chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from gapless.kernels.forms import Moments, Route


class Judged(Protocol):
    """Computes a fan in evaluation mode."""

    def __call__(
        self,
        routes: Sequence[Route],
        coefficients: Tensor,
        x: Tensor,
        sums: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        moments: Moments,
    ) -> tuple[Tensor, ...]:
        """Return the sums that :meth:`Backend.fan` returns, normalised by ``moments`` (the running statistics) instead
        of the batch's own, without gradients."""
        ...


class Backend(Protocol):
    """An implementation of a fan."""

    @property
    def judged(self) -> Judged | None:
        """Implementation of evaluation mode, None if the backend has none: the operations are then called one by
        one."""
        ...

    def serves(self, routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
        """Return whether this backend computes these routes for a state like ``x`` with such parameters."""
        ...

    def fan(
        self,
        routes: Sequence[Route],
        coefficients: Tensor,
        x: Tensor,
        sums: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
    ) -> tuple[tuple[Tensor, ...], Moments]:
        """Return for each target its sum so far plus ``sum_r c_r route_r(x)``, [N, H, W, C], differentiable, and the
        batch moments of each normalisation.

        Parameters
        ----------
        routes
            What leaves the state; at least one to each target.
        coefficients
            c, one number for each route.
        x
            The state, [N, H, W, C].
        sums
            For each target its sum so far, None for zero. It may be overwritten.
        parameters
            For each step of each chain the weight of its depthwise convolution, if it has one, the weight of its linear
            map, and, if it is affine, scale and shift; for each affine pool scale and shift.
        """
        ...
