"""SGD on weights, the same in searches and trainings."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core.training import TrainingSettings


class SGD(torch.optim.SGD):
    """PyTorch's SGD without what tells its compiler to leave it alone: that imports the compiler, for two seconds."""

    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    zero_grad = unwrap(torch.optim.SGD.zero_grad)
    state_dict = unwrap(torch.optim.SGD.state_dict)
    load_state_dict = unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


def decays(parameter: Tensor, settings: TrainingSettings) -> bool:
    """Return whether weight decay applies to a parameter."""
    return settings.decay_norms or parameter.dim() > 1


def sgd(
    parameters: Iterable[nn.Parameter],
    settings: TrainingSettings,
    *,
    lr: float | None = None,
    decay: float | None = None,
) -> SGD:
    """Return SGD on the parameters; ``lr`` and ``decay`` override those of ``settings``."""
    listed = list(parameters)
    groups: list[dict[str, Any]] = [{"params": [p for p in listed if decays(p, settings)]}]
    if not settings.decay_norms:
        groups.append({"params": [p for p in listed if not decays(p, settings)], "weight_decay": 0.0})
    fused = any(p.device.type == "cuda" for p in listed)
    optimiser = SGD(
        groups,
        lr=settings.lr if lr is None else lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay if decay is None else decay,
        fused=fused,
    )
    if fused:
        optimiser.register_step_pre_hook(start_momentum)
    return optimiser


def start_momentum(optimiser: torch.optim.Optimizer, *_: object) -> None:
    """Give a parameter that moves for the first time a momentum buffer of zeros.

    PyTorch's fused SGD requires that all parameters have a buffer or none has; from zeros the result is the same.
    """
    for group in optimiser.param_groups:
        for p in group["params"]:
            if group["momentum"] and p.grad is not None and optimiser.state[p].get("momentum_buffer") is None:
                optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
