"""What the GPU backend launches for a layout: tables of integers that kernels read, and how the work is divided."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from gapless.core.tensors import to_device
from gapless.kernels.gpu import tiles
from gapless.kernels.layout import Layout
from gapless.kernels.records import Row, as_dicts

BLOCK = 64
"""Channels of a block, for convolutions that are not depthwise."""
NUMBERS, WALKED = 2048, 1024
"""Most numbers in a tile and in a row of a walk, which have at least 16 pixels (the smallest side of a matrix product).
On an H100 a pass of NAS-Bench-201 takes 11.6 ms, and 10.9 with 1024 in a tile; with tiles instead of walks, one of the
DARTS space took 36.9 ms, and 42.8 with 1024."""
REDUCED = 8192
"""Most numbers of tiles that are reduced at a time."""
CHUNKS, LEAST = 128, 4
"""Most chunks of the sum of a weight gradient, and fewest tiles in a chunk. On an H100 a pass of the DARTS space takes
33.9 ms with these, 35.2 with 64 chunks, 34.9 with 2 tiles; equal runs differ by 1 ms."""
PROGRAMS = 512
"""Fewest programs of a launch: walks are shortened and sums split to reach it. On an H100 an architecture pass of the
DARTS space takes 20.4 ms with 512, 22.2 with 1024, 22.6 with 2048; equal runs differ by 1 ms."""


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()


def padded(channels: int) -> int:
    """Return the channels of a tile: a power of two, at least the smallest side of a matrix product."""
    return max(16, power_of_two(channels))


def rows_between(stride: int, dilation: int) -> int:
    """Return how many kernel rows the input of a walk moves by from one output to the next. With the arguments swapped,
    how many rows its output moves by."""
    return stride // math.gcd(stride, dilation)


# ---------------------------------------------------------------------- tables


class Transfer:
    """Integers that are copied to the device together: a new mask costs a fan one copy, and no waiting."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.copy = torch.empty(0)

    def send(self, device: torch.device) -> None:
        """Copy all integers to a device."""
        self.copy = to_device(torch.tensor(self.numbers, dtype=torch.int64), device)


class Table:
    """Some columns of records, in a transfer."""

    def __init__(self, transfer: Transfer, records: Sequence[Row], columns: Sequence[str]) -> None:
        numbers = [record[name] for record in records for name in columns]
        self.transfer, self.begin = transfer, len(transfer.numbers)
        self.rows, self.size = len(records), len(numbers)
        transfer.numbers += [*numbers, *([0] * (len(numbers) % 2))]  # aligned to 16 bytes, as the compiler assumes

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def on_device(self) -> Tensor:
        """The table on the device, after the transfer was sent."""
        return self.transfer.copy.narrow(0, self.begin, self.size)


@dataclass(frozen=True, order=True)
class Kind:
    """What a launch is compiled for.

    ``K``: side of the depthwise convolution (0: none), ``T``: kernel rows between outputs, ``stride`` (1 for full
    convolutions), input and output channels, ``phases``: whether the step reads phases.
    """

    K: int
    T: int
    stride: int
    C: int
    O: int
    phases: bool


