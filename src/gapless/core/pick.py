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

    def judge(self, mix: Mix, images: int | None = None) -> float:
        """Return the accuracy of the supernet under a mix, as a share, on the images that the weights do not train on
        (all, where there are none); on so many of them, the same each time, where ``images`` is given. The plan says by
        which statistics."""
        ...

    def inherited(self, arch: Arch, images: int | None = None) -> float:
        """Return the accuracy of an architecture with the supernet's weights: that of its mix, noted in the run."""
        ...

    def respects(self, arch: Arch) -> bool:
        """Return whether an architecture holds what the user asked of the answer."""
        ...

    def explore(
        self,
        name: str,
        evaluations: int,
        *,
        images: int | None = None,
        finalists: int = 0,
    ) -> Arch:
        """Return the best architecture that a black-box search ``name`` finds by inherited accuracy on ``images``
        images each; of the ``finalists`` best, the best on all images."""
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
