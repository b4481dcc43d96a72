"""Errors in the user's words: what was given, what is legal, what to try.

A message names a parameter in backquotes, as Python spells it, and knows nothing of the command line::

    raise UserError(f"`width` must be at least 1; got {width}.", of="space")

``of`` is the table of a recipe that holds the parameter: ``space``, ``train``, ``retrain``, ``method``, ``score``,
``data``, ``run`` or ``limit``. Without it, the parameter is one of the function that was called, as ``trainings`` of
:func:`gapless.gap`. A message that names parameters of two tables writes a name with its table: ``train.epochs`` in
backquotes. So one message serves all readers::

    Python              `width` must be at least 1; got 0.
    the command         `--space.width` must be at least 1; got 0.
    a recipe, with at   my.toml, line 3: `space.width` must be at least 1; got 0.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable

from gapless.core import interrupt

TABLES = ("space", "method", "methods", "score", "train", "limit", "retrain", "data", "run")
"""Tables of a recipe: their keys are parameters, and options of a command."""


class UserError(ValueError):
    """A mistake in what the user gave. The command line prints it without a traceback and exits with status 2.

    Parameters
    ----------
    message
        One or two sentences that name parameters in backquotes.
    of
        Table of a recipe to which the parameters named without one belong, as ``space``; empty for parameters of the
        function that was called.
    where
        Place of the mistake in a recipe, as ``"r.toml, line 3: "``; empty where it stands in no file.

    >>> error = UserError("`width` must be at least 1; got 0.", of="space")
    >>> str(error), error.names
    ('`width` must be at least 1; got 0.', ('space.width',))
    >>> error.spelled(lambda name: f"--{name}")
    '`--space.width` must be at least 1; got 0.'
    """

    def __init__(self, message: str, *, of: str = "", where: str = "") -> None:
        super().__init__(message)
        self.of, self.where = of, where

    def __str__(self) -> str:
        """Return the message for a reader in Python: as written, or behind the place in a recipe."""
        return self.where + self.spelled(lambda name: name) if self.where else str(self.args[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that the message names, each with its table."""
        found: list[str] = []
        self.spelled(found.append)
        return tuple(found)

    def spelled(self, spell: Callable[[str], str | None]) -> str:
        """Return the message without its place, each parameter as ``spell`` writes ``table.name``, or ``name`` of one
        that is in no table; None leaves it as it is."""

        def one(match: re.Match[str]) -> str:
            table, _, name = match.group(1).rpartition(".")
            if table.partition(".")[0] not in ("", *TABLES):
                return match.group()
            table = table or self.of
            return f"`{spell(f'{table}.{name}' if table else name) or match.group(1)}`"

        return re.sub(r"`([A-Za-z]\w*(?:\.\w+)*)`", one, str(self.args[0]))

    def at(self, where: str) -> UserError:
        """Return the same error with its place in a recipe; unchanged where ``where`` is empty."""
        return type(self)(str(self.args[0]), of=self.of, where=where) if where else self


class Untrusted(UserError):
    """The code of an outside file would be run that a recipe or a run folder names, and that is not permitted."""


class Occupied(UserError):
    """The folder of a new run is not free, or another process has just taken it."""


class Stopped(Exception):
    """A run was asked to stop, and has saved where it stands in the folder given; None where it has no folder. With
    the command ``again`` it goes on.

    Attributes
    ----------
    status
        Exit status of a command that ends so: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, path: str | None, *, again: str = "gapless resume") -> None:
        self.path, self.status = path, interrupt.status()
        super().__init__(f"Stopped. Go on with: {again} {shlex.quote(path)}" if path else "Stopped.")


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
