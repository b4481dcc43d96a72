"""Fused CPU implementation of a fan, compiled by Numba.

It computes what :func:`gapless.kernels.plain.fan` computes, in the walks of
:mod:`gapless.kernels.cpu.walks`. Each image passes through a whole step of each chain (ReLU,
depthwise convolution, convolution, moments) while it lies in the cache; between steps only the
moments of all images are exchanged. Saved for the backward pass are the inputs of normalisations
and nothing else: what follows a normalisation is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.kernels.cpu import compile, walks
from gapless.kernels.cpu.memory import memory_of
from gapless.kernels.cpu.records import BUFFER, CENTRE, VARIANCE, Array, Buffers
from gapless.kernels.cpu.threads import thread_count
from gapless.kernels.forms import Moments, Route
from gapless.kernels.layout import FORMATS, Layout, layout_of, supported

__all__ = ["fan", "judged", "serves"]

judged = None
"""Evaluation mode is left to the modules themselves."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the CPU kernels compute these routes, for a state like ``x``: on the CPU, in
    single or double precision, with numbers of channels that are multiples of 4."""
    return (
        x.device.type == "cpu"
        and x.dtype in FORMATS
        and x.shape[-1] % 4 == 0
        and all(p.shape[0] % 4 == 0 and p.dtype == x.dtype for p in parameters)
        and supported(tuple(routes))
    )


# ---------------------------------------------------------------------- memory


_SCRATCH = threading.local()
LINE = 64
"""Bytes of a cache line."""
EMPTY = np.empty(0)


def _scratch(name: str, count: int, dtype: Any) -> Array:
    """Return memory that the next call with this name returns again in this thread. It begins at a
    cache line, because a vector across two lines takes two loads."""
    held: dict[Any, Array] = _SCRATCH.__dict__
    array = held.get((name, dtype))
    if array is None or len(array) < count:
        whole = np.empty(count * np.dtype(dtype).itemsize + LINE, np.uint8)
        begin = -whole.ctypes.data % LINE
        held[name, dtype] = array = whole[begin : len(whole) - LINE + begin].view(dtype)
    return array[:count]


def _flat(x: Tensor) -> Array:
    array: Array = x.detach().view(-1).numpy()
    return array


def _targets(tensors: Sequence[Tensor | None], before: Sequence[Tensor | None] = ()) -> Array:
    """Return the addresses of tensors, and whether each target had a sum before."""
    held = [t is not None for t in before] or [False] * len(tensors)
    return np.array([[0 if t is None else t.data_ptr() for t in tensors], held], np.int64)


# ---------------------------------------------------------------------- the autograd function


def fan(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :meth:`gapless.kernels.backend.Backend.fan`."""
    layout = layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    *outputs, means, variances = _Fan.apply(layout, coefficients, x, *sums, *parameters)  # type: ignore[no-untyped-call]
    return tuple(outputs), tuple((means[at : at + c], variances[at : at + c]) for at, c in layout.slices)


