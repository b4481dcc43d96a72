"""The search loop. It follows a :class:`Plan`, feeds mixes to the supernet, and cuts the graph at the mix. It knows no
method by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from gapless.core.bound import STRENGTH, Budget
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.images import Images
from gapless.core.method import Method, Rewarded, Seen
from gapless.core.mix import Active, Mix, mask_of
from gapless.core.objective import Objective, cross_entropy
from gapless.core.pick import Picks
from gapless.core.plan import Train
from gapless.core.progress import Progress, derive_seed, seeded, stream
from gapless.core.space import Space
from gapless.engine.adam import ArchAdam
from gapless.engine.bench import Judged, SupernetBench
from gapless.engine.easiness import easiest_first
from gapless.engine.feed import Batch, Feed
from gapless.engine.fit import fit
from gapless.engine.graphs import Graphs, Update, frozen
from gapless.engine.judge import still
from gapless.engine.memory import keep_memory
from gapless.engine.precision import Precision, arithmetic, checked
from gapless.engine.schedule import learning_rate, locate
from gapless.engine.sgd import decays, sgd
from gapless.engine.state import load_optimiser, optimiser_state, own_random_numbers
from gapless.engine.supernet import Execution, Supernet
from gapless.engine.tally import Tally
from gapless.engine.unrolled import hypergradient
from gapless.engine.watch import Watched, Watcher
from gapless.engine.widen import carry, widen

Batches = Batch | list[Batch]
"""A batch for all passes of an update, or one for each."""
DRAWS = 100
"""Architectures drawn from the method's distribution at the end of an epoch (the number of DrNAS's figure, arXiv
2006.10355)."""


@dataclass(frozen=True)
class Record:
    """What one epoch of a search did.

    Attributes
    ----------
    epoch, stage
        Counted from 0.
    lr
        Of the weights, at the last step of the epoch.
    train_loss, train_accuracy
        Mean over the epoch's weight passes, in training; accuracy in percent.
    arch_loss
        Mean over the architecture passes of the epoch, without penalties; None where there was none.
    valid_loss, valid_accuracy
        Of the supernet on the images that the weights do not train on, running statistics; None where there are none,
        or not measured.
    arch
        The architecture that the scores say now.
    scores
        [D][O], as the method gives them.
    cost
        Expected cost of the undecided architecture, for each unit that is bounded; None without bounds.
    draws
        Architectures drawn from the distribution that the method holds now, packed (:meth:`Space.unpack`).
    images_per_second, seconds, peak_memory_mb
        Training images a second; wall time; largest memory of the process (or of the GPU) so far.
    watched
        What was measured behind the epoch, where that was asked for.
    """

    epoch: int
    stage: int
    lr: float
    train_loss: float
    train_accuracy: float
    arch_loss: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    arch: str
    scores: list[list[float]]
    cost: dict[str, float] | None
    draws: list[str]
    images_per_second: float
    seconds: float
    peak_memory_mb: float
    watched: Watched | None = None

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types, a line of the trace: what was watched stands beside the rest."""
        found = asdict(self)
        return found | (found.pop("watched") or {})


