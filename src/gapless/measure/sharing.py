"""Networks trained one per batch that share as much of their weights as is asked: all, none, some, or by groups.

The measurement protocol of "Deeper Insights into Weight Sharing in Neural Architecture Search" (arXiv 2001.01431): each
batch trains a single child, only along its own path, in a fixed order or one that is drawn anew in each round. What
children do not share (weights, momentum, running statistics) each *owner* has of its own; it is put into the supernet
for the owner's batches and taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.images import Images
from gapless.core.plan import Plan, Train
from gapless.core.progress import seeded, stream
from gapless.core.space import Space
from gapless.engine.bench import SupernetBench
from gapless.engine.feed import Batch, Feed
from gapless.engine.judge import BatchNorm
from gapless.engine.schedule import rate
from gapless.engine.sgd import sgd
from gapless.engine.state import own_random_numbers, reseed
from gapless.engine.supernet import Execution, Supernet

Order = Literal["cyclic", "fixed", "shuffled"]
"""As listed; in one drawn order; in one that is drawn anew for each round of all children."""


def everything(name: str) -> bool:
    """Whether an entry of the state is shared: always."""
    return True


def prefix(cells: int) -> Callable[[str], bool]:
    """Return which entries are shared where children share the stem and so many of the first cells, and nothing else.

    Raises
    ------
    ValueError
        For less than no cell.
    """
    if cells < 0:
        raise ValueError(f"{cells} cells cannot be shared")
    shared = ("stem.", *(f"cells.{i}." for i in range(cells)))
    return lambda name: name.startswith(shared)


@dataclass
class _Owned:
    """What an owner does not share: entries of the state, and the momentum of its parameters."""

    state: dict[str, Tensor]
    momentum: dict[str, Tensor]


class Sharing:
    """Children of one supernet under training.

    Parameters
    ----------
    space
        At the size of the supernet.
    children
        In the order of the rounds.
    data, train
        Images, and how the weights are trained: all ``epochs`` together are of all children.
    shares
        Whether an entry of the network's state dict (a parameter, a running statistic) is shared by all children.
    owners
        Who owns what a child does not share, one for each child; by default each child.
    order, order_seed
        In which order the children take their turns.
    seed
        Of the weights at the start, which are the same for all owners, and of the order and augmentation of images.
    device, dtype, execution
        Of the supernet.
    """

    def __init__(
        self,
        space: Space,
        children: Sequence[Arch],
        data: Images,
        train: Train,
        *,
        shares: Callable[[str], bool] = everything,
        owners: Sequence[Hashable] | None = None,
        order: Order = "cyclic",
        order_seed: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        execution: Execution = "fused",
    ) -> None:
        if not children:
            raise ValueError("there is no child to train")
        if owners is not None and len(owners) != len(children):
            raise ValueError(f"{len(owners)} owners for {len(children)} children")
        self.children, self.train = tuple(children), train
        self.order, self.order_seed, self.seed, self.device = order, order_seed, seed, torch.device(device)
        with seeded(seed, "weights"):
            self.supernet = Supernet(space, execution).to(self.device, dtype)
        self.space = space
        self.feed = Feed(data.to(self.device), Plan(coupling="weights_only"), train, seed, dtype)
        self.optimiser = sgd(self.supernet.parameters(), train)
        self._mixes = [space.one_hot(arch, dtype=dtype, device=self.device) for arch in children]
        self._entries = {n: t for n, t in _entries(self.supernet.network).items() if not shares(n)}
        self._owners = list(range(len(children))) if owners is None else list(owners)
        first = {name: tensor.clone() for name, tensor in self._entries.items()}
        self._owned = {owner: _Owned({n: t.clone() for n, t in first.items()}, {}) for owner in set(self._owners)}
        self._present: Hashable = self._owners[0]
        self.epoch, self.step = 0, 0

    # ------------------------------------------------------------------ training

    def turn(self, step: int) -> int:
        """Return which child a step trains."""
        count = len(self.children)
        if self.order == "cyclic":
            return step % count
        key = (step // count,) if self.order == "shuffled" else ()
        return int(torch.randperm(count, generator=stream(self.order_seed, "turns", *key))[step % count])

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[int]:
        """Train to the end and yield the number of each epoch, from 1, behind it."""
        while self.epoch < self.train.epochs:
            self.supernet.train()
            parts = self.feed.epoch(self.epoch, 0)
            for i, part in enumerate(parts):
                self.update(self.turn(self.step), part, rate(self.train, self.epoch, self.epoch + i / len(parts)))
                if after_step is not None:
                    after_step()
            self.epoch += 1
            yield self.epoch

    def update(self, child: int, part: Tensor, lr: float) -> None:
        """Train a child on the images of these numbers."""
        self._put(self._owners[child])
        self.supernet.train()
        with own_random_numbers(self.device):
            reseed(self.device, self.seed, "step", self.step)
            images, labels = self.feed.weight_batch(part, self.step)
            self.optimiser.zero_grad(set_to_none=True)  # what did not run rests: neither momentum nor decay moves it
            logits = self.supernet(images, self._mixes[child])
            F.cross_entropy(logits, labels, label_smoothing=self.train.label_smoothing).backward()
            if self.train.clip:
                nn.utils.clip_grad_norm_(self.supernet.parameters(), self.train.clip)
            for group in self.optimiser.param_groups:
                group["lr"] = lr
            self.optimiser.step()
        self.step += 1

    # ------------------------------------------------------------------ judging

    def accuracies(
        self, images: int, bn: BatchNorm = "running", *, calibration: int = 0, children: Sequence[int] | None = None
    ) -> list[float]:
        """Return the accuracy in percent of each child, on the first so many of the test images in an order that no
        seed moves, the same for all.

        Parameters
        ----------
        images
            All, where there are fewer.
        bn
            By which statistics; ``recalibrated`` reads ``calibration`` training images for each child.
        children
            Numbers of those to be judged; by default all.
        """
        data = self.feed.data
        index = torch.randperm(len(data.test), generator=stream("sharing"))[:images].sort().values
        plan = replace(self.feed.plan, bn=bn, calibration=calibration)
        bench = SupernetBench(self.supernet, self.supernet, self.feed, plan, self.seed)

        def batches() -> Iterator[Batch]:
            for part in torch.split(index, 4 * self.feed.size):
                yield data.batch(data.test, part, dtype=self.feed.dtype)

        present, found = self._present, []
        for child in range(len(self.children)) if children is None else children:
            self._put(self._owners[child])
            found.append(100 * bench.measure(self._mixes[child], batches())[1])
        self._put(present)
        return found

    def network(self, child: int) -> nn.Module:
        """Return a child as a network of its own, with its weights."""
        present = self._present
        self._put(self._owners[child])
        network = self.supernet.inherit(self.children[child])
        self._put(present)
        return network

    # ------------------------------------------------------------------ what is not shared

    def _put(self, owner: Hashable) -> None:
        """Put into the supernet what an owner has of its own, and take out what the one before had."""
        if owner == self._present or not self._entries:
            return
        before, after = self._owned[self._present], self._owned[owner]
        with torch.no_grad():
            for name, tensor in self._entries.items():
                before.state[name].copy_(tensor)
                tensor.copy_(after.state[name])
                if isinstance(tensor, nn.Parameter):
                    moving = self.optimiser.state.pop(tensor, {}).get("momentum_buffer")
                    if moving is not None:
                        before.momentum[name] = moving
                    if name in after.momentum:
                        self.optimiser.state[tensor]["momentum_buffer"] = after.momentum[name]
        self._present = owner


def _entries(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
