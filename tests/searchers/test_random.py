"""Random search."""

import pytest

from gapless.searchers.random import Random
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.searchers import value

SPACE = NASBench201()


def test_draws_do_not_depend_on_how_they_are_asked_for():
    one, other = Random(SPACE, seed=1), Random(SPACE, seed=1)
    assert one.ask(5) == [other.ask(1)[0] for _ in range(5)]
    assert one.ask(1)[0] == other.ask(1)[0]


def test_draws_are_distinct_and_cover_the_space():
    drawn = Random(SPACE).ask(500)
    assert len(set(drawn)) > 450
    for d in SPACE.decisions:
        assert {arch[d.name] for arch in drawn} == set(d.options)


def test_without_scores_the_answer_is_the_first_draw():
    searcher = Random(SPACE, seed=2)
    assert searcher.best() == Random(SPACE, seed=2).ask(1)[0]


def test_the_best_of_what_was_told_is_the_answer():
    searcher = Random(SPACE, seed=3)
    scored = [arch for _ in range(20) for arch in searcher.ask(1)]
    for arch in scored:
        searcher.tell([(arch, {"score": value(SPACE, arch)})])
    assert value(SPACE, searcher.best()) == max(value(SPACE, arch) for arch in scored)


def test_the_first_of_equals_wins():
    searcher = Random(SPACE)
    a, b, c = searcher.ask(3)
    searcher.tell([(a, {"score": 1.0}), (b, {"score": 2.0}), (c, {"score": 2.0})])
    assert searcher.best() == b


@pytest.mark.parametrize("told", [0, 3])
def test_the_state_is_small(told):
    searcher = Random(SPACE)
    searcher.tell([(arch, {"score": value(SPACE, arch)}) for arch in searcher.ask(told)])
    assert set(searcher.state_dict()) == {"asked", "leader"}
    assert searcher.state_dict()["asked"] == told