class _Fan(Function):
    @staticmethod
    def forward(
        ctx: Any, layout: Layout, coefficients: Tensor, x: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        before, parameters = tensors[: len(layout.outputs)], tensors[len(layout.outputs) :]
        saved = x.new_empty(layout.lengths["saved"])
        run = _Pass(layout, coefficients, x, saved, parameters, backward=False)  # type: ignore[arg-type]
        memory = run.memory
        sums = [x.new_empty(layout.outputs[t]) if before is None else before for t, before in enumerate(before)]
        targets = _targets(sums, before)
        moments64 = np.empty(3 * layout.lengths["norms"])
        for depth in range(layout.depth):
            if len(memory.steps) or len(memory.pools):
                run.walk(walks.forward, run.buffers, memory.steps, memory.pools, memory.scratch, depth)
            walks.norm_forward(
                run.params, run.coefficients, run.arrays.sums, moments64, run.arrays.vectors, layout.norms, run.images,
                depth, run.vector,
            )  # fmt: skip
        run.walk(walks.node_sum, run.buffers, targets, layout.ends, memory.scratch)
        ctx.layout, ctx.moments64, ctx.coefficients = layout, moments64, coefficients.detach()
        ctx.save_for_backward(x, saved, *parameters)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in before if t is not None))
        rows = torch.from_numpy(moments64.reshape(3, -1))
        means, variances = rows[CENTRE].to(x), rows[VARIANCE].to(x)
        ctx.mark_non_differentiable(means, variances)
        return *sums, means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        x, saved, *parameters = ctx.saved_tensors
        count, wanted = len(layout.outputs), ctx.needs_input_grad
        state, weights = wanted[2], any(wanted[3 + count :])
        dx = torch.empty_like(x) if state else x.new_empty(0)
        run = _Pass(layout, ctx.coefficients, x, saved, parameters, backward=True, dx=dx)
        memory = run.memory
        target_grads = [None if g is None else g.contiguous() for g in grads[:count]]
        targets = _targets(target_grads)
        steps, ends, norms = memory.steps, layout.ends, layout.norms
        dead = [t for t, g in enumerate(target_grads) if g is None]
        if dead:  # no loss depends on these targets: as in the reference execution, their gradients are None, not zero
            steps, ends, norms = (table[~np.isin(table["target"], dead)] for table in (steps, ends, norms))
        walks.norm_restore(run.params, ctx.moments64, run.arrays.vectors, norms, run.vector)
        run.walk(walks.end_grad_sums, run.buffers, targets, ends, memory.scratch)
        grad_coefficients = np.zeros(len(layout.ends))
        grad_params = x.new_empty(layout.lengths["parameters"])
        for depth in reversed(range(layout.depth)):
            walks.norm_grads(
                run.params, _flat(grad_params), run.coefficients, grad_coefficients, run.arrays.sums, ctx.moments64,
                run.arrays.vectors, norms, run.images, -1 if depth == layout.depth - 1 else depth, run.vector,
            )  # fmt: skip
            if state or weights:
                run.walk(
                    walks.backward,
                    run.buffers,
                    targets,
                    steps,
                    memory.pools,
                    ends,
                    memory.scratch,
                    depth,
                    weights,
                    state,
                )
        run.walk(walks.unpack_grads, run.buffers, _flat(grad_params), steps, run.threads, run.images, memory.scratch)
        parts = grad_params.split([p.numel() for p in parameters])
        param_grads = [
            part.view(p.shape) if want and owner not in dead else None
            for part, p, want, owner in zip(parts, parameters, wanted[3 + count :], layout.owners, strict=True)
        ]
        passed = [g if want else None for g, want in zip(target_grads, wanted[3:], strict=False)]
        return None, torch.from_numpy(grad_coefficients).to(x), dx if state else None, *passed, *param_grads


class _Pass:
    """The arrays of one forward or backward pass."""

    def __init__(
        self,
        layout: Layout,
        coefficients: Tensor,
        x: Tensor,
        saved: Tensor,
        parameters: Sequence[Tensor],
        *,
        backward: bool,
        dx: Tensor | None = None,
    ) -> None:
        self.memory = memory = memory_of(layout)
        self.vector = memory.vectors[x.dtype]
        if self.vector not in compile.READY:
            compile.prepare([self.vector])
        self.images, self.threads = x.shape[0], thread_count(x.shape[0])
        self.params = _flat(torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)]))
        self.coefficients = coefficients.detach().double().numpy()
        kind, channels = FORMATS[x.dtype], layout.lengths["norms"]
        grad_packed = _scratch("grad_packed", self.threads * memory.packed if backward else 0, np.float64)
        grad_packed[:] = 0
        self.arrays = Buffers(
            x=_flat(x),
            saved=_flat(saved),
            packed=_scratch("packed", memory.packed, kind),
            flipped=_scratch("flipped", memory.packed if backward else 0, kind),
            inverse_counts=memory.inverse_counts[x.dtype],
            vectors=_scratch("vectors", 6 * channels, kind),
            sums=_scratch("sums", 2 * self.images * channels, np.float64),
            scratch=_scratch("scratch", self.threads * memory.length, kind),
            grad_saved=_scratch("grad_saved", layout.lengths["grad_saved"] if backward else 0, kind),
            grad_packed=grad_packed,
            dx=EMPTY if dx is None else _flat(dx),
        )
        pairs = [(array.__array_interface__["data"][0], array.size) for array in self.arrays]
        self.buffers = np.array(pairs, BUFFER)
        self.walk(walks.pack_weights, self.params, self.buffers, memory.steps, self.images, backward)

    def walk(self, walk: Callable[..., None], *arguments: Any) -> None:
        """Run a walk on the threads, each over its own images."""
        walk(self.threads, self.images, *arguments, self.vector)
