"""Which images a step sees: pure functions of the seed and of where the search stands."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.images import Images
from gapless.core.plan import Plan, Train
from gapless.core.progress import stream

Batch = tuple[Tensor, Tensor]


def batches(index: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the image numbers of an epoch's batches, shuffled.

    A last batch of a single image is left out: it has no batch statistics.
    """
    parts = list(torch.split(index[torch.randperm(len(index), generator=generator)], size))
    return parts[:-1] if len(parts[-1]) == 1 and len(parts) > 1 else parts


class Feed:
    """Divides the training images between weights and architecture, and hands out batches of either.

    Parameters
    ----------
    data
        On the device of the search. The test split is not touched.
    plan, train
        A plan that trains both at once gives all training images to the weights; else ``train.arch_share`` of them are
        the architecture's, by one fixed random division that no seed moves.
    seed
        Of order and augmentation.
    dtype
        Of the images.

    Raises
    ------
    UserError
        Where there are too few images to divide.
    """

    def __init__(self, data: Images, plan: Plan, train: Train, seed: int, dtype: torch.dtype) -> None:
        self.data, self.plan, self.size, self.seed, self.dtype = data, plan, train.batch, seed, dtype
        total = len(data.train)
        if plan.coupling in ("joint", "weights_only"):
            self.weights, self.arch = torch.arange(total), torch.empty(0, dtype=torch.long)
        else:
            order = torch.randperm(total, generator=stream("division"))
            cut = total - round(total * train.arch_share)
            self.weights, self.arch = order[:cut].sort().values, order[cut:].sort().values
            if not len(self.weights) or not len(self.arch):
                raise UserError(
                    f"{total} training images cannot be divided between weights and architecture; "
                    "at least 2 are needed."
                )
        self.drawn = 0  # architecture batches so far

    def epoch(self, epoch: int, stage: int) -> list[Tensor]:
        """Return the image numbers of each weight batch of an epoch; a stage may use a share of the images."""
        index = self.weights
        share = self.plan.stages[stage].data
        if share < 1:
            pick = torch.randperm(len(index), generator=stream("share"))[: max(1, round(share * len(index)))]
            index = index[pick]
        return batches(index, self.size, stream(self.seed, "order", epoch))

    def weight_batch(self, index: Tensor, step: int) -> Batch:
        """Return a batch for the weights, augmented."""
        return self._batch(index, "weights", step)

    def arch_batch(self) -> Batch:
        """Return the next batch for the architecture, augmented: an endless round over its images, shuffled anew each
        time."""
        size = min(self.size, len(self.arch))
        cycle, place = divmod(self.drawn, len(self.arch) // size)
        order = torch.randperm(len(self.arch), generator=stream(self.seed, "arch order", cycle))
        batch = self._batch(self.arch[order[place * size : (place + 1) * size]], "arch", self.drawn)
        self.drawn += 1
        return batch

    def plain(self, index: Tensor) -> Iterator[Batch]:
        """Yield training images in order and not augmented, in batches of four times the size, for judging."""
        for part in torch.split(index, 4 * self.size):
            yield self.data.batch(self.data.train, part, dtype=self.dtype)

    def _batch(self, index: Tensor, name: str, step: int) -> Batch:
        generator = stream(self.seed, "augment", name, step)
        return self.data.batch(self.data.train, index, generator=generator, augment=True, dtype=self.dtype)
