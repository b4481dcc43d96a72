"""The loop around a black-box search."""

import pytest

from gapless.core import searcher as core
from gapless.core.errors import UserError
from gapless.core.searcher import evaluations, explore
from gapless.searchers.random import Random
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import patched
from gapless.testing.searchers import value

SPACE = NASBench201()


def counted(space):
    calls = []

    def score(arch):
        calls.append(arch)
        return value(space, arch)

    return score, calls


def test_what_was_asked_is_told_in_order():
    searcher = Random(SPACE, seed=1)
    told = explore(searcher, lambda arch: value(SPACE, arch), 20)
    assert [arch for arch, _ in told] == Random(SPACE, seed=1).ask(20)
    assert all(scores == {"score": value(SPACE, arch)} for arch, scores in told)
    assert searcher.best() == max(told, key=lambda t: t[1]["score"])[0]


def test_an_architecture_is_scored_once_and_counted_each_time():
    space = patched()
    score, calls = counted(space)
    told = explore(Random(space), score, 40)
    assert len(told) == 40
    assert len(calls) == len(set(calls)) == len({arch for arch, _ in told}) <= space.count


def test_several_scores_have_names_and_the_first_is_searched_by():
    searcher = Random(SPACE)
    told = explore(searcher, lambda arch: {"up": value(SPACE, arch), "down": -value(SPACE, arch)}, 10)
    assert list(told[0][1]) == ["up", "down"]
    assert dict(told)[searcher.best()]["up"] == max(scores["up"] for _, scores in told)


def test_time_is_a_bound_too():
    assert len(explore(Random(SPACE), lambda arch: 0.0, 1000, seconds=0.0)) == 1


def test_a_memory_is_used_and_filled():
    (arch,) = Random(SPACE).ask(1)
    known = {arch: {"score": 7.0}}
    score, calls = counted(SPACE)
    loop = evaluations(Random(SPACE), score, known)
    assert next(loop) == (arch, {"score": 7.0})
    other, _ = next(loop)
    assert calls == [other]
    assert set(known) == {arch, other}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_cannot_be_compared_is_refused(number):
    with pytest.raises(UserError, match="must be finite"):
        explore(Random(SPACE), lambda arch: number, 3)


def test_nothing_within_the_limits_is_said(monkeypatch):
    monkeypatch.setattr(core, "TRIES", 20)
    searcher = Random(SPACE)
    searcher.within = lambda arch: False
    with pytest.raises(UserError, match="None of 20 random architectures is within the limits"):
        searcher.draw("any")


def test_no_evaluation_is_no_search():
    with pytest.raises(UserError, match="at least 1"):
        explore(Random(SPACE), lambda arch: 0.0, 0)
