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
from gapless.kernels.cpu.workers import threads
from gapless.kernels.layout import FORMATS, Array, Plan, plan, serves
from gapless.kernels.plain import Moments, Route

__all__ = ["fan", "serves"]

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


# ---------------------------------------------------------------------- the function


def fan(
    routes: Sequence[Route],
    coefficient: Tensor,
    x: Tensor,
    arrived: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :func:`gapless.kernels.plain.fan`; for what :func:`serves` says yes to."""
    made = plan(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    *sums, means, variances = _Fan.apply(made, coefficient, x, *arrived, *parameters)  # type: ignore[no-untyped-call]
    return tuple(sums), tuple((means[at : at + c], variances[at : at + c]) for at, c in made.normed)


class _Fan(Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, coefficient: Tensor, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[: len(plan.outputs)], tensors[len(plan.outputs) :]
        kept = x.new_empty(plan.lengths["kept"])
        run = _Run(plan, coefficient, x, kept, parameters, back=False)  # type: ignore[arg-type]
        sums = [x.new_empty(plan.outputs[t]) if before is None else before for t, before in enumerate(arrived)]
        targets = _addresses(sums, arrived)
        book = np.empty((3, plan.lengths["slots"]))
        for depth in range(plan.depth):
            if len(plan.steps) or len(plan.pools):
                run.share(
                    walks.ahead, run.rooms, run.x, run.kept, run.packed, run.averages, run.lines, run.seen, plan.steps,
                    plan.pools, plan.fan, depth,
                )  # fmt: skip
            walks.settle(run.flat, run.shares, run.seen, book, run.lines, plan.slots, run.images, depth)
        run.share(walks.gather, run.x, run.kept, run.lines, targets, plan.ways, plan.fan)
        ctx.plan, ctx.book, ctx.coefficient = plan, book, coefficient.detach()
        ctx.save_for_backward(x, kept, *parameters)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        means, variances = (torch.from_numpy(book[row]).to(x) for row in (walks.CENTRE, walks.VARIANCE))
        ctx.mark_non_differentiable(means, variances)
        return *sums, means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x, kept, *parameters = ctx.saved_tensors
        count, wanted = len(plan.outputs), ctx.needs_input_grad
        below, weights = wanted[2], any(wanted[3 + count :])
        run = _Run(plan, ctx.coefficient, x, kept, parameters, back=True)
        arriving = [None if g is None else g.contiguous() for g in given[:count]]
        targets = _addresses(arriving)
        steps, ways, slots = plan.steps, plan.ways, plan.slots
        dead = [t for t, g in enumerate(arriving) if g is None]
        if dead:  # nothing depends on what arrives there: as edge by edge, no gradient, which is not one of zero
            steps, ways, slots = (table[~np.isin(table["target"], dead)] for table in (steps, ways, slots))
        walks.restore(run.flat, ctx.book, run.lines, slots)
        run.share(walks.correlate, run.x, run.kept, run.lines, run.seen, targets, ways, plan.fan)
        dshares = np.zeros(len(plan.ways))
        dx = torch.empty_like(x) if below else x.new_empty(0)
        dflat = x.new_empty(plan.lengths["parameters"])
        dkept = _scratch("dkept", plan.lengths["dkept"], run.kind)
        dweights = _scratch("dweights", run.threads * plan.lengths["weights"], np.float64).reshape(run.threads, -1)
        dweights[:] = 0
        for depth in reversed(range(plan.depth)):
            walks.carry(
                run.flat, _flat(dflat), run.shares, dshares, run.seen, ctx.book, run.lines, slots, run.images,
                -1 if depth == plan.depth - 1 else depth,
            )  # fmt: skip
            if below or weights:
                run.share(
                    walks.behind, run.rooms, run.x, run.kept, run.packed, run.turned, run.averages, run.lines, run.seen,
                    targets, dkept, dweights, _flat(dx), steps, plan.pools, ways, plan.fan, depth, weights, below,
                )  # fmt: skip
        run.share(walks.unpack, dweights, _flat(dflat), steps, run.images)
        found = [
            part.view(p.shape) if want and owner not in dead else None
            for part, p, want, owner in zip(
                dflat.split([p.numel() for p in parameters]), parameters, wanted[3 + count :], plan.owners, strict=True
            )
        ]
        passed = [g if want else None for g, want in zip(arriving, wanted[3:], strict=False)]
        return None, torch.from_numpy(dshares).to(x), dx if below else None, *passed, *found


class _Run:
    """What a pass over the images needs, forward or back."""

    def __init__(
        self, plan: Plan, coefficient: Tensor, x: Tensor, kept: Tensor, parameters: Sequence[Tensor], back: bool
    ) -> None:
        self.plan, self.kind = plan, FORMATS[x.dtype]
        self.images, self.threads = x.shape[0], threads(x.shape[0])
        self.x, self.kept = _flat(x), _flat(kept)
        self.flat = _flat(torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)]))
        self.shares = coefficient.detach().double().numpy()
        self.averages = plan.averages[x.dtype]
        self.packed = _scratch("packed", plan.lengths["weights"], self.kind)
        self.turned = _scratch("turned", plan.lengths["turned"] if back else 0, self.kind)
        slots = plan.lengths["slots"]
        self.seen, self.lines = (
            _scratch("seen", 2 * self.images * slots, np.float64),
            _scratch("lines", 6 * slots, self.kind),
        )
        self.rooms = _scratch("rooms", self.threads * plan.lengths["room"], self.kind).reshape(self.threads, -1)
        self.share(walks.pack, self.flat, self.packed, self.turned, plan.steps, self.images, back)

    def share(self, walk: Callable[..., None], *arguments: Any) -> None:
        """Let the threads walk, each over its own images."""
        walk(self.threads, self.images, *arguments, self.plan.width)
