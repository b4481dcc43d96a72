"""The fused execution of a cell: the same modules as edge by edge, the same numbers, another order of work.

All that leaves a state is computed at once (a *fan*): what edges share once, normalisations with the weights of the mix
in their scale, so that the outputs of single options are never stored. On a CPU compiled loops do it
(:mod:`gapless.kernels.cpu.backend`), elsewhere and for odd numbers of channels the kernels of
:mod:`gapless.kernels.plain`. What an operation is to them follows from its layers; one that is not understood, or that
carries a hook, is called as it is. Noise is drawn before all else, in the order of the reference execution. The exact
algebra is in ``docs/design.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import AvgPool, Conv, Depthwise, Halves, HalvesModule, MaxPool, Norm, OpModule, Relu
from gapless.kernels import plain as kernels
from gapless.kernels.plain import (
    Chain,
    Linear,
    Pointwise,
    Pool,
    Route,
    Skip,
    Spatial,
    Step,
    Window,
    nchw,
    nhwc,
    positions,
)

TRITON = find_spec("triton") is not None
"""Whether kernels can be compiled for a GPU: Triton comes with PyTorch's builds for one."""

# ---------------------------------------------------------------------- what an operation is to the kernels


@dataclass(frozen=True)
class Known:
    """What the kernels make of an operation, None where its output is zero, and its modules that hold parameters."""

    form: Skip | Pool | Chain | None
    modules: tuple[nn.Module, ...] = ()

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Its normalisations, in order."""
        return tuple(m for m in self.modules if isinstance(m, nn.BatchNorm2d))

    @property
    def parameters(self) -> list[Tensor]:
        """Its parameters, as :func:`gapless.kernels.plain.fan` takes them."""
        found: list[Tensor] = []
        for module in self.modules:
            if isinstance(module, HalvesModule):
                both = torch.block_diag(module.first.weight.flatten(1), module.second.weight.flatten(1))
                found.append(both[..., None, None])
            else:
                found += [p for p in (module.weight, module.bias) if isinstance(p, Tensor)]
        return found


def form(op: OpModule) -> Known | None:
    """Return how the kernels compute an operation, read off its layers; None: it is called as it is."""
    if op.zero:
        return Known(None)
    layers, modules = op.layers, list(op)
    if not layers:
        return Known(Skip())
    if isinstance(layers[0], MaxPool | AvgPool):
        pool, behind = cast(nn.MaxPool2d | nn.AvgPool2d, modules[0]), layers[1:]
        if len(behind) > 1 or not all(isinstance(layer, Norm) for layer in behind):
            return None
        kernel, stride, padding = (cast(int, v) for v in (pool.kernel_size, pool.stride, pool.padding))
        norm = cast(nn.BatchNorm2d, modules[1]) if behind else None
        eps, affine = (None, False) if norm is None else (norm.eps, norm.affine)
        found = Pool(isinstance(layers[0], MaxPool), kernel, Window(stride, padding), eps, affine)
        return Known(found, tuple(modules[1:]))
    steps: list[Step] = []
    held: list[nn.Module] = []
    at = 0
    while at < len(layers):
        kinds = [type(layer) for layer in layers[at : at + 4]]
        deep = kinds[1:2] == [Depthwise]
        width = 4 if deep else 3
        if kinds[:1] != [Relu] or kinds[width - 2] not in (Conv, Halves) or kinds[width - 1 : width] != [Norm]:
            return None
        first, linear, norm = modules[at + 1], modules[at + width - 2], cast(nn.BatchNorm2d, modules[at + width - 1])
        if isinstance(linear, HalvesModule) and at:
            return None
        steps.append(Step(_window(first) if deep else None, _linear(linear), norm.affine, norm.eps))
        held += [*([first] if deep else []), linear, norm]
        at += width
    return Known(Chain(tuple(steps), any(isinstance(m, HalvesModule) for m in held)), tuple(held))


def _window(module: nn.Module) -> Window:
    conv = cast(nn.Conv2d, module)
    return Window(conv.stride[0], int(conv.padding[0]), conv.dilation[0])


def _linear(module: nn.Module) -> Linear:
    if isinstance(module, HalvesModule):
        return Pointwise()
    conv = cast(nn.Conv2d, module)
    return Pointwise() if conv.kernel_size == (1, 1) and conv.stride == (1, 1) else Spatial(_window(conv))


# ---------------------------------------------------------------------- statistics


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
        unbiased = torch._foreach_mul([variance for *_, variance, _ in self.seen], [n / (n - 1) for *_, n in self.seen])
        for (norm, mean, *_), variance, counter in zip(self.seen, unbiased, counters, strict=True):
            share = 1 / int(counter) if norm.momentum is None else norm.momentum
            pairs = groups.setdefault(share, [])
            pairs.append((cast(Tensor, norm.running_mean), mean))
            pairs.append((cast(Tensor, norm.running_var), variance))
        for share, pairs in groups.items():
            torch._foreach_lerp_([buffer for buffer, _ in pairs], [value for _, value in pairs], share)


# ---------------------------------------------------------------------- what leaves a state


class Fan:
    """Gathers the options that leave a state. Without ``statistics`` it judges: by those that normalisations have."""

    def __init__(self, statistics: Statistics | None) -> None:
        self.statistics = statistics
        self.known: list[tuple[int, Known, tuple[int, int]]] = []
        self.ops: list[OpModule] = []
        self.called: list[tuple[int, OpModule, tuple[int, int]]] = []
        self.given: list[tuple[int, Tensor | None, tuple[int, int]]] = []

    def add(self, target: int, op: OpModule, form: Known | None, at: tuple[int, int]) -> None:
        """Add an option of an edge to ``target``; ``at`` is its row and column in the mix."""
        if form is None:
            self.called.append((target, op, at))
        elif form.form is not None:
            self.known.append((target, form, at))
            self.ops.append(op)

    def put(self, target: int, y: Tensor | None, at: tuple[int, int]) -> None:
        """Add an option whose output [N, C, H, W] is there already, or will be where it is run."""
        self.given.append((target, y, at))

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where in the mix the weights of its options are, in the order of :meth:`run`."""
        return [at for *_, at in self.known + self.called + self.given]

    def run(self, x: Tensor, coefficient: Tensor, arrived: dict[int, Tensor]) -> None:
        """Add to what arrived at each target, [N, H, W, C], what now arrives from a state ``x`` [N, H, W, C]."""
        targets = sorted({target for target, *_ in self.known})
        routes = [Route(targets.index(target), known.form) for target, known, _ in self.known if known.form is not None]
        parameters = [p for _, known, _ in self.known for p in known.parameters]
        called: list[tuple[int, Callable[[Tensor], Tensor]]] = [(target, op) for target, op, _ in self.called]
        if routes and self.statistics is None and not _served(routes, x, parameters):
            layers = [partial(nn.Sequential.forward, op) for op in self.ops]
            called = [(target, op) for (target, *_), op in zip(self.known, layers, strict=True)] + called
            routes = []
        if routes:
            before = [arrived.get(target) for target in targets]
            own = coefficient if len(routes) == len(coefficient) else coefficient[: len(routes)]
            norms = [(norm, target) for target, known, _ in self.known for norm in known.norms]
            if self.statistics is None:
                arrived |= zip(targets, _judged(routes, own, x, before, parameters, norms), strict=True)
            else:
                out, moments = _fan(routes, x, parameters)(routes, own, x, before, parameters)
                arrived |= zip(targets, out, strict=True)
                self._note(self.statistics, norms, moments, arrived)
        outputs = chain(((t, op(nchw(x))) for t, op in called), ((t, y) for t, y, _ in self.given if y is not None))
        for c, (target, output) in zip(coefficient[len(routes) :], outputs, strict=True):
            y = c * nhwc(output)
            arrived[target] = arrived[target] + y if target in arrived else y

    def _note(
        self,
        statistics: Statistics,
        norms: Sequence[tuple[nn.BatchNorm2d, int]],
        moments: kernels.Moments,
        arrived: dict[int, Tensor],
    ) -> None:
        for (norm, target), (mean, variance) in zip(norms, moments, strict=True):
            shape = arrived[target].shape
            if shape[:-1].numel() == 1:  # in the library's words
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")
            statistics.note(norm, mean, variance, shape[:-1].numel())


