"""A black-box search by a score, as a task of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapless.core.searcher import first
from gapless.engine.explore import Exploration
from gapless.engine.memory import peak_memory_mb
from gapless.runs.resolved import ResolvedBlackBox
from gapless.runs.run import Run
from gapless.runs.searched import continued_size
from gapless.studies.device import device_of
from gapless.studies.limits import best_within, limits_of
from gapless.studies.pipeline import Answer, Callback
from gapless.studies.results import SearchResult

PAUSE = 1.0
"""Seconds between two checkpoints: a look-up in a table takes less time than writing one."""


class BlackBoxSearch:
    """The task of a black-box search."""

    summary_file = ""

    def __init__(self, resolved: ResolvedBlackBox, run: Run | None) -> None:
        self.resolved, self.pause = resolved, PAUSE
        size = continued_size(resolved.checked, resolved.space) if resolved.checked.bounds else None
        self.limits = limits_of(resolved, size, run)
        self.judge = resolved.judge(device_of(resolved.run.device))
        self.fingerprint = self.judge.fingerprint
        self.notice = " ".join(filter(None, (self.judge.notice, "" if self.limits is None else self.limits.elsewhere)))
        searcher = resolved.searcher.make(resolved.space, seed=resolved.run.seed)
        if self.limits is not None:
            searcher.within = self.limits.budget.respects
        self.loop = Exploration(searcher, self.judge, resolved.evaluations, device=self.judge.device)

    def prepare(self, run: Run) -> None:
        """Keep the measured latencies."""
        if self.limits is not None:
            self.limits.write(run)

    def answer(self, callback: Callback) -> Answer:
        """Return the best architecture within the limits."""
        loop, judge = self.loop, self.judge
        arch, costs = (loop.searcher.best(), ()) if self.limits is None else best_within(loop.ranked(), self.limits)
        score = {
            "name": self.resolved.score.name,
            "title": judge.title,
            "unit": judge.unit,
            "value": first(loop.known[arch]),
            "evaluations": loop.epoch,
            "architectures": len(loop.known),
            "notice": judge.notice,
        }
        return Answer(arch, self.resolved.space, self.resolved.images, score=score, limits=costs)

    def result(self, answer: Answer, run: Run | None, seconds: float, last: Mapping[str, Any]) -> SearchResult:
        """Return the result."""
        peak = peak_memory_mb(self.loop.device)
        return SearchResult.of(answer, run, seconds, peak, None, score=answer.score)
