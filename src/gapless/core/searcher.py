"""What a black-box search is: it asks for the scores of architectures and is told them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from gapless.core.decision import Arch
from gapless.core.space import Space

Score = Callable[[Arch], float]
"""A judge of architectures; larger is better."""
Told = tuple[Arch, Mapping[str, float]]


class Searcher(abc.ABC):
    """The base of every black-box search over a space.

    Class attributes
    ----------------
    source
        Title, authors, arXiv id: one line.
    needs_score
        Whether it is of any use without a score.
    """

    source: ClassVar[str] = ""
    needs_score: ClassVar[bool] = True

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    @abc.abstractmethod
    def ask(self, n: int = 1) -> list[Arch]:
        """Return ``n`` architectures whose scores it wants to know."""

    @abc.abstractmethod
    def tell(self, results: Iterable[Told]) -> None:
        """Take architectures with their scores, name -> value; larger is better."""

    @abc.abstractmethod
    def best(self) -> Arch:
        """Return the answer so far."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that a later ``load_state_dict`` needs, as plain JSON types."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
