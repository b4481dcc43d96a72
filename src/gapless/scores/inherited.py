"""Inherited accuracy: the supernet of a finished search, with the one path that an architecture is, on held-out images.

It is what one-shot methods rank by: SPOS (Guo et al., arXiv 1904.00420), RSPS (Li and Talwalkar, arXiv 1902.07638). Two
things decide what such a ranking is worth. All candidates see the same images here; as we read the released code, SPOS
goes on through the validation set from one candidate to the next, and RSPS on NAS-Bench-201 draws a batch for each. And
the running statistics of batch normalisation are those of all paths mixed: they are gathered anew for each candidate,
the plain mean over batches of training images (SPOS, whose code has a moving average of mostly the last twenty).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.judge import Judge, Settled
from gapless.core.settings import Natural
from gapless.core.space import Space
from gapless.engine.judge import BatchNorm
from gapless.engine.precision import Precision, arithmetic, checked
from gapless.runs.recipe import MEASURED
from gapless.runs.searched import TrainedSupernet, trained


class InheritedAccuracy(Judge):
    """Accuracy by the weights of a supernet, on images that they were not trained on.

    Parameters
    ----------
    run
        Folder of a finished search that trained a supernet.
    images
        Judge by so many of the images that the weights did not see, the same for every architecture; all, where there
        are fewer. 5,000 is ours: 0.7 points of standard error at the worst. RSPS takes 640, and all for
        the best ten; SPOS's code 8,000.
    bn
        Batch normalisation: ``recalibrated`` for each architecture (SPOS), by statistics of each ``batch``, or by the
        ``running`` ones of the supernet.
    calibration
        Batches of training images, of the search's batch size, that statistics are gathered over: 200 as in SPOS's
        code; each image at most once.
    """

    label: ClassVar[str] = "inherited"
    source: ClassVar[str] = "Inherited accuracy of a supernet, as in SPOS, Guo et al., arXiv 1904.00420"

    def __init__(
        self,
        space: Space,
        device: torch.device,
        *,
        run: Path,
        images: Natural = 5000,
        bn: BatchNorm = "recalibrated",
        calibration: Natural = 200,
    ) -> None:
        super().__init__(space, device)
        source, recipe = trained(run)
        precision = recipe.run.precision
        self.precision: Precision = "float32" if precision == "bfloat16" else precision
        checked(self.precision, device)
        opened = TrainedSupernet.of(source, device, self.precision)
        size, method, feed = opened.bench.space, opened.method, opened.bench.feed
        if size.decisions != space.decisions or size.limits != space.limits:
            raise UserError(
                f"The run {run} searched another space than this: its supernet cannot judge these architectures. "
                "Leave the space out; it is then that of the run."
            )
        if not len(feed.arch):
            raise UserError(
                f"The weights of {run} were trained on all of its images: there is none left to judge by, and their "
                "accuracy on what they were trained on says little. Take the run of a method that holds images out."
            )
        plan = replace(method.plan, bn=bn, calibration=calibration * feed.size)
        self.images, self.bench = min(images, len(feed.arch)), replace(opened.bench, plan=plan)
        self.title = f"inherited accuracy on {self.images:,} held-out images, run {source.path.resolve().name}"
        pruned = int((space.legal & ~method.alive.cpu()).sum())
        if pruned:
            self.notice = (
                f"The run {run} pruned {pruned} of {int(space.legal.sum())} options before its end: architectures that "
                "hold one of them are judged by weights that were trained for a part of it only."
            )
        digest = hashlib.sha256((source.path / "weights.safetensors").read_bytes())
        digest.update(opened.resolved.data.fingerprint.encode())
        self.fingerprint = digest.hexdigest()[:16]

    @classmethod
    def settles(cls, **settings: Any) -> Settled | None:
        """Return space and data of the run."""
        if "run" not in settings:
            return None
        source, checked = trained(settings["run"])
        recipe, (_, space) = checked.recipe, source.found()
        images = {key: list(value) for key, value in source.images().items()}
        return Settled(recipe.space, recipe.data, {name: getattr(space, name) for name in MEASURED}, images)

    def __call__(self, arch: Arch) -> float:
        """Return percent."""
        with arithmetic(self.device, self.precision):
            return 100 * self.bench.judge(self.space.one_hot(arch), self.images)


SCORE = InheritedAccuracy
