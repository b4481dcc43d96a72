"""Inherited accuracy: mixes and architectures evaluated with the weights of a trained supernet, on images that these
weights were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Judgement(NamedTuple):
    """Inherited accuracy of one architecture: the architecture, the number of images, the accuracy as a share."""

    arch: Arch
    images: int
    accuracy: float


@dataclass(eq=False)
class SupernetBench:
    """Evaluates mixes and architectures with one trained supernet (:class:`gapless.core.pick.Bench`).

    Every architecture sees the same images in the same order, so that evaluating it again gives the same number.

    Attributes
    ----------
    supernet
        The trained supernet.
    forward
        Forward pass: maps images and a mix to logits.
    feed
        The images: those held out from the weights, or all training images where none are held out.
    plan
        The method's plan, whose ``bn`` names the batch norm statistics.
    seed
        Seed of the run.
    budget
        Bounds that the answer must respect; None without bounds.
    stage
        Stage whose classes count.
    judged
        Results of all calls of :meth:`inherited`, in order.
    on_judged
        Callback for each of these results.
    """

    supernet: Supernet
    forward: Callable[[Tensor, Mix], Tensor]
    feed: Feed
    plan: Plan
    seed: int = 0
    budget: Budget | None = None
    stage: int = 0
    judged: list[Judgement] = field(default_factory=list)
    on_judged: Callable[[Judgement], None] | None = None

    @property
    def space(self) -> Space:
        """The space at the size of the supernet."""
        return self.supernet.space

    def judge(self, mix: Mix, images: int | None = None) -> float:
        """Return the accuracy under a mix, as a share, on the first ``images`` images of an order that does not depend
        on the seed; None takes all images."""
        index = self.feed.judging(self.stage)
        if images is not None:
            index = index[torch.randperm(len(index), generator=stream("judging"))[:images]]
        return self.measure(mix, self.feed.plain(index))[1]

    def inherited(self, arch: Arch, images: int | None = None) -> float:
        """Return the accuracy of an architecture with the supernet's weights, as a share, and append it to
        ``judged``."""
        total = len(self.feed.judging(self.stage))
        accuracy = self.judge(self.space.one_hot(arch), images)
        self.judged.append(Judgement(arch, total if images is None else min(images, total), accuracy))
        if self.on_judged is not None:
            self.on_judged(self.judged[-1])
        return accuracy

    def measure(self, mix: Mix, batches: Iterable[Batch] | None = None) -> tuple[float, float]:
        """Return (mean cross entropy, accuracy as a share) on batches; by default on all images of the bench."""
        mix = mix.to(dtype=self.feed.dtype, device=next(self.supernet.parameters()).device)
        pairs = self.feed.plain(self.feed.judging(self.stage)) if batches is None else batches
        return judge(
            self.supernet,
            lambda x: self.feed.seen(self.forward(x, mix), self.stage),
            ((x, self.feed.named(y, self.stage)) for x, y in pairs),
            bn=self.plan.bn,
            calibration=self.calibration() if self.plan.bn == "recalibrated" else (),
        )

    def calibration(self) -> Iterator[Tensor]:
        """Yield the training images that recalibrate batch norm, the same for every architecture, in batches of the
        training size."""
        index = self.feed.training(self.stage)
        order = index[torch.randperm(len(index), generator=stream("calibration"))][: self.plan.calibration]
        whole = len(order) - len(order) % self.feed.size or len(
            order
        )  # a small last batch would weigh as much as a full one
        for x, _ in self.feed.plain(order[:whole], self.feed.size):
            yield x

    def respects(self, arch: Arch) -> bool:
        """Return whether an architecture is within the budget."""
        return self.budget is None or self.budget.respects(arch)

    def explore(
        self,
        name: str,
        evaluations: int,
        *,
        images: int | None = None,
        finalists: int = 0,
    ) -> Arch:
        """Return the best architecture within the budget that a black-box search finds by inherited accuracy.

        Parameters
        ----------
        name
            Name of a black-box search (``gapless list methods``).
        evaluations
            Number of architectures that it evaluates.
        images
            Images per evaluation. None: all images.
        finalists
            Number of best architectures that are evaluated again on all images, the best of which is returned. 0: the
            best of the search is returned.
        """
        kind = catalogue.find(name, "searchers")
        searcher = make(kind, {"seed": derive_seed(self.seed, "explore") % 2**31}, self.space)
        assert isinstance(searcher, Searcher)
        searcher.within = self.respects

        history = explore(searcher, lambda arch: self.inherited(arch, images), evaluations)
        if not finalists:
            return searcher.best()
        best = sorted({arch: scores["score"] for arch, scores in history}.items(), key=lambda pair: -pair[1])
        return max((arch for arch, _ in best[:finalists]), key=self.inherited)

    def stream(self, name: str) -> torch.Generator:
        """Return a random stream that depends on the run's seed and ``name`` alone."""
        return stream(self.seed, "pick", name)
