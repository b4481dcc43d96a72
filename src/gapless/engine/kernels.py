"""Differentiable kernels of the fused execution: what cells are made of, arranged for memory traffic.

Images are [N, H, W, C] here, contiguous: the depthwise convolutions of the CPU library are fastest so, and a pointwise
convolution is a matrix product. Every kernel computes what the modules of the reference execution compute, with batch
statistics, and keeps for the backward pass only what does not follow cheaply from something else that is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LANES = 64
"""Rows of fewer channels are viewed as longer rows where channels do not matter: vector units like them."""


def nchw(x: Tensor) -> Tensor:
    """View [N, H, W, C] as the library's [N, C, H, W]."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """Return [N, C, H, W] as contiguous [N, H, W, C], without a copy where it lies so already."""
    return x.permute(0, 2, 3, 1).contiguous()


def rows(x: Tensor) -> Tensor:
    """View [N, H, W, C] as a matrix [N H W, C]."""
    return x.view(-1, x.shape[-1])


# ---------------------------------------------------------------------- memory that is used again and again

_SLOTS = threading.local()


def scratch(slot: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """Return uninitialised memory that nothing may keep: the next call with this slot returns it again.

    On the CPU writing to memory that was not used a moment ago costs several times as much as the arithmetic of most
    kernels here. A thread has its own; other devices have allocators that do as much.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    slots: dict[tuple[str, torch.dtype], Tensor] = _SLOTS.__dict__
    need = math.prod(shape)
    held = slots.get((slot, like.dtype))
    if held is None or held.numel() < need:
        slots[slot, like.dtype] = held = torch.empty(need, dtype=like.dtype)
    return held[:need].view(shape)


# ---------------------------------------------------------------------- sums over images and places


def _folds(x: Tensor) -> int:
    """Return how many rows of [P, C] are viewed as one."""
    count, channels = x.shape
    folds = 1
    while folds * channels < LANES and count % (2 * folds) == 0:
        folds *= 2
    return folds


def total(x: Tensor) -> Tensor:
    """Sum [P, C] over P."""
    folds = _folds(x)
    if folds == 1:
        return x.sum(dim=0)
    return x.view(-1, folds * x.shape[1]).sum(dim=0).view(folds, -1).sum(dim=0)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each column of [P, C]."""
    folds = _folds(x)
    wide = x.view(1, -1, 1, folds * x.shape[1]).permute(0, 3, 1, 2)
    mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)
    if folds == 1:
        return mean, variance
    means = mean.view(folds, -1)
    mean = means.mean(dim=0)
    return mean, variance.view(folds, -1).mean(dim=0).add_((means - mean).square_().mean(dim=0))


# ---------------------------------------------------------------------- depthwise convolution

PHASES = 8
"""Phases of at least so many pixels a side are worth their copies (measured: benchmarks/kernels.py)."""


