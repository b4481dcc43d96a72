"""The candidate operations of the cell spaces: DARTS (arXiv 1806.09055), NAS-Bench-201 (arXiv 2001.00326) and
the spaces of RobustDARTS (arXiv 1909.09656)."""

from __future__ import annotations

from gapless.core.op import AvgPool, Conv, Depthwise, Halves, Layer, MaxPool, Noise, Norm, Op, Relu, Zero


def separable(kernel: int) -> Op:
    """Return ReLU, depthwise, pointwise, normalisation, twice; only the first depthwise is strided."""
    half: tuple[Layer, ...] = (Relu(), Depthwise(kernel), Conv(1), Norm())
    return Op(half + half)


def dilated(kernel: int) -> Op:
    """Return ReLU, depthwise with dilation 2, pointwise, normalisation."""
    return Op((Relu(), Depthwise(kernel, dilation=2), Conv(1), Norm()))


def normal(kernel: int) -> Op:
    """Return ReLU, convolution, normalisation."""
    return Op((Relu(), Conv(kernel), Norm()))


NONE = Op((Zero(),))
SKIP = Op((), strided=(Relu(), Halves(), Norm()))
REDUCE = Op((Relu(), Halves(), Norm()))

OPS: dict[str, Op] = {
    "none": NONE,
    "noise": Op((Noise(),)),
    "skip_connect": SKIP,
    "max_pool_3x3": Op((MaxPool(3),)),
    "avg_pool_3x3": Op((AvgPool(3),)),
    "sep_conv_3x3": separable(3),
    "sep_conv_5x5": separable(5),
    "sep_conv_7x7": separable(7),
    "dil_conv_3x3": dilated(3),
    "dil_conv_5x5": dilated(5),
    "nor_conv_1x1": normal(1),
    "nor_conv_3x3": normal(3),
    "nor_conv_7x7": normal(7),
}
"""Every operation that a cell space may name. DARTS spaces add a normalisation behind pools while searching."""


def find(label: str) -> Op:
    """Return the operation of an option label; ``skip_connect#2`` is ``skip_connect``."""
    return OPS[label.partition("#")[0]]
