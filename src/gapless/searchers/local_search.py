"""Local search. White, Nolen, Savani: "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, arXiv
2005.02960.

From a start, look at the neighbours and go to a better one; where none is better, start again elsewhere. The paper
describes the steepest climb: score all neighbours, go to the best. The defaults are those of the released code
(naszilla/naszilla): the best of ten random architectures begins a climb, and the first better neighbour is taken.
Neighbours are tried in random order; those that were scored before are not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.core.searcher import Scored, Searcher, first
from gapless.core.settings import Natural, Seed
from gapless.core.space import Space


class LocalSearch(Searcher):
    """Climbs from random starts.

    Parameters
    ----------
    starts
        Number of random architectures of which the best begins a climb (released code: 10; paper: 1).
    steepest
        Whether all neighbours are scored and the best is taken (paper), or the first that is better (released code).
    """

    label: ClassVar[str] = "local_search"
    source: ClassVar[str] = "Local search, White et al., arXiv 2005.02960"

    def __init__(self, space: Space, *, starts: Natural = 10, steepest: bool = False, seed: Seed = 0) -> None:
        super().__init__(space, seed=seed)
        self.starts, self.steepest = starts, steepest
        self.drawn, self.moves = 0, 0
        self.known: dict[Arch, float] = {}
        self.asked: list[Arch] = []  # neighbours that are asked for and not yet told
        self.pool: list[Arch] = []  # told since the last climb ended; the best begins the next
        self.here: Arch | None = None
        self.around: list[Arch] = []  # the neighbours of where it stands, in the order in which they are tried

    def ask(self, n: int = 1) -> list[Arch]:
        """Return the next neighbours that are not scored yet; at a start, or where all are asked for, random ones."""
        return [self._next() for _ in range(n)]

    def _next(self) -> Arch:
        for arch in self.around:
            if arch not in self.known and arch not in self.asked:
                self.asked.append(arch)
                return arch
        self.drawn += 1
        return self.draw("start", self.drawn)

    def tell(self, results: Iterable[Scored]) -> None:
        """Remember, and move as far as what is known allows."""
        for arch, scores in results:
            self.known[arch] = first(scores)
            if arch in self.asked:
                self.asked.remove(arch)
            if self.here is None:
                self.pool.append(arch)
            if len(self.pool) >= self.starts:
                self._go(max(self.pool, key=self.known.__getitem__))
            while self.here is not None and self._step(self.here):
                pass

    def _step(self, here: Arch) -> bool:
        """Move to a better neighbour where one is known, or give the climb up where none is better; return whether
        anything was done."""
        told = [arch for arch in self.around if arch in self.known]
        whole = len(told) == len(self.around)
        better = [arch for arch in told if self.known[arch] > self.known[here]]
        if better and (whole or not self.steepest):
            self._go(max(better, key=self.known.__getitem__) if self.steepest else better[0])
            return True
        if whole:
            self.here, self.around, self.asked = None, [], []
        return whole

    def _go(self, arch: Arch) -> None:
        self.here, self.pool, self.asked = arch, [], []
        near = self.space.neighbours(arch)
        order = torch.randperm(len(near), generator=stream(self.seed, "around", self.moves)).tolist()
        self.around = [near[i] for i in order if self.within(near[i])]
        self.moves += 1

    def best(self) -> Arch:
        """Return the best of everything told: the highest of all climbs."""
        if not self.known:
            raise UserError("Local search has no answer yet: no score was told.")
        return max(self.known, key=self.known.__getitem__)

    def state_dict(self) -> dict[str, Any]:
        """Return everything told and where the climb stands; architectures packed."""
        pack = self.space.pack
        return {
            "drawn": self.drawn,
            "moves": self.moves,
            "known": {pack(arch): value for arch, value in self.known.items()},
            "here": None if self.here is None else pack(self.here),
            **{name: [pack(arch) for arch in getattr(self, name)] for name in ("asked", "pool", "around")},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        unpack = self.space.unpack
        self.drawn, self.moves = int(state["drawn"]), int(state["moves"])
        self.known = {unpack(text): float(value) for text, value in state["known"].items()}
        self.here = None if state["here"] is None else unpack(state["here"])
        self.asked, self.pool, self.around = (
            [unpack(text) for text in state[name]] for name in ("asked", "pool", "around")
        )


METHOD = LocalSearch
