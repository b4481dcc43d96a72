"""The fused execution of a cell: the same modules as edge by edge, the same numbers, another order of work.

What edges share is computed once for each state: ReLU, subsampling, pools with their normalisation. What arrives at a
node is summed by one kernel, whose normalisations carry the weights of the mix, so that the outputs of single options
are never stored. Which kernel computes an operation follows from its layers; an operation that is not understood, or
that carries a hook, is called as it is. The exact algebra is in ``docs/design.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import AvgPool, Conv, Depthwise, Halves, HalvesModule, MaxPool, Norm, OpModule, Relu
from gapless.engine.kernels import (
    Linear,
    Pointwise,
    Spatial,
    Term,
    Window,
    depthwise,
    nchw,
    nhwc,
    node_sum,
    norm_relu,
    normalise,
)

T = TypeVar("T")
AnyPool = nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class Unit:
    """ReLU, perhaps a depthwise convolution, a linear map over channels, a normalisation."""

    depthwise: nn.Conv2d | None
    linear: nn.Conv2d | HalvesModule
    norm: nn.BatchNorm2d


@dataclass(frozen=True)
class Pool:
    """A pool, perhaps with a normalisation."""

    pool: AnyPool
    norm: nn.BatchNorm2d | None


@dataclass(frozen=True)
class Same:
    """The identity."""


@dataclass(frozen=True)
class Nothing:
    """An operation whose output is zero."""


Form = Same | Nothing | Pool | tuple[Unit, ...] | None
"""What the kernels make of an operation; None: it is called as it is."""


def form(op: OpModule) -> Form:
    """Return how the kernels compute an operation, read off its layers."""
    if op.zero:
        return Nothing()
    layers, modules = op.layers, list(op)
    if not layers:
        return Same()
    if isinstance(layers[0], MaxPool | AvgPool):
        behind = layers[1:]
        if all(isinstance(layer, Norm) for layer in behind) and len(behind) <= 1:
            return Pool(cast(AnyPool, modules[0]), cast(nn.BatchNorm2d, modules[1]) if behind else None)
        return None
    units: list[Unit] = []
    at = 0
    while at < len(layers):
        kinds = [type(layer) for layer in layers[at : at + 4]]
        deep = kinds[1:2] == [Depthwise]
        width = 4 if deep else 3
        if kinds[:1] != [Relu] or kinds[width - 2] not in (Conv, Halves) or kinds[width - 1 : width] != [Norm]:
            return None
        first, linear, norm = modules[at + 1], modules[at + width - 2], modules[at + width - 1]
        deep_conv = cast(nn.Conv2d, first) if deep else None
        units.append(Unit(deep_conv, cast(nn.Conv2d | HalvesModule, linear), cast(nn.BatchNorm2d, norm)))
        at += width
    return tuple(units)


class Statistics:
    """Gathers what normalisations saw, and moves their running statistics all at once."""

    def __init__(self) -> None:
        self.seen: list[tuple[nn.BatchNorm2d, Tensor, Tensor, int]] = []

    def note(self, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
        """Take the moments (biased variance) of ``count`` values."""
        if norm.running_mean is not None:
            self.seen.append((norm, mean, variance, count))

    @torch.no_grad()
    def settle(self) -> None:
        """Move the running statistics as PyTorch does: unbiased variance, a cumulative mean where momentum is None."""
        if not self.seen:
            return
        counters = [cast(Tensor, norm.num_batches_tracked) for norm, *_ in self.seen]
        torch._foreach_add_(counters, 1)
        groups: dict[float, list[tuple[Tensor, Tensor]]] = {}
        for (norm, mean, variance, n), counter in zip(self.seen, counters, strict=True):
            share = 1 / int(counter) if norm.momentum is None else norm.momentum
            pairs = groups.setdefault(share, [])
            pairs.append((cast(Tensor, norm.running_mean), mean))
            pairs.append((cast(Tensor, norm.running_var), variance * (n / (n - 1))))
        for share, pairs in groups.items():
            torch._foreach_lerp_([buffer for buffer, _ in pairs], [value for _, value in pairs], share)


class State:
    """A state of a cell, with what several edges take from it, each computed once. ``x`` is [N, H, W, C]."""

    def __init__(self, x: Tensor, partial: int) -> None:
        self.whole = x
        channels = x.shape[-1] // partial
        self.x = x if partial == 1 else x[..., :channels].contiguous()
        self._made: dict[object, object] = {}

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Return what ``make`` returned at its first call under this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return self.once("relu", lambda: self.x.relu())

    def every(self, step: int) -> Tensor:
        """Every ``step``-th pixel of the positive part, in both axes."""
        return self.once(("every", step), lambda: self.relu()[:, ::step, ::step].contiguous())

    def halves(self) -> Tensor:
        """What the two convolutions of a factorised reduction read, one behind the other: [N, H/2, W/2, 2C]."""

        def make() -> Tensor:
            x = self.relu()
            height, width = x.shape[1:3]
            odd = F.pad(x, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
            return torch.cat([x[:, ::2, ::2], odd[:, 1::2, 1::2]], dim=-1)

        return self.once("halves", make)

    def pooled(self, form: Pool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the pool's output, normalised where it is to be, and the moments."""
        pool, norm = form.pool, form.norm
        kind = (type(pool), pool.kernel_size, pool.stride, pool.padding)
        out = self.once(("pool", kind), lambda: nhwc(pool(nchw(self.x))))
        if norm is None:
            return out, None, None
        return self.once(("norm", kind, norm.eps), lambda: normalise(out, norm.eps))


