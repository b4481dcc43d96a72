"""The way from a supernet to one of its architectures alone, step by step, each as an accuracy on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.images import Images
from gapless.core.method import Method
from gapless.core.mix import Mix
from gapless.core.plan import Train
from gapless.core.progress import Progress, stream
from gapless.core.space import Space
from gapless.engine.bench import SupernetBench
from gapless.engine.feed import Batch, batches
from gapless.engine.judge import BatchNorm, judge
from gapless.engine.precision import Precision, arithmetic
from gapless.engine.sgd import sgd
from gapless.engine.state import own_random_numbers, reseed

CALIBRATION = 20
"""Batches that statistics are gathered over; ours."""
TURNS = 20
"""Mixes of a method that draws them, whose mean accuracy is called the supernet's; ours."""


class Yardstick:
    """Measures a finished search on images that it never saw: those of the test split.

    Parameters
    ----------
    bench
        The supernet as the search left it; it and its statistics stay as they are.
    method
        As the search left it.
    data
        The test images are judged by, the training images of the weights calibrate and tune.
    train
        How the search trained its weights.
    images
        Judge by so many test images, the same each time; all, where there are fewer.
    precision
        Of all passes.
    """

    def __init__(
        self,
        bench: SupernetBench,
        method: Method,
        data: Images,
        train: Train,
        *,
        images: int,
        precision: Precision = "float32",
    ) -> None:
        self.bench = replace(bench, plan=replace(bench.plan, calibration=CALIBRATION * bench.feed.size))
        self.method, self.data, self.train, self.precision = method, data, train, precision
        order = torch.randperm(len(data.test), generator=stream("gap"))
        self.index = order[:images].sort().values
        self.device = next(bench.supernet.parameters()).device
        self.dtype = bench.feed.dtype

    @property
    def space(self) -> Space:
        """The space at the size of the supernet."""
        return self.bench.space

    @property
    def bn(self) -> BatchNorm:
        """The statistics by which the search judged."""
        return self.bench.plan.bn

    # ------------------------------------------------------------------ the supernet under a mix

    def mixes(self) -> list[Mix]:
        """Return how the method mixes at its end: one mix, or several where it draws them."""
        now = Progress(
            epoch=self.train.epochs - 1,
            epochs=self.train.epochs,
            done=1 - 1e-9,
            stage=len(self.method.plan.stages) - 1,
            phase="judge",
            seed=self.bench.seed,
        )
        with torch.no_grad():
            found = [self.method.mix(now.at("judge", turn)).detach() for turn in range(TURNS)]
        return found[:1] if all(torch.equal(m.weight, found[0].weight) for m in found) else found

    def supernet(self, mixes: Iterable[Mix], bn: BatchNorm | None = None) -> float:
        """Return the accuracy in percent under each mix, averaged."""
        bench = replace(self.bench, plan=replace(self.bench.plan, bn=bn or self.bn))
        with arithmetic(self.device, self.precision):
            found = [100 * bench.measure(mix, self._test())[1] for mix in mixes]
        return sum(found) / len(found)

    def profile(self, arch: Arch, mix: Mix) -> list[tuple[str, float]]:
        """Return what fixing the decisions at the architecture, one after another, does to the accuracy: (name of the
        decision, percent once it and those before it are fixed).

        The order is the method's own: the decision that it is surest of first, by the distance of its two largest
        weights in the mix. A decision that the architecture does not hold is taken away. Statistics are those of the
        search.
        """
        mix = mix.to(dtype=torch.float64, device="cpu")
        top = mix.weight.topk(min(2, mix.weight.shape[-1]), dim=-1).values
        order = (top[:, 0] - top[:, -1]).argsort(descending=True, stable=True).tolist()
        fixed = self.space.one_hot(arch, dtype=torch.float64).weight
        weight, gain, offset = mix.weight.clone(), mix.gain, mix.offset
        gain = None if gain is None else gain.clone()
        offset = None if offset is None else offset.clone()
        found = []
        for row in order:
            weight[row] = fixed[row]
            for extra, value in ((gain, 1.0), (offset, 0.0)):
                if extra is not None:
                    extra[row] = value
            current = Mix(weight.clone(), gain=gain, offset=offset)
            found.append((self.space.decisions[row].name, self.supernet([current])))
        return found

    # ------------------------------------------------------------------ an architecture

    def inherited(self, arch: Arch, bn: BatchNorm | None = None) -> float:
        """Return the accuracy in percent of an architecture with the supernet's weights."""
        return self.supernet([self.space.one_hot(arch)], bn)

    def tuned(self, child: nn.Module, budgets: Sequence[int], lr: float) -> list[float]:
        """Return the accuracy in percent of a network once it has trained on for so many batches, for each of ascending
        budgets, with statistics gathered anew.

        It trains as the search did (optimiser, decay, clip, augmentation), at a constant rate, as a copy.
        """
        child = deepcopy(child).to(self.device, self.dtype)
        train, feed, found, done = self.train, self.bench.feed, [], 0
        optimiser = sgd(child.parameters(), train, lr=lr)
        parts = self._batches()
        with own_random_numbers(self.device), arithmetic(self.device, self.precision):
            for budget in budgets:
                child.train()
                while done < budget:
                    reseed(self.device, "tune", done)
                    images, labels = feed.weight_batch(next(parts), done)
                    optimiser.zero_grad(set_to_none=True)
                    F.cross_entropy(child(images), labels, label_smoothing=train.label_smoothing).backward()
                    if train.clip:
                        nn.utils.clip_grad_norm_(child.parameters(), train.clip)
                    optimiser.step()
                    done += 1
                found.append(self.alone(child, "recalibrated"))
        return found

    def alone(self, network: nn.Module, bn: BatchNorm = "running") -> float:
        """Return the accuracy in percent of a network of its own."""
        calibration = self.bench.calibration() if bn == "recalibrated" else ()
        with arithmetic(self.device, self.precision):
            _, share = judge(network, network, self._test(), bn=bn, calibration=calibration)
        return 100 * share

    def _test(self) -> Iterator[Batch]:
        for part in torch.split(self.index, 4 * self.bench.feed.size):
            yield self.data.batch(self.data.test, part, dtype=self.dtype)

    def _batches(self) -> Iterator[Tensor]:
        feed, epoch = self.bench.feed, 0
        while True:
            yield from batches(feed.training(self.bench.stage), feed.size, stream("tuning", epoch))
            epoch += 1
