"""Which classes are easy: a small network is trained for a short while, and a class that it soon gets right is easy.

DA-NAS (arXiv 2003.12563) orders classes by how early networks learn them; no code of it is known, and the measure here
is ours: the mean over the epochs of a class's accuracy on training images that the network is not trained on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.plan import Train
from gapless.core.progress import derive_seed, seeded, stream
from gapless.core.space import Space
from gapless.engine.feed import Feed, batches
from gapless.engine.state import own_random_numbers

EPOCHS = 5
"""Of the training; ours."""
ASIDE = 0.2
"""Share of the weights' images by which classes are judged; ours."""


def easiest_first(space: Space, feed: Feed, train: Train, seed: int, device: torch.device) -> Tensor:
    """Return the classes, easiest first, int64 [classes] on the host; ties by number.

    The network is the architecture of the space with the fewest multiply-adds that costs something, at the size of the
    space; its rate is constant. It sees the weights' images only.
    """
    total = torch.zeros(space.classes, dtype=torch.float64)
    order = torch.randperm(len(feed.weights), generator=stream("aside"))
    cut = len(order) - max(1, round(ASIDE * len(order)))
    taught, asked = feed.weights[order[:cut]], feed.weights[order[cut:]]
    with own_random_numbers(device), seeded(seed, "easiness"):
        network = _small(space).to(device, feed.dtype)
        optimiser = torch.optim.SGD(network.parameters(), lr=train.lr, momentum=train.momentum)
        for epoch in range(EPOCHS):
            network.train()
            for step, index in enumerate(batches(taught, feed.size, stream(seed, "easiness", epoch))):
                torch.manual_seed(derive_seed(seed, "easiness", epoch, step))
                x, y = feed.data.batch(feed.data.train, index, dtype=feed.dtype)
                optimiser.zero_grad()
                F.cross_entropy(network(x), y).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip or 5.0)
                optimiser.step()
            network.eval()
            right, count = torch.zeros(2, space.classes, dtype=torch.float64)
            with torch.no_grad():
                for x, y in feed.plain(asked):
                    hit = (network(x).argmax(dim=1) == y).cpu().double()
                    right.index_add_(0, y.cpu(), hit)
                    count.index_add_(0, y.cpu(), torch.ones_like(hit))
            total += right / count.clamp_min(1)
    return total.argsort(descending=True, stable=True)


def _small(space: Space) -> torch.nn.Module:
    table, _ = space.cost_table("macs")
    cheap = torch.where(table > 0, -table, -2 * table.max() - 1)  # an option that costs nothing learns nothing
    return space.network(space.decode(cheap))
