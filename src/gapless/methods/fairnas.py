"""FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search. Chu, Zhang, Xu. ICCV 2021,
arXiv 1907.01845.

Strict fairness: every option of every decision is trained exactly once in each update of the weights. An update draws a
permutation of the m options of each decision; its k-th pass runs the path of the k-th options, and the gradients of the
m passes are added up before one step. The answer is searched by inherited accuracy.

No training code was released. Whether the m paths of an update see one batch, and whether their gradients are summed,
are readings of the paper's algorithm: ``batches`` and ``gradients``. A decision with fewer options than another repeats
permutations of its own; where only some decisions may be present in an answer, all are in training. The paper searches
by NSGA-II for a front of accuracy, multiply-adds and parameters; here limits are the user's, and the search is one for
accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from gapless.core.decision import Arch
from gapless.core.method import OneShot, Setting
from gapless.core.mix import Mix
from gapless.core.pick import Bench
from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress, stream
from gapless.core.sampling import path
from gapless.core.searcher import check_searcher
from gapless.core.settings import Natural, Whole
from gapless.core.space import Space

TRAIN = Train(
    epochs=150, batch=256, lr=0.045, lr_min=0.0, weight_decay=4e-5, clip=0.0, arch_share=0.04, validate_every=0
)


class FairNAS(OneShot):
    """Strict fairness.

    Parameters
    ----------
    accumulate
        Whether the m passes are one update; else each is an update with a batch of its own (a variant in the code of
        Pi-NAS).
    batches
        Whether the passes of an update ``share`` a batch or each take their ``own``.
    gradients
        Whether the weights follow the ``sum`` of the gradients of an update's passes or their ``mean``.
    searcher
        Black-box search by inherited accuracy.
    evaluations
        Number of architectures that the black-box search judges (as SPOS: 50 in each of 20 generations).
    images
        Number of images by which each architecture is judged. 0: all that are held out.
    calibration
        Number of training images for the recalibrated statistics of each architecture (as SPOS: 20,000).
    """

    label: ClassVar[str] = "fairnas"
    source: ClassVar[str] = "FairNAS, Chu, Zhang and Xu, arXiv 1907.01845"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": Setting(
            "no released code; that of RSPS in D-X-Y/AutoDL-Projects, exps/NAS-Bench-201-algos/RANDOM-NAS.py",
            Train(epochs=250, nesterov=True, weight_decay=5e-4),
        ),
        "": Setting("recalled from arXiv 1907.01845 and not checked; the share held out and no clip are ours", TRAIN),
    }

    def __init__(
        self,
        space: Space,
        *,
        accumulate: bool = True,
        batches: Literal["share", "own"] = "share",
        gradients: Literal["sum", "mean"] = "sum",
        searcher: str = "evolution",
        evaluations: Natural = 1000,
        images: Whole = 0,
        calibration: Natural = 20_000,
    ) -> None:
        super().__init__(space)
        check_searcher(searcher)
        self.accumulate = accumulate
        self.searcher, self.evaluations, self.images = searcher, evaluations, images
        self._plan = Plan(
            coupling="weights_only",
            batches=batches,
            gradients=gradients,
            held_out=True,
            bn="recalibrated",
            calibration=calibration,
        )

    @property
    def plan(self) -> Plan:
        """Weights only; images for judging are held out, and statistics are recalibrated for each architecture."""
        return self._plan

    def free(self) -> list[list[int]]:
        """Return for each decision the living columns that can be read off."""
        pairs = zip(self.active, self.readable, strict=True)
        return [[column for column in living if column in readable] for living, readable in pairs]

    def rounds(self) -> int:
        """Return m: the largest number of options of a decision."""
        return max(map(len, self.free()))

    def passes(self, now: Progress) -> int:
        """Return m for an update of the weights; evaluation averages over five draws."""
        if now.phase == "weights":
            return self.rounds() if self.accumulate else 1
        return super().passes(now)

    def mix(self, now: Progress) -> Mix:
        """Return the path of this pass: the next options of the present permutations."""
        m = self.rounds()
        update, turn = (now.step, now.turn) if self.accumulate else divmod(now.step + now.turn, m)
        generator = stream(now.seed, "fair", now.phase, update + turn // m)
        return path([order(columns, m, generator)[turn % m] for columns in self.free()], self.probabilities())

    def pick(self, bench: Bench) -> Arch:
        """Return the best architecture that the search finds by inherited accuracy, within the limits."""
        return bench.explore(self.searcher, self.evaluations, images=self.images or None)


def order(columns: list[int], count: int, generator: torch.Generator) -> list[int]:
    """Return ``count`` columns: permutations one behind the other, the last one cut off."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += [columns[i] for i in torch.randperm(len(columns), generator=generator).tolist()]
    return drawn[:count]


METHOD = FairNAS
