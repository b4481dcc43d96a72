"""Triton, or a placeholder with which the modules of this package import where Triton is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gapless.kernels.gpu import INSTALLED


class Placeholder:
    """Decorates kernels and wraps constants like Triton; launching a kernel raises ImportError."""

    def jit(self, kernel: Any = None, **options: Any) -> Any:
        """Replace a kernel."""
        return self.jit if kernel is None else self

    def constexpr(self, value: Any) -> Any:
        """Return the value."""
        return value

    def __getitem__(self, grid: Any) -> Any:
        raise ImportError("kernels for a GPU need Triton: install the package triton")


triton: Any = import_module("triton") if INSTALLED else Placeholder()
tl: Any = import_module("triton.language") if INSTALLED else Placeholder()
