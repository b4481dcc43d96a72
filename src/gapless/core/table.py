"""Base class of benchmark tables: measured accuracies and costs of the architectures of one space."""

from __future__ import annotations

import abc
import hashlib
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gapless.core.decision import Arch
from gapless.core.errors import UserError, unknown
from gapless.core.space import Space

PERCENT = "%"


@dataclass(frozen=True, eq=False)
class Column:
    """One quantity, measured for every architecture of a table.

    Attributes
    ----------
    name
        Name of the column.
    values
        [N] float64, in the order of the table's architectures.
    unit
        Unit of the values: ``%`` for an accuracy, ``ms``, ``us``, ``params`` ...
    higher_is_better
        Whether a larger value is the better one: true of an accuracy, false of a cost.
    test
        Whether the values are accuracies on test images. A search by such a column has seen the answers.
    repeated_by
        Name of a column that measures the same trainings on other images; the rank correlation of the two says how far
        noise lets any score agree with the table. Empty where there is none.
    group, short
        How a row is printed: the heading of its line ("trained 200 epochs"), and the column's name in that line.
    """

    name: str
    values: Tensor
    unit: str = PERCENT
    higher_is_better: bool = True
    test: bool = False
    repeated_by: str = ""
    group: str = ""
    short: str = ""

    @property
    def is_accuracy(self) -> bool:
        """Whether the column holds percentages of which the largest is the best."""
        return self.unit == PERCENT and self.higher_is_better

    @property
    def best(self) -> int:
        """Place of the best architecture, the first where several are equally good."""
        values = self.values.tolist()
        return values.index(max(values) if self.higher_is_better else min(values))

    def better(self, value: float) -> int:
        """Return the number of architectures that are strictly better than ``value``."""
        return int((self.values > value if self.higher_is_better else self.values < value).sum())

    def worse(self, value: float) -> int:
        """Return the number of architectures that are strictly worse than ``value``."""
        return int((self.values < value if self.higher_is_better else self.values > value).sum())

    def text(self, value: float) -> str:
        """Return a value with its unit, such as ``94.36 %``; whole numbers of a unit of counts have no decimals."""
        return f"{value:,.0f} {self.unit}" if self.unit in COUNTS else f"{value:.2f} {self.unit}"


COUNTS = ("params", "macs")
"""Units of whole numbers."""


