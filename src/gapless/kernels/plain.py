"""Differentiable kernels of the fused execution in PyTorch's own operations, for where the compiled loops do not run.

Images are [N, H, W, C] here, contiguous, so that a pointwise convolution is a matrix product. Every kernel computes
what the modules of the reference execution compute, with batch statistics, and keeps for the backward pass only what
does not follow cheaply from something else that is kept. :func:`fan` is also what the loops are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def nchw(x: Tensor) -> Tensor:
    """View [N, H, W, C] as the library's [N, C, H, W]."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """Return [N, C, H, W] as contiguous [N, H, W, C], without a copy where it lies so already."""
    return x.permute(0, 2, 3, 1).contiguous()


def rows(x: Tensor) -> Tensor:
    """View [N, H, W, C] as a matrix [N H W, C]."""
    return x.view(-1, x.shape[-1])


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Bring numbers of the host to a device, without waiting for a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@lru_cache(maxsize=4096)
def positions(at: tuple[int, ...], device: torch.device) -> Tensor:
    """Return whole numbers on a device, made once."""
    with torch.inference_mode(False):  # or a graph could not keep them
        return sent(torch.tensor(at), device)


# ---------------------------------------------------------------------- sums over images and places


def centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract from each column of [P, C], in place, its mean; return mean and biased variance.

    The sums are the library's cascaded ones: its own batch moments of channels-last images add up in float32 one after
    another and are ten times less exact.
    """
    mean = x.sum(dim=0).div_(len(x))
    x.sub_(mean)
    return mean, x.square().sum(dim=0).div_(len(x))


# ---------------------------------------------------------------------- convolutions

Wanted = tuple[bool, bool]
"""Whether the gradients at the input and at the weight are asked for."""


@dataclass(frozen=True)
class Window:
    """How a convolution slides: stride, padding and dilation, the same in both axes."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def side(self, side: int, kernel: int) -> int:
        """Return how many places a kernel of so many pixels takes along a side."""
        return (side + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Convolve each channel of [N, H, W, C] with its own kernel, weight [C, 1, k, k]."""
    y = F.conv2d(nchw(x), weight, None, window.stride, window.padding, window.dilation, groups=x.shape[-1])
    return nhwc(y)


# ---------------------------------------------------------------------- linear maps before a normalisation


def _library_backward(
    g: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None]:
    s, p, d = ([v, v] for v in (window.stride, window.padding, window.dilation))
    groups = x.shape[-1] // weight.shape[1]
    dx, dw, _ = torch.ops.aten.convolution_backward(
        nchw(g), nchw(x), weight, None, s, p, d, False, [0, 0], groups, [*wanted, False]
    )
    return dx, dw


@dataclass(frozen=True)
class Pointwise:
    """y = z W': a matrix product over channels, weight [C', C] or [C', C, 1, 1]. It is cheap, so y is not kept."""

    keep = False

    def size(self, z: Tensor, weight: Tensor) -> torch.Size:
        """Return the shape [N, H, W, C'] of the output."""
        return torch.Size((*z.shape[:3], weight.shape[0]))

    def run(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return y [P, C']."""
        return torch.mm(rows(z), weight.view(weight.shape[:2]).t())

    def back(self, dy: Tensor, z: Tensor, weight: Tensor, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients at z and at the weight."""
        dz = torch.mm(dy, weight.view(weight.shape[:2])).view(z.shape) if wanted[0] else None
        dw = torch.mm(dy.t(), rows(z)).view(weight.shape) if wanted[1] else None
        return dz, dw


@dataclass(frozen=True)
class Spatial:
    """A convolution over places and channels, weight [C', C, k, k]. y is kept."""

    window: Window
    keep = True

    def size(self, z: Tensor, weight: Tensor) -> torch.Size:
        """Return the shape [N, H, W, C'] of the output."""
        sides = (self.window.side(side, weight.shape[-1]) for side in z.shape[1:3])
        return torch.Size((z.shape[0], *sides, weight.shape[0]))

    def run(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return y [P, C']."""
        w = self.window
        return rows(nhwc(F.conv2d(nchw(z), weight, None, w.stride, w.padding, w.dilation)))

    def back(self, dy: Tensor, z: Tensor, weight: Tensor, wanted: Wanted) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients at z and at the weight."""
        dz, dw = _library_backward(dy.view(self.size(z, weight)), z, weight, self.window, wanted)
        return None if dz is None else nhwc(dz), dw


Linear = Pointwise | Spatial

# ---------------------------------------------------------------------- normalisation


@dataclass(frozen=True)
class Normed:
    """What a normalisation of y needs again in the backward pass."""

    linear: Linear
    z: Tensor
    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    inverse: Tensor
    centred: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return the tensors, in the order of the fields."""
        return self.z, self.weight, self.gamma, self.beta, self.mean, self.inverse, self.centred

    @property
    def normal(self) -> Tensor:
        """The scale [C] from centred y to the output."""
        return self.inverse if self.gamma is None else self.gamma * self.inverse

    def back(self, g: Tensor, s1: Tensor, scale: Tensor, wanted: Wanted) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return the gradients at z and weight, and ``s2 = sum g * (y - mean)`` [C], for the gradient ``g`` [P, C] at
        the output, of which ``s1`` is the sum, and the scale [C] from centred y to the output:
        ``dy = scale * (g - s1 / P - (y - mean) * inverse^2 * s2 / P)``."""
        if self.centred is None:
            y = self.linear.run(self.z, self.weight).sub_(self.mean)
        else:
            y = self.centred.clone()
        s2 = (g * y).sum(dim=0)
        y.mul_(scale * self.inverse.square() * s2 / -len(g)).addcmul_(g, scale).sub_(scale * s1 / len(g))
        return *self.linear.back(y, self.z, self.weight, wanted), s2


NORMED = 7
"""Tensors of :class:`Normed`."""


def _norm(
    linear: Linear, z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Normed]:
    """Return centred y = linear(z), its variance, and what the backward pass needs."""
    y = linear.run(z, weight)
    mean, variance = centre(y)
    inverse = (variance + eps).rsqrt_()
    return y, variance, Normed(linear, z, weight, gamma, beta, mean, inverse, y if linear.keep else None)


def norm_relu(
    z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, linear: Linear, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``relu(norm(linear(z)))`` [N, H, W, C] with the mean and the biased variance [C] that normalised it.

    ``gamma`` and ``beta`` [C] are scale and shift; None for neither.
    """
    found: tuple[Tensor, Tensor, Tensor] = _NormRelu.apply(z, weight, gamma, beta, linear, eps)  # type: ignore[no-untyped-call]
    return found


class _NormRelu(Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, linear: Linear, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, variance, normed = _norm(linear, z, weight, gamma, beta, eps)
        out = y * normed.normal if beta is None else torch.addcmul(beta, y, normed.normal)
        out = out.relu_().view(linear.size(z, weight))
        ctx.save_for_backward(out, *normed.tensors)
        ctx.linear = linear
        ctx.mark_non_differentiable(normed.mean, variance)
        return out, normed.mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        out, *saved = ctx.saved_tensors
        normed = Normed(ctx.linear, *saved)
        g = rows(g.contiguous())
        g = torch.ops.aten.threshold_backward(g, rows(out), 0)
        s1 = g.sum(dim=0)
        dz, dw, s2 = normed.back(g, s1, normed.normal, ctx.needs_input_grad[:2])
        affine = (None, None) if normed.gamma is None else (s2 * normed.inverse, s1)
        return dz, dw, *affine, None, None


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return [N, H, W, C] with mean 0 and variance 1 in each channel, and the moments [C] that it had."""
    found: tuple[Tensor, Tensor, Tensor] = _Normalise.apply(x, eps)  # type: ignore[no-untyped-call]
    return found


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        out = rows(x).clone()
        mean, variance = centre(out)
        inverse = (variance + eps).rsqrt_()
        out = out.mul_(inverse).view(x.shape)
        ctx.save_for_backward(out, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor, None]:
        out, inverse = ctx.saved_tensors
        g, normal = rows(g.contiguous()), rows(out)
        s2 = (g * normal).sum(dim=0)
        dx = torch.addcmul(g, normal, s2.div_(-len(g)))
        return dx.sub_(g.sum(dim=0).div_(len(g))).mul_(inverse).view(out.shape), None


# ---------------------------------------------------------------------- the sum at a node


@dataclass(frozen=True)
class Term:
    """One normalised term of a node's sum: its linear map, whether its normalisation is affine, and its epsilon."""

    linear: Linear
    affine: bool
    eps: float


def node_sum(
    plain: Sequence[Tensor], terms: Sequence[Term], operands: Sequence[Tensor], coefficient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sum_i c_i plain_i + sum_t c_t norm(linear_t(z_t))`` [N, H, W, C], and the mean and the biased variance
    [T, C] of each normalised term.

    Parameters
    ----------
    plain
        Each [N, H, W, C].
    terms
        The normalised ones. Their outputs are summed as they are computed and not kept.
    operands
        For each term z [N, H', W', C''], the weight, and if it is affine scale and shift [C].
    coefficient
        [len(plain) + len(terms)], plain ones first.
    """
    found: tuple[Tensor, Tensor, Tensor] = _NodeSum.apply(coefficient, len(plain), tuple(terms), *plain, *operands)  # type: ignore[no-untyped-call]
    return found


class _NodeSum(Function):
    @staticmethod
    def forward(
        ctx: Any, coefficient: Tensor, count: int, terms: tuple[Term, ...], *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        plain, operands = tensors[:count], iter(tensors[count:])
        shares = coefficient.unbind()
        node: Tensor | None = None
        for share, x in zip(shares, plain, strict=False):
            node = share * x if node is None else node.addcmul_(x, share)
        saved: list[Tensor | None] = []
        means, variances = [], []
        constant: Tensor | None = None
        for share, term in zip(shares[count:], terms, strict=True):
            z, weight = next(operands), next(operands)
            gamma, beta = (next(operands), next(operands)) if term.affine else (None, None)
            y, variance, normed = _norm(term.linear, z, weight, gamma, beta, term.eps)
            y, scale = y.view(term.linear.size(z, weight)), normed.normal * share
            node = y * scale if node is None else node.addcmul_(y, scale)
            if beta is not None:
                constant = beta * share if constant is None else constant.addcmul_(beta, share)
            means.append(normed.mean)
            variances.append(variance)
            saved += normed.tensors
        if node is None:
            raise ValueError("a sum of nothing has no shape")
        if constant is not None:
            node.add_(constant)
        ctx.save_for_backward(coefficient, *plain, *saved)
        ctx.count, ctx.terms = count, terms
        none = coefficient.new_empty(0)
        moments = (torch.stack(means), torch.stack(variances)) if means else (none, none.clone())
        ctx.mark_non_differentiable(*moments)
        return node, *moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        coefficient, *rest = ctx.saved_tensors
        plain, saved = rest[: ctx.count], rest[ctx.count :]
        shares, wanted = coefficient.unbind(), iter(ctx.needs_input_grad[3:])
        whole = g.contiguous()
        g = rows(whole)
        shared: list[Tensor] = []
        found: list[Tensor | None] = []
        for share, x in zip(shares, plain, strict=False):
            shared.append((whole * x).sum())  # a dot product is less exact
            found.append(share * whole if next(wanted) else None)
        s1 = g.sum(dim=0)
        for i, (share, term) in enumerate(zip(shares[ctx.count :], ctx.terms, strict=True)):
            normed = Normed(term.linear, *saved[NORMED * i : NORMED * (i + 1)])
            normal = normed.normal
            dz, dw, s2 = normed.back(g, s1, normal * share, (next(wanted), next(wanted)))
            found += [dz, dw]
            at_share = torch.dot(s2, normal)
            if term.affine:
                next(wanted), next(wanted)
                found += [s2 * normed.inverse * share, s1 * share]
                at_share = at_share + torch.dot(s1, normed.beta)  # type: ignore[arg-type]
            shared.append(at_share)
        return torch.stack(shared), None, None, *found


# ---------------------------------------------------------------------- all that leaves a state


@dataclass(frozen=True)
class Step:
    """Perhaps a depthwise convolution, a linear map over channels, a normalisation."""

    window: Window | None
    linear: Linear
    affine: bool
    eps: float


@dataclass(frozen=True)
class Skip:
    """The state as it is."""


@dataclass(frozen=True)
class Pool:
    """A pool of maxima or averages, perhaps with a normalisation: its epsilon, and whether it is affine."""

    largest: bool
    kernel: int
    window: Window
    eps: float | None = None
    affine: bool = False


@dataclass(frozen=True)
class Chain:
    """Steps, each behind a ReLU. ``halves``: the first reads both halves of a factorised reduction's input."""

    steps: tuple[Step, ...]
    halves: bool = False


@dataclass(frozen=True)
class Route:
    """An option that leaves a state: what it does, and the number of the node where it arrives."""

    target: int
    form: Skip | Pool | Chain


Moments = tuple[tuple[Tensor, Tensor], ...]


def halves(x: Tensor) -> Tensor:
    """Return what the two convolutions of a factorised reduction read, one behind the other: [N, H/2, W/2, 2C]."""
    height, width = x.shape[1:3]
    odd = F.pad(x, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
    return torch.cat([x[:, ::2, ::2], odd[:, 1::2, 1::2]], dim=-1)


def pooled(x: Tensor, pool: Pool) -> Tensor:
    """Pool [N, H, W, C]; averages are over the pixels that are there."""
    k, window = pool.kernel, pool.window
    if pool.largest:
        return nhwc(F.max_pool2d(nchw(x), k, window.stride, window.padding))
    return nhwc(F.avg_pool2d(nchw(x), k, window.stride, window.padding, count_include_pad=False))


def fan(
    routes: Sequence[Route],
    coefficient: Tensor,
    x: Tensor,
    arrived: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """Return for each target what arrived there so far plus ``sum_r c_r route_r(x)``, [N, H, W, C], and the mean and
    the biased variance [C] of each normalisation of each route, in order.

    Parameters
    ----------
    routes
        What leaves the state; at least one to each target.
    coefficient
        c, a vector.
    x
        The state, [N, H, W, C].
    arrived
        For each target what arrived so far, None for nothing. It may be overwritten.
    parameters
        For each step of each chain the weight of its depthwise convolution, if it has one, the weight of its linear
        map, and, if it is affine, scale and shift; for each affine pool scale and shift.
    """
    given = iter(parameters)
    positive = x.relu() if any(isinstance(route.form, Chain) for route in routes) else x
    read = halves(positive) if any(isinstance(r.form, Chain) and r.form.halves for r in routes) else positive
    shared: dict[Pool, tuple[Tensor, Tensor, Tensor]] = {}
    moments: list[tuple[Tensor, Tensor] | None] = []
    plain: list[list[tuple[int, Tensor]]] = [[] for _ in arrived]
    ends: list[list[tuple[int, Term, list[Tensor], int]]] = [[] for _ in arrived]
    for at, route in enumerate(routes):
        match route.form:
            case Skip():
                plain[route.target].append((at, x))
            case Pool(eps=None) as pool:
                plain[route.target].append((at, pooled(x, pool)))
            case Pool(eps=float(eps)) as pool:
                alike = replace(pool, affine=False)
                if alike not in shared:
                    shared[alike] = normalise(pooled(x, pool), eps)
                y, mean, variance = shared[alike]
                moments.append((mean, variance))
                plain[route.target].append((at, y * next(given) + next(given) if pool.affine else y))
            case Chain() as chain:
                z = read if chain.halves else positive
                for left, step in enumerate(chain.steps, 1 - len(chain.steps)):
                    z = z if step.window is None else depthwise(z, next(given), step.window)
                    weight = next(given)
                    vectors = [next(given), next(given)] if step.affine else []
                    if left:
                        gamma, beta = vectors or (None, None)
                        z, mean, variance = norm_relu(z, weight, gamma, beta, step.linear, step.eps)
                        moments.append((mean, variance))
                    else:
                        term = Term(step.linear, step.affine, step.eps)
                        ends[route.target].append((at, term, [z, weight, *vectors], len(moments)))
                        moments.append(None)
    sums = []
    for before, still, normed in zip(arrived, plain, ends, strict=True):
        index = positions(tuple(at for at, *_ in [*still, *normed]), x.device)
        operands = [t for _, _, tensors, _ in normed for t in tensors]
        terms = [term for _, term, *_ in normed]
        out, means, variances = node_sum([y for _, y in still], terms, operands, coefficient[index])
        for (*_, place), mean, variance in zip(normed, means, variances, strict=True):
            moments[place] = (mean, variance)
        sums.append(out if before is None else before + out)
    return tuple(sums), tuple(pair for pair in moments if pair is not None)
