"""RSPS: Random Search and Reproducibility for Neural Architecture Search. Li, Talwalkar. UAI 2019, arXiv 1902.07638.

The weights are trained with a fresh uniform architecture for every batch; then many random architectures are judged
with these weights, and the best is the answer. It is what every method that learns to sample has to beat.

Where paper and released code differ: the code answers with the best of the first of several rounds, we with the best of
all. It ranks on images held out from training, as we do; the paper says so in one place and speaks of the test set in
another. The code of NAS-Bench-201 (D-X-Y/AutoDL-Projects) judges each architecture on another batch, whose noise of two
points exceeds what good architectures differ by; here all see the same images. On the DARTS space it draws "none", too;
here an answer may hold what the space lets it hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.method import OneShot, Setting
from gapless.core.mix import Mix
from gapless.core.pick import Bench
from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress
from gapless.core.sampling import uniform
from gapless.core.settings import Natural, Whole
from gapless.core.space import Space


class RSPS(OneShot):
    """Random search with parameter sharing.

    Parameters
    ----------
    archs
        Number of random architectures that are judged (released code: 1000 for each of five rounds on the DARTS space;
        D-X-Y/AutoDL-Projects on NAS-Bench-201: 100).
    images
        Number of images by which each architecture is judged (released code: ten batches of 64).
    finalists
        Number of the best architectures that are judged again by all images that are held out (released code: 10). 0:
        none.
    """

    label: ClassVar[str] = "rsps"
    source: ClassVar[str] = "RSPS, Li and Talwalkar, arXiv 1902.07638"
    settings: ClassVar[Mapping[str, Setting]] = {
        "darts": Setting("liamcli/randomNAS_release, setting 5", Train(epochs=150, clip=1.0), {"width": 24}),
        "nasbench201": Setting(
            "D-X-Y/AutoDL-Projects, exps/NAS-Bench-201-algos/RANDOM-NAS.py",
            Train(epochs=250, nesterov=True, weight_decay=5e-4),
        ),
        "": Setting("liamcli/randomNAS_release, setting 5", Train(epochs=150, clip=1.0)),
    }

    def __init__(self, space: Space, *, archs: Natural = 1000, images: Natural = 640, finalists: Whole = 10) -> None:
        super().__init__(space)
        self.space, self.archs, self.images, self.finalists = space, archs, images, finalists
        self._plan = Plan(coupling="weights_only", held_out=True, bn="batch")

    @property
    def plan(self) -> Plan:
        """Weights only; images for judging are held out, and statistics are those of each batch."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Draw an architecture."""
        drawn = uniform(self.space, self.active, now.stream())
        return self.space.one_hot(drawn, dtype=torch.get_default_dtype(), device=self.alive.device)

    def pick(self, bench: Bench) -> Arch:
        """Return the best of ``archs`` random architectures by inherited accuracy."""
        return bench.explore("random", self.archs, images=self.images, finalists=self.finalists)


METHOD = RSPS
