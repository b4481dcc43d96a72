"""What a black-box search is: it asks for the scores of architectures and is told them. And the loop around it."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from gapless.core import catalogue
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.core.settings import Ranged, Seed
from gapless.core.space import Space

Score = Callable[[Arch], float | Mapping[str, float]]
"""A judge of architectures: a number, or several by name, of which the first is searched by; larger is better."""
Scored = tuple[Arch, Mapping[str, float]]
TRIES = 10_000
"""Random architectures that are drawn for one within the limits before that is given up."""


def anything(arch: Arch) -> bool:
    """Return True: no architecture is ruled out."""
    return True


class Searcher(Ranged, abc.ABC):
    """The base of every black-box search over a space.

    Class attributes
    ----------------
    source
        Title, authors, arXiv id: one line.
    needs_score
        Whether it is of any use without a score.
    usual
        How many evaluations a search takes where nobody says.

    Attributes
    ----------
    within
        Tells which architectures may be asked for (:meth:`gapless.core.bound.Budget.respects`); all, unless it is set.
        It is no part of the state: set it before anything is asked.
    """

    of: ClassVar[str] = "method"
    source: ClassVar[str] = ""
    needs_score: ClassVar[bool] = True
    usual: ClassVar[int] = 100

    def __init__(self, space: Space, *, seed: Seed = 0) -> None:
        self.space, self.seed = space, seed
        self.within: Callable[[Arch], bool] = anything

    @abc.abstractmethod
    def ask(self, n: int = 1) -> list[Arch]:
        """Return ``n`` architectures whose scores it wants to know, all of them ``within``.

        Raises
        ------
        UserError
            Where none is found.
        """

    @abc.abstractmethod
    def tell(self, results: Iterable[Scored]) -> None:
        """Take architectures with their scores, name -> value; larger is better."""

    @abc.abstractmethod
    def best(self) -> Arch:
        """Return the answer so far: of all that was told, what scored best."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that a later ``load_state_dict`` needs, as plain JSON types."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""

    def draw(self, *key: int | str) -> Arch:
        """Return a uniformly drawn architecture within the limits, from the stream of ``key``.

        Raises
        ------
        UserError
            Where none of :data:`TRIES` is within.
        """
        generator = stream(self.seed, *key)
        for _ in range(TRIES):
            arch = self.space.sample(generator)
            if self.within(arch):
                return arch
        raise nothing_within()


def check_searcher(name: str) -> None:
    """Raise a :class:`UserError` where no black-box search has this name: the setting ``searcher`` of a method."""
    try:
        catalogue.find(name, "searchers")
    except UserError as error:
        raise UserError(f"`searcher` names no black-box search. {error}", of="method") from None


def nothing_within() -> UserError:
    """Return the error of a search that finds no architecture within the limits."""
    return UserError(
        f"None of {TRIES:,} random architectures is within the limits, so there is nothing to begin with. "
        "Raise the limits."
    )


def first(scores: Mapping[str, float]) -> float:
    """Return the score that is searched by."""
    return next(iter(scores.values()))


# ---------------------------------------------------------------------- the loop


def evaluations(
    searcher: Searcher, score: Score, known: dict[Arch, Mapping[str, float]] | None = None
) -> Iterator[Scored]:
    """Ask, score and tell without end, one architecture at a time; yield what was told.

    A score is a function of the architecture, so one that is asked for again is answered from memory. It counts as an
    evaluation all the same: else a search of a space smaller than its budget would not end, and the published baselines
    pay for what they ask for again, too.

    Parameters
    ----------
    searcher
        Asks.
    score
        Judges.
    known
        The memory; what is scored is added to it. By default a new one.

    Raises
    ------
    UserError
        Where a score is not finite: nothing could be compared with it.
    """
    known = {} if known is None else known
    while True:
        (arch,) = searcher.ask(1)
        if arch not in known:
            given = score(arch)
            scores = dict(given) if isinstance(given, Mapping) else {"score": float(given)}
            for name, value in scores.items():
                if not math.isfinite(value):
                    raise UserError(f"The {name} of {arch} is {value}; a score must be finite, or nothing beats it.")
            known[arch] = scores
        told = (arch, known[arch])
        searcher.tell([told])
        yield told


def explore(searcher: Searcher, score: Score, count: int, *, seconds: float | None = None) -> list[Scored]:
    """Search by so many evaluations and return what was told, in order; the answer is ``searcher.best()``.

    Parameters
    ----------
    searcher
        Asks; it may have been told something before.
    score
        Judges.
    count
        Number of evaluations, those answered from memory included (:func:`evaluations`).
    seconds
        Begin no further evaluation after so long; None is no such bound. With it the result depends on the machine.

    >>> from gapless.searchers.random import Random
    >>> from gapless.spaces.nasbench201 import NASBench201
    >>> searcher = Random(NASBench201())
    >>> told = explore(searcher, lambda arch: sum(option == "skip_connect" for option in arch.values()), 50)
    >>> len(told), dict(told)[searcher.best()]["score"] == max(scores["score"] for _, scores in told)
    (50, True)
    """
    if count < 1:
        raise UserError(f"A search by {count} evaluations finds nothing; it takes at least 1.")
    begun = time.monotonic()
    results: list[Scored] = []
    for told in evaluations(searcher, score):
        results.append(told)
        if len(results) == count or (seconds is not None and time.monotonic() - begun >= seconds):
            break
    return results
