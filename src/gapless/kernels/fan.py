"""The fused execution of a cell: the reference cell's own modules, computed in another order.

All options on the edges that leave a state are computed at once (a *fan*): what they share once, and normalisations
with the weights of the mix in their scale, so that the outputs of single options are never stored. :func:`backends`
lists the implementations for a device, best first. An operation that no kernel computes, or that carries a hook, is
called as a module. The exact algebra is in ``docs/design.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import OpModule
from gapless.core.tensors import indices, nchw, nhwc
from gapless.kernels import gpu, plain
from gapless.kernels.backend import Backend
from gapless.kernels.forms import Fused, Moments, Route
from gapless.kernels.layout import FORMATS

# ---------------------------------------------------------------------- choice of the backend


def backends(device: torch.device) -> tuple[Backend, ...]:
    """Return the backends for a device, best first; the last one serves every fan."""
    if device.type == "cuda" and gpu.INSTALLED:
        from gapless.kernels.gpu import backend as triton

        return triton, plain
    if device.type == "cpu":
        from gapless.kernels.cpu import backend as numba

        return numba, plain
    return (plain,)


def backend_of(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> Backend:
    """Return the first backend that serves these routes for the state ``x``."""
    return next(backend for backend in backends(x.device) if backend.serves(routes, x, parameters))


def judges(device: torch.device) -> bool:
    """Return whether a backend of this device implements evaluation mode."""
    return any(backend.judged is not None for backend in backends(device))


def prepare(groups: Iterable[Sequence[Fused]], x: Tensor) -> None:
    """Compile all that fans of a network need for images like ``x``, before the first of them runs: at once, and only
    for the vectors that they use.

    ``groups`` holds the operations whose numbers of channels a fan may combine: those of one cell. What is not prepared
    is compiled when it is needed.
    """
    if x.device.type != "cpu" or x.dtype not in FORMATS:
        return
    from gapless.kernels.cpu import compile
    from gapless.kernels.cpu.memory import vector_of

    vectors = []
    for group in groups:
        shapes = [parameter.shape for op in group for parameter in op.parameters]
        channels = {shape[0] for shape in shapes} | {shape[1] for shape in shapes if len(shape) == 4 and shape[1] > 1}
        if channels and all(count % 4 == 0 for count in channels):
            vectors.append(vector_of(FORMATS[x.dtype], *channels))
    compile.prepare(vectors)


# ---------------------------------------------------------------------- running statistics


class RunningStatistics:
    """Collects the batch moments of normalisations, and updates all running statistics at once."""

    def __init__(self) -> None:
        self.collected: list[tuple[nn.BatchNorm2d, Tensor, Tensor, int]] = []

    def add(self, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add mean and biased variance [C] of ``count`` values."""
        if norm.running_mean is not None:
            self.collected.append((norm, mean, variance, count))

    @torch.no_grad()
    def update(self) -> None:
        """Update as PyTorch does: with the unbiased variance, and a cumulative mean where momentum is None."""
        if not self.collected:
            return
        counters = [cast(Tensor, norm.num_batches_tracked) for norm, *_ in self.collected]
        torch._foreach_add_(counters, 1)
        groups: dict[float, list[tuple[Tensor, Tensor]]] = {}
        unbiased = torch._foreach_mul(
            [variance for *_, variance, _ in self.collected], [n / (n - 1) for *_, n in self.collected]
        )
        for (norm, mean, *_), variance, counter in zip(self.collected, unbiased, counters, strict=True):
            momentum = 1 / int(counter) if norm.momentum is None else norm.momentum
            pairs = groups.setdefault(momentum, [])
            pairs.append((cast(Tensor, norm.running_mean), mean))
            pairs.append((cast(Tensor, norm.running_var), variance))
        for momentum, pairs in groups.items():
            torch._foreach_lerp_([buffer for buffer, _ in pairs], [value for _, value in pairs], momentum)


# ---------------------------------------------------------------------- the outgoing edges of a state

Entries = tuple[tuple[int, int], ...]
"""Rows and columns in a mix."""


