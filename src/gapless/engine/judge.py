"""Accuracy of a network or of a mix of the supernet, with an explicit policy for batch normalisation: it decides
rankings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from gapless.core.network import DropPath
from gapless.core.progress import derive_seed
from gapless.engine.state import own_random_numbers

BatchNorm = Literal["batch", "running", "recalibrated"]
Batch = tuple[Tensor, Tensor]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run a block, then put back the module's buffers and its training flag."""
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
    """Run training passes that leave the running statistics as they are, also while a graph still needs the buffers."""
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
    """Set a module up to normalise by the statistics of each batch, with nothing dropped."""
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
    """Return (mean cross entropy, accuracy as a share) over ``batches`` and leave the module as it was.

    Parameters
    ----------
    module
        Whose normalisation is set up.
    forward
        Maps images to logits through that module.
    batches
        Images [N, C, H, W] with labels [N].
    bn
        ``batch``: statistics of each batch, with nothing dropped; ``running``: those gathered in training;
        ``recalibrated``: gathered anew over ``calibration``.
    calibration
        Batches of training images, for ``recalibrated``.

    Raises
    ------
    ValueError
        For ``recalibrated`` without calibration batches, or for no batch at all.
    """
    loss, right, count = None, None, 0
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with own_random_numbers(device), untouched(module):
        torch.manual_seed(derive_seed("judge"))  # noise in a network: a judgement is a function of network and images
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
        raise ValueError("there is no image to judge by")
    return float(loss) / count, float(right) / count


@torch.no_grad()
def recalibrate(module: nn.Module, forward: Callable[[Tensor], Tensor], images: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain mean over the statistics of the given batches."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    momentum = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # PyTorch's name for a cumulative mean
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
