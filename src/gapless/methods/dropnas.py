"""DropNAS: Grouped Operation Dropout for Differentiable Architecture Search. Hong, Li, Zhang, Tang, Wang, Li, Yu. IJCAI
2020, arXiv 2201.11679.

Options fall into a group with weights and a group without. Each step drops options at random inside every group, at
least one staying, and trains weights and ``alpha`` together on all training data (one level). A group of n options has
drop-path rate r, the chance that all of it would vanish; each option is dropped with probability ``q = r ** (1 / n)``
(independent draws, redrawn where a whole group is gone). Kept options are weighed by the softmax over what is kept.
Because only kept alphas move, alpha-adjust then adds one constant to those of a row so that their total mass is as it
was before, and the probabilities of dropped options are left as they were. Decay touches only what took part (partial
decay).

Where paper and released code differ (``faithful=True`` does what the code did):
* the code takes two optimiser steps per batch, the second on ``decay * |x|^2`` of what took part, so its pull is twice
  the coefficient and runs through momentum and Adam; ours is one step with coupled decay;
* under the PyTorch of its time dropped options still moved with their momentum (``inactive="coast"``); ours stay bit
  for bit;
* the code ranks edges by raw alpha; ours by softmax(alpha);
* the code has one rate for both groups; the paper has two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gapless.core.method import Method, Seen, Setting, host, living, start
from gapless.core.mix import Mix, mask_of
from gapless.core.plan import Adam, Plan, Released, Train
from gapless.core.progress import Progress
from gapless.core.settings import NonNegative, Portion, Whole
from gapless.core.space import Space

TRAIN = Train(epochs=76, batch=96, lr=0.0375, lr_min=0.0015, clip=3.0)
RELEASED = Released(decay_step="separate")


class DropNAS(Method):
    """Grouped operation dropout.

    Parameters
    ----------
    rate_weights
        Drop-path rate of the options with weights (released code: 3e-5). 0: none is dropped.
    rate_free
        Drop-path rate of the options without weights (released code: 3e-5). 0: none is dropped.
    adjust
        Whether alpha-adjust runs.
    warmup
        Epochs in which nothing is dropped and alpha is not trained (released code: 0).
    arch_lr
        Learning rate of Adam on alpha (released code: 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 1e-3).
    faithful
        Whether to do as the released code did where paper and code differ: decay, dropped options and ranking.
    """

    label: ClassVar[str] = "dropnas"
    source: ClassVar[str] = "DropNAS, Hong et al., arXiv 2201.11679"
    settings: ClassVar[Mapping[str, Setting]] = {
        "darts": Setting(
            "wiljohnhong/DropNAS, config.py", TRAIN, {"options": "original", "cells": 14}, released=RELEASED
        ),
        "": Setting("wiljohnhong/DropNAS, config.py (written for the DARTS space)", TRAIN, released=RELEASED),
    }

    def __init__(
        self,
        space: Space,
        *,
        rate_weights: Portion = 3e-5,
        rate_free: Portion = 3e-5,
        adjust: bool = True,
        warmup: Whole = 0,
        arch_lr: NonNegative = 3e-4,
        arch_decay: NonNegative = 1e-3,
        faithful: bool = False,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self.rates = {"weights": rate_weights, "free": rate_free}
        self.adjust, self.faithful = adjust, faithful
        self.groups = groups(space)
        self._plan = Plan(
            coupling="joint",
            inactive="coast" if faithful else "skip",
            decay_on="ran",
            released=self.paper.released if faithful else Released(),
            warmup_epochs=warmup,
            arch=Adam(lr=arch_lr, decay=arch_decay),
        )

    @property
    def plan(self) -> Plan:
        """One level: weights and alpha from one pass over all training data."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Draw what is kept, and weigh it by a softmax over it; evaluation and warm-up keep everything."""
        if now.phase == "judge" or now.stage_epoch < self._plan.warmup_epochs:
            return Mix(living(self.alpha, self.alive).softmax(dim=-1), self.active)
        mask = self.draw(now.stream("mask"))
        kept = living(self.alpha, mask.to(self.alpha.device)).softmax(dim=-1)
        return Mix(kept, host(mask))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return a [D, O] mask on the host: True where an option is kept; at least one of each group of each
        decision."""
        mask = mask_of(self.active, self.alpha.shape[1])  # from the host's copy: no waiting for the device
        for row, members in enumerate(self.groups):
            for group, columns in members.items():
                columns = [c for c in columns if c in self.active[row]]
                rate = self.rates.get(group, 0.0)
                if rate > 0 and columns:
                    mask[row, columns] = survivors(len(columns), rate, generator)
        return mask

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``; faithful: alpha itself."""
        if self.faithful:
            return torch.where(self.alive, self.alpha, self.alpha.detach().min() - 1)
        return living(self.alpha, self.alive).softmax(dim=-1)

    def settle(self, seen: Seen) -> None:
        """Alpha-adjust."""
        if not self.adjust or seen.mix.active is None:
            return
        kept = mask_of(seen.mix.active, self.alpha.shape[1]).to(self.alpha.device)
        self.alpha.add_(adjustment(seen.before["alpha"], self.alpha, kept, self.alive, as_coded=self.faithful))


def groups(space: Space) -> list[dict[str, list[int]]]:
    """Return for each decision: group name -> columns. Options without a group are never dropped."""
    found: list[dict[str, list[int]]] = []
    for d in space.decisions:
        members: dict[str, list[int]] = {}
        for column, option in enumerate(d.options):
            if option in d.groups:
                members.setdefault(d.groups[option], []).append(column)
        found.append(members)
    return found


def survivors(n: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return [n] bool: each kept with probability ``1 - rate ** (1 / n)``, drawn again while none is.

    >>> bool(survivors(4, 3e-5, torch.Generator().manual_seed(0)).any())
    True
    """
    drop = rate ** (1 / n)
    while True:
        kept: Tensor = torch.rand(n, generator=generator, dtype=torch.float64) >= drop
        if kept.any():
            return kept


def adjustment(old: Tensor, new: Tensor, kept: Tensor, alive: Tensor, *, as_coded: bool = False) -> Tensor:
    """Return [D, O] to add to the kept alphas so that their mass returns to what it was; zero in rows where nothing was
    dropped.

    ``ln(sum_kept exp(old) / sum_kept exp(new))``. As coded: ``ln(rho / (1 - rho) * sum_dropped exp(new) / sum_kept
    exp(new))`` with rho the old kept mass, which is the same where dropped alphas did not move.
    """
    dropped = alive & ~kept

    def mass(alpha: Tensor, mask: Tensor) -> Tensor:
        total: Tensor = living(alpha, mask).logsumexp(dim=-1, keepdim=True)
        return total

    delta = mass(old, kept) - mass(new, kept)
    if as_coded:
        delta = delta + mass(new, dropped) - mass(old, dropped)
    some = dropped.any(dim=-1, keepdim=True)
    return torch.where(some & kept, delta, torch.zeros_like(old))


METHOD = DropNAS
