"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours. Dong, Yang. CVPR 2019, arXiv 1910.04465.

Each pass runs one operation per edge, drawn with the Gumbel-max trick: ``q = softmax((log softmax(alpha) + G) / tau)``,
``z = argmax q``, and the weight of the edge is ``h = onehot(z) - stopgrad(q) + q``: one-hot forward, the gradient of q
backward. ``tau`` falls linearly with the epochs. Weights first, then alpha on data of its own, each with a draw of its
own.

The released code has two estimators. ``selected`` multiplies the output of the drawn operation by its ``h`` (the cells
of the DARTS space): q sees a gradient at the drawn option only. ``scalar_fill`` adds the ``h`` of all others, which are
zero, as numbers (the cells of NAS-Bench-201): they receive the sum of the gradient at the output, as if those options
had returned ones. Neither is the textbook estimator, ``full``, which runs all options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import concrete
from gapless.core.settings import NonNegative, Positive
from gapless.core.space import Space

Estimator = Literal["selected", "scalar_fill", "full"]


class GDAS(Method):
    """GDAS.

    Parameters
    ----------
    estimator
        Estimator of alpha's gradient: ``selected``, through the sampled option alone (released code, DARTS space);
        ``scalar_fill``, by which the rows of NAS-Bench-201 were made; ``full``, through all options.
    tau
        Temperature in the first epoch (released code: 10).
    tau_end
        Temperature in the last epoch (released code: 0.1).
    arch_lr
        Learning rate of Adam on alpha (released code: 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 1e-3).
    """

    label: ClassVar[str] = "gdas"
    source: ClassVar[str] = "GDAS, Dong and Yang, arXiv 1910.04465"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": Setting(
            "D-X-Y/AutoDL-Projects, exps/NAS-Bench-201-algos/GDAS.py",
            Train(epochs=250, nesterov=True, weight_decay=5e-4),
        ),
        "": Setting(
            "D-X-Y/AutoDL-Projects, exps/algos/GDAS.py",
            Train(epochs=250, batch=256, nesterov=True, weight_decay=5e-4),
        ),
    }

    def __init__(
        self,
        space: Space,
        *,
        estimator: Estimator = "selected",
        tau: Positive = 10.0,
        tau_end: Positive = 0.1,
        arch_lr: NonNegative = 3e-4,
        arch_decay: NonNegative = 1e-3,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self.estimator, self.tau, self.tau_end = estimator, tau, tau_end
        self._plan = Plan(order="weights_first", arch_moves="all", arch=Adam(lr=arch_lr, decay=arch_decay))

    @property
    def plan(self) -> Plan:
        """Weights first, then the architecture, every step; alpha moves as a whole, since q is normalised."""
        return self._plan

    def temperature(self, now: Progress) -> float:
        """Return tau: linear in the epochs, from ``tau`` in the first to ``tau_end`` in the last."""
        return self.tau - (self.tau - self.tau_end) * now.epoch / max(1, now.epochs - 1)

    def relaxed(self, now: Progress) -> Tensor:
        """Draw q, [D, O]; zero where an option is pruned."""
        logits = living(self.alpha, self.alive).log_softmax(dim=-1)
        return concrete(logits, self.temperature(now), now.stream("mix", self.alpha.device))

    def mix(self, now: Progress) -> Mix:
        """Draw one option per decision; evaluation runs all, weighed by their probabilities."""
        if now.phase == "judge":
            return Mix(self.scores(), self.active)
        q = self.relaxed(now)
        drawn = q.detach().argmax(dim=-1, keepdim=True)
        chosen = torch.zeros_like(q, dtype=torch.bool).scatter_(-1, drawn, True)
        weight = chosen.to(q) - q.detach() + q
        if self.estimator == "full":
            return Mix(weight, self.active)
        ran = tuple((column,) for column in drawn.squeeze(-1).tolist())
        one = torch.where(chosen, weight, torch.zeros_like(weight))
        if self.estimator == "selected":
            return Mix(one, ran)
        return Mix(one, ran, offset=torch.where(chosen, torch.zeros_like(weight), weight).sum(dim=-1))

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return living(self.alpha, self.alive).softmax(dim=-1)


METHOD = GDAS
