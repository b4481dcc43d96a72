"""How the answer is read off at the end of a search. The default decodes the method's scores."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from gapless.core.decision import Arch
from gapless.core.mix import Mix
from gapless.core.space import Space


class Bench(Protocol):
    """What a pick may use: the trained supernet, as a judge of mixes."""

    @property
    def space(self) -> Space:
        """The space at the size of the last stage."""
        ...

    def judge(self, mix: Mix) -> float:
        """Return the accuracy of the supernet under a mix, as a share, on the images that the weights do not train on
        (all, where there are none)."""
        ...

    def stream(self, name: str) -> torch.Generator:
        """Return a random stream of this run."""
        ...


@runtime_checkable
class Picks(Protocol):
    """A method with a read-out of its own; the engine looks for it."""

    def pick(self, bench: Bench) -> Arch:
        """Return the answer of the search."""
        ...
