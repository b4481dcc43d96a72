"""All that leaves a state of a cell, on a CPU, in a few walks over memory.

It computes what :func:`gapless.engine.kernels.fan` computes, in the compiled loops of :mod:`gapless.engine.walks`. Each
image goes through a whole step of each chain (ReLU, depthwise convolution, convolution, moments) while it lies in the
cache; between steps only the moments of all images have to meet. Kept for the backward pass is what normalisations
read, and nothing else: what follows a normalisation is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.engine import walks
from gapless.engine.kernels import Chain, Moments, Pool, Route, Skip, Spatial
from gapless.engine.lanes import Width
from gapless.engine.workers import share, threads

Array = NDArray[Any]
FORMATS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
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
        and _known(tuple(routes))
    )


@lru_cache(maxsize=4096)
def _known(routes: tuple[Route, ...]) -> bool:
    """A step has one convolution over places, and only the first of a chain has a stride."""
    for route in routes:
        for at, step in enumerate(route.form.steps if isinstance(route.form, Chain) else ()):
            spatial = step.linear.window if isinstance(step.linear, Spatial) else None
            strided = any(w is not None and w.stride > 1 for w in (step.window, spatial))
            if (step.window is not None and spatial is not None) or (at and strided):
                return False
    return True


# ---------------------------------------------------------------------- what is done, as records

_WHOLE = np.int64
STEP = np.dtype([(name, _WHOLE) for name in (
    "depth", "target", "slot", "before",  # number in its chain, where it leads; its normalisation, the one it reads
    "x", "y", "g", "dx",  # what it reads and writes in kept (-1: the state), and in dkept (-1: the target's gradient)
    "deep_from", "wide_from", "deep", "turned", "wide", "back",  # weights among the parameters, and packed
    "H", "W", "C", "h", "w", "O",  # input, output
    "K", "s", "p", "d", "k", "ks", "kp", "kd",  # kernel (0: none), stride, padding, dilation: depthwise, over channels
    "halves",
)])  # fmt: skip
"""A step of a chain."""
POOL = np.dtype([(name, _WHOLE) for name in ("y", "slot", "shares", "largest", "h", "w", "K", "s", "p")])
"""A pool of the state, which several routes may share; ``slot`` of its moments, -1 if nobody needs them."""
SLOT = np.dtype(
    [(name, _WHOLE) for name in ("at", "C", "places", "depth", "normed", "affine", "way", "source")]
    + [("eps", np.float64)]
)
"""Vectors of a normalisation, from ``at`` on; ``affine``: scale and shift among the parameters (-1: none), ``way``: the
route that ends there (-1: inside of a chain), ``source``: the slot that holds its moments."""
WAY = np.dtype([(name, _WHOLE) for name in ("target", "slot", "y", "pool", "places", "C", "more")])
"""The end of a route; ``more``: another one came to its target before."""
FAN = np.dtype([(name, _WHOLE) for name in (
    "images", "channels", "H", "W", "C", "border", "halves", "strided",
    "whole", "split", "frame", "z", "dz", "e", "image", "dsplit", "spread", "pool",
)])  # fmt: skip
"""The state, the sum of the slots' channels, and where buffers of a thread lie."""


Row = dict[str, Any]


