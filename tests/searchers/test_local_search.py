"""Local search."""

import itertools

import pytest

from gapless.core.errors import UserError
from gapless.core.searcher import explore
from gapless.searchers.local_search import LocalSearch
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, patched
from gapless.testing.searchers import value

SPACE = NASBench201()


def score(arch):
    return value(SPACE, arch)


def steps(searcher, count, score=score):
    """Yield (where it stood, what it asked, where it stands), an evaluation at a time."""
    for _ in range(count):
        here = searcher.here
        (arch,) = searcher.ask(1)
        searcher.tell([(arch, {"score": score(arch)})])
        yield here, arch, searcher.here


def test_a_climb_begins_at_the_best_of_the_starts():
    searcher = LocalSearch(SPACE, starts=5, seed=1)
    told = list(steps(searcher, 5))
    assert [after for _, _, after in told[:-1]] == [None] * 4
    assert searcher.here == max((arch for _, arch, _ in told), key=score)


@pytest.mark.parametrize("space", [SPACE, Ragged()], ids=["nasbench201", "ragged"])
def test_it_goes_to_the_first_neighbour_that_is_better(space):
    searcher = LocalSearch(space, seed=2)
    for here, arch, after in steps(searcher, 150, lambda arch: value(space, arch)):
        if here is None:
            continue
        assert arch in space.neighbours(here)
        if value(space, arch) > value(space, here):
            assert after is None or value(space, after) >= value(space, arch)
        elif after not in (None, here):  # a move without a better one told: one that was known from before
            raise AssertionError("it moved though nothing was better")


def test_the_steepest_climb_scores_all_neighbours_and_goes_to_the_best():
    searcher = LocalSearch(SPACE, starts=1, steepest=True, seed=3)
    told = list(steps(searcher, 120))
    moves = [(here, after) for here, _, after in told if None not in (here, after) and here != after]
    assert moves
    for here, after in moves:
        assert after in SPACE.neighbours(here)
        assert score(after) == max(map(score, SPACE.neighbours(here)))


def test_at_a_local_optimum_it_starts_again():
    searcher, ends = LocalSearch(SPACE, starts=1, seed=4), 0
    for here, arch, after in steps(searcher, 400):
        if here is not None and after is None and score(arch) <= score(here):  # nor did it move on before it ended
            near = SPACE.neighbours(here)
            assert all(arch in searcher.known for arch in near)
            assert max(map(score, near)) <= score(here)
            ends += 1
    assert ends
    assert searcher.drawn > ends


def test_no_neighbour_is_asked_for_twice():
    told = explore(LocalSearch(SPACE, seed=5), score, 300)
    searcher = LocalSearch(SPACE, seed=5)
    seen = set()
    for (arch, _), _ in zip(told, itertools.count(), strict=False):
        climbing = searcher.here is not None
        assert searcher.ask(1) == [arch]
        assert not (climbing and arch in seen)
        seen.add(arch)
        searcher.tell([(arch, {"score": score(arch)})])


def test_a_batch_asks_for_different_neighbours():
    searcher = LocalSearch(SPACE, starts=1, seed=6)
    list(steps(searcher, 1))
    assert len(set(searcher.ask(24))) == 24
    assert len(searcher.ask(3)) == 3  # there are 24 neighbours: the rest is drawn


def test_it_goes_on_where_everything_is_known():
    space = patched()
    told = explore(LocalSearch(space, starts=2), lambda arch: value(space, arch), 50)
    assert len(told) == 50
    assert len({arch for arch, _ in told}) == space.count


def test_it_finds_the_optimum_of_a_separable_score():
    searcher = LocalSearch(SPACE, seed=7)
    explore(searcher, score, 150)
    assert [searcher.best()[d.name] for d in SPACE.decisions] == [d.options[0] for d in SPACE.decisions]


def test_wrong_settings_and_no_score_are_told():
    with pytest.raises(UserError, match="`starts` must be at least 1; got 0"):
        LocalSearch(SPACE, starts=0)
    with pytest.raises(UserError, match="no answer yet"):
        LocalSearch(SPACE).best()
