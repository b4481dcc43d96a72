"""The inverted residual spaces of FairNAS and ProxylessNAS: published numbers, what a block does, lists of pairs."""

import math

import pytest
import torch
from torch import nn

from gapless.core.cost import Undrawn, count_macs, count_params
from gapless.core.errors import UserError
from gapless.core.progress import seeded, stream
from gapless.core.protocol import PROTOCOLS
from gapless.spaces.mobile import PUBLISHED, TABLES, InvertedResidual, Mobile, rounded

FAIRNAS = Mobile.usual()
SMALL = Mobile(size=8, variant="proxyless", width=0.01, layers=(2, 1, 1, 1, 1, 1))

# ---------------------------------------------------------------------- numbers


@pytest.fixture(scope="module")
def tables():
    return {v: (Mobile.usual(variant=v), *Mobile.usual(variant=v).cost_table("macs")) for v in TABLES}


def block_macs(inputs, channels, kernel, expansion, before, after):
    """Multiply-adds of a block by hand: expand, depthwise, project."""
    middle = inputs * expansion
    return before**2 * inputs * middle + after**2 * middle * (kernel**2 + channels)


@pytest.mark.parametrize("variant", TABLES)
def test_every_entry_of_the_table_by_formula(tables, variant):
    space, found, constant = tables[variant]
    side, rows = 112, found.long().tolist()
    for place, decision, row in zip(space.places, space.decisions, rows, strict=True):
        after = side // place.stride
        expected = [
            0 if o == "skip" else block_macs(place.inputs, place.channels, int(o[1]), int(o[3]), side, after)
            for o in decision.options
        ]
        assert row[: len(expected)] == expected, place.name
        side = after
    t = TABLES[variant]
    assert side == 7
    fixed = 112**2 * (27 * t.stem + 9 * t.stem + t.stem * t.first)
    assert constant == fixed + 49 * t.stages[-1].channels * t.last + t.last * 1000


@pytest.mark.parametrize(
    ("variant", "least", "most"),
    [
        ("fairnas", 247_129_856, 557_405_696),
        ("proxyless", 257_422_208, 606_590_720),
        ("proxyless-mobile", 291_084_032, 693_483_008),
        ("proxyless-gpu", 460_908_960, 1_036_673_856),
    ],
)
def test_smallest_and_largest_networks(tables, variant, least, most):
    """All k3e3 and all k7e6: by the formula above."""
    _, found, constant = tables[variant]
    assert constant + int(found[:, 0].sum()) == least
    assert constant + int(found[:, 5].sum()) == most


@pytest.mark.parametrize(
    ("name", "macs", "params", "published"),
    [
        ("FairNAS-A", 388_122_848, 4_651_352, 388),
        ("FairNAS-B", 345_297_632, 4_506_272, 345),
        ("FairNAS-C", 321_024_992, 4_397_864, 321),
    ],
)
def test_released_architectures(tables, name, macs, params, published):
    """The integers are those of the formula above and of the parameters by hand; the paper publishes millions."""
    space, found, constant = tables["fairnas"]
    arch = space.read(name)
    with Undrawn():
        network = space.network(arch)
    assert (count_macs(network, (3, 224, 224)), count_params(network)) == (macs, params)
    assert constant + int((found * space.encode(arch)).sum()) == macs
    assert round(macs / 1e6) == published
    by_hand = 27 * 32 + 2 * 32 + 9 * 32 + 2 * 32 + 32 * 16 + 2 * 16 + 320 * 1280 + 2 * 1280 + 1281 * 1000
    for place in space.places:
        kernel, expansion = space.blocks[arch[place.name]]
        middle = place.inputs * expansion
        by_hand += middle * (place.inputs + kernel**2 + place.channels + 4) + 2 * place.channels
    assert by_hand == params


