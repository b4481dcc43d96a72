"""All that leaves a state of a cell, on a GPU, in some tens of launches.

It computes what :func:`gapless.engine.kernels.fan` computes, in the Triton kernels of :mod:`gapless.engine.tiles`, by
the same plan as the compiled loops of a CPU. One launch serves all chains of a kind, to whatever targets they lead.
Kept for the backward pass is what normalisations read; what follows them is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.engine import tiles
from gapless.engine.kernels import Moments, Route, halves, sent
from gapless.engine.plan import FORMATS, Array, Plan, laid_out, plan

__all__ = ["fan", "serves"]

CHANNELS = 128
"""The widest images that tiles are made for: weights of a pointwise convolution are held whole."""
SIDE = 7
"""The largest kernel."""
NUMBERS = 2048
"""In a tile, at most, with at least 16 pixels (a matrix product's smallest side). On an H100 a step of the DARTS space
takes 36.9 ms with 2048, 42.8 with 1024 and 42.1 with 4096."""
CHUNKS = 128
"""Parts in which the gradient at a weight is added up, at most (32, 64, 128, 256: 43.7, 36.9, 36.3, 36.4 ms)."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the kernels compute these routes, for a state like ``x``."""
    widths = [x.shape[-1], *(side for p in parameters for side in p.shape[:2])]
    return (
        x.dtype in FORMATS
        and all(p.dtype == x.dtype for p in parameters)
        and max(widths) <= CHANNELS
        and all(width % 4 == 0 for width in (x.shape[-1], *(p.shape[0] for p in parameters)))  # as a plan asks
        and all(p.shape[-1] <= SIDE for p in parameters if p.dim() == 4)
        and max(widths) * x.numel() // x.shape[-1] < 2**31  # places in an image are whole numbers of 32 bits
        and laid_out(tuple(routes))
    )


# ---------------------------------------------------------------------- what is launched


class Desk:
    """Whole numbers that go to a device all at once: masks that are drawn anew cost a fan one copy, and no waiting."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.whole = torch.empty(0)

    def send(self, device: torch.device) -> None:
        """Bring all that was put here to a device."""
        self.whole = sent(torch.tensor(self.numbers, dtype=torch.int64), device)


class Rows:
    """A table on the desk: some columns of records."""

    def __init__(self, desk: Desk, records: Sequence[dict[str, int]], columns: Sequence[str]) -> None:
        numbers = [record[name] for record in records for name in columns]
        self.desk, self.begin, self.count, self.size = desk, len(desk.numbers), len(records), len(numbers)
        desk.numbers += [*numbers, *([0] * (len(numbers) % 2))]  # 16 bytes, as the compiler takes them to be aligned

    def __len__(self) -> int:
        return self.count

    @cached_property
    def table(self) -> Tensor:
        """On the device, once the desk was sent there."""
        return self.desk.whole.narrow(0, self.begin, self.size)


class Group:
    """Steps that one launch serves: the sides of their kernels, their widths, their rows of the table."""

    def __init__(self, key: Key, steps: Sequence[dict[str, int]], desk: Desk) -> None:
        self.K, self.KK, self.C, self.O, self.halves, self.ends = key
        self.side = self.K or self.KK
        self.count = len(steps)
        self.pixels = max(step["h"] * step["w"] for step in steps)
        self.inside = max(step["H"] * step["W"] for step in steps)
        self.rows = Rows(desk, steps, tiles.COLUMNS)


Key = tuple[int, int, int, int, bool, bool]
"""Sides of the depthwise and the other convolution, channels that are read and written, halves, end of a chain."""


class Tables:
    """What a plan launches on a device, when nothing depends on what arrives at ``dead`` targets."""

    def __init__(self, made: Plan, device: torch.device, dead: tuple[int, ...], double: bool) -> None:
        desk = Desk()
        self.alive = [t for t in made.outputs if t not in dead]
        starts, begin = {}, 0
        for t in self.alive:
            starts[t], begin = begin, begin + math.prod(made.outputs[t])
        steps, slots = ([row for row in _dicts(table) if row["target"] in starts] for table in (made.steps, made.slots))
        slots = [slot | {"eps": _bits(slot["eps"])} for slot in slots]
        ways = [way | {"g": starts.get(way["target"], 0)} for way in _dicts(made.ways)]
        channels = [made.C, *(step[name] for step in _dicts(made.steps) for name in ("C", "O"))]
        self.align = math.gcd(16, *channels)
        self.width = max([_padded(made.C), *(_padded(step[name]) for step in steps for name in ("C", "O"))])
        numbers = NUMBERS // 4 if double else NUMBERS
        self.pixels = max(16, min(128, numbers // self.width))
        self.errors = 0
        self.groups: list[list[Group]] = []
        for depth in range(made.depth):
            kinds: dict[Key, list[dict[str, int]]] = {}
            room = 0
            for step in (step for step in steps if step["depth"] == depth):
                deep, ends = step["K"] > 0, step["g"] < 0
                key = (step["K"], step["k"], step["C"], step["O"], bool(step["halves"]), ends)
                row = step | {
                    "deep": step["deep_from"],
                    "wide": step["wide_from"],
                    "z": room,
                    "side": step["K"] or step["k"],
                }
                row |= {} if deep else {"s": step["ks"], "p": step["kp"], "d": step["kd"]}
                row |= {"g": starts[step["target"]]} if ends else {}
                kinds.setdefault(key, []).append(row)
                room += made.images * step["h"] * step["w"] * step["C" if deep else "O"]
            self.errors = max(self.errors, room)
            self.groups.append([Group(key, rows, desk) for key, rows in sorted(kinds.items())])
        places = max(slot["places"] for slot in _dicts(made.slots))
        self.tiles = -(-made.images * places // self.pixels)
        self.chunks = max(1, min(CHUNKS, self.tiles // 4))
        self.lanes = max(_padded(slot["C"]) for slot in _dicts(made.slots))
        self.rows = min(NUMBERS // self.lanes, 1 << (self.tiles - 1).bit_length())

        def rows(found: Iterable[dict[str, int]], columns: Sequence[str] = tiles.ENDS) -> Rows:
            return Rows(desk, list(found), columns)

        depths = range(made.depth)
        self.slots = [rows((s for s in slots if s["depth"] == depth), tiles.SLOTS) for depth in depths]
        self.ended = rows((s for s in slots if s["way"] >= 0), tiles.SLOTS)
        self.inner = [rows((s for s in slots if s["way"] < 0 and s["depth"] == d), tiles.SLOTS) for d in depths]
        self.into = {t: rows(way for way in ways if way["target"] == t) for t in made.outputs}
        ways = [way for way in ways if way["target"] in starts]
        self.ways = [(c, rows(way for way in ways if way["C"] == c)) for c in sorted({way["C"] for way in ways})]
        self.skips = rows(way for way in ways if way["y"] < 0)
        self.pools = [
            (pool, rows(way for way in ways if way["pool"] == i)) for i, pool in enumerate(_dicts(made.pools))
        ]
        self.affine = any(slot["affine"] >= 0 for slot in slots)
        desk.send(device)


def _padded(channels: int) -> int:
    """Return how many channels a tile has: a power of two, at least the smallest side of a matrix product."""
    return max(16, 1 << (channels - 1).bit_length())


def _dicts(records: Array) -> list[dict[str, Any]]:
    return [dict(zip(records.dtype.names or (), row, strict=True)) for row in records.tolist()]


def _bits(number: float) -> int:
    """Return the bits of a double as a whole number."""
    found: int = struct.unpack("q", struct.pack("d", number))[0]
    return found


@lru_cache(maxsize=1024)
def tables(made: Plan, device: torch.device, dead: tuple[int, ...], double: bool) -> Tables:
    """Return the tables, made once."""
    with torch.inference_mode(False):
        return Tables(made, device, dead, double)


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
    *sums, moments = _Fan.apply(made, coefficient, x, *arrived, *parameters)  # type: ignore[no-untyped-call]
    means, variances = moments
    return tuple(sums), tuple((means[at : at + c], variances[at : at + c]) for at, c in made.normed)


class _Fan(Function):
    @staticmethod
    def forward(ctx: Any, made: Plan, coefficient: Tensor, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[: len(made.outputs)], tensors[len(made.outputs) :]
        flat = torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)])  # type: ignore[union-attr]
        run = _Run(made, tables(made, x.device, (), x.dtype == torch.float64), x, coefficient, flat)
        moments = run.ahead()
        sums = [x.new_empty(made.outputs[t]) if before is None else before for t, before in enumerate(arrived)]
        for target, (out, before) in enumerate(zip(sums, arrived, strict=True)):
            run.gather(target, out, more=before is not None)
        ctx.made = made
        ctx.save_for_backward(coefficient, x, flat, run.kept, run.chosen, run.book, run.lines)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        ctx.mark_non_differentiable(moments)
        return *sums, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        made: Plan = ctx.made
        coefficient, x, flat, *held = ctx.saved_tensors
        count, wanted = len(made.outputs), ctx.needs_input_grad
        below, weights = wanted[2], any(wanted[3 + count :])
        arriving = [None if g is None else g.contiguous() for g in given[:count]]
        dead = tuple(t for t, g in enumerate(arriving) if g is None)
        if len(dead) == count:
            return (None,) * (3 + count + len(made.shapes))
        # nothing depends on what arrives at a dead target: as edge by edge, no gradient, which is not one of zero
        run = _Run(made, tables(made, x.device, dead, x.dtype == torch.float64), x, coefficient, flat, *held)
        parts = [g.view(-1) for g in arriving if g is not None]
        dshares, dx, dflat = run.behind(parts[0] if len(parts) == 1 else torch.cat(parts), weights, below)
        shapes = [torch.Size(shape) for shape in made.shapes]
        found = [
            part.view(shape) if want and owner not in dead else None
            for part, shape, want, owner in zip(
                dflat.split([shape.numel() for shape in shapes]), shapes, wanted[3 + count :], made.owners, strict=True
            )
        ]
        passed = [g if want else None for g, want in zip(arriving, wanted[3:], strict=False)]
        return None, dshares, dx, *passed, *found


class _Run:
    """A pass over a fan, forward or back."""

    def __init__(self, made: Plan, tables: Tables, x: Tensor, shares: Tensor, flat: Tensor, *held: Tensor) -> None:
        self.made, self.tables, self.x, self.shares, self.flat = made, tables, x, shares.contiguous(), flat
        self.V, self.images = made.lengths["slots"], made.images
        if held:
            self.kept, self.chosen, self.book, self.lines = held
        else:
            self.kept = x.new_empty(made.lengths["kept"])
            largest = sum(p["h"] * p["w"] for p, _ in tables.pools if p["largest"])
            self.chosen = x.new_empty(self.images * largest * made.C, dtype=torch.int8)
            self.book = x.new_empty(3, self.V, dtype=torch.float64)
            self.lines = x.new_empty(6, self.V)
        self.shape = {"BP": tables.pixels}
        self.state = {"C": made.C, "BC": _padded(made.C)} | self.shape
        # three products of rounded factors are as exact as one of whole ones
        self.precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
        if x.dtype == torch.float64:
            self.precision = "ieee"

    def read(self, group: Group) -> Tensor:
        """Return what the first steps of chains read."""
        if not group.halves:
            return self.x
        return halves(self.x.relu())

    def wide(self, group: Group, name: str) -> dict[str, Any]:
        """Return what a kernel is compiled for."""
        warps = 2 if name == "ahead" and not group.K else 4  # 1.9 against 2.4 ms of a NAS-Bench-201 step
        sizes = {"K": group.K, "C": group.C, "O": group.O, "BC": _padded(group.C), "BO": _padded(group.O)}
        return sizes | self.shape | {"A": self.tables.align, "PRECISION": self.precision, "num_warps": warps}

    def over(self, places: int) -> int:
        """Return how many tiles places of all images make."""
        return triton.cdiv(self.images * places, self.tables.pixels)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ forward

    def ahead(self) -> Tensor:
        """Compute all that normalisations read, and return their moments [2, V]."""
        t, made = self.tables, self.made
        seen = self.x.new_empty(2, t.tiles, self.V)
        moments = self.x.new_empty(2, self.V)
        for depth in range(made.depth):
            for group in t.groups[depth]:
                tiles.ahead[self.over(group.pixels), group.count](
                    self.read(group), self.kept, self.flat, self.lines, seen, group.rows.table, self.images, t.tiles,
                    self.V, **self.wide(group, "ahead"), KK=group.KK, INNER=depth > 0,
                )  # fmt: skip
            if not depth:
                self.pool(seen)
            slots = t.slots[depth]
            if len(slots):
                tiles.settle[(len(slots),)](
                    seen, self.flat, self.shares, self.book, self.lines, moments, slots.table, self.images, t.tiles,
                    self.V, **self.shape, BT=t.rows, BC=t.lanes,
                )  # fmt: skip
        return moments

    def pool(self, seen: Tensor) -> None:
        """Pool the state."""
        begin, made = 0, self.made
        for pool, _ in self.tables.pools:
            count = self.images * pool["h"] * pool["w"] * made.C
            tiles.pool[(self.over(pool["h"] * pool["w"]),)](
                self.x, self.kept[pool["y"] :], self.chosen[begin:] if pool["largest"] else self.chosen, seen,
                pool["slot"], self.images, self.tables.tiles, self.V, made.H, made.W, pool["h"], pool["w"], pool["K"],
                pool["s"], pool["p"], K=pool["K"], LARGEST=bool(pool["largest"]), **self.state,
            )  # fmt: skip
            begin += count if pool["largest"] else 0

    def gather(self, target: int, out: Tensor, *, more: bool) -> None:
        """Write or add what arrives at a target."""
        ways, channels = self.tables.into[target], out.shape[-1]
        pixels = out.numel() // channels
        tiles.gather[(triton.cdiv(pixels, self.tables.pixels),)](
            self.x, self.kept, self.lines, out, ways.table, len(ways), pixels, self.V, int(more), C=channels,
            A=self.tables.align, BC=_padded(channels), **self.shape,
        )  # fmt: skip

    # ------------------------------------------------------------------ backward

    def behind(self, given: Tensor, weights: bool, below: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the gradients at the shares, the state and the flat parameters, for those at the targets."""
        t, made, x = self.tables, self.made, self.x
        sums = x.new_empty(2, t.tiles, self.V)
        dshares = torch.zeros_like(self.shares)
        dkept = x.new_empty(made.lengths["dkept"])
        errors, convolved = x.new_empty(t.errors), x.new_empty(t.errors if weights else 0)
        found = (x.new_zeros if t.affine else x.new_empty)(t.chunks if weights else 1, len(self.flat))
        dx = torch.empty_like(x) if below else None
        split: Tensor | None = None
        most = max(math.prod(made.outputs[a][1:3]) for a in t.alive)
        for channels, ways in t.ways:
            tiles.correlate[self.over(most), len(ways)](
                x, self.kept, self.lines, given, sums, ways.table, self.images, t.tiles, self.V, C=channels, A=t.align,
                BC=_padded(channels), **self.shape,
            )  # fmt: skip
        self.carry(t.ended, sums, found, dshares)
        whole = False
        for depth in reversed(range(made.depth if below or weights else 0)):
            if depth < made.depth - 1:
                self.carry(t.inner[depth], sums, found, dshares)
            for group in t.groups[depth]:
                read = self.read(group)
                if group.K and weights:
                    sizes = {"K": group.K, "C": group.C, "A": t.align, "BC": _padded(group.C)} | self.shape
                    tiles.slide[self.over(group.pixels), group.count](
                        read, self.kept, self.flat, self.lines, convolved, group.rows.table, self.images, self.V,
                        **sizes, INNER=depth > 0,
                    )  # fmt: skip
                tiles.turn[t.chunks, group.count](
                    self.kept, self.flat, self.lines, given if group.ends else dkept, convolved, errors, found,
                    group.rows.table, self.images, t.chunks, len(self.flat), self.V, **self.wide(group, "turn"),
                    WEIGHTS=weights, num_stages=2,
                )  # fmt: skip
                if weights:
                    tiles.weigh[t.chunks, group.count, group.side](
                        read, self.kept, self.lines, errors, found, group.rows.table, self.images, t.chunks,
                        len(self.flat), self.V, **self.wide(group, "weigh"), KK=group.KK, INNER=depth > 0,
                    )  # fmt: skip
                if depth:
                    tiles.behind[self.over(group.inside), group.count](
                        self.kept, self.flat, self.lines, errors, dkept, sums, group.rows.table, self.images, t.tiles,
                        self.V, **self.wide(group, "behind"), KK=group.KK,
                    )  # fmt: skip
                elif below:
                    assert dx is not None
                    image = torch.empty_like(read) if group.halves else dx
                    pixels = read.numel() // read.shape[-1]
                    tiles.collect[(triton.cdiv(pixels, t.pixels),)](
                        self.flat, errors, image, group.rows.table, group.count, pixels,
                        int(whole and not group.halves), **self.wide(group, "collect"), KK=group.KK,
                    )  # fmt: skip
                    if group.halves:
                        image = torch.where(read <= 0, 0.0, image)
                        split = image if split is None else split + image
                    else:
                        whole = True
        if dx is not None:
            self.to_state(given, dx, split, whole)
        count, parts = len(self.flat), len(found)
        dflat = torch.empty_like(self.flat)
        if count:
            tiles.fold[(triton.cdiv(count, 256),)](found, dflat, count, count, parts, B=256)
        return dshares, dx, dflat

    def carry(self, slots: Rows, sums: Tensor, found: Tensor, dshares: Tensor) -> None:
        """Join the sums of all tiles."""
        if len(slots):
            tiles.carry[(len(slots),)](
                sums, self.flat, found, self.shares, dshares, self.book, self.lines, slots.table, self.images,
                self.tables.tiles, self.V, **self.shape, BT=self.tables.rows, BC=self.tables.lanes,
            )  # fmt: skip

    def to_state(self, given: Tensor, dx: Tensor, split: Tensor | None, whole: bool) -> None:
        """Finish the gradient at the state: what chains left there, skips, pools."""
        t, made, x = self.tables, self.made, self.x
        pixels = self.images * made.H * made.W
        tiles.pass_on[(self.over(made.H * made.W),)](
            x, self.lines, given, dx, t.skips.table, len(t.skips), pixels, self.V, int(whole), A=t.align, **self.state,
        )  # fmt: skip
        if split is not None:
            dx[:, ::2, ::2] += split[..., : made.C]
            dx[:, 1::2, 1::2] += split[:, : made.H // 2, : made.W // 2, made.C :]
        begin = 0
        for pool, ways in t.pools:
            sides = pool["h"] * pool["w"]
            count = self.images * sides * made.C
            if len(ways):
                e = x.new_empty(count)
                tiles.pool_error[(self.over(sides),)](
                    self.kept, self.lines, given, e, ways.table, len(ways), self.images * sides, self.V, A=t.align,
                    **self.state,
                )  # fmt: skip
                tiles.unpool[(self.over(made.H * made.W),)](
                    e, self.chosen[begin:] if pool["largest"] else self.chosen, dx, self.images, made.H, made.W,
                    pool["h"], pool["w"], pool["K"], pool["s"], pool["p"], K=pool["K"], LARGEST=bool(pool["largest"]),
                    **self.state,
                )  # fmt: skip
            begin += count if pool["largest"] else 0
