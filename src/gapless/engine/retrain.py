"""Training of one network with the settings of a protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.errors import UserError
from gapless.core.images import Images
from gapless.core.network import DropPath
from gapless.core.progress import seeded, stream
from gapless.core.protocol import Protocol
from gapless.engine.feed import batches
from gapless.engine.judge import judge
from gapless.engine.memory import peak_memory_mb
from gapless.engine.precision import Precision, arithmetic, checked
from gapless.engine.schedule import rate
from gapless.engine.sgd import sgd
from gapless.engine.state import load_optimiser, optimiser_state, own_random_numbers, reseed
from gapless.engine.tally import Tally


@dataclass(frozen=True)
class TrainingRecord:
    """Result of one epoch of a training; ``line`` of it is a line of the trace.

    Attributes
    ----------
    epoch
        Number of the epoch, counted from 0.
    lr
        Learning rate at the last step of the epoch.
    train_loss, train_accuracy
        Mean over the epoch's batches, on augmented training images; accuracy in percent. The loss is that of the
        classifier, with label smoothing and without the auxiliary head.
    test_loss, test_accuracy
        Loss and accuracy on all test images, with the moving average of the weights if there is one; None if they were
        not measured.
    images_per_second, seconds, peak_memory_mb
        Training images per second; wall time; peak memory of the process (or of the GPU) so far.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    images_per_second: float
    seconds: float
    peak_memory_mb: float

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types."""
        return asdict(self)


class Training:
    """The training of one network.

    Parameters
    ----------
    make
        Returns the freshly initialised network, which maps images [N, C, H, W] to logits. If it has a method
        ``forward_with_aux``, this also returns the logits of an auxiliary head; if it has an attribute ``drop_path``,
        this holds the rate of drop path.
    data
        Data set: trained on ``data.train``, tested on ``data.test``.
    protocol
        Learning rate and regularisation; the augmentation is that of ``data``.
    seed
        Seed of initialisation, order, augmentation, drop path and dropout.
    device
        Device of the network and the images.
    precision
        ``bfloat16`` trains under autocast; parameters stay float32.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        data: Images,
        protocol: Protocol,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.protocol, self.seed = protocol, seed
        self.device = torch.device(device)
        self.precision = checked(precision, self.device)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.data = data.to(self.device)
        with seeded(seed, "network"):
            self.network = make().to(self.device, self.dtype)
        self.optimiser = sgd(self.network.parameters(), protocol)
        self.average = _copies(self.network) if protocol.ema else {}
        self.epoch, self.step = 0, 0
        self.tally = Tally()

    # ------------------------------------------------------------------ the loop

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[TrainingRecord]:
        """Train to the end and yield a record per epoch; ``after_step`` is called after each step."""
        while self.epoch < self.protocol.epochs:
            yield self.run_epoch(after_step)

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> TrainingRecord:
        """Train one epoch, or what is left of it."""
        p, tally = self.protocol, self.tally
        images = torch.arange(len(self.data.train))
        parts = batches(images, p.batch, stream(self.seed, "order", self.epoch))
        started = time.perf_counter() - tally.seconds
        self.network.train()
        drop = getattr(self.network, "drop_path", None)
        if isinstance(drop, DropPath):
            drop.rate.fill_(p.drop_path * self.epoch / p.epochs)
        with own_random_numbers(self.device), arithmetic(self.device, self.precision):
            for index in parts[tally.batches :]:
                lr = rate(p, self.epoch, self.epoch + tally.batches / len(parts))
                reseed(self.device, self.seed, "step", self.step)  # for drop path and dropout
                loss, accuracy = self.update(index, lr)
                self.step += 1
                tally.add(len(index), lr, loss, accuracy)
                tally.seconds = time.perf_counter() - started
                if after_step is not None:
                    after_step()
        with arithmetic(self.device, self.precision):
            return self._end_epoch()

    def update(self, index: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Take one step on the images numbered ``index``; return (loss, accuracy as a share), detached."""
        p = self.protocol
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        generator = stream(self.seed, "augment", self.step)
        images, labels = self.data.batch(self.data.train, index, generator=generator, augment=True, dtype=self.dtype)
        with self._cast():
            logits, aux = self._forward(images)
            loss = F.cross_entropy(logits.to(self.dtype), labels, label_smoothing=p.label_smoothing)
            total = loss
            if aux is not None and p.aux_weight:
                aux_loss = F.cross_entropy(aux.to(self.dtype), labels, label_smoothing=p.label_smoothing)
                total = loss + p.aux_weight * aux_loss
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        if p.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), p.clip)
        self.optimiser.step()
        if self.average:
            self._update_average()
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).to(self.dtype).mean()

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        with_aux: Callable[[Tensor], tuple[Tensor, Tensor | None]] | None
        with_aux = getattr(self.network, "forward_with_aux", None)
        return (self.network(images), None) if with_aux is None else with_aux(images)

    def _cast(self) -> AbstractContextManager[Any]:
        mixed = self.precision == "bfloat16" or (self.protocol.mixed and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the network. Its decay grows to its full value, so that the first weights are soon
        forgotten: ``min(ema, (1 + t) / (10 + t))`` after t steps (the moving average of TensorFlow)."""
        decay = min(self.protocol.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _end_epoch(self) -> TrainingRecord:
        started, p, tally = time.perf_counter(), self.protocol, self.tally
        loss, accuracy, _ = tally.means()
        if not math.isfinite(loss):
            raise UserError(
                f"The training loss is {loss} in epoch {self.epoch + 1}. Try a smaller `lr` or `clip`.", of=p.of
            )
        due = self.epoch + 1 == p.epochs or (p.test_every and (self.epoch + 1) % p.test_every == 0)
        test_loss, test_accuracy = self.test() if due else (None, None)
        record = TrainingRecord(
            epoch=self.epoch,
            lr=tally.lr,
            train_loss=loss,
            train_accuracy=100 * accuracy,
            test_loss=test_loss,
            test_accuracy=None if test_accuracy is None else 100 * test_accuracy,
            images_per_second=tally.images / tally.seconds,
            seconds=tally.seconds + time.perf_counter() - started,
            peak_memory_mb=peak_memory_mb(self.device),
        )
        self.epoch += 1
        self.tally = Tally()
        return record

    # ------------------------------------------------------------------ the result

    def test(self) -> tuple[float, float]:
        """Return (mean cross entropy, accuracy as a share) on all test images with running statistics, and with the
        moving average of the weights if there is one."""
        before = _copies(self.network) if self.average else {}
        if self.average:
            self.network.load_state_dict(self.average)
        try:
            return judge(self.network, self._plain, self._test_batches(), bn="running")
        finally:
            if before:
                self.network.load_state_dict(before)

    def _plain(self, images: Tensor) -> Tensor:
        with self._cast():
            logits: Tensor = self.network(images)
        return logits

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(torch.arange(len(self.data.test)), 4 * self.protocol.batch):
            yield self.data.batch(self.data.test, part, dtype=self.dtype)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights and statistics that are tested: the network's, or their moving average if there is one."""
        return dict(self.average) if self.average else dict(self.network.state_dict())

    # ------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a training made from the same arguments needs to resume from here, bit for bit."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "tally": self.tally.state_dict(),
            "network": self.network.state_dict(),
            "average": dict(self.average),
            "optimiser": optimiser_state(self.network, self.optimiser),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state``, whatever this training has done so far."""
        self.network.load_state_dict(state["network"])
        load_optimiser(self.network, self.optimiser, state["optimiser"])
        self.average = {name: v.to(self.device, copy=True) for name, v in state["average"].items()}
        self.epoch, self.step = state["epoch"], state["step"]
        self.tally = Tally.from_state(state["tally"], self.device)


def _copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
