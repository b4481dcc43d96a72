"""Settings that every training has, of a supernet or of one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from gapless.core.errors import UserError
from gapless.core.settings import at_least


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
    epochs: int
    batch: int
    lr: float = 0.025
    lr_min: float
    schedule: Literal["cosine", "linear", "straight", "exponential", "constant"] = "cosine"
    lr_per: Literal["epoch", "step"] = "epoch"
    lr_warmup: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    decay_norms: bool = True
    clip: float = 5.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, self.of, epochs=self.epochs, batch=self.batch)
        at_least(0, self.of, lr=self.lr, lr_min=self.lr_min, lr_warmup=self.lr_warmup)
        at_least(0, self.of, weight_decay=self.weight_decay, clip=self.clip)
        self.shares("momentum", "label_smoothing")

    def shares(self, *names: str) -> None:
        """Raise a :class:`UserError` for the first of these settings that is outside [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}.", of=self.of)
