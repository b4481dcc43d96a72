"""The cell benchmark of TangleNAS (arXiv 2312.10440): all 4,096 networks of its cell space, each trained once, with one
seed, on Fashion-MNIST (automl/TangleNAS, toy_search_spaces/cell_topology/create_benchmark.py: 200 epochs by default).

* Networks were trained on all training images, so that there is no validation accuracy. ``test_acc`` says what an
  architecture is worth; a search by it has seen the answers. A search goes by ``train_acc``.
* Latencies are means of 100 passes of one image, in microseconds on a GPU and in milliseconds on a CPU. Those on the
  CPU are noisy: in half of the rows their standard deviation exceeds their mean.
* ``num_params`` of the file is not a column here: the released code counts the operations of the normal cell in the two
  reduction cells and the other way round, so that the number belongs to the architecture with the two cells exchanged.
  Parameters are counted by the space.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Self

from gapless.core.table import BenchmarkTable, Column
from gapless.spaces.entangled_cells import EntangledCells
from gapless.tables import numbers, read_parquet

UNITS = {"test_acc": "%", "train_acc": "%", "latency_gpu_mean": "us", "latency_cpu_mean": "ms"}


class EntangledCellsTable(BenchmarkTable):
    """The cell benchmark of TangleNAS, or a part of it."""

    label: ClassVar[str] = "entangled_cells"
    source: ClassVar[str] = "Weight-Entanglement Meets Gradient-Based NAS, Sukthanker et al., arXiv 2312.10440"
    looks_like: ClassVar[str] = "a column genotype of two cells, test_acc and train_acc"
    space: ClassVar[EntangledCells] = EntangledCells.usual()
    default_column: ClassVar[str] = "test_acc"
    search_column: ClassVar[str] = "train_acc"

    @classmethod
    def recognizes(cls, columns: Collection[str], metadata: Mapping[str, str]) -> bool:
        """Return whether there are genotypes with their accuracies."""
        return {"genotype", "test_acc", "train_acc"} <= set(columns)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a Parquet file of the released dictionary: its keys as ``genotype``, its entries as columns."""
        data, provenance = read_parquet(path)
        columns = [
            Column(
                name,
                numbers(data, name),
                unit=unit,
                higher_is_better=unit == "%",
                test=name == "test_acc",
                group="trained once" if unit == "%" else "measured",
            )
            for name, unit in UNITS.items()
            if name in data.column_names
        ]
        return cls(data["genotype"].to_pylist(), columns, provenance=provenance)


TABLE = EntangledCellsTable
