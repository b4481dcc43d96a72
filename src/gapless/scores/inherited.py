"""Inherited accuracy: the supernet of a finished search, with the one path that an architecture is, on held-out images.

It is what one-shot methods rank by: SPOS (Guo et al., arXiv 1904.00420), RSPS (Li and Talwalkar, arXiv 1902.07638). Two
things decide what such a ranking is worth. All candidates see the same images here; as we read the released code, SPOS
goes on through the validation set from one candidate to the next, and RSPS on NAS-Bench-201 draws a batch for each. And
the running statistics of batch normalisation are those of all paths mixed: they are gathered anew for each candidate,
the plain mean over batches of training images (SPOS, whose code has a moving average of mostly the last twenty).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.judge import Judge, Settled
from gapless.core.method import Method
from gapless.core.mix import Mix
from gapless.core.progress import seeded, stream
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.engine.feed import Feed
from gapless.engine.judge import BatchNorm, judge
from gapless.engine.precision import Precision, arithmetic, checked
from gapless.engine.supernet import Supernet
from gapless.runs.recipe import MEASURED, Recipe
from gapless.runs.run import Run


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
        images: int = 5000,
        bn: BatchNorm = "recalibrated",
        calibration: int = 200,
    ) -> None:
        super().__init__(space, device)
        for name, value in (("images", images), ("calibration", calibration)):
            if value < 1:
                raise UserError(f"--score.{name} is {value}; it must be at least 1.")
        self.bn: BatchNorm = bn
        source, _ = trained(run)
        resolved = source.recipe().resolve()
        with seeded("inherited", "method"):
            method = make(resolved.method_class, resolved.method, resolved.space)
        assert isinstance(method, Method)
        size = resolved.space
        for stage in method.plan.stages:
            size = size.replace(**stage.space)
        if size.decisions != space.decisions or size.limits != space.limits:
            raise UserError(
                f"The run {run} searched another space than this: its supernet cannot judge these architectures. "
                "Leave the space out; it is then that of the run."
            )
        precision: Precision = resolved.run["precision"]
        self.precision: Precision = "float32" if precision == "bfloat16" else precision
        checked(self.precision, device)
        self.dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.feed = Feed(resolved.data.to(device), method.plan, resolved.train, resolved.run["seed"], self.dtype)
        if not len(self.feed.arch):
            raise UserError(
                f"The weights of {run} were trained on all of its images: there is none left to judge by, and their "
                "accuracy on what they were trained on says little. Take the run of a method that holds images out."
            )
        self.supernet = Supernet(size, resolved.run["execution"])
        weights = source.weights()
        try:
            method.load_state_dict(_part(weights, "method."))
            self.supernet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("method.")})
        except RuntimeError:
            raise UserError(f"The weights of {run} do not fit the supernet that its recipe describes.") from None
        self.supernet.to(device, self.dtype)
        held, seen = self.feed.arch, self.feed.weights
        self.judged = held[torch.randperm(len(held), generator=stream("inherited", "judged"))[:images]].sort().values
        order = seen[torch.randperm(len(seen), generator=stream("inherited", "calibration"))]
        batch = min(resolved.train.batch, len(order))
        self.calibration = [part for part in torch.split(order, batch) if len(part) == batch][:calibration]
        self.title = f"inherited accuracy on {len(self.judged):,} held-out images, run {source.path.resolve().name}"
        pruned = int((space.legal & ~method.alive.cpu()).sum())
        if pruned:
            self.notice = (
                f"The run {run} pruned {pruned} of {int(space.legal.sum())} options before its end: architectures that "
                "hold one of them are judged by weights that were trained for a part of it only."
            )
        digest = hashlib.sha256((source.path / "weights.safetensors").read_bytes())
        digest.update(resolved.data.fingerprint.encode())
        self.fingerprint = digest.hexdigest()[:16]

    @classmethod
    def settles(cls, **settings: Any) -> Settled | None:
        """Return space and data of the run."""
        if "run" not in settings:
            return None
        source, recipe = trained(settings["run"])
        _, space = source.found()
        images = {key: list(value) for key, value in source.images().items()}
        return Settled(recipe.space, recipe.data, {name: getattr(space, name) for name in MEASURED}, images)

    def __call__(self, arch: Arch) -> float:
        """Return percent."""
        mix = self.supernet.space.one_hot(arch, dtype=self.dtype, device=self.device)
        with arithmetic(self.device, self.precision), seeded("inherited", "pass"):  # for a model's own dropout
            _, share = judge(
                self.supernet,
                lambda x: self._logits(x, mix),
                self.feed.plain(self.judged),
                bn=self.bn,
                calibration=(self._images(part) for part in self.calibration),
            )
        return 100 * share

    def _logits(self, x: torch.Tensor, mix: Mix) -> torch.Tensor:
        logits: torch.Tensor = self.supernet(x, mix)
        return logits

    def _images(self, index: torch.Tensor) -> torch.Tensor:
        data = self.feed.data
        return data.batch(data.train, index, dtype=self.dtype)[0]


def trained(path: str | Path) -> tuple[Run, Recipe]:
    """Return a finished run that trained a supernet, and its recipe.

    Raises
    ------
    UserError
        Where it is something else.
    """
    run = Run.open(path)
    recipe = run.recipe()
    what = "a search that trained a supernet"
    if run.kind != "search":
        raise UserError(f"{path} trained one architecture alone; scores are inherited from {what}.")
    _, method_class, _ = recipe.definitions()
    if not issubclass(method_class, Method):
        raise UserError(f"{recipe.method['name']} trains no supernet; scores are inherited from {what}.")
    if not run.ended:
        raise UserError(f"The run {path} has not ended. Go on with: gapless resume {path}")
    if not (run.path / "weights.safetensors").is_file():
        raise UserError(f"{path} holds no weights.safetensors: its supernet is gone.")
    return run, recipe


def _part(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


SCORE = InheritedAccuracy