class Node:
    """Gathers what arrives at a node."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self.plain: list[Tensor] = []
        self.plain_at: list[tuple[int, int]] = []
        self.terms: list[Term] = []
        self.norms: list[nn.BatchNorm2d] = []
        self.operands: list[Tensor] = []
        self.terms_at: list[tuple[int, int]] = []

    def add(self, state: State, op: OpModule, form: Form, at: tuple[int, int]) -> None:
        """Add an option of an edge that leaves ``state``; ``at`` is its row and column in the mix."""
        match form:
            case Nothing():
                return
            case Same():
                self._plain(state.x, at)
            case Pool():
                out, mean, variance = state.pooled(form)
                if form.norm is not None:
                    assert mean is not None
                    assert variance is not None
                    self.statistics.note(form.norm, mean, variance, out.numel() // out.shape[-1])
                    if form.norm.affine:
                        out = out * form.norm.weight + form.norm.bias
                self._plain(out, at)
            case None:
                self._plain(nhwc(op(nchw(state.x))), at)
            case _:
                self._units(state, form, at)

    def _plain(self, x: Tensor, at: tuple[int, int]) -> None:
        self.plain.append(x)
        self.plain_at.append(at)

    def _units(self, state: State, units: Sequence[Unit], at: tuple[int, int]) -> None:
        hidden: Tensor | None = None
        for unit in units:
            z, weight, linear = _read(state, hidden, unit)
            norm = unit.norm
            if unit is units[-1]:
                self.terms.append(Term(linear, norm.affine, norm.eps))
                self.operands += [z, weight, *([norm.weight, norm.bias] if norm.affine else [])]
                self.norms.append(norm)
                self.terms_at.append(at)
            else:
                hidden, mean, variance = norm_relu(z, weight, norm.weight, norm.bias, linear, norm.eps)
                self.statistics.note(norm, mean, variance, hidden.numel() // hidden.shape[-1])

    def total(self, mix: Mix) -> Tensor | None:
        """Return the weighed sum [N, H, W, C], None where nothing but zeros arrived."""
        places = self.plain_at + self.terms_at
        if not places:
            return None
        index = torch.tensor(places, device=mix.weight.device).t()
        coefficient = mix.weight[index[0], index[1]]
        if mix.gain is not None:
            coefficient = coefficient * mix.gain[index[0]]
        return self.sum(coefficient)

    def sum(self, coefficient: Tensor) -> Tensor:
        """Return the sum with these coefficients, those of plain terms first."""
        out, means, variances = node_sum(self.plain, self.terms, self.operands, coefficient)
        count = out.numel() // out.shape[-1]
        for norm, mean, variance in zip(self.norms, means, variances, strict=True):
            self.statistics.note(norm, mean, variance, count)
        return out


def _read(state: State, hidden: Tensor | None, unit: Unit) -> tuple[Tensor, Tensor, Linear]:
    """Return what a unit's linear map reads, its weight, and how it is computed."""
    first = unit.depthwise
    if first is not None:
        window = Window(first.stride[0], int(first.padding[0]), first.dilation[0])
        if hidden is not None:
            x = hidden
        elif window.stride == window.dilation > 1 and window.padding % window.dilation == 0:
            x, window = state.every(window.stride), Window(1, window.padding // window.dilation)
        else:
            x = state.relu()
        z = depthwise(x, first.weight, window)
    elif isinstance(unit.linear, HalvesModule):
        z = state.halves()
    else:
        z = state.relu() if hidden is None else hidden
    if isinstance(unit.linear, HalvesModule):
        parts = (unit.linear.first.weight, unit.linear.second.weight)
        return z, torch.block_diag(*(w.flatten(1) for w in parts)), Pointwise()
    conv = unit.linear
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1):
        return z, conv.weight, Pointwise()
    return z, conv.weight, Spatial(Window(conv.stride[0], int(conv.padding[0]), conv.dilation[0]))


def bypass(mixed: Tensor, present: Sequence[tuple[Tensor, int, int]], partial: int, mix: Mix) -> Tensor:
    """Return a node of partial channels [N, H, W, C]: the sum of what went through the operations with the sum of the
    channels that bypassed them, shuffled (see :func:`gapless.core.cell.rejoin`).

    ``present`` holds the source state, the stride and the row of each edge that is there.
    """
    if not present:
        return mixed.repeat(1, 1, 1, partial)
    parts = []
    for x, stride, row in present:
        rest = x[..., x.shape[-1] // partial :]
        if stride == 2:
            rest = nhwc(F.max_pool2d(nchw(rest.contiguous()), 2, 2, ceil_mode=True))
        parts.append(rest if mix.gain is None else mix.gain[row] * rest)
    both = torch.cat([mixed, sum(parts[1:], parts[0])], dim=-1)
    n, height, width, channels = both.shape
    return both.view(n, height, width, partial, channels // partial).transpose(-1, -2).reshape(both.shape)
