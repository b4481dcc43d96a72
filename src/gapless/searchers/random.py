"""Random search: architectures drawn uniformly; the best by score, or the first where nothing is scored.

The baseline of Li and Talwalkar, arXiv 1902.07638, and of Yu et al., arXiv 1902.08142: what a search must beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from gapless.core.decision import Arch
from gapless.core.progress import stream
from gapless.core.searcher import TRIES, Scored, Searcher, first, nothing_within


class Random(Searcher):
    """Uniform draws. One draw without a score is one random cell."""

    label: ClassVar[str] = "random"
    source: ClassVar[str] = "Random search, Li and Talwalkar, arXiv 1902.07638"
    needs_score: ClassVar[bool] = False

    asked = 0
    leader: tuple[Arch, float] | None = None

    def ask(self, n: int = 1) -> list[Arch]:
        """Draw ``n`` architectures, each from a stream of its own; those that are not within are passed over."""
        drawn = []
        for _ in range(n):
            arch, self.asked = self._from(self.asked)
            drawn.append(arch)
        return drawn

    def _from(self, number: int) -> tuple[Arch, int]:
        """Return the first draw within, from that number on, and the number of the next."""
        for i in range(number, number + TRIES):
            arch = self.space.sample(stream(self.seed, "random", i))
            if self.within(arch):
                return arch, i + 1
        raise nothing_within()

    def tell(self, results: Iterable[Scored]) -> None:
        """Remember the best by the first score."""
        for arch, scores in results:
            value = first(scores)
            if self.leader is None or value > self.leader[1]:
                self.leader = (arch, value)

    def best(self) -> Arch:
        """Return the best told, else the first draw."""
        return self.leader[0] if self.leader else self._from(0)[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the next draw, and the leader."""
        return {"asked": self.asked, "leader": None if self.leader is None else [str(self.leader[0]), self.leader[1]]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.asked = int(state["asked"])
        leader = state["leader"]
        self.leader = None if leader is None else (Arch.parse(leader[0]), float(leader[1]))


METHOD = Random
