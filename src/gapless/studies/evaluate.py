"""What is known of an architecture without training it: its size, and its place in a table."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapless.core import catalogue
from gapless.core.decision import Arch
from gapless.core.errors import UserError, nearest
from gapless.core.settings import fields_of, typed
from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable
from gapless.core.text import printable
from gapless.runs.recorded import RecordedSpace
from gapless.runs.run import Run
from gapless.tables import load_named

FOREIGN = {
    r"\{": "JSON, in which NNI and mmrazor write architectures: choices of their own search, not of a space here. "
    "Give the architecture in the notation of its space",
    r"\d+(:\d+){4}$": "an architecture of the size space of NATS-Bench, channels of five stages. There is no "
    "such space here",
    r"\(\s*\d\s*(,\s*\d\s*){5}\)$": "the tuple with which NASLib writes cells of NAS-Bench-201, whose order of "
    "operations is its own. Give the benchmark's string, |nor_conv_3x3~0|+|...|",
}
"""Notations of other libraries that are recognised and not read: pattern -> what it is."""


def locate(
    given: str | Path, space: str | None = None, fields: Mapping[str, Any] | None = None
) -> tuple[Arch, Space, Run | None]:
    """Return (architecture, space, run) of a run folder, or of an architecture in any notation.

    Parameters
    ----------
    given
        A run folder, a file that holds an architecture, or its text.
    space
        Name of the space; by default that of the run, else the first that can read the text.
    fields
        Fields of the space in which a text is read: they can change its decisions. Those that a space does not have are
        left to the caller.

    Returns
    -------
    tuple
        The space of a text has these fields, and those under which it could be read (``Space.readings``); what nobody
        said is that of the paper's data (``Space.usual``).

    Raises
    ------
    UserError
        Where nothing can read it.
    """
    if os.path.isdir(given):  # unlike Path.is_dir, it takes a text that is too long for a path
        run = Run.open(given)
        arch, own = run.found()
        if space is not None and space != own.label:
            raise UserError(f"The run {given} searched the space {own.label}, not {space}.")
        return arch, own, run
    names = [space] if space else [n for n in catalogue.names("spaces") if not catalogue.find(n, "spaces").python_only]
    errors: dict[str, UserError] = {}
    for name in names:
        space_class: type[Space] = catalogue.find(name, "spaces")
        asked = {name: value for name, value in (fields or {}).items() if name in fields_of(space_class)}
        for reading in space_class.readings:
            try:
                candidate = space_class.usual(**{**reading, **typed(space_class, asked, of="space")})
                return candidate.read(given), candidate, None
            except UserError as error:
                errors.setdefault(name, error)
    if not os.path.isfile(given):
        for pattern, what in FOREIGN.items():
            if re.match(pattern, str(given).strip()):
                raise UserError(f"{printable(str(given).strip()[:80])!r} looks like {what}.")
    for name, wrong in errors.items():
        if len(errors) == 1 or os.path.isfile(given) or catalogue.find(name, "spaces").claims(str(given)):
            raise wrong
    published = [known for name in errors for known in catalogue.find(name, "spaces").published()]
    hint = nearest(str(given), published)
    raise UserError(
        f"{str(given)[:80]!r} is no run folder, no file and no architecture of {' or '.join(errors)}.{hint}"
    )


def evaluate(
    given: str | Path,
    *,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    table: str | Path | BenchmarkTable | None = None,
    column: str | None = None,
) -> dict[str, Any]:
    """Return parameters and MACs, and with a table the row, rank and percentile among all its architectures.

    Parameters
    ----------
    given, space
        See :func:`locate`.
    fields
        Fields of the space that differ from the size at which the paper trains an architecture alone.
    table
        A benchmark table, or its file (:func:`gapless.tables.load`).
    column
        The column by which it is ranked; by default the table's own.
    """
    arch, own, run = locate(given, space, fields)
    given_fields = typed(type(own), fields or {}, of="space")
    if run is not None and isinstance(own, RecordedSpace) and not given_fields:
        sizes = {unit: run.alone()[unit] for unit in ("params", "macs")}
    else:
        sizes = size_of(own.replace(**given_fields).alone().replace(**given_fields), arch)
    found: dict[str, Any] = {
        "run": None if run is None else str(run.path),
        "space": own.label,
        "arch": str(arch),
        "notation": own.write(arch),
        **sizes,
    }
    if table is not None:
        rows = table if isinstance(table, BenchmarkTable) else load_named(table)
        rows.check(own, "this architecture is of")
        column = column or rows.default_column
        found["table"] = {
            **rows.row(arch),
            "column": column,
            "rank": rows.rank(arch, column),
            "percentile": round(rows.percentile(arch, column), 4),
            "cells": len(rows.archs),
        }
    return found