class Group:
    """Steps that one launch computes, their table, and how their pixels are divided over programs.

    Attributes
    ----------
    kind
        What the launch is compiled for.
    dense
        Whether all strides are 1.
    pixels, columns
        Pixels of a tile, columns of a walk.
    length, weight_length, input_length
        Outputs of a walk: forward, in weight gradients, and in input gradients.
    tiles, input_tiles
        Tiles or walks of the outputs, and of the input gradients.
    ranges
        Steps whose input gradients one program sums.
    """

    def __init__(
        self, kind: Kind, steps: Sequence[Row], transfer: Transfer, images: int, chunks: int, numbers: int
    ) -> None:
        self.kind, K = kind, kind.K
        steps = sorted(steps, key=lambda s: (s["d"], s["p"]) if K else (-s["side"], 0))
        self.count, self.images = len(steps), images
        self.H, self.W, self.h, self.w = (steps[0][name] for name in ("H", "W", "h", "w"))
        self.BC, self.BO = padded(kind.C), padded(kind.O)
        if not K:
            self.BC, self.BO = min(self.BC, BLOCK), min(self.BO, BLOCK)
        self.blocks = (ceil_div(kind.C, self.BC), ceil_div(kind.O, self.BO))
        widest = max(self.BC, self.BO)
        self.columns = max(16, min(128, numbers * WALKED // NUMBERS // widest))
        self.pixels = self.columns if K else max(16, min(128, numbers // widest))
        self.length = self.input_length = 1
        self.dense = all(step["s"] == 1 for step in steps)
        row_step = max(step["row_step"] for step in steps) if K else 1
        self.weight_length = self._length((self.h, self.w), row_step, lambda walks: walks >= chunks)
        if K:
            self.length, self.input_length = (
                self._length(sides, row_step, lambda walks: walks * self.count >= PROGRAMS)
                for sides in ((self.h, self.w), (self.H, self.W))
            )
        self.tiles = max(self.moment_parts(step) for step in steps)
        self.input_tiles = max(self.sum_parts(step) for step in steps)
        self.ranges = self._ranges(steps)
        self.table = Table(transfer, steps, tiles.COLUMNS)
        self.range_table = Table(
            transfer, [{"begin": begin, "end": end} for begin, end in self.ranges], ("begin", "end")
        )
        # full convolutions by the side of their kernel, which weight gradients are compiled for
        sides = [step["side"] for step in steps]
        self.sides = [(k, sides.index(k), sides.count(k)) for k in sorted(set(sides), reverse=True)]

    def walks(self, h: int, w: int, row_step: int, length: int) -> int:
        """Return the number of walks over all images [h, w]."""
        return ceil_div(self.images * w, self.columns) * row_step * ceil_div(ceil_div(h, row_step), length)

    def _length(self, sides: tuple[int, int], row_step: int, enough: Callable[[int], bool]) -> int:
        """Return the longest length that makes enough walks, or the shortest one."""
        lengths = [n for n in (32, 16, 8, 4, 2) if n <= max(2, ceil_div(sides[0], row_step))]
        return next((n for n in lengths if enough(self.walks(*sides, row_step, n))), lengths[-1])

    def moment_parts(self, step: Row) -> int:
        """Return how many tiles or walks the moments of a step come from."""
        if self.kind.K:
            return self.walks(step["h"], step["w"], step["row_step"], self.length)
        return ceil_div(self.images * step["h"] * step["w"], self.pixels)

    def sum_parts(self, step: Row) -> int:
        """Return how many tiles or walks the gradient sums of the normalisation before a step come from."""
        s = self.kind.stride
        if self.kind.K and s == 1:
            return self.walks(step["H"], step["W"], step["d"], self.input_length)
        return ceil_div(self.images * ceil_div(step["H"], s) * ceil_div(step["W"], s), self.pixels) * s * s

    def _ranges(self, steps: Sequence[Row]) -> list[tuple[int, int]]:
        """Return the ranges of steps whose input gradients one program sums. Only walks read them: in other launches
        program i of n sums every n-th step."""
        if not self.kind.K or self.kind.stride > 1:
            largest = max(step["side"] for step in steps)
            heavy = sum(step["side"] == largest for step in steps)  # one each for a program, if there are enough
            programs = min(self.count, max(heavy, ceil_div(PROGRAMS, self.input_tiles)))
            return [(0, self.count)] * (1 if self.kind.phases else programs)
        windows = [(step["d"], step["p"]) for step in steps]
        ranges = []
        for window in sorted(set(windows)):
            begin, count = windows.index(window), windows.count(window)
            size = max(1, min(count, self.input_tiles * len(set(windows)) * count // PROGRAMS))
            ranges += [(begin + i, begin + min(i + size, count)) for i in range(0, count, size)]
        return ranges


class Launches:
    """The groups and tables of a layout on a device, without gradients for ``dead`` targets."""

    def __init__(self, layout: Layout, device: torch.device, dead: tuple[int, ...], double: bool) -> None:
        transfer = Transfer()
        self.alive = [t for t in layout.outputs if t not in dead]
        starts, begin = {}, 0
        for t in self.alive:
            starts[t], begin = begin, begin + math.prod(layout.outputs[t])
        steps, norms = (
            [row for row in as_dicts(records) if row["target"] in starts] for records in (layout.steps, layout.norms)
        )
        norms = [norm | {"eps": _bits(norm["eps"])} for norm in norms]
        ends = [end | {"g": starts.get(end["target"], 0)} for end in as_dicts(layout.ends)]
        channels = [layout.C, *(step[name] for step in as_dicts(layout.steps) for name in ("C", "O"))]
        self.align = math.gcd(16, *channels)
        self.width = max(padded(norm["C"]) for norm in as_dicts(layout.norms))
        numbers = NUMBERS // 4 if double else NUMBERS
        self.pixels = max(16, min(128, numbers // self.width))
        self.tiles = ceil_div(layout.images * max(norm["pixels"] for norm in as_dicts(layout.norms)), self.pixels)
        self.chunks = max(1, min(CHUNKS, self.tiles // LEAST))
        self.conv_grads = 0
        self.groups: list[list[Group]] = []
        self.target_grads = begin
        moment_parts: dict[int, int] = {}
        sum_parts: dict[int, int] = {}
        for depth in range(layout.depth):
            kinds, length = _kinds(layout, [step for step in steps if step["depth"] == depth], starts, begin)
            self.conv_grads = max(self.conv_grads, length)
            self.groups.append([])
            for kind, members in sorted(kinds.items()):
                group = Group(kind, members, transfer, layout.images, self.chunks, numbers)
                self.groups[-1].append(group)
                moment_parts |= {step["norm"]: group.moment_parts(step) for step in members}
                sum_parts |= {step["norm_before"]: group.sum_parts(step) for step in members if depth}
                self.tiles = max(self.tiles, group.tiles, group.input_tiles)
        for norm in norms:
            at, own = norm["start"], ceil_div(layout.images * norm["pixels"], self.pixels)
            norm |= {"moment_parts": moment_parts.get(at, own), "sum_parts": sum_parts.get(at, own)}
        self.rows = max(1, min(REDUCED // self.width, power_of_two(self.tiles)))
        self.dx_parts = sum(len(group.ranges) for group in self.groups[0] if not group.kind.phases)

        def table(records: Iterable[Row], columns: Sequence[str] = tiles.ENDS) -> Table:
            return Table(transfer, list(records), columns)

        depths = range(layout.depth)
        self.norms = [table((s for s in norms if s["depth"] == depth), tiles.NORMS) for depth in depths]
        self.last_norms = table((s for s in norms if s["route"] >= 0), tiles.NORMS)
        self.inner_norms = [
            table((s for s in norms if s["route"] < 0 and s["depth"] == depth), tiles.NORMS) for depth in depths
        ]
        self.sums: list[tuple[tuple[int, ...], Table, Table]] = []
        for targets in _together(layout.outputs):
            of_target = [[end for end in ends if end["target"] == t] for t in targets]
            stops = list(accumulate(map(len, of_target)))
            ranges = [{"begin": stop - len(own), "end": stop} for own, stop in zip(of_target, stops, strict=True)]
            self.sums.append((targets, table(e for own in of_target for e in own), table(ranges, ("begin", "end"))))
        ends = [end for end in ends if end["target"] in starts]
        self.ends = [(c, table(end for end in ends if end["C"] == c)) for c in sorted({end["C"] for end in ends})]
        self.skips = table(end for end in ends if end["y"] < 0)
        self.pools = [
            (pool, table(end for end in ends if end["pool"] == i)) for i, pool in enumerate(as_dicts(layout.pools))
        ]
        spans = _spans(layout.shapes)
        self.spans = table(spans, tiles.SPANS)
        self.longest_span = max((span["count"] for span in spans), default=0)
        self.affine = any(norm["affine"] >= 0 for norm in norms)
        transfer.send(device)


def _kinds(
    layout: Layout, steps: Sequence[Row], starts: Mapping[int, int], begin: int
) -> tuple[dict[Kind, list[Row]], int]:
    """Return rows of the table of steps by kind, and the numbers in ``conv_grads`` that they need. Gradients of targets
    begin at ``starts``, those inside of chains at ``begin``."""
    kinds: dict[Kind, list[Row]] = {}
    length = 0
    for step in steps:
        depthwise = step["K"] > 0
        row = step | {
            "z": length,
            "side": step["K"] or step["k"],
            "g": starts[step["target"]] if step["g"] < 0 else begin + step["g"],
            "dx": begin + step["dx"],
            "row_step": rows_between(step["d"], step["s"]),
        }
        row |= {} if depthwise else {"s": step["ks"], "p": step["kp"], "d": step["kd"]}
        T, stride = (rows_between(step["s"], step["d"]), step["s"]) if depthwise else (0, 1)
        kind = Kind(step["K"], T, stride, step["C"], step["O"], bool(step["phases"]))
        kinds.setdefault(kind, []).append(row)
        length += layout.images * step["h"] * step["w"] * step["C" if depthwise else "O"]
    return kinds, length


def _together(outputs: Mapping[int, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the targets that one launch writes to: of equal shape, and no more than it can."""
    shapes = sorted(set(outputs.values()))
    equal = [[t for t in outputs if outputs[t] == shape] for shape in shapes]
    return [tuple(ts[i : i + tiles.TARGETS]) for ts in equal for i in range(0, len(ts), tiles.TARGETS)]


def _spans(shapes: Sequence[tuple[int, ...]]) -> list[Row]:
    """Return the spans of parameters that are packed alike. Those with kernels of one pixel need no packing."""
    spans: list[Row] = []
    begin = 0
    for shape in shapes:
        pixels, count = math.prod(shape[2:]), math.prod(shape)
        if pixels == 1 and spans and spans[-1]["pixels"] == 1:
            spans[-1]["count"] += count
        else:
            spans.append({"begin": begin, "count": count, "pixels": pixels})
        begin += count
    return spans


def _bits(number: float) -> int:
    """Return the bits of a double as an integer."""
    bits: int = struct.unpack("q", struct.pack("d", number))[0]
    return bits


@lru_cache(maxsize=1024)
def launches_of(layout: Layout, device: torch.device, dead: tuple[int, ...], double: bool) -> Launches:
    """Return the launches, made once."""
    with torch.inference_mode(False):
        return Launches(layout, device, dead, double)
