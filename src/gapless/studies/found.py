"""What a search found, whichever kind of search it was; and who is told while it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from gapless.core.decision import Arch
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.engine.bench import Judgement
from gapless.engine.explore import EvaluationRecord
from gapless.engine.record import SearchRecord
from gapless.runs.exploring import Exploring
from gapless.runs.recipe import Resolved
from gapless.runs.run import Run
from gapless.studies.limits import Held


class Watcher(Protocol):
    """What is told of a search under way."""

    def started(self, resolved: Resolved | Exploring, run: Run | None, notice: str) -> None:
        """Everything is set up; a notice says what is unusual, if anything."""
        ...

    def told(self, record: SearchRecord | EvaluationRecord) -> None:
        """An epoch is over, or an evaluation."""
        ...

    def judged(self, one: Judgement) -> None:
        """The trained supernet has judged a candidate for the answer."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size of the search.
    run
        The run folder, or None where none was asked for.
    seconds, peak_memory_mb
        Of the search.
    limits
        What was asked of the architecture, and what it costs.
    size
        The space at the size at which the architecture trains on from the weights of its search; None where it is
        trained alone, at the size of ``space.alone()``.
    judged
        Of a method that reads its answer off by judging candidates: how many ``archs``, in how many ``seconds``, and
        the answer's ``accuracy`` in percent on how many ``images``, the last time that it was judged.
    score
        Of a search by a score: its ``name``, ``title`` and ``unit``, the ``value`` of the architecture, the number of
        ``evaluations`` and of different ``architectures`` among them, and a ``notice`` that is to be known with them.
    """

    arch: Arch
    space: Space
    run: Run | None
    seconds: float
    peak_memory_mb: float
    limits: tuple[Held, ...] = ()
    size: Space | None = None
    judged: Mapping[str, Any] | None = None
    score: Mapping[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """Return the plain facts: architecture, notation, parameters and MACs at the size at which it would be
        trained."""
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **size_of(self.size or self.space.alone(), self.arch),
            **({"limits": [asdict(held) for held in self.limits]} if self.limits else {}),
            **({} if self.judged is None else {"judged": dict(self.judged)}),
            **({} if self.score is None else {"score": dict(self.score)}),
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        }


def told_of(judged: Mapping[str, Any], arch: Arch) -> dict[str, Any] | None:
    """Return what :class:`Found` tells of the content of ``judged.json``; None where nothing was judged."""
    own = [told for told in judged["archs"] if told["arch"] == str(arch)]
    if not own:
        return None
    archs = len({told["arch"] for told in judged["archs"]})
    return {
        "archs": archs,
        "seconds": round(judged["seconds"], 2),
        "accuracy": own[-1]["accuracy"],
        "images": own[-1]["images"],
    }
