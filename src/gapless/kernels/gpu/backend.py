"""All that leaves a state of a cell, on a GPU, in some tens of launches.

It computes what :func:`gapless.kernels.plain.fan` computes, in the kernels of
:mod:`gapless.kernels.gpu.tiles`, by the same plan as the compiled loops of a CPU. One launch serves
all chains of a kind, to whatever targets they lead. Kept for the backward pass is what
normalisations read; what follows them is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.core.tensors import to_device
from gapless.kernels.forms import Chain, Moments, Route
from gapless.kernels.gpu import tiles
from gapless.kernels.layout import FORMATS, Layout, as_dicts, layout_of, supported
from gapless.kernels.plain import split_phases

__all__ = ["fan", "judged", "serves"]

CHANNELS = 512
"""The widest images that tiles are made for."""
WHOLE = 128
"""The widest ones whose depthwise convolution is followed by one over channels: its weights are held whole."""
BLOCK = 64
"""Channels of a block, elsewhere."""
SIDE = 7
"""The largest kernel."""
NUMBERS, WALKED = 2048, 1024
"""In a tile and in a row of a walk, at most, with at least 16 pixels (a matrix product's smallest side). On an H100 a
pass of NAS-Bench-201 takes 11.6 ms, and 10.9 with 1024 in a tile; before there were walks, one of the DARTS space took
36.9 ms, and 42.8 with 1024."""
JOINED = 8192
"""Numbers of tiles that are joined at a time, at most."""
CHUNKS, LEAST = 128, 4
"""Parts in which the gradient at a weight is added up, at most, and tiles in a part, at least. On an H100 a pass of the
DARTS space takes 33.9 ms with these, 35.2 with 64 parts, 34.9 with 2 tiles; alike runs differ by 1 ms."""
WARPS = {"slide": 2, "ahead": 4, "collect": 4, "weigh": 4}
"""Of programs with matrix products. On an H100 a pass of NAS-Bench-201 takes 11.6 ms with two in all but ``weigh``,
0.25 less with four in ``ahead``, 0.3 less with four in ``collect``, 1.1 more with two in ``weigh``."""
PROGRAMS = 512
"""What a launch should have at least: walks are cut and sums split until it has. On an H100 an architecture pass of the
DARTS space takes 20.4 ms with 512, 22.2 with 1024, 22.6 with 2048; alike runs differ by 1 ms."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the kernels compute these routes, for a state like ``x``."""
    widths = [x.shape[-1], *(side for p in parameters for side in p.shape[:2])]
    windows = [s.window for r in routes if isinstance(r.form, Chain) for s in r.form.steps if s.window is not None]
    return (
        x.dtype in FORMATS
        and all(p.dtype == x.dtype for p in parameters)
        and max(widths) <= (WHOLE if windows else CHANNELS)
        and all(_between(w.stride, w.dilation) <= 2 for w in windows)
        and all(width % 4 == 0 for width in (x.shape[-1], *(p.shape[0] for p in parameters)))
        and all(p.shape[-1] <= SIDE for p in parameters if p.dim() == 4)
        and max(widths) * x.numel() // x.shape[-1] < 2**31  # places in an image are whole numbers of 32 bits
        and supported(tuple(routes))
    )


def _between(stride: int, dilation: int) -> int:
    """Return how many rows of a kernel lie between two outputs of a walk, in what it reads; with the arguments
    exchanged, how many rows lie between them in what it writes."""
    return stride // math.gcd(stride, dilation)


# ---------------------------------------------------------------------- what is launched


class Desk:
    """Whole numbers that go to a device all at once: masks that are drawn anew cost a fan one copy, and no waiting."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.whole = torch.empty(0)

    def send(self, device: torch.device) -> None:
        """Bring all that was put here to a device."""
        self.whole = to_device(torch.tensor(self.numbers, dtype=torch.int64), device)


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
    """Steps that one launch serves: what they are compiled for, their rows of the table, how their pixels are shared
    out over programs.

    Attributes
    ----------
    K, T, stride
        The side of the depthwise convolution (0: none), how many rows of what is read lie between two outputs of a
        walk, its stride (one for other convolutions).
    dense
        Whether all strides are one.
    pixels, columns
        Of a tile, and of a walk.
    length, chunked, back
        Outputs of a walk: forward, where gradients at weights are added up, and on the way back to what was read.
    """

    def __init__(
        self, key: Key, steps: Sequence[dict[str, int]], desk: Desk, images: int, chunks: int, numbers: int
    ) -> None:
        self.K, self.T, self.stride, self.C, self.O, self.halves = key
        steps = sorted(steps, key=lambda s: (s["d"], s["p"]) if self.K else (-s["side"], 0))
        self.count, self.images = len(steps), images
        self.H, self.W, self.h, self.w = (steps[0][name] for name in ("H", "W", "h", "w"))
        self.BC, self.BO = _padded(self.C), _padded(self.O)
        if not self.K:
            self.BC, self.BO = min(self.BC, BLOCK), min(self.BO, BLOCK)
        self.blocks = (_over(self.C, self.BC), _over(self.O, self.BO))
        widest = max(self.BC, self.BO)
        self.columns = max(16, min(128, numbers * WALKED // NUMBERS // widest))
        self.pixels = self.columns if self.K else max(16, min(128, numbers // widest))
        self.length = self.back = 1
        self.dense = all(step["s"] == 1 for step in steps)
        apart = max(step["apart"] for step in steps) if self.K else 1
        self.chunked = self._length(apart, lambda walks: walks >= chunks)
        if self.K:
            self.length = self._length(apart, lambda walks: walks * self.count >= PROGRAMS)
            self.back = self._length(apart, lambda walks: walks * self.count >= PROGRAMS, back=True)
        self.tiles = max(self.ahead(step) for step in steps)
        self.behind = max(self.under(step) for step in steps)
        self.shares = self._shares(steps)
        self.rows = Rows(desk, steps, tiles.COLUMNS)
        self.table = Rows(desk, [{"begin": begin, "end": end} for begin, end in self.shares], ("begin", "end"))
        # convolutions over places, by the sides of their kernels: gradients at weights are compiled for each
        sides = [step["side"] for step in steps]
        self.sides = [(k, sides.index(k), sides.count(k)) for k in sorted(set(sides), reverse=True)]

    def walks(self, h: int, w: int, apart: int, length: int) -> int:
        """Return how many walks go over all images of [h, w]."""
        return _over(self.images * w, self.columns) * apart * _over(_over(h, apart), length)

    def _length(self, apart: int, enough: Callable[[int], bool], back: bool = False) -> int:
        """Return the longest of some lengths that makes enough walks, or the shortest."""
        h, w = (self.H, self.W) if back else (self.h, self.w)
        lengths = [n for n in (32, 16, 8, 4, 2) if n <= max(2, _over(h, apart))]
        return next((n for n in lengths if enough(self.walks(h, w, apart, n))), lengths[-1])

    def ahead(self, step: dict[str, int]) -> int:
        """Return in how many parts the moments of a step come."""
        if self.K:
            return self.walks(step["h"], step["w"], step["apart"], self.length)
        return _over(self.images * step["h"] * step["w"], self.pixels)

    def under(self, step: dict[str, int]) -> int:
        """Return in how many parts the gradient at what a step read is computed."""
        if self.K and self.stride == 1:
            return self.walks(step["H"], step["W"], step["d"], self.back)
        s = self.stride
        return _over(self.images * _over(step["H"], s) * _over(step["W"], s), self.pixels) * s * s

    def _shares(self, steps: Sequence[dict[str, int]]) -> list[tuple[int, int]]:
        """Return the ranges of steps whose gradients at what they read are added up in one program each; other sums
        than those of walks take steps by turns."""
        if not self.K or self.stride > 1:
            largest = max(step["side"] for step in steps)
            heavy = sum(step["side"] == largest for step in steps)  # one of them each, where there is room
            return [(0, self.count)] * (1 if self.halves else min(self.count, max(heavy, _over(PROGRAMS, self.behind))))
        alike = [(step["d"], step["p"]) for step in steps]
        found = []
        for kind in sorted(set(alike)):
            begin, count = alike.index(kind), alike.count(kind)
            size = max(1, min(count, self.behind * len(set(alike)) * count // PROGRAMS))
            found += [(begin + i, begin + min(i + size, count)) for i in range(0, count, size)]
        return found


Key = tuple[int, int, int, int, int, bool]
"""Side of the depthwise convolution, rows between outputs, stride, channels that are read and written, halves."""


class Tables:
    """What a plan launches on a device, when nothing depends on what arrives at ``dead`` targets."""

    def __init__(self, made: Layout, device: torch.device, dead: tuple[int, ...], double: bool) -> None:
        desk = Desk()
        self.alive = [t for t in made.outputs if t not in dead]
        starts, begin = {}, 0
        for t in self.alive:
            starts[t], begin = begin, begin + math.prod(made.outputs[t])
        steps, slots = (
            [row for row in as_dicts(table) if row["target"] in starts] for table in (made.steps, made.norms)
        )
        slots = [slot | {"eps": _bits(slot["eps"])} for slot in slots]
        ways = [way | {"g": starts.get(way["target"], 0)} for way in as_dicts(made.ends)]
        channels = [made.C, *(step[name] for step in as_dicts(made.steps) for name in ("C", "O"))]
        self.align = math.gcd(16, *channels)
        self.width = max(_padded(slot["C"]) for slot in as_dicts(made.norms))
        numbers = NUMBERS // 4 if double else NUMBERS
        self.pixels = max(16, min(128, numbers // self.width))
        places = max(slot["pixels"] for slot in as_dicts(made.norms))
        self.tiles = _over(made.images * places, self.pixels)
        self.chunks = max(1, min(CHUNKS, self.tiles // LEAST))
        self.errors = 0
        self.groups: list[list[Group]] = []
        self.given = begin
        seen: dict[int, int] = {}
        sums: dict[int, int] = {}
        for depth in range(made.depth):
            kinds: dict[Key, list[dict[str, int]]] = {}
            room = 0
            for step in (step for step in steps if step["depth"] == depth):
                deep = step["K"] > 0
                row = step | {
                    "deep": step["depthwise"],
                    "wide": step["conv"],
                    "z": room,
                    "side": step["K"] or step["k"],
                    "g": starts[step["target"]] if step["g"] < 0 else begin + step["g"],
                    "dx": begin + step["dx"],
                    "apart": _between(step["d"], step["s"]),
                }
                row |= {} if deep else {"s": step["ks"], "p": step["kp"], "d": step["kd"]}
                rows_between, stride = (_between(step["s"], step["d"]), step["s"]) if deep else (0, 1)
                key = (step["K"], rows_between, stride, step["C"], step["O"], bool(step["phases"]))
                kinds.setdefault(key, []).append(row)
                room += made.images * step["h"] * step["w"] * step["C" if deep else "O"]
            self.errors = max(self.errors, room)
            self.groups.append([])
            for key, found in sorted(kinds.items()):
                group = Group(key, found, desk, made.images, self.chunks, numbers)
                self.groups[-1].append(group)
                seen |= {step["norm"]: group.ahead(step) for step in found}
                sums |= {step["norm_before"]: group.under(step) for step in found if depth}
                self.tiles = max(self.tiles, group.tiles, group.behind)
        for slot in slots:
            own = _over(made.images * slot["pixels"], self.pixels)
            slot |= {"seen": seen.get(slot["start"], own), "sums": sums.get(slot["start"], own)}
        self.rows = max(1, min(JOINED // self.width, _power(self.tiles)))
        self.parts = sum(len(group.shares) for group in self.groups[0] if not group.halves)

        def rows(found: Iterable[dict[str, int]], columns: Sequence[str] = tiles.ENDS) -> Rows:
            return Rows(desk, list(found), columns)

        depths = range(made.depth)
        self.slots = [rows((s for s in slots if s["depth"] == depth), tiles.SLOTS) for depth in depths]
        self.ended = rows((s for s in slots if s["route"] >= 0), tiles.SLOTS)
        self.inner = [rows((s for s in slots if s["route"] < 0 and s["depth"] == d), tiles.SLOTS) for d in depths]
        self.into: list[tuple[tuple[int, ...], Rows, Rows]] = [
            (bunch, *self._into(bunch, ways, rows)) for bunch in _bunches(made.outputs)
        ]
        ways = [way for way in ways if way["target"] in starts]
        self.ways = [(c, rows(way for way in ways if way["C"] == c)) for c in sorted({way["C"] for way in ways})]
        self.skips = rows(way for way in ways if way["y"] < 0)
        self.pools = [
            (pool, rows(way for way in ways if way["pool"] == i)) for i, pool in enumerate(as_dicts(made.pools))
        ]
        spans = _spans(made.shapes)
        self.spans = rows(spans, tiles.SPANS)
        self.span = max((span["count"] for span in spans), default=0)
        self.affine = any(slot["affine"] >= 0 for slot in slots)
        desk.send(device)

    def _into(
        self, targets: Sequence[int], ways: Sequence[dict[str, int]], rows: Callable[..., Rows]
    ) -> tuple[Rows, Rows]:
        """Return the ends of routes to some targets, one target after the other, and the range of each."""
        found = [[way for way in ways if way["target"] == t] for t in targets]
        ends = list(accumulate(map(len, found)))
        ranges = [{"begin": end - len(own), "end": end} for own, end in zip(found, ends, strict=True)]
        return rows(way for own in found for way in own), rows(ranges, ("begin", "end"))


def _bunches(outputs: Mapping[int, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return targets of like shape together, as many as a launch writes to."""
    shapes = sorted(set(outputs.values()))
    alike = [[t for t in outputs if outputs[t] == shape] for shape in shapes]
    return [tuple(ts[i : i + tiles.TARGETS]) for ts in alike for i in range(0, len(ts), tiles.TARGETS)]


def _spans(shapes: Sequence[tuple[int, ...]]) -> list[dict[str, int]]:
    """Return how parameters are packed: of a convolution, those of a pixel of its kernel lie together."""
    found: list[dict[str, int]] = []
    begin = 0
    for shape in shapes:
        pixels, count = math.prod(shape[2:]), math.prod(shape)
        if pixels == 1 and found and found[-1]["pixels"] == 1:
            found[-1]["count"] += count
        else:
            found.append({"begin": begin, "count": count, "pixels": pixels})
        begin += count
    return found


def _over(count: int, size: int) -> int:
    """Return how many of a size hold a count."""
    return -(-count // size)


def _power(count: int) -> int:
    """Return the smallest power of two that is not less."""
    return 1 << (count - 1).bit_length()


def _padded(channels: int) -> int:
    """Return how many channels a tile has: a power of two, at least the smallest side of a matrix product."""
    return max(16, _power(channels))


def _bits(number: float) -> int:
    """Return the bits of a double as a whole number."""
    found: int = struct.unpack("q", struct.pack("d", number))[0]
    return found


def _warps(group: Group) -> int:
    """Return the warps of a program of a walk with matrix products."""
    return WARPS["slide"] if group.pixels >= 64 else 4


def _split(group: Group, warps: int) -> int:
    """Return in how many parts a product over pixels is computed: one for each warp where it is small."""
    return warps if group.BC * group.BO == 256 and group.columns >= 16 * warps else 1


@lru_cache(maxsize=1024)
def tables(made: Layout, device: torch.device, dead: tuple[int, ...], double: bool) -> Tables:
    """Return the tables, made once."""
    with torch.inference_mode(False):
        return Tables(made, device, dead, double)


# ---------------------------------------------------------------------- the function


def fan(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :meth:`gapless.kernels.backend.Backend.fan`."""
    made = layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    *outputs, moments = _Fan.apply(made, coefficients, x, *sums, *parameters)  # type: ignore[no-untyped-call]
    means, variances = moments
    return tuple(outputs), tuple((means[at : at + c], variances[at : at + c]) for at, c in made.slices)


def judged(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    moments: Moments,
) -> tuple[Tensor, ...]:
    """See :class:`gapless.kernels.backend.Judged`."""
    made = layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    given = x.new_empty(2, made.lengths["norms"])
    places = [line[at : at + c] for at, c in made.slices for line in given]
    if places:
        torch._foreach_copy_(places, [line for pair in moments for line in pair])
    _, _, outputs = _ahead(made, coefficients, x, sums, parameters, given)
    return tuple(outputs)


def _ahead(
    made: Layout,
    coefficient: Tensor,
    x: Tensor,
    arrived: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    given: Tensor | None = None,
) -> tuple[_Run, Tensor, list[Tensor]]:
    """Run a fan, and return the run, its moments [2, V], and what is then at the targets."""
    flat = torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)])
    found = tables(made, x.device, (), x.dtype == torch.float64)
    if len(flat):
        packed = torch.empty_like(flat)
        tiles.pack[triton.cdiv(found.span, 256), len(found.spans)](flat, packed, found.spans.table, B=256)
        flat = packed
    run = _Run(made, found, x, coefficient, flat)
    moments = run.ahead(given)
    sums = [x.new_empty(made.outputs[t]) if before is None else before for t, before in enumerate(arrived)]
    run.gather(sums, [before is not None for before in arrived])
    return run, moments, sums


class _Fan(Function):
    @staticmethod
    def forward(ctx: Any, made: Layout, coefficient: Tensor, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[: len(made.outputs)], tensors[len(made.outputs) :]
        run, moments, sums = _ahead(made, coefficient, x, arrived, parameters)  # type: ignore[arg-type]
        ctx.made = made
        ctx.save_for_backward(coefficient, x, run.flat, run.kept, run.chosen, run.book, run.lines)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        ctx.mark_non_differentiable(moments)
        return *sums, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        made: Layout = ctx.made
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
        inner = made.lengths["grad_saved"] if weights or below else 0
        if inner:
            after = x.new_empty(run.tables.given + inner)
            torch.cat(parts, out=after[: run.tables.given])
        else:
            after = parts[0] if len(parts) == 1 else torch.cat(parts)
        dshares, dx, dflat = run.behind(after, weights, below)
        found: list[Tensor | None] = [None] * len(made.shapes)
        if dflat is not None:
            cuts = dflat.split([math.prod(shape) for shape in made.shapes])
            found = [
                part.view(shape) if want and owner not in dead else None
                for part, shape, want, owner in zip(cuts, made.shapes, wanted[3 + count :], made.owners, strict=True)
            ]
        passed = [g if want else None for g, want in zip(arriving, wanted[3:], strict=False)]
        return None, dshares, dx, *passed, *found


class _Run:
    """A pass over a fan, forward or back."""

    def __init__(self, made: Layout, tables: Tables, x: Tensor, shares: Tensor, flat: Tensor, *held: Tensor) -> None:
        self.made, self.tables, self.x, self.shares, self.flat = made, tables, x, shares.contiguous(), flat
        self.V, self.images = made.lengths["norms"], made.images
        if held:
            self.kept, self.chosen, self.book, self.lines = held
        else:
            self.kept = x.new_empty(made.lengths["saved"])
            largest = sum(p["h"] * p["w"] for p, _ in tables.pools if p["maximum"])
            self.chosen = x.new_empty(self.images * largest * made.C, dtype=torch.int8)
            self.book = x.new_empty(3, self.V, dtype=torch.float64)
            self.lines = x.new_empty(6, self.V)
        self.shape = {"BP": tables.pixels}
        joined = tables.rows * tables.width
        self.joined = {"BT": tables.rows, "BC": tables.width, "num_warps": max(4, min(16, joined // 512))}
        self.state = {"C": made.C, "BC": _padded(made.C)} | self.shape
        # three products of rounded factors are as exact as one of whole ones
        self.precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
        if x.dtype == torch.float64:
            self.precision = "ieee"

    def read(self, group: Group) -> Tensor:
        """Return what the first steps of chains read."""
        if not group.halves:
            return self.x
        return split_phases(self.x.relu())

    def sizes(self, group: Group, *names: str) -> dict[str, Any]:
        """Return what a kernel is compiled for."""
        known = {
            "K": group.K, "T": group.T, "C": group.C, "O": group.O, "BC": group.BC, "BO": group.BO,
            "DENSE": group.dense, "PRECISION": self.precision,
        }  # fmt: skip
        return {name: known[name] for name in names} | {"A": self.tables.align, "BP": group.pixels}

    def over(self, places: int) -> int:
        """Return how many tiles places of all images make."""
        return triton.cdiv(self.images * places, self.tables.pixels)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ forward

    def ahead(self, given: Tensor | None = None) -> Tensor:
        """Compute all that normalisations read, and return their moments [2, V], or those that are given."""
        t, made = self.tables, self.made
        seen = self.x.new_empty(3, t.tiles, self.V)
        moments = self.x.new_empty(2, self.V)
        for depth in range(made.depth):
            for group in t.groups[depth]:
                common = (
                    self.read(group), self.kept, self.flat, self.lines, seen, group.rows.table, self.images, t.tiles,
                )  # fmt: skip
                sizes = self.sizes(group, "C", "O", "BC", "BO", "PRECISION") | {"INNER": depth > 0}
                if group.K:
                    tiles.slide[group.tiles, group.count](
                        *common, group.length, self.V, **sizes, K=group.K, T=group.T, num_warps=_warps(group),
                    )  # fmt: skip
                else:
                    tiles.ahead[group.tiles, group.count, group.blocks[1]](
                        *common, self.V, **sizes, num_warps=WARPS["ahead"]
                    )
            if not depth:
                self.pool(seen)
            slots = t.slots[depth]
            if len(slots):
                tiles.settle[(len(slots),)](
                    seen, moments if given is None else given, self.flat, self.shares, self.book, self.lines, moments,
                    slots.table, self.images, t.tiles, self.V, GIVEN=given is not None, **self.joined,
                )  # fmt: skip
        return moments

    def pool(self, seen: Tensor) -> None:
        """Pool the state."""
        begin, made = 0, self.made
        for pool, _ in self.tables.pools:
            count = self.images * pool["h"] * pool["w"] * made.C
            tiles.pool[(self.over(pool["h"] * pool["w"]),)](
                self.x, self.kept[pool["y"] :], self.chosen[begin:] if pool["maximum"] else self.chosen, seen,
                pool["norm"], self.images, self.tables.tiles, self.V, made.H, made.W, pool["h"], pool["w"], pool["K"],
                pool["s"], pool["p"], K=pool["K"], LARGEST=bool(pool["maximum"]), **self.state,
            )  # fmt: skip
            begin += count if pool["maximum"] else 0

    def gather(self, sums: Sequence[Tensor], more: Sequence[bool]) -> None:
        """Write, or (``more``) add, what arrives at each target."""
        for targets, ways, ranges in self.tables.into:
            out = [sums[t] for t in targets]
            channels = out[0].shape[-1]
            pixels = out[0].numel() // channels
            tiles.gather[triton.cdiv(pixels, self.tables.pixels), len(out)](
                self.x, self.kept, self.lines, *out, *([out[0]] * (tiles.TARGETS - len(out))), ways.table,
                ranges.table, pixels, self.V, sum(more[t] << turn for turn, t in enumerate(targets)), C=channels,
                A=self.tables.align, BC=_padded(channels), **self.shape,
            )  # fmt: skip

    # ------------------------------------------------------------------ backward

    def behind(self, after: Tensor, weights: bool, below: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients at the shares, the state (``below``) and the flat parameters (``weights``), for those at
        the targets, behind which there is room for those inside of chains."""
        t, made, x = self.tables, self.made, self.x
        sums = x.new_empty(2, t.tiles, self.V)
        dshares = (torch.empty_like if len(t.ended) == len(self.shares) else torch.zeros_like)(self.shares)
        errors = x.new_empty(t.errors)
        found = (x.new_zeros if t.affine else x.new_empty)(t.chunks if weights else 1, len(self.flat))
        dx = torch.empty_like(x) if below else None
        parts = x.new_empty(t.parts if below else 0, x.numel())
        split: Tensor | None = None
        most = max(math.prod(made.outputs[a][1:3]) for a in t.alive)
        for channels, ways in t.ways:
            tiles.correlate[self.over(most), len(ways)](
                x, self.kept, self.lines, after, sums, ways.table, self.images, t.tiles, self.V, C=channels, A=t.align,
                BC=_padded(channels), **self.shape,
            )  # fmt: skip
        self.carry(t.ended, sums, found, dshares)
        begun = 0
        for depth in reversed(range(made.depth if below or weights else 0)):
            if depth < made.depth - 1:
                self.carry(t.inner[depth], sums, found, dshares)
            for group in t.groups[depth]:
                read = self.read(group)
                self.turn(group, read, after, errors, found, weights, depth > 0)
                if weights:
                    self.weigh(group, read, errors, found, depth > 0)
                if depth:
                    self.below(group, errors, after, sums)
                elif below and group.halves:
                    image = torch.empty_like(read)
                    self.collect(group, errors, image)
                    image = torch.where(read <= 0, 0.0, image)
                    split = image if split is None else split + image
                elif below:
                    self.collect(group, errors, parts[begun:])
                    begun += len(group.shares)
        if dx is not None:
            self.to_state(after, dx, split, parts)
        if not weights:
            return dshares, dx, None
        count = len(self.flat)
        dflat = torch.empty_like(self.flat)
        if count:
            tiles.fold[triton.cdiv(t.span, 64), len(t.spans)](
                found, dflat, t.spans.table, count, len(found), R=min(64, _power(len(found))), B=64
            )
        return dshares, dx, dflat

    def turn(
        self, group: Group, read: Tensor, after: Tensor, errors: Tensor, found: Tensor, weights: bool, inner: bool
    ) -> None:
        """Compute gradients before normalisations, and at pointwise weights behind depthwise ones, of a group's
        steps."""
        t, count, table = self.tables, len(self.flat), group.rows.table
        if not group.K:
            tiles.turn[group.tiles, group.count, group.blocks[1]](
                self.kept, self.lines, after, errors, table, self.images, self.V, **self.sizes(group, "O", "BO")
            )
            return
        chunks, length = (t.chunks, group.chunked) if weights else (group.tiles, group.length)
        warps = _warps(group)
        tiles.slide_back[chunks, group.count](
            read, self.kept, self.flat, self.lines, after, errors, found, table, self.images, chunks, count, length,
            self.V, **self.sizes(group, "K", "T", "C", "O", "BC", "BO", "PRECISION"), B=_split(group, warps),
            INNER=inner, WEIGHTS=weights, num_warps=warps,
        )  # fmt: skip

    def weigh(self, group: Group, read: Tensor, errors: Tensor, found: Tensor, inner: bool) -> None:
        """Compute gradients at the weights of a group's convolutions over places, from those before normalisations."""
        t, count, table = self.tables, len(self.flat), group.rows.table
        if not group.K:
            for side, begin, steps in group.sides:
                tiles.weigh[t.chunks, steps, side * math.prod(group.blocks)](
                    read, self.kept, self.lines, errors, found, table[begin * len(tiles.COLUMNS) :], self.images,
                    t.chunks, count, group.chunked, self.V, KK=side, INNER=inner, B=_split(group, WARPS["weigh"]),
                    num_warps=WARPS["weigh"],
                    **self.sizes(group, "C", "O", "BC", "BO", "PRECISION") | {"BP": group.columns},
                )  # fmt: skip
            return
        tiles.slide_weigh[t.chunks, group.count, group.K](
            read, self.kept, self.lines, errors, found, table, self.images, t.chunks, count, group.chunked, self.V,
            **self.sizes(group, "K", "T", "C", "BC"), INNER=inner, num_warps=4,
        )  # fmt: skip

    def below(self, group: Group, errors: Tensor, after: Tensor, sums: Tensor) -> None:
        """Compute gradients behind the normalisations that a group's steps read."""
        t = self.tables
        given = self.kept, self.flat, self.lines, errors, after, sums, group.rows.table, self.images, t.tiles
        if group.K:
            tiles.slide_behind[group.behind, group.count](
                *given, group.back, self.V, **self.sizes(group, "K", "C", "BC"), num_warps=4
            )
        else:
            tiles.behind[group.behind, group.count, group.blocks[0]](
                *given, self.V, **self.sizes(group, "C", "O", "BC", "BO", "DENSE", "PRECISION"),
                num_warps=WARPS["collect"],
            )  # fmt: skip

    def collect(self, group: Group, errors: Tensor, parts: Tensor) -> None:
        """Compute parts of the gradient at what the first steps of chains read."""
        grid, given = (group.behind, len(group.shares)), (self.flat, errors, parts, group.rows.table)
        size = self.images, group.H, group.W
        if group.K and group.stride == 1:
            tiles.slide_collect[grid](
                *given, group.table.table, *size, group.back, **self.sizes(group, "K", "C", "BC"), num_warps=4
            )
        elif group.K:
            tiles.stride_collect[grid](*given, group.count, *size, group.stride, **self.sizes(group, "K", "C", "BC"))
        else:
            tiles.collect[(*grid, group.blocks[0])](
                *given, group.count, *size, **self.sizes(group, "C", "O", "BC", "BO", "DENSE", "PRECISION"),
                num_warps=WARPS["collect"],
            )  # fmt: skip

    def carry(self, slots: Rows, sums: Tensor, found: Tensor, dshares: Tensor) -> None:
        """Join the sums of all tiles."""
        if len(slots):
            tiles.carry[(len(slots),)](
                sums, self.flat, found, self.shares, dshares, self.book, self.lines, slots.table, self.images,
                self.tables.tiles, self.V, **self.joined,
            )  # fmt: skip

    def to_state(self, given: Tensor, dx: Tensor, split: Tensor | None, parts: Tensor) -> None:
        """Write the gradient at the state: what chains left in parts, skips, pools."""
        t, made, x = self.tables, self.made, self.x
        tiles.pass_on[(self.over(made.H * made.W),)](
            x, self.lines, given, dx, parts, t.skips.table, len(t.skips), self.images * made.H * made.W, self.V,
            len(parts), A=t.align, **self.state,
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
                    e, self.chosen[begin:] if pool["maximum"] else self.chosen, dx, self.images, made.H, made.W,
                    pool["h"], pool["w"], pool["K"], pool["s"], pool["p"], K=pool["K"], DENSE=pool["s"] == 1,
                    LARGEST=bool(pool["maximum"]), **self.state,
                )  # fmt: skip
            begin += count if pool["maximum"] else 0
