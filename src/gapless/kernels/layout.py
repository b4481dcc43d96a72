"""What the compiled walks do for a fan, laid out as records, once for each shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numpy.typing import NDArray
from torch import Tensor

from gapless.kernels.cpu.lanes import Width
from gapless.kernels.cpu.loops import PATCHES, PLACES
from gapless.kernels.plain import Chain, Pool, Route, Skip, Spatial

Array = NDArray[Any]
FORMATS: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
WIDTHS = {count: Width(count, WIDE) for count in ((16, 8, 4) if WIDE else (8, 4))}
"""Vectors by how many numbers they hold: sixteen sums of the longest fit 32 registers, eight fit 16."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the loops compute these routes, for a state like ``x``: on the CPU, in single or double precision,
    for channels in fours."""
    return (
        x.device.type == "cpu"
        and x.dtype in FORMATS
        and x.shape[-1] % 4 == 0
        and all(p.shape[0] % 4 == 0 and p.dtype == x.dtype for p in parameters)
        and laid_out(tuple(routes))
    )


@lru_cache(maxsize=4096)
def laid_out(routes: tuple[Route, ...]) -> bool:
    """Return whether a plan holds these routes: a step has one convolution over places, and only the first of a chain
    has a stride."""
    for form in (route.form for route in routes if isinstance(route.form, Chain)):
        for at, step in enumerate(form.steps):
            spatial = step.linear.window if isinstance(step.linear, Spatial) else None
            strided = any(w is not None and w.stride > 1 for w in (step.window, spatial))
            if step.window is not None and (spatial is not None or (form.halves and not at)):
                return False
            if at and strided:
                return False
    return True


# ---------------------------------------------------------------------- what is done, as records

_WHOLE = np.int64
STEP = np.dtype([(name, _WHOLE) for name in (
    "depth", "target", "slot", "before",  # number in its chain, where it leads; its normalisation, the one it reads
    "x", "y", "g", "dx",  # what it reads and writes in kept (-1: the state), and in dkept (-1: the target's gradient)
    "deep_from", "wide_from", "deep", "wide", "turned", "back",  # weights among the parameters, packed, packed turned
    "H", "W", "C", "h", "w", "O",  # input, output
    "K", "s", "p", "d", "k", "ks", "kp", "kd",  # kernel (0: none), stride, padding, dilation: depthwise, over channels
    "halves", "filtered", "sums",  # whether by minimal filtering, and where its gradients are summed among a thread's
)])  # fmt: skip
"""A step of a chain."""
POOL = np.dtype([(name, _WHOLE) for name in ("y", "slot", "shares", "largest", "h", "w", "K", "s", "p")])
"""A pool of the state, which several routes may share; ``slot`` of its moments, -1 if nobody needs them."""
SLOT = np.dtype(
    [(name, _WHOLE) for name in ("at", "C", "places", "depth", "normed", "affine", "target", "way", "source")]
    + [("eps", np.float64)]
)
"""Vectors of a normalisation, from ``at`` on; ``affine``: scale and shift among the parameters (-1: none), ``way``: the
route that ends there (-1: inside of a chain), ``source``: the slot that holds its moments."""
WAY = np.dtype([(name, _WHOLE) for name in ("target", "slot", "y", "pool", "places", "C", "more")])
"""The end of a route; ``more``: another one came to its target before."""
FAN = np.dtype([(name, _WHOLE) for name in (
    "images", "channels", "H", "W", "C", "border", "halves", "strided", "filtered",
    "whole", "split", "frame", "z", "dz", "e", "image", "dsplit", "spread", "pool", "patches", "products", "dpatches",
    "gradients",
)])  # fmt: skip
"""The state, the sum of the slots' channels, and where buffers of a thread lie."""


Row = dict[str, Any]


