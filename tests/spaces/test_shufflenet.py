"""The block space of SPOS and DSNAS: the numbers of the released code, what a block does, its lists of numbers."""

import math
from itertools import accumulate

import pytest
import torch
from torch import nn

from gapless.core.cost import Undrawn, count_macs, count_params
from gapless.core.errors import UserError
from gapless.core.progress import seeded, stream
from gapless.core.protocol import PROTOCOLS
from gapless.engine.supernet import Supernet
from gapless.methods.dropnas import DropNAS
from gapless.spaces.shufflenet import OPTIONS, PUBLISHED, ShuffleBlock, ShuffleNet, XceptionBlock

FULL = ShuffleNet.usual().alone()
SMALL = ShuffleNet(size=8, stem_width=4, widths=(8, 12), repeats=(2, 1), strides=(1, 2, 1), head_width=8)

# ---------------------------------------------------------------------- numbers

MACS = [
    [13_396_992, 15_805_440, 19_418_112, 13_146_112],
    *[[7_325_696, 8_931_328, 11_339_776, 12_343_296]] * 3,
    [26_304_768, 28_111_104, 30_820_608, 20_296_192],
    *[[10_599_680, 11_603_200, 13_108_480, 16_746_240]] * 3,
    [30_670_080, 31_673_600, 33_178_880, 21_199_360],
    *[[10_317_440, 10_819_200, 11_571_840, 15_899_520]] * 7,
    [30_387_840, 30_889_600, 31_642_240, 20_634_880],
    *[[10_176_320, 10_427_200, 10_803_520, 15_476_160]] * 3,
]
"""Multiply-adds of block and option: the table that SNAS-Series/SNAS-Series, DSNAS/network.py, lists."""
STEM, LAST, CLASSIFIER = 112 * 112 * 27 * 16, 49 * 640 * 1024, 1024 * 1000


@pytest.fixture(scope="module")
def macs():
    return FULL.cost_table("macs")


@pytest.fixture(scope="module")
def params():
    return FULL.cost_table("params")


def told(table, arch):
    entries, constant = table
    return constant + int((entries * FULL.encode(arch)).sum())


def test_every_block_has_the_multiply_adds_of_the_released_table(macs):
    table, constant = macs
    assert table.long().tolist() == MACS
    assert constant == STEM + LAST + CLASSIFIER == 38_555_648


@pytest.mark.parametrize(("option", "millions"), [("k3", 295.84), ("k5", 313.65), ("k7", 340.37), ("xception", 358.83)])
def test_networks_of_one_kind(macs, option, millions):
    arch = FULL.read(str([OPTIONS.index(option)] * 20))
    assert told(macs, arch) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "counted", "weights", "published"),
    [("SPOS", 322_918_720, 3_558_464, (323, 3.5)), ("DSNAS", 323_326_400, 3_548_176, (324, 3.5))],
)
def test_released_architectures(macs, params, name, counted, weights, published):
    """Integers: the released table above and the parts around it. DSNAS reports 324, for its counter takes
    (2 * 1024 - 1) * 1000 for the classifier."""
    arch = FULL.read(name)
    assert (told(macs, arch), told(params, arch)) == (counted, weights)
    with Undrawn():
        network = FULL.network(arch)
    assert (count_macs(network, (3, 224, 224)), count_params(network)) == (counted, weights)
    extra = (2 * 1024 - 1) * 1000 - CLASSIFIER if name == "DSNAS" else 0
    assert round((counted + extra) / 1e6) == published[0]
    assert weights / 1e6 == pytest.approx(published[1], abs=0.06)


