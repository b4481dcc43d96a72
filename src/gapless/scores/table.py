"""A column of a benchmark table: NAS-Bench-201, whose cells were all trained alone (arXiv 2001.00326).

The baselines of that paper search by the validation accuracy after 12 epochs of training, which is the default; the
answer is then looked up in a 200-epoch test column. Whoever searches by a test column has an oracle.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError, unknown
from gapless.core.judge import Judge
from gapless.core.space import Space
from gapless.tables import nasbench201

SPACE = "nasbench201"


class TableAccuracy(Judge):
    """Accuracy of a trained cell, as a table has it.

    Parameters
    ----------
    file
        The Parquet file of NAS-Bench-201 accuracies (``gapless table import``), or the folder that holds it.
    column
        What to search by: ``cifar10_valid_12`` is what the paper's baselines see.
    """

    label: ClassVar[str] = "table"
    source: ClassVar[str] = "Accuracies of NAS-Bench-201, Dong and Yang, arXiv 2001.00326"

    def __init__(self, space: Space, device: torch.device, *, file: Path, column: str = "cifar10_valid_12") -> None:
        super().__init__(space, device)
        if space.label != SPACE:
            raise UserError(
                f"A table holds cells of {SPACE}, and this search is over {space.label or type(space).__name__}. "
                f"Search with --space {SPACE}, or by another score."
            )
        self.table = nasbench201.load(file)
        if column not in self.table.columns:
            raise unknown("column", column, self.table.columns)
        self.values = self.table.columns[column]
        self.title = f"{column} of {Path(file).name}"
        if "_test_" in column:
            self.notice = (
                f"{column} is a test accuracy: a search by it is an oracle, which no search without the answers can "
                f"match, and its score is no estimate. The papers search by cifar10_valid_12."
            )
        digest = hashlib.sha256("\n".join(self.table.archs).encode())
        digest.update(self.values.astype("<f8").tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __call__(self, arch: Arch) -> float:
        """Return percent."""
        text = self.space.write(arch)
        if text not in self.table.index:
            raise UserError(
                f"The table holds no cell {text}: it is a part of the benchmark, and a search needs the whole of it."
            )
        return float(self.values[self.table.index[text]])


SCORE = TableAccuracy
