"""beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search. Ye, Li, Li, Chen, Fan, Ouyang.
CVPR 2022, arXiv 2203.01665.

First-order DARTS with one more term in the architecture's loss: ``lambda * mean over edges of logsumexp_o(alpha_o)``,
a smooth maximum of each row. Its gradient ``softmax(alpha) / E`` pushes every option down in proportion to its own
weight, so that none runs away early; ``lambda`` grows linearly from 0 with the epochs. Adam's decay of alpha stays on.

Where paper and released code differ: the code's ``lambda = 50 * epoch / 100`` has the 100 epochs of NAS-Bench-201
written in; ours is ``lambda_max * epoch / epochs``, the same there. On the DARTS space the released script cannot run;
we take the mean over the edges of both cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.settings import NonNegative
from gapless.core.space import Space


class BetaDARTS(Method):
    """beta-DARTS.

    Parameters
    ----------
    lambda_max
        Strength of the term after the last epoch; it grows linearly from 0 (released code on NAS-Bench-201: 50). 0: no
        such term, which is DARTS.
    arch_lr
        Learning rate of Adam on alpha (released code: 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 1e-3).
    """

    label: ClassVar[str] = "beta_darts"
    source: ClassVar[str] = "beta-DARTS, Ye, Li, Li, Chen, Fan and Ouyang, arXiv 2203.01665"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": Setting("Sunshine-Ye/Beta-DARTS, NAS-Bench-201 search", Train(epochs=100)),
        "darts": Setting("Sunshine-Ye/Beta-DARTS, DARTS space search", Train(epochs=50), {"options": "drnas"}),
        "": Setting("Sunshine-Ye/Beta-DARTS, NAS-Bench-201 search", Train(epochs=100)),
    }

    def __init__(
        self,
        space: Space,
        *,
        lambda_max: NonNegative = 50.0,
        arch_lr: NonNegative = 3e-4,
        arch_decay: NonNegative = 1e-3,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self.lambda_max = lambda_max
        self._plan = Plan(arch=Adam(lr=arch_lr, decay=arch_decay))

    @property
    def plan(self) -> Plan:
        """Architecture first, then weights, every step."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Return ``softmax(alpha)`` per decision."""
        return Mix(self.scores(), self.active)

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return living(self.alpha, self.alive).softmax(dim=-1)

    def penalty(self, now: Progress) -> Tensor | None:
        """Return ``lambda * mean over decisions of logsumexp(alpha)`` over living options; None in the first epoch."""
        strength = self.lambda_max * now.epoch / now.epochs
        return strength * living(self.alpha, self.alive).logsumexp(dim=-1).mean() if strength else None


METHOD = BetaDARTS
