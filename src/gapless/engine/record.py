"""What one epoch of a search did, and architectures sampled from what the method holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from gapless.core.method import Method
from gapless.core.space import Space
from gapless.engine.diagnostics import Diagnostics

DRAWS = 100
"""Architectures sampled from the method's distribution at the end of an epoch (the number of DrNAS's figure, arXiv
2006.10355)."""


@dataclass(frozen=True)
class SearchRecord:
    """What one epoch of a search did.

    Attributes
    ----------
    epoch, stage
        Number of the epoch and of its stage, counted from 0.
    lr
        Learning rate of the weights at the last step of the epoch.
    train_loss, train_accuracy
        Mean over the epoch's weight passes, in training; accuracy in percent.
    arch_loss
        Mean over the epoch's architecture passes, without penalties; None where there was none.
    valid_loss, valid_accuracy
        Loss and accuracy of the supernet on the images that the weights do not train on, with running statistics;
        None where there are no such images, or where it was not measured.
    arch
        The architecture that the scores decode to at the end of the epoch.
    scores
        The method's scores [D][O].
    cost
        Expected cost of the undecided architecture, for each unit that is bounded; None without bounds.
    draws
        Architectures sampled from the method's distribution, packed (:meth:`Space.unpack`).
    images_per_second, seconds, peak_memory_mb
        Training images per second; wall time; peak memory of the process (or of the GPU) so far.
    diagnostics
        Diagnostics at the end of the epoch; None where they were not asked for.
    """

    epoch: int
    stage: int
    lr: float
    train_loss: float
    train_accuracy: float
    arch_loss: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    arch: str
    scores: list[list[float]]
    cost: dict[str, float] | None
    draws: list[str]
    images_per_second: float
    seconds: float
    peak_memory_mb: float
    diagnostics: Diagnostics | None = None

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types, a line of the trace; the fields of ``diagnostics`` stand beside
        the others."""
        fields = asdict(self)
        return fields | (fields.pop("diagnostics") or {})


@torch.no_grad()
def sample_archs(method: Method, space: Space, generator: torch.Generator, count: int) -> list[str]:
    """Return architectures sampled from the method's present distribution, packed."""
    scores = torch.stack([method.sample_scores(generator) for _ in range(count)]).cpu()
    return [space.pack(space.decode(s)) for s in scores]
