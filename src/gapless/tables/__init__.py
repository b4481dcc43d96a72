"""Benchmark tables: what architectures are worth on their own, as others measured it. One file is one benchmark.

:func:`load` reads a table; which plug-in does it follows from the columns and the metadata of the file.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapless.core import catalogue, files
from gapless.core.errors import UserError
from gapless.core.text import shown

if TYPE_CHECKING:  # to list the folder imports neither torch nor pyarrow
    from torch import Tensor

    from gapless.core.table import BenchmarkTable

KEY = b"gapless"
"""Key of the Parquet metadata under which a file says where it is from, as JSON."""
FILE = "accuracy.parquet"
"""The file that a folder stands for."""


def load(path: str | Path) -> BenchmarkTable:
    """Read a benchmark table.

    Parameters
    ----------
    path
        A Parquet file, or a folder that holds ``accuracy.parquet``. A table of your own is named with its plug-in, as
        ``mine.py:FILE``; there FILE is relative to the folder of ``mine.py``.

    Raises
    ------
    UserError
        If there is no such file, or no plug-in reads it.
    """
    plugin, file = catalogue.outside(str(path))
    if file:
        kind: type[BenchmarkTable] = catalogue.find(plugin, "tables")
        return kind.read(files.place(plugin).parent / files.place(file.removeprefix(":")))
    path = files.place(path)
    if files.is_folder(path) and files.is_file(path / FILE):
        path = path / FILE
    if not os.path.lexists(path):
        raise UserError(f"There is no table {shown(path)}. {known()}")
    files.checked(path, "The table")
    if path.suffix == ".py":
        raise UserError(f"{path} is a plug-in; name the file that it reads, too, as {path}:FILE.")
    names, metadata = _schema(path)
    kinds = [kind for kind in _kinds() if kind.recognizes(names, metadata)]
    if not kinds:
        raise UserError(f"No plug-in reads the table {path}: it has the columns {', '.join(names)}. {known()}")
    if len(kinds) > 1:
        raise UserError(f"Several plug-ins read the table {path}: {' and '.join(kind.label for kind in kinds)}.")
    status = path.stat()
    return _read(kinds[0], path.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def load_named(path: str | Path) -> BenchmarkTable:
    """Read a benchmark table that the caller names: its plug-in may run, whatever a run or a recipe says of it, too."""
    plugin, file = catalogue.outside(str(path))
    if file and files.is_file(files.place(plugin)):
        catalogue.permit(plugin, catalogue.fingerprint(plugin))
    return load(path)


def _read(kind: type[BenchmarkTable], path: Path, changed: int, size: int) -> BenchmarkTable:
    """Read a table; pages and comparisons ask for the same one many times. A table is never changed once it is read."""
    return kind.read(path)


def known() -> str:
    """Return what the tables look like that there are plug-ins for, as a sentence."""
    return f"Tables that Gapless reads: {'; '.join(f'{kind.label}, {kind.looks_like}' for kind in _kinds())}."


def read_parquet(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the ``pyarrow.Table`` of a file, and what the file says of its origin (see :data:`KEY`).

    Raises
    ------
    UserError
        If it is no Parquet file.
    """
    import pyarrow.parquet as pq

    try:
        data = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from None
    return data, json.loads((data.schema.metadata or {}).get(KEY, b"{}"))


def numbers(data: Any, name: str) -> Tensor:
    """Return a column of a ``pyarrow.Table`` as [N] float64, NaN where there is no value.

    Raises
    ------
    UserError
        If it holds something else than numbers.
    """
    import torch

    try:
        return torch.tensor(data[name].cast("double").to_numpy())
    except ValueError as error:
        raise UserError(f"The column {name} of the table holds no numbers: {error}") from None


def _kinds() -> list[type[BenchmarkTable]]:
    return [catalogue.find(name, "tables") for name in catalogue.names("tables")]


def _schema(path: Path) -> tuple[list[str], dict[str, str]]:
    """Return names of columns, and metadata."""
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from None
    metadata = {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}
    return list(schema.names), metadata
