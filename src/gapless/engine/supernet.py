"""The weight-sharing supernet: every option of every decision, weighed by a mix. Edge by edge it is the readable
reference execution; :mod:`gapless.kernels.fan` runs the same modules a cell at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gapless.core.cell import Cell, CellModule, CellSpec, rejoin
from gapless.core.decision import Arch
from gapless.core.mix import Mix
from gapless.core.op import OpModule, zeros
from gapless.core.space import Space
from gapless.core.tensors import indices, nchw, nhwc
from gapless.engine.judge import still
from gapless.kernels import fan
from gapless.kernels.fan import Entries, Fan, RunningStatistics, bypass
from gapless.kernels.forms import Chain, Fused, fused_form

Execution = Literal["fused", "reference"]


class Router:
    """Carries the mix of the present forward pass to the sites."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.columns = tuple(tuple(range(len(d.options))) for d in space.decisions)
        self.execution: Execution = "reference"
        self.recompute = False
        self.mix: Mix | None = None
        self._entries: list[tuple[Tensor, ...] | None] = []
        self.coefficient_cache: dict[Entries, Tensor] = {}
        self._norms: dict[nn.Module, list[nn.BatchNorm2d]] = {}
        self._fused: dict[OpModule, Fused | None] = {}

    def set(self, mix: Mix | None) -> None:
        """Take the mix of a forward pass; ``None`` when it is over."""
        if mix is not None and tuple(mix.weight.shape[-2:]) != self.space.shape:
            raise ValueError(
                f"the mix is of shape {tuple(mix.weight.shape)}; the space has (D, O) = {self.space.shape}"
            )
        self.mix = mix
        self._entries = [] if mix is None else [None] * len(self.columns)
        self.coefficient_cache = {}

    @contextmanager
    def again(self, mix: Mix, coefficient_cache: dict[Entries, Tensor]) -> Iterator[None]:
        """Carry the mix of an earlier pass, with the coefficients gathered from it."""
        before, cache = self.mix, self.coefficient_cache
        self.set(mix)
        self.coefficient_cache = coefficient_cache
        try:
            yield
        finally:
            self.set(before)
            self.coefficient_cache = cache

    def active(self, row: int) -> tuple[int, ...]:
        """Return the columns that run for a decision."""
        if self.mix is None:
            raise RuntimeError("a supernet runs as supernet(images, mix)")
        return self.columns[row] if self.mix.active is None else self.mix.active[row]

    def weights(self, row: int) -> tuple[Tensor, ...]:
        """Return the weight of each column of a decision: scalars, or [N, 1, 1, 1] for a mix per image."""
        assert self.mix is not None
        found = self._entries[row]
        if found is None:
            line = self.mix.weight.select(-2, row)
            found = line.unbind(-1) if line.dim() == 1 else tuple(w.view(-1, 1, 1, 1) for w in line.unbind(-1))
            self._entries[row] = found
        return found

    def coefficients(self, fans: Sequence[Fan]) -> Sequence[Tensor]:
        """Return the weights of the options of each fan of a cell, times the gains of their edges."""
        assert self.mix is not None
        return fan.coefficients(self.mix, fans, self.coefficient_cache)

    def fuses(self, module: nn.Module, x: Tensor) -> bool:
        """Return whether the fused execution runs this pass: one mix for all images, no autocast, training mode, or
        evaluation mode where :meth:`judges` allows it."""
        return (
            self.execution == "fused"
            and self.mix is not None
            and self.mix.weight.dim() == 2
            and (module.training or self.judges(module, x))
            and not torch.is_autocast_enabled(x.device.type)
        )

    def judges(self, module: nn.Module, x: Tensor) -> bool:
        """Return whether this pass only evaluates by running statistics, on a device with a backend for that."""
        if torch.is_grad_enabled() or not fan.judges(x.device):
            return False
        if module not in self._norms:
            self._norms[module] = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        return all(norm.running_mean is not None and not norm.training for norm in self._norms[module])

    def fused(self, op: OpModule) -> Fused | None:
        """Return how the kernels compute an operation; None if they do not, or if it carries a hook."""
        if op not in self._fused:
            self._fused[op] = fused_form(op)
        hooked = op._forward_hooks or op._forward_pre_hooks or op._backward_hooks
        return None if hooked else self._fused[op]

    def run(self, op: OpModule, x: Tensor) -> Tensor | None:
        """Run an operation outside of cells as a fan of one route; None if the kernels do not compute it."""
        fused = self.fused(op) if self.fuses(op, x) else None
        if fused is None or not isinstance(fused.form, Chain):
            return None
        statistics, sums = RunningStatistics() if op.training else None, dict[int, Tensor]()
        single = Fan(statistics)
        single.add(0, op, fused, (0, 0))
        single.run(nhwc(x), torch.ones(1, dtype=x.dtype, device=x.device), sums)
        if statistics is not None:
            statistics.update()
        return nchw(sums[0])

    def exact(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hand a normalisation outside of cells its input in the layout [N, C, H, W] of memory, in which the library
        adds up in double precision. It adds up channels-last images in float32, which costs a digit."""
        return tuple(x.contiguous() for x in given) if module.training and self.fuses(module, given[0]) else None

    def scale(self, row: int, y: Tensor) -> Tensor:
        """Apply gain and offset of a decision."""
        assert self.mix is not None
        if self.mix.gain is not None:
            y = self.mix.gain[row] * y
        return y if self.mix.offset is None else y + self.mix.offset[row]


class MixedEdge(nn.ModuleDict):
    """An edge of the supernet: label -> operation, weighed and summed. Options that are not active are not called."""

    def __init__(self, router: Router, ask: str, ops: Mapping[str, OpModule], partial: int, stride: int) -> None:
        super().__init__(dict(ops))
        self.router, self.row = router, router.space.rows[ask]
        self.partial, self.stride = partial, stride

    def forward(self, x: Tensor) -> Tensor | None:
        """Map [N, C, H, W] to what arrives at the target, or None where the decision is absent."""
        active = self.router.active(self.row)
        if not active:
            return None
        part = x[:, : x.shape[1] // self.partial]
        ops, weights = list(self.values()), self.router.weights(self.row)
        total: Tensor | None = None
        for column in active:
            op = ops[column]
            if not op.zero:
                term = weights[column] * op(part)
                total = term if total is None else total + term
        if total is None:
            total = zeros(part, self.stride)
        return self.router.scale(self.row, rejoin(total, x, self.partial, self.stride))


class MixedSite(nn.ModuleDict):
    """A free site of the supernet: label -> module, weighed and summed."""

    def __init__(self, router: Router, ask: str, options: Mapping[str, nn.Module]) -> None:
        super().__init__(dict(options))
        self.router, self.row = router, router.space.rows[ask]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the weighted sum of the active options."""
        active, options = self.router.active(self.row), list(self.values())
        weights = self.router.weights(self.row)
        terms = [weights[column] * options[column](*inputs) for column in active]
        if not terms:
            raise ValueError(f"the decision {self.router.space.decisions[self.row].name!r} cannot be absent")
        return self.router.scale(self.row, sum(terms[1:], terms[0]))


class MixedCell(CellModule):
    """A cell of mixed edges, with both executions."""

    def __init__(self, router: Router, cell: Cell, edges: Mapping[str, MixedEdge], partial: int) -> None:
        super().__init__(cell, edges)
        self.router, self.partial = router, partial
        self.noisy = any(isinstance(m, OpModule) and m.noise for m in self.modules())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map the input states, each [N, C, H, W], to the output."""
        mix = self.router.mix
        if mix is None or not (self.router.recompute and self.training and torch.is_grad_enabled()):
            return self._run(*inputs)
        if self.router.fuses(self, inputs[0]):
            self.router.coefficients(self._fans(None, {}))  # gathered outside of what is recomputed, once for all cells
        passes, cache = 0, self.router.coefficient_cache

        def run(*inputs: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            if passes == 1:
                return self._run(*inputs)
            with self.router.again(mix, cache), still(self):  # running statistics were updated the first time
                return self._run(*inputs)

        output: Tensor = checkpoint(run, *inputs, use_reentrant=False)
        return output

    def _run(self, *inputs: Tensor) -> Tensor:
        return self._fused(*inputs) if self.router.fuses(self, inputs[0]) else super().forward(*inputs)

    def _fused(self, *inputs: Tensor) -> Tensor:
        mix, partial, statistics = self.router.mix, self.partial, RunningStatistics() if self.training else None
        assert mix is not None
        states, noise = [nhwc(x) for x in inputs], self._noise(inputs)
        fans = self._fans(statistics, noise)
        sums: dict[int, Tensor] = {}
        for number, (outgoing, coefficients) in enumerate(zip(fans, self.router.coefficients(fans), strict=True)):
            if number >= len(inputs):
                states.append(self._node(number, sums.pop(number, None), states, mix))
            x = states[number]
            if outgoing.entries:
                outgoing.run(x if partial == 1 else x[..., : x.shape[-1] // partial].contiguous(), coefficients, sums)
        if statistics is not None:
            statistics.update()
        outputs = [states[i] for i in self.cell.output]
        return nchw(outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1))

    def _fans(self, statistics: RunningStatistics | None, noise: Mapping[tuple[str, int], Tensor]) -> list[Fan]:
        """Return the fan of each state: the active options on its outgoing edges."""
        fans = [Fan(statistics) for _ in range(self.cell.inputs + len(self.cell.nodes))]
        for edge in self.cell.edges:
            mixed = self.edges[edge.key]
            assert isinstance(mixed, MixedEdge)
            ops = [op for op in mixed.values() if isinstance(op, OpModule)]
            for column in self.router.active(mixed.row):
                op, entry = ops[column], (mixed.row, column)
                if op.noise:
                    fans[edge.source].add_output(edge.target, noise.get((edge.key, column)), entry)
                else:
                    fans[edge.source].add(edge.target, op, self.router.fused(op), entry)
        return fans

    def _noise(self, inputs: Sequence[Tensor]) -> dict[tuple[str, int], Tensor]:
        """Return the output of every noise that runs, by edge and column.

        It is drawn in the order of the reference execution, so that under one seed both have the same numbers. Noise
        needs of its input only the shape, which is known before the states are.
        """
        drawn: dict[tuple[str, int], Tensor] = {}
        if not self.noisy:
            return drawn
        n, c = inputs[0].shape[:2]
        sides = [tuple(x.shape[-2:]) for x in inputs]
        for node in self.cell.nodes:
            into = self.cell.into(node)
            for edge in into:
                mixed = self.edges[edge.key]
                assert isinstance(mixed, MixedEdge)
                ops = list(mixed.values())
                for column in self.router.active(mixed.row):
                    op = ops[column]
                    if isinstance(op, OpModule) and op.noise:
                        shape = (n, c // self.partial, *sides[edge.source])
                        drawn[edge.key, column] = op(inputs[0].new_empty(()).expand(shape))
            first = into[0]
            sides.append(tuple(-(-side // first.stride) for side in sides[first.source]))
        return drawn

    def _node(self, target: int, total: Tensor | None, states: Sequence[Tensor], mix: Mix) -> Tensor:
        """Return a node [N, H, W, C] from the sum over its operations, None if none ran."""
        into = self.cell.into(target)
        rows = [(edge, self.router.space.rows[edge.ask]) for edge in into]
        present = [(states[edge.source], edge.stride, row) for edge, row in rows if self.router.active(row)]
        if total is None:
            x = states[into[0].source]
            total = nhwc(zeros(nchw(x[..., : x.shape[-1] // self.partial]), into[0].stride))
        if self.partial > 1:
            total = bypass(total, present, self.partial, mix)
        if mix.offset is not None and present:
            total = total + mix.offset[indices(tuple(row for *_, row in present), total.device)].sum()
        return total


class Everything:
    """Answers every question of ``build`` with all options (see :class:`gapless.core.choose.Choose`)."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return a cell of mixed edges."""
        edges: dict[str, MixedEdge] = {}
        for edge in spec.cell.edges:
            options = self.router.space.decisions[self.router.space.rows[edge.ask]].options
            built = {o: spec.build(edge, o) for o in options}
            edges[edge.key] = MixedEdge(self.router, edge.ask, built, spec.partial, edge.stride)
        return MixedCell(self.router, spec.cell, edges, spec.partial)

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return a mixed site."""
        options = self.router.space.decisions[self.router.space.rows[ask]].options
        return MixedSite(self.router, ask, {o: make(o) for o in options})


class Supernet(nn.Module):
    """All architectures of a space in one network: ``supernet(images, mix)`` gives logits.

    With the one-hot mix of an architecture it equals ``space.network(arch)`` with the same weights: exactly in the
    reference execution, up to rounding in the fused one.

    Parameters
    ----------
    space
        Whose options it holds.
    execution
        ``fused`` runs cells at once where it can (in training, one mix for all images), ``reference`` edge by edge.
    recompute
        Keep only the inputs of cells for the backward pass and compute them again there (activation checkpointing,
        arXiv 1604.06174): a third more time for a fraction of the memory, the same numbers. Statistics move once.
    """

    def __init__(self, space: Space, execution: Execution = "fused", *, recompute: bool = False) -> None:
        super().__init__()
        self.space = space
        self.router = Router(space)
        self.router.execution, self.router.recompute = execution, recompute
        self._prepared = False
        self.network = space.build(Everything(self.router))
        kinds = (MixedCell, MixedSite)
        held = {m for cell in self.network.modules() if isinstance(cell, kinds) for m in cell.modules()}
        for module in self.network.modules():
            if module in held:
                continue
            if isinstance(module, OpModule):
                module.runner = self.router.run
            elif isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(self.router.exact)

    @property
    def execution(self) -> Execution:
        """How cells are run; it may be set at any time."""
        return self.router.execution

    @execution.setter
    def execution(self, execution: Execution) -> None:
        self.router.execution = execution

    @property
    def recompute(self) -> bool:
        """Whether cells are computed again in the backward pass; it may be set at any time."""
        return self.router.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.router.recompute = recompute

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        """Map images [N, C, H, W] and a mix to logits [N, classes]."""
        self.router.set(mix)
        if self.router.execution == "fused" and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self._prepared and self.router.fuses(self, x):
            fan.prepare(self._fused_groups(), x)
            self._prepared = True
        try:
            logits: Tensor = self.network(x)
        finally:
            self.router.set(None)
        return logits

    def _fused_groups(self) -> list[list[Fused]]:
        """Return the operations that the kernels compute: of each cell, and one by one outside of cells."""
        cells = [
            [m for m in cell.modules() if isinstance(m, OpModule)]
            for cell in self.modules()
            if isinstance(cell, MixedCell)
        ]
        alone = [[m] for m in self.modules() if isinstance(m, OpModule) and m.runner is not None]
        fused = [[self.router.fused(op) for op in ops] for ops in cells + alone]
        return [[op for op in ops if op is not None] for ops in fused]

    def options(self) -> dict[tuple[int, int], list[OpModule]]:
        """Return the modules of each option, by row and column in the mix; none at all where some are no edge of a
        cell."""
        found: dict[tuple[int, int], list[OpModule]] = {}
        for module in self.modules():
            if isinstance(module, MixedSite):
                return {}
            if isinstance(module, MixedEdge):
                for column, op in enumerate(module.values()):
                    assert isinstance(op, OpModule)
                    found.setdefault((module.row, column), []).append(op)
        return found

    def inherit(self, arch: Arch) -> nn.Module:
        """Return the stand-alone network of ``arch`` with a copy of the supernet's weights and statistics."""
        weights = self.network.state_dict()
        example = next(iter(self.network.parameters()), torch.empty(0))
        child = self.space.network(arch).to(example)
        child.load_state_dict({name: weights[name] for name in child.state_dict()})
        return child.train(self.training)
