"""What a pass minimises. The default is cross entropy; views, teachers and distillation are other objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor

from gapless.core.mix import Mix

Forward = Callable[[Tensor, Mix], Tensor]
"""Runs the supernet: (images [N, C, H, W], mix) -> logits [N, classes]."""


class Outcome(NamedTuple):
    """The loss of a pass, a scalar with its graph, and the logits [N, classes] by which accuracy is counted."""

    loss: Tensor
    logits: Tensor


class Objective(Protocol):
    """The loss of one pass over one batch. It may run the supernet as often as it needs."""

    def __call__(self, run: Forward, images: Tensor, labels: Tensor, mix: Mix) -> Outcome:
        """Return the loss and the logits of a batch under a mix."""
        ...


def cross_entropy(run: Forward, images: Tensor, labels: Tensor, mix: Mix, *, label_smoothing: float = 0.0) -> Outcome:
    """Return the mean cross entropy; ``label_smoothing`` is the share of the target that is spread over all classes
    (arXiv 1512.00567)."""
    logits = run(images, mix)
    return Outcome(F.cross_entropy(logits, labels, label_smoothing=label_smoothing), logits)
