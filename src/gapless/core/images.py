"""What the engine needs of a data set: splits of labelled images and batches of them on the device."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Split(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> Tensor:
        """Int64 [N]."""
        ...

    def __len__(self) -> int:
        """Return N."""
        ...


class Images(Protocol):
    """An image classification set. ``gapless.data`` has the real ones."""

    @property
    def train(self) -> Split:
        """The training split."""
        ...

    @property
    def test(self) -> Split:
        """The test split; no search ever sees it."""
        ...

    @property
    def tested(self) -> str:
        """What the test split is, in words."""
        ...

    def batch(
        self,
        split: Any,
        index: Tensor,
        *,
        generator: torch.Generator | None = None,
        augment: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Return normalised images of one of the two splits, [n, C, H, W] and labels [n]; ``augment`` draws from
        ``generator``."""
        ...

    def to(self, device: torch.device | str) -> Images:
        """Return the set on a device."""
        ...