def test_supernets_are_of_the_released_size():
    """Twenty blocks of four kinds; SPOS searches without scale and shift, DSNAS with both."""
    with Undrawn():
        plain, affine = (count_params(Supernet(ShuffleNet.usual(affine=flag))) for flag in (False, True))
        norms = [m for m in Supernet(ShuffleNet.usual()).modules() if isinstance(m, nn.BatchNorm2d)]
    assert affine - plain == 2 * sum(m.num_features for m in norms)
    assert not any(m.affine for m in norms)
    weights = torch.zeros(20, 4, dtype=torch.float64)
    for row, place in enumerate(FULL.places):
        reads = place.inputs // (2 if place.inputs == place.channels else 1)
        middle, adds = place.channels // 2, place.channels - reads
        projects = reads == place.inputs
        for column, kernel in enumerate((3, 5, 7)):
            weights[row, column] = reads * middle + kernel**2 * middle + middle * adds
            weights[row, column] += projects * (kernel**2 * reads + reads**2)
        weights[row, 3] = 9 * reads + reads * middle + 2 * 9 * middle + middle**2 + middle * adds
        weights[row, 3] += projects * (9 * reads + reads**2)
    assert plain == int(weights.sum()) + 27 * 16 + 640 * 1024 + 1024 * 1000


# ---------------------------------------------------------------------- what a block does


