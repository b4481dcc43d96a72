"""The evolution of SPOS."""

import math

import pytest
import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.searcher import explore
from gapless.searchers.evolution import Evolution, cross, mutate
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, patched
from gapless.testing.searchers import value
from gapless.testing.spaces import belongs

SPACE = NASBench201()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_is_asked_for_twice():
    told = explore(Evolution(SPACE, seed=1), lambda arch: value(SPACE, arch), 1000)
    assert len({arch for arch, _ in told}) == 1000


def test_a_generation_descends_from_the_ten_best_of_the_whole_history():
    searcher = Evolution(SPACE, seed=2)
    start = searcher.ask(50)
    searcher.tell([(arch, {"score": value(SPACE, arch)}) for arch in start])
    for _ in range(3):
        best = sorted(searcher.known, key=lambda arch: -searcher.known[arch])[:10]
        made = searcher.ask(50)
        for arch in made[:25]:  # a mutation changes few edges: 0.48 in the mean
            assert min(sum(arch[d] != parent[d] for d in arch) for parent in best) <= 4
        for arch in made[25:40]:  # each gene of a crossover is that of some parent
            assert all(any(arch[d] == parent[d] for parent in best) for d in arch)
        searcher.tell([(arch, {"score": 0.0}) for arch in made])  # nothing comes near the first generation


def test_a_gene_flips_as_often_as_the_rate_says():
    chance, parent, count = generator(3), SPACE.sample(generator(4)), 20_000
    flips = dict.fromkeys(parent, 0)
    for _ in range(count):
        child = mutate(SPACE, parent, 0.1, chance)
        for name in parent:
            flips[name] += child[name] != parent[name]
    rate = 0.1 * (5 - 1) / 5
    sigma = math.sqrt(count * rate * (1 - rate))
    for n in flips.values():
        assert abs(n - count * rate) < 3.5 * sigma
    total = sum(flips.values())
    assert abs(total - 6 * count * rate) < 3 * math.sqrt(6) * sigma


@pytest.mark.parametrize("space", [Ragged(), Darts(), patched()], ids=["ragged", "darts", "patched"])
def test_genes_of_any_space_mutate_and_cross(space):
    chance = generator(5)
    one, other = space.sample(chance), space.sample(chance)
    for _ in range(100):
        child = cross(space, one, other, chance)
        belongs(space, child)
        assert all(child[name] in (one.get(name), other.get(name)) for name in child)
        assert all(name in child for name in one if name in other)
        child = mutate(space, one, 0.5, chance)
        belongs(space, child)
    assert mutate(space, one, 0.0, chance) == one
    assert cross(space, one, one, chance) == one


def test_a_mutation_reaches_every_kept_decision_and_option():
    space, chance = Ragged(), generator(6)
    start, seen = space.sample(chance), set()
    for _ in range(500):
        seen |= set(mutate(space, start, 1.0, chance).items())
    assert seen == {(d.name, d.options[i]) for d in space.decisions for i in d.eligible}


def test_a_crossover_takes_from_either_parent_alike():
    chance = generator(7)
    one, other = (Arch({d.name: d.options[i] for d in SPACE.decisions}) for i in (0, 1))
    count = 4000
    share = sum(sum(cross(SPACE, one, other, chance)[name] == one[name] for name in one) for _ in range(count)) / 6
    assert abs(share - count / 2) < 3 * math.sqrt(count / 6) / 2


def test_nothing_beyond_the_limits_is_asked_for_even_where_few_are_within():
    searcher = Evolution(SPACE, seed=8)
    searcher.within = lambda arch: sum(o == "none" for o in arch.values()) >= 4  # 2 % of the space
    told = explore(searcher, lambda arch: value(SPACE, arch), 150)
    assert all(searcher.within(arch) for arch, _ in told)


def test_a_space_smaller_than_a_generation_is_searched_to_its_end_and_on():
    space = patched()
    searcher = Evolution(space)
    told = explore(searcher, lambda arch: value(space, arch), 120)
    assert len(told) == 120
    assert len({arch for arch, _ in told}) == space.count


def test_the_answer_is_the_best_of_all_generations():
    searcher = Evolution(SPACE, population=4, parents=1, mutations=2, crossovers=2, seed=9)
    (star,) = searcher.ask(1)
    searcher.tell([(star, {"score": 10.0})])
    explore(searcher, lambda arch: 0.0, 30)
    assert searcher.best() == star


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"population": 0}, "`population` must be at least 1; got 0"),
        ({"population": 20}, "`mutations` and `crossovers` must sum to at most `population`; got 25, 25 and 20"),
        ({"rate": 1.5}, "from 0 to 1; got 1.5"),
        ({"parents": 0}, "`parents` must be at least 1"),
    ],
)
def test_settings_are_checked(given, said):
    with pytest.raises(UserError, match=said):
        Evolution(SPACE, **given)
