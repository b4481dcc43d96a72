"""The loop of a black-box search, one evaluation at a time, with a state to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gapless.core.decision import Arch
from gapless.core.searcher import Score, Searcher, evaluations, first
from gapless.engine.memory import peak_memory_mb


@dataclass(frozen=True)
class EvaluationRecord:
    """Result of one evaluation of a black-box search; ``line`` of it is a line of the trace.

    Attributes
    ----------
    epoch
        Number of the evaluation, counted from 0.
    asked, score
        Evaluated architecture, and its score.
    arch, best
        Best architecture so far, and its score.
    seconds, peak_memory_mb
        Wall time of the evaluation; peak memory of the process (or of the GPU) so far.
    """

    epoch: int
    asked: str
    score: float
    arch: str
    best: float
    seconds: float
    peak_memory_mb: float

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types."""
        return asdict(self)


class Exploration:
    """A black-box search of a fixed number of evaluations.

    Parameters
    ----------
    searcher
        Searcher in its initial state.
    score
        Score of an architecture.
    count
        Number of evaluations, repeated architectures included (:func:`gapless.core.searcher.evaluations`).
    device
        Device whose memory is reported.

    Attributes
    ----------
    epoch
        Number of evaluations so far.
    known
        Scores of all architectures so far.
    """

    def __init__(self, searcher: Searcher, score: Score, count: int, *, device: torch.device | str = "cpu") -> None:
        self.searcher, self.score, self.count, self.device = searcher, score, count, torch.device(device)
        self.epoch = 0
        self.known: dict[Arch, Mapping[str, float]] = {}

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[EvaluationRecord]:
        """Yield a record per evaluation; ``after_step`` is called before each, when ``state_dict`` is complete."""
        loop = evaluations(self.searcher, self.score, self.known)
        while self.epoch < self.count:
            if after_step is not None:
                after_step()
            started = time.perf_counter()
            arch, scores = next(loop)
            best = self.searcher.best()
            self.epoch += 1
            yield EvaluationRecord(
                epoch=self.epoch - 1,
                asked=str(arch),
                score=first(scores),
                arch=str(best),
                best=first(self.known[best]),
                seconds=time.perf_counter() - started,
                peak_memory_mb=peak_memory_mb(self.device),
            )

    def ranked(self) -> list[Arch]:
        """Return all architectures with a score, the best first; ties in order of evaluation."""
        return sorted(self.known, key=lambda arch: -first(self.known[arch]))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that an exploration made from the same arguments needs to resume."""
        pack = self.searcher.space.pack
        return {
            "epoch": self.epoch,
            "searcher": self.searcher.state_dict(),
            "known": {pack(arch): dict(scores) for arch, scores in self.known.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state``."""
        unpack = self.searcher.space.unpack
        self.epoch = int(state["epoch"])
        self.searcher.load_state_dict(state["searcher"])
        self.known = {unpack(text): dict(scores) for text, scores in state["known"].items()}
