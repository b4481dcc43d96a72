"""What an operation is to the kernels: plain data, decoded from the operation's layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from gapless.core.op import AvgPool, Conv, Depthwise, Halves, HalvesModule, MaxPool, Norm, OpModule, Relu

# ---------------------------------------------------------------------- data


@dataclass(frozen=True)
class Window:
    """Stride, padding and dilation of a convolution or pool, the same in both axes."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def side(self, side: int, kernel: int) -> int:
        """Return the side of the output, for the sides of the input and of the kernel."""
        return (side + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1


@dataclass(frozen=True)
class Pointwise:
    """A matrix product over channels, weight [C', C] or [C', C, 1, 1]."""


@dataclass(frozen=True)
class Spatial:
    """A full convolution, weight [C', C, k, k]."""

    window: Window


Linear = Pointwise | Spatial


@dataclass(frozen=True)
class Step:
    """A ReLU, a depthwise convolution (``window`` None: none), a linear map and a batch normalisation.

    ``affine`` and ``eps`` are those of the normalisation.
    """

    window: Window | None
    linear: Linear
    affine: bool
    eps: float


@dataclass(frozen=True)
class Skip:
    """The identity."""


@dataclass(frozen=True)
class Pool:
    """A maximum (``largest``) or average pool, and a batch normalisation if ``eps`` is not None."""

    largest: bool
    kernel: int
    window: Window
    eps: float | None = None
    affine: bool = False


@dataclass(frozen=True)
class Chain:
    """Steps one after the other.

    ``split_phases``: the first step reads the two phases of a factorised reduction, concatenated over channels:
    pixels (2i, 2j), and pixels (2i + 1, 2j + 1).
    """

    steps: tuple[Step, ...]
    split_phases: bool = False


Form = Skip | Pool | Chain


@dataclass(frozen=True)
class Route:
    """An option of an edge that leaves a state: the number of its target node, and what it computes."""

    target: int
    form: Form


Moments = tuple[tuple[Tensor, Tensor], ...]
"""Mean and biased variance, [C] each, of each normalisation of each route, in order."""

# ---------------------------------------------------------------------- decoding


@dataclass(frozen=True)
class Fused:
    """An operation that the kernels compute: its form (None: its output is zero), and its modules with parameters."""

    form: Form | None
    modules: tuple[nn.Module, ...] = ()

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """Its normalisations, in order."""
        return tuple(m for m in self.modules if isinstance(m, nn.BatchNorm2d))

    @property
    def parameters(self) -> list[Tensor]:
        """Its parameters, in the order that :meth:`gapless.kernels.backend.Backend.fan` takes."""
        tensors: list[Tensor] = []
        for module in self.modules:
            if isinstance(module, HalvesModule):
                both = torch.block_diag(module.first.weight.flatten(1), module.second.weight.flatten(1))
                tensors.append(both[..., None, None])
            else:
                tensors += [p for p in (module.weight, module.bias) if isinstance(p, Tensor)]
        return tensors


def fused_form(op: OpModule) -> Fused | None:
    """Return how the kernels compute an operation, decoded from its layers; None if they do not."""
    if op.zero:
        return Fused(None)
    layers, modules = op.layers, list(op)
    if not layers:
        return Fused(Skip())
    if isinstance(layers[0], MaxPool | AvgPool):
        pool, rest = cast(nn.MaxPool2d | nn.AvgPool2d, modules[0]), layers[1:]
        if len(rest) > 1 or not all(isinstance(layer, Norm) for layer in rest):
            return None
        kernel, stride, padding = (cast(int, v) for v in (pool.kernel_size, pool.stride, pool.padding))
        norm = cast(nn.BatchNorm2d, modules[1]) if rest else None
        eps, affine = (None, False) if norm is None else (norm.eps, norm.affine)
        form = Pool(isinstance(layers[0], MaxPool), kernel, Window(stride, padding), eps, affine)
        return Fused(form, tuple(modules[1:]))
    steps: list[Step] = []
    parametric: list[nn.Module] = []
    at = 0
    while at < len(layers):
        kinds = [type(layer) for layer in layers[at : at + 4]]
        depthwise = kinds[1:2] == [Depthwise]
        length = 4 if depthwise else 3
        if kinds[:1] != [Relu] or kinds[length - 2] not in (Conv, Halves) or kinds[length - 1 : length] != [Norm]:
            return None
        first, linear, norm = modules[at + 1], modules[at + length - 2], cast(nn.BatchNorm2d, modules[at + length - 1])
        if isinstance(linear, HalvesModule) and at:
            return None
        steps.append(Step(_window(first) if depthwise else None, _linear(linear), norm.affine, norm.eps))
        parametric += [*([first] if depthwise else []), linear, norm]
        at += length
    split = any(isinstance(m, HalvesModule) for m in parametric)
    return Fused(Chain(tuple(steps), split), tuple(parametric))


def _window(module: nn.Module) -> Window:
    conv = cast(nn.Conv2d, module)
    return Window(conv.stride[0], int(conv.padding[0]), conv.dilation[0])


def _linear(module: nn.Module) -> Linear:
    if isinstance(module, HalvesModule):
        return Pointwise()
    conv = cast(nn.Conv2d, module)
    return Pointwise() if conv.kernel_size == (1, 1) and conv.stride == (1, 1) else Spatial(_window(conv))
