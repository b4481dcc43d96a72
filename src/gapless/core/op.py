"""Operations as data: a tuple of layers, from which modules, widening and counts are all derived.

``()`` is the identity and ``(Zero(),)`` is "none". The first layer that can carry a stride takes it; the last
convolution changes the number of channels where input and output differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class Conv:
    """A bias-free convolution over all channels; ``Conv(1)`` is pointwise. Padding keeps the size."""

    kernel: int = 1


@dataclass(frozen=True)
class Depthwise:
    """A bias-free convolution of each channel on its own."""

    kernel: int
    dilation: int = 1


@dataclass(frozen=True)
class Norm:
    """Batch normalisation; ``affine=None`` follows the space's rule."""

    affine: bool | None = None


@dataclass(frozen=True)
class MaxPool:
    """Maximum over a window, padded with minus infinity."""

    kernel: int = 3


@dataclass(frozen=True)
class AvgPool:
    """Mean over a window; padding does not count in the divisor."""

    kernel: int = 3


@dataclass(frozen=True)
class Halves:
    """Two stride-2 pointwise convolutions of half the outputs each, the second on the input shifted by a pixel in both
    axes (DARTS)."""


@dataclass(frozen=True)
class Zero:
    """Nothing: an output of zeros."""


@dataclass(frozen=True)
class Noise:
    """Standard normal numbers in place of the input, drawn anew in every pass, in evaluation too (RobustDARTS, arXiv
    1909.09656)."""


Layer = Relu | Conv | Depthwise | Norm | MaxPool | AvgPool | Halves | Zero | Noise
STRIDED = (Conv, Depthwise, MaxPool, AvgPool, Halves, Noise)


@dataclass(frozen=True)
class NormRule:
    """How a space normalises: scale and shift or not, running statistics or not, epsilon, momentum (PyTorch's
    defaults)."""

    affine: bool = True
    track: bool = True
    eps: float = 1e-5
    momentum: float = 0.1

    def build(self, channels: int, affine: bool | None = None) -> nn.BatchNorm2d:
        """Return the module; ``affine`` overrides the rule where an operation asks for it."""
        own = self.affine if affine is None else affine
        return nn.BatchNorm2d(
            channels, eps=self.eps, momentum=self.momentum, affine=own, track_running_stats=self.track
        )


@dataclass(frozen=True)
class Op:
    """A candidate operation.

    Parameters
    ----------
    layers
        What it does, in order.
    strided
        What it does at stride 2, where that is something else (a skip connection becomes a factorised reduction).
    """

    layers: tuple[Layer, ...]
    strided: tuple[Layer, ...] | None = None

    def at(self, stride: int) -> tuple[Layer, ...]:
        """Return the layers at this stride."""
        return self.layers if stride == 1 or self.strided is None else self.strided

    @property
    def zero(self) -> bool:
        """Whether this is "none"."""
        return Zero() in self.layers

    @property
    def noise(self) -> bool:
        """Whether this is noise: what comes out depends on nothing of the input but its shape."""
        return self.layers == (Noise(),)

    def build(
        self, channels: int, *, stride: int = 1, norm: NormRule = NormRule(), inputs: int | None = None
    ) -> OpModule:
        """Return the module from ``inputs`` (default: ``channels``) to ``channels`` channels."""
        return OpModule(self, inputs or channels, channels, stride, norm)


class OpModule(nn.Sequential):
    """The module of an :class:`Op`; its children are the layers, in order, so parameter names follow from the data."""

    def __init__(self, op: Op, inputs: int, channels: int, stride: int, norm: NormRule) -> None:
        layers = op.at(stride)
        carriers = [i for i, layer in enumerate(layers) if isinstance(layer, STRIDED)]
        mixing = [i for i, layer in enumerate(layers) if isinstance(layer, (Conv, Halves))]
        if inputs != channels and not mixing and not op.zero:
            raise ValueError(
                f"{op} cannot change {inputs} channels into {channels}: it has no convolution over channels"
            )
        if stride != 1 and not carriers and not op.zero:
            raise ValueError(f"{op} cannot carry a stride")
        modules: list[nn.Module] = []
        for i, layer in enumerate(layers):
            before = channels if mixing and i > mixing[-1] else inputs
            after = channels if mixing and i >= mixing[-1] else inputs
            modules.append(_module(layer, before, after, stride if carriers[:1] == [i] else 1, norm))
        super().__init__(*modules)
        self.op, self.stride, self.layers = op, stride, layers
        self.inputs, self.channels, self.norm = inputs, channels, norm
        self.runner: Callable[[OpModule, Tensor], Tensor | None] | None = None
        """Who runs it otherwise, where somebody does: the engine. None from it means that the layers are run."""

    @property
    def identity(self) -> bool:
        """Whether the output is the input."""
        return not self.layers

    @property
    def zero(self) -> bool:
        """Whether the output is always zero."""
        return self.op.zero

    @property
    def noise(self) -> bool:
        """Whether the output depends on nothing of the input but its shape."""
        return self.op.noise

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)]."""
        if self.zero:
            return zeros(x, self.stride)
        if self.runner is not None:
            y = self.runner(self, x)
            if y is not None:
                return y
        for layer in self:
            x = layer(x)
        return x


class HalvesModule(nn.Module):
    """A factorised reduction: two stride-2 pointwise convolutions of half the outputs each, the second on the input
    shifted by a pixel in both axes. Odd sizes are padded by one pixel below and at the right before the shift."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.inputs, self.channels = inputs, channels
        if channels % 2:
            raise ValueError(f"a factorised reduction needs an even number of channels, not {channels}")
        self.first = nn.Conv2d(inputs, channels // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(inputs, channels // 2, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', ceil(H / 2), ceil(W / 2)]."""
        height, width = x.shape[-2:]
        shifted = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return torch.cat([self.first(x), self.second(shifted[:, :, 1:, 1:])], dim=1)


class NoiseModule(nn.Module):
    """Standard normal numbers of the shape that an operation at ``stride`` gives.

    They come from PyTorch's global generator and do not depend on the layout of the input in memory, so that one seed
    gives the same numbers wherever the module is called in the same order.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, ceil(H / stride), ceil(W / stride)]."""
        n, c, height, width = x.shape
        shape = (n, c, -(-height // self.stride), -(-width // self.stride))
        return torch.randn(shape, dtype=x.dtype, device=x.device)


def zeros(x: Tensor, stride: int) -> Tensor:
    """Return zeros of the shape that an operation at ``stride`` gives for ``x``."""
    n, c, height, width = x.shape
    return x.new_zeros(n, c, -(-height // stride), -(-width // stride))


def _module(layer: Layer, inputs: int, channels: int, stride: int, norm: NormRule) -> nn.Module:
    match layer:
        case Relu():
            return nn.ReLU()
        case Conv(kernel):
            return nn.Conv2d(inputs, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        case Depthwise(kernel, dilation):
            padding = dilation * (kernel - 1) // 2
            return nn.Conv2d(
                inputs, inputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=inputs, bias=False
            )
        case Norm(affine):
            return norm.build(channels, affine)
        case MaxPool(kernel):
            return nn.MaxPool2d(kernel, stride=stride, padding=kernel // 2)
        case AvgPool(kernel):
            return nn.AvgPool2d(kernel, stride=stride, padding=kernel // 2, count_include_pad=False)
        case Halves():
            return HalvesModule(inputs, channels)
        case Zero():
            return nn.Identity()
        case Noise():
            return NoiseModule(stride)
