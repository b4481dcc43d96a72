"""What a space's ``build`` asks: it describes the network once, and the answers make it a supernet, one network, or a
bill of costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from gapless.core.cell import CellSpec


class Choose(Protocol):
    """Answers where a decision is taken."""

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return the module of a whole cell, called with its input states."""
        ...

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return the module at a free site; ``make(label)`` builds one option of the decision ``ask``."""
        ...
