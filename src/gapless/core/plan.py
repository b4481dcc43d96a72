"""How a method wants to be trained, as data; and the ordinary training settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from gapless.core.errors import UserError
from gapless.core.settings import at_least
from gapless.core.training import TrainingSettings


@dataclass(frozen=True)
class Adam:
    """Adam on the architecture parameters; defaults of DARTS (arXiv 1806.09055, released code), ``decay`` coupled
    (L2)."""

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay: float = 1e-3
    eps: float = 1e-8


@dataclass(frozen=True)
class Stage:
    """A stretch of a search at one supernet size.

    Parameters
    ----------
    share
        Part of all epochs; the shares of a plan sum to 1.
    keep
        Options kept per decision (int), or the share of them (float); ``None`` keeps what there is.
    space
        Fields of the space that change at this stage, as ``{"partial": 4}``.
    data
        Share of the training images that this stage uses.
    classes
        Share of the classes that this stage uses, easiest first (:mod:`gapless.engine.easiness`), at least two.
    over
        What ``keep`` counts: the options of ``each`` decision, or those of ``all`` decisions together.
    """

    share: float = 1.0
    keep: int | float | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    data: float = 1.0
    classes: float = 1.0
    over: Literal["each", "all"] = "each"


@dataclass(frozen=True)
class Plan:
    """The schedule of a method, as data that the engine follows.

    Parameters
    ----------
    coupling
        ``alternate``: architecture and weights by turns, on data of their own; ``joint``: both from one pass;
        ``unrolled``: as alternate, with the second-order term of DARTS; ``weights_only``: the engine trains no
        architecture parameter.
    order
        Which comes first inside a step.
    arch_every
        One architecture update per so many weight updates.
    arch_block
        With ``alternate``: so many architecture updates in a block behind each epoch, and none inside steps; 0 leaves
        them in the steps.
    batches
        Whether the passes of one update (``Method.passes``) ``share`` a batch or each take one of their ``own``.
    gradients
        Whether the weights follow the ``sum`` of the gradients of an update's passes or their ``mean``.
    same_mix
        Whether both passes of a step use one and the same mix.
    arch_clip
        Bound on the norm of the architecture gradient; ``None`` leaves it alone.
    arch_bn
        Whether architecture passes move the running statistics (they do in all released code).
    inactive
        Options that did not run: ``skip`` leaves weights, momentum, scores bit for bit; ``coast`` gives them a zero
        gradient, so that momentum goes on moving them (PyTorch before 2.0).
    arch_moves
        Which entries of architecture parameters a step moves: ``ran``, those of options that ran; or ``all``, for
        samplers whose normalisation sends a gradient to every option of a decision, whichever of them ran.
    decay_on
        With ``coast``: decay ``all`` options or those that ``ran``. (``skip`` leaves what did not run alone, decay
        included.)
    decay_step
        ``coupled``: decay is part of the one step; ``separate``: a second step of both optimisers from the gradient of
        ``decay * |x|^2`` over what ran (the released DropNAS); it needs ``decay_on="ran"``.
    clip_over
        Whether the norm of the weight clip counts the ``weights`` or ``weights+arch`` (the released DrNAS on
        NAS-Bench-201).
    virtual
        The virtual step of ``unrolled``: ``plain`` gradient descent (the paper), or with ``momentum`` and decay (the
        released code).
    lr_after_stage
        ``continue`` the curve; or ``restart`` it recursively from the initial rate (the released DrNAS on current
        PyTorch).
    arch_after_stage
        Whether the moments of the architecture's optimiser ``continue`` behind a stage or ``restart`` at zero.
    held_out
        Whether a plan that trains no architecture on data of its own keeps ``Train.arch_share`` of the images from the
        weights all the same, to judge architectures by.
    bn
        By which statistics the supernet is judged: the ``running`` ones, those of each ``batch``, or
        ``recalibrated`` for each architecture. It decides rankings.
    calibration
        Training images that recalibration reads, where there are so many (20,000: arXiv 1904.00420).
    warmup_epochs
        Epochs at the start of every stage in which only weights are trained.
    warmup_share
        The same as a share of the stage, in [0, 1), rounded down; it counts where ``warmup_epochs`` is 0.
    stages
        At least one.
    after
        What becomes of the weights when the answer is trained: ``retrain`` from scratch, or ``continue`` with those of
        the supernet.
    """

    coupling: Literal["alternate", "joint", "unrolled", "weights_only"] = "alternate"
    order: Literal["arch_first", "weights_first"] = "arch_first"
    arch_every: int = 1
    arch_block: int = 0
    batches: Literal["share", "own"] = "share"
    gradients: Literal["sum", "mean"] = "sum"
    same_mix: bool = False
    arch_clip: float | None = None
    arch_bn: bool = True
    inactive: Literal["skip", "coast"] = "skip"
    arch_moves: Literal["ran", "all"] = "ran"
    decay_on: Literal["all", "ran"] = "all"
    decay_step: Literal["coupled", "separate"] = "coupled"
    clip_over: Literal["weights", "weights+arch"] = "weights"
    virtual: Literal["plain", "momentum"] = "plain"
    lr_after_stage: Literal["continue", "restart"] = "continue"
    arch_after_stage: Literal["continue", "restart"] = "continue"
    held_out: bool = False
    bn: Literal["running", "batch", "recalibrated"] = "running"
    calibration: int = 20_000
    warmup_epochs: int = 0
    warmup_share: float = 0.0
    stages: tuple[Stage, ...] = (Stage(),)
    after: Literal["retrain", "continue"] = "retrain"
    arch: Adam = Adam()

    def __post_init__(self) -> None:
        if self.decay_step == "separate" and self.decay_on != "ran":
            raise ValueError("a separate decay step is taken over what ran: it needs decay_on='ran'")
        if self.arch_block and self.coupling != "alternate":
            raise ValueError("a block of architecture updates has data of its own: it needs coupling='alternate'")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share is {self.warmup_share}; it is a share of a stage, in [0, 1)")

    def warmup(self, epochs: int) -> int:
        """Return the epochs of weights only in a stage of so many."""
        return self.warmup_epochs or int(self.warmup_share * epochs)

    def stage_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs of each stage; they sum to ``epochs``.

        Raises
        ------
        UserError
            Where a stage would have no epoch, or its warm-up would leave the architecture untrained.
        """
        if not math.isclose(sum(s.share for s in self.stages), 1.0):
            raise ValueError(f"the shares of the stages sum to {sum(s.share for s in self.stages)}, not 1")
        ends = [round(epochs * sum(s.share for s in self.stages[: i + 1])) for i in range(len(self.stages))]
        lengths = tuple(b - a for a, b in zip([0, *ends], ends, strict=False))
        if min(lengths) < 1:
            raise UserError(f"{epochs} epochs are too few for {len(self.stages)} stages.")
        if self.coupling != "weights_only" and self.warmup_epochs >= min(lengths):
            raise UserError(
                f"A warm-up of {self.warmup_epochs} epochs in each stage leaves no epoch of {min(lengths)} "
                "to train the architecture. "
                "Give more `train.epochs` or a shorter `method.warmup`."
            )
        return lengths


