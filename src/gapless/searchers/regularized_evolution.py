"""Regularized (ageing) evolution. Real, Aggarwal, Huang, Le: "Regularized Evolution for Image Classifier Architecture
Search", AAAI 2019, arXiv 1802.01548.

A population is a queue. The best of a few members drawn at random has a child with one change; the child joins at the
end of the queue, and the member at its head, the oldest, leaves, however good it is. The answer is the best of all that
was ever told, not of the last population.

Settings are those of NAS-Bench-201 (arXiv 2001.00326, its released code): population 10, tournaments of 3 with
replacement. A child has exactly one edge with another operation there. Here the change is one of
:meth:`gapless.core.space.Space.neighbours`, each equally likely, which is the same on NAS-Bench-201 and in other spaces
may also keep another edge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.core.searcher import Scored, Searcher, first
from gapless.core.settings import Natural, Seed
from gapless.core.space import Space


class RegularizedEvolution(Searcher):
    """Ageing evolution.

    Parameters
    ----------
    population
        Number of architectures in the queue (released code on NAS-Bench-201: 10; the paper in its own space: 100).
    tournament
        Number of members drawn, with replacement, of which the best has a child (NAS-Bench-201: 3; the paper: 25).
    """

    label: ClassVar[str] = "regularized_evolution"
    source: ClassVar[str] = "Regularized evolution (REA), Real et al., arXiv 1802.01548"

    def __init__(self, space: Space, *, population: Natural = 10, tournament: Natural = 3, seed: Seed = 0) -> None:
        super().__init__(space, seed=seed)
        self.population, self.tournament = population, tournament
        self.asked = 0
        self.members: deque[tuple[Arch, float]] = deque(
            maxlen=population
        )  # what is added to a full one drops the oldest
        self.leader: tuple[Arch, float] | None = None

    def ask(self, n: int = 1) -> list[Arch]:
        """Return random architectures until the queue is full, then children of what it holds."""
        return [self._next() for _ in range(n)]

    def _next(self) -> Arch:
        key, self.asked = self.asked, self.asked + 1
        if len(self.members) < self.population:
            return self.draw("random", key)
        generator = stream(self.seed, "child", key)
        drawn = torch.randint(len(self.members), (self.tournament,), generator=generator).tolist()
        parent, _ = max((self.members[i] for i in drawn), key=lambda member: member[1])
        near = self.space.neighbours(parent)
        for i in torch.randperm(len(near), generator=generator).tolist():
            child: Arch = near[i]
            if self.within(child):
                return child
        return self.draw("random", key)  # nothing near the parent is within the limits

    def tell(self, results: Iterable[Scored]) -> None:
        """Append to the queue; the oldest leave."""
        for arch, scores in results:
            value = first(scores)
            self.members.append((arch, value))
            if self.leader is None or value > self.leader[1]:
                self.leader = (arch, value)

    def best(self) -> Arch:
        """Return the best of everything told."""
        if self.leader is None:
            raise UserError("Regularized evolution has no answer yet: no score was told.")
        return self.leader[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the number asked, the queue and the leader; architectures packed."""
        pack = self.space.pack
        return {
            "asked": self.asked,
            "members": [[pack(arch), value] for arch, value in self.members],
            "leader": None if self.leader is None else [pack(self.leader[0]), self.leader[1]],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        unpack, leader = self.space.unpack, state["leader"]
        self.asked = int(state["asked"])
        self.members.clear()
        self.members.extend((unpack(text), float(value)) for text, value in state["members"])
        self.leader = None if leader is None else (unpack(leader[0]), float(leader[1]))


METHOD = RegularizedEvolution
