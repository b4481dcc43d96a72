"""Order of classes from easy to hard, by how early a small network learns them.

DA-NAS (arXiv 2003.12563) orders classes by how early networks learn them. Its code is not public, and the measure here
is ours: the accuracy of a class on held-out training images, averaged over a few epochs of training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.plan import Train
from gapless.core.progress import seeded, stream
from gapless.core.space import Space
from gapless.engine.feed import Feed, batches
from gapless.engine.sgd import SGD
from gapless.engine.state import own_random_numbers, reseed

EPOCHS = 5
"""Epochs of the training; ours."""
HELD_OUT = 0.2
"""Share of the weights' images that is held out to measure accuracy on; ours."""


def easiest_first(space: Space, feed: Feed, train: Train, seed: int, device: torch.device) -> Tensor:
    """Return the classes, easiest first, int64 [classes] on the host; ties in order of the class number.

    The network is the architecture with the fewest multiply-adds, where options without any are avoided, at the size of
    the space. It is trained at a constant learning rate, on images of the weights only.
    """
    total = torch.zeros(space.classes, dtype=torch.float64)
    order = torch.randperm(len(feed.weights), generator=stream("aside"))
    cut = len(order) - max(1, round(HELD_OUT * len(order)))
    training, held_out = feed.weights[order[:cut]], feed.weights[order[cut:]]
    with own_random_numbers(device), seeded(seed, "easiness"):
        network = _small(space).to(device, feed.dtype)
        optimiser = SGD(network.parameters(), lr=train.lr, momentum=train.momentum)
        for epoch in range(EPOCHS):
            network.train()
            for step, index in enumerate(batches(training, feed.size, stream(seed, "easiness", epoch))):
                reseed(device, seed, "easiness", epoch, step)
                x, y = feed.data.batch(feed.data.train, index, dtype=feed.dtype)
                optimiser.zero_grad()
                F.cross_entropy(network(x), y).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip or 5.0)
                optimiser.step()
            network.eval()
            right, count = torch.zeros(2, space.classes, dtype=torch.float64)
            with torch.no_grad():
                for x, y in feed.plain(held_out):
                    hit = (network(x).argmax(dim=1) == y).cpu().double()
                    right.index_add_(0, y.cpu(), hit)
                    count.index_add_(0, y.cpu(), torch.ones_like(hit))
            total += right / count.clamp_min(1)
    return total.argsort(descending=True, stable=True)


def _small(space: Space) -> torch.nn.Module:
    table, _ = space.cost_table("macs")
    cheap = torch.where(
        table > 0, -table, -2 * table.max() - 1
    )  # an option without multiply-adds has no weights to learn
    return space.network(space.decode(cheap))
