"""A column of a benchmark table: every architecture in it was trained alone, by others.

A search by a column of test accuracies is an oracle: it has seen the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.judge import Judge
from gapless.core.space import Space
from gapless.tables import load


class TableAccuracy(Judge):
    """Value of an architecture in a column of a benchmark table.

    Parameters
    ----------
    file
        The file of the table (``gapless table import`` writes that of NAS-Bench-201), or the folder that holds it.
    column
        Column to search by, in which larger values are better; by default the one that the table names for it.
    """

    label: ClassVar[str] = "table"
    source: ClassVar[str] = "A column of a benchmark table (see the tables)"

    def __init__(self, space: Space, device: torch.device, *, file: Path, column: str | None = None) -> None:
        super().__init__(space, device)
        self.table = load(file)
        if not self.table.holds(space):
            own = self.table.space.label
            raise UserError(
                f"The table holds {self.table.noun}s of {own}, and this search is over "
                f"{space.label or type(space).__name__}. Search the `space` {own}, or by another score."
            )
        self.column = self.table.column(column or self.table.search_column)
        name = self.column.name
        if not self.column.higher_is_better:
            legal = ", ".join(c.name for c in self.table.columns.values() if c.higher_is_better)
            raise UserError(f"Of {name} the smallest value is the best, and a score is larger for better: {legal}.")
        self.unit = self.column.unit
        self.title = f"{name} of {Path(file).name}"
        if self.column.test:
            self.notice = (
                f"{name} is a test accuracy: a search by it is an oracle, which no search without the answers can "
                f"match, and its score is no estimate. The papers search by {self.table.search_column}."
            )
        self.fingerprint = self.table.fingerprint(name)

    @classmethod
    def completed(cls, **settings: Any) -> Mapping[str, Any]:
        """Return the settings with the column by which the search goes."""
        return {**settings, "column": settings.get("column") or load(settings["file"]).search_column}

    def __call__(self, arch: Arch) -> float:
        """Return the value in the column, in its unit."""
        place = self.table.find(arch)
        if place is None:
            raise UserError(
                f"The table holds no {self.table.noun} {self.table.key(arch)}: it is a part of the benchmark, and a "
                "search needs the whole of it."
            )
        return float(self.column.values[place])


SCORE = TableAccuracy
