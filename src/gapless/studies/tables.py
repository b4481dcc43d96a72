"""Benchmark tables as files: import the official ones, and see what a table holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gapless.core import files
from gapless.core.errors import UserError
from gapless.tables import load_named
from gapless.tables.official import natsbench

PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes
    ----------
    path
        The Parquet file.
    cells, columns
        Rows, and the names of the accuracies.
    warnings
        A sentence for each thing that is not as in the whole benchmark.
    """

    path: Path
    cells: int
    columns: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        return {
            "table": str(self.path),
            "cells": self.cells,
            "columns": list(self.columns),
            "warnings": list(self.warnings),
        }


def import_table(
    path: str | Path,
    out: str | Path = "accuracy.parquet",
    *,
    trust: bool = False,
    told: Callable[[int, int], None] | None = None,
) -> Imported:
    """Read the official NATS-Bench topology files and write the small table that everything here reads.

    Parameters
    ----------
    path
        The folder ``NATS-tss-v1_0-3ffb9-simple`` or the file ``NATS-tss-v1_0-3ffb9.pickle.pbz2``.
    out
        The Parquet file to write. One that is there already is not replaced.
    trust
        Whether the pickles may be read: that runs whatever is in them.
    told
        Called after each cell with (cells read, cells to read).

    Raises
    ------
    UserError
        For anything wrong with what was given (see :func:`gapless.tables.official.natsbench.read`); nothing is written
        then.
    """
    out = files.place(out)
    if out.suffix != ".parquet":
        raise UserError(f"`out` must be a Parquet file, such as accuracy.parquet; got {out}.")
    if out.exists():
        raise UserError(f"{out} is already there. Give another `out`, or move it away.")
    if not out.parent.is_dir():
        raise UserError(f"There is no folder {out.parent} to write {out.name} into.")
    cells = natsbench.read(path, trust=trust, told=told)
    natsbench.write(cells, out)
    return Imported(out, len(cells.archs), tuple(cells.columns), cells.warnings)


def show_table(path: str | Path) -> dict[str, Any]:
    """Return what a table holds.

    Returns
    -------
    dict
        ``table``; ``plugin`` that reads it; ``space`` of its architectures; ``noun``: what a row is; ``cells``: the
        number of rows; ``columns``: name -> ``unit``, ``higher_is_better``, ``best`` value, ``arch`` of it, and
        ``percentiles``: percent of the architectures -> value that they do not exceed, interpolated; ``provenance``:
        what the file says of its origin, empty where it says nothing.

    Raises
    ------
    UserError
        Where the file is no table.
    """
    data = load_named(path)
    columns = {}
    for name, column in data.columns.items():
        levels = np.percentile(column.values.numpy(), PERCENTILES)
        columns[name] = {
            "unit": column.unit,
            "higher_is_better": column.higher_is_better,
            "best": round(float(column.values[column.best]), 4),
            "arch": data.archs[column.best],
            "percentiles": {str(p): round(float(v), 4) for p, v in zip(PERCENTILES, levels, strict=True)},
        }
    return {
        "table": str(path),
        "plugin": data.label,
        "space": data.space.label,
        "noun": data.noun,
        "cells": len(data.archs),
        "columns": columns,
        "provenance": data.provenance,
    }
