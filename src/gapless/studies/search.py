"""A search from a recipe to an architecture, with a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gapless.core.errors import UserError
from gapless.core.progress import seeded
from gapless.engine.memory import peak_memory_mb
from gapless.engine.search import Search
from gapless.runs.recipe import Recipe
from gapless.runs.resolved import Resolved, ResolvedBlackBox, ResolvedDraw, ResolvedSearch
from gapless.runs.run import Run
from gapless.runs.searched import continued_size
from gapless.studies import pipeline
from gapless.studies.device import device_of
from gapless.studies.explore import BlackBoxSearch
from gapless.studies.limits import answer_within, draw_within, limits_of
from gapless.studies.pipeline import Answer, Callback, OnProgress, Task
from gapless.studies.results import SearchResult, judged_facts


def search(
    recipe: Recipe | str | Path = "demo",
    *,
    out: str | Path | None = None,
    on_progress: OnProgress = None,
) -> SearchResult:
    """Search as a recipe says.

    Parameters
    ----------
    recipe
        A recipe, the path of one, or the name of one that comes with the package.
    out
        Folder of the run; None writes nothing.
    on_progress
        Called with the record of each epoch, or of each evaluation of a black-box search; or a
        :class:`gapless.studies.pipeline.Callback`.

    Raises
    ------
    UserError
        For anything wrong with the recipe or the folder; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if recipe.arch:
        raise UserError("The recipe trains one architecture alone; a search takes a recipe without `arch`.")
    return pipeline.start(recipe, task_of, out=out, on_progress=on_progress)


def task_of(resolved: Resolved, run: Run | None) -> Task[SearchResult]:
    """Return the task of a search."""
    match resolved:
        case ResolvedBlackBox():
            return BlackBoxSearch(resolved, run)
        case ResolvedDraw():
            return Draw(resolved, run)
        case ResolvedSearch():
            return SupernetSearch(resolved, run)
    raise TypeError(f"{type(resolved).__name__} is not a search")


class SupernetSearch:
    """The task of a search that trains a supernet."""

    pause = 0.0
    summary_file = ""

    def __init__(self, resolved: ResolvedSearch, run: Run | None) -> None:
        settings = resolved.run
        self.resolved = resolved
        self.size = continued_size(resolved.checked, resolved.space)
        self.limits = limits_of(resolved, self.size, run)
        self.notice = "" if self.limits is None else self.limits.elsewhere
        self.fingerprint = resolved.data.fingerprint
        with seeded(settings.seed, "method"):
            method = resolved.method.make(resolved.space)
        self.loop = Search(
            resolved.space,
            method,
            resolved.data,
            resolved.train,
            seed=settings.seed,
            device=device_of(settings.device),
            precision=settings.precision,
            execution=settings.execution,
            recompute=settings.recompute,
            graphs=settings.graphs,
            budget=None if self.limits is None else self.limits.budget,
            strength=resolved.checked.limit.strength,
            watch=settings.watch,
        )

    def prepare(self, run: Run) -> None:
        """Keep the measured latencies."""
        if self.limits is not None:
            self.limits.write(run)

    def answer(self, callback: Callback) -> Answer:
        """Return the answer of the method, within the limits, with the weights of supernet and method."""
        loop, started_at = self.loop, time.perf_counter()
        arch, costs = answer_within(loop, self.limits, callback.on_judged)
        seconds = time.perf_counter() - started_at
        archs = [{"arch": str(a), "images": n, "accuracy": 100 * share} for a, n, share in loop.judged]
        method = {f"method.{name}": value for name, value in loop.method.state_dict().items()}
        return Answer(
            arch,
            loop.space,
            self.resolved.data,
            weights={**loop.supernet.state_dict(), **method},
            files={"judged.json": {"seconds": seconds, "on": loop.feed.judged_on, "archs": archs}} if archs else {},
            limits=costs,
            seconds=seconds,
        )

    def result(self, answer: Answer, run: Run | None, seconds: float, last: Mapping[str, Any]) -> SearchResult:
        """Return the result."""
        peak, judged = peak_memory_mb(self.loop.device), answer.files.get("judged.json")
        found = None if judged is None else judged_facts(judged, answer.arch)
        return SearchResult.of(answer, run, seconds, peak, self.size, judged=found)


class Draw:
    """The task of a black-box search without a score: its first architecture within the limits."""

    pause = 0.0
    summary_file = ""
    loop = None

    def __init__(self, resolved: ResolvedDraw, run: Run | None) -> None:
        self.resolved = resolved
        self.size = continued_size(resolved.checked, resolved.space)
        self.limits = limits_of(resolved, self.size, run)
        self.notice = "" if self.limits is None else self.limits.elsewhere
        self.fingerprint = resolved.data.fingerprint

    def prepare(self, run: Run) -> None:
        """Keep the measured latencies."""
        if self.limits is not None:
            self.limits.write(run)

    def answer(self, callback: Callback) -> Answer:
        """Draw."""
        resolved = self.resolved
        searcher = resolved.searcher.make(resolved.space, seed=resolved.run.seed)
        arch, costs = draw_within(searcher, self.limits)
        return Answer(arch, resolved.space, resolved.data, limits=costs)

    def result(self, answer: Answer, run: Run | None, seconds: float, last: Mapping[str, Any]) -> SearchResult:
        """Return the result."""
        peak = peak_memory_mb(torch.device("cpu"))
        return SearchResult.of(answer, run, seconds, peak, self.size)
