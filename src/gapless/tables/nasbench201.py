"""The NAS-Bench-201 table: accuracies of all 15,625 cells (arXiv 2001.00326), from one small Parquet file.

Columns are ``{cifar10,cifar100,imagenet16}_{valid,test}_{200,12}``, in percent, for training of 200 and of 12 epochs,
which must never be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gapless.core.errors import UserError, unknown

CELLS = 15_625
DEFAULT = "cifar10_test_200"


@dataclass(frozen=True, eq=False)
class Table:
    """Accuracies by architecture string.

    Attributes
    ----------
    archs
        Architecture strings in the benchmark's own order.
    columns
        Column name -> [N] float64, percent.
    """

    archs: tuple[str, ...]
    columns: dict[str, NDArray[np.float64]]

    @cached_property
    def index(self) -> dict[str, int]:
        """Architecture string -> place."""
        return {arch: i for i, arch in enumerate(self.archs)}

    def row(self, arch: str) -> dict[str, float]:
        """Return the accuracies of a cell.

        Raises
        ------
        UserError
            Where the table does not hold it.
        """
        place = self._place(arch)
        return {name: round(float(values[place]), 4) for name, values in self.columns.items()}

    def rank(self, arch: str, column: str = DEFAULT) -> int:
        """Return 1 + the number of cells that are strictly better."""
        values = self._column(column)
        return 1 + int((values > values[self._place(arch)]).sum())

    def percentile(self, arch: str, column: str = DEFAULT) -> float:
        """Return the percentage of all cells that are strictly worse."""
        values = self._column(column)
        return 100 * float((values < values[self._place(arch)]).mean())

    def _column(self, name: str) -> NDArray[np.float64]:
        if name not in self.columns:
            raise unknown("column", name, self.columns)
        return self.columns[name]

    def _place(self, arch: str) -> int:
        if arch not in self.index:
            raise UserError(f"The table holds no cell {arch}.")
        return self.index[arch]


def load(path: str | Path) -> Table:
    """Read the table.

    Raises
    ------
    UserError
        Where the file is missing, is no Parquet, or lacks the columns.
    """
    path = Path(path)
    if path.is_dir() and (path / "accuracy.parquet").is_file():
        path = path / "accuracy.parquet"
    if not path.is_file():
        raise UserError(f"There is no table {path}. Give the Parquet file of NAS-Bench-201 accuracies.")
    try:
        data = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from None
    values = [name for name in data.column_names if name.endswith(("_200", "_12"))]
    if "arch" not in data.column_names or not values:
        raise UserError(f"{path} is no table of NAS-Bench-201: it has the columns {', '.join(data.column_names)}.")
    return Table(
        tuple(data["arch"].to_pylist()),
        {name: np.asarray(data[name].to_numpy(), dtype=np.float64) for name in values},
    )
