"""The backend in PyTorch's own operations, for every device, shape and precision.

Images are [N, H, W, C] here, contiguous, so that a pointwise convolution is a matrix product. Every function computes
what the modules of the reference execution compute, with batch statistics, and saves for the backward pass only what is
expensive to recompute. The other backends are tested against :func:`fan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.core.tensors import indices, nchw, nhwc
from gapless.kernels.forms import Chain, Linear, Moments, Pointwise, Pool, Route, Skip, Spatial, Window

judged = None
"""Evaluation mode is left to the modules themselves."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return True: this backend computes every fan."""
    return True


def rows(x: Tensor) -> Tensor:
    """View [N, H, W, C] as a matrix [N H W, C]."""
    return x.view(-1, x.shape[-1])


# ---------------------------------------------------------------------- moments


def centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract from each column of [P, C], in place, its mean; return mean and biased variance.

    PyTorch's cascaded sums are ten times more exact than its batch moments of channels-last images, which add up in
    float32 one after another.
    """
    mean = x.sum(dim=0).div_(len(x))
    x.sub_(mean)
    return mean, x.square().sum(dim=0).div_(len(x))


# ---------------------------------------------------------------------- convolutions

Wanted = tuple[bool, bool]
"""Whether the gradients with respect to the input and the weight are needed."""


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Convolve each channel of [N, H, W, C] with its own kernel, weight [C, 1, k, k]."""
    y = F.conv2d(nchw(x), weight, None, window.stride, window.padding, window.dilation, groups=x.shape[-1])
    return nhwc(y)


def linear_size(linear: Linear, z: Tensor, weight: Tensor) -> torch.Size:
    """Return the shape [N, H', W', C'] of the output of a linear map."""
    if isinstance(linear, Pointwise):
        return torch.Size((*z.shape[:3], weight.shape[0]))
    sides = (linear.window.side(side, weight.shape[-1]) for side in z.shape[1:3])
    return torch.Size((z.shape[0], *sides, weight.shape[0]))


def linear_forward(linear: Linear, z: Tensor, weight: Tensor) -> Tensor:
    """Return the output [P, C'] of a linear map of z [N, H, W, C]."""
    if isinstance(linear, Pointwise):
        return torch.mm(rows(z), weight.view(weight.shape[:2]).t())
    w = linear.window
    return rows(nhwc(F.conv2d(nchw(z), weight, None, w.stride, w.padding, w.dilation)))