class Plan:
    """What a fan does, for a state [N, H, W, C] and parameters of certain shapes.

    Attributes
    ----------
    steps, pools, slots, ways, fan
        Records, as described above.
    depth
        Steps of the longest chain.
    width
        The vectors of all loops: the longest that divide all numbers of channels.
    lengths
        How many numbers each buffer takes; ``room`` is for one thread.
    averages
        For each precision, one over the pixels under each window of pools of averages.
    outputs
        The shape [N, H', W', C'] of what arrives at each target.
    shapes
        Of the parameters.
    owners
        For each parameter the target that its route leads to.
    normed
        Where the vectors of each normalisation begin, and how many channels it has.
    """

    def __init__(self, routes: Sequence[Route], shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> None:
        self.images, self.H, self.W, self.C = shape
        self.lengths = dict.fromkeys(
            ("parameters", "kept", "dkept", "weights", "turned", "slots", "averages", "room", "gradients"), 0
        )
        self.shapes = tuple(shapes)
        self._given = iter(shapes)
        self._steps: list[Row] = []
        self._pools: list[Row] = []
        self._slots: list[Row] = []
        self._ways: list[Row] = []
        self._shared: dict[Pool, Row] = {}
        self._averages: list[Array] = []
        self._target = 0
        self.owners: list[int] = []
        self.outputs: dict[int, tuple[int, ...]] = {}
        for number, route in enumerate(routes):
            form, self._target = route.form, route.target
            way = self._chain(form, number) if isinstance(form, Chain) else self._still(form, number)
            sides = way.pop("sides")
            way |= {"target": route.target, "places": sides[0] * sides[1], "more": route.target in self.outputs}
            self._ways.append(way)
            self.outputs[route.target] = (self.images, *sides, way["C"])
        self.depth = 1 + max((step["depth"] for step in self._steps), default=0)
        self.width = _width(self.C, *(step[name] for step in self._steps for name in ("C", "O")))
        fan = self._rooms()
        self.steps, self.pools, self.slots, self.ways, self.fan = (
            _records(rows, kind)
            for rows, kind in (
                (self._steps, STEP), (self._pools, POOL), (self._slots, SLOT), (self._ways, WAY), ([fan], FAN),
            )
        )  # fmt: skip
        self.averages = {t: np.concatenate([np.empty(0), *self._averages]).astype(f) for t, f in FORMATS.items()}
        self.normed = [(row["at"], row["C"]) for row in self._slots if row["normed"]]

    def _span(self, name: str, count: int) -> int:
        begin = self.lengths[name]
        self.lengths[name] += int(count)
        return begin

    def _parameter(self) -> tuple[tuple[int, ...], int]:
        shape = next(self._given)
        self.owners.append(self._target)
        return shape, self._span("parameters", math.prod(shape))

    def _slot(self, channels: int, places: int, depth: int, eps: float | None, affine: bool, way: int) -> Row:
        begin = self._span("slots", channels)
        (_, scale), _ = (self._parameter(), self._parameter()) if affine else (((), -1), None)
        row = {
            "at": begin, "C": channels, "places": places, "depth": depth, "normed": eps is not None, "affine": scale,
            "target": self._target, "way": way, "source": begin, "eps": eps or 0.0,
        }  # fmt: skip
        self._slots.append(row)
        return row

    def _still(self, form: Skip | Pool, number: int) -> Row:
        """A route without weights."""
        if isinstance(form, Skip):
            slot = self._slot(self.C, self.H * self.W, 0, None, False, number)
            return {"slot": slot["at"], "y": -1, "pool": -1, "C": self.C, "sides": (self.H, self.W)}
        alike, window, k = replace(form, eps=None, affine=False), form.window, form.kernel
        h, w = window.side(self.H, k), window.side(self.W, k)
        if alike not in self._shared:
            area = 0 if form.largest else h * w
            self._shared[alike] = {
                "y": self._span("kept", self.images * h * w * self.C), "slot": -1, "h": h, "w": w,
                "largest": form.largest,
                "shares": self._span("averages", area), "K": k, "s": window.stride, "p": window.padding,
            }  # fmt: skip
            self._pools.append(self._shared[alike])
            if area:
                starts = (np.arange(out) * window.stride - window.padding for out in (h, w))
                under = [
                    np.minimum(start + k, side) - np.maximum(start, 0)
                    for start, side in zip(starts, (self.H, self.W), strict=True)
                ]
                self._averages.append((1 / np.outer(*under)).ravel())
        pool = self._shared[alike]
        slot = self._slot(self.C, h * w, 0, form.eps, form.affine, number)
        if form.eps is not None:
            pool["slot"] = slot["at"] if pool["slot"] < 0 else pool["slot"]
            slot["source"] = pool["slot"]
        return {"slot": slot["at"], "y": pool["y"], "pool": self._pools.index(pool), "C": self.C, "sides": (h, w)}

    def _chain(self, form: Chain, number: int) -> Row:
        sides, channels = (self.H, self.W), self.C
        if form.halves:
            sides, channels = (-(-self.H // 2), -(-self.W // 2)), 2 * self.C
        row: Row = {"y": -1, "slot": -1}
        for depth, step in enumerate(form.steps):
            before = row
            row = dict.fromkeys(STEP.names or (), 0) | {
                "target": self._target, "depth": depth, "before": before["slot"], "x": before["y"], "g": -1, "dx": -1,
                "H": sides[0], "W": sides[1], "C": channels, "s": 1, "d": 1, "k": 1, "ks": 1, "kd": 1,
                "halves": form.halves and not depth,
            }  # fmt: skip
            if depth:
                row["dx"] = before["g"] = self._span("dkept", self.images * sides[0] * sides[1] * channels)
            if step.window is not None:
                window = step.window
                (*_, row["K"]), row["deep_from"] = self._parameter()
                row |= {"s": window.stride, "p": window.padding, "d": window.dilation}
                sides = (window.side(sides[0], row["K"]), window.side(sides[1], row["K"]))
            (row["O"], *_), row["wide_from"] = shape, _ = self._parameter()
            if isinstance(step.linear, Spatial):
                window = step.linear.window
                row |= {"k": shape[-1], "ks": window.stride, "kp": window.padding, "kd": window.dilation}
                sides = (window.side(sides[0], shape[-1]), window.side(sides[1], shape[-1]))
            row |= {"h": sides[0], "w": sides[1]}
            row["filtered"] = _filtered(row)
            places = PLACES if row["filtered"] else row["k"] ** 2
            sizes = {"deep": row["K"] ** 2 * channels, "wide": places * channels * row["O"]}
            row |= {name: self._span("weights", size) for name, size in sizes.items()}
            row |= {"turned": self._span("turned", sizes["deep"]), "back": self._span("turned", sizes["wide"])}
            row["sums"] = self._span("gradients", sizes["wide"] if row["filtered"] else 0)
            channels, places = row["O"], sides[0] * sides[1]
            row["y"] = self._span("kept", self.images * places * channels)
            ends = depth == len(form.steps) - 1
            row["slot"] = self._slot(channels, places, depth, step.eps, step.affine, number if ends else -1)["at"]
            self._steps.append(row)
        return {"slot": row["slot"], "y": row["y"], "pool": -1, "C": channels, "sides": sides}

    def _rooms(self) -> Row:
        """Lay out a thread's buffers."""

        def most(count: Callable[[Row], int], rows: Sequence[Row] = self._steps) -> int:
            return max(map(count, rows), default=0)

        def around(sides: tuple[int, int], border: int, channels: int) -> int:
            return (sides[0] + 2 * border) * (sides[1] + 2 * border) * channels

        def spread(s: Row) -> int:
            """The gradient at a step's output, with what its way back needs around it."""
            more = s["kd"] * (s["k"] - 1)
            return int(max(s["h"], s["H"] + more) * max(s["w"], s["W"] + more) * s["O"])

        def reach(s: Row) -> int:
            return int(around((s["h"], s["w"]), max(s["d"] * (s["K"] - 1) - s["p"], 0), s["C"]))

        whole = [s for s in self._steps if not s["depth"] and not s["halves"]]
        border = max((max(s["p"], s["kp"]) for s in whole), default=0)
        framed = (self.H + 2 * border) * (self.W + 2 * border) * self.C
        halves = most(lambda s: s["halves"] * s["H"] * s["W"] * s["C"])
        strided = framed if any(s["K"] and s["s"] > 1 for s in self._steps) else 0
        deep, inner = [s for s in self._steps if s["K"]], [s for s in self._steps if s["depth"]]
        filtered = [s for s in self._steps if s["filtered"]]

        def patched(channels: str) -> int:
            return most(lambda s: PLACES * max(PATCHES, s["w"] // 2) * s[channels], filtered)

        sizes = {
            "whole": framed,
            "split": halves,
            "frame": most(lambda s: around((s["H"], s["W"]), max(s["p"], s["kp"]), s["C"]), inner),
            "z": most(lambda s: s["h"] * s["w"] * s["C"], deep),
            "dz": most(reach, deep),
            "e": max(most(spread), most(lambda t: t["h"] * t["w"] * self.C, self._pools)),
            "image": self.H * self.W * self.C,
            "dsplit": halves,
            "spread": strided,
            "pool": 2 * most(lambda t: around((self.H, self.W), t["p"], self.C), self._pools),
            "patches": patched("C"),
            "products": patched("O"),
            "dpatches": patched("C"),
            "gradients": self.lengths["gradients"],
        }
        rooms = {name: self._span("room", size) for name, size in sizes.items()}
        return rooms | {
            "images": self.images, "channels": self.lengths["slots"], "H": self.H, "W": self.W, "C": self.C,
            "border": border, "halves": halves, "strided": strided,
            "filtered": sum(s["filtered"] for s in whole),
        }  # fmt: skip


def _filtered(row: Row) -> bool:
    """Return whether a step goes by minimal filtering: a 3x3 convolution of stride 1 that keeps even sides."""
    kernel = (row["K"], row["k"], row["ks"], row["kp"], row["kd"])
    return kernel == (0, 3, 1, 1, 1) and row["h"] % 2 == 0 and row["w"] % 2 == 0


def _records(rows: Sequence[Row], kind: np.dtype[Any]) -> Array:
    return np.array([tuple(row[name] for name in kind.names or ()) for row in rows], kind)


def _width(*channels: int) -> Width:
    return next(width for count, width in WIDTHS.items() if all(c % count == 0 for c in channels))


@lru_cache(maxsize=1024)
def plan(routes: tuple[Route, ...], shape: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> Plan:
    """Return the plan, made once."""
    return Plan(routes, shape, shapes)
