"""Parameters, multiply-adds and supernet weights: integers that published numbers and released code agree with.

Networks lie on the meta device: they are counted, not computed.
"""

from functools import cache
from typing import Literal

import pytest
import torch
from torch import nn

from gapless.core.cost import Undrawn, count_macs, count_params
from gapless.engine.supernet import Supernet
from gapless.methods.drnas import DrNAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

CIFAR = Darts(options="original").alone()
IMAGENET = Darts(options="original", stem="imagenet", size=224, classes=1000).alone()

# name: parameters and multiply-adds with 20 cells of width 36 on CIFAR-10, and with 14 cells of width 48 on ImageNet
COUNTS = {
    "DARTS_V1": (3_169_414, 500_987_520, 4_510_432, 505_864_704),
    "DARTS_V2": (3_349_342, 528_359_040, 4_718_752, 529_911_552),
    "PC_DARTS_cifar": (3_634_678, 556_670_592, 5_270_560, 571_137_408),
    "PC_DARTS_image": (3_721_510, 570_466_944, 5_342_464, 581_627_328),
    "DrNAS_cifar10": (4_099_294, 635_135_616, 5_738_464, 633_832_320),
    "DrNAS_imagenet": (4_048_750, 617_938_560, 5_726_368, 624_405_504),
    "DropNAS_c10": (3_839_230, 592_032_384, 5_433_280, 597_037_632),
    "DropNAS_c100": (4_012_120 - 90 * (576 + 1), 623_049_984 - 90 * 576, 5_540_800, 618_111_552),
}


def network(space: Darts | NASBench201, text: str) -> nn.Module:
    with Undrawn():
        return space.network(space.read(text))


@cache
def table(space: Darts, unit: Literal["params", "macs"]) -> tuple[torch.Tensor, int]:
    return space.cost_table(unit)


def told(space: Darts, unit: Literal["params", "macs"], name: str) -> int:
    entries, constant = table(space, unit)
    return constant + int((entries * space.encode(space.read(name))).sum())


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(("space", "column"), [(CIFAR, 0), (IMAGENET, 2)], ids=["cifar", "imagenet"])
def test_published_cells(space, column, name):
    assert (told(space, "params", name), told(space, "macs", name)) == COUNTS[name][column : column + 2]


@pytest.mark.parametrize(("space", "column"), [(CIFAR, 0), (IMAGENET, 2)], ids=["cifar", "imagenet"])
def test_a_whole_network_has_what_the_tables_say(space, column):
    net = network(space, "DARTS_V2")
    assert (count_params(net), count_macs(net, (3, space.size, space.size))) == COUNTS["DARTS_V2"][column : column + 2]


def test_a_hundred_classes():
    """576 = 4 nodes * 4 * 36 channels feed the classifier."""
    hundred = CIFAR.replace(classes=100)
    net = network(hundred, "DropNAS_c100")
    assert count_params(net) == 4_012_120
    assert told(hundred, "macs", "DropNAS_c100") == 623_049_984
    assert net.classifier.in_features == 576


@pytest.mark.parametrize(
    ("space", "expected"), [(CIFAR, 476_426), (CIFAR.replace(classes=100), 545_636), (IMAGENET, 1_260_776)]
)
def test_auxiliary_heads(space, expected):
    head = network(space, "DARTS_V2").auxiliary
    assert sum(p.numel() for p in head.parameters()) == expected


def test_the_retrain_network_of_dropnas_normalises_behind_pools():
    """With its auxiliary head, in units of 2 ** 20, that is the published 4.1M and 4.4M."""
    for classes, name, expected, head, published in (
        (10, "DropNAS_c10", 3_839_662, 476_426, 4.116),
        (100, "DropNAS_c100", 4_015_576, 545_636, 4.350),
    ):
        net = network(CIFAR.replace(pool_norm="affine", classes=classes), name)
        assert count_params(net) == expected
        assert (expected + head) / 2**20 == pytest.approx(published, abs=5e-4)


def test_drnas_on_imagenet_within_600_million():
    net = network(IMAGENET.replace(width=46), "DrNAS_imagenet")
    assert count_macs(net, (3, 224, 224)) / 1e6 == pytest.approx(575.2, abs=0.05)
    assert count_params(net) / 1e6 == pytest.approx(5.30, abs=0.005)


# ---------------------------------------------------------------------- supernets


def weights(space: Darts | NASBench201) -> int:
    with Undrawn():
        return count_params(Supernet(space))


DRNAS = Darts(options="drnas", cells=20, width=36)
DRNAS_IMAGENET = Darts(options="drnas", cells=14, width=48, stem="imagenet", stem_width=3 * 48, classes=1000, size=224)
SUPERNETS = {
    "darts": (Darts(), 1_930_618),
    "pc-darts": (Darts(partial=4), 299_578),
    "pc-darts-imagenet": (Darts(partial=2, stem="imagenet", stem_width=48, classes=1000, size=224), 956_512),
    "drnas-6": (DRNAS.replace(partial=6), 2_221_750),
    "drnas-4": (DRNAS.replace(partial=4), 2_986_462),
    "drnas-imagenet-6": (DRNAS_IMAGENET.replace(partial=6), 3_642_896),
    "drnas-imagenet-3": (DRNAS_IMAGENET.replace(partial=3), 5_739_344),
    "dropnas": (Darts(options="original", cells=14), 3_239_674),
    "nasbench201-1": (NASBench201(), 1_686_106),
    "nasbench201-2": (NASBench201(partial=2), 476_506),
    "nasbench201-4": (NASBench201(partial=4), 174_106),
}


IN_BETWEEN = ("pc-darts-imagenet", "drnas-4", "drnas-imagenet-6", "nasbench201-2")
"""Supernets whose parts all stand in a smaller or a wider one."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full) if n in IN_BETWEEN else n for n in SUPERNETS])
def test_weights_of_supernets(name):
    space, expected = SUPERNETS[name]
    assert weights(space) == expected


def test_progressive_learning_goes_through_those_sizes():
    sizes = {label: DrNAS.setting(label).variants["progressive"]["partials"] for label in ("darts", "nasbench201", "")}
    assert sizes == {"darts": (6, 4), "nasbench201": (4, 2), "": (4, 2)}


# ---------------------------------------------------------------------- NAS-Bench-201

A = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
BENCH = {
    "best-cifar100": (A, 1_288_506, 184_730_240),
    "best-cifar10": (A.replace("nor_conv_3x3~2", "nor_conv_1x1~2"), 1_073_466, 153_272_960),
    "all-skip": (
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
        73_306,
        7_783_040,
    ),
}


@pytest.mark.parametrize("name", BENCH)
def test_cells_of_the_benchmark(name):
    text, params, macs = BENCH[name]
    net = network(NASBench201().alone(), text)
    assert (count_params(net), count_macs(net, (3, 32, 32))) == (params, macs)
