"""Settings that every training has, of a supernet or of one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gapless.core.settings import Epochs, Natural, NonNegative, Portion, Whole, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings that training a supernet (:class:`gapless.core.plan.Train`) and training one network
    (:class:`gapless.core.protocol.Protocol`) share. The optimiser is SGD.

    Parameters
    ----------
    epochs
        Number of passes over the training images.
    batch
        Images per step.
    lr
        Initial learning rate.
    lr_min
        Final learning rate of the cosine schedule.
    schedule
        Learning rate over time: ``cosine`` from ``lr`` to ``lr_min``; ``linear`` to zero with a slow end; ``straight``
        down to zero; ``exponential``: 0.97 times as much each epoch; or ``constant``.
    lr_per
        Whether the learning rate changes per ``epoch`` or per ``step``.
    lr_warmup
        Epochs over which the learning rate grows linearly to its initial value.
    momentum
        Momentum of SGD.
    nesterov
        Whether the momentum is Nesterov's.
    weight_decay
        Weight decay of SGD (L2).
    decay_norms
        Whether weight decay also pulls biases and the scales and shifts of batch normalisation.
    clip
        Bound on the norm of the gradient. 0: no bound.
    label_smoothing
        Share of the target that is spread over all classes, in training.
    """

    of: ClassVar[str]
    """Table of a recipe that holds these settings: the one that errors name."""
    epochs: Epochs
    batch: Natural
    lr: NonNegative = 0.025
    lr_min: NonNegative
    schedule: Literal["cosine", "linear", "straight", "exponential", "constant"] = "cosine"
    lr_per: Literal["epoch", "step"] = "epoch"
    lr_warmup: Whole = 0
    momentum: Portion = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 3e-4
    decay_norms: bool = True
    clip: NonNegative = 5.0
    label_smoothing: Portion = 0.0

    def __post_init__(self) -> None:
        check_ranges(type(self), vars(self), self.of)
