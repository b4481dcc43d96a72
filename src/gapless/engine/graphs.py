"""CUDA graphs: passes of a supernet, and steps of its weights, that are the same work every time are recorded once and
replayed.

A relaxed step is thousands of launches of small kernels; replayed they cost the host one call. Static is a pass under
one mix whose options are those of the passes before: one that trains, or one that judges. Masks that are drawn anew
differ in what they run. Where they let most options run (grouped dropout), the pass of all options is replayed, in
which those that rest weigh nothing; their statistics and gradients are put back. Others are launched one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.core.mix import GRADED, Active, Mix, mask_of
from gapless.core.tensors import to_device
from gapless.engine.supernet import Supernet

PATIENCE = 3
"""Passes of the same options before one is recorded, which also make whatever is made once; and masks in a row, each
another one, before passes of all options are replayed."""
MOST = 0.5
"""Share of the options that such masks let run, at least."""


@dataclass
class Kind:
    """What is known of passes of a kind: the options of the last one, how many in a row had them, how often they had
    changed before, and the record."""

    active: Active | None = None
    count: int = 0
    changes: int = 0
    record: Record | None = None


class Graphs:
    """Replays static passes of ``run(images, mix)``.

    Parameters
    ----------
    network
        Whose parameters and buffers the passes use.
    run
        The pass; it must launch work on the device and wait for nothing.
    """

    def __init__(self, network: Supernet, run: Callable[[Tensor, Mix], Tensor]) -> None:
        self.network, self.run = network, run
        self.options = network.options()
        self.rested: list[Tensor] = []
        self.norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        self.parameters = list(network.parameters())
        self.kinds: dict[Any, Kind] = {}

    def __call__(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the logits, replayed where the pass is static. Where gradients at weights are asked for,
        :meth:`rest` is to be called after the backward pass."""
        self.rested = []
        return self._pass(images, mix)

    def _pass(self, images: Tensor, mix: Mix, hiding: bool = False) -> Tensor:
        learns = torch.is_grad_enabled()
        trained = [p for p in self.parameters if p.requires_grad] if learns else []
        if not self.serves(mix, trained):
            return self.run(images, mix)
        names = [name for name in GRADED if getattr(mix, name) is not None]
        tensors = [images, *(getattr(mix, name) for name in names)]
        key = (
            tuple(names),
            tuple((t.shape, t.dtype, t.requires_grad) for t in tensors),
            learns,
            self.network.training,
            frozenset(norm.momentum for norm in self.norms),  # passes without statistics are other passes
            tuple(map(id, trained)),
            torch.is_autocast_enabled(images.device.type),
            hiding,
        )
        kind = self.kinds.setdefault(key, Kind())
        if kind.active != mix.active:
            kind.active, kind.count, kind.changes, kind.record = mix.active, 0, kind.changes + 1, None
        kind.count += 1
        if kind.count > PATIENCE:
            kind.changes = 0
        if kind.changes > PATIENCE and self.hides(mix):
            return self._hidden(images, mix)
        if kind.count <= PATIENCE:
            return self.run(images, mix)
        if kind.record is None:
            kind.record = self._record(names, mix, tensors, trained)
        return kind.record(tensors)

    def serves(self, mix: Mix, trained: Sequence[Tensor]) -> bool:
        """Return whether a pass may be recorded. A replay writes gradients anew, so a pass that adds to some may not;
        nor may one that counts in what share it moves its statistics."""
        return (
            mix.weight.dim() == 2
            and (self.network.training or not torch.is_grad_enabled())
            and not (self.network.training and any(norm.momentum is None for norm in self.norms))
            and all(p.grad is None for p in trained)
        )

    def hides(self, mix: Mix) -> bool:
        """Return whether options may rest in a pass of all of them: most run, some on every edge."""
        if mix.active is None or mix.offset is not None or not self.options or not self.network.training:
            return False
        return all(mix.active) and sum(map(len, mix.active)) >= MOST * len(self.options)

    def _hidden(self, images: Tensor, mix: Mix) -> Tensor:
        """Run all options, and leave those that rest as they were."""
        assert mix.active is not None
        resting = [m for (row, column), ms in self.options.items() if column not in mix.active[row] for m in ms]
        buffers = [b for module in resting for b in module.buffers()]
        kept = [torch.empty_like(b) for b in buffers]
        mask = to_device(mask_of(mix.active, mix.weight.shape[1]).to(mix.weight.dtype), mix.weight.device)
        _copy(buffers, kept)
        logits = self._pass(images, replace(mix, weight=mix.weight * mask, active=None), hiding=True)
        _copy(kept, [b.data for b in buffers])  # a graph of the library may hold them
        self.rested = [p for module in resting for p in module.parameters()]
        return logits

    def rest(self) -> None:
        """Take the gradients of zero from the weights of options that rested: for an optimiser they did not run."""
        for p in self.rested:
            p.grad = None
        self.rested = []

    def _record(self, names: Sequence[str], mix: Mix, tensors: Sequence[Tensor], trained: Sequence[Tensor]) -> Record:
        """Record a pass."""
        mix = replace(mix, log_prob=None)

        def run(images: Tensor, *given: Tensor) -> Tensor:
            changed: dict[str, Any] = dict(zip(names, given, strict=True))
            return self.run(images, replace(mix, **changed))

        return Record(run, tensors, trained)


