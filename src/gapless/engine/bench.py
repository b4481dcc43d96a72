"""The supernet as a judge of mixes and architectures: inherited accuracy, on images that its weights do not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gapless.core import catalogue
from gapless.core.bound import Budget
from gapless.core.decision import Arch
from gapless.core.mix import Mix
from gapless.core.plan import Plan
from gapless.core.progress import derive_seed, stream
from gapless.core.searcher import Searcher, explore
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.engine.feed import Batch, Feed
from gapless.engine.judge import judge
from gapless.engine.supernet import Supernet

Judged = tuple[Arch, int, float]
"""An architecture, on how many images it was judged, its accuracy as a share."""


@dataclass(eq=False)
class SupernetBench:
    """Judges by one trained supernet (:class:`gapless.core.pick.Bench`).

    Every architecture sees the same images in the same order, so that two judgements of one are the same number.

    Attributes
    ----------
    supernet, forward
        The weights, and how they are run under a mix.
    feed
        Images: those kept for judging, or all training images where none are.
    plan
        Says by which statistics.
    seed
        Of the run.
    budget
        What the answer has to hold, where there is something.
    stage
        At whose classes it judges.
    judged
        All that :meth:`inherited` judged, in order.
    on_judged
        Called with each of these as soon as it is judged.
    """

    supernet: Supernet
    forward: Callable[[Tensor, Mix], Tensor]
    feed: Feed
    plan: Plan
    seed: int = 0
    budget: Budget | None = None
    stage: int = 0
    judged: list[Judged] = field(default_factory=list)
    on_judged: Callable[[Judged], None] | None = None

    @property
    def space(self) -> Space:
        """The space at the size of the supernet."""
        return self.supernet.space

    def judge(self, mix: Mix, images: int | None = None) -> float:
        """Return the accuracy under a mix, as a share, on ``images`` images (all, where that is None), the first of an
        order that no seed moves."""
        index = self.feed.judging(self.stage)
        if images is not None:
            index = index[torch.randperm(len(index), generator=stream("judging"))[:images]]
        return self.measure(mix, self.feed.plain(index))[1]

    def inherited(self, arch: Arch, images: int | None = None) -> float:
        """Return the accuracy of an architecture with the supernet's weights, as a share, and note it in ``judged``."""
        all_of_them = len(self.feed.judging(self.stage))
        found = self.judge(self.space.one_hot(arch), images)
        self.judged.append((arch, all_of_them if images is None else min(images, all_of_them), found))
        if self.on_judged is not None:
            self.on_judged(self.judged[-1])
        return found

    def measure(self, mix: Mix, batches: Iterable[Batch] | None = None) -> tuple[float, float]:
        """Return (mean cross entropy, accuracy as a share) on batches, by default all that there is to judge by."""
        mix = mix.to(dtype=self.feed.dtype, device=next(self.supernet.parameters()).device)
        found = self.feed.plain(self.feed.judging(self.stage)) if batches is None else batches
        return judge(
            self.supernet,
            lambda x: self.feed.seen(self.forward(x, mix), self.stage),
            ((x, self.feed.named(y, self.stage)) for x, y in found),
            bn=self.plan.bn,
            calibration=self.calibration() if self.plan.bn == "recalibrated" else (),
        )

    def calibration(self) -> Iterator[Tensor]:
        """Yield training images, the same for every architecture, in batches of the size that trains."""
        index = self.feed.training(self.stage)
        order = index[torch.randperm(len(index), generator=stream("calibration"))][: self.plan.calibration]
        whole = len(order) - len(order) % self.feed.size or len(order)  # a small last batch would count as much as any
        for x, _ in self.feed.plain(order[:whole], self.feed.size):
            yield x

    def respects(self, arch: Arch) -> bool:
        """Return whether an architecture holds what was asked of the answer."""
        return self.budget is None or self.budget.respects(arch)

    def explore(
        self,
        name: str,
        evaluations: int,
        *,
        images: int | None = None,
        finalists: int = 0,
    ) -> Arch:
        """Return the best architecture that a black-box search finds by inherited accuracy, within the budget.

        Parameters
        ----------
        name
            Of a search (``gapless list methods``).
        evaluations
            Architectures that it may judge.
        images
            For each of them; None stands for all.
        finalists
            So many of the best are judged again on all images, and the best of these wins; 0 takes the best at once.
        """
        kind = catalogue.find(name, "searchers")
        searcher = make(kind, {"seed": derive_seed(self.seed, "explore") % 2**31}, self.space)
        assert isinstance(searcher, Searcher)
        searcher.within = self.respects

        told = explore(searcher, lambda arch: self.inherited(arch, images), evaluations)
        if not finalists:
            return searcher.best()
        best = sorted({arch: scores["score"] for arch, scores in told}.items(), key=lambda pair: -pair[1])
        return max((arch for arch, _ in best[:finalists]), key=self.inherited)

    def stream(self, name: str) -> torch.Generator:
        """Return a random stream of this run."""
        return stream(self.seed, "pick", name)