def split(x):
    """The even and the odd channels, as reshaping and swapping axes gives them."""
    n, c, h, w = x.shape
    return x.view(n, c // 2, 2, h, w).transpose(1, 2).reshape(2 * n, c // 2, h, w).view(n, 2, c // 2, h, w).unbind(1)


@pytest.mark.parametrize("make", [lambda: ShuffleBlock(8, 8, 5), lambda: XceptionBlock(8, 8)], ids=["k5", "xception"])
def test_half_of_the_channels_passes_by_parity(make):
    block, x = make().eval(), torch.randn(2, 8, 5, 5)
    even, odd = split(x)
    assert torch.equal(even, torch.stack([x[:, i] for i in (0, 2, 4, 6)], dim=1))
    y = block(x)
    assert torch.equal(y[:, :4], even)
    assert torch.equal(y[:, 4:], block.main(odd))


def test_two_blocks_mix_the_halves():
    """What passed the first block goes through the second in part: interleaving is shuffling."""
    first, second = ShuffleBlock(8, 8, 3).eval(), ShuffleBlock(8, 8, 3).eval()
    x = torch.randn(1, 8, 3, 3, requires_grad=True)
    y = second(first(x))
    (grad,) = torch.autograd.grad(y[:, 4:].square().sum(), x)
    assert bool((grad.abs().amax(dim=(0, 2, 3)) > 0)[[2, 6]].all()), "channels that passed first are read by the second"
    assert torch.equal(y[:, :4], first(x)[:, ::2])


@pytest.mark.parametrize(("stride", "side"), [(2, 4), (1, 7)])
@pytest.mark.parametrize("kind", ["k3", "k7", "xception"])
def test_where_size_or_width_changes_the_projection_comes_first(kind, stride, side):
    block = XceptionBlock(6, 16, stride) if kind == "xception" else ShuffleBlock(6, 16, int(kind[1:]), stride)
    x = torch.randn(2, 6, 7, 7)
    y = block.eval()(x)
    assert y.shape == (2, 16, side, side)
    assert torch.equal(y[:, :6], block.projection(x))
    assert torch.equal(y[:, 6:], block.main(x))
    kernels = [m.kernel_size[0] for m in block.projection if isinstance(m, nn.Conv2d)]
    assert kernels == [3 if kind == "xception" else int(kind[1:]), 1]


def layers(module):
    """Return a conv as (kernel, stride, inputs, outputs, groups), other layers by name."""
    return [
        (m.kernel_size[0], m.stride[0], m.in_channels, m.out_channels, m.groups)
        if isinstance(m, nn.Conv2d)
        else type(m).__name__
        for m in module
    ]


def test_main_branches():
    norm, act = "BatchNorm2d", "ReLU"
    assert layers(ShuffleBlock(6, 16, 5, 2).main) == [
        *[(1, 1, 6, 8, 1), norm, act],
        *[(5, 2, 8, 8, 8), norm],
        *[(1, 1, 8, 10, 1), norm, act],
    ]
    assert layers(XceptionBlock(16, 16).main) == [
        *[(3, 1, 8, 8, 8), norm, (1, 1, 8, 8, 1), norm, act],
        *[(3, 1, 8, 8, 8), norm, (1, 1, 8, 8, 1), norm, act],
        *[(3, 1, 8, 8, 8), norm, (1, 1, 8, 8, 1), norm, act],
    ]
    assert layers(XceptionBlock(6, 16, 2).main)[0] == (3, 2, 6, 6, 6)
    assert layers(XceptionBlock(6, 16, 2).projection) == [(3, 2, 6, 6, 6), norm, (1, 1, 6, 6, 1), norm, act]


def test_weights_start_as_in_the_released_code():
    with seeded("init"):
        network = ShuffleNet(widths=(64, 160), repeats=(2, 1), strides=(2, 2, 2), affine=True).network(
            SMALL.read("[0, 3, 2]")
        )
    deviations = {n: float(p.detach().std()) for n, p in network.named_parameters() if p.dim() > 1}
    assert deviations.pop("stem.0.weight") == pytest.approx(0.01, rel=0.15)
    assert deviations.pop("classifier.weight") == pytest.approx(0.01, rel=0.05)
    for name, p in network.named_parameters():
        if name in deviations:
            assert deviations[name] == pytest.approx(1 / p.shape[1], rel=0.3), name
        elif p.dim() == 1:
            assert torch.equal(p, torch.full_like(p, 1e-4 if name.endswith("bias") else 1.0)), name
    assert len(deviations) == 17
    assert network.classifier.bias is None


def test_dropout_is_before_the_classifier_and_not_deployed():
    arch = SMALL.sample(stream(0))
    (drop,) = [m for m in SMALL.network(arch).head if isinstance(m, nn.Dropout)]
    assert drop.p == 0.1
    deployed = SMALL.deployed()
    assert not [m for m in deployed.network(arch).modules() if isinstance(m, nn.Dropout)]
    assert list(deployed.network(arch).state_dict()) == list(SMALL.network(arch).state_dict())


# ---------------------------------------------------------------------- sizes


def test_the_size_at_which_it_is_trained_alone_keeps_the_strides():
    small = ShuffleNet(width=0.25, strides=(1, 1, 2, 2, 2), eps=1e-2)
    assert small.alone() == ShuffleNet(strides=(1, 1, 2, 2, 2), affine=True, eps=1e-5)
    assert (FULL.classes, FULL.size, FULL.affine) == (1000, 224, True)
    assert ShuffleNet.usual(classes=7).classes == 7


def test_the_factor_gives_even_numbers_of_channels():
    assert [ShuffleNet(width=f).channels_of(16) for f in (1, 0.5, 0.3, 1 / 16)] == [16, 8, 4, 2]
    assert {p.channels for p in ShuffleNet(width=1 / 16).places} == {4, 10, 20, 40}


@pytest.mark.parametrize(
    ("size", "strides", "sides"),
    [
        (224, (2, 2, 2, 2, 2), (112, 56, 28, 14, 7)),
        (32, (1, 1, 2, 2, 2), (32, 32, 16, 8, 4)),
        (9, (1, 1, 1, 2, 2), (9, 9, 9, 5, 3)),
    ],
)
def test_sides_of_the_image(size, strides, sides):
    space = ShuffleNet(size=size, strides=strides, width=1 / 16)
    seen = []
    with Undrawn():
        network = space.network(space.read(str([1] * 20)))
        network.stem.register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-1]))
        for block in network.blocks:
            block.register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-1]))
        network(torch.empty(2, 3, size, size))
    repeats = list(accumulate((0, 4, 4, 8, 4)))
    assert [seen[i] for i in repeats] == list(sides)
    nodes = space.pictures(space.read(str([1] * 20)))[0].nodes
    assert [nodes[0], nodes[1], nodes[-4]] == [f"2 · {sides[0]}²", f"4 · {sides[1]}²", f"40 · {sides[-1]}²"]


