"""State of optimisers by parameter name, and random numbers that do not disturb the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core.progress import derive_seed


def optimiser_state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Return parameter name -> optimiser state of the parameter (such as momentum)."""
    return {name: dict(optimiser.state[p]) for name, p in module.named_parameters() if p in optimiser.state}


def load_optimiser(module: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore the state on each parameter's device; parameters without an entry lose their state."""
    optimiser.state.clear()
    for name, p in module.named_parameters():
        if name in state:
            optimiser.state[p] = {
                k: v.to(p.device, copy=True) if isinstance(v, Tensor) else v for k, v in state[name].items()
            }


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Run a block that may seed PyTorch's global generators; their state is restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def reseed(device: torch.device, *key: int | str) -> None:
    """Seed PyTorch's global generators of the CPU and of ``device`` by ``key``.

    On a CPU ``torch.manual_seed`` would note down, at each call, where it came from, for a GPU that may be used later.
    """
    seed = derive_seed(*key)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
