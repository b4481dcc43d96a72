"""Limits on the answer of a search: their tables are made before it and kept beside it, its answer is held to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from gapless.core.bound import Budget, budget
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.machine import device_name
from gapless.core.searcher import Searcher
from gapless.core.space import Space
from gapless.engine.bench import Judgement
from gapless.engine.fit import possible
from gapless.engine.search import Search
from gapless.measure.latency import LatencyTable, measure, measured, respecting
from gapless.runs.resolved import Resolved
from gapless.runs.run import Run
from gapless.studies.device import device_of

NAME = "latency.json"
DRAWS = 10_000
"""Random architectures that are drawn for one within the limits before that is given up."""


@dataclass(frozen=True)
class BoundCost:
    """A bound on the answer, and its cost in that unit: counts, or measured milliseconds."""

    unit: str
    most: float
    cost: float


@dataclass(frozen=True, eq=False)
class Limits:
    """The limits of a search with their tables.

    Attributes
    ----------
    budget
        The bounds, at the size at which the answer is to be used.
    latency
        The measured latencies where there is a bound on them.
    device
        Name of the device of the search.
    """

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
        """Return the measured milliseconds of an architecture's network, for a batch of the size of the table's."""
        assert self.latency is not None
        space = self.budget.space
        shape = space.image_shape
        return measured(space.network(arch), shape, device_of(self.device), batch=self.latency.batch)

    def costs(self, arch: Arch, ms: float | None = None) -> tuple[BoundCost, ...]:
        """Return the cost of an architecture for each bound; ``ms`` is its measured latency."""
        costs = self.budget.costs(arch)
        return tuple(
            BoundCost(b.unit, b.most, ms if b.unit == "latency" and ms is not None else costs[b.unit])
            for b in self.budget.bounds
        )

    def write(self, run: Run) -> None:
        """Write the measured latencies into the run's folder."""
        if self.latency is not None:
            self.latency.write(run.path / NAME)


def limits_of(resolved: Resolved, size: Space | None, run: Run | None) -> Limits | None:
    """Return the limits of a recipe with their tables, or None where it has none.

    Latencies are read from the run where it keeps them, from ``limit.latency_file``, or else measured on the run's
    device.

    Parameters
    ----------
    resolved
        The search.
    size
        The space at the size at which the answer is trained with the weights of its supernet; None where it is trained
        alone, at the size that the recipe's ``[retrain]`` says.
    run
        The folder of a search that is resumed.

    Raises
    ------
    UserError
        Where no architecture is within the limits.
    """
    checked, space = resolved.checked, resolved.space
    if not checked.bounds:
        return None
    alone = size if size is not None else space.alone().replace(**checked.retrain.space)
    alone = alone.deployed()
    table = None
    if checked.limit.latency is not None:
        file = checked.limit.latency_file
        if run is not None and (run.path / NAME).is_file():
            file = run.checked(NAME)
        table = measure(alone, device_of(resolved.run.device)) if file is None else LatencyTable.read(file, alone)
    found = budget(space, checked.bounds, latency=None if table is None else table.prices, alone=alone)
    possible(space, found)
    return Limits(found, table, resolved.run.device)


def answer_within(
    loop: Search, limits: Limits | None, on_judged: Callable[[Judgement], None] | None = None
) -> tuple[Arch, tuple[BoundCost, ...]]:
    """Return the answer of a search, and its costs; its network is measured where latency is limited, or predicted
    where the table is of another machine. ``on_judged`` is called with each candidate that the supernet judges.

    Raises
    ------
    UserError
        Where no measured candidate is within the limits.
    """
    arch = loop.answer(on_judged)
    if limits is None:
        return arch, ()
    if limits.latency is None or limits.elsewhere:
        return arch, limits.costs(arch)
    if loop.judged:  # a judgement on more images counts more
        ranked = sorted(loop.judged, key=lambda judged: judged[1:], reverse=True)
        within = _first_within(dict.fromkeys([arch, *(judged[0] for judged in ranked)]), limits)
        if within is not None:
            return within
    ms = limits.timed(arch)
    if ms > next(bound.most for bound in limits.budget.bounds if bound.unit == "latency"):
        arch, ms = respecting(loop.method.scores().detach().cpu(), loop.space, limits.budget, limits.timed)
    return arch, limits.costs(arch, ms)


def draw_within(searcher: Searcher, limits: Limits | None) -> tuple[Arch, tuple[BoundCost, ...]]:
    """Return the first architecture within the limits that a searcher proposes, and its costs.

    Raises
    ------
    UserError
        Where none of :data:`DRAWS` is.
    """
    if limits is None:
        return searcher.ask(1)[0], ()
    within = _first_within((searcher.ask(1)[0] for _ in range(DRAWS)), limits)
    if within is not None:
        return within
    raise UserError(
        f"None of {DRAWS:,} random architectures holds {' and '.join(map(str, limits.budget.bounds))}. "
        "Some do: raise the limit, or let a method search for them."
    )


def best_within(ranked: Iterable[Arch], limits: Limits) -> tuple[Arch, tuple[BoundCost, ...]]:
    """Return the first of ranked architectures that is within the limits, and its costs; its network is measured where
    latency is limited, or predicted where the table is of another machine.

    Raises
    ------
    UserError
        Where none is.
    """
    within = _first_within(ranked, limits)
    if within is None:
        raise UserError(
            f"Of the architectures that were evaluated none holds {' and '.join(map(str, limits.budget.bounds))}, as "
            "measured. Raise the limit, or give more `evaluations`."
        )
    return within


def _first_within(archs: Iterable[Arch], limits: Limits) -> tuple[Arch, tuple[BoundCost, ...]] | None:
    for arch in archs:
        if limits.budget.respects(arch):
            costs = limits.costs(arch, None if limits.latency is None or limits.elsewhere else limits.timed(arch))
            if all(bound.cost <= bound.most for bound in costs):
                return arch, costs
    return None