class Search:
    """One search over a space: supernet, method, optimisers, clock.

    Parameters
    ----------
    space
        The space at the size to search with; a method's first stage may change fields.
    method
        Made for this space.
    data
        Whose training split is divided between weights and architecture; the test split is not touched.
    train
        Epochs, batch, rates.
    seed
        Of every random stream: initialisation, order of images, augmentation, mixes.
    device
        Where the supernet and the images live.
    precision
        ``bfloat16`` runs the supernet under autocast, ``tf32`` lets a GPU round factors; parameters stay float32.
    execution
        ``fused`` runs a cell at once, ``reference`` edge by edge; the numbers agree up to rounding.
    recompute
        Keep only the inputs of cells for the backward pass: less memory, more time, the same numbers.
    graphs
        Record static passes as CUDA graphs and replay them (:class:`gapless.engine.graphs.Graphs`).
    objective
        What a pass minimises; by default the cross entropy, with the label smoothing that ``train`` says.
    budget
        Bounds on what the answer may cost: what is expected beyond them is added to the architecture's loss, and every
        answer holds them.
    strength
        Weight of that penalty.
    watch
        Whether to measure behind every epoch what :class:`gapless.engine.watch.Watched` holds; no other number changes.
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
    ) -> None:
        self.plan = method.plan
        self.lengths = self.plan.stage_epochs(train.epochs)
        self.space = space.replace(**self.plan.stages[0].space)
        self.device = torch.device(device)
        self.train, self.seed = train, seed
        self.objective = objective or partial(cross_entropy, label_smoothing=train.label_smoothing)
        self.precision = checked(precision, self.device)
        if graphs and self.device.type != "cuda":
            raise UserError(f"graphs records the work of a GPU, but the device is {self.device}. Leave it off.")
        self.graphs: Graphs | None = None
        self._record = graphs and not recompute and self.plan.coupling != "unrolled"
        self.budget = None if budget is None else budget.to(self.device)
        self.strength, self.watch = strength, watch
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.data = data.to(self.device)
        with seeded(seed, "weights"):
            self.supernet = Supernet(self.space, execution, recompute=recompute).to(self.device, self.dtype)
        self.method = method.to(self.device, self.dtype)
        self.optimiser = self._sgd()
        self.arch_optimiser = ArchAdam(self.method, self.plan.arch)
        self.feed = Feed(self.data, self.plan, train, seed, self.dtype)
        self.epoch, self.step, self.stage = 0, 0, 0
        self.tally = Tally()
        self.judged: list[Judged] = []

    # ------------------------------------------------------------------ the loop

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[Record]:
        """Train to the end and yield a record per epoch.

        ``after_step`` is called after each step, where ``state_dict`` tells everything; what it raises ends the run.
        On the CPU the process keeps the memory that it has once used (:func:`gapless.engine.memory.keep_memory`).
        """
        if self.device.type == "cpu":
            keep_memory()
        while self.epoch < self.train.epochs:
            yield self.run_epoch(after_step)

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> Record:
        """Train one epoch, or what is left of it."""
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
        steps, tally = len(parts), self.tally
        now = replace(now, steps=steps)
        if not tally.batches:
            with torch.no_grad():
                self.method.begin(now)
        begun = time.perf_counter() - tally.seconds

        def over() -> None:
            tally.seconds = time.perf_counter() - begun
            if after_step is not None:
                after_step()

        self.supernet.train()
        with own_random_numbers(self.device), arithmetic(self.device, self.precision):
            for part in parts[tally.batches :]:
                done = (self.epoch + tally.batches / steps) / self.train.epochs
                now = replace(now, step=self.step, done=done)
                torch.manual_seed(derive_seed(self.seed, "step", self.step))  # for a model's own dropout
                lr = learning_rate(self.train, self.plan, now)
                arch_due = self.arch_due(now)
                arch_batch = self._arch_batch(now) if arch_due and self.plan.coupling != "joint" else None
                batch = self._batch(part)
                loss, accuracy, arch_loss = self.update(now, lr, batch, arch_batch, train_arch=arch_due)
                self.step += 1
                tally.add(sum(map(len, part)), lr, loss, accuracy, arch_loss)
                over()
            now = replace(now, step=self.step, done=(self.epoch + 1 - 1 / steps) / self.train.epochs)
            while tally.updates < self.plan.arch_block and not self._warming(now):
                first = tally.updates * self.method.passes(now.at("arch"))
                torch.manual_seed(derive_seed(self.seed, "block", self.step, first))
                tally.arch_losses.append(self._arch_step(now, tally.lr, None, self._arch_batch(now), first=first))
                tally.updates += 1
                over()
        with arithmetic(self.device, self.precision):
            return self._end_epoch(stage, stage_epoch, steps)

    def _end_epoch(self, stage: int, stage_epoch: int, steps: int) -> Record:
        begun, tally = time.perf_counter(), self.tally
        train_loss, train_accuracy, arch_loss = tally.means()
        if not math.isfinite(train_loss):
            raise UserError(
                f"The training loss is {train_loss} in epoch {self.epoch + 1}. "
                "Try a smaller --train.lr or --train.clip."
            )
        done = (self.epoch + (steps - 1) / steps) / self.train.epochs
        now = Progress(self.epoch, self.train.epochs, self.step, steps, done, stage, stage_epoch, seed=self.seed)
        valid_loss, valid_accuracy = self.validate(now)
        watcher = Watcher(self.supernet, self.method, self.feed, self.objective, self.stage)
        watched = watcher.watch(now) if self.watch else None
        record = Record(
            epoch=self.epoch,
            stage=stage,
            lr=tally.lr,
            train_loss=train_loss,
            train_accuracy=100 * train_accuracy,
            arch_loss=arch_loss,
            valid_loss=valid_loss,
            valid_accuracy=None if valid_accuracy is None else 100 * valid_accuracy,
            arch=str(self.arch()),
            scores=self.method.scores().detach().cpu().double().tolist(),
            cost=self.expected_cost(),
            draws=self.draws(),
            images_per_second=tally.images / tally.seconds,
            seconds=tally.seconds + time.perf_counter() - begun,
            peak_memory_mb=peak_memory_mb(self.device),
            watched=watched,
        )
        self.epoch += 1
        self.tally = Tally()
        return record

    def draws(self) -> list[str]:
        """Return architectures drawn from the method's present distribution, packed."""
        generator = stream(self.seed, "draws", self.epoch, device=self.device)
        with torch.no_grad():
            scores = torch.stack([self.method.sample_scores(generator) for _ in range(DRAWS)]).cpu()
        return [self.space.pack(self.space.decode(s)) for s in scores]

    def arch(self) -> Arch:
        """Return the architecture that the method's scores say now, within the budget where there is one."""
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
        if self.plan.coupling == "weights_only" or self.plan.arch_block or self._warming(now):
            return False
        return now.step % self.plan.arch_every == 0

    def _warming(self, now: Progress) -> bool:
        return now.stage_epoch < self.plan.warmup(self.lengths[now.stage])

    def _parts(self, now: Progress) -> list[list[Tensor]]:
        """Return the image numbers of each update of an epoch: of one batch, or of one for each of its passes."""
        parts = self.feed.epoch(self.epoch, now.stage)
        each = self.method.passes(now.at("weights")) if self.plan.batches == "own" else 1
        count = max(1, len(parts) // each)  # what is left over is too little for an update
        return [[parts[(i * each + turn) % len(parts)] for turn in range(each)] for i in range(count)]

    def _batch(self, part: Sequence[Tensor]) -> Batches:
        if self.plan.batches == "share":
            return self.feed.weight_batch(part[0], self.step)
        return [self.feed.weight_batch(index, self.step, turn) for turn, index in enumerate(part)]

    def _arch_batch(self, now: Progress) -> Batches:
        if self.plan.batches == "share":
            return self.feed.arch_batch(now.stage)
        return [self.feed.arch_batch(now.stage) for _ in range(self.method.passes(now.at("arch")))]

    # ------------------------------------------------------------------ one step

    def update(
        self, now: Progress, lr: float, batch: Batches, arch_batch: Batches | None, *, train_arch: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take one step and return (training loss, its accuracy as a share, architecture loss), detached on the device.

        Parameters
        ----------
        now
            The moment; its phase is set here.
        lr
            Of the weights.
        batch, arch_batch
            Images and labels, or a list of such with one for each pass; the second is not used when both are trained
            jointly.
        train_arch
            Whether the architecture moves in this step.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if self.plan.coupling == "joint":
            loss, accuracy = self._weight_step(now, batch, train_arch=train_arch)
            return loss, accuracy, loss if train_arch else None
        arch_loss = None
        mix = self.method.mix(now.at("weights")) if self.plan.same_mix else None
        if train_arch and self.plan.order == "arch_first":
            arch_loss = self._arch_step(now, lr, batch, arch_batch, mix)
        loss, accuracy = self._weight_step(now, batch, mix=mix)
        if train_arch and self.plan.order == "weights_first":
            arch_loss = self._arch_step(now, lr, batch, arch_batch, mix)
        return loss, accuracy, arch_loss

    def _arch_step(
        self,
        now: Progress,
        lr: float,
        batch: Batches | None,
        arch_batch: Batches | None,
        mix: Mix | None = None,
        first: int = 0,
    ) -> Tensor:
        """Update the architecture, and return the mean loss of the passes; their turns are counted from ``first``."""
        assert arch_batch is not None
        now = now.at("arch", first)
        self.method.zero_grad()
        losses: list[Tensor] = []
        actives: list[Active | None] = []
        for turn in range(self.method.passes(now)):
            current = mix or self.method.mix(now.at("arch", first + turn))
            loss, accuracy, gradient = self._arch_pass(current, lr, batch, nth(arch_batch, turn))
            losses.append(loss)
            actives.append(current.active)
        self._penalise(now)
        self._move_arch(now, current, actives, loss, accuracy, gradient)
        return torch.stack(losses).mean()

    def _arch_pass(
        self, mix: Mix, lr: float, batch: Batches | None, arch_batch: Batch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Add the gradient of a pass to the method's parameters; return loss, accuracy, what arrived at the mix."""
        if isinstance(self.method, Rewarded):
            found = self.bench().measure(mix.detach(), [arch_batch])
            loss, accuracy = (torch.tensor(value, dtype=self.dtype, device=self.device) for value in found)
            self.method.regret(mix, loss, accuracy).backward()
            return loss, accuracy, {}
        leaves = mix.to(dtype=self.dtype, device=self.device).leaves()
        with nullcontext() if self.plan.arch_bn else still(self.supernet):
            loss, accuracy = self._arch_gradient(leaves, lr, batch, arch_batch)
        gradient = leaves.gradient()
        mix.backward(gradient)
        return loss, accuracy, gradient

    def _penalise(self, now: Progress) -> None:
        """Add the gradient of the method's own penalty and of the budget's to the method's parameters."""
        penalty = self.method.penalty(now)
        if penalty is not None:
            penalty.backward()
        if self.budget is not None:
            self.budget.penalty(self.method.probabilities(), self.strength).backward()

    def _arch_gradient(self, leaves: Mix, lr: float, batch: Batches | None, arch_batch: Batch) -> tuple[Tensor, Tensor]:
        tensors = [t for t in (leaves.weight, leaves.gain, leaves.offset) if t is not None]
        if self.plan.coupling == "unrolled":
            assert batch is not None
            weights = self.weights
            accuracies: list[Tensor] = []

            def valid() -> Tensor:  # at the virtual weights, which are nobody's: their statistics are not kept
                with still(self.supernet):
                    loss, accuracy = self.loss(arch_batch, leaves)
                accuracies.append(accuracy)
                return loss

            found, loss = hypergradient(
                weights, tensors, lambda: self.loss(nth(batch, 0), leaves)[0], valid, xi=lr, drift=self._drift
            )
            accuracy = accuracies[0]
        else:
            with frozen(self.weights):
                loss, accuracy = self.loss(arch_batch, leaves)
                # a drawn architecture may cut the way from an edge to the output by "none"
                found = list(torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True))
        for tensor, g in zip(tensors, found, strict=True):
            tensor.grad = g
        return loss.detach(), accuracy

    def _drift(self) -> list[Tensor]:
        """Return what the released DARTS adds to the gradient of the virtual step: momentum and weight decay."""
        if self.plan.virtual == "plain":
            return [torch.zeros_like(p) for p in self.supernet.parameters()]
        found = []
        for p in self.supernet.parameters():
            buffer = self.optimiser.state.get(p, {}).get("momentum_buffer")
            decay = self.train.weight_decay * p.detach() if decays(p, self.train) else torch.zeros_like(p)
            found.append(decay if buffer is None else decay + self.train.momentum * buffer)
        return found

    def _weight_step(
        self, now: Progress, batch: Batches, *, mix: Mix | None = None, train_arch: bool = False
    ) -> tuple[Tensor, Tensor]:
        now = now.at("weights")
        joint = train_arch and self.plan.coupling == "joint"
        wants_arch = joint or self.plan.clip_over == "weights+arch"
        self.optimiser.zero_grad(set_to_none=True)
        self.method.zero_grad()
        losses: list[Tensor] = []
        rights: list[Tensor] = []
        actives: list[Active | None] = []
        for turn in range(self.method.passes(now)):
            current = mix or self.method.mix(now.at("weights", turn))
            placed = current.to(dtype=self.dtype, device=self.device)
            placed = placed.leaves() if wants_arch else placed.detach()
            loss, accuracy = self.loss(nth(batch, turn), placed)
            loss.backward()
            if self.graphs is not None:
                self.graphs.rest()
            if wants_arch:
                current.backward(placed.gradient())
            losses.append(loss.detach())
            rights.append(accuracy)
            actives.append(current.active)
        ran = [p for p in self.weights if p.grad is not None]
        if self.plan.gradients == "mean":
            for p in ran:
                p.grad.div_(len(losses))  # type: ignore[union-attr]
        others = (
            [p for p in self.method.parameters() if p.grad is not None] if self.plan.clip_over == "weights+arch" else []
        )
        if self._record and self._replayed is not None and not others:
            self._replayed()
        else:
            self._clip([*ran, *others])
            self._move_weights(ran)
        if joint:
            self._penalise(now)
            self._move_arch(now, current, actives, loss.detach(), accuracy, placed.gradient(), ran)
        elif self.plan.decay_step == "separate":
            self._decay_weights(ran)
        return torch.stack(losses).mean(), torch.stack(rights).mean()

    def loss(self, batch: Batch, mix: Mix) -> tuple[Tensor, Tensor]:
        """Return (the objective, accuracy as a share, detached) of a batch under a mix, in training mode."""
        images, labels = batch

        def run(images: Tensor, mix: Mix) -> Tensor:
            return self.feed.seen(self.forward(images, mix), self.stage)

        labels = self.feed.named(labels, self.stage)
        loss, logits = self.objective(run, images, labels, mix)
        return loss, (logits.detach().argmax(dim=1) == labels).to(self.dtype).mean()

    def forward(self, images: Tensor, mix: Mix) -> Tensor:
        """Run the supernet in the precision of the search; logits are at least float32."""
        if self._record and (self.graphs is None or self.graphs.network is not self.supernet):
            self.graphs = Graphs(self.supernet, self.supernet)
        run = self.graphs or self.supernet
        if self.precision != "bfloat16":
            return run(images, mix)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self._record):
            logits: Tensor = run(images, mix)
        return logits.float()

    # ------------------------------------------------------------------ the optimisers

    def _sgd(self) -> torch.optim.SGD:
        plain = self.plan.decay_step == "separate" or (self.plan.inactive == "coast" and self.plan.decay_on == "ran")
        self.weights = list(self.supernet.parameters())
        optimiser = sgd(self.weights, self.train, decay=0.0 if plain else None)
        static = self.plan.inactive == "skip" and self.dtype == torch.float32
        self._replayed = Update(optimiser, self._move) if static else None
        return optimiser

    def _move(self) -> None:
        """Clip the gradients of the weights that have one, and move them."""
        ran = [p for p in self.weights if p.grad is not None]
        self._clip(ran)
        self._move_weights(ran)

    def _clip(self, parameters: Sequence[Tensor]) -> None:
        if self.train.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.train.clip)

    def _move_weights(self, ran: Sequence[Tensor]) -> None:
        if self.plan.inactive == "coast":
            if self.plan.decay_on == "ran" and self.plan.decay_step == "coupled":
                for p in (p for p in ran if decays(p, self.train)):
                    p.grad = p.grad.add(p.detach(), alpha=self.train.weight_decay)  # type: ignore[union-attr]
            for p in self.weights:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
        self.optimiser.step()

    def _decay_weights(self, ran: Sequence[Tensor]) -> None:
        """Take the second step of ``decay_step="separate"``: the gradient of ``decay * |w|^2`` over what ran."""
        self.optimiser.zero_grad(set_to_none=True)
        for p in (p for p in ran if decays(p, self.train)):
            p.grad = 2 * self.train.weight_decay * p.detach()
        self._clip(ran)
        self._move_weights(ran)

    def _move_arch(
        self,
        now: Progress,
        mix: Mix,
        actives: Sequence[Active | None],
        loss: Tensor,
        accuracy: Tensor,
        gradient: Mapping[str, Tensor],
        weights: Sequence[Tensor] | None = None,
    ) -> None:
        """Update the method's parameters from their gradients, then let the method settle.

        ``mix``, ``loss``, ``accuracy`` and ``gradient`` are those of the last pass, ``actives`` those of all passes.
        ``weights`` are those that ran, where this step trains them jointly: a separate decay step takes them along.
        """
        plan, method = self.plan, self.method
        if plan.arch_clip is not None:
            torch.nn.utils.clip_grad_norm_(method.parameters(), plan.arch_clip)
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        ran = self._ran(actives, found)
        mask = ran if plan.inactive == "skip" and plan.arch_moves == "ran" else None

        def decay(strength: float) -> dict[str, Tensor]:
            values = {name: p.detach() for name, p in method.named_parameters() if name in found}
            return {name: strength * (v * ran[name] if name in ran else v) for name, v in values.items()}

        if plan.decay_step == "separate":
            self.arch_optimiser.step(found, mask=mask, decay=0.0)
            if weights is not None:
                self._decay_weights(weights)
            self.arch_optimiser.step(decay(2 * plan.arch.decay), mask=mask, decay=0.0)
        elif plan.inactive == "coast" and plan.decay_on == "ran":
            pull = decay(plan.arch.decay)
            self.arch_optimiser.step({name: g + pull[name] for name, g in found.items()}, decay=0.0)
        else:
            self.arch_optimiser.step(found, mask=mask)
        method.zero_grad()
        with torch.no_grad():
            method.settle(Seen(now, mix.detach(), loss, accuracy, gradient, before))

    def _ran(self, actives: Sequence[Active | None], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mask of the options that ran in any pass, for each parameter that has an entry per option."""
        if None in actives:
            return {}
        mask = _any_of(tuple(active for active in actives if active is not None), self.space.columns, self.device)
        return {name: mask for name, g in found.items() if tuple(g.shape) == self.space.shape}

    # ------------------------------------------------------------------ stages

    def enter(self, stage: int) -> None:
        """Begin a later stage: prune, widen, carry the optimiser's state by name."""
        wanted = self.plan.stages[stage]
        self.method.narrow(wanted)
        self.stage = stage
        if self.plan.arch_after_stage == "restart":
            self.arch_optimiser = ArchAdam(self.method, self.plan.arch)
        space = self.space.replace(**wanted.space)
        if space == self.space:
            return
        old, before = self.supernet, self.optimiser
        with seeded(self.seed, "weights", stage):
            self.supernet, index = widen(old, space, stream(self.seed, "widen", stage))
        self.space = space
        self.optimiser = self._sgd()
        carry(old, self.supernet, before, self.optimiser, index)

    # ------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a search made from the same arguments needs to go on from here, bit for bit: tensors
        and plain types, nothing that a loader would have to execute."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stage": self.stage,
            "drawn": self.feed.drawn,
            "order": self.feed.order,
            "tally": self.tally.state_dict(),
            "supernet": self.supernet.state_dict(),
            "method": self.method.state_dict(),
            "optimiser": optimiser_state(self.supernet, self.optimiser),
            "arch_optimiser": self.arch_optimiser.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, whatever this search has done so far."""
        space = self.space
        for stage in self.plan.stages[: state["stage"] + 1]:
            space = space.replace(**stage.space)
        if space != self.space:
            self.space = space
            old = self.supernet
            self.supernet = Supernet(space, old.execution, recompute=old.recompute).to(self.device, self.dtype)
        self.supernet.load_state_dict(state["supernet"])
        self.method.load_state_dict(state["method"])
        self.optimiser = self._sgd()
        load_optimiser(self.supernet, self.optimiser, state["optimiser"])
        self.arch_optimiser.load_state_dict(state["arch_optimiser"])
        self.epoch, self.step, self.stage = state["epoch"], state["step"], state["stage"]
        self.feed.drawn, self.feed.order = state["drawn"], state["order"]
        self.tally = Tally.from_state(state["tally"], self.device)

    # ------------------------------------------------------------------ judging

    def validate(self, now: Progress) -> tuple[float | None, float | None]:
        """Return (loss, accuracy as a share) of the supernet on the architecture's images, where it is time to measure
        them."""
        every = self.train.validate_every
        last = self.epoch + 1 == self.train.epochs
        if not len(self.feed.arch) or not every or ((self.epoch + 1) % every and not last):
            return None, None
        turns = self.method.passes(now.at("judge"))
        with torch.no_grad():
            mixes = [self.method.mix(now.at("judge", turn)).detach() for turn in range(turns)]
        found = [self.bench().measure(mix) for mix in mixes]
        loss, accuracy = (sum(values) / turns for values in zip(*found, strict=True))
        return loss, accuracy

    def bench(self) -> SupernetBench:
        """Return the supernet as a judge."""
        return SupernetBench(self.supernet, self.forward, self.feed, self.plan, self.seed, self.budget, self.stage)

    # ------------------------------------------------------------------ the answer

    def answer(self, told: Callable[[Judged], None] | None = None) -> Arch:
        """Return the answer of the search: the method's own pick where it has one within the budget, else what its
        scores say. What a pick judges by the way stays in ``judged``, and ``told`` is called with each."""
        if isinstance(self.method, Picks):
            bench = self.bench()
            bench.told = told
            arch = self.method.pick(bench)
            self.judged = bench.judged
            if bench.respects(arch):
                return arch
        return self.arch()


@lru_cache(maxsize=256)
def _any_of(actives: tuple[Active, ...], columns: int, device: torch.device) -> Tensor:
    """Return [D, O] bool: what any of the masks lists."""
    return torch.stack([mask_of(active, columns) for active in actives]).any(dim=0).to(device)


def nth(batches: Batches, turn: int) -> Batch:
    """Return the batch of a pass: the one of all passes, or its own."""
    return batches[turn] if isinstance(batches, list) else batches


def peak_memory_mb(device: torch.device) -> float:
    """Return the largest memory so far in MiB: allocated on a GPU, or resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