@dataclass(frozen=True, kw_only=True)
class Train(TrainingSettings):
    """Training settings of a search: those of the supernet's weights.

    The defaults are those of DARTS on CIFAR-10 (arXiv 1806.09055, released code).

    Parameters
    ----------
    batch
        Images per step, for weights and architecture alike.
    schedule
        Learning rate over time: ``cosine`` from ``lr`` to ``lr_min``; ``straight`` down to zero; or ``constant``.
    lr_epochs
        Length of the learning rate's schedule in epochs, for a search that ends before it (DSNAS: 80 of 240). Where it
        is below ``epochs``: ``epochs``.
    arch_share
        Share of the training images kept for the architecture where the method asks for images of its own.
    validate_every
        Epochs between two measurements of the supernet's accuracy. 0: none.
    """

    of: ClassVar[str] = "train"
    epochs: int = 50
    batch: int = 64
    lr_min: float = 0.001
    schedule: Literal["cosine", "straight", "constant"] = "cosine"
    lr_epochs: int = 0
    arch_share: float = 0.5
    validate_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self.of, lr_epochs=self.lr_epochs, validate_every=self.validate_every)
        if not 0 < self.arch_share < 1:
            raise UserError(f"`arch_share` must lie between 0 and 1; got {self.arch_share}.", of=self.of)
