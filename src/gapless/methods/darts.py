"""DARTS: Differentiable Architecture Search. Liu, Simonyan, Yang. ICLR 2019, arXiv 1806.09055.

Each edge is a mixture of its options weighed by a softmax over ``alpha`` (equation 2). ``alpha`` descends the loss on
data of its own, ``w`` the training loss, by turns (algorithm 1). The second-order variant differentiates through one
virtual training step (equations 6 to 8).

Where paper and released code differ: the paper's virtual step is plain gradient descent; the code adds momentum and
weight decay (``faithful=True``). The paper anneals the rate to 0, the code to 0.001; we follow the code. "none" takes
part in the softmax and is never read off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Released, Train
from gapless.core.progress import Progress
from gapless.core.settings import NonNegative, Whole
from gapless.core.space import Space


class DARTS(Method):
    """DARTS, first order or second order.

    Parameters
    ----------
    unrolled
        Whether the architecture gradient looks through one virtual training step (second order).
    faithful
        Whether the virtual step adds momentum and weight decay, as the released code does, and on NAS-Bench-201 weights
        and alpha are clipped by one common norm, as the code of that setting does.
    warmup
        Epochs in which only weights are trained (released code: 0).
    arch_lr
        Learning rate of Adam on alpha (released code: 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 1e-3).
    """

    label: ClassVar[str] = "darts"
    source: ClassVar[str] = "DARTS, Liu, Simonyan and Yang, arXiv 1806.09055"
    settings: ClassVar[Mapping[str, Setting]] = {
        "darts": Setting("quark0/darts, cnn/train_search.py", released=Released(virtual="momentum")),
        "nasbench201": Setting(
            "xiangning-chen/DrNAS, 201-space/train_search.py, method softmax",
            Train(epochs=100),
            released=Released(virtual="momentum", clip_over="weights+arch"),
        ),
        "": Setting("quark0/darts, cnn/train_search.py", released=Released(virtual="momentum")),
    }

    def __init__(
        self,
        space: Space,
        *,
        unrolled: bool = False,
        faithful: bool = False,
        warmup: Whole = 0,
        arch_lr: NonNegative = 3e-4,
        arch_decay: NonNegative = 1e-3,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self._plan = Plan(
            coupling="unrolled" if unrolled else "alternate",
            released=self.paper.released if faithful else Released(),
            warmup_epochs=warmup,
            arch=Adam(lr=arch_lr, decay=arch_decay),
        )

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


METHOD = DARTS
