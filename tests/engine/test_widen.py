"""Widening as DrNAS uses it (arXiv 2006.10355, released ``net2wider.py``)."""

import copy

import pytest
import torch

from gapless.core.op import Halves, OpModule
from gapless.core.progress import seeded, stream
from gapless.engine.supernet import Supernet
from gapless.engine.widen import carry, take, widen
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged
from gapless.testing.spaces import _train, snapshot, supernet_of

PAIRS = {
    "darts": (Darts(size=8, width=12, cells=3, options="drnas", partial=6), 3),
    "nasbench201": (NASBench201(size=8, width=8, cells=1, partial=4), 2),
    "ragged": (Ragged(width=16, partial=4, affine=True), 2),
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """Return the trained small supernet, the wide one, the map, and the partial channels of both."""
    space, partial = PAIRS[request.param]
    old = supernet_of(space)
    _train(space, old)
    with seeded("widen"):
        new, index = widen(old, space.replace(partial=partial), stream("widen"))
    return old, new, index


def test_the_old_part_of_every_tensor_is_the_old_tensor(pair):
    """U[:n, :n] = W, running statistics alike; what does not grow is equal. Behind a factorised reduction that holds
    for each half."""
    old, new, _ = pair
    before, grown = old.state_dict(), 0
    halved = {
        f"{path}.2"
        for path, module in new.named_modules()
        if isinstance(module, OpModule) and Halves() in module.layers
    }
    for name, value in new.state_dict().items():
        small = before[name]
        parts = [(value, small)]
        if name.rpartition(".")[0] in halved and small.dim():
            parts = list(zip(value.chunk(2), small.chunk(2), strict=True))
        for wide, narrow in parts:
            assert torch.equal(wide[tuple(slice(0, n) for n in narrow.shape)], narrow), name
        grown += value.shape != small.shape
    assert grown


def test_every_new_row_is_a_copy_of_an_old_one(pair):
    """New weights are W[g(o), g(i)] with one g per dimension, the identity on the old indices, and never divided."""
    old, new, index = pair
    before = old.state_dict()
    for name, value in new.state_dict().items():
        maps = index.get(name, {})
        expected = before[name]
        for dim, g in maps.items():
            assert len(g) == value.shape[dim], name
            assert int(g.max()) < before[name].shape[dim], name
            expected = expected.index_select(dim, g)
        assert torch.equal(value, expected), name


def test_a_pointwise_stage_reads_by_the_index_of_the_depthwise_stage_before_it():
    space, partial = PAIRS["darts"]
    old = supernet_of(space)
    _, index = widen(old, space.replace(partial=partial), stream("w"))
    found = 0
    for name, maps in index.items():
        if "sep_conv_3x3.1.weight" in name:
            path = name.removesuffix("1.weight")
            assert torch.equal(maps[0], index[f"{path}2.weight"][1])
            assert torch.equal(index[f"{path}2.weight"][0], index[f"{path}3.running_mean"][0])
            assert torch.equal(index[f"{path}5.weight"][0], index[f"{path}6.weight"][1])
            found += 1
    assert found


def test_a_factorised_reduction_widens_its_halves_apart():
    space, partial = PAIRS["darts"]
    old = supernet_of(space)
    _, index = widen(old, space.replace(partial=partial), stream("w"))
    names = [n for n in index if n.endswith("skip_connect.1.first.weight")]
    assert names
    for name in names:
        path = name.removesuffix("1.first.weight")
        half = old.get_parameter(name).shape[0]
        behind = torch.cat([index[name][0], index[f"{path}1.second.weight"][0] + half])
        assert torch.equal(index[f"{path}2.running_mean"][0], behind)
        assert (index[f"{path}1.second.weight"][0] < half).all()


def test_each_layer_draws_an_index_of_its_own():
    space, partial = PAIRS["nasbench201"]
    _, index = widen(supernet_of(space), space.replace(partial=partial), stream("w"))
    extra = {tuple(maps[0][2:].tolist()) for name, maps in index.items() if name.endswith("nor_conv_3x3.1.weight")}
    assert len(extra) > 1


def test_widening_is_a_function_of_the_stream_and_leaves_the_old_one_alone():
    space, partial = PAIRS["ragged"]
    old = supernet_of(space)
    before = snapshot(old)
    nets = []
    for key in ("a", "a", "b"):
        with seeded(key):
            nets.append(widen(old, space.replace(partial=partial), stream(key))[0].state_dict())
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    assert not all(torch.equal(value, nets[2][name]) for name, value in nets[0].items())
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())


