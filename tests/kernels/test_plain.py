"""The plain backend: each function beside its definition or PyTorch's own operators."""

import pytest
import torch
import torch.nn.functional as F
from fans import pairs
from torch import Tensor

from gapless.core.progress import stream
from gapless.core.tensors import nchw, nhwc
from gapless.kernels.forms import Pointwise, Spatial, Window
from gapless.kernels.plain import Term, centre, depthwise, node_sum, norm_relu, normalise


def drawn(*shape: int, name: str = "", dtype=torch.float64, grad: bool = True) -> Tensor:
    values = torch.randn(*shape, dtype=dtype, generator=stream("kernel", name))
    return values.requires_grad_(grad)


def agree(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], leaves: list[Tensor], law: float = 1e-11) -> None:
    """Compare outputs, and the gradients of a random combination of the first."""
    towards = drawn(*ours[0].shape, name="towards", grad=False).to(ours[0])
    gradients = [torch.autograd.grad((out[0] * towards).sum(), leaves) for out in (ours, theirs)]
    for one, other in [*zip(ours, theirs, strict=True), *zip(*gradients, strict=True)]:
        off, scale = (one - other).abs().max(), other.abs().max()
        assert one.shape == other.shape
        assert off <= law * scale, f"{off:.1e} where the largest entry is {scale:.1e}"


def norm(y: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.batch_norm(y, None, None, weight, bias, training=True)


def of(y: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of [N, C, H, W]."""
    return y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), unbiased=False)


# ---------------------------------------------------------------------- depthwise convolution


def convolved(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The definition: for each pixel of the kernel, the input shifted by it times its weight."""
    kernel, padding = weight.shape[-1], window.padding
    h, w = (window.side(side, kernel) for side in x.shape[1:3])
    padded = F.pad(x, (0, 0, padding, padding, padding, padding))
    total = x.new_zeros(())
    for ky in range(kernel):
        for kx in range(kernel):
            rows = padded[:, ky * window.dilation :][:, : (h - 1) * window.stride + 1 : window.stride]
            shifted = rows[:, :, kx * window.dilation :][:, :, : (w - 1) * window.stride + 1 : window.stride]
            total = total + shifted * weight[:, 0, ky, kx]
    return total


SHAPES = pairs([(8, 8), (7, 9), (17, 16)], [1, 3, 5, 7], [1, 2], [1, 2, 3], [torch.float64, torch.float32])


@pytest.mark.parametrize(("size", "kernel", "stride", "dilation", "dtype"), SHAPES, ids=str)
def test_depthwise(size, kernel, stride, dilation, dtype):
    window = Window(stride, dilation * (kernel - 1) // 2, dilation)
    x, weight = drawn(2, *size, 4, name="x", dtype=dtype), drawn(4, 1, kernel, kernel, name="w", dtype=dtype)
    law = 1e-11 if dtype == torch.float64 else 1e-5
    agree((depthwise(x, weight, window),), (convolved(x, weight, window),), [x, weight], law)


@pytest.mark.parametrize("kernel", [4, 5])
def test_depthwise_without_padding(kernel):
    """An even kernel, or one that shrinks the image, is no special case."""
    x, weight = drawn(2, 9, 8, 4, name="x"), drawn(4, 1, kernel, kernel, name="w")
    agree((depthwise(x, weight, Window()),), (convolved(x, weight, Window()),), [x, weight])


# ---------------------------------------------------------------------- sums


@pytest.mark.parametrize("shape", [(64, 16), (63, 16), (10, 3), (7, 130), (4096, 4)], ids=str)
def test_moments(shape):
    x = 100 + drawn(*shape, grad=False)
    mean, variance = centre(centred := x.clone())
    torch.testing.assert_close(centred, x - x.mean(dim=0), rtol=0, atol=1e-12)
    torch.testing.assert_close(mean, x.mean(dim=0), rtol=1e-13, atol=0)
    torch.testing.assert_close(variance, x.var(dim=0, unbiased=False), rtol=1e-10, atol=0)


def test_moments_by_hand():
    mean, variance = centre(torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0], [7.0, 6.0]]))
    assert mean.tolist() == [4.0, 3.0]
    assert variance.tolist() == [5.0, 9.0]


