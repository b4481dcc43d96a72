"""The clock and the learning rate: pure functions of where a search stands."""

from __future__ import annotations

import math

from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress


def curve(train: Train, at: float) -> float:
    """Return the learning rate after ``at`` epochs, without warm-up.

    Cosine: ``lr_min + (lr - lr_min) * (1 + cos(pi * at / epochs)) / 2`` (SGDR, arXiv 1608.03983, one cycle).
    """
    if train.schedule == "constant":
        return train.lr
    return train.lr_min + (train.lr - train.lr_min) * (1 + math.cos(math.pi * at / train.epochs)) / 2


def learning_rate(train: Train, plan: Plan, now: Progress) -> float:
    """Return the rate of the weights at a moment.

    With ``plan.lr_after_stage == "restart"`` a later stage starts again at the initial rate and follows the recursive
    cosine from there, as a new optimiser under an old PyTorch scheduler's counter does: every rate of the stage is
    ``(lr - lr_min) / (curve(start) - lr_min)`` times as far above the floor.
    """
    at = now.done * train.epochs if train.lr_per == "step" else float(now.epoch)
    if now.epoch < train.lr_warmup:
        return train.lr * (now.epoch + 1) / train.lr_warmup
    rate = curve(train, at)
    if plan.lr_after_stage == "restart" and now.stage and train.schedule == "cosine":
        start = curve(train, now.epoch - now.stage_epoch)
        rate = train.lr_min + (rate - train.lr_min) * (train.lr - train.lr_min) / (start - train.lr_min)
    return rate


def locate(plan: Plan, epochs: int, epoch: int) -> tuple[int, int]:
    """Return (stage, epoch within it) of an epoch counted from 0."""
    for stage, length in enumerate(plan.stage_epochs(epochs)):
        if epoch < length:
            return stage, epoch
        epoch -= length
    raise ValueError("the epoch lies behind the last stage")
