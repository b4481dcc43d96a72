"""What a command says when the machine fails it: no room, no memory, a file that is gone."""

from __future__ import annotations

import errno
import re

from gapless.core.errors import UserError
from gapless.core.machine import address_space, memory
from gapless.core.text import shown

NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|could not create a (memory|primitive)|"
    r"std::bad_alloc|Cannot allocate memory|bad allocation|Unable to allocate",
    re.IGNORECASE,
)
"""How PyTorch, oneDNN, NumPy and C libraries say that memory is short."""
NOT_LOADED = re.compile(r"failed to map segment|[Cc]ould not find/load shared object|cannot allocate")
"""What is said where a library cannot be loaded, for which memory is one reason of several."""
LITTLE = 2 * 2**30
"""Memory in bytes with which the libraries cannot all be loaded; by measurement (it takes 1.5 GiB)."""
COMPUTING = ("search", "resume", "retrain", "compare", "gap", "diagnose")
SHORT = "There is not enough memory."
LOWER = "Lower `train.batch` or `retrain.batch`, the width or the number of cells, or the size and number of images."


def check_address_space(command: str) -> None:
    """Raise a :class:`UserError` where a command that computes may address too little memory: libraries would not fail
    then, but wait for ever for memory that does not come."""
    limit = address_space()
    if command in COMPUTING and limit is not None and limit < LITTLE:
        raise UserError(
            f"This process may address {limit / 2**30:.1f} GiB of memory (ulimit -v); the libraries that compute need "
            f"{LITTLE / 2**30:.0f}. Raise that limit; to bound memory, a control group (a container) is better."
        )


def sentence(error: BaseException) -> str | None:
    """Return what to say of an error that is the machine's, not the program's; None for any other.

    Parameters
    ----------
    error
        What a command was ended by.
    """
    has = memory()
    if isinstance(error, OSError | ImportError) and NOT_LOADED.search(str(error)) and has is not None and has < LITTLE:
        return (
            f"There is not enough memory to load the libraries: this process may use {has / 2**30:.1f} GiB in all, and "
            f"needs about {LITTLE / 2**30:.0f}."
        )
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError | SystemError) and NO_MEMORY.search(str(error))
    ):
        there = "" if has is None else f" This process may use {has / 2**30:.1f} GiB in all."
        asked = re.search(r"[Tt]ried to allocate [^.]*?(?:[KMGT]i?B|bytes)|allocate [\d.]+ ?[KMGT]?i?B", str(error))
        tried = "" if asked is None else f" It asked for more ({asked.group().lower()})."
        return f"{SHORT}{tried}{there} {LOWER}"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{shown(str(error.filename))}: "
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}{reason}. Make room and type the command again; what was saved before is whole."
        return f"{where}{reason}."
    return None
