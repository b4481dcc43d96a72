"""Operations as data."""

import math

import pytest
import torch
from torch import nn

from gapless.core.op import (
    AvgPool,
    Conv,
    Depthwise,
    Halves,
    HalvesModule,
    MaxPool,
    Noise,
    Norm,
    NormRule,
    Op,
    Relu,
    Zero,
    zeros,
)
from gapless.ops.cells import OPS


@pytest.mark.parametrize("size", [4, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("label", OPS)
def test_every_operation_keeps_or_halves_the_size(label, stride, size):
    x = torch.randn(2, 4, size, size)
    y = OPS[label].build(4, stride=stride)(x)
    assert y.shape == zeros(x, stride).shape == (2, 4, -(-size // stride), -(-size // stride))


def test_noise_is_standard_normal_and_reads_nothing_but_the_shape():
    noise = Op((Noise(),)).build(4, stride=2)
    x = torch.full((16, 4, 63, 64), math.nan, requires_grad=True)
    torch.manual_seed(0)
    y = noise(x)
    assert y.shape == (16, 4, 32, 32)
    assert not y.requires_grad
    count = y.numel()  # four deviations of what is estimated
    assert abs(y.mean()) < 4 / count**0.5
    assert abs(y.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((y.pow(4)).mean() - 3) < 4 * (96 / count) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(noise.eval()(x.contiguous(memory_format=torch.channels_last)), y)
    assert not torch.equal(noise(x), y)
    assert noise.noise
    assert not Op((Relu(), Conv(1), Norm())).noise


def test_identity_and_none():
    x = torch.randn(1, 2, 5, 5)
    identity, none = Op(()).build(2), Op((Zero(),)).build(2, stride=2)
    assert identity.identity
    assert not identity.zero
    assert identity(x) is x
    assert none.zero
    assert torch.equal(none(x), torch.zeros(1, 2, 3, 3))


def test_the_first_layer_that_can_takes_the_stride():
    op = Op((Relu(), Depthwise(3), Conv(1), Norm(), Relu(), Depthwise(3), Conv(1), Norm())).build(4, stride=2)
    strides = [m.stride[0] for m in op.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [2, 1, 1, 1]
    assert [m.groups for m in op.modules() if isinstance(m, nn.Conv2d)] == [4, 1, 4, 1]


def test_the_last_convolution_changes_the_channels():
    op = Op((Relu(), Depthwise(3), Conv(1), Norm(), Depthwise(3), Conv(1), Norm())).build(6, inputs=2)
    shapes = [(m.in_channels, m.out_channels) for m in op.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(2, 2), (2, 2), (2, 2), (2, 6)]
    assert [m.num_features for m in op.modules() if isinstance(m, nn.BatchNorm2d)] == [2, 6]
    assert op(torch.randn(2, 2, 4, 4)).shape == (2, 6, 4, 4)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="cannot change 2 channels into 4"):
        Op((MaxPool(3),)).build(4, inputs=2)
    with pytest.raises(ValueError, match="cannot carry a stride"):
        Op(()).build(4, stride=2)
    with pytest.raises(ValueError, match="even number of channels, not 3"):
        Op((Halves(),)).build(3, stride=2)


def test_another_operation_at_stride_two():
    skip = OPS["skip_connect"]
    assert skip.at(1) == ()
    assert isinstance(skip.build(4, stride=2)[1], HalvesModule)


def test_normalisation_follows_the_rule_unless_it_says_otherwise():
    rule = NormRule(affine=False, eps=1e-3, momentum=0.2)
    (plain,) = Op((Norm(),)).build(2, norm=rule)
    assert (plain.affine, plain.eps, plain.momentum, plain.track_running_stats) == (False, 1e-3, 0.2, True)
    assert Op((Norm(affine=True),)).build(2, norm=rule)[0].affine
    assert not Op((Norm(affine=False),)).build(2, norm=NormRule())[0].affine
    assert Op((Norm(),)).build(2, norm=NormRule(track=False))[0].running_mean is None


def test_the_average_counts_no_padding_and_the_maximum_pads_with_nothing():
    x = -torch.ones(1, 1, 3, 3)
    assert torch.equal(Op((AvgPool(3),)).build(1)(x), x)
    assert torch.equal(Op((MaxPool(3),)).build(1)(x), x)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert Op((AvgPool(3),)).build(1)(x)[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4


def test_dilation_reaches_further_at_the_same_size():
    conv = Op((Depthwise(3, dilation=2),)).build(1)
    conv[0].weight.data = torch.arange(9.0).view(1, 1, 3, 3)
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    assert torch.equal(conv(x)[0, 0, ::2, ::2], torch.arange(9.0).flip(0).view(3, 3))


@pytest.mark.parametrize("size", [4, 5])
def test_a_factorised_reduction_reads_two_grids(size):
    """The first half reads the even pixels; the second the odd ones, with zeros beyond an odd border."""
    halves = HalvesModule(1, 2)
    halves.first.weight.data.fill_(1)
    halves.second.weight.data.fill_(1)
    x = 1 + torch.arange(float(size * size)).view(1, 1, size, size)
    out = halves(x)
    side = -(-size // 2)
    assert out.shape == (1, 2, side, side)
    assert torch.equal(out[0, 0], x[0, 0, ::2, ::2])
    odd = x[0, 0, 1::2, 1::2]
    assert torch.equal(out[0, 1, : odd.shape[0], : odd.shape[1]], odd)
    assert not out[0, 1, odd.shape[0] :].any()
    assert not out[0, 1, :, odd.shape[1] :].any()


def test_names_of_parameters_follow_from_the_layers():
    op = Op((Relu(), Conv(3), Norm())).build(2)
    assert [name for name, _ in op.named_parameters()] == ["1.weight", "2.weight", "2.bias"]
