"""The values of a comparison: a dot for every seed of every method, beside what needs no search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from gapless.analysis.statistics import mean
from gapless.reports.comparison import Group, Reference, Report
from gapless.reports.draw import DASHES, SOLID, Dashes
from gapless.reports.panel import (
    BOTTOM,
    COLUMN,
    GREY,
    INK,
    PAGE,
    RULE,
    SMALL,
    Look,
    panel,
    sheet,
    shortened,
    text_width,
    write,
)
from gapless.reports.scale import ErrorScale

SEED, BEST, BAND = Look("#0072b2"), Look("#b87a00"), "#e3e3e3"
BESIDE = 3
"""Most panels beside one another."""
PITCH, NAMES, GUTTER, TITLE, TOP = 0.26, 1.3, 0.22, 0.2, 0.06
"""From row to row; most room for names; between panels; above a panel whose images are named, and above any other."""
DOT, STEP, LEVELS = 3.8, 0.052, (0, 1, -1, 2, -2)
"""Size of a dot in points; how far dots that would hide one another are moved up or down, and how often."""
TICK = 0.42
"""Inches that a tick of the axis takes with its label."""


def seeds(found: Report) -> Figure | None:
    """Draw a panel for each set of images, a row for each method and each reference, one in the width of a column and
    several in that of a page; None where no run has a value.

    A dot is a seed, the short line the mean of a method. The band reaches one standard deviation over all cells to both
    sides of their mean, up to the best cell; to the left it is cut off, for the room belongs to what was found. The
    scale is that of :class:`ErrorScale`.
    """
    groups = [group for group in found.groups if _values(group)]
    if not groups:
        return None
    across, named = min(BESIDE, len(groups)), any(group.data for group in groups) and len(found.groups) > 1
    names = [_name(method) for method in found.asked.methods] + [_called(r) for r in groups[0].references]
    room = min(NAMES, max(map(text_width, names))) + 0.1
    page = COLUMN if len(groups) == 1 else PAGE
    wide = (page - room - 0.12 - (across - 1) * GUTTER) / across
    top, high = TITLE if named else TOP, PITCH * len(names)
    lines = -(-len(groups) // across)
    figure = sheet(page, lines * (top + high + BOTTOM))
    for number, group in enumerate(groups):
        line, column = divmod(number, across)
        left, up = room + column * (wide + GUTTER), line * (top + high + BOTTOM) + top
        axes = panel(figure, left, up, wide, high)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks([])
        scale = _scale(group, TICK / wide)
        scale.across(axes)
        if column == 0:
            for row, name in enumerate(names):
                told = shortened(name, room - 0.1)
                colour = INK if row < len(group.rows) else GREY
                write(figure, room - 0.08, up + PITCH * (row + 0.5) + 0.035, told, size=SMALL, ha="right", color=colour)
        if named:
            write(figure, left, up - 0.06, Path(group.data).name, size=SMALL, weight="bold")
        write(figure, left + wide / 2, up + high + BOTTOM - 0.06, f"{group.measure} (%)", size=SMALL, ha="center")
        _references(axes, group, scale)
        for row, runs in enumerate(group.rows.values()):
            _method(axes, row, [run.value for run in runs if run.value is not None], scale, wide)
    return figure


def _name(method: str) -> str:
    return Path(method).stem


def _called(reference: Reference) -> str:
    """Return the name of a reference in few words.

    >>> _called(Reference("the cell with most parameters", 93.76)), _called(Reference("one random cell (mean)", 87.06))
    ('most parameters', 'one random cell')
    """
    return reference.name.partition(" (")[0].removeprefix("the ").removeprefix("cell with ")


def _values(group: Group) -> list[float]:
    return [row.value for rows in group.rows.values() for row in rows if row.value is not None]


def _scale(group: Group, apart: float) -> ErrorScale:
    shown = [*_values(group), *(reference.value for reference in group.references)]
    return ErrorScale(min(shown), max(shown), apart)


def _references(axes: Axes, group: Group, scale: ErrorScale) -> None:
    """Draw the references: each in its row, a mean and the best cell as a line through all rows."""
    through = (-0.5, len(group.rows) + len(group.references) - 0.5)
    for row, reference in enumerate(group.references, start=len(group.rows)):
        look = BEST.colour if reference.value == scale.best else GREY
        if reference.spread is not None:
            low = max(scale.limits[0], reference.value - reference.spread)
            high = min(scale.best, reference.value + reference.spread)
            axes.add_patch(Rectangle((low, row - 0.2), high - low, 0.4, facecolor=BAND, linewidth=0, zorder=1))
            _upright(axes, reference.value, through, RULE, 0.6)
        elif reference.value == scale.best:
            _upright(axes, reference.value, through, look, 0.8, DASHES)
        axes.plot([reference.value], [row], "D", color=look, markersize=3.4, linewidth=0, clip_on=False, zorder=5)


def _method(axes: Axes, row: int, values: Sequence[float], scale: ErrorScale, wide: float) -> None:
    """Draw the seeds of a method and their mean."""
    if not values:
        return
    _upright(axes, mean(values), (row - 0.36, row + 0.36), INK, 1.4, order=5)
    heights = [row + level * STEP / PITCH for level in _levels(values, scale, wide)]
    (dots,) = axes.plot(sorted(values), heights, "o", color=SEED.colour, markersize=DOT, linewidth=0)
    dots.set(clip_on=False, zorder=4)


def _upright(
    axes: Axes,
    value: float,
    ends: tuple[float, float],
    colour: str,
    width: float,
    dashes: Dashes = SOLID,
    order: float = 2,
) -> None:
    line = Line2D([value, value], ends, color=colour, linewidth=width, zorder=order)
    line.set(linestyle=dashes, solid_capstyle="butt", dash_capstyle="butt")
    axes.add_line(line)


def _levels(values: Sequence[float], scale: ErrorScale, wide: float) -> Iterator[int]:
    """Yield for each value, from the lowest on, the level at which no dot hides another, as far as levels go."""
    low, high = (float(scale.forward(end)) for end in scale.limits)
    taken: dict[int, float] = {}
    for value in sorted(values):
        place = wide * (float(scale.forward(value)) - low) / (high - low)
        free = [level for level in LEVELS if place - taken.get(level, -1.0) >= DOT / 72]
        level = free[0] if free else LEVELS[0]
        taken[level] = place
        yield level