@pytest.mark.parametrize(
    ("variant", "blocks", "skips", "count"),
    [("fairnas", 19, 0, 6**19), ("proxyless", 21, 15, 6**6 * 7**15), ("proxyless-gpu", 21, 15, 6**6 * 7**15)],
)
def test_decisions(variant, blocks, skips, count):
    space = Mobile(variant=variant)
    assert len(space.decisions) == blocks
    assert sum("skip" in d.options for d in space.decisions) == skips
    assert space.count == count
    assert space.decisions[0].options == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")


def test_only_blocks_that_keep_size_and_width_can_be_skipped():
    space = Mobile(variant="proxyless", strides=(2, 1, 2, 2, 1, 2, 1))
    for place, decision in zip(space.places, space.decisions, strict=True):
        keeps = place.stride == 1 and place.inputs == place.channels
        assert place.shortcut == keeps == ("skip" in decision.options) == (not place.name.endswith(".0"))
        assert {o: decision.groups[o] for o in decision.options} == {
            o: "free" if o == "skip" else "weights" for o in decision.options
        }
    assert not any("skip" in d.options for d in space.replace(depth=False).decisions)
    assert any("skip" in d.options for d in Mobile(depth=True).decisions)


def test_rounding_does_not_change_the_decisions():
    narrow = Mobile(variant="proxyless", width=0.05)
    first = narrow.places[0]
    assert (first.inputs, first.channels) == (8, 8)
    assert narrow.replace(strides=(1,) * 7).places[0].shortcut is False
    assert narrow.decisions == narrow.alone().decisions


def test_larger_sets_of_candidates():
    space = Mobile(kernels=(3, 5, 7, 9), expansions=(1, 3, 6))
    assert len(space.decisions[0].options) == 12
    block = space.replace(size=8, width=0.01).network(space.read(",".join(f"{d.name}=k9e1" for d in space.decisions)))
    convs = [m for m in block.blocks[0].modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.groups) for m in convs] == [(9, 8), (1, 1)], (
        "an expansion of 1 has no first convolution"
    )


# ---------------------------------------------------------------------- what a block does


def test_a_block_is_expand_depthwise_project():
    block = InvertedResidual(8, 12, 5, 3, stride=2, eps=1e-3)
    found = [
        (m.kernel_size[0], m.stride[0], m.in_channels, m.out_channels, m.groups)
        if isinstance(m, nn.Conv2d)
        else (m.eps, m.momentum)
        if isinstance(m, nn.BatchNorm2d)
        else type(m).__name__
        for m in block.body
    ]
    norm = (1e-3, 0.1)
    assert found == [
        *[(1, 1, 8, 24, 1), norm, "ReLU6"],
        *[(5, 2, 24, 24, 24), norm, "ReLU6"],
        *[(1, 1, 24, 12, 1), norm],
    ]
    assert block(torch.randn(2, 8, 9, 9)).shape == (2, 12, 5, 5)