class BenchmarkTable(abc.ABC):
    """Base class of every benchmark table.

    Subclasses name a space, recognise their files and read them. Everything else follows from the rows here.

    Parameters
    ----------
    archs
        The architectures, each in the notation of :meth:`key`, without repetitions.
    columns
        What was measured.
    provenance
        What the file says of its origin, as plain JSON types; empty where it says nothing.

    Class attributes
    ----------------
    label
        Name of the plug-in: that of its file.
    source
        Where the numbers come from: one line.
    looks_like
        What its files look like, as a noun phrase that completes "Tables that Gapless reads: ...".
    space
        The space of its architectures, at the size at which they were trained.
    noun
        What a row is, in the singular: "cell", "architecture".
    default_column
        The column that says what an architecture is worth, where none is named.
    search_column
        The column by which a search goes, where none is named: a validation accuracy, if there is one.

    Raises
    ------
    UserError
        If there is no row or no column, an architecture occurs twice, or a value is missing.
    """

    label: ClassVar[str] = ""
    source: ClassVar[str] = ""
    looks_like: ClassVar[str] = ""
    space: ClassVar[Space]
    noun: ClassVar[str] = "architecture"
    default_column: ClassVar[str]
    search_column: ClassVar[str]

    def __init__(
        self, archs: Sequence[str], columns: Iterable[Column], *, provenance: Mapping[str, Any] | None = None
    ) -> None:
        self.archs = tuple(archs)
        self.columns = {column.name: column for column in columns}
        self.provenance = dict(provenance or {})
        if not self.archs or not self.columns:
            raise UserError(f"The table holds no {self.noun}." if self.columns else "The table holds no column.")
        if len(self.places) < len(self.archs):
            twice = next(arch for i, arch in enumerate(self.archs) if self.places[arch] != i)
            raise UserError(f"The table holds the {self.noun} {twice} twice.")
        for column in self.columns.values():
            missing = int((~column.values.isfinite()).sum())
            if missing:
                raise UserError(f"The table holds no {column.name} of {missing:,} of its {len(self.archs):,} rows.")

    # ------------------------------------------------------------------ what a plug-in says

    @classmethod
    def recognizes(cls, columns: Collection[str], metadata: Mapping[str, str]) -> bool:
        """Return whether a Parquet file with these columns and metadata is such a table.

        By default no file is: then a table is named with its plug-in, as ``mine.py:FILE``.
        """
        return False

    @classmethod
    @abc.abstractmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises
        ------
        UserError
            If it holds something else.
        """

    def key(self, arch: Arch) -> str:
        """Return the notation under which an architecture is looked up.

        Tables that fold isomorphic architectures into one row return the same text for all of them.
        """
        return self.space.write(arch)

    def parse(self, key: str) -> Arch:
        """Return the architecture of a row; the inverse of :meth:`key`."""
        return self.space.parse(key)

    @cached_property
    def params(self) -> Tensor:
        """[N] int64: parameters of every architecture as it was trained, counted by the space."""
        table, constant = self.space.cost_table("params")
        price = {
            (d.name, option): int(amount)
            for d, row in zip(self.space.decisions, table.tolist(), strict=True)
            for option, amount in zip(d.options, row, strict=False)
        }
        return torch.tensor([constant + sum(map(price.__getitem__, self.parse(key).items())) for key in self.archs])

    # ------------------------------------------------------------------ what follows from the rows

    @cached_property
    def places(self) -> dict[str, int]:
        """Key of an architecture -> its place."""
        return {arch: i for i, arch in enumerate(self.archs)}

    def holds(self, space: Space) -> bool:
        """Return whether the architectures of ``space`` are those of this table; depth and width do not matter."""
        own = self.space
        return (space.label, space.decisions, space.limits) == (own.label, own.decisions, own.limits)

    def check(self, space: Space, whose: str) -> None:
        """Raise a :class:`UserError` unless the table holds the architectures of ``space``.

        ``whose`` completes the sentence: "this run searched", "this architecture is of".
        """
        if not self.holds(space):
            name = space.label or type(space).__name__
            other = ", with other decisions" if name == self.space.label else ""
            raise UserError(f"The table holds {self.noun}s of {self.space.label}; {whose} {name}{other}.")

    def find(self, arch: Arch) -> int | None:
        """Return the place of an architecture, or None where the table does not hold it."""
        return self.places.get(self.key(arch))

    def place(self, arch: Arch) -> int:
        """Return the place of an architecture.

        Raises
        ------
        UserError
            If the table does not hold it.
        """
        found = self.find(arch)
        if found is None:
            raise UserError(
                f"The table holds no {self.noun} {self.key(arch)}; it has {len(self.archs):,} {self.noun}s of "
                f"{self.space.label}."
            )
        return found

    def column(self, name: str) -> Column:
        """Return a column by its name.

        Raises
        ------
        UserError
            If there is no such column.
        """
        if name not in self.columns:
            raise unknown("column", name, self.columns)
        return self.columns[name]

    def accuracy(self, name: str) -> Column:
        """Return a column that holds accuracies in percent.

        Raises
        ------
        UserError
            If there is no such column, or it holds something else.
        """
        column = self.column(name)
        if not column.is_accuracy:
            legal = ", ".join(c.name for c in self.columns.values() if c.is_accuracy)
            raise UserError(f"The column {name} holds no accuracies but {column.unit}; columns of accuracies: {legal}.")
        return column

    def value(self, arch: Arch, column: str) -> float:
        """Return what a column says of an architecture, unrounded."""
        return float(self.column(column).values[self.place(arch)])

    def row(self, arch: Arch) -> dict[str, float]:
        """Return what every column says of an architecture, to four decimals."""
        place = self.place(arch)
        return {name: round(float(column.values[place]), 4) for name, column in self.columns.items()}

    def rank(self, arch: Arch, column: str) -> int:
        """Return 1 + the number of architectures that are strictly better by a column."""
        return 1 + self.column(column).better(self.value(arch, column))

    def percentile(self, arch: Arch, column: str) -> float:
        """Return the percentage of all architectures that are strictly worse by a column."""
        return 100 * (self.column(column).worse(self.value(arch, column)) / len(self.archs))

    def best(self, column: str) -> Arch:
        """Return the best architecture by a column, the first where several are equally good."""
        return self.parse(self.archs[self.column(column).best])

    def fingerprint(self, column: str) -> str:
        """Return a digest of the architectures and of one column: equal for two files that say the same."""
        values = self.column(column).values.tolist()
        digest = hashlib.sha256("\n".join(self.archs).encode())
        digest.update(struct.pack(f"<{len(values)}d", *values))
        return digest.hexdigest()[:16]
