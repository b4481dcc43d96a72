"""Stage and learning rate of a search or training: pure functions of its progress."""

from __future__ import annotations

import math
from dataclasses import replace

from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress
from gapless.core.training import TrainingSettings

LAST = 5
"""Number of last epochs of the linear schedule in which the learning rate falls more slowly (PC-DARTS, arXiv
1907.05737, released code)."""


def curve(train: TrainingSettings, at: float) -> float:
    """Return the learning rate after ``at`` epochs, without warm-up.

    Cosine: ``lr_min + (lr - lr_min) * (1 + cos(pi * at / epochs)) / 2`` (SGDR, arXiv 1608.03983, one cycle). Linear
    (PC-DARTS and DrNAS on ImageNet, released code), with N epochs: ``lr * (N - 5 - at) / (N - 5)``, and in the last
    five ``lr * (N - at) / (5 * (N - 5))``; with at most ten epochs it is a straight line to zero. Straight (SPOS, arXiv
    1904.00420, released code): ``lr * (1 - at / N)``. Exponential (DARTS on ImageNet, released code): ``lr * 0.97 **
    at``.
    """
    if train.schedule == "constant":
        return train.lr
    if train.schedule == "exponential":
        return float(train.lr * 0.97**at)
    if train.schedule == "straight":
        return train.lr * (1 - at / train.epochs)
    if train.schedule == "linear":
        last = LAST if train.epochs > 2 * LAST else 0
        left = train.epochs - at
        share = (left - last) / (train.epochs - last) if left > last else left / (last * (train.epochs - last))
        return train.lr * share
    return train.lr_min + (train.lr - train.lr_min) * (1 + math.cos(math.pi * at / train.epochs)) / 2


def rate(train: TrainingSettings, epoch: int, at: float) -> float:
    """Return the learning rate with warm-up, in an epoch counted from 0, after ``at`` epochs."""
    if epoch < train.lr_warmup:
        return train.lr * (epoch + 1) / train.lr_warmup
    return curve(train, at if train.lr_per == "step" else float(epoch))


def learning_rate(train: Train, plan: Plan, now: Progress) -> float:
    """Return the learning rate of the weights at a moment of a search.

    With ``plan.released.lr_after_stage == "restart"`` a later stage starts again at the initial learning rate and
    follows the recursive cosine from there, as a new optimiser under an old PyTorch scheduler's counter does: the
    distance to ``lr_min`` is ``(lr - lr_min) / (curve(start) - lr_min)`` times as large throughout the stage.
    """
    done = now.done * train.epochs
    train = replace(train, epochs=max(train.epochs, train.lr_epochs))  # the length of the curve
    lr = rate(train, now.epoch, done)
    restart = plan.released.lr_after_stage == "restart" and now.stage > 0 and train.schedule == "cosine"
    if restart and now.epoch >= train.lr_warmup:
        start = curve(train, now.epoch - now.stage_epoch)
        lr = train.lr_min + (lr - train.lr_min) * (train.lr - train.lr_min) / (start - train.lr_min)
    return lr


def locate(plan: Plan, epochs: int, epoch: int) -> tuple[int, int]:
    """Return (stage, epoch within it) of an epoch counted from 0."""
    for stage, length in enumerate(plan.stage_epochs(epochs)):
        if epoch < length:
            return stage, epoch
        epoch -= length
    raise ValueError(f"`epoch` must be less than {epochs}")
