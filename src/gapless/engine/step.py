"""One step of a search: an update of the weights, of the architecture, or of both.

The graph is cut at the mix: the network runs on leaves, and the gradient that they receive is passed on to the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from gapless.core.method import Method, Rewarded, Seen
from gapless.core.mix import Active, Mix, mask_of
from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress
from gapless.engine.adam import ArchAdam
from gapless.engine.feed import Batch
from gapless.engine.graphs import Update, frozen
from gapless.engine.judge import still
from gapless.engine.sgd import SGD, decays, sgd
from gapless.engine.unrolled import hypergradient

Batches = Batch | list[Batch]
"""One batch for all passes of an update, or a list with one batch per pass."""
Loss = Callable[[Batch, Mix], tuple[Tensor, Tensor]]
"""Maps a batch and a mix to (loss with its graph, accuracy as a share)."""


@dataclass(frozen=True, eq=False)
class PassResult:
    """One forward and backward pass.

    Attributes
    ----------
    mix
        The mix, with its graph to the method's parameters.
    loss, accuracy
        Loss and accuracy of the batch, detached; accuracy as a share.
    gradient
        The gradient at the mix, by field name; empty where none was computed.
    """

    mix: Mix
    loss: Tensor
    accuracy: Tensor
    gradient: Mapping[str, Tensor]


@dataclass(eq=False)
class Updater:
    """Updates the weights of a network and the parameters of a method, as the method's plan says.

    Parameters
    ----------
    network
        The module whose parameters are the weights.
    method
        The method whose parameters are the architecture.
    loss
        Loss of the network on a batch under a mix.
    train
        Settings of SGD on the weights, and the bound on their gradient.
    measure
        Maps a mix and a batch to (loss, accuracy as a share) without a graph; needed for methods that learn from
        rewards.
    cost_penalty
        Maps the method's probabilities [D, O] to a scalar that is added to the architecture's loss.
    backward
        Runs the backward pass of a loss for the weights.
    replay
        Replay the SGD step as a CUDA graph wherever it is the same work every time.

    Attributes
    ----------
    plan
        The method's plan.
    weights
        Parameters of the network.
    optimiser
        SGD on the weights.
    arch_optimiser
        Adam on the method's parameters.
    """

    network: nn.Module
    method: Method
    loss: Loss
    train: Train
    measure: Callable[[Mix, Batch], tuple[float, float]] | None = None
    cost_penalty: Callable[[Tensor], Tensor] | None = None
    backward: Callable[[Tensor], None] = Tensor.backward
    replay: bool = False
    plan: Plan = field(init=False)
    weights: list[nn.Parameter] = field(init=False)
    optimiser: SGD = field(init=False)
    arch_optimiser: ArchAdam = field(init=False)
    _replayed: Update | None = field(init=False)

    def __post_init__(self) -> None:
        self.plan = self.method.plan
        self.use(self.network)
        self.restart_arch()

    def use(self, network: nn.Module) -> None:
        """Train another network from now on, with a new SGD optimiser."""
        separate = self.plan.released.decay_step == "separate"
        plain = separate or (self.plan.inactive == "coast" and self.plan.decay_on == "ran")
        self.network, self.weights = network, list(network.parameters())
        self.optimiser = sgd(self.weights, self.train, decay=0.0 if plain else None)
        static = self.plan.inactive == "skip" and self.weights[0].dtype == torch.float32
        self._replayed = Update(self.optimiser, self._move) if static else None

    def restart_arch(self) -> None:
        """Give the architecture a new Adam optimiser, with all moments at zero."""
        self.arch_optimiser = ArchAdam(self.method, self.plan.arch)

    # ------------------------------------------------------------------ updates

    def step(
        self, now: Progress, lr: float, batch: Batches, arch_batch: Batches | None, *, train_arch: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Update the weights, and the architecture if ``train_arch``.

        Return (training loss, training accuracy as a share, architecture loss), detached on the device.

        Parameters
        ----------
        now
            The moment; its phase is set here.
        lr
            Learning rate of the weights.
        batch
            Images and labels for the weights.
        arch_batch
            Images and labels for the architecture; not used when both are trained jointly.
        train_arch
            Whether this step updates the architecture.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if self.plan.coupling == "joint":
            loss, accuracy = self.weight_step(now, batch, train_arch=train_arch)
            return loss, accuracy, loss if train_arch else None
        arch_loss = None
        if train_arch and self.plan.order == "arch_first":
            arch_loss = self.arch_step(now, lr, batch, arch_batch)
        loss, accuracy = self.weight_step(now, batch)
        if train_arch and self.plan.order == "weights_first":
            arch_loss = self.arch_step(now, lr, batch, arch_batch)
        return loss, accuracy, arch_loss

    def arch_step(
        self, now: Progress, lr: float, batch: Batches | None, arch_batch: Batches | None, first: int = 0
    ) -> Tensor:
        """Update the architecture on its own batch, and return the mean loss of the passes.

        Parameters
        ----------
        now
            The moment; its phase is set here.
        lr
            Learning rate of the virtual weight step, with ``coupling="unrolled"``.
        batch
            Images and labels of the virtual weight step.
        arch_batch
            Images and labels for the architecture.
        first
            Turn of the first pass.
        """
        assert arch_batch is not None
        now = now.at("arch", first)
        self.method.zero_grad()
        passes: list[PassResult] = []
        for turn in range(self.method.passes(now)):
            mix = self.method.mix(now.at("arch", first + turn))
            passes.append(self._arch_pass(mix, lr, batch, nth(arch_batch, turn)))
        self._penalise(now)
        self._move_arch(now, passes)
        return torch.stack([p.loss for p in passes]).mean()

    def weight_step(self, now: Progress, batch: Batches, *, train_arch: bool = False) -> tuple[Tensor, Tensor]:
        """Update the weights, and with ``coupling="joint"`` the architecture from the same passes.

        Return the means of (loss, accuracy as a share) over the passes.

        Parameters
        ----------
        now
            The moment; its phase is set here.
        batch
            Images and labels for the weights.
        train_arch
            Whether a joint step updates the architecture.
        """
        now = now.at("weights")
        joint = train_arch and self.plan.coupling == "joint"
        both = self.plan.released.clip_over == "weights+arch"
        wants_arch = joint or both
        self.optimiser.zero_grad(set_to_none=True)
        self.method.zero_grad()
        passes: list[PassResult] = []
        for turn in range(self.method.passes(now)):
            mix = self.method.mix(now.at("weights", turn))
            passes.append(self._weight_pass(mix, nth(batch, turn), wants_arch=wants_arch))
        ran = [p for p in self.weights if p.grad is not None]
        if self.plan.gradients == "mean":
            for p in ran:
                p.grad.div_(len(passes))  # type: ignore[union-attr]
        others = [p for p in self.method.parameters() if p.grad is not None] if both else []
        if self.replay and self._replayed is not None and not others:
            self._replayed()
        else:
            self._clip([*ran, *others])
            self._move_weights(ran)
        if joint:
            self._penalise(now)
            self._move_arch(now, passes, ran)
        elif self.plan.released.decay_step == "separate":
            self._decay_weights(ran)
        return torch.stack([p.loss for p in passes]).mean(), torch.stack([p.accuracy for p in passes]).mean()

    # ------------------------------------------------------------------ gradients

    def _weight_pass(self, mix: Mix, batch: Batch, *, wants_arch: bool) -> PassResult:
        """Add the gradient of a pass to the weights, and if ``wants_arch`` to the method's parameters."""
        placed = self._placed(mix)
        placed = placed.leaves() if wants_arch else placed.detach()
        loss, accuracy = self.loss(batch, placed)
        self.backward(loss)
        gradient = placed.gradient() if wants_arch else {}
        mix.backward(gradient)
        return PassResult(mix, loss.detach(), accuracy, gradient)

    def _arch_pass(self, mix: Mix, lr: float, batch: Batches | None, arch_batch: Batch) -> PassResult:
        """Add the gradient of a pass to the method's parameters."""
        if isinstance(self.method, Rewarded):
            assert self.measure is not None
            like = self.weights[0]
            loss, accuracy = (like.new_tensor(value) for value in self.measure(mix.detach(), arch_batch))
            self.method.regret(mix, loss, accuracy).backward()
            return PassResult(mix, loss, accuracy, {})
        leaves = self._placed(mix).leaves()
        loss, accuracy = self._arch_gradient(leaves, lr, batch, arch_batch)
        gradient = leaves.gradient()
        mix.backward(gradient)
        return PassResult(mix, loss, accuracy, gradient)

    def _arch_gradient(self, leaves: Mix, lr: float, batch: Batches | None, arch_batch: Batch) -> tuple[Tensor, Tensor]:
        """Set the gradients of the leaves; return (loss, accuracy)."""
        tensors = [t for t in (leaves.weight, leaves.gain, leaves.offset) if t is not None]
        if self.plan.coupling == "unrolled":
            assert batch is not None
            accuracies: list[Tensor] = []

            def valid() -> Tensor:  # running statistics at the virtual weights are not kept
                with still(self.network):
                    loss, accuracy = self.loss(arch_batch, leaves)
                accuracies.append(accuracy)
                return loss

            gradients, loss = hypergradient(
                self.weights, tensors, lambda: self.loss(nth(batch, 0), leaves)[0], valid, xi=lr, drift=self._drift
            )
            accuracy = accuracies[0]
        else:
            with frozen(self.weights):
                loss, accuracy = self.loss(arch_batch, leaves)
                # a sampled architecture may cut an edge off from the output by "none"
                gradients = list(torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True))
        for tensor, g in zip(tensors, gradients, strict=True):
            tensor.grad = g
        return loss.detach(), accuracy

    def _drift(self) -> list[Tensor]:
        """Return what the released DARTS adds to the gradient of the virtual step: momentum and weight decay."""
        if self.plan.released.virtual == "plain":
            return [torch.zeros_like(p) for p in self.weights]
        drift = []
        for p in self.weights:
            buffer = self.optimiser.state.get(p, {}).get("momentum_buffer")
            decay = self.train.weight_decay * p.detach() if decays(p, self.train) else torch.zeros_like(p)
            drift.append(decay if buffer is None else decay + self.train.momentum * buffer)
        return drift

    def _penalise(self, now: Progress) -> None:
        """Add the gradients of the method's own penalty and of ``cost_penalty`` to the method's parameters."""
        penalty = self.method.penalty(now)
        if penalty is not None:
            penalty.backward()
        if self.cost_penalty is not None:
            self.cost_penalty(self.method.probabilities()).backward()

    def _placed(self, mix: Mix) -> Mix:
        """Return the mix on the device and in the type of the weights."""
        return mix.to(dtype=self.weights[0].dtype, device=self.weights[0].device)

    # ------------------------------------------------------------------ moving the weights

    def _move(self) -> None:
        """Clip the gradients of the weights that have one, and move these weights."""
        ran = [p for p in self.weights if p.grad is not None]
        self._clip(ran)
        self._move_weights(ran)

    def _clip(self, parameters: Sequence[Tensor]) -> None:
        if self.train.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.train.clip)

    def _move_weights(self, ran: Sequence[Tensor]) -> None:
        """Take the SGD step; with ``inactive="coast"`` the weights that did not run have a gradient of zero."""
        if self.plan.inactive == "coast":
            if self.plan.decay_on == "ran" and self.plan.released.decay_step == "coupled":
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

    # ------------------------------------------------------------------ moving the architecture

    def _move_arch(self, now: Progress, passes: Sequence[PassResult], weights: Sequence[Tensor] | None = None) -> None:
        """Update the method's parameters from their gradients, then call the method's ``settle`` with the last pass.

        ``weights`` are those that ran where this step trains them jointly: a separate decay step includes them.
        """
        plan, method = self.plan, self.method
        if plan.arch_clip is not None:
            torch.nn.utils.clip_grad_norm_(method.parameters(), plan.arch_clip)
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        ran = self._ran([p.mix.active for p in passes], gradients)
        mask = ran if plan.inactive == "skip" and plan.arch_moves == "ran" else None

        def decay(strength: float) -> dict[str, Tensor]:
            values = {name: p.detach() for name, p in method.named_parameters() if name in gradients}
            return {name: strength * (v * ran[name] if name in ran else v) for name, v in values.items()}

        if plan.released.decay_step == "separate":
            self.arch_optimiser.step(gradients, mask=mask, decay=0.0)
            if weights is not None:
                self._decay_weights(weights)
            self.arch_optimiser.step(decay(2 * plan.arch.decay), mask=mask, decay=0.0)
        elif plan.inactive == "coast" and plan.decay_on == "ran":
            pull = decay(plan.arch.decay)
            self.arch_optimiser.step({name: g + pull[name] for name, g in gradients.items()}, decay=0.0)
        else:
            self.arch_optimiser.step(gradients, mask=mask)
        method.zero_grad()
        last = passes[-1]
        with torch.no_grad():
            method.settle(Seen(now, last.mix.detach(), last.loss, last.accuracy, last.gradient, before))

    def _ran(self, actives: Sequence[Active | None], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return name -> mask [D, O] of the options that ran in any pass, for parameters with an entry per option;
        empty where a pass ran every option."""
        if None in actives:
            return {}
        shape = self.method.alive.shape
        mask = _any_of(tuple(active for active in actives if active is not None), shape[1], self.weights[0].device)
        return {name: mask for name, g in gradients.items() if g.shape == shape}


@lru_cache(maxsize=256)
def _any_of(actives: tuple[Active, ...], columns: int, device: torch.device) -> Tensor:
    """Return [D, O] bool: the options that any of the passes runs."""
    return torch.stack([mask_of(active, columns) for active in actives]).any(dim=0).to(device)


def nth(batches: Batches, turn: int) -> Batch:
    """Return the batch of a pass: the one of all passes, or its own."""
    return batches[turn] if isinstance(batches, list) else batches
