"""Cells as data, and the one module that runs them, in the supernet and alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.op import NormRule, Op, OpModule, zeros


@dataclass(frozen=True)
class Edge:
    """An edge ``source -> target`` whose operation is the answer to the decision ``ask``."""

    source: int
    target: int
    ask: str
    stride: int = 1

    @property
    def key(self) -> str:
        """The name of the edge's module inside its cell."""
        return f"{self.target}<-{self.source}"


@dataclass(frozen=True)
class Cell:
    """A directed acyclic graph as data.

    Parameters
    ----------
    inputs
        How many input states there are; they are the states 0 .. inputs - 1.
    edges
        In the order in which they are summed at their target.
    output
        The states that are concatenated into the output; a single one is the output itself.
    """

    inputs: int
    edges: tuple[Edge, ...]
    output: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(edge.source >= edge.target or edge.target < self.inputs for edge in self.edges):
            raise ValueError("an edge must lead from an earlier state to a later one that is no input")
        if len({edge.key for edge in self.edges}) != len(self.edges):
            raise ValueError("two edges of a cell join the same pair of states")

    @property
    def nodes(self) -> range:
        """The states that are computed."""
        return range(self.inputs, max(edge.target for edge in self.edges) + 1)

    def into(self, node: int) -> tuple[Edge, ...]:
        """Return the edges that end at ``node``."""
        return tuple(edge for edge in self.edges if edge.target == node)


@dataclass(frozen=True)
class CellSpec:
    """What a module of a whole cell is built from; it is called with the input states of the cell.

    Parameters
    ----------
    cell
        The graph; each edge names the decision that it asks.
    ops
        Option label -> operation, for every option of every edge of the cell.
    channels
        Channels of every state.
    norm
        Batch normalisation of the candidate operations.
    partial
        Number of equal parts of the channels, of which one goes through the operations and the rest bypasses them.
    drop_path
        Whether a stand-alone network drops the outputs of edges that are no identity.

    Raises
    ------
    ValueError
        Where ``partial`` does not divide ``channels``.
    """

    cell: Cell
    ops: Mapping[str, Op]
    channels: int
    norm: NormRule
    partial: int = 1
    drop_path: bool = False

    def __post_init__(self) -> None:
        if self.channels % self.partial:
            raise ValueError(
                f"{self.channels} channels cannot be split into {self.partial} parts; choose a width that "
                f"{self.partial} divides"
            )

    @property
    def width(self) -> int:
        """Channels that go through the operations (PC-DARTS, arXiv 1907.05737)."""
        return self.channels // self.partial

    def build(self, edge: Edge, option: str) -> OpModule:
        """Return the module of one option of an edge."""
        return self.ops[option].build(self.width, stride=edge.stride, norm=self.norm)


class CellModule(nn.Module):
    """Runs a :class:`Cell` edge by edge. ``edges`` maps ``Edge.key`` to a module that returns a tensor, or None for
    "nothing arrives"."""

    def __init__(self, cell: Cell, edges: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.cell = cell
        self.edges = nn.ModuleDict(edges)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map the input states, each [N, C, H, W], to the output."""
        states = list(inputs)
        for node in self.cell.nodes:
            into = self.cell.into(node)
            arrived = [self.edges[e.key](states[e.source]) for e in into if e.key in self.edges]
            arrived = [a for a in arrived if a is not None]
            states.append(sum(arrived[1:], arrived[0]) if arrived else zeros(states[into[0].source], into[0].stride))
        return join([states[i] for i in self.cell.output])


def join(states: Sequence[Tensor]) -> Tensor:
    """Concatenate states along the channels."""
    return states[0] if len(states) == 1 else torch.cat(list(states), dim=1)


def rejoin(mixed: Tensor, x: Tensor, partial: int, stride: int) -> Tensor:
    """Put the channels that bypassed the operations behind ``mixed`` and shuffle them in ``partial`` groups.

    ``mixed`` has the first C / partial channels of ``x`` gone through the operations. At stride 2 the bypass is a 2x2
    maximum. The shuffle moves position ``g * (C / partial) + m`` to ``m * partial + g`` (PC-DARTS, released code).
    """
    if partial == 1:
        return mixed
    bypass = x[:, x.shape[1] // partial :]
    if stride == 2:
        bypass = F.max_pool2d(bypass, 2, 2, ceil_mode=True)
    both = torch.cat([mixed, bypass], dim=1)
    n, c, height, width = both.shape
    return both.view(n, partial, c // partial, height, width).transpose(1, 2).reshape(n, c, height, width)
