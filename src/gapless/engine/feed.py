"""Batches of a search: pure functions of the seed and of the step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.images import Images
from gapless.core.plan import Plan, Train
from gapless.core.progress import stream

Batch = tuple[Tensor, Tensor]
"""Images [N, C, H, W] and labels [N]."""


def batches(index: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Return the image numbers of an epoch's batches, shuffled.

    A last batch of a single image is dropped, since it has no batch statistics.
    """
    parts = list(torch.split(index[torch.randperm(len(index), generator=generator)], size))
    return parts[:-1] if len(parts[-1]) == 1 and len(parts) > 1 else parts


class Feed:
    """The training images, divided between weights and architecture, and batches of both parts.

    Parameters
    ----------
    data
        Data set on the device of the search. The test split is not touched.
    plan
        Plan of the method. If it trains weights and architecture jointly, or weights only, and holds nothing out, all
        training images are the weights'.
    train
        Training settings. Otherwise ``train.arch_share`` of the training images are the architecture's, by a fixed
        random division that does not depend on the seed.
    seed
        Seed of order and augmentation.
    dtype
        Floating-point type of the images.

    Attributes
    ----------
    weights, arch
        Numbers of the images of the weights and of the architecture.
    drawn
        Number of architecture batches drawn so far; part of the state.
    order
        The classes, easiest first, where a stage uses a share of them; set before the first epoch, part of the state.

    Raises
    ------
    UserError
        If there are too few images to divide.
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
                    f"At least 2 training images are needed, to divide them between weights and architecture; "
                    f"got {total}."
                )
        self.drawn = 0
        self._cycle: tuple[int, int, Tensor] = (-1, 0, torch.empty(0))  # a pass over arch: number, length, order
        self.order: Tensor | None = None

    def epoch(self, epoch: int, stage: int) -> list[Tensor]:
        """Return the image numbers of each weight batch of an epoch."""
        return batches(self.training(stage), self.size, stream(self.seed, "order", epoch))

    def weight_batch(self, index: Tensor, step: int, turn: int = 0) -> Batch:
        """Return an augmented batch for the weights; ``turn`` numbers the batches of one step."""
        return self._batch(index, "weights", step, *(() if turn == 0 else (turn,)))

    def arch_batch(self, stage: int = 0) -> Batch:
        """Return the next augmented batch for the architecture, from endless passes over its images, each in a new
        random order."""
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
        """Yield batches of training images for evaluation, in order and without augmentation; ``size`` is by default
        four times the training batch."""
        for part in torch.split(index, size or 4 * self.size):
            yield self.data.batch(self.data.train, part, dtype=self.dtype)

    # ------------------------------------------------------------------ images and classes of a stage

    def training(self, stage: int) -> Tensor:
        """Return the numbers of the images on which a stage trains the weights."""
        return self._of(self.weights, stage)

    def judging(self, stage: int) -> Tensor:
        """Return the numbers of the images on which a stage evaluates: the architecture's, or all if it has none."""
        return self._of(self.arch if len(self.arch) else self.weights, stage)

    @property
    def judged_on(self) -> str:
        """What the images of :meth:`judging` are, in words."""
        return "training images (held out from the weights)" if len(self.arch) else "training images"

    def classes(self, stage: int) -> Tensor | None:
        """Return the classes that a stage uses, ascending; None: all classes."""
        share = self.plan.stages[stage].classes
        if share >= 1:
            return None
        if self.order is None:
            raise RuntimeError("a stage uses a share of the classes; set `order` first")
        return self.order[: max(2, round(share * len(self.order)))].sort().values

    def seen(self, logits: Tensor, stage: int) -> Tensor:
        """Return the logits of the classes that a stage uses: [N, classes] to [N, classes of the stage]."""
        classes = self.classes(stage)
        return logits if classes is None else logits[:, classes.to(logits.device)]

    def named(self, labels: Tensor, stage: int) -> Tensor:
        """Return labels renumbered over the classes that a stage uses."""
        classes = self.classes(stage)
        return labels if classes is None else torch.searchsorted(classes.to(labels.device), labels)

    def _of(self, index: Tensor, stage: int) -> Tensor:
        classes = self.classes(stage)
        if classes is None:
            return index
        kept = index[torch.isin(self.data.train.labels.cpu()[index], classes)]
        if not len(kept):
            raise UserError(
                f"None of the {len(index)} training images is of the {len(classes)} classes that this stage uses. "
                "Use more images, or a larger share of the classes in this stage."
            )
        return kept

    def _batch(self, index: Tensor, name: str, *key: int) -> Batch:
        generator = stream(self.seed, "augment", name, *key)
        return self.data.batch(self.data.train, index, generator=generator, augment=True, dtype=self.dtype)