def test_a_shortcut_adds_the_input():
    with_, without = InvertedResidual(8, 8, 3, 3, shortcut=True), InvertedResidual(8, 8, 3, 3)
    without.load_state_dict(with_.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(with_.eval()(x), x + without.eval()(x))


def test_a_skipped_block_is_the_identity():
    one, other = (SMALL.network(SMALL.read(f"[(3, 3), {b}" + ", (3, 3)" * 5 + "]")).eval() for b in ("skip", "(6, 7)"))
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(one.blocks[1](x), x)
    assert not torch.equal(other.blocks[1](x), x)
    assert not list(one.blocks[1].parameters())


def test_where_weights_sum_to_one_the_shortcut_may_stand_outside():
    """ProxylessNAS adds it to the weighed sum; ours is in each option."""
    from gapless.core.mix import Mix
    from gapless.engine.supernet import Supernet

    space = SMALL
    supernet = Supernet(space, "reference").double().eval()
    weight = torch.rand(space.shape, dtype=torch.float64, generator=stream("mix")) * space.legal
    mix = Mix(weight / weight.sum(dim=1, keepdim=True))
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    site = supernet.network.blocks[1]
    supernet.router.set(mix)
    y = site(x)
    supernet.router.set(None)
    bodies = [option.body(x) for option in site.values() if isinstance(option, InvertedResidual)]
    assert len(bodies) == 6
    torch.testing.assert_close(y, x + sum(w * b for w, b in zip(mix.weight[1], bodies, strict=False)))


@pytest.mark.parametrize(
    ("variant", "eps", "dropout", "bound"), [("fairnas", 1e-5, 0.2, 1 / math.sqrt(10)), ("proxyless", 1e-3, 0.0, None)]
)
def test_what_the_released_codes_differ_in(variant, eps, dropout, bound):
    space = Mobile(variant=variant, size=8, width=0.2)
    with seeded("init"):
        network = space.network(space.sample(stream(0)))
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {eps}
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [dropout][: bool(dropout)]
    assert not [m for m in space.deployed().network(space.sample(stream(0))).modules() if isinstance(m, nn.Dropout)]
    bound = bound or 1 / math.sqrt(network.classifier.in_features)
    largest = float(network.classifier.weight.detach().abs().max())
    assert 0.98 * bound < largest <= bound
    assert not network.classifier.bias.any()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            spread = 6 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=spread)
    own = space.replace(eps=1e-2, dropout=0.5).network(space.sample(stream(0)))
    assert {m.eps for m in own.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-2}
    assert [m.p for m in own.modules() if isinstance(m, nn.Dropout)] == [0.5]


# ---------------------------------------------------------------------- sizes


def test_numbers_of_channels_are_multiples_of_eight_and_not_much_smaller():
    for nominal in range(1, 700):
        found = rounded(nominal)
        assert found % 8 == 0 and found >= 0.9 * nominal and (found - nominal <= 8 or found == 8)
    assert Mobile(variant="proxyless-gpu", width=0.5).channels_of(56) == 32
    assert {p.channels for p in Mobile(width=0.25).places} == {8, 16, 24, 48, 80}


def test_the_size_at_which_it_is_trained_alone_keeps_all_but_the_width():
    space = Mobile(variant="proxyless", width=0.25, strides=(1, 1, 2, 2, 1, 2, 1), layers=(1, 2, 1, 1, 1, 1), eps=1e-2)
    assert space.alone() == space.replace(width=1.0)
    assert (FAIRNAS.classes, FAIRNAS.size) == (1000, 224)


@pytest.mark.parametrize(
    ("size", "strides", "sides"),
    [
        (224, (), (112, 112, 56, 28, 14, 14, 7, 7)),
        (32, (1, 1, 2, 2, 1, 2, 1), (32, 32, 32, 16, 8, 8, 4, 4)),
        (9, (1, 2, 1, 2, 1, 1, 1), (9, 9, 5, 5, 3, 3, 3, 3)),
    ],
)
def test_sides_of_the_image(size, strides, sides):
    space = Mobile(size=size, strides=strides, width=0.1, layers=(1,) * 6)
    seen = []
    with Undrawn():
        network = space.network(space.read("[" + "(3, 5)," * 6 + "]"))
        for part in (network.stem, network.first, *network.blocks):
            part.register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-1]))
        network(torch.empty(2, 3, size, size))
    assert tuple(seen) == sides
    (picture,) = space.pictures(space.read("[" + "(3, 5)," * 6 + "]"))
    assert [node.partition(" · ")[2] for node in picture.nodes] == [f"{side}²" for side in sides[1:]]


