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

    Attributes
    ----------
    order
        The classes, easiest first, where a stage uses a share of them; set before the first epoch, part of the state.

    Raises
    ------
    UserError
        Where there are too few images to divide.
    """

    def __init__(self, data: Images, plan: Plan, train: Train, seed: int, dtype: torch.dtype) -> None:
        self.data, self.plan, self.size, self.seed, self.dtype = data, plan, train.batch, seed, dtype
        total = len(data.train)
        if plan.coupling in ("joint", "weights_only") and not plan.held_out:
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
        self._cycle: tuple[int, int, Tensor] = (-1, 0, torch.empty(0))  # a round: its number, of how many, their order
        self.order: Tensor | None = None

    def epoch(self, epoch: int, stage: int) -> list[Tensor]:
        """Return the image numbers of each weight batch of an epoch."""
        return batches(self.training(stage), self.size, stream(self.seed, "order", epoch))

    def weight_batch(self, index: Tensor, step: int, turn: int = 0) -> Batch:
        """Return a batch for the weights, augmented; ``turn`` tells apart several of one step."""
        return self._batch(index, "weights", step, *(() if turn == 0 else (turn,)))

    def arch_batch(self, stage: int = 0) -> Batch:
        """Return the next batch for the architecture, augmented: an endless round over its images, shuffled anew each
        time."""
        index = self._of(self.arch, stage)
        size = min(self.size, len(index))
        cycle, place = divmod(self.drawn, len(index) // size)
        if self._cycle[:2] != (cycle, len(index)):
            order = torch.randperm(len(index), generator=stream(self.seed, "arch order", cycle))
            self._cycle = cycle, len(index), order
        batch = self._batch(index[self._cycle[2][place * size : (place + 1) * size]], "arch", self.drawn)
        self.drawn += 1
        return batch

    def plain(self, index: Tensor, size: int | None = None) -> Iterator[Batch]:
        """Yield training images in order and not augmented, for judging: in batches of ``size``, by default four times
        the size that trains."""
        for part in torch.split(index, size or 4 * self.size):
            yield self.data.batch(self.data.train, part, dtype=self.dtype)

    # ------------------------------------------------------------------ images and classes of a stage

    def training(self, stage: int) -> Tensor:
        """Return the numbers of the images that a stage trains the weights on."""
        return self._of(self.weights, stage)

    def judging(self, stage: int) -> Tensor:
        """Return the numbers of the images that a stage judges by: the architecture's, or all where it has none."""
        return self._of(self.arch if len(self.arch) else self.weights, stage)

    def classes(self, stage: int) -> Tensor | None:
        """Return the classes that a stage uses, ascending; None for all of them."""
        share = self.plan.stages[stage].classes
        if share >= 1:
            return None
        if self.order is None:
            raise RuntimeError("a stage uses a share of the classes, but nobody has put them in order")
        return self.order[: max(2, round(share * len(self.order)))].sort().values

    def seen(self, logits: Tensor, stage: int) -> Tensor:
        """Return those logits [N, present classes] of [N, classes] that a stage uses."""
        classes = self.classes(stage)
        return logits if classes is None else logits[:, classes.to(logits.device)]

    def named(self, labels: Tensor, stage: int) -> Tensor:
        """Return labels counted over the classes that a stage uses."""
        classes = self.classes(stage)
        return labels if classes is None else torch.searchsorted(classes.to(labels.device), labels)

    def _of(self, index: Tensor, stage: int) -> Tensor:
        classes = self.classes(stage)
        if classes is None:
            return index
        found = index[torch.isin(self.data.train.labels.cpu()[index], classes)]
        if not len(found):
            raise UserError(
                f"None of {len(index)} training images is of the {len(classes)} classes that this stage begins with. "
                "Give more images, or a larger first share of the classes."
            )
        return found

    def _batch(self, index: Tensor, name: str, *key: int) -> Batch:
        generator = stream(self.seed, "augment", name, *key)
        return self.data.batch(self.data.train, index, generator=generator, augment=True, dtype=self.dtype)
