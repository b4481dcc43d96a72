"""The search loop: epochs, stages, the state of a checkpoint, validation, the answer. It follows the method's plan and
knows no method by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gapless.core.bound import STRENGTH, Budget
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.images import Images
from gapless.core.method import Method
from gapless.core.mix import Mix
from gapless.core.objective import Objective, cross_entropy
from gapless.core.pick import Picks
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded, stream
from gapless.core.space import Space
from gapless.engine.bench import Judgement, SupernetBench
from gapless.engine.diagnostics import Probe
from gapless.engine.easiness import easiest_first
from gapless.engine.feed import Batch, Feed
from gapless.engine.fit import fit
from gapless.engine.loss import SupernetLoss
from gapless.engine.memory import keep_memory, peak_memory_mb
from gapless.engine.precision import Precision, arithmetic, checked
from gapless.engine.record import DRAWS, SearchRecord, sample_archs
from gapless.engine.schedule import learning_rate, locate
from gapless.engine.state import load_optimiser, optimiser_state, own_random_numbers, reseed
from gapless.engine.step import Batches, Updater
from gapless.engine.supernet import Execution, Supernet
from gapless.engine.tally import Tally
from gapless.engine.widen import carry, widen
from gapless.kernels.announce import compile_seconds


class Search:
    """One search over a space: supernet, method, updates, state.

    Parameters
    ----------
    space
        Space at the size to search with; the method's first stage may change fields of it.
    method
        Method made for this space.
    data
        Data set whose training split is divided between weights and architecture; the test split is not touched.
    train
        Epochs, batch size, learning rates.
    seed
        Seed of every random stream: initialisation, order of images, augmentation, mixes.
    device
        Device of the supernet and the images.
    precision
        ``bfloat16`` runs the supernet under autocast, ``tf32`` lets a GPU round factors; parameters stay float32.
    execution
        ``fused`` runs a cell at once, ``reference`` edge by edge; the results agree up to rounding.
    recompute
        Keep only the inputs of cells for the backward pass: less memory, more time, the same results.
    graphs
        Record static passes as CUDA graphs and replay them (:class:`gapless.engine.graphs.Graphs`).
    objective
        Loss of a pass; by default the cross entropy, with the label smoothing of ``train``.
    budget
        Bounds on the cost of the answer: the expected excess is added to the architecture's loss, and every answer
        respects them.
    strength
        Weight of that penalty.
    watch
        Measure :class:`gapless.engine.diagnostics.Diagnostics` at the end of every epoch; no other number changes.
    draws
        Number of architectures sampled from the method's distribution at the end of every epoch, for the record.

    Attributes
    ----------
    supernet, method
        The supernet and the method in their present state.
    updater
        Takes the steps; it holds both optimisers.
    loss
        Loss of the supernet on a batch under a mix.
    feed
        Batches for the weights and for the architecture.
    epoch, step, stage
        Number of the present epoch, step and stage, counted from 0.
    tally
        Sums over the present epoch.
    judged
        Architectures that the method's own pick has judged, in order.
    """

    def __init__(
        self,
        space: Space,
        method: Method,
        data: Images,
        train: Train,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        execution: Execution = "fused",
        recompute: bool = False,
        graphs: bool = False,
        objective: Objective | None = None,
        budget: Budget | None = None,
        strength: float = STRENGTH,
        watch: bool = False,
        draws: int = DRAWS,
    ) -> None:
        self.plan = method.plan
        self.lengths = self.plan.stage_epochs(train.epochs)
        self.space = space.replace(**self.plan.stages[0].space)
        self.device = torch.device(device)
        self.train, self.seed = train, seed
        self.objective = objective or partial(cross_entropy, label_smoothing=train.label_smoothing)
        self.precision = checked(precision, self.device)
        if graphs and self.device.type != "cuda":
            raise UserError(f"`graphs` needs an NVIDIA GPU, but the device is {self.device}. Leave it off.", of="run")
        self.budget = None if budget is None else budget.to(self.device)
        self.watch, self.draws = watch, draws
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.data = data.to(self.device)
        with seeded(seed, "weights"):
            self.supernet = Supernet(self.space, execution, recompute=recompute).to(self.device, self.dtype)
        self.method = method.to(self.device, self.dtype)
        self.feed = Feed(self.data, self.plan, train, seed, self.dtype)
        self.epoch, self.step, self.stage = 0, 0, 0
        record = graphs and not recompute and self.plan.coupling != "unrolled"
        self.loss = SupernetLoss(self.supernet, self.objective, self.feed, self.precision, record=record)
        self.updater = Updater(
            self.supernet,
            self.method,
            self.loss,
            train,
            measure=self._measure,
            cost_penalty=None if self.budget is None else partial(self.budget.penalty, strength=strength),
            backward=self.loss.backward,
            replay=record,
        )
        self.tally = Tally()
        self.judged: list[Judgement] = []

    # ------------------------------------------------------------------ the loop

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[SearchRecord]:
        """Train to the end and yield a record per epoch.

        ``after_step`` is called after each step, when ``state_dict`` is complete; what it raises ends the run.
        On the CPU the process keeps the memory that it has once used (:func:`gapless.engine.memory.keep_memory`).
        """
        if self.device.type == "cpu":
            keep_memory()
        while self.epoch < self.train.epochs:
            yield self.run_epoch(after_step)

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> SearchRecord:
        """Train one epoch, or what is left of it."""
        now, parts = self._begin_epoch()
        steps, tally = now.steps, self.tally
        started = time.perf_counter() - tally.seconds - compile_seconds()

        def end_step() -> None:
            tally.seconds = time.perf_counter() - started - compile_seconds()
            if after_step is not None:
                after_step()

        self.supernet.train()
        with own_random_numbers(self.device), arithmetic(self.device, self.precision):
            for part in parts[tally.batches :]:
                done = (self.epoch + tally.batches / steps) / self.train.epochs
                now = replace(now, step=self.step, done=done)
                reseed(self.device, self.seed, "step", self.step)  # for a model's own dropout
                lr = learning_rate(self.train, self.plan, now)
                arch_due = self.arch_due(now)
                arch_batch = self._arch_batch(now) if arch_due and self.plan.coupling != "joint" else None
                batch = self._batch(part)
                loss, accuracy, arch_loss = self.updater.step(now, lr, batch, arch_batch, train_arch=arch_due)
                self.step += 1
                tally.add(sum(map(len, part)), lr, loss, accuracy, arch_loss)
                end_step()
            now = replace(now, step=self.step, done=(self.epoch + 1 - 1 / steps) / self.train.epochs)
            while tally.updates < self.plan.arch_block and not self._warming_up(now):
                first = tally.updates * self.method.passes(now.at("arch"))
                reseed(self.device, self.seed, "block", self.step, first)
                arch_batch = self._arch_batch(now)
                tally.arch_losses.append(self.updater.arch_step(now, tally.lr, None, arch_batch, first=first))
                tally.updates += 1
                end_step()
        with arithmetic(self.device, self.precision):
            return self._end_epoch(replace(now, done=(self.epoch + (steps - 1) / steps) / self.train.epochs))

    def _begin_epoch(self) -> tuple[Progress, list[list[Tensor]]]:
        """Enter the stage of the epoch; return (the moment at its start, the image numbers of its updates)."""
        stage, stage_epoch = locate(self.plan, self.train.epochs, self.epoch)
        if stage > self.stage:
            self.enter(stage)
        if self.feed.order is None and any(s.classes < 1 for s in self.plan.stages):
            self.feed.order = easiest_first(self.space, self.feed, self.train, self.seed, self.device)
        now = Progress(
            self.epoch,
            self.train.epochs,
            self.step,
            done=self.epoch / self.train.epochs,
            stage=stage,
            stage_epoch=stage_epoch,
            seed=self.seed,
        )
        parts = self._parts(now)
        now = replace(now, steps=len(parts))
        if not self.tally.batches:
            with torch.no_grad():
                self.method.begin(now)
        return now, parts

    def _end_epoch(self, now: Progress) -> SearchRecord:
        """Measure what the epoch did, and go on to the next one."""
        started, tally = time.perf_counter(), self.tally
        train_loss, train_accuracy, arch_loss = tally.means()
        if not math.isfinite(train_loss):
            raise UserError(
                f"The training loss is {train_loss} in epoch {self.epoch + 1}. Try a smaller `lr` or `clip`.",
                of=self.train.of,
            )
        valid_loss, valid_accuracy = self.validate(now)
        probe = Probe(self.supernet, self.method, self.feed, self.objective, self.stage)
        diagnostics = probe.measure(now) if self.watch else None
        generator = stream(self.seed, "draws", self.epoch, device=self.device)
        record = SearchRecord(
            epoch=self.epoch,
            stage=now.stage,
            lr=tally.lr,
            train_loss=train_loss,
            train_accuracy=100 * train_accuracy,
            arch_loss=arch_loss,
            valid_loss=valid_loss,
            valid_accuracy=None if valid_accuracy is None else 100 * valid_accuracy,
            arch=str(self.arch()),
            scores=self.method.scores().detach().cpu().double().tolist(),
            cost=self.expected_cost(),
            draws=sample_archs(self.method, self.space, generator, self.draws),
            images_per_second=tally.images / tally.seconds,
            seconds=tally.seconds + time.perf_counter() - started,
            peak_memory_mb=peak_memory_mb(self.device),
            diagnostics=diagnostics,
        )
        self.epoch += 1
        self.tally = Tally()
        return record

    def arch(self) -> Arch:
        """Return the architecture that the method's scores decode to now, within the budget if there is one."""
        scores = self.method.scores()
        return self.space.decode(scores) if self.budget is None else fit(scores, self.space, self.budget)

    def expected_cost(self) -> dict[str, float] | None:
        """Return the expected cost for each unit that is bounded."""
        if self.budget is None:
            return None
        with torch.no_grad():
            return {str(unit): cost for unit, cost in self.budget.expected(self.method.probabilities()).items()}

    def arch_due(self, now: Progress) -> bool:
        """Return whether this step updates the architecture."""
        inside = self.plan.coupling != "weights_only" and not self.plan.arch_block
        return inside and not self._warming_up(now)

    def _warming_up(self, now: Progress) -> bool:
        return now.stage_epoch < self.plan.warmup(self.lengths[now.stage])

    def _parts(self, now: Progress) -> list[list[Tensor]]:
        """Return the image numbers of each update of an epoch: one batch, or one per pass."""
        parts = self.feed.epoch(self.epoch, now.stage)
        each = self.method.passes(now.at("weights")) if self.plan.batches == "own" else 1
        count = max(1, len(parts) // each)  # a remainder of fewer batches than passes is left out
        return [[parts[(i * each + turn) % len(parts)] for turn in range(each)] for i in range(count)]

    def _batch(self, part: Sequence[Tensor]) -> Batches:
        if self.plan.batches == "share":
            return self.feed.weight_batch(part[0], self.step)
        return [self.feed.weight_batch(index, self.step, turn) for turn, index in enumerate(part)]

    def _arch_batch(self, now: Progress) -> Batches:
        if self.plan.batches == "share":
            return self.feed.arch_batch(now.stage)
        return [self.feed.arch_batch(now.stage) for _ in range(self.method.passes(now.at("arch")))]

    # ------------------------------------------------------------------ stages

    def enter(self, stage: int) -> None:
        """Enter a later stage: prune, widen the supernet, carry the optimiser's state over by name."""
        wanted = self.plan.stages[stage]
        self.method.narrow(wanted)
        self.stage = self.loss.stage = stage
        if self.plan.arch_after_stage == "restart":
            self.updater.restart_arch()
        space = self.space.replace(**wanted.space)
        if space == self.space:
            return
        old, before = self.supernet, self.updater.optimiser
        with seeded(self.seed, "weights", stage):
            new, index = widen(old, space, stream(self.seed, "widen", stage))
        self.space = space
        self._use(new)
        carry(old, new, before, self.updater.optimiser, index)

    def _use(self, supernet: Supernet) -> None:
        """Train this supernet from now on, with a new optimiser."""
        self.supernet = self.loss.supernet = supernet
        self.updater.use(supernet)

    # ------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a search made from the same arguments needs to resume from here, bit for bit: tensors
        and plain types only, so that loading executes nothing."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stage": self.stage,
            "drawn": self.feed.drawn,
            "order": self.feed.order,
            "tally": self.tally.state_dict(),
            "supernet": self.supernet.state_dict(),
            "method": self.method.state_dict(),
            "optimiser": optimiser_state(self.supernet, self.updater.optimiser),
            "arch_optimiser": self.updater.arch_optimiser.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state``, whatever this search has done so far."""
        space = self.space
        for stage in self.plan.stages[: state["stage"] + 1]:
            space = space.replace(**stage.space)
        supernet = self.supernet
        if space != self.space:
            self.space = space
            supernet = Supernet(space, supernet.execution, recompute=supernet.recompute).to(self.device, self.dtype)
        supernet.load_state_dict(state["supernet"])
        self.method.load_state_dict(state["method"])
        self._use(supernet)
        load_optimiser(supernet, self.updater.optimiser, state["optimiser"])
        self.updater.arch_optimiser.load_state_dict(state["arch_optimiser"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.stage = self.loss.stage = state["stage"]
        self.feed.drawn, self.feed.order = state["drawn"], state["order"]
        self.tally = Tally.from_state(state["tally"], self.device)

    # ------------------------------------------------------------------ validation

    def validate(self, now: Progress) -> tuple[float | None, float | None]:
        """Return (loss, accuracy as a share) of the supernet on the architecture's images; None for both in epochs
        that do not measure them."""
        every = self.train.validate_every
        last = self.epoch + 1 == self.train.epochs
        if not len(self.feed.arch) or not every or ((self.epoch + 1) % every and not last):
            return None, None
        turns = self.method.passes(now.at("judge"))
        with torch.no_grad():
            mixes = [self.method.mix(now.at("judge", turn)).detach() for turn in range(turns)]
        pairs = [self.bench().measure(mix) for mix in mixes]
        loss, accuracy = (sum(values) / turns for values in zip(*pairs, strict=True))
        return loss, accuracy

    def bench(self) -> SupernetBench:
        """Return the bench that judges architectures by the supernet in its present state."""
        return SupernetBench(self.supernet, self.loss.forward, self.feed, self.plan, self.seed, self.budget, self.stage)

    def _measure(self, mix: Mix, batch: Batch) -> tuple[float, float]:
        """Return (loss, accuracy as a share) of the supernet on a batch under a mix, without a graph."""
        return self.bench().measure(mix, [batch])

    # ------------------------------------------------------------------ the answer

    def answer(self, on_judged: Callable[[Judgement], None] | None = None) -> Arch:
        """Return the answer of the search: the method's own pick if it has one that respects the budget, else what its
        scores decode to. The architectures that a pick judges are kept in ``judged``.

        ``on_judged`` is called with each of them as soon as it is judged.
        """
        if isinstance(self.method, Picks):
            bench = self.bench()
            bench.on_judged = on_judged
            arch = self.method.pick(bench)
            self.judged = bench.judged
            if bench.respects(arch):
                return arch
        return self.arch()
