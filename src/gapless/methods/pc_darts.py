"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search. Xu, Xie, Zhang, Chen, Qi, Tian,
Xiong. ICLR 2020, arXiv 1907.05737.

One of K channels of an edge goes through the mixture of its options, the rest bypasses it (the space's field
``partial`` is K; the cell shuffles channels so that the next edge sees others). Since what so few channels say is
noisy, the edges into a node compete by a softmax of one more number each: ``x_j = sum_i softmax_i(beta_ij) f_ij(x_i)``.
``alpha`` and ``beta`` descend the loss on data of their own, as in first-order DARTS; for the first T0 epochs only
weights are trained.

Where paper and released code differ: the paper samples the channels of each edge at random, the code takes the first
ones and shuffles in a fixed order; we follow the code. Both read off the product of both softmaxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.settings import NonNegative, Portion
from gapless.core.space import Space


class PCDARTS(Method):
    """PC-DARTS; the number of channels that go through the options is the space's ``partial``.

    Parameters
    ----------
    warmup_share
        Share of the epochs in which only weights are trained, in [0, 1): T0 / epochs (released code: 15 of 50 epochs,
        on ImageNet 35 of 50).
    arch_lr
        Learning rate of Adam on alpha and beta (released code: 6e-4, on ImageNet 6e-3).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha and beta (released code: 1e-3).
    arch_clip
        Bound on the norm of the gradient of alpha and beta (released code: none, on ImageNet 5). 0: no bound.
    """

    label: ClassVar[str] = "pc_darts"
    source: ClassVar[str] = "PC-DARTS, Xu, Xie, Zhang, Chen, Qi, Tian and Xiong, arXiv 1907.05737"
    settings: ClassVar[Mapping[str, Setting]] = {
        "darts": Setting(
            "yuhuixu1993/PC-DARTS, train_search.py",
            Train(epochs=50, batch=256, lr=0.1, lr_min=0.0),
            {"partial": 4},
        ),
        "nasbench201": Setting(
            "no released code; that of xiangning-chen/DrNAS, 201-space/train_search.py, with partial channels",
            Train(epochs=100),
            {"partial": 4},
        ),
        "": Setting("yuhuixu1993/PC-DARTS, train_search.py", Train(epochs=50, batch=256, lr=0.1, lr_min=0.0)),
    }

    def __init__(
        self,
        space: Space,
        *,
        warmup_share: Portion = 15 / 50,
        arch_lr: NonNegative = 6e-4,
        arch_decay: NonNegative = 1e-3,
        arch_clip: NonNegative = 0.0,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self.beta = nn.Parameter(1e-3 * torch.randn(len(space.decisions)))
        self.register_buffer("together", competitors(space), persistent=False)
        self._plan = Plan(
            warmup_share=warmup_share,
            arch_clip=arch_clip or None,
            arch=Adam(lr=arch_lr, decay=arch_decay),
        )

    together: Tensor
    """[D, D]: which decisions are summed at one node."""

    @property
    def plan(self) -> Plan:
        """Architecture first, then weights, every step behind the warm-up."""
        return self._plan

    def gain(self) -> Tensor:
        """Return [D]: each edge's share of its node, ``softmax(beta)`` over the edges into it."""
        return living(self.beta.expand_as(self.together), self.together).softmax(dim=-1).diagonal()

    def mix(self, now: Progress) -> Mix:
        """Return ``softmax(alpha)`` per decision, each edge times its share of the node."""
        return Mix(living(self.alpha, self.alive).softmax(dim=-1), self.active, gain=self.gain())

    def scores(self) -> Tensor:
        """Return the product of both softmaxes."""
        return living(self.alpha, self.alive).softmax(dim=-1) * self.gain()[:, None]

    def sample_scores(self, generator: torch.Generator) -> Tensor:
        """Draw operations and edges: Gumbel noise on the logarithm of the product."""
        return super().sample_scores(generator) + self.gain().detach().log()[:, None]


def competitors(space: Space) -> Tensor:
    """Return [D, D] bool: whether two decisions are summed at one node; one that is summed with none stands alone."""
    into = [decision.into or f"alone {row}" for row, decision in enumerate(space.decisions)]
    return torch.tensor([[one == other for other in into] for one in into])


METHOD = PCDARTS
