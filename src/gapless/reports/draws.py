"""What the architectures are worth that a search draws, epoch by epoch, looked up in a table: the figure of DrNAS
(arXiv 2006.10355) that shows its distribution close in on good cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gapless.core.decision import Arch
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable
from gapless.reports.curves import starts
from gapless.reports.panel import (
    BOTTOM,
    COLUMN,
    LEADER,
    SIDE,
    SMALL,
    End,
    Look,
    curve,
    epochs,
    foot,
    label_ends,
    panel,
    sheet,
    side_title,
    text_width,
    write,
)
from gapless.reports.scale import ErrorScale

CHOICE, MEDIAN, EDGE, OPTIMUM = Look("#0072b2"), Look("#333333"), Look("#666666"), Look("#b87a00")
OUTER, INNER = "#e3e3e3", "#c2c2c2"


@dataclass(frozen=True)
class Range:
    """Table accuracies in percent of the architectures drawn in one epoch, and of the choice.

    Attributes
    ----------
    epoch
        Counted from 1.
    draws
        How many were drawn.
    min, lower_quartile, median, upper_quartile, max
        Of them; quartiles are interpolated linearly.
    choice
        Of the architecture that the scores said then.
    """

    epoch: int
    draws: int
    min: float
    lower_quartile: float
    median: float
    upper_quartile: float
    max: float
    choice: float


def ranges(records: Sequence[Mapping[str, Any]], space: Space, table: BenchmarkTable, column: str) -> list[Range]:
    """Look up the draws of every epoch.

    Parameters
    ----------
    records
        The trace of a search.
    space
        The space that was searched.
    table, column
        Where the accuracies stand.

    Returns
    -------
    list of Range
        Empty where some epoch has no draws: the trace is older than they are, or the method draws none.

    Raises
    ------
    UserError
        If the table holds another space, or has no such column of accuracies.
    """
    table.check(space, "this run searched")
    table.accuracy(column)
    if not all(r.get("draws") for r in records):
        return []
    return [_range(record, space, table, column) for record in records]


def _range(record: Mapping[str, Any], space: Space, table: BenchmarkTable, column: str) -> Range:
    drawn = np.array([table.value(space.unpack(text), column) for text in record["draws"]])
    low, first, median, third, high = (float(v) for v in np.percentile(drawn, [0, 25, 50, 75, 100]))
    choice = table.value(Arch.parse(record["arch"]), column)
    return Range(record["epoch"] + 1, len(drawn), low, first, median, third, high, choice)


def summary(found: Sequence[Range], table: BenchmarkTable, column: str) -> dict[str, Any]:
    """Return the numbers of the last epoch, with the column and the best of the whole table, as plain JSON types."""
    numbers = {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(found[-1]).items()}
    return {"column": column, **numbers, "optimum": round(float(table.column(column).values.max()), 4)}


def draw_ranges(
    found: Sequence[Range], table: BenchmarkTable, column: str, records: Sequence[Mapping[str, Any]]
) -> Figure:
    """Draw the ranges in the width of a column.

    The accuracies stand on a logarithmic scale of the error, for the worst draws lie near chance and the best tenths of
    a percent apart; nothing is cut off.

    Parameters
    ----------
    found
        What `ranges` returned, not empty.
    table, column
        Where the optimum is read.
    records
        The trace, for the boundaries of stages.
    """
    best = float(table.column(column).values.max())
    by_name = {name: np.array([getattr(r, name) for r in found]) for name in asdict(found[0]) if name != "epoch"}
    count = int(by_name["draws"].max())
    ends = [
        End("choice", by_name["choice"][-1], CHOICE, bold=True),
        End(f"best of {count}", by_name["max"][-1], EDGE),
        End("upper quartile", by_name["upper_quartile"][-1], EDGE),
        End("median", by_name["median"][-1], MEDIAN),
        End("lower quartile", by_name["lower_quartile"][-1], EDGE),
        End(f"worst of {count}", by_name["min"][-1], EDGE),
    ]
    room = LEADER + max(text_width(end.text) for end in ends) + 0.04
    scale = ErrorScale(min(by_name["min"].min(), by_name["choice"].min()), best)
    left = SIDE + max(text_width(f"{mark:g}") for mark in scale.marks)
    top, high = 0.24, 1.75
    figure = sheet(COLUMN, top + high + BOTTOM)
    axes = panel(figure, left, top, COLUMN - left - room, high)
    epochs(axes, len(found), starts(records))
    scale.upwards(axes)
    x = np.arange(1, len(found) + 1)
    if len(found) == 1:  # a band needs two ends
        x, by_name = np.array([0.5, 1.0]), {name: np.repeat(v, 2) for name, v in by_name.items()}
    axes.fill_between(x, by_name["min"], by_name["max"], color=OUTER, linewidth=0, zorder=1)
    axes.fill_between(x, by_name["lower_quartile"], by_name["upper_quartile"], color=INNER, linewidth=0, zorder=2)
    for name, look in (("median", MEDIAN), ("choice", CHOICE)):
        curve(axes, [getattr(r, name) for r in found], look, bold=name == "choice", label=name)
    line = Line2D([0, 1], [best, best], color=OPTIMUM.colour, linewidth=0.7, linestyle=(0, (5, 3)), zorder=2.5)
    line.set_transform(axes.get_yaxis_transform())
    axes.add_artist(line)
    told = f"best of all {len(table.archs):,}: {best:.2f}"
    write(figure, left + 0.04, top - 0.03, told, size=SMALL, color=OPTIMUM.text)
    label_ends(axes, ends)
    side_title(figure, top + high / 2, "accuracy (%)")
    foot(figure, left, COLUMN - room)
    return figure