@dataclass(frozen=True)
class Window:
    """How a convolution slides: stride, padding and dilation, the same in both axes."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Convolve each channel of [N, H, W, C] with its own kernel, weight [C, 1, k, k]."""
    out: Tensor = _Depthwise.apply(x, weight, window)
    return out


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window = window
        return _slide(x, weight, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = _depthwise_input(g, x, weight, ctx.window) if ctx.needs_input_grad[0] else None
        dw = _depthwise_weight(g.contiguous(), x, weight.shape, ctx.window) if ctx.needs_input_grad[1] else None
        return dx, dw, None


def _slide(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    y = F.conv2d(nchw(x), weight, None, window.stride, window.padding, window.dilation, groups=x.shape[-1])
    return nhwc(y)


def _depthwise_input(g: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient at the input. Where sizes stay it is a forward pass with the turned kernel, which is faster."""
    if window.stride == 1 and 2 * window.padding == window.dilation * (weight.shape[-1] - 1):
        return _slide(g, weight.flip(2, 3), window)
    found = _library_backward(g, x, weight, window, (True, False))[0]
    assert found is not None
    return nhwc(found)


def _depthwise_weight(g: Tensor, x: Tensor, shape: torch.Size, window: Window) -> Tensor:
    """The gradient at the kernels [C, 1, k, k].

    A dilated convolution is a plain one on each phase of the image. The CPU library has a fast kernel for windows of at
    most three columns, so wider ones are done three columns at a time.
    """
    d = window.dilation
    if d > 1 and window.stride == 1 and min(x.shape[1:3]) >= PHASES * d:
        g, x = _phases(g, d, "phases of g"), _phases(x, d, "phases of x")
        return _depthwise_weight(g, x, shape, Window(1, window.padding // d))
    kernel = shape[-1]
    if kernel <= 3 or window.dilation > 1 or x.device.type != "cpu":
        found = _library_backward(g, x, x.new_empty(shape), window, (False, True))[1]
        assert found is not None
        return found
    out = x.new_empty(shape)
    p, s = window.padding, window.stride
    span = (g.shape[2] - 1) * s + 3
    n, height, width, channels = x.shape
    for start in sorted({*range(0, kernel - 2, 3), kernel - 3}):
        low = start - p  # the first column of the image under the window
        left, right = max(-low, 0), max(low + span - width, 0)
        view = scratch("columns", (n, height, span, channels), x)
        view[:, :, :left] = 0
        view[:, :, span - right :] = 0
        view[:, :, left : span - right] = x[:, :, low + left : low + span - right]
        part = torch.ops.aten.convolution_backward(
            nchw(g), nchw(view), x.new_empty(channels, 1, kernel, 3), None,
            [s, s], [p, 0], [1, 1], False, [0, 0], channels, [False, True, False],
        )[1]  # fmt: skip
        out[..., start : start + 3] = part
    return out


def _phases(x: Tensor, d: int, slot: str) -> Tensor:
    """Return [N, H, W, C] as its d x d subsampled images [d d N, ceil(H / d), ceil(W / d), C], zeros where there is no
    pixel; in scratch memory."""
    n, height, width, channels = x.shape
    high, wide = -(-height // d), -(-width // d)
    out = scratch(slot, (d, d, n, high, wide, channels), x)
    for i in range(d):
        for j in range(d):
            part, into = x[:, i::d, j::d], out[i, j]
            into[:, : part.shape[1], : part.shape[2]] = part
            into[:, part.shape[1] :] = 0
            into[:, :, part.shape[2] :] = 0
    return out.view(d * d * n, high, wide, channels)


def _library_backward(
    g: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    s, p, d = ([v, v] for v in (window.stride, window.padding, window.dilation))
    groups = x.shape[-1] // weight.shape[1]
    dx, dw, _ = torch.ops.aten.convolution_backward(
        nchw(g), nchw(x), weight, None, s, p, d, False, [0, 0], groups, [*wanted, False]
    )
    return dx, dw


# ---------------------------------------------------------------------- linear maps before a normalisation


@dataclass(frozen=True)
class Pointwise:
    """y = z W': a matrix product over channels. Cheap, so y is computed again in the backward pass."""

    keep = False

    def size(self, z: Tensor, weight: Tensor) -> torch.Size:
        return torch.Size((*z.shape[:3], weight.shape[0]))

    def run(self, z: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mm(rows(z), weight.view(weight.shape[:2]).t(), out=out)

    def back(
        self, dy: Tensor, z: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        dz = torch.mm(dy, weight.view(weight.shape[:2])).view(z.shape) if wanted[0] else None
        dw = torch.mm(dy.t(), rows(z)).view(weight.shape) if wanted[1] else None
        return dz, dw


@dataclass(frozen=True)
class Spatial:
    """A convolution over places and channels. y is kept."""

    window: Window
    keep = True

    def size(self, z: Tensor, weight: Tensor) -> torch.Size:
        s = self.window.stride
        return torch.Size((z.shape[0], -(-z.shape[1] // s), -(-z.shape[2] // s), weight.shape[0]))

    def run(self, z: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        w = self.window
        return rows(nhwc(F.conv2d(nchw(z), weight, None, w.stride, w.padding, w.dilation)))

    def back(
        self, dy: Tensor, z: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        g = dy.view(self.size(z, weight))
        dz, dw = _library_backward(g, z, weight, self.window, wanted)
        return None if dz is None else nhwc(dz), dw


Linear = Pointwise | Spatial


# ---------------------------------------------------------------------- normalisation


def _norm_back(g: Tensor, centred: Tensor, inverse: Tensor, scale: Tensor, s1: Tensor) -> tuple[Tensor, Tensor]:
    """Turn ``centred`` [P, C] in place into the gradient before a normalisation; return it and the sum of g * centred.

    ``dy = scale * (g - s1 / P - centred * inverse^2 * s2 / P)`` with ``s1 = sum g``, ``s2 = sum g * centred``.
    """
    count = len(g)
    s2 = total(torch.mul(g, centred, out=scratch("product", g.shape, g)))
    centred.mul_(scale * inverse.square() * s2 / -count)
    centred.addcmul_(g, scale)
    return centred.sub_(scale * s1 / count), s2


def norm_relu(
    z: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None, linear: Linear, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``relu(norm(linear(z)))`` [N, H, W, C] with the mean and the biased variance [C] that normalised it."""
    return _NormRelu.apply(z, weight, scale, shift, linear, eps)


class _NormRelu(Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, linear: Linear, eps: float
    ):
        shape = linear.size(z, weight)
        y = linear.run(z, weight, out=None if linear.keep else scratch("y", (shape.numel() // shape[-1], shape[-1]), z))
        mean, variance = moments(y)
        inverse = (variance + eps).rsqrt_()
        scale = inverse if gamma is None else gamma * inverse
        shift = -mean * scale if beta is None else torch.addcmul(beta, mean, scale, value=-1)
        out = torch.addcmul(shift, y, scale)
        out.relu_()
        out = out.view(shape)
        ctx.save_for_backward(z, weight, gamma, out, mean, inverse, y if linear.keep else None)
        ctx.linear = linear
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any):
        z, weight, gamma, out, mean, inverse, y = ctx.saved_tensors
        g = rows(g.contiguous())
        centred = scratch("y", g.shape, g)
        centred = ctx.linear.run(z, weight, out=centred).sub_(mean) if y is None else torch.sub(y, mean, out=centred)
        g = torch.ops.aten.threshold_backward.grad_input(g, rows(out), 0, grad_input=scratch("g", g.shape, g))
        s1 = total(g)
        dy, s2 = _norm_back(g, centred, inverse, inverse if gamma is None else gamma * inverse, s1)
        dz, dw = ctx.linear.back(dy, z, weight, ctx.needs_input_grad[:2])
        return dz, dw, None if gamma is None else s2 * inverse, None if gamma is None else s1, None, None


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return [N, H, W, C] with mean 0 and variance 1 in each channel, and the moments [C] that it had."""
    out: tuple[Tensor, Tensor, Tensor] = _Normalise.apply(x, eps)
    return out


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = moments(rows(x))
        inverse = (variance + eps).rsqrt_()
        out = torch.addcmul(-mean * inverse, x, inverse)
        ctx.save_for_backward(out, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor, None]:
        out, inverse = ctx.saved_tensors
        g, normal = rows(g.contiguous()), rows(out)
        count = len(g)
        dx = torch.addcmul(g, normal, total(g * normal).div_(-count))
        return dx.sub_(total(g).div_(count)).mul_(inverse).view(out.shape), None


# ---------------------------------------------------------------------- the sum at a node


@dataclass(frozen=True)
class Term:
    """One normalised term of a node's sum: how it is computed, and whether its normalisation is affine."""

    linear: Linear
    affine: bool
    eps: float


def node_sum(plain: Sequence[Tensor], terms, operands, coefficient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``coefficient`` [len(plain) + len(terms)]; see _NodeSum."""
    return _NodeSum.apply(coefficient, len(plain), tuple(terms), *plain, *operands)


class _NodeSum(Function):
    @staticmethod
    def forward(ctx: Any, coefficient: Tensor, count: int, terms: tuple[Term, ...], *tensors: Tensor):
        plain, operands = tensors[:count], tensors[count:]
        saved, means, variances = [], [], []
        node = constant = None
        shape = None
        for i, x in enumerate(plain):
            node = coefficient[i] * rows(x) if node is None else node.addcmul_(rows(x), coefficient[i])
            shape = x.shape
        at = 0
        for i, term in enumerate(terms):
            z, weight = operands[at : at + 2]
            gamma, beta = operands[at + 2 : at + 4] if term.affine else (None, None)
            at += 4 if term.affine else 2
            shape = term.linear.size(z, weight)
            if term.linear.keep:
                y = term.linear.run(z, weight)
            else:
                y = term.linear.run(z, weight, out=scratch("y", (shape.numel() // shape[-1], shape[-1]), z))
            mean, variance = moments(y)
            w = coefficient[count + i]
            inverse = (variance + term.eps).rsqrt_()
            scale = inverse * w if gamma is None else gamma * inverse * w
            node = y * scale if node is None else node.addcmul_(y, scale)
            shift = torch.mul(mean, scale).neg_() if beta is None else torch.addcmul(beta * w, mean, scale, value=-1)
            constant = shift if constant is None else constant.add_(shift)
            means.append(mean)
            variances.append(variance)
            saved += [z, weight, gamma, beta, mean, inverse, y if term.linear.keep else None]
        if constant is not None:
            node.add_(constant)
        ctx.save_for_backward(coefficient, *plain, *saved)
        ctx.count, ctx.terms = count, terms
        stats = (
            (torch.stack(means), torch.stack(variances))
            if means
            else (coefficient.new_empty(0), coefficient.new_empty(0))
        )
        ctx.mark_non_differentiable(*stats)
        return node.view(shape), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any):
        coefficient, *rest = ctx.saved_tensors
        plain, saved = rest[: ctx.count], rest[ctx.count :]
        g = rows(g.contiguous())
        dc = []
        found = []
        needs = ctx.needs_input_grad[3:]
        for i, x in enumerate(plain):
            dc.append(torch.dot(g.view(-1), x.view(-1)))
            found.append((coefficient[i] * g).view(x.shape) if needs[i] else None)
        s1 = total(g) if ctx.terms else None
        at = ctx.count
        for i, term in enumerate(ctx.terms):
            z, weight, gamma, beta, mean, inverse, y = saved[7 * i : 7 * i + 7]
            centred = scratch("y", g.shape, g)
            centred = (
                term.linear.run(z, weight, out=centred).sub_(mean) if y is None else torch.sub(y, mean, out=centred)
            )
            w = coefficient[ctx.count + i]
            normal = inverse if gamma is None else gamma * inverse
            dy, s2 = _norm_back(g, centred, inverse, normal * w, s1)
            dc.append(torch.dot(s2, normal) if beta is None else torch.dot(s2, normal) + torch.dot(s1, beta))
            found += term.linear.back(dy, z, weight, (needs[at], needs[at + 1]))
            at += 2
            if term.affine:
                found += [s2 * inverse * w, s1 * w]
                at += 2
        return torch.stack(dc), None, None, *found
