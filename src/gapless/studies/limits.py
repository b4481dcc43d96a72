"""Bounds on what a search may answer: asked before it, kept beside it, held at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gapless.core.bound import Bound, Budget, budget
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.machine import device_name
from gapless.core.searcher import Searcher
from gapless.engine.bench import Judgement
from gapless.engine.fit import possible
from gapless.engine.search import Search
from gapless.measure.latency import LatencyTable, measure, measured, respecting
from gapless.runs.exploring import Exploring
from gapless.runs.recipe import Resolved
from gapless.runs.run import Run
from gapless.runs.searched import going_on
from gapless.studies.session import device_of

NAME = "latency.json"
DRAWS = 10_000
"""Random architectures that are drawn for one within the bounds before that is given up."""


@dataclass(frozen=True)
class Held:
    """A bound and what the answer costs in its unit: counts, or measured milliseconds."""

    unit: str
    most: float
    cost: float


@dataclass(frozen=True, eq=False)
class Asked:
    """The bounds of a search with their tables; ``latency`` where there is a bound on it."""

    budget: Budget
    latency: LatencyTable | None
    device: str

    @property
    def elsewhere(self) -> str:
        """A notice where the latencies are those of another machine, or ""."""
        table, here = self.latency, device_name(device_of(self.device))
        if table is None or (table.device, table.threads) == (here, torch.get_num_threads()):
            return ""
        return (
            f"The latencies are those of another machine ({table.device}, CPU threads: {table.threads}; here {here}, "
            f"{torch.get_num_threads()}): the limit is held as their table predicts, and not measured here."
        )

    def timed(self, arch: Arch) -> float:
        """Return the measured milliseconds of an architecture's network for as many images as the table is of."""
        assert self.latency is not None
        space = self.budget.space
        shape = (space.channels, space.size, space.size)
        return measured(space.network(arch), shape, device_of(self.device), batch=self.latency.batch)

    def held(self, arch: Arch, ms: float | None = None) -> tuple[Held, ...]:
        """Return what an architecture costs, bound by bound; ``ms`` is its measured latency."""
        costs = self.budget.costs(arch)
        return tuple(
            Held(b.unit, b.most, ms if b.unit == "latency" and ms is not None else costs[b.unit])
            for b in self.budget.bounds
        )


def ask(resolved: Resolved | Exploring, run: Run | None) -> Asked | None:
    """Return the bounds of a recipe with their tables, or None where it has none.

    Latencies are read from the run where it keeps them, from ``limit.latency_file``, or else measured on the run's
    device, at the size at which the architecture is to be used.

    Raises
    ------
    UserError
        Where no architecture holds the bounds.
    """
    recipe, space = resolved.recipe, resolved.space
    bounds: Sequence[Bound] = recipe.bounds()
    if not bounds:
        return None
    alone = going_on(recipe, space)
    if alone is None:
        alone = space.alone().replace(**recipe.retrain.get("space", {}))
    alone = alone.deployed()
    table = None
    if any(bound.unit == "latency" for bound in bounds):
        given = recipe.limit.get("latency_file")
        if run is not None and (run.path / NAME).is_file():
            given = run.path / NAME
        device = device_of(resolved.run["device"])
        table = LatencyTable.read(Path(given), alone) if given is not None else measure(alone, device)
    asked = budget(space, bounds, latency=None if table is None else table.prices, alone=alone)
    possible(space, asked)
    return Asked(asked, table, resolved.run["device"])


def keep(asked: Asked, run: Run) -> None:
    """Write the measured latencies into the run's folder."""
    if asked.latency is not None:
        asked.latency.write(run.path / NAME)


def answer(
    loop: Search, asked: Asked | None, told: Callable[[Judgement], None] | None = None
) -> tuple[Arch, tuple[Held, ...]]:
    """Return the answer of a search, and what it costs; a bound on latency is held by its network as measured, or as
    predicted where its table is of another machine. ``told`` hears of what is judged by the way.

    Raises
    ------
    UserError
        Where none that is measured holds it.
    """
    arch = loop.answer(told)
    if asked is None:
        return arch, ()
    if asked.latency is None or asked.elsewhere:
        return arch, asked.held(arch)
    if loop.judged:  # what was judged on more images counts more
        ranked = sorted(loop.judged, key=lambda judged: judged[1:], reverse=True)
        found = _first_held(dict.fromkeys([arch, *(judged[0] for judged in ranked)]), asked)
        if found is not None:
            return found
    ms = asked.timed(arch)
    if ms > next(bound.most for bound in asked.budget.bounds if bound.unit == "latency"):
        arch, ms = respecting(loop.method.scores().detach().cpu(), loop.space, asked.budget, asked.timed)
    return arch, asked.held(arch, ms)


def first_within(searcher: Searcher, asked: Asked | None) -> tuple[Arch, tuple[Held, ...]]:
    """Return the first architecture that a searcher proposes within the bounds, and what it costs.

    Raises
    ------
    UserError
        Where none of :data:`DRAWS` is.
    """
    if asked is None:
        return searcher.ask(1)[0], ()
    found = _first_held((searcher.ask(1)[0] for _ in range(DRAWS)), asked)
    if found is not None:
        return found
    raise UserError(
        f"None of {DRAWS:,} random architectures holds {' and '.join(map(str, asked.budget.bounds))}. "
        "Some do: raise the limit, or let a method search for them."
    )


def best_within(ranked: Iterable[Arch], asked: Asked) -> tuple[Arch, tuple[Held, ...]]:
    """Return the first of ranked architectures that holds the bounds, and what it costs; a bound on latency is held by
    its network as measured, or as predicted where the table is of another machine.

    Raises
    ------
    UserError
        Where none does.
    """
    found = _first_held(ranked, asked)
    if found is None:
        raise UserError(
            f"Of the architectures that were evaluated none holds {' and '.join(map(str, asked.budget.bounds))}, as "
            "measured. Raise the limit, or give more --evaluations."
        )
    return found


def _first_held(archs: Iterable[Arch], asked: Asked) -> tuple[Arch, tuple[Held, ...]] | None:
    for arch in archs:
        if asked.budget.respects(arch):
            costs = asked.held(arch, None if asked.latency is None or asked.elsewhere else asked.timed(arch))
            if all(held.cost <= held.most for held in costs):
                return arch, costs
    return None
