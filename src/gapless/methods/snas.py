"""SNAS: Stochastic Neural Architecture Search. Xie, Zheng, Liu, Lin. ICLR 2019, arXiv 1812.09926.

An architecture is a draw from a factorised distribution, and the expected loss over architectures is minimised by the
weights and ``alpha`` at once, on the same images. The one-hot draw of each decision is relaxed to a concrete sample
(section 2.2), ``w = softmax((alpha + G) / tau)`` with Gumbel noise G, whose gradient reaches alpha,

    dL/dalpha_k = (w_k / tau) (g_k - sum_l w_l g_l),    g_k = <dL/dx, y_k>,

and tau falls linearly towards a discrete draw. What a network costs can be added to the loss (section 2.4), by one of
three estimators: of the drawn ``w``, of the probabilities, or the score of ``w`` times its cost.

Where paper and released code differ: on a single GPU the code trains alpha by plain SGD and leaves it out of
checkpoints, on several by Adam; we follow the latter, which is the paper's. It fixes the schedule of tau to 150 epochs
and runs it one epoch ahead, so that the last one has 0.03. Edges are dropped while it searches (30 % of them), which
ours are not. Its score function keeps the draw's own graph; ours does not, as a score function must. Its penalties are
means over the cells of one kind, with the numbers 6 and 2 written in; ours are of the whole network, which under the
logarithm is another constant only where costs of cells are proportional. The published rows of NAS-Bench-201 are of a
two-level variant in xiangning-chen/DrNAS, with tau from 10 to 1: ``bilevel``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gapless.core.cost import Unit
from gapless.core.method import Method, Setting, living
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import concrete
from gapless.core.settings import NonNegative, Positive
from gapless.core.space import Space

UNITS: tuple[Unit, ...] = ("params", "macs", "access")
"""What a network costs: parameters, multiply-adds, elements that its layers read and write."""
RAW = (0.86, 0.43 / 4000, 0.43 / 100)
"""Weights of the three in ``resource_scale="raw"`` (released code)."""


class SNAS(Method):
    """SNAS.

    Parameters
    ----------
    bilevel
        Whether alpha has images of its own and is trained first in each step, as on NAS-Bench-201 in
        xiangning-chen/DrNAS; else both are trained from one pass on all images.
    tau
        Temperature at the start (released code: 1; the variant of NAS-Bench-201: 10).
    tau_end
        Temperature that is reached linearly at the end (released code: 0.03; the variant of NAS-Bench-201: 1).
    resource
        Weight of the cost in the loss (released code: 1.5e-3 in its command lines). 0: no such term.
    resource_scale
        Cost of a decision: ``log``, the mean of the logarithms of parameters, MACs and memory accesses, those below 1
        counted as 1; or ``raw``, 0.43 (2 parameters + MACs / 4000 + accesses / 100).
    resource_estimator
        Estimator of the cost: ``reparametrization``, of the sampled weights; ``discrete``, of the probabilities;
        ``policy_gradient``, the log-density of the sample times its cost.
    arch_lr
        Learning rate of Adam on alpha (released code: 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 1e-3).
    arch_clip
        Bound on the norm of alpha's gradient (released code: 10). 0: no bound.
    """

    label: ClassVar[str] = "snas"
    source: ClassVar[str] = "SNAS, Xie, Zheng, Liu and Lin, arXiv 1812.09926"
    settings: ClassVar[Mapping[str, Setting]] = {
        "darts": Setting("SNAS-Series/SNAS-Series, SNAS/train_search.py", Train(epochs=150), {"inputs": None}),
        "nasbench201": Setting("xiangning-chen/DrNAS, 201-space/train_search.py, method snas", Train(epochs=100)),
        "": Setting("SNAS-Series/SNAS-Series, SNAS/train_search.py", Train(epochs=150)),
    }

    def __init__(
        self,
        space: Space,
        *,
        bilevel: bool = False,
        tau: Positive = 1.0,
        tau_end: Positive = 0.03,
        resource: NonNegative = 0.0,
        resource_scale: Literal["log", "raw"] = "log",
        resource_estimator: Literal["reparametrization", "discrete", "policy_gradient"] = "reparametrization",
        arch_lr: NonNegative = 3e-4,
        arch_decay: NonNegative = 1e-3,
        arch_clip: NonNegative = 10.0,
    ) -> None:
        super().__init__(space)
        self.alpha = nn.Parameter(1 + 0.01 * torch.randn(space.shape))  # N(1, 0.01): released code
        self.tau, self.tau_end = tau, tau_end
        self.resource, self.scale, self.estimator = resource, resource_scale, resource_estimator
        if resource:
            costs = torch.stack([space.cost_table(unit)[0] for unit in UNITS])
            self.register_buffer("costs", costs.to(self.alpha.dtype), persistent=False)
        self._plan = Plan(
            coupling="alternate" if bilevel else "joint",
            arch_moves="all",
            arch_clip=arch_clip or None,
            arch=Adam(lr=arch_lr, decay=arch_decay),
        )

    costs: Tensor
    """[3, D, O]: the cost of each option in each unit."""

    @property
    def plan(self) -> Plan:
        """Both from one pass; or by turns, the architecture first."""
        return self._plan

    def temperature(self, now: Progress) -> float:
        """Return tau: linear in the epochs; it would reach ``tau_end`` behind the last."""
        return self.tau + (self.tau_end - self.tau) * now.epoch / now.epochs

    def logits(self) -> Tensor:
        """Return alpha, minus infinity where an option is pruned."""
        return living(self.alpha, self.alive)

    def drawn(self, now: Progress) -> Tensor:
        """Draw the weights w, [D, O]."""
        return concrete(self.logits(), self.temperature(now), now.stream("mix", self.alpha.device))

    def mix(self, now: Progress) -> Mix:
        """Draw weights for this pass; evaluation takes the probabilities."""
        return Mix(self.scores() if now.phase == "judge" else self.drawn(now), self.active)

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return self.logits().softmax(dim=-1)

    def penalty(self, now: Progress) -> Tensor | None:
        """Return the weighed cost of the draw of this pass."""
        if not self.resource:
            return None
        if self.estimator == "discrete":
            return self.resource * self.cost(self.scores()).sum()
        w = self.drawn(now)
        if self.estimator == "reparametrization":
            return self.resource * self.cost(w).sum()
        density = log_density(self.logits(), w.detach(), self.temperature(now))
        return self.resource * (density * self.cost(w.detach())).sum()

    def cost(self, w: Tensor) -> Tensor:
        """Return [D]: what each decision costs under weights [D, O]."""
        units = (self.costs * w).sum(dim=-1)
        if self.scale == "log":
            return torch.where(units < 1, torch.ones_like(units), units).log().mean(dim=0)
        return (units * units.new_tensor(RAW).unsqueeze(-1)).sum(dim=0)


def log_density(logits: Tensor, w: Tensor, temperature: float) -> Tensor:
    """Return [D]: the log-density of a concrete sample ``w`` [D, O] (arXiv 1611.00712, equation 10), with K options,

        log (K-1)! + (K-1) log tau + sum_k alpha_k - (tau+1) sum_k log w_k - K log sum_k e^alpha_k w_k^-tau.

    Options at minus infinity do not count. Entries of ``w`` are taken to be at least 1e-4, as in the released code.
    """
    alive = torch.isfinite(logits)
    count = alive.sum(dim=-1).to(logits)
    alpha = torch.where(alive, logits, 0.0)
    log_w = torch.where(alive, w.clamp_min(1e-4).log(), 0.0)
    normal = (logits - temperature * log_w).logsumexp(dim=-1)
    return (
        torch.lgamma(count)
        + (count - 1) * math.log(temperature)
        + alpha.sum(dim=-1)
        - (temperature + 1) * log_w.sum(dim=-1)
        - count * normal
    )


METHOD = SNAS
