"""SPOS: Single Path One-Shot Neural Architecture Search with Uniform Sampling. Guo, Zhang, Mu, Heng, Liu, Wei, Sun.
ECCV 2020, arXiv 1904.00420.

The weights are trained with one uniformly drawn path for every batch, and no architecture parameter is learnt
(section 3.2). The trained supernet then judges what an evolutionary search proposes, under the limits that the user
sets (section 3.4), with the statistics of batch normalisation recalibrated for each architecture.

Where paper and released code differ: the paper holds 50,000 training images out for the search; the code searches on
the validation images of ImageNet, and, since it never begins these anew, ranks each candidate by other classes. We hold
training images out, the same for all. The code draws a range of multiply-adds first and then a path in it (the paper's
"uniform constraint sampling"): ``macs_bins``. Its statistics are a moving average over 200 batches, ours the
plain mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.method import OneShot, Setting
from gapless.core.mix import Mix
from gapless.core.pick import Bench
from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import uniform
from gapless.core.searcher import check_searcher
from gapless.core.settings import Natural, NonNegative, Whole
from gapless.core.space import Space

TRIES = 500
"""Paths that are drawn for one in the range, before any is taken (released code)."""
TRAIN = Train(
    epochs=120,
    batch=1024,
    lr=0.5,
    schedule="straight",
    lr_per="step",
    weight_decay=4e-5,
    decay_norms=False,
    clip=0.0,
    label_smoothing=0.1,
    arch_share=0.04,
    validate_every=0,
)


class SPOS(OneShot):
    """Single path one-shot.

    Parameters
    ----------
    searcher
        Black-box search by inherited accuracy (the paper's is ``evolution``: a population of 50, 20 generations).
    evaluations
        Number of architectures that the black-box search judges (the paper: 50 in each of 20 generations).
    images
        Number of images by which each architecture is judged (released code: 8,000). 0: all that are held out.
    calibration
        Number of training images for the recalibrated statistics of each architecture (the paper: 20,000).
    macs_bins
        Bounds, ascending, of ranges of million multiply-adds: a range is sampled first, then a path within it (released
        code, on ImageNet: 290 300 310 320 330 340 350 360). Empty: paths are sampled uniformly.
    """

    label: ClassVar[str] = "spos"
    source: ClassVar[str] = "SPOS, Guo, Zhang, Mu, Heng, Liu, Wei and Sun, arXiv 1904.00420"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": Setting(
            "no released code; that of RSPS in D-X-Y/AutoDL-Projects, exps/NAS-Bench-201-algos/RANDOM-NAS.py",
            Train(epochs=250, nesterov=True, weight_decay=5e-4),
        ),
        "": Setting("megvii-model/SinglePathOneShot, src/Supernet", TRAIN),
    }

    def __init__(
        self,
        space: Space,
        *,
        searcher: str = "evolution",
        evaluations: Natural = 1000,
        images: Whole = 8000,
        calibration: Natural = 20_000,
        macs_bins: tuple[NonNegative, ...] = (),
    ) -> None:
        super().__init__(space)
        check_searcher(searcher)
        if macs_bins and (len(macs_bins) < 2 or list(macs_bins) != sorted(set(macs_bins))):
            raise UserError(f"`macs_bins` must be at least two ascending numbers; got {macs_bins}.", of="method")
        self.space, self.searcher, self.evaluations, self.images = space, searcher, evaluations, images
        self.bins = tuple(pairwise(macs_bins))
        table, self.fixed = space.cost_table("macs") if macs_bins else (torch.zeros(space.shape), 0)
        self.prices: list[list[float]] = table.tolist()
        self._plan = Plan(coupling="weights_only", held_out=True, bn="recalibrated", calibration=calibration)

    @property
    def plan(self) -> Plan:
        """Weights only; images for judging are held out, and statistics are recalibrated for each architecture."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Draw a path."""
        arch = self._path(now.stream())
        return self.space.one_hot(arch, dtype=torch.get_default_dtype(), device=self.alive.device)

    def _path(self, generator: torch.Generator) -> Arch:
        if not self.bins:
            return uniform(self.space, self.active, generator)
        low, high = self.bins[int(torch.randint(len(self.bins), (), generator=generator))]
        for _ in range(TRIES):
            arch = uniform(self.space, self.active, generator)
            if low <= self._macs(arch) / 1e6 <= high:
                break
        return arch

    def _macs(self, arch: Arch) -> float:
        columns = self.space.choice(arch)
        return self.fixed + sum(self.prices[row][c] for row, c in enumerate(columns) if c is not None)

    def pick(self, bench: Bench) -> Arch:
        """Return the best architecture that the search finds by inherited accuracy, within the limits."""
        return bench.explore(self.searcher, self.evaluations, images=self.images or None)


METHOD = SPOS