def linear_backward(
    linear: Linear, dy: Tensor, z: Tensor, weight: Tensor, wanted: Wanted
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients with respect to z and the weight, for dy [P, C']."""
    if isinstance(linear, Pointwise):
        dz = torch.mm(dy, weight.view(weight.shape[:2])).view(z.shape) if wanted[0] else None
        dw = torch.mm(dy.t(), rows(z)).view(weight.shape) if wanted[1] else None
        return dz, dw
    window = linear.window
    s, p, d = ([v, v] for v in (window.stride, window.padding, window.dilation))
    g, groups = dy.view(linear_size(linear, z, weight)), z.shape[-1] // weight.shape[1]
    dz, dw, _ = torch.ops.aten.convolution_backward(
        nchw(g), nchw(z), weight, None, s, p, d, False, [0, 0], groups, [*wanted, False]
    )
    return None if dz is None else nhwc(dz), dw


# ---------------------------------------------------------------------- normalisation


@dataclass(frozen=True)
class Normed:
    """What the backward pass of a normalisation of ``y = linear(z)`` needs.

    ``centred`` is y minus its mean, None for a pointwise map, which is cheap to recompute.
    """

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
        """The tensors, in the order of the fields."""
        return self.z, self.weight, self.gamma, self.beta, self.mean, self.inverse, self.centred

    @property
    def normal(self) -> Tensor:
        """The scale [C] from centred y to the output."""
        return self.inverse if self.gamma is None else self.gamma * self.inverse

    def backward(
        self, g: Tensor, s1: Tensor, scale: Tensor, wanted: Wanted
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return the gradients with respect to z and the weight, and ``s2 = sum g * (y - mean)`` [C].

        ``g`` [P, C] is the gradient with respect to the output, ``s1`` its sum, ``scale`` [C] leads from centred y to
        the output: ``dy = scale * (g - s1 / P - (y - mean) * inverse^2 * s2 / P)``.
        """
        if self.centred is None:
            y = linear_forward(self.linear, self.z, self.weight).sub_(self.mean)
        else:
            y = self.centred.clone()
        s2 = (g * y).sum(dim=0)
        y.mul_(scale * self.inverse.square() * s2 / -len(g)).addcmul_(g, scale).sub_(scale * s1 / len(g))
        return *linear_backward(self.linear, y, self.z, self.weight, wanted), s2


NORMED = 7
"""Tensors of :class:`Normed`."""


def _norm(
    linear: Linear, z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Normed]:
    """Return centred ``y = linear(z)``, its variance, and what the backward pass needs."""
    y = linear_forward(linear, z, weight)
    mean, variance = centre(y)
    inverse = (variance + eps).rsqrt_()
    return (
        y,
        variance,
        Normed(linear, z, weight, gamma, beta, mean, inverse, y if isinstance(linear, Spatial) else None),
    )


def norm_relu(
    z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, linear: Linear, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``relu(norm(linear(z)))`` [N, H, W, C] with the batch mean and biased variance [C].

    ``gamma`` and ``beta`` [C] are scale and shift, None without.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _NormRelu.apply(z, weight, gamma, beta, linear, eps)  # type: ignore[no-untyped-call]
    return outputs


class _NormRelu(Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, gamma: Tensor | None, beta: Tensor | None, linear: Linear, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, variance, normed = _norm(linear, z, weight, gamma, beta, eps)
        out = y * normed.normal if beta is None else torch.addcmul(beta, y, normed.normal)
        out = out.relu_().view(linear_size(linear, z, weight))
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
        dz, dw, s2 = normed.backward(g, s1, normed.normal, ctx.needs_input_grad[:2])
        affine = (None, None) if normed.gamma is None else (s2 * normed.inverse, s1)
        return dz, dw, *affine, None, None


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return x [N, H, W, C] with mean 0 and variance 1 in each channel, and the mean and variance [C] before."""
    outputs: tuple[Tensor, Tensor, Tensor] = _Normalise.apply(x, eps)  # type: ignore[no-untyped-call]
    return outputs


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
    plain: Sequence[Tensor], terms: Sequence[Term], operands: Sequence[Tensor], coefficients: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sum_i c_i plain_i + sum_t c_t norm(linear_t(z_t))`` [N, H, W, C], and the mean and the biased variance
    [T, C] of each normalised term.

    Parameters
    ----------
    plain
        Each [N, H, W, C].
    terms
        The normalised ones. Their outputs are summed as they are computed and not saved.
    operands
        For each term z [N, H', W', C''], the weight, and if it is affine scale and shift [C].
    coefficients
        [len(plain) + len(terms)], plain ones first.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _NodeSum.apply(coefficients, len(plain), tuple(terms), *plain, *operands)  # type: ignore[no-untyped-call]
    return outputs


class _NodeSum(Function):
    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, count: int, terms: tuple[Term, ...], *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        plain, operands = tensors[:count], iter(tensors[count:])
        factors = coefficients.unbind()
        node: Tensor | None = None
        for c, x in zip(factors, plain, strict=False):
            node = c * x if node is None else node.addcmul_(x, c)
        saved: list[Tensor | None] = []
        means, variances = [], []
        constant: Tensor | None = None
        for c, term in zip(factors[count:], terms, strict=True):
            z, weight = next(operands), next(operands)
            gamma, beta = (next(operands), next(operands)) if term.affine else (None, None)
            y, variance, normed = _norm(term.linear, z, weight, gamma, beta, term.eps)
            y, scale = y.view(linear_size(term.linear, z, weight)), normed.normal * c
            node = y * scale if node is None else node.addcmul_(y, scale)
            if beta is not None:
                constant = beta * c if constant is None else constant.addcmul_(beta, c)
            means.append(normed.mean)
            variances.append(variance)
            saved += normed.tensors
        if node is None:
            raise ValueError("node_sum needs at least one term")
        if constant is not None:
            node.add_(constant)
        ctx.save_for_backward(coefficients, *plain, *saved)
        ctx.count, ctx.terms = count, terms
        none = coefficients.new_empty(0)
        moments = (torch.stack(means), torch.stack(variances)) if means else (none, none.clone())
        ctx.mark_non_differentiable(*moments)
        return node, *moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        coefficients, *rest = ctx.saved_tensors
        plain, saved = rest[: ctx.count], rest[ctx.count :]
        factors, wanted = coefficients.unbind(), iter(ctx.needs_input_grad[3:])
        whole = g.contiguous()
        g = rows(whole)
        coefficient_grads: list[Tensor] = []
        grads: list[Tensor | None] = []
        for c, x in zip(factors, plain, strict=False):
            coefficient_grads.append((whole * x).sum())  # a dot product is less exact
            grads.append(c * whole if next(wanted) else None)
        s1 = g.sum(dim=0)
        for i, (c, term) in enumerate(zip(factors[ctx.count :], ctx.terms, strict=True)):
            normed = Normed(term.linear, *saved[NORMED * i : NORMED * (i + 1)])
            normal = normed.normal
            dz, dw, s2 = normed.backward(g, s1, normal * c, (next(wanted), next(wanted)))
            grads += [dz, dw]
            dc = torch.dot(s2, normal)
            if term.affine:
                next(wanted), next(wanted)
                grads += [s2 * normed.inverse * c, s1 * c]
                dc = dc + torch.dot(s1, normed.beta)  # type: ignore[arg-type]
            coefficient_grads.append(dc)
        return torch.stack(coefficient_grads), None, None, *grads


# ---------------------------------------------------------------------- a fan


def split_phases(x: Tensor) -> Tensor:
    """Return pixels (2i, 2j) and, concatenated over channels, (2i + 1, 2j + 1) of [N, H, W, C]: [N, H/2, W/2, 2C],
    rounded up, zeros where there is no pixel. The two convolutions of a factorised reduction read them."""
    height, width = x.shape[1:3]
    odd = F.pad(x, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
    return torch.cat([x[:, ::2, ::2], odd[:, 1::2, 1::2]], dim=-1)


def pool(x: Tensor, form: Pool) -> Tensor:
    """Pool [N, H, W, C]. Averages exclude padding."""
    k, window = form.kernel, form.window
    if form.largest:
        return nhwc(F.max_pool2d(nchw(x), k, window.stride, window.padding))
    return nhwc(F.avg_pool2d(nchw(x), k, window.stride, window.padding, count_include_pad=False))


def fan(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :meth:`gapless.kernels.backend.Backend.fan`."""
    operands_of = iter(parameters)
    positive = x.relu() if any(isinstance(route.form, Chain) for route in routes) else x
    split = any(isinstance(r.form, Chain) and r.form.split_phases for r in routes)
    phases = split_phases(positive) if split else positive
    pools: dict[Pool, tuple[Tensor, Tensor, Tensor]] = {}
    moments: list[tuple[Tensor, Tensor] | None] = []
    plain: list[list[tuple[int, Tensor]]] = [[] for _ in sums]
    ends: list[list[tuple[int, Term, list[Tensor], int]]] = [[] for _ in sums]
    for at, route in enumerate(routes):
        match route.form:
            case Skip():
                plain[route.target].append((at, x))
            case Pool(eps=None) as form:
                plain[route.target].append((at, pool(x, form)))
            case Pool(eps=float(eps)) as form:
                shared = replace(form, affine=False)
                if shared not in pools:
                    pools[shared] = normalise(pool(x, form), eps)
                y, mean, variance = pools[shared]
                moments.append((mean, variance))
                plain[route.target].append((at, y * next(operands_of) + next(operands_of) if form.affine else y))
            case Chain() as chain:
                z = phases if chain.split_phases else positive
                for left, step in enumerate(chain.steps, 1 - len(chain.steps)):
                    z = z if step.window is None else depthwise(z, next(operands_of), step.window)
                    weight = next(operands_of)
                    vectors = [next(operands_of), next(operands_of)] if step.affine else []
                    if left:
                        gamma, beta = vectors or (None, None)
                        z, mean, variance = norm_relu(z, weight, gamma, beta, step.linear, step.eps)
                        moments.append((mean, variance))
                    else:
                        term = Term(step.linear, step.affine, step.eps)
                        ends[route.target].append((at, term, [z, weight, *vectors], len(moments)))
                        moments.append(None)
    outputs = []
    for before, unnormed, normed in zip(sums, plain, ends, strict=True):
        index = indices(tuple(at for at, *_ in [*unnormed, *normed]), x.device)
        operands = [t for _, _, tensors, _ in normed for t in tensors]
        terms = [term for _, term, *_ in normed]
        out, means, variances = node_sum([y for _, y in unnormed], terms, operands, coefficients[index])
        for (*_, at), mean, variance in zip(normed, means, variances, strict=True):
            moments[at] = (mean, variance)
        outputs.append(out if before is None else before + out)
    return tuple(outputs), tuple(pair for pair in moments if pair is not None)
