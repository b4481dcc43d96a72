"""How a compilation of the CPU kernels is announced; without the compiler, so that commands can
import it at their start."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Compilation:
    """The state of a compilation: how many functions are done, of how many, and about how many
    seconds it takes in all. ``note``: a sentence on something unusual, else empty."""

    done: int
    total: int
    seconds: float
    note: str = ""

    @property
    def text(self) -> str:
        """The announcement."""
        note = f" {self.note}" if self.note else ""
        return f"Compiling the CPU kernels for this processor, once; about {self.seconds:.0f} s.{note}"


Report = Callable[[Compilation], None]
"""A callback that is called when a compilation begins (``done`` is 0) and after each function."""


def to_stderr(state: Compilation) -> None:
    """Write one line to the standard error when a compilation begins.

    This is what happens without a callback. It is what ``torch.hub`` does before a download: a
    script that would otherwise seem to hang says why, whatever logging is configured, and standard
    output stays the script's own.
    """
    if not state.done:
        print(state.text, file=sys.stderr, flush=True)


_callbacks: list[Report] = [to_stderr]
_seconds = 0.0


def compile_seconds() -> float:
    """Return how long this process has compiled kernels, or waited for another one that does; a
    measurement of a computation subtracts what was added meanwhile."""
    return _seconds


@contextmanager
def timing() -> Iterator[None]:
    """Count the time in this context as compilation."""
    global _seconds
    started = time.perf_counter()
    try:
        yield
    finally:
        _seconds += time.perf_counter() - started


@contextmanager
def reporting(callback: Report) -> Iterator[None]:
    """Use a callback in this context, in place of :func:`to_stderr`."""
    _callbacks.append(callback)
    try:
        yield
    finally:
        _callbacks.remove(callback)


def report(state: Compilation) -> None:
    """Pass the state of a compilation to the present callback."""
    _callbacks[-1](state)
