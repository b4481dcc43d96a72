"""What a judge is: it gives the architectures of one space a score."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.settings import Ranged
from gapless.core.space import Space


@dataclass(frozen=True)
class Settled:
    """What a judge settles, so that nobody has to say it.

    Attributes
    ----------
    space, data
        Tables of a recipe: a ``name``, and settings.
    measured
        Fields of the space that are read from the data.
    images
        ``names`` of the classes, ``mean`` and ``std`` per channel.
    """

    space: Mapping[str, Any]
    data: Mapping[str, Any]
    measured: Mapping[str, int]
    images: Mapping[str, Any] = field(default_factory=dict)


class Judge(Ranged, abc.ABC):
    """The base of every judge: a :data:`gapless.core.searcher.Score` with settings. Subclasses take the space, the
    device and keyword settings, and judge an architecture by a number that is a function of it: asked again, they give
    the same to the last bit.

    Class attributes
    ----------------
    source
        Where such scores are from: one line.

    Attributes
    ----------
    title
        What the number is, in few words.
    unit
        Of the number: "%", or empty.
    notice
        What is unusual about it and should be known before its answer is believed; empty where nothing is.
    fingerprint
        Of what it judges by, beside its settings: a resumed search checks with it that this is as it was.
    """

    of: ClassVar[str] = "score"
    label: ClassVar[str] = ""
    source: ClassVar[str] = ""
    unit: str = "%"

    def __init__(self, space: Space, device: torch.device) -> None:
        self.space, self.device = space, device
        self.title = self.label
        self.notice, self.fingerprint = "", ""

    @classmethod
    def settles(cls, **settings: Any) -> Settled | None:
        """Return what follows from the settings; None where space and data are free."""
        return None

    @classmethod
    def completed(cls, **settings: Any) -> Mapping[str, Any]:
        """Return the settings with those filled in that the others determine; a run records the result."""
        return settings

    @abc.abstractmethod
    def __call__(self, arch: Arch) -> float:
        """Return the score; larger is better."""