def test_type_and_mode_are_kept():
    space, partial = PAIRS["ragged"]
    for training in (True, False):
        new, _ = widen(supernet_of(space).train(training), space.replace(partial=partial), stream(0))
        assert new.training == training
        assert {p.dtype for p in new.parameters()} == {torch.float64}


def test_widening_by_nothing_is_a_copy():
    space, _ = PAIRS["ragged"]
    old = supernet_of(space)
    new, _ = widen(old, space, stream(0))
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize("change", [{"width": 24}, {"classes": 5}, {"affine": True}, {"cells": 2}])
def test_only_candidate_operations_can_grow(change):
    space = NASBench201(size=8, width=8, cells=1, partial=4)
    with pytest.raises(ValueError, match=r"a stage can widen (candidate )?operations only"):
        widen(supernet_of(space), space.replace(**change), stream(0))


def test_a_network_cannot_lose_a_part():
    space = Darts(size=8, width=4, cells=3, auxiliary=True)
    with pytest.raises(ValueError, match=r"but it changes network\.auxiliary"):
        widen(supernet_of(space), space.replace(auxiliary=False), stream(0))


def test_a_supernet_cannot_be_narrowed():
    space = NASBench201(size=8, width=8, cells=1, partial=2)
    with pytest.raises(ValueError, match="narrows one from 4 to 2 channels"):
        widen(supernet_of(space), space.replace(partial=4), stream(0))


# ---------------------------------------------------------------------- the optimiser


def test_momentum_is_carried_by_name_along_the_same_index():
    space, partial = PAIRS["ragged"]
    old = supernet_of(space)
    optimiser = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    old(x, space.one_hot(space.sample(stream(0)), dtype=x.dtype)).square().sum().backward()
    optimiser.step()
    new, index = widen(old, space.replace(partial=partial), stream(0))
    after = torch.optim.SGD(new.parameters(), lr=0.1, momentum=0.9)
    carry(old, new, optimiser, after, index)
    names = dict(new.named_parameters())
    some = 0
    for name, p in old.named_parameters():
        state = after.state[names[name]]
        if p.grad is None:
            assert not state, f"{name} never moved, yet it has momentum"
            continue
        momentum = optimiser.state[p]["momentum_buffer"]
        assert state["momentum_buffer"].shape == names[name].shape
        assert torch.equal(state["momentum_buffer"], take(momentum, index.get(name, {})))
        assert state["momentum_buffer"].data_ptr() != momentum.data_ptr()
        some += state["momentum_buffer"].shape != momentum.shape
    assert some
    after.zero_grad()
    new(x, space.one_hot(space.sample(stream(0)), dtype=x.dtype)).square().sum().backward()
    after.step()


def test_steps_of_an_adaptive_optimiser_are_carried_whole():
    space, partial = PAIRS["nasbench201"]
    old = supernet_of(space)
    optimiser = torch.optim.Adam(old.parameters())
    _one_step(old, space, optimiser)
    new, index = widen(old, space.replace(partial=partial), stream(0))
    after = torch.optim.Adam(new.parameters())
    carry(old, new, optimiser, after, index)
    names = dict(new.named_parameters())
    for name, p in old.named_parameters():
        for key, value in optimiser.state.get(p, {}).items():
            other = after.state[names[name]][key]
            assert torch.equal(other, value if key == "step" else take(value, index.get(name, {})))


def _one_step(supernet: Supernet, space, optimiser: torch.optim.Optimizer) -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    supernet(x, space.one_hot(space.sample(stream(0)), dtype=x.dtype)).square().sum().backward()
    optimiser.step()


def test_the_map_needs_no_names_of_its_own():
    """Nothing is keyed by identity or position: a copy of the supernet widens alike."""
    space, partial = PAIRS["ragged"]
    old = supernet_of(space)
    with seeded("x"):
        one = widen(old, space.replace(partial=partial), stream(0))[0].state_dict()
    with seeded("x"):
        other = widen(copy.deepcopy(old), space.replace(partial=partial), stream(0))[0].state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
