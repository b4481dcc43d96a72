"""Stochastic gradient descent, the same wherever weights are trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Descent(Protocol):
    """What it follows from: settings of a search or of a protocol."""

    @property
    def lr(self) -> float:
        """Initial rate."""
        ...

    @property
    def momentum(self) -> float:
        """Of the moving sum."""
        ...

    @property
    def nesterov(self) -> bool:
        """Whether it looks ahead."""
        ...

    @property
    def weight_decay(self) -> float:
        """Coupled (L2)."""
        ...

    @property
    def decay_norms(self) -> bool:
        """Whether decay also pulls biases and the scales and shifts of normalisations."""
        ...


def decays(parameter: Tensor, how: Descent) -> bool:
    """Return whether decay pulls a parameter."""
    return how.decay_norms or parameter.dim() > 1


def sgd(
    parameters: Iterable[nn.Parameter], how: Descent, *, lr: float | None = None, decay: float | None = None
) -> torch.optim.SGD:
    """Return the optimiser of parameters; ``lr`` and ``decay`` stand in for those of ``how``."""
    listed = list(parameters)
    groups: list[dict[str, Any]] = [{"params": [p for p in listed if decays(p, how)]}]
    if not how.decay_norms:
        groups.append({"params": [p for p in listed if not decays(p, how)], "weight_decay": 0.0})
    fused = any(p.device.type == "cuda" for p in listed)
    optimiser = torch.optim.SGD(
        groups,
        lr=how.lr if lr is None else lr,
        momentum=how.momentum,
        nesterov=how.nesterov,
        weight_decay=how.weight_decay if decay is None else decay,
        fused=fused,
    )
    if fused:
        optimiser.register_step_pre_hook(begin)
    return optimiser


def begin(optimiser: torch.optim.Optimizer, *_: object) -> None:
    """Give a parameter that moves for the first time a moving sum of zero, from which it becomes its gradient as
    without: PyTorch's fused optimiser wants all of them to have one, or none."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            if group["momentum"] and p.grad is not None and optimiser.state[p].get("momentum_buffer") is None:
                optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
