"""The loss of a supernet on a batch under a mix: a forward pass in the precision of the search, and the objective."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gapless.core.mix import Mix
from gapless.core.objective import Objective
from gapless.engine.feed import Batch, Feed
from gapless.engine.graphs import Graphs
from gapless.engine.precision import Precision
from gapless.engine.supernet import Supernet


@dataclass(eq=False)
class SupernetLoss:
    """Loss and accuracy of a supernet on a batch under a mix, in training mode.

    Parameters
    ----------
    supernet
        The supernet; it may be exchanged.
    objective
        The objective that a pass minimises.
    feed
        The feed, which knows the classes of a stage.
    precision
        Precision of the forward pass.
    record
        Record static passes as CUDA graphs and replay them.
    stage
        Stage whose classes count.
    """

    supernet: Supernet
    objective: Objective
    feed: Feed
    precision: Precision = "float32"
    record: bool = False
    stage: int = 0
    _graphs: Graphs | None = field(init=False, default=None)

    def __call__(self, batch: Batch, mix: Mix) -> tuple[Tensor, Tensor]:
        """Return (loss with its graph, accuracy as a share, detached)."""
        images, labels = batch

        def run(images: Tensor, mix: Mix) -> Tensor:
            return self.feed.seen(self.forward(images, mix), self.stage)

        labels = self.feed.named(labels, self.stage)
        loss, logits = self.objective(run, images, labels, mix)
        return loss, (logits.detach().argmax(dim=1) == labels).to(self.feed.dtype).mean()

    def forward(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the logits of all classes [N, classes], at least float32."""
        if self.record and (self._graphs is None or self._graphs.network is not self.supernet):
            self._graphs = Graphs(self.supernet, self.supernet)
        run = self._graphs or self.supernet
        if self.precision != "bfloat16":
            return run(images, mix)
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=not self.record):
            logits: Tensor = run(images, mix)
        return logits.float()

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass; weights of options that did not run are left without a gradient."""
        loss.backward()
        if self._graphs is not None:
            self._graphs.rest()
