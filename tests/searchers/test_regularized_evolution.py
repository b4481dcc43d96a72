"""Regularized evolution."""

import pytest

from gapless.core.errors import UserError
from gapless.core.searcher import explore
from gapless.searchers.regularized_evolution import RegularizedEvolution
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged
from gapless.testing.searchers import value

SPACE = NASBench201()


def members(searcher):
    return [arch for arch, _ in searcher.members]


def test_the_oldest_leaves_and_never_the_worst():
    searcher, told = RegularizedEvolution(SPACE, seed=1), []
    for step in range(60):
        (arch,) = searcher.ask(1)
        told.append(arch)
        searcher.tell([(arch, {"score": -step})])  # the oldest is always the best
        assert members(searcher) == told[-10:]
    assert searcher.best() == told[0]


def test_the_answer_is_of_the_history_and_not_of_the_last_population():
    searcher = RegularizedEvolution(SPACE, seed=2)
    (star,) = searcher.ask(1)
    searcher.tell([(star, {"score": 100.0})])
    while star in members(searcher):
        (arch,) = searcher.ask(1)
        searcher.tell([(arch, {"score": 0.0})])
    for arch in searcher.ask(20):
        searcher.tell([(arch, {"score": 1.0})])
    assert star not in members(searcher)
    assert searcher.best() == star


@pytest.mark.parametrize("space", [SPACE, Ragged()], ids=["nasbench201", "ragged"])
def test_a_child_has_one_change(space):
    searcher = RegularizedEvolution(space, seed=3)
    for step in range(80):
        parents = members(searcher)
        (child,) = searcher.ask(1)
        if step >= 10:
            assert any(child in space.neighbours(parent) for parent in parents)
        searcher.tell([(child, {"score": value(space, child)})])


def test_a_child_on_nasbench201_differs_in_one_edge_each_as_often():
    searcher = RegularizedEvolution(SPACE, population=1, seed=4)
    (parent,) = searcher.ask(1)
    searcher.tell([(parent, {"score": 0.0})])
    count = dict.fromkeys(parent, 0)
    for child in searcher.ask(1200):
        (changed,) = [name for name in parent if child[name] != parent[name]]
        count[changed] += 1
    assert sum((n - 200) ** 2 / 200 for n in count.values()) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_the_tournament_is_won_by_the_best_of_three_drawn_with_replacement():
    searcher = RegularizedEvolution(SPACE, seed=5)
    start = searcher.ask(10)
    searcher.tell([(arch, {"score": float(i)}) for i, arch in enumerate(start)])
    near = {arch: set(SPACE.neighbours(arch)) for arch in start}
    sure = [[arch for arch in start if child in near[arch]] for child in searcher.ask(2000)]
    wins = [start.index(parents[0]) for parents in sure if len(parents) == 1]
    assert len(wins) > 1500
    share = sum(place == 9 for place in wins) / len(wins)
    assert share == pytest.approx(1 - 0.9**3, abs=0.035)  # 0.271: one of three draws is the best of ten
    assert 0 in wins  # 0.1 ** 3, which without replacement could not be


def test_where_nothing_near_is_within_the_limits_it_draws():
    searcher = RegularizedEvolution(SPACE, population=1, seed=6)
    (parent,) = searcher.ask(1)
    searcher.tell([(parent, {"score": 0.0})])
    near = set(SPACE.neighbours(parent)) | {parent}
    searcher.within = lambda arch: arch not in near
    assert all(arch not in near for arch in searcher.ask(20))


def test_no_answer_without_a_score():
    with pytest.raises(UserError, match="no answer yet"):
        RegularizedEvolution(SPACE).best()


@pytest.mark.parametrize("name", ["population", "tournament"])
def test_settings_are_checked(name):
    with pytest.raises(UserError, match=f"`{name}` must be at least 1; got 0"):
        RegularizedEvolution(SPACE, **{name: 0})


def test_it_climbs():
    searcher = RegularizedEvolution(SPACE, seed=7)
    told = explore(searcher, lambda arch: value(SPACE, arch), 400)
    mean = sum(scores["score"] for _, scores in told[100:]) / 300
    assert mean > 6 / 5 + 1  # of six edges, one in five is right by chance
