"""What a space's ``build`` asks: it describes the network once, and the answers make it a supernet, one network, or a
bill of costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import nn

from gapless.core.cell import Cell
from gapless.core.op import NormRule, Op


class Choose(Protocol):
    """Answers where a decision is taken."""

    def cell(
        self,
        cell: Cell,
        ops: Mapping[str, Op],
        *,
        channels: int,
        norm: NormRule,
        partial: int = 1,
        drop_path: bool = False,
    ) -> nn.Module:
        """Return the module of a whole cell, called with its input states.

        Parameters
        ----------
        cell
            The graph; each edge names the decision that it asks.
        ops
            Option label -> operation, for every option of every edge of the cell.
        channels
            Of every state.
        norm
            How candidate operations normalise.
        partial
            One of so many channels goes through the operations.
        drop_path
            Whether a stand-alone network drops the outputs of edges that are no identity.
        """
        ...

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return the module at a free site; ``make(label)`` builds one option of the decision ``ask``."""
        ...
