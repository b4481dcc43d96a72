"""Sums over an epoch so far: part of the state, so that an interrupted epoch reports the same as a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Tally:
    """Sums over the batches of an epoch; losses stay on the device until the end.

    Attributes
    ----------
    batches, images
        Number of batches and of images trained on so far.
    lr
        Learning rate of the last step.
    seconds
        Seconds of training, those before an interruption included.
    updates
        Number of architecture updates so far in the block at the end of the epoch.
    losses, rights, arch_losses
        One scalar per batch: mean loss, number of correctly classified images, mean loss of the architecture passes if
        there were any.
    """

    batches: int = 0
    images: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    updates: int = 0
    losses: list[Tensor] = field(default_factory=list)
    rights: list[Tensor] = field(default_factory=list)
    arch_losses: list[Tensor] = field(default_factory=list)

    def add(self, images: int, lr: float, loss: Tensor, accuracy: Tensor, arch_loss: Tensor | None = None) -> None:
        """Add a batch: number of images, learning rate, loss, accuracy as a share, loss of its architecture passes."""
        self.batches += 1
        self.images += images
        self.lr = lr
        self.losses.append(loss)
        self.rights.append(accuracy * images)
        if arch_loss is not None:
            self.arch_losses.append(arch_loss)

    def means(self) -> tuple[float, float, float | None]:
        """Return (mean loss over batches, accuracy over images as a share, mean architecture loss)."""
        arch = float(torch.stack(self.arch_losses).mean()) if self.arch_losses else None
        return float(torch.stack(self.losses).mean()), float(torch.stack(self.rights).sum()) / self.images, arch

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as plain types and tensors."""
        plain = {name: getattr(self, name) for name in ("batches", "images", "lr", "seconds", "updates")}
        return plain | {name: torch.stack(v) if (v := getattr(self, name)) else None for name in LISTS}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device | str) -> Tally:
        """Return the tally that ``state_dict`` described."""
        tally = cls(state["batches"], state["images"], state["lr"], state["seconds"], state["updates"])
        for name in LISTS:
            if state[name] is not None:
                setattr(tally, name, list(state[name].to(device).unbind()))
        return tally


LISTS = ("losses", "rights", "arch_losses")
