"""What a resumed run needs besides tensors of modules: optimisers by parameter name, and random numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def optimiser_state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Return parameter name -> the optimiser's state of it (momentum and the like)."""
    return {name: dict(optimiser.state[p]) for name, p in module.named_parameters() if p in optimiser.state}


def load_optimiser(module: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the state back, on each parameter's device; parameters that are not named lose theirs."""
    optimiser.state.clear()
    for name, p in module.named_parameters():
        if name in state:
            optimiser.state[p] = {
                k: v.to(p.device, copy=True) if isinstance(v, Tensor) else v for k, v in state[name].items()
            }


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Run a block whose seeds on PyTorch's global generators are its own: they are put back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
