"""The answers that build one stand-alone network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gapless.core.cell import CellModule, CellSpec, rejoin
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.op import OpModule


class DropPath(nn.Module):
    """Zeroes whole samples with probability ``rate`` and divides the rest by ``1 - rate``, in training (FractalNet, as
    DARTS uses it).

    One instance serves a whole network: whoever trains it writes ``rate``.
    """

    rate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, ...] to the same shape."""
        if not self.training:
            return x
        keep = (1 - self.rate).expand(x.shape[0])
        return x * (torch.bernoulli(keep) / keep).to(x.dtype).view(-1, *[1] * (x.dim() - 1))


class ChosenEdge(nn.ModuleDict):
    """One edge of a stand-alone network: the chosen operation under its label, so that names agree with the
    supernet's."""

    def __init__(self, label: str, op: OpModule, partial: int, drop: DropPath | None) -> None:
        super().__init__({label: op})
        self.label, self.partial = label, partial
        # a tuple, for the one drop path of the network is no child of each edge
        self.drops = () if drop is None or op.identity else (drop,)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to what arrives at the target."""
        op = self[self.label]
        assert isinstance(op, OpModule)
        y = op(x[:, : x.shape[1] // self.partial])
        for drop in self.drops:
            y = drop(y)
        return rejoin(y, x, self.partial, op.stride)


class ChosenSite(nn.ModuleDict):
    """A free site of a stand-alone network: the chosen option under its label."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the option."""
        (option,) = self.values()
        output: Tensor = option(*inputs)
        return output


class Chosen:
    """Answers every question of ``build`` with what ``arch`` says (see :class:`gapless.core.choose.Choose`)."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.drop = DropPath()

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return the cell with its kept edges and chosen operations only; "none" is left out where it adds nothing."""
        edges: dict[str, nn.Module] = {}
        for edge in spec.cell.edges:
            label = self.arch.get(edge.ask)
            if label is None or (spec.ops[label].zero and spec.partial == 1):
                continue
            op, drop = spec.build(edge, label), self.drop if spec.drop_path else None
            edges[edge.key] = ChosenEdge(label, op, spec.partial, drop)
        body = CellModule(spec.cell, edges)
        if spec.drop_path:
            body.add_module("drop_path", self.drop)
        return body

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return the chosen option of a free site."""
        if ask not in self.arch:
            raise UserError(f"The architecture does not answer {ask!r}.")
        return ChosenSite({self.arch[ask]: make(self.arch[ask])})
