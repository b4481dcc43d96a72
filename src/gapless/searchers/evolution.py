"""The evolution of SPOS. Guo et al.: "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV
2020, arXiv 1904.00420; paper and released code (megvii-model/SinglePathOneShot) agree on the numbers.

A generation of 50: 25 mutations and 25 crossovers of the ten best architectures seen so far, none that was seen before,
each tried for at most ten times as often; what is then missing is filled by random ones. It was made to search a
supernet by inherited weights, where an evaluation is cheap: 20 generations are 1,000 evaluations.

Two details for spaces that keep some of their decisions, which SPOS's does not. A gene is then a kept decision with its
option: a mutation redraws both, among the decisions that no other gene holds; a crossover keeps what both parents keep,
and fills the number from what one of them keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.core.searcher import Scored, Searcher, first
from gapless.core.settings import Natural, Seed, Share, Whole
from gapless.core.space import Space

T = TypeVar("T")
RETRIES = 10
"""Tries per wanted architecture (released code)."""


class Evolution(Searcher):
    """Mutations and crossovers of the best, without repetition.

    Parameters
    ----------
    population
        Number of architectures of a generation (paper: 50).
    parents
        Number of the best architectures so far, from which a generation is made (paper: 10).
    mutations
        Number of mutations in a generation (paper: 25). What is neither mutation nor crossover is random.
    crossovers
        Number of crossovers in a generation (paper: 25).
    rate
        Probability of each gene to be redrawn in a mutation (paper: 0.1).
    """

    label: ClassVar[str] = "evolution"
    source: ClassVar[str] = "Evolution of SPOS, Guo et al., arXiv 1904.00420"
    usual: ClassVar[int] = 1000  # 20 generations of 50 (paper)

    def __init__(
        self,
        space: Space,
        *,
        population: Natural = 50,
        parents: Natural = 10,
        mutations: Whole = 25,
        crossovers: Whole = 25,
        rate: Share = 0.1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(space, seed=seed)
        if mutations + crossovers > population:
            raise UserError(
                f"`mutations` and `crossovers` must sum to at most `population`; got {mutations}, {crossovers} and "
                f"{population}.",
                of="method",
            )
        self.population, self.parents = population, parents
        self.mutations, self.crossovers, self.rate = mutations, crossovers, rate
        self.generation = 0
        self.known: dict[Arch, float] = {}
        self.asked: dict[Arch, None] = {}  # all that ever were, in order
        self.left: list[Arch] = []  # of the present generation

    def ask(self, n: int = 1) -> list[Arch]:
        """Return the next of the generation; a new one is made where it is used up."""
        return [self._next() for _ in range(n)]

    def _next(self) -> Arch:
        if not self.left:
            self.left = self._generation()
            self.generation += 1
        arch = self.left.pop(0)
        self.asked[arch] = None
        return arch

    def _generation(self) -> list[Arch]:
        generator = stream(self.seed, "generation", self.generation)
        best = sorted(self.known, key=lambda arch: -self.known[arch])[: self.parents]
        made: dict[Arch, None] = {}

        def fill(count: int, make: Callable[[], Arch]) -> None:
            wanted = len(made) + count
            for _ in range(RETRIES * count):
                if len(made) == wanted:
                    return
                arch = make()
                if arch not in made and arch not in self.asked and arch not in self.known and self.within(arch):
                    made[arch] = None

        if best:
            fill(self.mutations, lambda: mutate(self.space, _one(best, generator), self.rate, generator))
            fill(self.crossovers, lambda: cross(self.space, _one(best, generator), _one(best, generator), generator))
        fill(self.population - len(made), lambda: self.space.sample(generator))
        # Where next to nothing new is left, or little is within the limits: whatever is within them, seen or not.
        rest = [self.draw("rest", self.generation, i) for i in range(self.population - len(made))]
        return [*made, *rest]

    def tell(self, results: Iterable[Scored]) -> None:
        """Remember."""
        for arch, scores in results:
            self.known[arch] = first(scores)

    def best(self) -> Arch:
        """Return the best of everything told."""
        if not self.known:
            raise UserError("Evolution has no answer yet: no score was told.")
        return max(self.known, key=self.known.__getitem__)

    def state_dict(self) -> dict[str, Any]:
        """Return everything told and asked, and what is left of the generation; architectures packed."""
        pack = self.space.pack
        return {
            "generation": self.generation,
            "known": {pack(arch): value for arch, value in self.known.items()},
            "asked": [pack(arch) for arch in self.asked],
            "left": [pack(arch) for arch in self.left],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        unpack = self.space.unpack
        self.generation = int(state["generation"])
        self.known = {unpack(text): float(value) for text, value in state["known"].items()}
        self.asked = dict.fromkeys(map(unpack, state["asked"]))
        self.left = [unpack(text) for text in state["left"]]


def mutate(space: Space, arch: Arch, rate: Share, generator: torch.Generator) -> Arch:
    """Return the architecture with each gene drawn anew by the chance ``rate``; that may draw what it was."""
    choice = dict(arch)
    limited = {name: limit for limit in space.limits for name in limit.among}
    options = {d.name: [d.options[i] for i in d.eligible] for d in space.decisions}
    for name in arch:
        if float(torch.rand((), generator=generator)) >= rate:
            continue
        del choice[name]
        free = [other for other in limited[name].among if other not in choice] if name in limited else [name]
        new = _one(free, generator)
        choice[new] = _one(options[new], generator)
    return Arch(choice)


def cross(space: Space, one: Arch, other: Arch, generator: torch.Generator) -> Arch:
    """Return an architecture each of whose genes is that of either parent."""
    pair = (one, other)
    kept = [name for name in one if name in other]
    for limit in space.limits:
        single = [name for name in limit.among if (name in one) != (name in other)]
        order = torch.randperm(len(single), generator=generator).tolist()
        kept += [single[i] for i in order[: limit.count - sum(name in kept for name in limit.among)]]
    return Arch({name: _one([parent for parent in pair if name in parent], generator)[name] for name in kept})


def _one(of: list[T], generator: torch.Generator) -> T:
    return of[int(torch.randint(len(of), (), generator=generator))]


METHOD = Evolution
