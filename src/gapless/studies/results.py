"""Results of searches and trainings, as they end and as read back from their run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gapless.core.decision import Arch
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.runs.checked import Start
from gapless.runs.run import Run
from gapless.studies.limits import BoundCost
from gapless.studies.pipeline import Answer


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size of the search.
    run
        The run folder, or None where nothing was written.
    seconds, peak_memory_mb
        Wall time and largest memory of the search.
    limits
        The bounds on the architecture, with its costs.
    sizes
        Parameters and MACs at the size at which the architecture would be trained: ``params``, ``macs``.
    start
        Whether that training starts from fresh weights, at the size of ``space.alone()``, or from the inherited weights
        of the search, at its size.
    judged
        Of a method that chooses its answer by judging candidates: the number of candidates, ``archs``, the ``seconds``
        that this took, and the ``accuracy`` of the answer in percent on a number of ``images``, when last judged; and
        what ``on``: training images that were held out from the weights, or not.
    score
        Of a search by a score: its ``name``, ``title`` and ``unit``, the ``value`` of the architecture, the number of
        ``evaluations`` and of different ``architectures`` among them, and a ``notice`` that qualifies them.
    """

    arch: Arch
    space: Space
    run: Run | None
    seconds: float
    peak_memory_mb: float
    limits: tuple[BoundCost, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    start: Start = "fresh"
    judged: Mapping[str, Any] | None = None
    score: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, answer: Answer, run: Run | None, seconds: float, peak_memory_mb: float, size: Space | None, **more: Any
    ) -> SearchResult:
        """Return the result of a search from its answer.

        ``size`` is the space at the size at which the architecture is trained on from the weights of the search; None
        where it is trained alone from fresh ones.
        """
        return cls(
            answer.arch,
            answer.space,
            run,
            seconds,
            peak_memory_mb,
            answer.limits,
            size_of(size or answer.space.alone(), answer.arch),
            "fresh" if size is None else "inherited",
            **more,
        )

    @classmethod
    def read(cls, run: Run) -> SearchResult:
        """Return the result of a search that has ended."""
        arch, space = run.found()
        records, judged, alone = list(run.trace()), run.judged(), run.alone()
        return cls(
            arch,
            space,
            run,
            sum(r["seconds"] for r in records) + judged["seconds"],
            max((r["peak_memory_mb"] for r in records), default=0.0),
            sizes={unit: alone[unit] for unit in ("params", "macs")},
            start=alone["start"],
            judged=judged_facts(judged, arch),
            score=run.score(),
        )

    def summary(self) -> dict[str, Any]:
        """Return the plain facts: architecture, notation, parameters and MACs at the size at which it would be
        trained."""
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **self.sizes,
            **({"limits": [asdict(bound) for bound in self.limits]} if self.limits else {}),
            **({} if self.judged is None else {"judged": dict(self.judged)}),
            **({} if self.score is None else {"score": dict(self.score)}),
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        }


def judged_facts(judged: Mapping[str, Any], arch: Arch) -> dict[str, Any] | None:
    """Return ``SearchResult.judged`` from the content of ``judged.json``; None where nothing was judged."""
    own = [one for one in judged["archs"] if one["arch"] == str(arch)]
    if not own:
        return None
    archs = len({one["arch"] for one in judged["archs"]})
    return {
        "archs": archs,
        "seconds": round(judged["seconds"], 2),
        "accuracy": own[-1]["accuracy"],
        "images": own[-1]["images"],
        "on": judged["on"],
    }


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of a training.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size at which it was trained.
    run
        The run folder, or None where nothing was written.
    record
        The record of the last epoch: its test accuracy is the one to report.
    images, tested
        Number of test images behind that accuracy, and what they are (``ImageData.tested``).
    seconds
        Wall time of all epochs.
    """

    arch: Arch
    space: Space
    run: Run | None
    record: Mapping[str, Any]
    images: int
    tested: str
    seconds: float

    @classmethod
    def read(cls, run: Run) -> TrainingResult:
        """Return the result of a training that has ended."""
        arch, space = run.found()
        records, result = run.records(), run.result()
        seconds = sum(record["seconds"] for record in records)
        return cls(arch, space, run, records[-1], result["test_images"], result["tested_on"], seconds)

    @property
    def accuracy(self) -> float:
        """Percent of the test images that are classified correctly after the last epoch."""
        return float(self.record["test_accuracy"])

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        low, high = interval(self.accuracy / 100, self.images)
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **size_of(self.space, self.arch),
            "test_accuracy": self.accuracy,
            "test_images": self.images,
            "tested_on": self.tested,
            "interval_95": [100 * low, 100 * high],
            "test_loss": self.record["test_loss"],
            "epochs": self.record["epoch"] + 1,
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.record["peak_memory_mb"], 1),
        }


def interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` independent images (Wilson, 1927).

    >>> [round(x, 4) for x in interval(0.5, 100)]
    [0.4038, 0.5962]
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half
