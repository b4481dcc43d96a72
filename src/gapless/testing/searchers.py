"""The laws of a black-box search: ``law(make_searcher, space)``, where ``make_searcher(space, seed=0)`` returns it
fresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

import torch

from gapless.core.decision import Arch
from gapless.core.searcher import Scored, Searcher
from gapless.core.space import Space
from gapless.testing.spaces import belongs


class MakeSearcher(Protocol):
    """A searcher's class, or anything that is called like it."""

    def __call__(self, space: Space, *, seed: int = 0) -> Searcher:
        """Return the searcher."""
        ...


SearcherLaw = Callable[[MakeSearcher, Space], None]


def value(space: Space, arch: Arch) -> float:
    """Return a score that a search can climb: how many present decisions take their first eligible option, with a small
    bonus per name."""
    right = sum(arch.get(d.name) == d.options[d.eligible[0]] for d in space.decisions)
    return right + sum(len(option) for option in arch.values()) / 1e4


def told(searcher: Searcher, rounds: int = 4, n: int = 3) -> list[Scored]:
    """Run ask and tell and return all that was told, in order."""
    results: list[Scored] = []
    for _ in range(rounds):
        batch: list[Scored] = [(arch, {"score": value(searcher.space, arch)}) for arch in searcher.ask(n)]
        searcher.tell(batch)
        results += batch
    return results


def what_it_asks_is_in_the_space(make_searcher: MakeSearcher, space: Space) -> None:
    """``ask(n)`` returns ``n`` architectures of the space, before anything is told and after."""
    searcher = make_searcher(space)
    for n in (1, 4):
        for _ in range(2):
            asked = searcher.ask(n)
            assert len(asked) == n, f"ask({n}) returned {len(asked)}"
            for arch in asked:
                belongs(space, arch)
            searcher.tell([(arch, {"score": value(space, arch)}) for arch in asked])


def it_is_a_function_of_the_seed(make_searcher: MakeSearcher, space: Space) -> None:
    """One seed asks the same twice, another asks something else, and no global generator is drawn on."""
    state = torch.get_rng_state()
    one, two, other = (told(make_searcher(space, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state()), "it draws from PyTorch's global generator"
    assert one == two, "two searches under one seed ask different things"
    assert one != other or space.count < 4, "two seeds ask the same"


def the_state_is_everything(make_searcher: MakeSearcher, space: Space) -> None:
    """``state_dict`` is plain JSON, and a search that goes on from it asks and answers as if it had never stopped."""
    through, before = make_searcher(space, seed=3), make_searcher(space, seed=3)
    told(through)
    told(before)
    state = json.loads(json.dumps(before.state_dict()))
    after = make_searcher(space, seed=3)
    after.load_state_dict(state)
    assert after.best() == through.best(), "the answer is another one after load_state_dict"
    assert told(after) == told(through), "it goes on otherwise after load_state_dict"
    assert after.best() == through.best(), "it ends otherwise after load_state_dict"


def the_best_is_what_scored_best(make_searcher: MakeSearcher, space: Space) -> None:
    """``best`` is in the space at any time, and of all that was told, in any batches, has the highest score."""
    searcher = make_searcher(space)
    if not searcher.needs_score:
        belongs(space, searcher.best())
    results = told(searcher)
    searcher.tell([])
    belongs(space, searcher.best())
    assert value(space, searcher.best()) == max(scores["score"] for _, scores in results), (
        "best() was not told the highest score"
    )


def it_takes_what_it_did_not_ask(make_searcher: MakeSearcher, space: Space) -> None:
    """Scores of architectures that it did not ask for are taken: a search can be given a start."""
    searcher = make_searcher(space)
    arch = space.sample(torch.Generator().manual_seed(5))
    searcher.tell([(arch, {"score": 1e6})])
    assert searcher.best() == arch, "an architecture told from outside, with the highest score, is not the best"
    for asked in searcher.ask(2):
        belongs(space, asked)


def what_it_asks_is_within(make_searcher: MakeSearcher, space: Space) -> None:
    """Where ``within`` rules architectures out, none of them is asked for, before anything is told and after."""
    searcher = make_searcher(space, seed=3)

    def kind(arch: Arch) -> int:
        return sum(map(ord, space.pack(arch))) % 2

    wanted = kind(space.sample(torch.Generator().manual_seed(6)))
    searcher.within = lambda arch: kind(arch) == wanted
    if not searcher.needs_score:
        assert searcher.within(searcher.best()), "its answer before any score is one that is ruled out"
    for _ in range(20):
        asked = searcher.ask(3)
        for arch in asked:
            belongs(space, arch)
            assert searcher.within(arch), f"it asks for {arch}, which is ruled out"
        searcher.tell([(arch, {"score": value(space, arch)}) for arch in asked])


def it_names_its_source(make_searcher: MakeSearcher, space: Space) -> None:
    """The class names its paper."""
    kind = type(make_searcher(space))
    assert kind.source, f"{kind.__name__}.source is empty: name the paper"


SEARCHER_LAWS: tuple[SearcherLaw, ...] = (
    what_it_asks_is_in_the_space,
    it_is_a_function_of_the_seed,
    the_state_is_everything,
    the_best_is_what_scored_best,
    it_takes_what_it_did_not_ask,
    what_it_asks_is_within,
    it_names_its_source,
)