Places = tuple[tuple[int, int], ...]
"""Rows and columns in a mix."""


def coefficients(mix: Mix, fans: Sequence[Fan], known: dict[Places, Tensor]) -> Sequence[Tensor]:
    """Return the weights of the options of each fan, with the gains of their edges; read at once, for what is read at a
    time costs a GPU some launches there and back. Cells that are alike read the same ones, once: they are ``known``."""
    places = tuple(at for fan in fans for at in fan.places)
    if not places:
        return [mix.weight.new_empty(0) for _ in fans]
    if places not in known:
        width, device = mix.weight.shape[1], mix.weight.device
        numbers = positions(tuple(row * width + col for row, col in places), device)
        found = mix.weight.reshape(-1).index_select(0, numbers)
        if mix.gain is not None:
            found = found * mix.gain.index_select(0, positions(tuple(row for row, _ in places), device))
        known[places] = found
    shares: Sequence[Tensor] = known[places].split([len(fan.places) for fan in fans])
    return shares


def _fan(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> Callable[..., Any]:
    """Return what computes these routes."""
    if compiles(x):
        from gapless.kernels.gpu import backend as tiled

        return tiled.fan if tiled.serves(routes, x, parameters) else kernels.fan
    if x.device.type == "cpu":
        from gapless.kernels.cpu import backend as compiled

        return compiled.fan if compiled.serves(routes, x, parameters) else kernels.fan
    return kernels.fan


def _served(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    from gapless.kernels.gpu import backend as tiled

    return tiled.serves(routes, x, parameters)


def compiles(x: Tensor) -> bool:
    """Return whether kernels are compiled for where ``x`` is: on a GPU, where there is Triton."""
    return x.device.type == "cuda" and TRITON


def _judged(
    routes: Sequence[Route],
    coefficient: Tensor,
    x: Tensor,
    before: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    norms: Sequence[tuple[nn.BatchNorm2d, int]],
) -> tuple[Tensor, ...]:
    """Return what is then at the targets, by the running statistics of the normalisations. Only where kernels are
    compiled."""
    from gapless.kernels.gpu import backend as tiled

    running = tuple((cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)) for norm, _ in norms)
    return tiled.judged(routes, coefficient, x, before, parameters, running)


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
