"""Adam on architecture parameters, with a mask of the entries that a step updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core.plan import Adam


class ArchAdam:
    """Adam (Kingma and Ba, arXiv 1412.6980) with coupled L2, as ``torch.optim.Adam``, and a mask per step.

    An entry outside the mask keeps its value and its moments bit for bit (lazy Adam; bias correction counts all steps).

    Parameters
    ----------
    method
        Module whose parameters are trained.
    settings
        Learning rate, betas and decay.
    """

    def __init__(self, method: nn.Module, settings: Adam) -> None:
        self.method, self.settings = method, settings
        self.steps = 0
        self.mean = {name: torch.zeros_like(p) for name, p in method.named_parameters()}
        self.square = {name: torch.zeros_like(p) for name, p in method.named_parameters()}

    @torch.no_grad()
    def step(
        self, gradient: Mapping[str, Tensor], *, mask: Mapping[str, Tensor] | None = None, decay: float | None = None
    ) -> None:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        gradient
            Parameter name -> gradient.
        mask
            Parameter name -> bool of the parameter's shape; False entries are not updated.
        decay
            Coupled L2; by default that of the settings.
        """
        s = self.settings
        self.steps += 1
        first, second = 1 - s.betas[0] ** self.steps, 1 - s.betas[1] ** self.steps
        for name, p in self.method.named_parameters():
            if name not in gradient:
                continue
            g = gradient[name].to(p) + (s.decay if decay is None else decay) * p
            mean = self.mean[name].lerp(g, 1 - s.betas[0])
            square = self.square[name] * s.betas[1] + (1 - s.betas[1]) * g * g
            value = p - (s.lr / first) * mean / (square.sqrt() / math.sqrt(second) + s.eps)
            if mask is not None and name in mask:
                keep = mask[name]
                mean, square, value = (
                    torch.where(keep, a, b)
                    for a, b in ((mean, self.mean[name]), (square, self.square[name]), (value, p))
                )
            self.mean[name].copy_(mean)
            self.square[name].copy_(square)
            p.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the moments by name."""
        return {"steps": self.steps, "mean": dict(self.mean), "square": dict(self.square)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state``."""
        self.steps = state["steps"]
        for own, loaded in ((self.mean, state["mean"]), (self.square, state["square"])):
            if own.keys() != loaded.keys():
                raise ValueError(f"the state has moments of {sorted(loaded)}, this method parameters {sorted(own)}")
            for name, value in loaded.items():
                own[name].copy_(value)

    def to(self, device: torch.device | str) -> ArchAdam:
        """Move the moments to a device."""
        self.mean = {k: v.to(device) for k, v in self.mean.items()}
        self.square = {k: v.to(device) for k, v in self.square.items()}
        return self
