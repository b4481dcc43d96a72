"""Accuracy of a network, or of the supernet under a mix, with an explicit choice of batch norm statistics: the choice
decides rankings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from gapless.core.network import DropPath
from gapless.engine.feed import Batch
from gapless.engine.state import own_random_numbers, reseed

BatchNorm = Literal["batch", "running", "recalibrated"]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run a block, then restore the module's buffers and training flags."""
    kept = [(b, b.clone()) for b in module.buffers()]
    modes = [(m, m.training) for m in module.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        for m, mode in modes:
            m.training = mode


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Run training passes that leave the running statistics unchanged, without restoring buffers that a graph needs."""
    kept = [
        (m, m.momentum, m.num_batches_tracked, m.num_batches_tracked.clone())
        for m in module.modules()
        if isinstance(m, nn.BatchNorm2d) and m.num_batches_tracked is not None
    ]
    for m, *_ in kept:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum, counter, count in kept:
            m.momentum = momentum
            counter.copy_(count)


def batch_statistics(module: nn.Module) -> None:
    """Let a module normalise by the statistics of each batch, with dropout and drop path off."""
    module.train()
    for m in module.modules():
        if isinstance(m, (_DropoutNd, DropPath)):
            m.eval()


@torch.no_grad()
def judge(
    module: nn.Module,
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    bn: BatchNorm,
    calibration: Iterable[Tensor] = (),
) -> tuple[float, float]:
    """Return (mean cross entropy, accuracy as a share) over ``batches``; the module is unchanged afterwards.

    Parameters
    ----------
    module
        Module whose batch norm layers are set up.
    forward
        Forward pass: maps images to logits through that module.
    batches
        Images [N, C, H, W] with labels [N].
    bn
        Batch norm statistics. ``batch``: those of each batch, with dropout and drop path off; ``running``: the running
        statistics of training; ``recalibrated``: statistics recomputed over ``calibration``.
    calibration
        Batches of training images, for ``recalibrated``.

    Raises
    ------
    ValueError
        If ``batches`` is empty, or if ``recalibrated`` has no calibration batches.
    """
    loss, right, count = None, None, 0
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with own_random_numbers(device), untouched(module):
        reseed(device, "judge")  # noise in a network: the result depends on network and images only
        if bn == "recalibrated":
            recalibrate(module, forward, calibration)
        if bn == "batch":
            batch_statistics(module)
        else:
            module.eval()
        for x, y in batches:
            logits = forward(x).float()
            batch_loss = F.cross_entropy(logits, y, reduction="sum")
            batch_right = (logits.argmax(dim=1) == y).sum()
            loss = batch_loss if loss is None else loss + batch_loss
            right = batch_right if right is None else right + batch_right
            count += len(y)
    if loss is None or right is None:
        raise ValueError("`batches` must not be empty")
    return float(loss) / count, float(right) / count


@torch.no_grad()
def recalibrate(module: nn.Module, forward: Callable[[Tensor], Tensor], images: Iterable[Tensor]) -> None:
    """Replace the running statistics by the mean over the statistics of these batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    momentum = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # cumulative mean
    module.train()
    seen = 0
    try:
        for x in images:
            forward(x)
            seen += 1
    finally:
        for m, value in zip(norms, momentum, strict=True):
            m.momentum = value
    if not seen:
        raise ValueError("recalibration needs at least one batch of training images")
