"""The loops over one image beside PyTorch's convolutions, with the tiles of processors of 16 and of 32 registers, of
which a machine has only one kind."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fans import drawn
from torch import Tensor

from gapless.kernels.cpu import loops, memory
from gapless.kernels.cpu.declare import Image, from_python
from gapless.kernels.cpu.vectors import Vector

VECTORS = {"16 registers": Vector(np.float64, 4, False), "32 registers": Vector(np.float64, 4, True)}
CALL = {
    name: from_python(getattr(loops, name))
    for name in (
        "depthwise", "depthwise_weight_grad", "conv", "conv_weight_grad", "pointwise", "winograd_filter",
        "winograd_filter_backward", "winograd_input", "winograd_input_backward", "winograd_output",
        "winograd_output_backward", "winograd_multiply", "winograd_multiply_weight_grad",
    )
}  # fmt: skip
SHAPES = [  # outputs are wide enough for each kind of strip: eights, sixes, fours, ones
    # kernel, stride, dilation, height, width
    (3, 1, 1, 3, 21), (5, 1, 1, 2, 12), (3, 1, 2, 2, 8), (5, 1, 2, 2, 9), (7, 1, 1, 2, 14), (3, 2, 1, 3, 13), (5, 2, 2, 2, 7),
    (1, 1, 1, 2, 11), (1, 1, 1, 3, 3), (2, 1, 1, 2, 6), (3, 1, 1, 20, 14), (5, 1, 1, 20, 14),
]  # fmt: skip


OWN = memory.vector_of(np.dtype("float64"), 4)
"""That of this machine, for which the suite compiles the kernels anyway."""
KINDS = [pytest.param(v, id=name, marks=() if v == OWN else pytest.mark.kernels) for name, v in VECTORS.items()]


@pytest.fixture(params=KINDS)
def v(request) -> Vector:
    return request.param


def flat(x: Tensor) -> np.ndarray:
    """[1, C, H, W] as the loops take an image."""
    return x.detach().permute(0, 2, 3, 1).reshape(-1).numpy().copy()


def image(y: np.ndarray, H: int, W: int, C: int) -> Tensor:
    return torch.from_numpy(y).view(1, H, W, C).permute(0, 3, 1, 2)


def sides(kernel: int, stride: int, dilation: int, height: int, width: int) -> tuple[int, int]:
    """Sides of the input, with its border."""
    reach = dilation * (kernel - 1)
    return (height - 1) * stride + reach + 1, (width - 1) * stride + reach + 1


@pytest.mark.parametrize("more", [False, True], ids=["written", "added"])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "height", "width"), SHAPES)
def test_a_depthwise_convolution_and_the_gradient_at_its_weights(kernel, stride, dilation, height, width, more, v):
    C, (H, W) = 12, sides(kernel, stride, dilation, height, width)
    x, w = drawn(1, C, H, W, name="x"), drawn(C, 1, kernel, kernel, name="w")
    y = F.conv2d(x, w, stride=stride, dilation=dilation, groups=C)
    towards = drawn(*y.shape, name="towards").detach()
    (dw,) = torch.autograd.grad((y * towards).sum(), w)
    packed = w.detach()[:, 0].permute(1, 2, 0).reshape(-1).numpy().copy()
    found, before = np.ones(height * width * C), float(more)
    CALL["depthwise"](
        Image(flat(x), 0, W * C), packed, Image(found, 0, width * C), height, width, C, kernel, stride, dilation, more, v
    )  # fmt: skip
    torch.testing.assert_close(image(found, height, width, C), y.detach() + before, rtol=0, atol=1e-12)
    out = np.ones(kernel**2 * C)
    CALL["depthwise_weight_grad"](
        Image(flat(x), 0, W * C), Image(flat(towards), 0, width * C), out, height, width, C, kernel, stride, dilation, v
    )  # fmt: skip
    ours = torch.from_numpy(out).view(kernel, kernel, C).permute(2, 0, 1)
    torch.testing.assert_close(ours, dw[:, 0] + 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("more", [False, True], ids=["written", "added"])
@pytest.mark.parametrize(("channels", "out"), [(4, 4), (8, 12), (12, 8), (16, 16)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "height", "width"), [shape for shape in SHAPES if shape[0] < 5]
)
def test_a_convolution_and_the_gradient_at_its_weights(kernel, stride, dilation, height, width, channels, out, more, v):
    H, W = sides(kernel, stride, dilation, height, width)
    x, w = drawn(1, channels, H, W, name="x"), drawn(out, channels, kernel, kernel, name="w")
    y = F.conv2d(x, w, stride=stride, dilation=dilation)
    towards = drawn(*y.shape, name="towards").detach()
    (dw,) = torch.autograd.grad((y * towards).sum(), w)
    packed = w.detach().permute(2, 3, 1, 0).reshape(-1).numpy().copy()
    found, before = np.ones(height * width * out), float(more)
    CALL["conv"](
        Image(flat(x), 0, W * channels), packed, Image(found, 0, width * out), height, width, channels, out, kernel,
        stride, dilation, more, v,
    )  # fmt: skip
    torch.testing.assert_close(image(found, height, width, out), y.detach() + before, rtol=0, atol=1e-12)
    if kernel == 1:
        again = np.ones(height * width * out)
        images = Image(flat(x), 0, W * channels), packed, Image(again, 0, width * out)
        CALL["pointwise"](*images, height, width, channels, out, more, v)
        assert np.array_equal(found, again)
    sums = np.ones(kernel**2 * channels * out)
    CALL["conv_weight_grad"](
        Image(flat(x), 0, W * channels), Image(flat(towards), 0, width * out), out, sums, height, width, channels, out,
        kernel, stride, dilation, v,
    )  # fmt: skip
    ours = torch.from_numpy(sums).view(kernel, kernel, channels, out).permute(3, 2, 0, 1)
    torch.testing.assert_close(ours, dw + 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "out"), [(4, 4), (8, 12), (12, 8), (16, 16)])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (2, 26), (14, 12)])
def test_winograd_is_a_convolution(height, width, channels, out, v):
    """Winograd's F(2x2, 3x3): outputs, the gradient at the weights and the one at the image, whose border is left out."""
    x, w = drawn(1, channels, height, width, name="x"), drawn(out, channels, 3, 3, name="w")
    y = F.conv2d(x, w, padding=1)
    towards = drawn(*y.shape, name="towards").detach()
    dx, dw = torch.autograd.grad((y * towards).sum(), [x, w])
    R, T, row = height // 2, width // 2, (width + 2) * channels
    P, places, weights = R * T, 16, w.detach().reshape(-1).numpy()
    packed, flipped = np.empty(places * channels * out), np.empty(places * channels * out)
    CALL["winograd_filter"](weights, 0, packed, 0, channels, out, 0, channels, False, v)
    CALL["winograd_filter"](weights, 0, flipped, 0, channels, out, 0, 1, True, v)  # as two threads share it
    CALL["winograd_filter"](weights, 0, flipped, 0, channels, out, 1, out, True, v)
    read, summed = np.empty(places * P * channels), np.empty(places * P * out)
    CALL["winograd_input"](Image(flat(F.pad(x, (1, 1, 1, 1))), 0, row), read, R, T, channels, v)
    CALL["winograd_multiply"](read, packed, summed, P, channels, out, False, v)
    found = np.empty(height * width * out)
    CALL["winograd_output"](summed, Image(found, 0, width * out), R, T, out, v)
    torch.testing.assert_close(image(found, height, width, out), y.detach(), rtol=0, atol=1e-12)
    CALL["winograd_output_backward"](flat(towards), summed, R, T, out, v)
    both = np.zeros(2 * places * channels * out)  # of two threads, the second of which has done nothing
    CALL["winograd_multiply_weight_grad"](read, summed, both, P, channels, out, v)
    sums = np.empty(9 * channels * out)
    CALL["winograd_filter_backward"](both, 2, len(both) // 2, 0, sums, 0, channels, out, 0, channels, v)
    torch.testing.assert_close(torch.from_numpy(sums).view_as(dw), dw, rtol=0, atol=1e-12)
    CALL["winograd_multiply"](summed, flipped, read, P, out, channels, False, v)
    into = np.ones(height * width * channels)
    for r in range(R):  # row by row of patches, as images that are large
        part = np.ascontiguousarray(read.reshape(places, R, -1)[:, r]).reshape(-1)
        CALL["winograd_input_backward"](part, into, 0, r, 1, T, height, width, channels, v)
    torch.testing.assert_close(image(into, height, width, channels), dx + 1, rtol=0, atol=1e-12)


def test_code_that_was_compiled_from_other_sources_is_not_used(monkeypatch):
    """Numba's cache is keyed by the file of a function and the types of its arguments, and does not notice that what it
    calls in another file has changed: the type of vectors names the sources."""
    from gapless.kernels.cpu import vectors

    before = Vector(np.float64, 4, False)._numba_type_
    assert before == Vector(np.float64, 4, False)._numba_type_
    monkeypatch.setattr(vectors.VectorType, "STAMP", vectors.VectorType.STAMP + 1)
    assert before != Vector(np.float64, 4, False)._numba_type_
