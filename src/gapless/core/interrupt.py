"""Ctrl-C and SIGTERM, from the first instruction of a command to its last.

The command installs :func:`leave` before it imports anything, and :func:`interrupt` before it begins to work. Library
code converts what :func:`interrupt` raises into :class:`gapless.core.errors.Stopped` where a run can go on.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked = 0


def ask(number: int) -> None:
    """Remember that a signal asked this process to stop; 0 forgets it."""
    global _asked
    _asked = number


def status() -> int:
    """Return the exit status of a process that was asked to stop: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_asked or signal.SIGINT)


def caused(error: BaseException) -> bool:
    """Return whether an interrupt ended in this error: other libraries turn it into one of their own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def leave(number: int, frame: FrameType | None) -> None:
    """Handler of a signal while nothing is begun yet: end the process with one sentence."""
    os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of a signal while a command works: remember it and raise :class:`KeyboardInterrupt`."""
    ask(number)
    raise KeyboardInterrupt


def again(unraisable: UnraisableHookArgs) -> None:
    """Stand in for ``sys.unraisablehook``: where an interrupt was raised in a place that ignores errors, as a callback
    of the garbage collector is, raise it again a moment later."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, lambda number, frame: interrupt(_asked or signal.SIGINT, frame))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
    else:
        sys.__unraisablehook__(unraisable)
