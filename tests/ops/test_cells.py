"""The candidate operations of the cell spaces: what they hold, by formula."""

import pytest

from gapless.core.cost import count_macs, count_params
from gapless.core.op import NormRule
from gapless.ops.cells import OPS, REDUCE, find

C = 8


def conv(k: int) -> int:
    return k * k * C * C


def sep(k: int) -> int:
    return 2 * (k * k * C + C * C)


def dil(k: int) -> int:
    return k * k * C + C * C


WEIGHTS = {
    "none": (0, 0),
    "noise": (0, 0),
    "skip_connect": (0, 0),
    "max_pool_3x3": (0, 0),
    "avg_pool_3x3": (0, 0),
    "sep_conv_3x3": (sep(3), 4 * C),
    "sep_conv_5x5": (sep(5), 4 * C),
    "sep_conv_7x7": (sep(7), 4 * C),
    "dil_conv_3x3": (dil(3), 2 * C),
    "dil_conv_5x5": (dil(5), 2 * C),
    "nor_conv_1x1": (conv(1), 2 * C),
    "nor_conv_3x3": (conv(3), 2 * C),
    "nor_conv_7x7": (conv(7), 2 * C),
}


def test_the_table_is_complete():
    assert set(WEIGHTS) == set(OPS)


@pytest.mark.parametrize("label", WEIGHTS)
def test_weights(label):
    plain, affine = WEIGHTS[label]
    assert count_params(OPS[label].build(C, norm=NormRule(affine=False))) == plain
    assert count_params(OPS[label].build(C, norm=NormRule(affine=True))) == plain + affine


@pytest.mark.parametrize("label", WEIGHTS)
def test_multiply_adds_are_weights_times_places(label):
    """At stride 1 every weight of a convolution is used once per pixel: of what lies outside a 6x6 image, too."""
    assert count_macs(OPS[label].build(C, norm=NormRule(affine=False)), (C, 6, 6)) == 36 * WEIGHTS[label][0]


def test_a_strided_skip_is_a_factorised_reduction():
    skip = OPS["skip_connect"].build(C, stride=2, norm=NormRule(affine=False))
    assert count_params(skip) == C * C
    assert count_params(OPS["skip_connect"].build(C, stride=2)) == C * C + 2 * C
    assert count_params(REDUCE.build(C, inputs=3 * C, stride=2)) == 3 * C * C + 2 * C
    assert count_macs(skip, (C, 6, 6)) == 9 * C * C


def test_only_the_first_depthwise_is_strided():
    op = OPS["sep_conv_3x3"].build(C, stride=2)
    assert count_macs(op, (C, 6, 6)) == 9 * sep(3)


def test_a_label_may_stand_twice():
    assert find("skip_connect#2") is OPS["skip_connect"]
    with pytest.raises(KeyError):
        find("no_such_operation")
