"""Attributes of a package that are imported when they are first used (PEP 562), so that importing it takes no time."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def attributes(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package, for the imports that its file holds under
    ``if TYPE_CHECKING:``.

    Type checkers see these imports; at run time, each is made when its name is first used.

    Parameters
    ----------
    package
        ``__name__`` of the package.
    file
        Its ``__file__``.
    """

    @cache
    def origins() -> dict[str, tuple[str, str]]:
        """Return name -> (module, its name there)."""
        return {
            alias.asname or alias.name: (str(node.module), alias.name)
            for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
            if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def getter(name: str) -> Any:
        if name.startswith("__") or name not in origins():
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        module, there = origins()[name]
        value = getattr(importlib.import_module(module), there)
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins()})

    return getter, listing