class Plan:
    """What a fan does, for a state [N, H, W, C] and parameters of certain shapes: records, and how much memory it takes.

    ``lengths`` are the numbers that one buffer each takes; ``outputs`` the shapes of what arrives at the targets.
    """

    def __init__(
        self, routes: Sequence[Route], shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self.images, self.H, self.W, self.C = shape
        self.lengths = dict.fromkeys(("parameters", "kept", "dkept", "packed", "slots", "averages", "room"), 0)
        self._given = iter(shapes)
        self._steps: list[Row] = []
        self._pools: list[Row] = []
        self._slots: list[Row] = []
        self._ways: list[Row] = []
        self._shared: dict[Pool, Row] = {}
        self._averages: list[Array] = []
        self.outputs: dict[int, tuple[int, ...]] = {}
        for number, route in enumerate(routes):
            form = route.form
            way = self._chain(form, number) if isinstance(form, Chain) else self._still(form, number)
            sides = way.pop("sides")
            way |= {"target": route.target, "places": sides[0] * sides[1], "more": route.target in self.outputs}
            self._ways.append(way)
            self.outputs[route.target] = (self.images, *sides, way["C"])
        for step in self._steps:
            step["target"] = routes[step.pop("way")].target
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
        return shape, self._span("parameters", math.prod(shape))

    def _slot(self, channels: int, places: int, depth: int, eps: float | None, affine: bool, way: int) -> Row:
        begin = self._span("slots", channels)
        (_, scale), _ = (self._parameter(), self._parameter()) if affine else (((), -1), None)
        row = {
            "at": begin, "C": channels, "places": places, "depth": depth, "normed": eps is not None, "affine": scale,
            "way": way, "source": begin, "eps": eps or 0.0,
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
                "y": self._span("kept", self.images * h * w * self.C), "slot": -1, "largest": form.largest, "h": h, "w": w,
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
                "way": number, "depth": depth, "before": before["slot"], "x": before["y"], "g": -1, "dx": -1,
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
            row |= {name: self._span("packed", row["K"] ** 2 * channels) for name in ("deep", "turned")}
            row |= {name: self._span("packed", row["k"] ** 2 * channels * row["O"]) for name in ("wide", "back")}
            channels, places = row["O"], sides[0] * sides[1]
            row["y"] = self._span("kept", self.images * places * channels)
            ends = depth == len(form.steps) - 1
            row["slot"] = self._slot(channels, places, depth, step.eps, step.affine, number if ends else -1)["at"]
            self._steps.append(row)
        return {"slot": row["slot"], "y": row["y"], "pool": -1, "C": channels, "sides": sides}

    def _rooms(self) -> Row:
        """Lay out a thread's buffers."""
        whole = [s for s in self._steps if not s["depth"] and not s["halves"]]
        border = max((max(s["p"], s["kp"]) for s in whole), default=0)
        framed = (self.H + 2 * border) * (self.W + 2 * border) * self.C
        halves = any(s["halves"] for s in self._steps) * -(-self.H // 2) * -(-self.W // 2) * 2 * self.C
        strided = any(s["K"] and s["s"] > 1 for s in self._steps) * framed

        def most(count: Callable[[Row], int], rows: Sequence[Row] = self._steps) -> int:
            return max(map(count, rows), default=0)

        def around(high: int, wide: int, border: int, channels: int) -> int:
            return (high + 2 * border) * (wide + 2 * border) * channels

        error = most(lambda s: max(s["h"], s["H"] + s["kd"] * (s["k"] - 1)) * max(s["w"], s["W"] + s["kd"] * (s["k"] - 1)) * s["O"])
        sizes = {
            "whole": framed,
            "split": halves,
            "frame": most(lambda s: around(s["H"], s["W"], max(s["p"], s["kp"]), s["C"]) if s["depth"] else 0),
            "z": most(lambda s: s["h"] * s["w"] * s["C"] if s["K"] else 0),
            "dz": most(lambda s: around(s["h"], s["w"], max(s["d"] * (s["K"] - 1) - s["p"], 0), s["C"]) if s["K"] else 0),
            "e": max(error, most(lambda t: t["h"] * t["w"] * self.C, self._pools)),
            "image": self.H * self.W * self.C,
            "dsplit": halves,
            "spread": strided,
            "pool": 2 * most(lambda t: around(self.H, self.W, t["p"], self.C), self._pools),
        }  # fmt: skip
        rooms = {name: self._span("room", size) for name, size in sizes.items()}
        return rooms | {
            "images": self.images, "channels": self.lengths["slots"], "H": self.H, "W": self.W, "C": self.C,
            "border": border, "halves": halves, "strided": strided,
        }  # fmt: skip


def _records(rows: Sequence[Row], kind: np.dtype[Any]) -> Array:
    return np.array([tuple(row[name] for name in kind.names or ()) for row in rows], kind)


def _width(*channels: int) -> Width:
    return next(width for count, width in WIDTHS.items() if all(c % count == 0 for c in channels))


@lru_cache(maxsize=1024)
def plan(routes: tuple[Route, ...], shape: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> Plan:
    """Return the plan, made once."""
    return Plan(routes, shape, shapes)


# ---------------------------------------------------------------------- memory


_MEMORY = threading.local()


def _scratch(slot: str, count: int, kind: Any) -> Array:
    """Return memory that the next call with this slot, in this thread, returns again."""
    held: dict[Any, Array] = _MEMORY.__dict__
    found = held.get((slot, kind))
    if found is None or len(found) < count:
        held[slot, kind] = found = np.empty(count, kind)
    return found[:count]


def _flat(x: Tensor) -> Array:
    array: Array = x.detach().view(-1).numpy()
    return array


def _addresses(tensors: Sequence[Tensor], held: Sequence[bool]) -> Array:
    return np.array([[t.data_ptr() for t in tensors], held], np.int64)


# ---------------------------------------------------------------------- the function


def fan(
    routes: Sequence[Route],
    coefficient: Tensor,
    x: Tensor,
    arrived: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :func:`gapless.engine.kernels.fan`; for what :func:`serves` says yes to."""
    made = plan(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    *sums, means, variances = _Fan.apply(made, coefficient, x, *arrived, *parameters)  # type: ignore[no-untyped-call]
    return tuple(sums), tuple((means[at : at + c], variances[at : at + c]) for at, c in made.normed)


class _Fan(Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, coefficient: Tensor, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[: len(plan.outputs)], tensors[len(plan.outputs) :]
        run = _Run(plan, coefficient, x, parameters)  # type: ignore[arg-type]
        kept = x.new_empty(plan.lengths["kept"])
        sums = [x.new_empty(plan.outputs[t]) if before is None else before for t, before in enumerate(arrived)]
        targets = _addresses(sums, [before is not None for before in arrived])
        seen, lines = run.vectors("seen", np.dtype(np.float64), 2 * x.shape[0]), run.vectors("lines", run.kind, 6)
        book = np.empty((3, plan.lengths["slots"]))
        there = (run.x, _flat(kept))
        for depth in range(plan.depth):
            run.share(walks.ahead, run.rooms, *there, run.packed, run.averages, lines, seen, plan.steps, plan.pools, plan.fan, depth)
            walks.settle(run.flat, run.shares, seen, book, lines, plan.slots, x.shape[0], depth)
        run.share(walks.gather, *there, lines, targets, plan.ways, plan.fan)
        ctx.plan, ctx.book, ctx.shares = plan, book, coefficient.detach()
        ctx.save_for_backward(x, kept, *parameters)
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        means, variances = (torch.from_numpy(book[row]).to(x) for row in (walks.CENTRE, walks.VARIANCE))
        ctx.mark_non_differentiable(means, variances)
        return *sums, means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, kept, *parameters = ctx.saved_tensors
        wanted, targets = ctx.needs_input_grad, len(plan.outputs)
        below, weights = wanted[2], any(wanted[3 + targets :])
        run = _Run(plan, ctx.shares, x, parameters)
        whole = [g.contiguous() for g in given[:targets]]
        at = _addresses(whole, [True] * targets)
        sums, lines = run.vectors("seen", np.dtype(np.float64), 2 * x.shape[0]), run.vectors("lines", run.kind, 6)
        walks.restore(run.flat, ctx.book, lines, plan.slots)
        there = (run.x, _flat(kept))
        run.share(walks.correlate, *there, lines, sums, at, plan.ways, plan.fan)
        flat = torch.empty(plan.lengths["parameters"], dtype=x.dtype)
        dflat, dshare = _flat(flat), torch.empty(len(plan.ways), dtype=torch.float64)
        dx = torch.empty_like(x) if below else x.new_empty(0)
        dkept = _scratch("dkept", plan.lengths["dkept"], run.kind)
        dweights = _scratch("dweights", run.threads * plan.lengths["packed"], np.float64).reshape(run.threads, -1)
        dweights[:] = 0
        for depth in range(plan.depth)[::-1]:
            last = depth == plan.depth - 1
            walks.carry(
                run.flat, dflat, run.shares, dshare.numpy(), sums, ctx.book, lines, plan.slots, x.shape[0], -1 if last else depth
            )
            if below or weights:
                run.share(
                    walks.behind, run.rooms, *there, run.packed, run.averages, lines, sums, at, dkept, dweights, _flat(dx), plan.steps,
                    plan.pools, plan.ways, plan.fan, depth, weights, below,
                )  # fmt: skip
        walks.unpack(dweights, dflat, plan.steps)
        found: list[Tensor | None] = [None] * len(parameters)
        if weights:
            parts = flat.split([p.numel() for p in parameters])
            found = [part.view(p.shape) if want else None for part, p, want in zip(parts, parameters, wanted[3 + targets:], strict=True)]
        passed = [t if want else None for t, want in zip(whole, wanted[3:], strict=False)]
        return None, dshare.to(x), dx if below else None, *passed, *found


class _Run:
    """A pass over the images, forward or back: what both need."""

    def __init__(self, plan: Plan, coefficient: Tensor, x: Tensor, parameters: Sequence[Tensor]) -> None:
        self.plan, self.kind = plan, FORMATS[x.dtype]
        self.images, self.threads, self.x = x.shape[0], threads(x.shape[0]), _flat(x)
        self.flat = _flat(torch.cat([p.detach().reshape(-1) for p in parameters])) if parameters else np.empty(0, self.kind)
        self.shares = coefficient.detach().double().numpy()
        self.averages = plan.averages[x.dtype]
        self.packed = _scratch("packed", plan.lengths["packed"], self.kind)
        walks.pack(self.flat, self.packed, plan.steps)

    def vectors(self, slot: str, kind: np.dtype[Any], rows: int) -> Array:
        """Return rows over the channels of all slots."""
        return _scratch(slot, rows * self.plan.lengths["slots"], kind)

    @property
    def rooms(self) -> Array:
        """A row of memory for each thread."""
        return _scratch("rooms", self.threads * self.plan.lengths["room"], self.kind).reshape(self.threads, -1)

    def share(self, walk: Callable[..., None], *arguments: Any) -> None:
        """Let the threads walk, each over its own images."""
        share(self.images, lambda rank, lo, hi: walk(rank, lo, hi, *arguments, self.plan.width))
