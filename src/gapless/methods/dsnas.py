"""DSNAS: Direct Neural Architecture Search without Parameter Retraining. Hu, Xie, Zheng, Liu, Shi, Liu, Lin. CVPR 2020,
arXiv 2002.09128.

One training ends with the network that is deployed. Each pass runs one path z drawn from ``p = softmax(alpha)``; the
weights descend its loss, and from the same pass alpha descends the gradient of SNAS in the limit of temperature zero
(section 3.2): a score function whose reward is read off the backward pass,

    dL/dalpha_d <- R_d grad log p_d(z_d),    R_d = <dL/d(output of decision d), output of decision d>.

The output of each decision is multiplied by ``exp(log p_d(z_d) - stopgrad(log p_d(z_d)))``, whose value is 1: what
arrives there as a gradient is R_d, and the chain rule does the rest. A decision whose two most probable options lie at
least ``freeze`` apart is frozen at the better one, at the beginning of an epoch; its row of alpha is put back there.

Where paper and released code differ: the paper stops the first stage when decisions are frozen, the code after a fixed
number of epochs, 80 of a learning rate's 240; here the search is the first stage and ``gapless retrain`` the second,
which goes on from the weights of the search. With several GPUs the code counts the FLOPs term (GPUs squared) times:
ours is that of one. Weight decay and momentum moved what had not run (on the PyTorch of its time):
``inactive="coast"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gapless.core.method import Method, Setting, living
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import gated, pick
from gapless.core.settings import NonNegative, Range, Whole
from gapless.core.space import Space

TRAIN = Train(
    epochs=80,
    batch=1024,
    lr=0.5,
    lr_min=0.0,
    lr_per="step",
    lr_warmup=5,
    lr_epochs=240,
    weight_decay=4e-5,
    decay_norms=False,
    clip=0.0,
    label_smoothing=0.1,
)


CELLS = Setting(
    "SNAS-Series/SNAS-Series, SNAS/train_search.py, --dsnas",
    Train(epochs=150),
    {"inputs": None},
    method={"freeze": 1.0, "arch_lr": 3e-4, "arch_decay": 1e-3},
)
BLOCKS: dict[str, Any] = {"freeze": 0.3, "arch_lr": 1e-3, "arch_decay": 0.0}
"""Settings of DSNAS/train_imagenet.py."""


class DSNAS(Method):
    """DSNAS.

    Parameters
    ----------
    freeze
        Difference of the two largest probabilities at which a decision is frozen, in (0, 1] (released code: 0.3, in the
        DARTS space 1). 1: none is frozen.
    macs
        Weight of the cost of a sampled architecture, per million multiply-adds (released code: 1e-6 in its command
        lines). 0: no such term.
    macs_from
        Million multiply-adds from which a sampled architecture is charged (released code: 290).
    warmup
        Epochs in which alpha is not trained (released code: 0, or 15 and 30 in its "more stable" variants).
    inactive
        What becomes of weights that did not run: ``skip`` leaves them alone; ``coast`` lets decay and momentum move
        them, as the released code did.
    arch_lr
        Learning rate of Adam on alpha (released code: 1e-3, in the DARTS space 3e-4).
    arch_decay
        Coupled weight decay (L2) of Adam on alpha (released code: 0, in the DARTS space 1e-3).
    """

    label: ClassVar[str] = "dsnas"
    source: ClassVar[str] = "DSNAS, Hu, Xie, Zheng, Liu, Shi, Liu and Lin, arXiv 2002.09128"
    settings: ClassVar[Mapping[str, Setting]] = {
        "shufflenet": Setting(
            "SNAS-Series/SNAS-Series, DSNAS/train_imagenet.py", TRAIN, {"affine": True, "eps": 1e-2}, method=BLOCKS
        ),
        "darts": CELLS,
        "": replace(CELLS, space={}, method=BLOCKS),
    }

    def __init__(
        self,
        space: Space,
        *,
        freeze: Annotated[float, Range(above=0, most=1)] | None = None,
        macs: NonNegative = 0.0,
        macs_from: NonNegative = 290.0,
        warmup: Whole = 0,
        inactive: Literal["skip", "coast"] = "skip",
        arch_lr: NonNegative | None = None,
        arch_decay: NonNegative | None = None,
    ) -> None:
        super().__init__(space)
        own = self.paper.resolve(freeze=freeze, arch_lr=arch_lr, arch_decay=arch_decay)
        self.alpha = nn.Parameter(1 + 0.01 * torch.randn(space.shape))  # N(1, 0.01): released code
        self.freeze: float = own["freeze"]
        self.macs, self.macs_from = macs, macs_from
        self.register_buffer("frozen", torch.full(space.shape[:1], -1))
        self.register_buffer("kept", torch.zeros(space.shape))
        if macs:
            self.register_buffer("millions", space.cost_table("macs")[0] / 1e6, persistent=False)
        self._plan = Plan(
            coupling="joint",
            arch_moves="all",
            inactive=inactive,
            warmup_epochs=warmup,
            bn="recalibrated",
            after="continue",
            arch=Adam(lr=own["arch_lr"], decay=own["arch_decay"]),
        )

    frozen: Tensor
    """[D] int64: the column at which a decision is frozen, or -1."""
    kept: Tensor
    """[D, O]: the rows of alpha when they were frozen."""
    millions: Tensor
    """[D, O]: the multiply-adds of each option, in millions."""

    @property
    def plan(self) -> Plan:
        """Both from one pass; the weights go on when the answer is trained."""
        return self._plan

    def log_p(self) -> Tensor:
        """Return ``log softmax(alpha)``."""
        return living(self.alpha, self.alive).log_softmax(dim=-1)

    def begin(self, now: Progress) -> None:
        """Put the rows of frozen decisions back, and freeze those that have decided themselves."""
        pruned = ~self.alive.gather(-1, self.frozen.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        self.frozen[pruned] = -1
        hard = self.frozen >= 0
        self.alpha[hard] = self.kept[hard]
        p = self.scores()
        top = p.topk(min(2, p.shape[-1]), dim=-1).values
        ahead = top[:, 0] - top[:, 1] if top.shape[-1] > 1 else torch.ones_like(top[:, 0])
        fresh = ~hard & (ahead >= self.freeze) & (self.alive.sum(dim=-1) > 1)
        self.frozen[fresh] = p.argmax(dim=-1)[fresh]
        self.kept[fresh] = self.alpha[fresh]

    def drawn(self, now: Progress) -> tuple[int, ...]:
        """Draw a path: the frozen columns, and for other decisions one from p."""
        free = pick(self.scores(), now.stream())
        return tuple(column if column >= 0 else free[row] for row, column in enumerate(self.frozen.tolist()))

    def mix(self, now: Progress) -> Mix:
        """Return the path of this pass, with gates that carry the gradient; evaluation takes the most probable."""
        log_p = self.log_p()
        columns = tuple(self.best().tolist()) if now.phase == "judge" else self.drawn(now)
        return gated(log_p, columns)

    def best(self) -> Tensor:
        """Return [D]: the frozen columns, and of other decisions the most probable."""
        return torch.where(self.frozen >= 0, self.frozen, self.scores().argmax(dim=-1))

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return self.log_p().softmax(dim=-1)

    def probabilities(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return self.scores()

    def penalty(self, now: Progress) -> Tensor | None:
        """Return ``macs * sum_d p_d(z_d) MACs_d(z_d)`` of the path of this pass, where it costs enough."""
        if not self.macs:
            return None
        rows, columns = range(len(self.frozen)), self.drawn(now)
        millions, p = self.millions[rows, columns], self.scores()[rows, columns]
        return self.macs * (p * millions).sum() * (millions.sum() >= self.macs_from)


METHOD = DSNAS
