"""The way from a supernet to an architecture alone, measured."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from gapless.core.mix import Mix
from gapless.core.plan import Train
from gapless.core.progress import seeded, stream
from gapless.engine.search import Search
from gapless.measure.gap import TURNS, Yardstick
from gapless.methods.darts import DARTS
from gapless.methods.gdas import GDAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=2, batch=8, lr=0.1, weight_decay=0.01, decay_norms=False, clip=0.5)


def measured(space=SPACE, kind=DARTS, images=30) -> Yardstick:
    """Return a yardstick for a search of two epochs."""
    with seeded("gap"):
        method = kind(space).double()
    search = Search(space, method, noise(space, 32), TRAIN, precision="float64")
    for _ in search.run():
        pass
    with torch.no_grad():
        method.alpha.normal_(generator=stream("alpha"))
    return Yardstick(search.bench(), method, search.data, TRAIN, images=images, precision="float64")


@pytest.fixture(scope="module")
def by():
    return measured()


def arch_of(by: Yardstick, number: int = 0):
    return by.space.sample(stream("arch", number))


def test_an_architecture_in_the_supernet_is_the_network_alone(by):
    for number in range(3):
        arch = arch_of(by, number)
        child = by.space.network(arch).double()
        weights = {n.removeprefix("network."): v for n, v in by.bench.supernet.state_dict().items()}
        child.load_state_dict({name: weights[name] for name in child.state_dict()})
        for bn in ("running", "batch", "recalibrated"):
            assert by.inherited(arch, bn) == by.alone(child, bn)


def test_a_decided_mix_has_no_discretisation_gap(by):
    arch = arch_of(by)
    mix = by.space.one_hot(arch, dtype=torch.float64)
    assert by.supernet([mix]) == by.inherited(arch)
    assert [value for _, value in by.profile(arch, mix)] == [by.inherited(arch)] * len(by.space.decisions)


def test_fixing_goes_from_the_mix_to_the_architecture_surest_first(by):
    (mix,) = by.mixes()
    arch = by.space.decode(by.method.scores())
    profile = by.profile(arch, mix)
    top = mix.weight.topk(2, dim=-1).values
    order = (top[:, 0] - top[:, 1]).argsort(descending=True).tolist()
    assert [name for name, _ in profile] == [by.space.decisions[row].name for row in order]
    assert profile[-1][1] == by.inherited(arch)
    weight = mix.weight.clone()
    weight[order[0]] = by.space.one_hot(arch).weight[order[0]].double()
    assert profile[0][1] == by.supernet([Mix(weight)])


def test_decisions_that_the_answer_lacks_are_taken_away():
    by = measured(Darts(size=8, width=4, cells=2))
    (mix,) = by.mixes()
    arch = by.space.decode(by.method.scores())
    assert by.profile(arch, mix)[-1][1] == by.inherited(arch)


def test_a_method_that_draws_has_the_mean_of_its_draws():
    by = measured(kind=GDAS)
    mixes = by.mixes()
    assert len(mixes) in (1, TURNS)
    assert by.supernet(mixes) == pytest.approx(sum(by.supernet([m]) for m in mixes) / len(mixes))


def test_tuning_is_the_searchs_own_training_of_a_copy(by):
    """Two steps by hand; the network is left as it was, and a budget on the way changes nothing."""
    arch = arch_of(by, 1)
    with seeded("child"):
        child = by.space.network(arch).double()
    before = deepcopy(child.state_dict())
    (two,) = by.tuned(child, [2], 0.05)
    assert by.tuned(child, [1, 2], 0.05)[1] == two
    assert all(torch.equal(v, before[name]) for name, v in child.state_dict().items())
    hand = deepcopy(child).train()
    momentum = {}
    parts = by._batches()
    for step in range(2):
        images, labels = by.bench.feed.weight_batch(next(parts), step)
        hand.zero_grad()
        F.cross_entropy(hand(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(hand.parameters(), TRAIN.clip)
        with torch.no_grad():
            for name, p in hand.named_parameters():
                if p.grad is None:
                    continue
                pull = p.grad + TRAIN.weight_decay * p * (p.dim() > 1)
                momentum[name] = pull if name not in momentum else TRAIN.momentum * momentum[name] + pull
                p -= 0.05 * momentum[name]
    assert by.alone(hand, "recalibrated") == two


def test_measuring_changes_nothing_and_repeats(by):
    supernet, random = deepcopy(by.bench.supernet.state_dict()), torch.random.get_rng_state()
    arch = arch_of(by, 2)

    def everything():
        child = deepcopy(network)
        (mix,) = by.mixes()
        return by.supernet([mix]), by.inherited(arch, "recalibrated"), by.profile(arch, mix), by.tuned(child, [1], 0.1)

    with seeded("network"):
        network = by.space.network(arch).double()
    assert everything() == everything()
    assert torch.equal(random, torch.random.get_rng_state())
    for name, value in by.bench.supernet.state_dict().items():
        assert torch.equal(value, supernet[name]), name


def test_accuracies_are_of_the_test_images(by):
    """By hand, on the first of a fixed order of the test split."""
    with seeded("child"):
        child = by.space.network(arch_of(by)).double().eval()
    few = Yardstick(by.bench, by.method, by.data, TRAIN, images=7, precision="float64")
    assert len(few.index) == 7
    images, labels = by.data.batch(by.data.test, few.index, dtype=torch.float64)
    assert few.alone(child) == 100 * (child(images).argmax(dim=1) == labels).double().mean().item()
