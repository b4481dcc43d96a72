"""Diagnostics of a search at the end of an epoch: the share of the gradient that each option receives, the accuracy of
each option alone, the largest eigenvalue of the Hessian with respect to the architecture.

They are measured on fixed images without augmentation. Weights, buffers, optimisers and random numbers are unchanged
afterwards, so that a search gives the same result with and without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gapless.core.decision import Decision
from gapless.core.method import Method, Rewarded
from gapless.core.mix import Mix
from gapless.core.objective import Objective
from gapless.core.op import OpModule
from gapless.core.progress import Progress, stream
from gapless.engine.bench import SupernetBench
from gapless.engine.feed import Batch, Feed
from gapless.engine.graphs import frozen
from gapless.engine.judge import batch_statistics, untouched
from gapless.engine.state import own_random_numbers, reseed
from gapless.engine.supernet import MixedEdge, MixedSite, Supernet

IMAGES, JUDGED = 64, 256
"""Images for the gradient and the Hessian: the default batch of RobustDARTS (arXiv 1909.09656, released code).
Images for the accuracy of options: ours."""
DRAWS = 8
"""Number of sampled mixes over which the gradient is summed, for methods that sample. Ours."""
STEPS, TOLERANCE = 50, 1e-3
"""Maximal number of steps of Lanczos' method, and the relative error at which it stops. Ours."""
PART = 16
"""Images of the Hessian in memory at a time, with ``recompute``. Ours."""


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics at the end of one epoch.

    Attributes
    ----------
    gradient_share
        For each option with weights, its share of the squared gradient norm of all such options, over all decisions;
        None if the gradient is zero.
    decision_gradient_share
        The same within each decision, [D][O]; None for an option that has no weights or is pruned, and for a decision
        whose gradient is zero.
    option_accuracy
        For each option but "none", the accuracy in percent when every decision that has the option takes it; the other
        decisions keep their probabilities.
    hessian
        Largest eigenvalue of the Hessian of the architecture's loss with respect to the method's parameters; None if
        the loss is not differentiable with respect to them.
    """

    gradient_share: dict[str, float] | None
    decision_gradient_share: list[list[float | None]]
    option_accuracy: dict[str, float]
    hessian: float | None


@dataclass(frozen=True, eq=False)
class Probe:
    """Measures the diagnostics of one supernet and its method.

    Parameters
    ----------
    supernet, method, feed, objective
        Supernet, method, feed and objective of the search; all are unchanged afterwards.
    stage
        Stage whose images and classes are used.
    """

    supernet: Supernet
    method: Method
    feed: Feed
    objective: Objective
    stage: int = 0

    def measure(self, now: Progress) -> Diagnostics:
        """Return all diagnostics at a moment."""
        gradient = self.gradient(now)
        total = float(gradient.nansum())
        share = None
        if 0 < total < math.inf:
            share = {o: float(gradient[mask].nansum()) / total for o, mask in self._by_option(~gradient.isnan())}
        rows = gradient.nansum(dim=-1, keepdim=True)
        within = torch.where((rows > 0) & rows.isfinite(), gradient / rows, torch.nan)
        return Diagnostics(
            gradient_share=share,
            decision_gradient_share=[[None if v != v else v for v in row] for row in within.tolist()],
            option_accuracy=self.accuracy(),
            hessian=self.hessian(now),
        )

    # ------------------------------------------------------------------ gradient

    def gradient(self, now: Progress) -> Tensor:
        """Return [D, O]: the squared norm of the gradient of the loss with respect to each option's weights, on
        training images of the weights; NaN for an option that has no weights or is pruned. For a method that samples,
        it is summed over several sampled mixes."""
        with torch.no_grad():
            mixes = [self.method.mix(now.at("weights", turn)).detach() for turn in range(DRAWS)]
        if all(torch.equal(mix.weight, mixes[0].weight) for mix in mixes):
            mixes = mixes[:1]
        squares = torch.full(self.supernet.space.shape, torch.nan, dtype=torch.float64)
        owners = [
            (row, column, parameters)
            for row, column, module in self._options()
            if column in self.method.active[row]
            and has_weights(self.supernet.space.decisions[row], column, module)
            and (parameters := list(module.parameters()))
        ]
        for row, column, _ in owners:
            squares[row, column] = 0.0
        wanted = [p for *_, parameters in owners for p in parameters]
        if not wanted:
            return squares
        batch = self._batch(self._fixed(self.feed.training(self.stage), IMAGES))
        places = [(row, column) for row, column, parameters in owners for _ in parameters]
        with self._measuring():
            for mix in mixes:
                gradients = torch.autograd.grad(
                    self._loss(batch, mix), wanted, allow_unused=True, materialize_grads=True
                )
                norms = torch.stack([g.double().square().sum() for g in gradients]).cpu()
                for (row, column), norm in zip(places, norms, strict=True):
                    squares[row, column] += norm
        return squares

    # ------------------------------------------------------------------ accuracy of options

    def accuracy(self) -> dict[str, float]:
        """Return option -> accuracy of the supernet in percent when every decision that has the option takes it, with
        batch statistics, on the evaluation images of the search."""
        computes = torch.zeros(self.supernet.space.shape, dtype=torch.bool)
        for row, column, module in self._options():
            computes[row, column] = not (isinstance(module, OpModule) and module.zero)
        with torch.no_grad():
            base = self.method.probabilities().detach().cpu()
        index = self._fixed(self.feed.judging(self.stage), JUDGED)
        bench = SupernetBench(self.supernet, self.supernet, self.feed, replace(self.method.plan, bn="batch"))
        bench = replace(bench, stage=self.stage)
        accuracies = {}
        for option, mask in self._by_option(computes & self.method.alive.cpu()):
            weight, active = base.clone(), list(self.method.active)
            for row, column in mask.nonzero().tolist():
                weight[row], active[row] = 0.0, (column,)
                weight[row, column] = 1.0
            _, share = bench.measure(Mix(weight, tuple(active)), self.feed.plain(index, JUDGED))
            accuracies[option] = 100 * share
        return accuracies

    # ------------------------------------------------------------------ Hessian

    def hessian(self, now: Progress, tolerance: float = TOLERANCE) -> float | None:
        """Return the largest eigenvalue of the Hessian of the loss with respect to the method's parameters, on training
        images of the architecture, under the mix of the phase ``judge``.

        It is None if the method has no such loss: it has no parameters, learns from rewards, or evaluates one path,
        which is constant in its parameters.

        The loss is differentiated twice through the reference execution, whose graph keeps the outputs of all options.
        With ``recompute`` the images are therefore processed in parts, each with its own batch statistics, and the
        graph is rebuilt for every product."""
        if self.arch_mix(now) is None:
            return None
        images = self._fixed(self.feed.judging(self.stage), IMAGES)
        parts = images.split(PART if self.supernet.recompute else IMAGES)
        kept: Tensor | None = None

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for part in parts:
                gradient = self._arch_gradient(now, part) if kept is None else kept
                row = flat_gradient(gradient, self._parameters(), vector.to(gradient), retain_graph=kept is not None)
                total += len(part) / len(images) * row.to(total)
            return total

        size = sum(p.numel() for p in self._parameters())
        with self._measuring(), frozen(list(self.supernet.parameters())), edge_by_edge(self.supernet):
            kept = self._arch_gradient(now, parts[0]) if len(parts) == 1 else None
            value = largest_eigenvalue(product, size, stream("hessian"), tolerance=tolerance)
        return value if math.isfinite(value) else None

    def _arch_gradient(self, now: Progress, index: Tensor) -> Tensor:
        """Return the gradient of the loss with respect to the method's parameters, in one vector with a graph."""
        mix = self.arch_mix(now)
        assert mix is not None
        reseed(mix.weight.device, "watch")  # the same dropout each time
        return flat_gradient(self._loss(self._batch(index), mix), self._parameters(), create_graph=True)

    def arch_mix(self, now: Progress) -> Mix | None:
        """Return the mix of the phase ``judge``, with its graph to the method's parameters; for a method that samples
        this mix, its probabilities. None if the mix is constant in the parameters."""
        if not self._parameters() or isinstance(self.method, Rewarded):
            return None
        first, second = (self.method.mix(now.at("judge", turn)) for turn in range(2))
        drawn = not torch.equal(first.weight, second.weight)
        mix = Mix(self.method.probabilities(), self.method.active) if drawn else first
        soft = mix.active is None or any(len(columns) > 1 for columns in mix.active)
        return mix if soft and mix.weight.requires_grad else None

    def _parameters(self) -> list[Tensor]:
        return [p for p in self.method.parameters() if p.requires_grad]

    # ------------------------------------------------------------------ shared by all

    def _options(self) -> Iterator[tuple[int, int, nn.Module]]:
        """Yield (row, column, module) of every option of every decision, at every place in the network."""
        for module in self.supernet.modules():
            if isinstance(module, MixedEdge | MixedSite):
                for column, option in enumerate(module.values()):
                    yield module.row, column, option

    def _by_option(self, mask: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (option, [D, O] mask of its entries) for every option that ``mask`` contains."""
        decisions = self.supernet.space.decisions
        for option in dict.fromkeys(o for d in decisions for o in d.options):
            own = torch.zeros_like(mask)
            for row, decision in enumerate(decisions):
                if option in decision.options:
                    own[row, decision.options.index(option)] = True
            if (own & mask).any():
                yield option, own & mask

    def _fixed(self, index: Tensor, count: int) -> Tensor:
        """Return the numbers of ``count`` images, the same each time."""
        return index[torch.randperm(len(index), generator=stream("watch"))][:count]

    def _batch(self, index: Tensor) -> Batch:
        return next(self.feed.plain(index, len(index)))

    def _loss(self, batch: Batch, mix: Mix) -> Tensor:
        images, labels = batch
        device = next(self.supernet.parameters()).device

        def run(images: Tensor, mix: Mix) -> Tensor:
            return self.feed.seen(self.supernet(images, mix), self.stage)

        labels = self.feed.named(labels, self.stage)
        loss, _ = self.objective(run, images, labels, mix.to(dtype=self.feed.dtype, device=device))
        return loss

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Run passes with batch statistics, without dropout and drop path, and restore the supernet afterwards."""
        device = next(self.supernet.parameters()).device
        with own_random_numbers(device), untouched(self.supernet):
            reseed(device, "watch")  # noise in a network
            batch_statistics(self.supernet)
            yield


def has_weights(decision: Decision, column: int, module: nn.Module) -> bool:
    """Return whether an option has weights: by its group ("weights" or "free") if it has one, else by whether its
    module has parameters."""
    group = decision.groups.get(decision.options[column])
    return group == "weights" if group in ("weights", "free") else any(True for _ in module.parameters())


def groups_of(supernet: Supernet) -> dict[str, str]:
    """Return option -> ``weights`` if it has weights in some decision, else ``free``; in the order of the space."""
    groups = {option: "free" for decision in supernet.space.decisions for option in decision.options}
    for module in supernet.modules():
        if isinstance(module, MixedEdge | MixedSite):
            decision = supernet.space.decisions[module.row]
            for column, (option, op) in enumerate(module.items()):
                if has_weights(decision, column, op):
                    groups[option] = "weights"
    return groups


def flat_gradient(
    value: Tensor,
    inputs: Sequence[Tensor],
    along: Tensor | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tensor:
    """Return the gradient of a scalar, or of the product of a vector with ``along``, in one vector; zero for inputs
    that it does not depend on."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(p).flatten() for p in inputs])
    gradients = torch.autograd.grad(
        value,
        inputs,
        along,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([g.flatten() for g in gradients])


@contextmanager
def edge_by_edge(supernet: Supernet) -> Iterator[None]:
    """Run the reference execution without recomputing, since the fused kernels cannot be differentiated twice."""
    before = supernet.execution, supernet.recompute
    supernet.execution, supernet.recompute = "reference", False
    try:
        yield
    finally:
        supernet.execution, supernet.recompute = before


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor],
    size: int,
    generator: torch.Generator,
    *,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the largest eigenvalue of a symmetric matrix that is given by its products with vectors (Lanczos with full
    reorthogonalisation: exact after ``size`` steps).

    Parameters
    ----------
    product
        Maps a vector [size], float64, to the matrix times it.
    size
        Number of rows of the matrix.
    generator
        Generator of the first vector.
    steps
        Maximal number of products.
    tolerance
        Relative residual at which the iteration stops.

    >>> matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> round(largest_eigenvalue(lambda v: matrix @ v, 2, torch.Generator().manual_seed(0)), 6)
    3.0
    """
    vector = torch.randn(size, generator=generator, dtype=torch.float64)
    basis = [vector / vector.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    top = math.nan
    for _ in range(min(steps, size)):
        new = product(basis[-1])
        if not new.isfinite().all():
            return math.nan
        diagonal.append(new @ basis[-1])
        kept = torch.stack(basis)
        for _ in range(2):
            new = new - kept.T @ (kept @ new)
        rest = new.norm()
        matrix = torch.diag(torch.stack(diagonal))
        if beside:
            sides = torch.stack(beside)
            matrix = matrix + torch.diag(sides, 1) + torch.diag(sides, -1)
        values, vectors = torch.linalg.eigh(matrix)
        top = float(values[-1])
        if float(rest * vectors[-1, -1].abs()) <= tolerance * abs(top):
            break
        beside.append(rest)
        basis.append(new / rest)
    return top
