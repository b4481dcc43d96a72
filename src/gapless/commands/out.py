"""Where a command writes what it makes, and what to type next."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gapless.core.errors import Occupied
from gapless.runs.run import Run

R = TypeVar("R")


def into(out: Path | None, stem: str, begin: Callable[[Path], R]) -> R:
    """Begin a run and return its result.

    Parameters
    ----------
    out
        The folder that was typed.
    stem
        Without ``out``: the folder, with a number behind it where it is there already. Where another process takes it
        at the same moment, the next number is tried.
    begin
        Begins the run in a folder.
    """
    if out is not None:
        return begin(out)
    for path in map(Path, itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2)))):
        if not os.path.lexists(path):
            try:
                return begin(path)
            except Occupied:
                continue
    raise AssertionError("numbers do not end")


def trust_of(run: Run) -> str:
    """Return the option ``--trust``, with a space before it, where what comes next runs the code of an outside file;
    else ""."""
    return " --trust" if str(run.recipe().space.get("name", "")).endswith(".py") else ""
