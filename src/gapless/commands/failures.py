"""What a command says when the machine fails it: no room, no memory, a file that is gone."""

from __future__ import annotations

import errno
import re

from gapless.core.machine import memory
from gapless.core.text import shown

NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|could not create a (memory|primitive)|"
    r"std::bad_alloc|Cannot allocate memory|bad allocation|Unable to allocate",
    re.IGNORECASE,
)
"""How PyTorch, oneDNN, NumPy and C libraries say that memory is short."""
LOWER = "Lower `train.batch` or `retrain.batch`, the width or the number of cells, or the size and number of images."


def sentence(error: BaseException) -> str | None:
    """Return what to say of an error that is the machine's, not the program's; None for any other.

    Parameters
    ----------
    error
        What a command was ended by.
    """
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError | SystemError) and NO_MEMORY.search(str(error))
    ):
        has = memory()
        there = "" if has is None else f" This process may use {has / 2**30:.1f} GiB in all."
        asked = re.search(r"[Tt]ried to allocate [^.]*?(?:[KMGT]i?B|bytes)|allocate [\d.]+ ?[KMGT]?i?B", str(error))
        tried = "" if asked is None else f" It asked for more ({asked.group().lower()})."
        return f"There is not enough memory.{tried}{there} {LOWER}"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{shown(str(error.filename))}: "
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}{reason}. Make room and type the command again; what was saved before is whole."
        return f"{where}{reason}."
    return None