# ---------------------------------------------------------------------- normalisations


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("linear", [Pointwise(), Spatial(Window(1, 1)), Spatial(Window(2, 1))], ids=str)
def test_norm_relu(affine, linear):
    x = drawn(3, 7, 8, 4, name="x")
    weight = drawn(6, 4, *((1, 1) if linear == Pointwise() else (3, 3)), name="w")
    gamma, beta = (drawn(6, name="gamma"), drawn(6, name="beta")) if affine else (None, None)
    window = Window() if isinstance(linear, Pointwise) else linear.window
    y = F.conv2d(nchw(x), weight, None, window.stride, window.padding)
    theirs = (nhwc(norm(y, gamma, beta).relu()), *of(y.detach()))
    leaves = [t for t in (x, weight, gamma, beta) if t is not None]
    agree(norm_relu(x, weight, gamma, beta, linear, 1e-5), theirs, leaves)


def test_normalise():
    x = drawn(3, 7, 8, 4, name="x")
    agree(normalise(x, 1e-5), (nhwc(norm(nchw(x))), *of(nchw(x.detach()))), [x])


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("plain", [0, 2])
@pytest.mark.parametrize("linears", [0, 1, 3])
def test_node_sum(affine, plain, linears):
    if not plain + linears:
        return
    coefficient = drawn(plain + linears, name="coefficient")
    given = [drawn(2, 5, 6, 4, name=f"plain {i}") for i in range(plain)]
    terms, operands, theirs, seen = [], [], torch.zeros(2, 4, 5, 6, dtype=torch.float64), []
    for i in range(plain):
        theirs = theirs + coefficient[i] * nchw(given[i])
    for i in range(linears):
        linear = (Pointwise(), Spatial(Window(1, 1)))[i % 2]
        z, weight = drawn(2, 5, 6, 3, name=f"z{i}"), drawn(4, 3, 2 * (i % 2) + 1, 2 * (i % 2) + 1, name=f"w{i}")
        vectors = [drawn(4, name=f"gamma{i}"), drawn(4, name=f"beta{i}")] if affine else []
        y = F.conv2d(nchw(z), weight, padding=i % 2)
        theirs = theirs + coefficient[plain + i] * norm(y, *vectors)
        seen.append(of(y.detach()))
        terms.append(Term(linear, affine, 1e-5))
        operands += [z, weight, *vectors]
    out, means, variances = node_sum(given, terms, operands, coefficient)
    agree((out,), (nhwc(theirs),), [coefficient, *given, *operands])
    for i, (mean, variance) in enumerate(seen):
        torch.testing.assert_close(means[i], mean, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(variances[i], variance, rtol=1e-11, atol=1e-13)


def test_gradients_by_finite_differences():
    """The kernels against the definition of a derivative, not against another kernel."""
    x, w3 = drawn(2, 4, 5, 3, name="x"), drawn(3, 1, 3, 3, name="w3")
    point, coefficient = drawn(3, 3, 1, 1, name="point"), drawn(2, name="coefficient")

    def cell(x: Tensor, w3: Tensor, point: Tensor, coefficient: Tensor) -> Tensor:
        hidden, _, _ = norm_relu(depthwise(x, w3, Window(1, 1)), point, None, None, Pointwise(), 1e-5)
        z = depthwise(hidden, w3, Window(1, 2, 2))
        return node_sum([normalise(x, 1e-5)[0]], [Term(Pointwise(), False, 1e-5)], [z, point], coefficient)[0]

    assert torch.autograd.gradcheck(cell, (x, w3, point, coefficient))


def test_a_second_backward_pass_gives_the_same():
    """Nothing that is kept for the backward pass is spoiled by it."""
    x, weight, coefficient = drawn(2, 4, 4, 3, name="x"), drawn(3, 3, 1, 1, name="w"), drawn(2, name="c")
    hidden = norm_relu(x, weight, None, None, Spatial(Window()), 1e-5)[0]
    terms = [Term(Pointwise(), False, 1e-5), Term(Spatial(Window()), False, 1e-5)]
    out = node_sum([], terms, [hidden, weight, x, weight], coefficient)[0].sin().sum()
    once = torch.autograd.grad(out, [x, weight, coefficient], retain_graph=True)
    for one, other in zip(once, torch.autograd.grad(out, [x, weight, coefficient]), strict=True):
        assert torch.equal(one, other)
