"""What searches must do better than random draws by as many evaluations, on a score that can be climbed."""

import statistics

import pytest

from gapless.core import catalogue
from gapless.core.searcher import explore
from gapless.searchers.random import Random
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.searchers import value

SPACES = {"nasbench201": (NASBench201(), 20, 100), "darts": (Darts(), 4, 200)}


def mean(kind, space, seeds, count):
    found = []
    for seed in range(seeds):
        searcher = kind(space, seed=seed)
        explore(searcher, lambda arch: value(space, arch), count)
        found.append(value(space, searcher.best()))
    return statistics.mean(found)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", [n for n in catalogue.names("searchers") if n != "random"])
def test_it_beats_random_search_where_decisions_are_separable(name, space):
    chosen, seeds, count = SPACES[space]
    kind = catalogue.find(name, "searchers")
    assert mean(kind, chosen, seeds, count) > mean(Random, chosen, seeds, count) + 0.5
