"""Networks that share as much as is asked, trained one per batch (arXiv 2001.01431)."""

import pytest
import torch
import torch.nn.functional as F

from gapless.core.plan import Plan, Train
from gapless.core.progress import seeded
from gapless.engine.feed import Feed
from gapless.engine.schedule import rate
from gapless.engine.sgd import sgd
from gapless.engine.supernet import Supernet
from gapless.measure.sharing import Sharing, everything, prefix
from gapless.spaces.insights64 import Insights64
from gapless.testing.examples import noise

SPACE = Insights64(size=8, width=4, cells=2)
CHILDREN = tuple(map(SPACE.parse, ("434", "222", "413", "134")))
TRAIN = Train(epochs=2, batch=8, lr=0.1, weight_decay=0.01, clip=0.5)
KIND = {"dtype": torch.float64, "execution": "reference"}


def nothing(name):
    return False


def sharing(**settings):
    return Sharing(SPACE, CHILDREN, noise(SPACE, 48), TRAIN, **{**KIND, **settings})


def trained(**settings):
    found = sharing(**settings)
    assert list(found.run()) == [1, 2]
    assert found.step == 12
    return found


def state(one, child):
    return one.network(child).state_dict()


def same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-12, atol=1e-12)


def apart(children, owners, turns):
    """Return, by owner, supernets of their own that are trained in the steps of their children only."""
    data = noise(SPACE, 48)
    feed = Feed(data, Plan(coupling="weights_only"), TRAIN, 0, torch.float64)
    nets = {}
    for owner in dict.fromkeys(owners):
        with seeded(0, "weights"):
            nets[owner] = Supernet(SPACE, "reference").double()
    optimisers = {owner: sgd(net.parameters(), TRAIN) for owner, net in nets.items()}
    step = 0
    for epoch in range(TRAIN.epochs):
        for part in feed.epoch(epoch, 0):
            child = turns(step)
            net, optimiser = nets[owners[child]].train(), optimisers[owners[child]]
            images, labels = feed.weight_batch(part, step)
            optimiser.zero_grad()
            F.cross_entropy(net(images, SPACE.one_hot(children[child], dtype=torch.float64)), labels).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), TRAIN.clip)
            optimiser.param_groups[0]["lr"] = rate(TRAIN, epoch, float(epoch))
            optimiser.step()
            step += 1
    return [nets[owner].inherit(child).state_dict() for child, owner in zip(children, owners, strict=True)]


def test_a_child_of_its_own_is_the_network_alone():
    """One child is its network under plain descent, whatever it might share."""
    data = noise(SPACE, 48)
    for shares in (everything, nothing, prefix(1)):
        one = Sharing(SPACE, CHILDREN[:1], data, TRAIN, shares=shares, **KIND)
        begun = one.network(0)
        list(one.run())
        feed = Feed(data, Plan(coupling="weights_only"), TRAIN, 0, torch.float64)
        optimiser, step = sgd(begun.parameters(), TRAIN), 0
        for epoch in range(TRAIN.epochs):
            for part in feed.epoch(epoch, 0):
                images, labels = feed.weight_batch(part, step)
                optimiser.zero_grad()
                F.cross_entropy(begun.train()(images), labels).backward()
                torch.nn.utils.clip_grad_norm_(begun.parameters(), TRAIN.clip)
                optimiser.param_groups[0]["lr"] = rate(TRAIN, epoch, float(epoch))
                optimiser.step()
                step += 1
        same(state(one, 0), begun.state_dict())


@pytest.mark.parametrize("owners", [(0, 1, 2, 3), (0, 0, 1, 1), (1, 0, 1, 0), (0, 0, 0, 0)])
def test_owners_that_share_nothing_are_supernets_of_their_own(owners):
    """Weights, momentum and running statistics are put away and brought back without loss; with one owner for all that
    is plain sharing."""
    found = trained(shares=nothing, owners=owners)
    for child, expected in enumerate(apart(CHILDREN, owners, found.turn)):
        same(state(found, child), expected)
    if len(set(owners)) == 1:
        plain = trained()
        for child in range(4):
            same(state(found, child), state(plain, child))