def recorded(work: Callable[[], Any], pool: Any) -> tuple[Any, Callable[[], None]]:
    """Return where the results of ``work`` will be, and what does it: nothing runs while it is recorded."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        found = work()
    return found, graph.replay


def _copy(values: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    """Copy tensors in a few launches: of one type at a time, as the library asks for."""
    for dtype in dict.fromkeys(t.dtype for t in to):
        pairs = [(own, value) for own, value in zip(to, values, strict=True) if own.dtype == dtype]
        torch._foreach_copy_([own for own, _ in pairs], [value for _, value in pairs])


def _like(leaf: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient that lies in memory as its leaf does: fused optimisers ask for it."""
    return gradient if gradient.stride() == leaf.stride() else torch.empty_like(leaf).copy_(gradient)


class Record:
    """A recorded pass of ``run(*tensors)`` and its backward pass, which sets the gradients of ``trained``."""

    def __init__(self, run: Callable[..., Tensor], tensors: Sequence[Tensor], trained: Sequence[Tensor]) -> None:
        self.trained = trained
        self.given = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        self.wanted = [i for i, t in enumerate(tensors) if t.requires_grad and torch.is_grad_enabled()]
        leaves = [*(self.given[i] for i in self.wanted), *trained]
        self.anchor = torch.zeros((), device=tensors[0].device, requires_grad=True)
        pool = torch.cuda.graph_pool_handle() if self.anchor.is_cuda else None
        out: list[Tensor] = []

        def ahead() -> Tensor:
            out[:] = [run(*self.given)]
            return out[0].detach()

        def behind() -> tuple[Tensor | None, ...]:
            found = torch.autograd.grad(out[0], leaves, self.towards, allow_unused=True)
            return tuple(g if g is None else _like(leaf, g) for leaf, g in zip(leaves, found, strict=True))

        self.logits, self.ahead = recorded(ahead, pool)
        self.towards = torch.empty_like(self.logits)
        found: tuple[Tensor | None, ...] = ()
        if leaves:
            found, self.behind = recorded(behind, pool)
        self.found, self.gradients = found[: len(self.wanted)], found[len(self.wanted) :]
        out.clear()

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        """Replay the pass."""
        logits: Tensor = _Replay.apply(self, self.anchor, *tensors)  # type: ignore[no-untyped-call]
        return logits


class Update:
    """Replays what ``run`` does to the weights of an optimiser with their gradients, wherever these lie where they lay
    before: as those of a replayed pass do.

    Parameters
    ----------
    optimiser
        Its rates may change from step to step, its other settings not; fused, with weights in single precision.
    run
        Its step, and what goes before it.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, run: Callable[[], None]) -> None:
        self.optimiser, self.run = optimiser, run
        self.rates: list[Tensor] = []
        self.replay: Callable[[], None] | None = None
        self.places: tuple[int, ...] = ()
        self.count = 0

    def __call__(self) -> None:
        """Do it."""
        groups = self.optimiser.param_groups
        places = tuple(0 if p.grad is None else p.grad.data_ptr() for group in groups for p in group["params"])
        if places != self.places:
            self.places, self.count, self.replay = places, 0, None
        self.count += 1
        if self.count <= PATIENCE:
            self.run()
            return
        if self.replay is None:
            self.rates = [torch.tensor(group["lr"], device=group["params"][0].device) for group in groups]
            with self._rated():
                self.replay = self._record()
        for rate, group in zip(self.rates, groups, strict=True):
            rate.fill_(group["lr"])
        self.replay()

    def _record(self) -> Callable[[], None]:
        return recorded(self.run, None)[1]

    @contextmanager
    def _rated(self) -> Iterator[None]:
        """Let the optimiser read its rates on the device."""
        before = [group["lr"] for group in self.optimiser.param_groups]
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for group, rate in zip(self.optimiser.param_groups, before, strict=True):
                group["lr"] = rate


class _Replay(Function):
    """Gradients of parameters go straight to them: a thousand of them through the library cost more than the pass."""

    @staticmethod
    def forward(ctx: Any, record: Record, anchor: Tensor, *tensors: Tensor) -> Tensor:
        for own, tensor in zip(record.given, tensors, strict=True):
            own.detach().copy_(tensor)
        record.ahead()
        ctx.record = record
        logits: Tensor = record.logits.clone()
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor | None, ...]:
        record: Record = ctx.record
        record.towards.copy_(towards)
        record.behind()
        for p, gradient in zip(record.trained, record.gradients, strict=True):
            p.grad = gradient
        found: list[Tensor | None] = [None] * len(record.given)
        for i, gradient in zip(record.wanted, record.found, strict=True):
            found[i] = None if gradient is None else gradient.clone()
        return None, None, *found


@contextmanager
def frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Do not ask for gradients at parameters: kernels and replays compute all that the forward pass was asked for."""
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
