"""CUDA graphs: passes of a supernet that are the same work every time are recorded once and replayed.

A relaxed step is some ten thousand launches of small kernels; replayed they cost the host one call. Static is a
training pass under one mix whose options are those of the passes before. Masks that are drawn anew differ in what they
run, so such passes are launched one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gapless.core.mix import GRADED, Active, Mix

PATIENCE = 3
"""Passes of the same options before one is recorded."""


@dataclass
class Kind:
    """What is known of passes of a kind: the options of the last one, how many in a row had them, and the record."""

    active: Active | None = None
    count: int = 0
    replay: Callable[..., Tensor] | None = None


class Graphs:
    """Replays static passes of ``run(images, mix)``.

    Parameters
    ----------
    network
        Whose parameters and buffers the passes use.
    run
        The pass; it must launch work on the device and wait for nothing.
    """

    def __init__(self, network: nn.Module, run: Callable[[Tensor, Mix], Tensor]) -> None:
        self.network, self.run = network, run
        self.norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        self.kinds: dict[Any, Kind] = {}

    def __call__(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the logits, replayed where the pass is static."""
        if not self.serves(images, mix):
            return self.run(images, mix)
        names = [name for name in GRADED if getattr(mix, name) is not None]
        tensors = [images, *(getattr(mix, name) for name in names)]
        key = (
            tuple(names),
            tuple((t.shape, t.dtype, t.requires_grad) for t in tensors),
            frozenset(norm.momentum for norm in self.norms),  # passes without statistics are other passes
            any(p.requires_grad for p in self.network.parameters()),
            torch.is_autocast_enabled(images.device.type),
        )
        kind = self.kinds.setdefault(key, Kind())
        if kind.active != mix.active:
            kind.active, kind.count, kind.replay = mix.active, 0, None
        kind.count += 1
        if kind.count <= PATIENCE:
            return self.run(images, mix)
        if kind.replay is None:
            kind.replay = self._record(names, mix, tensors)
        return kind.replay(*tensors)

    def serves(self, images: Tensor, mix: Mix) -> bool:
        """Return whether a pass may be recorded. Gradients that are there already would be the memory that a replay
        writes to, so a pass that adds to some may not."""
        return (
            mix.weight.dim() == 2
            and self.network.training
            and torch.is_grad_enabled()
            and all(p.grad is None or not p.requires_grad for p in self.network.parameters())
        )

    def _record(self, names: list[str], mix: Mix, tensors: list[Tensor]) -> Callable[..., Tensor]:
        """Record a pass. Recording runs it some times: running statistics are then what they were."""
        sample = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        before = [b.clone() for b in self.network.buffers()]
        one = _Pass(self.network, self.run, names, mix).train()
        recorded: Any = torch.cuda.make_graphed_callables(one, tuple(sample), allow_unused_input=True)
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
        return recorded  # type: ignore[no-any-return]


class _Pass(nn.Module):
    """A pass as a module of tensors only."""

    def __init__(self, network: nn.Module, run: Callable[[Tensor, Mix], Tensor], names: list[str], mix: Mix) -> None:
        super().__init__()
        self.network, self.run, self.names, self.mix = network, run, names, replace(mix, log_prob=None)

    def forward(self, images: Tensor, *tensors: Tensor) -> Tensor:
        changed: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        return self.run(images, replace(self.mix, **changed))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Do not ask for gradients at parameters: a replay computes all that were asked for when it was recorded."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
