"""Errors that speak in the user's words: what was given, what is legal, what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave. The command line prints it without a traceback and exits with status 2."""


class Stopped(Exception):
    """A run was asked to stop, and has saved where it stands in the folder given; None where it has no folder. With
    the command ``again`` it goes on."""

    def __init__(self, path: str | None, *, again: str = "gapless resume") -> None:
        self.path = path
        super().__init__(f"Stopped. Go on with: {again} {path}" if path else "Stopped.")


def nearest(name: str, legal: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the legal name closest to ``name``, or ``""`` when none is close.

    >>> nearest("drna", ["darts", "drnas"])
    " Did you mean 'drnas'?"
    """
    close = difflib.get_close_matches(name, list(legal), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, legal: Iterable[str]) -> UserError:
    """Return the error for a name that is not in the list of legal ones."""
    names = list(legal)
    return UserError(f"There is no {kind} {name!r}.{nearest(name, names)} Legal: {', '.join(names) or 'none'}.")
