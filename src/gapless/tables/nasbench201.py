"""NAS-Bench-201 (arXiv 2001.00326): accuracies of all 15,625 cells, from one small Parquet file.

Columns are ``{cifar10,cifar100,imagenet16}_{valid,test}_{200,12}``, in percent, for training of 200 and of 12 epochs,
which must never be mixed. The baselines of the paper search by the validation accuracy after 12 epochs; the answer is
then looked up in a 200-epoch test column.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Self

from gapless.core.table import BenchmarkTable, Column
from gapless.spaces.nasbench201 import NASBench201
from gapless.tables import numbers, read_parquet

CELLS = 15_625
EPOCHS = ("200", "12")


class NASBench201Table(BenchmarkTable):
    """The table of NAS-Bench-201, or a part of it."""

    label: ClassVar[str] = "nasbench201"
    source: ClassVar[str] = "NAS-Bench-201, Dong and Yang, arXiv 2001.00326"
    looks_like: ClassVar[str] = "a column arch of cells and accuracies such as cifar10_test_200"
    space: ClassVar[NASBench201] = NASBench201().alone()
    noun: ClassVar[str] = "cell"
    default_column: ClassVar[str] = "cifar10_test_200"
    search_column: ClassVar[str] = "cifar10_valid_12"

    @classmethod
    def recognizes(cls, columns: Collection[str], metadata: Mapping[str, str]) -> bool:
        """Return whether there are cells, and accuracies after 200 or 12 epochs."""
        return "arch" in columns and any(_is_accuracy(name) for name in columns)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the Parquet file that ``gapless table import`` writes."""
        data, provenance = read_parquet(path)
        names = [name for name in data.column_names if _is_accuracy(name)]
        columns = []
        for name in names:
            short, _, epochs = name.rpartition("_")
            valid = name.replace("_test_", "_valid_")
            columns.append(
                Column(
                    name,
                    numbers(data, name),
                    test="_test_" in name,
                    repeated_by=valid if valid != name and valid in names else "",
                    group=f"trained {epochs} epochs",
                    short=short,
                )
            )
        return cls(data["arch"].to_pylist(), columns, provenance=provenance)


def _is_accuracy(name: str) -> bool:
    return name.rpartition("_")[2] in EPOCHS and "_" in name


TABLE = NASBench201Table
