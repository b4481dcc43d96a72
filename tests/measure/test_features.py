"""Feature maps of the options of an edge."""

import math

import numpy as np
import pytest
import torch

from gapless.core.mix import Mix
from gapless.core.progress import seeded, stream
from gapless.engine.supernet import MixedEdge, Supernet
from gapless.measure.features import Features, _Sums, alike, features
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged


def supernet_of(space, execution="reference"):
    with seeded("features"):
        return Supernet(space, execution).double()


def batches(space, *sizes):
    g = stream("features")
    return [(torch.randn(n, 3, space.size, space.size, dtype=torch.float64, generator=g), None) for n in sizes]


def soft(space):
    return Mix(torch.where(space.legal, 1.0, -math.inf).softmax(-1).double())


@pytest.mark.parametrize("execution", ["reference", "fused"])
def test_the_matrix_is_that_of_all_maps_at_once(execution):
    """By definition, from the maps of all images: centred for each option, multiplied, over the root of the variances;
    whatever the batches."""
    space = NASBench201(size=8, width=4, cells=1)
    supernet, data = supernet_of(space, execution), batches(space, 5, 2, 4)
    found = features(supernet, soft(space), data)
    assert len(found) == 18 and {f.images for f in found} == {11}
    one = next(f for f in found if f.decision == "2<-1")
    assert one.options == ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert tuple(one.groups.values()) == ("free", "weights", "weights", "free")
    edge = supernet.get_submodule(one.place)
    inputs = []
    handle = edge.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    supernet.eval()
    with torch.no_grad():
        for images, _ in data:
            supernet(images, soft(space))
        handle.remove()
        maps = torch.stack([edge[o](torch.cat(inputs)).flatten(1) for o in one.options])
    torch.testing.assert_close(one.means, maps.mean(dim=1))
    centred = (maps - maps.mean(dim=1, keepdim=True)).flatten(1)
    gram = centred @ centred.T
    expected = gram / (gram.diagonal()[:, None] * gram.diagonal()[None, :]).sqrt()
    torch.testing.assert_close(one.correlation, expected)


def test_the_supernet_stays_as_it_was():
    space = NASBench201(size=8, width=4, cells=1)
    supernet = supernet_of(space).train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    first = features(supernet, soft(space), batches(space, 4))
    assert supernet.training
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert not any(m._forward_hooks for m in supernet.modules())
    again = features(supernet, soft(space), batches(space, 4))
    assert all(torch.equal(a.correlation, b.correlation) for a, b in zip(first, again, strict=True))


def test_only_what_is_wanted_and_what_runs():
    space = Darts(size=8, width=4, cells=3)
    supernet = supernet_of(space)
    found = features(supernet, soft(space), batches(space, 3), lambda decision: decision == "reduce:2<-0")
    assert [f.place for f in found] == ["network.cells.1.body.edges.2<-0", "network.cells.2.body.edges.2<-0"]
    columns = tuple(tuple(range(3)) for _ in space.decisions)
    masked = features(
        supernet, Mix(soft(space).weight, active=columns), batches(space, 3), lambda d: d == "normal:2<-0"
    )
    assert [len(f.options) for f in masked] == [2]  # "none", which computes nothing, is the first


def test_a_map_that_does_not_vary_has_no_correlation():
    space = NASBench201(size=8, width=4, cells=1)
    supernet = supernet_of(space)
    for module in supernet.modules():
        if isinstance(module, MixedEdge):
            for p in module["nor_conv_1x1"].parameters():
                p.data.zero_()
    for found in features(supernet, soft(space), batches(space, 6)):
        column = found.options.index("nor_conv_1x1")
        assert found.correlation[column].isnan().all()
        others = [i for i in range(len(found.options)) if i != column]
        assert not found.correlation[others][:, others].isnan().any()


def test_how_alike_by_hand():
    correlation = torch.tensor([[1.0, 0.5, -0.2], [0.5, 1.0, 0.4], [-0.2, 0.4, 1.0]])
    groups = {"a": "weights", "b": "weights", "skip": "free"}
    told = alike(Features("p", "d", tuple(groups), groups, torch.zeros(3, 1), correlation, 5))
    assert told == {"weights": 0.5, "free": None, "across": pytest.approx(0.3)}


def test_maps_of_one_number_have_the_common_correlation_matrix():
    sums = _Sums(dict.fromkeys("ab", "weights"))
    maps = torch.randn(2, 9, 1, dtype=torch.float64, generator=stream("maps")) + torch.tensor([[[3.0]], [[-2.0]]])
    for part in maps.split((4, 5), dim=1):
        for option, own in zip("ab", part, strict=True):
            sums.keep(option, torch.nn.Identity(), (), own)
    expected = np.corrcoef(maps.squeeze(-1).numpy())
    np.testing.assert_allclose(sums.result("p", "d").correlation.numpy(), expected, rtol=1e-12)


def test_statistics_of_the_batch_and_either_execution():
    space = NASBench201(size=8, width=4, cells=1)
    data = batches(space, 6)
    fused, reference = (
        features(supernet_of(space, execution), soft(space), data, bn="batch") for execution in ("fused", "reference")
    )
    running = features(supernet_of(space), soft(space), data)
    assert not torch.allclose(fused[0].means, running[0].means)
    for one, other in zip(fused, reference, strict=True):
        torch.testing.assert_close(one.means, other.means)
        torch.testing.assert_close(one.correlation, other.correlation)


def test_free_sites_are_places_too():
    space = Ragged()
    found = features(supernet_of(space), soft(space), batches(space, 3, 2))
    assert [f.decision for f in found if f.decision in ("first", "second", "third")] == ["first", "second"]
    second = next(f for f in found if f.decision == "second")
    assert second.groups == {"conv": "weights", "skip": "free"}  # it names no groups: what holds parameters has weights
    assert {f.images for f in found} == {5}


def test_noise_is_drawn_anew_and_leaves_the_generator_alone():
    space = Darts(size=8, width=4, cells=1, options="s4")
    supernet, state = supernet_of(space), torch.get_rng_state()
    first, again = (features(supernet, soft(space), batches(space, 40)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0].correlation, again[0].correlation)
    assert first[0].options[0] == "noise" and float(first[0].correlation[0, 1].abs()) < 0.1
