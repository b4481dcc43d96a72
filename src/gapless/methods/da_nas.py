"""DA-NAS-style pruning, after DA-NAS: Data Adapted Pruning for Efficient Neural Architecture Search. Dai et al. ECCV
2020, arXiv 2003.12563.

Options that are weak can be told early, on classes that are learnt early. The search goes through stages: each one uses
more classes, easiest first, and begins by pruning a share of all options that remain, whichever decisions they answer.
Only the last stage sees all classes, and by then few options are left.

No code and no detail of the paper beyond its abstract was at hand, so this is a method in its style, not the paper's:
which classes are easy is measured by a small network (:mod:`gapless.engine.easiness`); one path is drawn per pass, and
``alpha`` descends the loss on images of its own by the score function of DSNAS (arXiv 2002.09128); each stage begins
with epochs for the weights alone, for its new classes; what the answer may cost is a limit of the user's. Rates are
those of ProxylessNAS (arXiv 1812.00332, released code), from which the spaces are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Stage, Train
from gapless.core.progress import Progress
from gapless.core.sampling import gated, pick
from gapless.core.settings import NonNegative, Portion, Share
from gapless.core.space import Space

TRAIN = Train(
    epochs=90, batch=256, lr_min=0.0, nesterov=True, weight_decay=4e-5, clip=0.0, label_smoothing=0.1, arch_share=0.04
)


class DANAS(Method):
    """DA-NAS-style: growing classes, shrinking options.

    Parameters
    ----------
    classes
        Shares of the classes, stage by stage; the last is 1 (on CIFAR-10: 3, 6, and all 10 classes).
    prune
        Share of all remaining options that each stage but the first begins by dropping; at least one that an
        architecture may hold stays with each decision (a reading note of the paper: 0.4).
    warmup_share
        Share of each stage in which only weights are trained, in [0, 1) (the note: 10 epochs, and 20 a stage).
    arch_lr
        Learning rate of Adam on alpha, betas (0, 0.999), no decay (ProxylessNAS: 1e-3).
    """

    label: ClassVar[str] = "da_nas"
    source: ClassVar[str] = "DA-NAS-style, after Dai et al., arXiv 2003.12563"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": Setting(
            "no released code; that of GDAS in D-X-Y/AutoDL-Projects, exps/NAS-Bench-201-algos/GDAS.py",
            Train(epochs=250, nesterov=True, weight_decay=5e-4),
        ),
        "": Setting("mit-han-lab/proxylessnas, search script; epochs after a reading note of arXiv 2003.12563", TRAIN),
    }

    def __init__(
        self,
        space: Space,
        *,
        classes: tuple[Share, ...] = (0.3, 0.6, 1.0),
        prune: Portion = 0.4,
        warmup_share: Portion = 1 / 3,
        arch_lr: NonNegative = 1e-3,
    ) -> None:
        super().__init__(space)
        if not classes or classes[-1] != 1 or min(classes) <= 0 or list(classes) != sorted(classes):
            raise UserError(
                f"`classes` must be shares above 0 that never fall and end at 1; got {classes}.", of="method"
            )
        self.alpha = start(space)
        keep = None if prune == 0 else 1 - prune
        self._plan = Plan(
            order="weights_first",
            arch_moves="all",
            bn="batch",
            warmup_share=warmup_share,
            arch_after_stage="restart" if prune else "continue",
            stages=tuple(
                Stage(1 / len(classes), keep=keep if i else None, over="all", classes=share)
                for i, share in enumerate(classes)
            ),
            arch=Adam(lr=arch_lr, betas=(0.0, 0.999), decay=0.0),
        )

    @property
    def plan(self) -> Plan:
        """Stages of more classes and fewer options; weights first, then the architecture, every step."""
        return self._plan

    def log_p(self) -> Tensor:
        """Return ``log softmax(alpha)`` over the living options."""
        return living(self.alpha, self.alive).log_softmax(dim=-1)

    def mix(self, now: Progress) -> Mix:
        """Draw a path, with gates that carry the gradient; evaluation takes the most probable."""
        log_p = self.log_p()
        judged = now.phase == "judge"
        columns = tuple(log_p.argmax(dim=-1).tolist()) if judged else pick(self.scores(), now.stream())
        return gated(log_p, columns)

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return self.log_p().softmax(dim=-1)

    def probabilities(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return self.scores()


METHOD = DANAS
