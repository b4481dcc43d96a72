"""All that leaves a state of a cell, on a CPU, in a few walks over memory.

It computes what :func:`gapless.kernels.plain.fan` computes, in the loops of
:mod:`gapless.kernels.cpu.walks`. Each image goes through a whole step of each chain (ReLU,
depthwise convolution, convolution, moments) while it lies in the cache; between steps only the
moments of all images have to meet. Kept for the backward pass is what normalisations read, and
nothing else: what follows a normalisation is a scale, a shift and a ReLU away.
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

from gapless.kernels.cpu import walks
from gapless.kernels.cpu.memory import memory_of
from gapless.kernels.cpu.workers import threads
from gapless.kernels.forms import Moments, Route
from gapless.kernels.layout import FORMATS, Array, Layout, layout_of, supported

__all__ = ["fan", "judged", "serves"]

judged = None
"""Evaluation mode is left to the modules themselves."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the CPU kernels compute these routes, for a state like ``x``: on the CPU, in single or double
    precision, with numbers of channels that are multiples of 4."""
    return (
        x.device.type == "cpu"
        and x.dtype in FORMATS
        and x.shape[-1] % 4 == 0
        and all(p.shape[0] % 4 == 0 and p.dtype == x.dtype for p in parameters)
        and supported(tuple(routes))
    )


# ---------------------------------------------------------------------- memory


_MEMORY = threading.local()
LINE = 64
"""Bytes of a line of the cache."""


def _scratch(slot: str, count: int, kind: Any) -> Array:
    """Return memory that the next call with this slot, in this thread, returns again. It begins where a line of the
    cache does, for a vector that lies in two lines takes two loads."""
    held: dict[Any, Array] = _MEMORY.__dict__
    found = held.get((slot, kind))
    if found is None or len(found) < count:
        whole = np.empty(count * np.dtype(kind).itemsize + LINE, np.uint8)
        begin = -whole.ctypes.data % LINE
        held[slot, kind] = found = whole[begin : len(whole) - LINE + begin].view(kind)
    return found[:count]


def _flat(x: Tensor) -> Array:
    array: Array = x.detach().view(-1).numpy()
    return array


def _addresses(tensors: Sequence[Tensor | None], before: Sequence[Tensor | None] = ()) -> Array:
    """Return where tensors lie, and whether there was something before."""
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
        ctx: Any, layout: Layout, coefficient: Tensor, x: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[: len(layout.outputs)], tensors[len(layout.outputs) :]
        saved = x.new_empty(layout.lengths["saved"])
        run = _Pass(layout, coefficient, x, saved, parameters, backward=False)  # type: ignore[arg-type]
        memory = run.memory
        sums = [x.new_empty(layout.outputs[t]) if before is None else before for t, before in enumerate(arrived)]
        targets = _addresses(sums, arrived)
        moments64 = np.empty((3, layout.lengths["norms"]))
        for depth in range(layout.depth):
            if len(memory.steps) or len(memory.pools):
                run.walk(
                    walks.ahead, run.scratch, run.x, run.saved, run.packed, run.inverse_counts, run.vectors, run.sums,
                    memory.steps, memory.pools, memory.scratch, depth,
                )  # fmt: skip
            walks.settle(
                run.params, run.coefficients, run.sums, moments64, run.vectors, layout.norms, run.images, depth
            )
        run.walk(walks.gather, run.x, run.saved, run.vectors, targets, layout.ends, memory.scratch)
        ctx.layout, ctx.moments64, ctx.coefficient = layout, moments64, coefficient.detach()
        ctx.save_for_backward(x, saved, *parameters)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        means, variances = (torch.from_numpy(moments64[row]).to(x) for row in (walks.CENTRE, walks.VARIANCE))
        ctx.mark_non_differentiable(means, variances)
        return *sums, means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        x, saved, *parameters = ctx.saved_tensors
        count, wanted = len(layout.outputs), ctx.needs_input_grad
        state, weights = wanted[2], any(wanted[3 + count :])
        run = _Pass(layout, ctx.coefficient, x, saved, parameters, backward=True)
        memory = run.memory
        target_grads = [None if g is None else g.contiguous() for g in grads[:count]]
        targets = _addresses(target_grads)
        steps, ends, norms = memory.steps, layout.ends, layout.norms
        dead = [t for t, g in enumerate(target_grads) if g is None]
        if dead:  # no loss depends on these targets: as in the reference execution, their gradients are None, not zero
            steps, ends, norms = (table[~np.isin(table["target"], dead)] for table in (steps, ends, norms))
        walks.restore(run.params, ctx.moments64, run.vectors, norms)
        run.walk(walks.correlate, run.x, run.saved, run.vectors, run.sums, targets, ends, memory.scratch)
        grad_coefficients = np.zeros(len(layout.ends))
        dx = torch.empty_like(x) if state else x.new_empty(0)
        grad_params = x.new_empty(layout.lengths["parameters"])
        grad_saved = _scratch("grad_saved", layout.lengths["grad_saved"], run.kind)
        grad_packed = _scratch("grad_packed", run.threads * memory.packed, np.float64).reshape(run.threads, -1)
        grad_packed[:] = 0
        for depth in reversed(range(layout.depth)):
            walks.carry(
                run.params, _flat(grad_params), run.coefficients, grad_coefficients, run.sums, ctx.moments64,
                run.vectors, norms, run.images, -1 if depth == layout.depth - 1 else depth,
            )  # fmt: skip
            if state or weights:
                run.walk(
                    walks.behind, run.scratch, run.x, run.saved, run.packed, run.flipped, run.inverse_counts,
                    run.vectors, run.sums, targets, grad_saved, grad_packed, _flat(dx), steps, memory.pools, ends,
                    memory.scratch, depth, weights, state,
                )  # fmt: skip
        run.walk(walks.unpack, grad_packed, _flat(grad_params), steps, run.images)
        parts = grad_params.split([p.numel() for p in parameters])
        param_grads = [
            part.view(p.shape) if want and owner not in dead else None
            for part, p, want, owner in zip(parts, parameters, wanted[3 + count :], layout.owners, strict=True)
        ]
        passed = [g if want else None for g, want in zip(target_grads, wanted[3:], strict=False)]
        return None, torch.from_numpy(grad_coefficients).to(x), dx if state else None, *passed, *param_grads


class _Pass:
    """Arrays of one forward or backward pass."""

    def __init__(
        self,
        layout: Layout,
        coefficient: Tensor,
        x: Tensor,
        saved: Tensor,
        parameters: Sequence[Tensor],
        backward: bool,
    ) -> None:
        self.memory, self.kind = memory_of(layout), FORMATS[x.dtype]
        self.images, self.threads = x.shape[0], threads(x.shape[0])
        self.x, self.saved = _flat(x), _flat(saved)
        self.params = _flat(torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)]))
        self.coefficients = coefficient.detach().double().numpy()
        self.inverse_counts = self.memory.inverse_counts[x.dtype]
        self.packed = _scratch("packed", self.memory.packed, self.kind)
        self.flipped = _scratch("flipped", self.memory.packed if backward else 0, self.kind)
        channels = layout.lengths["norms"]
        self.sums = _scratch("sums", 2 * self.images * channels, np.float64)
        self.vectors = _scratch("vectors", 6 * channels, self.kind)
        scratch = _scratch("scratch", self.threads * self.memory.scratch_length, self.kind)
        self.scratch = scratch.reshape(self.threads, -1)
        self.walk(walks.pack, self.params, self.packed, self.flipped, self.memory.steps, self.images, backward)

    def walk(self, walk: Callable[..., None], *arguments: Any) -> None:
        """Run a walk on the threads, each over its own images."""
        walk(self.threads, self.images, *arguments, self.memory.vector)