class Fan:
    """The options on all edges that leave a state.

    ``statistics`` collects the batch moments; None: evaluation mode, by the running statistics.
    """

    def __init__(self, statistics: RunningStatistics | None) -> None:
        self.statistics = statistics
        self.fused: list[tuple[int, Fused, OpModule, tuple[int, int]]] = []
        self.called: list[tuple[int, OpModule, tuple[int, int]]] = []
        self.outputs: list[tuple[int, Tensor | None, tuple[int, int]]] = []

    def add(self, target: int, op: OpModule, fused: Fused | None, entry: tuple[int, int]) -> None:
        """Add an option of an edge to ``target``; ``entry`` is its row and column in the mix."""
        if fused is None:
            self.called.append((target, op, entry))
        elif fused.form is not None:
            self.fused.append((target, fused, op, entry))

    def add_output(self, target: int, y: Tensor | None, entry: tuple[int, int]) -> None:
        """Add an option by its output [N, C, H, W]; None reserves its place among the entries."""
        self.outputs.append((target, y, entry))

    @property
    def entries(self) -> Entries:
        """Row and column in the mix of each option, in the order of :meth:`run`."""
        return (
            *(entry for *_, entry in self.fused),
            *(entry for *_, entry in self.called),
            *(entry for *_, entry in self.outputs),
        )

    def run(self, x: Tensor, coefficients: Tensor, sums: dict[int, Tensor]) -> None:
        """Add the options, applied to the state ``x`` [N, H, W, C], to the sums [N, H', W', C'] at their targets."""
        targets = sorted({target for target, *_ in self.fused})
        routes = [
            Route(targets.index(target), fused.form) for target, fused, *_ in self.fused if fused.form is not None
        ]
        parameters = [p for _, fused, *_ in self.fused for p in fused.parameters]
        called: list[tuple[int, Callable[[Tensor], Tensor]]] = [(target, op) for target, op, _ in self.called]
        if routes:
            backend = backend_of(routes, x, parameters)
            before = [sums.get(target) for target in targets]
            own = coefficients if len(routes) == len(coefficients) else coefficients[: len(routes)]
            norms = [(norm, target) for target, fused, *_ in self.fused for norm in fused.norms]
            if self.statistics is not None:
                out, moments = backend.fan(routes, own, x, before, parameters)
                sums |= zip(targets, out, strict=True)
                self._collect(self.statistics, norms, moments, sums)
            elif backend.judged is not None:
                running = tuple((cast(Tensor, n.running_mean), cast(Tensor, n.running_var)) for n, _ in norms)
                sums |= zip(targets, backend.judged(routes, own, x, before, parameters, running), strict=True)
            else:
                layers = [(target, partial(nn.Sequential.forward, op)) for target, _, op, _ in self.fused]
                called, routes = layers + called, []
        outputs = chain(((t, op(nchw(x))) for t, op in called), ((t, y) for t, y, _ in self.outputs if y is not None))
        for c, (target, output) in zip(coefficients[len(routes) :], outputs, strict=True):
            y = c * nhwc(output)
            sums[target] = sums[target] + y if target in sums else y

    def _collect(
        self,
        statistics: RunningStatistics,
        norms: Sequence[tuple[nn.BatchNorm2d, int]],
        moments: Moments,
        sums: dict[int, Tensor],
    ) -> None:
        for (norm, target), (mean, variance) in zip(norms, moments, strict=True):
            shape = sums[target].shape
            if shape[:-1].numel() == 1:  # PyTorch's message
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")
            statistics.add(norm, mean, variance, shape[:-1].numel())


def coefficients(mix: Mix, fans: Sequence[Fan], cache: dict[Entries, Tensor]) -> Sequence[Tensor]:
    """Return for each fan the weights of its options times the gains of their edges.

    They are gathered for all fans at once, since every single read costs a GPU some launches, forward and backward.
    Cells with equal entries share one result, kept in ``cache``.
    """
    entries = tuple(entry for fan in fans for entry in fan.entries)
    if not entries:
        return [mix.weight.new_empty(0) for _ in fans]
    if entries not in cache:
        width, device = mix.weight.shape[1], mix.weight.device
        index = indices(tuple(row * width + column for row, column in entries), device)
        values = mix.weight.reshape(-1).index_select(0, index)
        if mix.gain is not None:
            values = values * mix.gain.index_select(0, indices(tuple(row for row, _ in entries), device))
        cache[entries] = values
    parts: Sequence[Tensor] = cache[entries].split([len(fan.entries) for fan in fans])
    return parts


# ---------------------------------------------------------------------- partial channels


def bypass(mixed: Tensor, present: Sequence[tuple[Tensor, int, int]], partial: int, mix: Mix) -> Tensor:
    """Return a node of partial channels [N, H, W, C]: the sum over operations, concatenated with the sum of the
    channels that bypass them, and shuffled (see :func:`gapless.core.cell.rejoin`).

    ``present`` holds source state, stride and row in the mix of each present edge.
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
