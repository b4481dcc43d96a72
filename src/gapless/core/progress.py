"""The clock that a method sees, and random numbers that need no checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch

Phase = Literal["weights", "arch", "judge"]


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed that is a pure function of ``key``, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator whose numbers depend on ``key`` alone: nothing to save, and all processes agree."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Run a block (an initialisation) on PyTorch's global CPU generator seeded by ``key``, and put the generator back
    after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*key))
        yield


@dataclass(frozen=True)
class Progress:
    """Where a search stands. Every schedule is a pure function of it.

    Parameters
    ----------
    epoch, epochs
        Counted over the whole search, from 0; of how many.
    step, steps
        Counted over the whole search, from 0; how many an epoch has in the present stage.
    done
        Share of the search that is over, in [0, 1).
    stage, stage_epoch
        Which stage, and the epoch within it, from 0.
    phase
        ``weights``, ``arch`` or ``judge``: what the forward pass is for.
    turn
        Which of several passes of one update.
    seed
        The seed of the run.
    """

    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 1
    done: float = 0.0
    stage: int = 0
    stage_epoch: int = 0
    phase: Phase = "weights"
    turn: int = 0
    seed: int = 0

    def at(self, phase: Phase, turn: int = 0) -> Progress:
        """Return the same moment for another kind of pass."""
        return replace(self, phase=phase, turn=turn)

    def stream(self, name: str = "mix", device: torch.device | str = "cpu") -> torch.Generator:
        """Return the random stream of this pass: seeded by (seed, name, step, phase, turn)."""
        return stream(self.seed, name, self.step, self.phase, self.turn, device=device)