@pytest.mark.parametrize("settings", [pytest.param({}, marks=pytest.mark.full), {"shares": prefix(1)}])
def test_fused_execution_comes_to_the_same(settings):
    fused, reference = trained(execution="fused", **settings), trained(**settings)
    for child in range(4):
        for name, value in state(fused, child).items():
            torch.testing.assert_close(value, state(reference, child)[name], rtol=1e-9, atol=1e-9)


def test_a_step_moves_the_path_of_its_child_only():
    one = sharing()
    before = {name: p.clone() for name, p in one.supernet.network.named_parameters()}
    one.update(1, torch.arange(8), 0.1)
    moved = {name for name, p in one.supernet.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(dict(SPACE.network(CHILDREN[1]).named_parameters()))
    one.update(2, torch.arange(8), 0.1)  # momentum and decay leave resting weights alone
    path = set(dict(SPACE.network(CHILDREN[2]).named_parameters()))
    weights = {name: p.clone() for name, p in one.supernet.network.named_parameters()}
    one.update(0, torch.arange(8), 0.1)
    rests = path - set(dict(SPACE.network(CHILDREN[0]).named_parameters()))
    assert rests
    assert all(torch.equal(weights[n], p) for n, p in one.supernet.network.named_parameters() if n in rests)


def test_a_prefix_is_shared_and_the_rest_is_not():
    one = sharing(shares=prefix(1))
    begun = [state(one, child) for child in range(4)]
    one.update(0, torch.arange(8), 0.1)
    first, other = state(one, 0), state(one, 2)  # both have a pool on 1<-0 and 2<-1 apart
    shared = {name for name in other if name.startswith(("stem.", "cells.0.point."))}
    assert any(not torch.equal(first[n], begun[0][n]) for n in shared)
    for name, value in other.items():
        if name in shared:
            assert torch.equal(value, first[name])
        elif not name.startswith("cells.0."):
            assert torch.equal(value, begun[2][name]), name
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_every_cell_in_the_prefix_leaves_the_classifier():
    shares = prefix(SPACE.cells)
    names = dict(Supernet(SPACE).network.named_parameters())
    assert {n for n in names if not shares(n)} == {"classifier.weight", "classifier.bias"}
    assert prefix(1)("cells.0.point.1.weight") and not prefix(1)("cells.10.point.1.weight")
    with pytest.raises(ValueError, match="-1 cells cannot be shared"):
        prefix(-1)


@pytest.mark.parametrize(
    "shares", [prefix(1), *(pytest.param(shares, marks=pytest.mark.full) for shares in (everything, nothing))]
)
def test_judging_changes_nothing(shares):
    plain = trained(shares=shares)
    watched = sharing(shares=shares)
    for _ in watched.run(lambda: (watched.accuracies(10), watched.accuracies(10, "recalibrated", calibration=16))):
        pass
    for child in range(4):
        first, second = state(plain, child), state(watched, child)
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_accuracies_are_those_of_the_networks():
    one = trained(shares=prefix(1))
    data = noise(SPACE, 48)
    found = one.accuracies(len(data.test))
    for child in range(4):
        images, labels = data.batch(data.test, torch.arange(len(data.test)), dtype=torch.float64)
        with torch.no_grad():
            right = one.network(child).eval()(images).argmax(dim=1) == labels
        assert found[child] == pytest.approx(100 * float(right.double().mean()))
    assert one.accuracies(len(data.test), children=[2]) == found[2:3]


def test_orders():
    turns = {kind: [sharing(order=kind).turn(step) for step in range(40)] for kind in ("cyclic", "fixed", "shuffled")}
    assert turns["cyclic"] == list(range(4)) * 10
    for kind in ("fixed", "shuffled"):
        rounds = [tuple(turns[kind][i : i + 4]) for i in range(0, 40, 4)]
        assert all(sorted(one) == [0, 1, 2, 3] for one in rounds)
        assert (len(set(rounds)) == 1) == (kind == "fixed")
    again = [sharing(order="fixed", order_seed=seed).turn(step) for seed in range(6) for step in range(4)]
    assert len({tuple(again[i : i + 4]) for i in range(0, 24, 4)}) > 1


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no child"):
        Sharing(SPACE, (), noise(SPACE, 48), TRAIN)
    with pytest.raises(ValueError, match="1 owners for 4 children"):
        sharing(owners=[0])
