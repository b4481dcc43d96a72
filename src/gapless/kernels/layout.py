"""What a fan computes, as records: made once for each combination of routes and shapes, for
compiled back ends.

The records are those of :mod:`gapless.kernels.records`.

"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from gapless.kernels.forms import Chain, Pool, Route, Skip, Spatial
from gapless.kernels.records import END, NORM, POOL, STEP, Row, as_records

FORMATS: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
"""The precisions that compiled back ends compute in."""


@lru_cache(maxsize=4096)
def supported(routes: tuple[Route, ...]) -> bool:
    """Return whether a layout can describe these routes: each step has at most one spatial
    convolution, and only the first step of a chain has a stride."""
    for form in (route.form for route in routes if isinstance(route.form, Chain)):
        for depth, step in enumerate(form.steps):
            spatial = step.linear.window if isinstance(step.linear, Spatial) else None
            strided = any(w is not None and w.stride > 1 for w in (step.window, spatial))
            if step.window is not None and (spatial is not None or (form.split_phases and not depth)):
                return False
            if depth and strided:
                return False
    return True


class Layout:
    """What a fan computes, for a state [N, H, W, C] and parameters of certain shapes.

    Attributes
    ----------
    steps, pools, norms, ends
        Records, as described above.
    depth
        Number of steps of the longest chain.
    lengths
        Numbers in ``parameters``, ``saved``, ``grad_saved`` and a norm vector (``norms``).
    outputs
        Shape [N, H', W', C'] of each target's sum.
    shapes
        Shapes of the parameters.
    owners
        Target of the route that each parameter belongs to.
    slices
        Start and channels of each normalisation with moments in a norm vector.
    """

    def __init__(self, routes: Sequence[Route], shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> None:
        self.images, self.H, self.W, self.C = shape
        self.lengths = dict.fromkeys(("parameters", "saved", "grad_saved", "norms"), 0)
        self.shapes = tuple(shapes)
        self._unread = iter(shapes)
        self._steps: list[Row] = []
        self._pools: list[Row] = []
        self._norms: list[Row] = []
        self._ends: list[Row] = []
        self._shared: dict[Pool, Row] = {}
        self._target = 0
        self.owners: list[int] = []
        self.outputs: dict[int, tuple[int, ...]] = {}
        for number, route in enumerate(routes):
            form, self._target = route.form, route.target
            end = self._chain(form, number) if isinstance(form, Chain) else self._weightless(form, number)
            sides = end.pop("sides")
            end |= {"target": route.target, "pixels": sides[0] * sides[1], "accumulate": route.target in self.outputs}
            self._ends.append(end)
            self.outputs[route.target] = (self.images, *sides, end["C"])
        self.depth = 1 + max((step["depth"] for step in self._steps), default=0)
        self.steps, self.pools, self.norms, self.ends = (
            as_records(rows, kind)
            for rows, kind in ((self._steps, STEP), (self._pools, POOL), (self._norms, NORM), (self._ends, END))
        )
        self.slices = [(row["start"], row["C"]) for row in self._norms if row["normalised"]]

    def _take(self, name: str, count: int) -> int:
        """Reserve numbers of a buffer, and return where they begin."""
        begin = self.lengths[name]
        self.lengths[name] += int(count)
        return begin

    def _parameter(self) -> tuple[tuple[int, ...], int]:
        """Return the shape of the next parameter and where it begins."""
        shape = next(self._unread)
        self.owners.append(self._target)
        return shape, self._take("parameters", math.prod(shape))

    def _norm(self, channels: int, pixels: int, depth: int, eps: float | None, affine: bool, route: int) -> Row:
        begin = self._take("norms", channels)
        (_, scale), _ = (self._parameter(), self._parameter()) if affine else (((), -1), None)
        row = {
            "start": begin, "C": channels, "pixels": pixels, "depth": depth, "normalised": eps is not None,
            "affine": scale, "target": self._target, "route": route, "source": begin, "eps": eps or 0.0,
        }  # fmt: skip
        self._norms.append(row)
        return row

    def _weightless(self, form: Skip | Pool, number: int) -> Row:
        """Add a route without weights, and return its end."""
        if isinstance(form, Skip):
            norm = self._norm(self.C, self.H * self.W, 0, None, False, number)
            return {"norm": norm["start"], "y": -1, "pool": -1, "C": self.C, "sides": (self.H, self.W)}
        alike, window, k = replace(form, eps=None, affine=False), form.window, form.kernel
        h, w = window.side(self.H, k), window.side(self.W, k)
        if alike not in self._shared:
            self._shared[alike] = {
                "y": self._take("saved", self.images * h * w * self.C), "norm": -1, "h": h, "w": w,
                "maximum": form.largest, "K": k, "s": window.stride, "p": window.padding,
            }  # fmt: skip
            self._pools.append(self._shared[alike])
        pool = self._shared[alike]
        norm = self._norm(self.C, h * w, 0, form.eps, form.affine, number)
        if form.eps is not None:
            pool["norm"] = norm["start"] if pool["norm"] < 0 else pool["norm"]
            norm["source"] = pool["norm"]
        return {"norm": norm["start"], "y": pool["y"], "pool": self._pools.index(pool), "C": self.C, "sides": (h, w)}

    def _chain(self, form: Chain, number: int) -> Row:
        """Add the steps of a chain, and return its end."""
        sides, channels = (self.H, self.W), self.C
        if form.split_phases:
            sides, channels = (-(-self.H // 2), -(-self.W // 2)), 2 * self.C
        row: Row = {"y": -1, "norm": -1}
        for depth, step in enumerate(form.steps):
            before = row
            row = dict.fromkeys(STEP.names or (), 0) | {
                "target": self._target, "depth": depth, "norm_before": before["norm"], "x": before["y"], "g": -1,
                "dx": -1, "H": sides[0], "W": sides[1], "C": channels, "s": 1, "d": 1, "k": 1, "ks": 1, "kd": 1,
                "phases": form.split_phases and not depth,
            }  # fmt: skip
            if depth:
                row["dx"] = before["g"] = self._take("grad_saved", self.images * sides[0] * sides[1] * channels)
            if step.window is not None:
                window = step.window
                (*_, row["K"]), row["depthwise"] = self._parameter()
                row |= {"s": window.stride, "p": window.padding, "d": window.dilation}
                sides = (window.side(sides[0], row["K"]), window.side(sides[1], row["K"]))
            (row["O"], *_), row["conv"] = shape, _ = self._parameter()
            if isinstance(step.linear, Spatial):
                window = step.linear.window
                row |= {"k": shape[-1], "ks": window.stride, "kp": window.padding, "kd": window.dilation}
                sides = (window.side(sides[0], shape[-1]), window.side(sides[1], shape[-1]))
            channels, pixels = row["O"], sides[0] * sides[1]
            row |= {"h": sides[0], "w": sides[1], "y": self._take("saved", self.images * pixels * channels)}
            last = depth == len(form.steps) - 1
            row["norm"] = self._norm(channels, pixels, depth, step.eps, step.affine, number if last else -1)["start"]
            self._steps.append(row)
        return {"norm": row["norm"], "y": row["y"], "pool": -1, "C": channels, "sides": sides}


@lru_cache(maxsize=1024)
def layout_of(routes: tuple[Route, ...], shape: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> Layout:
    """Return the layout, made once."""
    return Layout(routes, shape, shapes)
