"""How a method wants to be trained, as data; and the ordinary training settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from gapless.core.errors import UserError
from gapless.core.settings import Epochs, Natural, NonNegative, Portion, Range, Whole, check_ranges
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
        Share of all epochs; the shares of a plan sum to 1.
    keep
        Options kept per decision (int), or the share of them (float); ``None`` prunes nothing.
    space
        Fields of the space that change at this stage, as ``{"partial": 4}``.
    classes
        Share of the classes that this stage uses, easiest first (:mod:`gapless.engine.easiness`), at least two.
    over
        What ``keep`` counts: the options of ``each`` decision, or those of ``all`` decisions together.
    """

    share: float = 1.0
    keep: int | float | None = None
    space: Mapping[str, Any] = field(default_factory=dict)
    classes: float = 1.0
    over: Literal["each", "all"] = "each"


@dataclass(frozen=True)
class Released:
    """What some released code does and its paper does not; by default nothing.

    A method asks for it where its user wants the numbers of that code (``faithful``).

    Parameters
    ----------
    clip_over
        What the norm of the weight clip counts: the ``weights``, or ``weights+arch`` (DrNAS on NAS-Bench-201).
    virtual
        The virtual step of ``coupling="unrolled"``: ``plain`` gradient descent, or with ``momentum`` and weight decay
        (DARTS).
    decay_step
        Weight decay as part of the one step (``coupled``); or as a ``separate``, second step of both optimisers from
        the gradient of ``decay * |x|^2`` over what ran, which needs ``decay_on="ran"`` (DropNAS).
    lr_after_stage
        Learning rate after a stage: ``continue`` the curve, or ``restart`` it recursively from the initial rate (DrNAS
        on current PyTorch).
    """

    clip_over: Literal["weights", "weights+arch"] = "weights"
    virtual: Literal["plain", "momentum"] = "plain"
    decay_step: Literal["coupled", "separate"] = "coupled"
    lr_after_stage: Literal["continue", "restart"] = "continue"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The schedule of a method, as data that the engine follows.

    Parameters
    ----------
    coupling
        How architecture and weights are trained: ``alternate``, by turns, on images of their own; ``joint``, both from
        one pass; ``unrolled``, as alternate with the second-order term of DARTS; ``weights_only``, the engine trains no
        architecture parameter.
    order
        Which of the two comes first inside a step.
    arch_block
        With ``alternate``: number of architecture updates in a block after each epoch, with none inside steps. 0: they
        are inside steps.
    batches
        Whether the passes of one update (``Method.passes``) ``share`` a batch or each take one of their ``own``.
    gradients
        Whether the weights follow the ``sum`` of the gradients of an update's passes or their ``mean``.
    arch_clip
        Bound on the norm of the architecture gradient. ``None``: no bound.
    inactive
        Options that did not run: ``skip`` leaves weights, momentum, scores bit for bit; ``coast`` gives them a gradient
        of zero, so that momentum goes on moving them (PyTorch before 2.0).
    arch_moves
        Entries of architecture parameters that a step moves: ``ran``, those of options that ran; or ``all``, for
        samplers whose normalisation sends a gradient to every option of a decision, whichever of them ran.
    decay_on
        With ``coast``: options that decay, ``all`` or those that ``ran``. (``skip`` leaves what did not run alone,
        decay included.)
    arch_after_stage
        Whether the moments of the architecture's optimiser ``continue`` after a stage or ``restart`` at zero.
    held_out
        Whether a plan that trains no architecture on images of its own keeps ``Train.arch_share`` of them from the
        weights all the same, to judge architectures by.
    bn
        Statistics of batch normalisation by which the supernet is judged: the ``running`` ones, those of each
        ``batch``, or ``recalibrated`` for each architecture. They decide rankings.
    calibration
        Number of training images for recalibration; all, where there are fewer (20,000: arXiv 1904.00420). 0: none,
        where nothing is recalibrated.
    warmup_epochs
        Epochs at the start of every stage in which only weights are trained.
    warmup_share
        The same as a share of the stage, in [0, 1), rounded down; it counts where ``warmup_epochs`` is 0.
    stages
        Stages of the search, at least one.
    after
        What becomes of the weights when the answer is trained: ``retrain`` from scratch, or ``continue`` with those of
        the supernet.
    arch
        Optimiser of the architecture parameters.
    released
        What the released code does and the paper does not.
    """

    coupling: Literal["alternate", "joint", "unrolled", "weights_only"] = "alternate"
    order: Literal["arch_first", "weights_first"] = "arch_first"
    arch_block: Whole = 0
    batches: Literal["share", "own"] = "share"
    gradients: Literal["sum", "mean"] = "sum"
    arch_clip: NonNegative | None = None
    inactive: Literal["skip", "coast"] = "skip"
    arch_moves: Literal["ran", "all"] = "ran"
    decay_on: Literal["all", "ran"] = "all"
    arch_after_stage: Literal["continue", "restart"] = "continue"
    held_out: bool = False
    bn: Literal["running", "batch", "recalibrated"] = "running"
    calibration: Whole = 20_000
    warmup_epochs: Whole = 0
    warmup_share: Portion = 0.0
    stages: tuple[Stage, ...] = (Stage(),)
    after: Literal["retrain", "continue"] = "retrain"
    arch: Adam = Adam()
    released: Released = Released()

    def __post_init__(self) -> None:
        if self.released.decay_step == "separate" and self.decay_on != "ran":
            raise ValueError("a separate decay step is taken over what ran: it needs decay_on='ran'")
        if self.arch_block and self.coupling != "alternate":
            raise ValueError("a block of architecture updates has data of its own: it needs coupling='alternate'")
        check_ranges(type(self), vars(self), "method")

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
    epochs: Epochs = 50
    batch: Natural = 64
    lr_min: NonNegative = 0.001
    schedule: Literal["cosine", "straight", "constant"] = "cosine"
    lr_epochs: Annotated[int, Range(0, 10**6)] = 0
    arch_share: Annotated[float, Range(above=0, below=1)] = 0.5
    validate_every: Whole = 1