def test_protocols():
    assert (FULL.protocol, SMALL.protocol) == ("shufflenet", "cifar")
    protocol = PROTOCOLS["shufflenet"][1]
    assert protocol.epochs * math.ceil(1_281_167 / protocol.batch) == pytest.approx(300_000, rel=2e-3)
    assert (protocol.lr, protocol.schedule, protocol.weight_decay, protocol.decay_norms) == (
        0.5,
        "straight",
        4e-5,
        False,
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"repeats": (4, 4)},
            "`repeats` must be as many numbers as `widths`, and `strides` one more: .*; got 2, 4 and 5",
        ),
        ({"strides": (2, 2, 2, 2)}, "one more: the stem's, first; got 4, 4 and 4"),
        ({"widths": ()}, "got 4, 0 and 5"),
        ({"repeats": (4, 0, 8, 4)}, "`repeats` must each be from 1 to 1,000; got 0"),
        ({"stem_width": 0}, "`stem_width` must be at least 1; got 0"),
        ({"strides": (2, 2, 3, 2, 2)}, "`strides` must each be from 1 to 2; got 3 in 2 2 3 2 2"),
        ({"widths": (64, 64, 320, 640)}, r"Block 2\.0 reads 64 channels and gives 64; .* adds channels"),
        ({"widths": (64, 32, 320, 640), "strides": (2, 2, 1, 2, 2)}, r"Block 2\.0 reads 64 channels and gives 32"),
        ({"width": 0.01}, r"Block 1\.0 reads 2 channels and gives 2; .* a larger `width` than 0\.01"),
        ({"width": 0.0}, "`width` must be more than 0; got 0.0"),
        ({"eps": 0.0}, "`eps` must be more than 0; got 0.0"),
        ({"dropout": 1.0}, r"`dropout` must be at least 0 and less than 1; got 1.0"),
    ],
)
def test_fields_out_of_range_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        ShuffleNet(**fields)


def test_a_stage_of_stride_1_and_equal_width_splits():
    space = ShuffleNet(widths=(64, 64), repeats=(1, 1), strides=(2, 2, 1))
    first, second = space.network(space.read("[0, 3]")).blocks
    assert hasattr(first["k3"], "projection") and not hasattr(second["xception"], "projection")


def test_a_group_that_is_missing_does_no_harm():
    """All blocks have weights: dropping from the groups of a row leaves one of them, and nothing is free."""
    method = DropNAS(SMALL, rate_weights=0.9, rate_free=0.9)
    masks = torch.stack([method.draw(stream(i)) for i in range(50)])
    assert masks.any(dim=-1).all()
    assert (masks.sum(dim=-1) < len(OPTIONS)).any()
    assert all(set(d.groups.values()) == {"weights"} and set(d.groups) == set(d.options) for d in SMALL.decisions)


# ---------------------------------------------------------------------- lists of numbers


def test_lists_both_ways():
    arch = SMALL.read("[2, 0, 3]")
    assert dict(arch) == {"1.0": "k7", "1.1": "k3", "2.0": "xception"}
    assert SMALL.write(arch) == "[2, 0, 3]"
    for text in ("(2, 0, 3)", "2,0,3", " [2,0,3]\n", "[2, 0, 3,]", str(arch)):
        assert SMALL.read(text) == arch
    for i in range(20):
        drawn = FULL.sample(stream(i))
        assert FULL.parse(FULL.write(drawn)) == drawn
    for name, (numbers, _) in PUBLISHED.items():
        assert FULL.write(FULL.read(name)) == str(list(numbers))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no architecture of shufflenet, which reads .* 3 is xception; nor a published one: SPOS, DSNAS"),
        ("rubbish", "'rubbish' is no architecture of shufflenet"),
        ("[2, 0, x]", "is no architecture of shufflenet"),
        ("[2, 0, 3", "is no architecture of shufflenet"),
        ("[2, 0, 3)", "is no architecture of shufflenet"),
        ("[2, -1, 3]", "is no architecture of shufflenet"),
        ("[2, 0.5, 3]", "is no architecture of shufflenet"),
        ("[[2, 0], 3]", "is no architecture of shufflenet"),
        ("[]", "is no architecture of shufflenet"),
        ("[2, 4, 3]", "4 stands for no block of shufflenet: 0 is k3, 1 is k5, 2 is k7, 3 is xception"),
        ("[2, 0]", r"names 2 blocks; this space has 3 \(`repeats` 2 1\)"),
        ("SPOS", "'SPOS' names 20 blocks; this space has 3"),
        ("1.0=k3,1.1=k9,2.0=k3", "'k9' is no answer to '1.1'"),
        ("1.0=k3,2.0=k3", r"does not answer 1\.1"),
    ],
)
def test_texts_that_are_none_are_answered_in_words(text, said):
    with pytest.raises(UserError, match=said):
        SMALL.read(text)
