"""Memory of the CPU kernels: where packed weights, constants and each thread's scratch buffers lie,
for a layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from llvmlite import binding

from gapless.kernels.cpu.records import PATCHES, PLACES, POOL, SCRATCH, STEP, Array
from gapless.kernels.cpu.vectors import Vector
from gapless.kernels.layout import FORMATS, Layout
from gapless.kernels.records import Row, as_dicts, as_records

AVX512 = bool(binding.get_host_cpu_features().get("avx512f", False))
COUNTS = (16, 8, 4) if AVX512 else (8, 4)
"""Numbers in a vector: sixteen sums of the longest fit 32 registers, eight fit 16."""


def vector_of(dtype: np.dtype[Any], *channels: int) -> Vector:
    """Return the longest vectors that divide all numbers of channels."""
    return _vector(dtype, next(count for count in COUNTS if all(c % count == 0 for c in channels)))


@cache
def _vector(dtype: np.dtype[Any], count: int) -> Vector:
    return Vector(dtype, count, AVX512)


class Memory:
    """Where the CPU kernels find and put numbers, for a layout.

    Attributes
    ----------
    steps, pools, scratch
        Records, as described above.
    vectors
        For each precision, the longest vectors that divide all numbers of channels.
    packed, length
        Numbers in the packed weights (the flipped ones take as many) and in one thread's scratch
        memory.
    inverse_counts
        For each precision, one over the number of pixels under each window of average pools.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.packed = self.length = 0
        steps = as_dicts(layout.steps)
        gradients = 0
        for row in steps:
            row["winograd"] = _winograd(row)
            places = PLACES if row["winograd"] else row["k"] ** 2
            depthwise, conv = row["K"] ** 2 * row["C"], places * row["C"] * row["O"]
            row |= {"packed_depthwise": self.packed, "packed_conv": self.packed + depthwise}
            row["winograd_grad"] = gradients
            self.packed += depthwise + conv
            gradients += conv if row["winograd"] else 0
        pools = as_dicts(layout.pools)
        counts: list[Array] = [np.empty(0)]
        for row in pools:
            row["inverse_counts"] = sum(map(len, counts))
            if not row["maximum"]:
                counts.append(_inverse_counts(row, layout.H, layout.W))
        self.inverse_counts = {t: np.concatenate(counts).astype(f) for t, f in FORMATS.items()}
        channels = sorted({layout.C, *(step[name] for step in steps for name in ("C", "O"))})
        self.vectors = {t: vector_of(f, *channels) for t, f in FORMATS.items()}
        self.steps, self.pools = as_records(steps, STEP), as_records(pools, POOL)
        self.scratch = as_records([self._scratch(steps, pools, gradients)], SCRATCH)

    def _scratch(self, steps: Sequence[Row], pools: Sequence[Row], gradients: int) -> Row:
        """Lay out a thread's buffers."""
        H, W, C = self._layout.H, self._layout.W, self._layout.C

        def most(count: Callable[[Row], int], rows: Sequence[Row] = steps) -> int:
            return max(map(count, rows), default=0)

        def padded(sides: tuple[int, int], border: int, channels: int) -> int:
            return (sides[0] + 2 * border) * (sides[1] + 2 * border) * channels

        def output_grad(s: Row) -> int:
            """The gradient at a step's output, with the border that its backward pass needs."""
            more = s["kd"] * (s["k"] - 1)
            return int(max(s["h"], s["H"] + more) * max(s["w"], s["W"] + more) * s["O"])

        def depthwise_grad(s: Row) -> int:
            return int(padded((s["h"], s["w"]), max(s["d"] * (s["K"] - 1) - s["p"], 0), s["C"]))

        first = [s for s in steps if not s["depth"] and not s["phases"]]
        border = max((max(s["p"], s["kp"]) for s in first), default=0)
        bordered = padded((H, W), border, C)
        phases = most(lambda s: s["phases"] * s["H"] * s["W"] * s["C"])
        strided = bordered if any(s["K"] and s["s"] > 1 for s in steps) else 0
        depthwise, inner = [s for s in steps if s["K"]], [s for s in steps if s["depth"]]
        winograd = [s for s in steps if s["winograd"]]

        def patched(channels: str) -> int:
            return most(lambda s: PLACES * max(PATCHES, s["w"] // 2) * s[channels], winograd)

        sizes = {
            "input": bordered,
            "split": phases,
            "padded": most(lambda s: padded((s["H"], s["W"]), max(s["p"], s["kp"]), s["C"]), inner),
            "z": most(lambda s: s["h"] * s["w"] * s["C"], depthwise),
            "dz": most(depthwise_grad, depthwise),
            "e": max(most(output_grad), most(lambda t: t["h"] * t["w"] * C, pools)),
            "dinput": H * W * C,
            "dsplit": phases,
            "dstrided": strided,
            "pool": 2 * most(lambda t: padded((H, W), t["p"], C), pools),
            "patches": patched("C"),
            "products": patched("O"),
            "dpatches": patched("C"),
            "winograd_grads": gradients,
        }
        row: Row = {}
        for name, size in sizes.items():
            row[name] = self.length
            self.length += int(size)
        return row | {
            "images": self._layout.images, "channels": self._layout.lengths["norms"], "H": H, "W": W, "C": C,
            "border": border, "phases": phases, "strided": strided, "winograd": sum(s["winograd"] for s in first),
            "packed": self.packed, "length": self.length,
        }  # fmt: skip


def _winograd(row: Row) -> bool:
    """Return whether a step uses Winograd's F(2x2, 3x3): a 3x3 convolution of stride 1 that keeps
    even sides."""
    kernel = (row["K"], row["k"], row["ks"], row["kp"], row["kd"])
    return kernel == (0, 3, 1, 1, 1) and row["h"] % 2 == 0 and row["w"] % 2 == 0


def _inverse_counts(pool: Row, H: int, W: int) -> Array:
    """Return one over the number of pixels under each window of a pool."""
    starts = (np.arange(out) * pool["s"] - pool["p"] for out in (pool["h"], pool["w"]))
    counts = [
        np.minimum(start + pool["K"], side) - np.maximum(start, 0) for start, side in zip(starts, (H, W), strict=True)
    ]
    inverse: Array = 1 / np.outer(*counts)
    return inverse.ravel()


@lru_cache(maxsize=1024)
def memory_of(layout: Layout) -> Memory:
    """Return the memory, made once."""
    return Memory(layout)
