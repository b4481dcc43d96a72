"""Triton, or a placeholder with which the modules of this package import where Triton is not installed."""

from __future__ import annotations

from typing import Any


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


tl: Any
triton: Any
try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = Placeholder()