def test_protocols():
    assert (FAIRNAS.protocol, SMALL.protocol) == ("proxyless", "proxyless")
    assert Mobile(strides=(1, 1, 2, 2, 1, 2, 1)).protocol == "cifar"
    protocol = PROTOCOLS["proxyless"][1]
    assert (protocol.epochs, protocol.batch, protocol.lr, protocol.schedule) == (300, 256, 0.05, "cosine")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variant": "fairnass"}, "`variant` must be one of .*; got 'fairnass'. Did you mean 'fairnas'"),
        ({"kernels": ()}, "`kernels` must be different numbers; got empty"),
        ({"kernels": (3, 3)}, "`kernels` must be different numbers; got 3 3"),
        ({"kernels": (3, 4)}, "`kernels` must be odd; got 3 4"),
        ({"expansions": (0,)}, "`expansions` must each be from 1 to 1,000; got 0"),
        ({"layers": (4, 4)}, "`layers` must be 6 numbers; got 2: 4 4"),
        ({"layers": (4, 4, 0, 4, 4, 1)}, "`layers` must each be from 1 to 1,000; got 0 in 4 4 0 4 4 1"),
        ({"strides": (2, 2, 2, 1, 2, 1)}, "`strides` must be 7 numbers; got 6: 2 2 2 1 2 1"),
        ({"strides": (2, 2, 2, 3, 1, 2, 1)}, "`strides` must each be from 1 to 2; got 3 in 2 2 2 3 1 2 1"),
        ({"width": 0.0}, "`width` must be more than 0; got 0.0"),
        ({"eps": 0.0}, "`eps` must be more than 0; got 0.0"),
        ({"dropout": 1.0}, r"`dropout` must be at least 0 and less than 1; got 1.0"),
    ],
)
def test_fields_out_of_range_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        Mobile(**fields)


# ---------------------------------------------------------------------- lists of pairs


def test_lists_both_ways():
    arch = SMALL.read("[(3, 7), skip, (6, 3), (3, 5), (3, 3), (6, 5), (6, 7)]")
    assert arch["1.0"] == "k7e3"
    assert arch["1.1"] == "skip"
    assert arch["2.0"] == "k3e6"
    assert SMALL.write(arch) == "[(3, 7), skip, (6, 3), (3, 5), (3, 3), (6, 5), (6, 7)]"
    for text in ("(3,7)skip | (6,3) | (3,5) | (3,3) | (6,5) | (6,7)", f"  {SMALL.write(arch)}\n", str(arch)):
        assert SMALL.read(text) == arch
    for space in (FAIRNAS, Mobile(variant="proxyless-gpu")):
        for i in range(20):
            drawn = space.sample(stream(i))
            assert space.parse(space.write(drawn)) == drawn
    for name in PUBLISHED:
        assert FAIRNAS.parse(FAIRNAS.write(FAIRNAS.read(name))) == FAIRNAS.read(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no architecture of mobile, which reads .* nor a published one: FairNAS-A"),
        ("rubbish", "'rubbish' is no architecture of mobile"),
        ("[(3, 7), stop]", "is no architecture of mobile"),
        ("[(3, 7), 3]", "is no architecture of mobile"),
        ("[(3, 7, 32)]", "is no architecture of mobile"),
        ("[]", "is no architecture of mobile"),
        ("[(7, 3)]", r"no block \(7, 3\): its expansions are 3 6 and its kernels 3 5 7"),
        ("[(3, 7), (3, 3)]", "names 2 blocks; proxyless has 7"),
        (
            "[skip" + ", (3, 3)" * 6 + "]",
            r"Block 1\.0 cannot be skipped in proxyless: it changes the size or the width\.$",
        ),
        ("1.0=k3e4", "'k3e4' is no answer to '1.0'"),
    ],
)
def test_texts_that_are_none_are_answered_in_words(text, said):
    with pytest.raises(UserError, match=said):
        SMALL.read(text)


def test_what_another_table_could_read_is_said():
    deep = Mobile(variant="proxyless")
    with pytest.raises(UserError, match="names 21 blocks; fairnas has 19. Set `variant` to 'proxyless'"):
        FAIRNAS.read(deep.write(deep.sample(stream(0))))
    with pytest.raises(UserError, match="names 19 blocks; proxyless has 21. Set `variant` to 'fairnas'"):
        deep.read("FairNAS-A")
    skips = "[(3, 3), skip" + ", (3, 3)" * 17 + "]"
    with pytest.raises(UserError, match=r"Block 1\.1 cannot be skipped in fairnas\. Set `depth`"):
        FAIRNAS.read(skips)
    assert FAIRNAS.replace(depth=True).read(skips)["1.1"] == "skip"
