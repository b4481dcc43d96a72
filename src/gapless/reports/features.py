"""Figures of the feature maps of the options of a decision: how alike they are, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from gapless.reports.gap import BLUE, ORANGE
from gapless.reports.panel import GREY, INK, PAGE, PITCH, SMALL, panel, sheet, shortened, text_width, write

SIDE, TITLE, FOOT, GUTTER, GAP = 1.7, 0.2, 0.1, 0.35, 0.22
Box = tuple[float, float, float, float]

Json = Mapping[str, Any]


def drawn(decision: str, runs: Sequence[tuple[str, Sequence[Json]]]) -> Figure:
    """Draw the places of a decision in the width of a page, a row for each run: the absolute correlation, averaged over
    the places, options with weights first; and the plane of the mean maps at the second of them (the only one, where
    there is one).

    Parameters
    ----------
    decision
        Its name.
    runs
        (Name, places of that decision) of each run.
    """
    sides = [ordered(places[0]) for _, places in runs]
    names = max(text_width(option) for side in sides for option in side) + 0.1
    left = names + SIDE + GUTTER
    named = [number + 1 == len(runs) or side != sides[number + 1] for number, side in enumerate(sides)]
    heights = [TITLE + SIDE + (names + FOOT if below else GAP) for below in named]
    figure = sheet(PAGE, sum(heights))
    for number, (name, places) in enumerate(runs):
        top, shown = sum(heights[:number]) + TITLE, places[min(1, len(places) - 1)]
        _matrix(figure, top, names, places, below=named[number])
        _plane(figure, top, left, shown)
        where = "1 place" if len(places) == 1 else f"mean of {len(places)} places"
        title = f"|correlation|, {decision}, {where}"
        write(figure, 0.02, top - TITLE + 0.11, title, weight="bold", size=SMALL)
        title = f"mean maps, {shown['place'].removeprefix('network.')}"
        write(figure, left, top - TITLE + 0.11, title, weight="bold", size=SMALL)
        if len(runs) > 1:
            room = PAGE - left - text_width(title, weight="bold") - 0.15
            write(figure, PAGE - 0.02, top - TITLE + 0.11, shortened(name, room), size=SMALL, color=GREY, ha="right")
    legend = "first two principal components; dots have weights, squares have none"
    write(figure, left, sum(heights[:-1]) + TITLE + SIDE + PITCH, legend, size=SMALL, color=GREY)
    return figure


def ordered(place: Json) -> list[str]:
    """Return the options of a place, those with weights first."""
    return sorted(place["options"], key=lambda option: place["groups"][option] != "weights")


def mean_matrix(places: Sequence[Json]) -> NDArray[np.float64]:
    """Return the absolute correlation of the first place's options, those with weights first, averaged over the places
    where it is known; NaN where it is nowhere."""
    options = ordered(places[0])
    stacked = []
    for place in places:
        order = [place["options"].index(option) for option in options]
        rows = np.array([[np.nan if v is None else abs(v) for v in row] for row in place["correlation"]])
        stacked.append(rows[np.ix_(order, order)])
    known = ~np.isnan(stacked)
    summed = np.nansum(stacked, axis=0)
    return np.where(known.any(axis=0), summed / np.maximum(known.sum(axis=0), 1), np.nan)


def _matrix(figure: Figure, top: float, left: float, places: Sequence[Json], *, below: bool) -> None:
    options, values = ordered(places[0]), mean_matrix(places)
    count = len(options)
    square = SIDE / count
    heat = panel(figure, left, top, SIDE, SIDE)
    heat.set(xlim=(0, count), ylim=(count, 0), xticks=[], yticks=[])
    for spine in heat.spines.values():
        spine.set_visible(False)
    for row in range(count):
        write(figure, left - 0.05, top + square * (row + 0.5) + 0.035, options[row], size=SMALL, ha="right")
        across = left + square * (row + 0.5) + 0.045
        if below:
            write(figure, across, top + SIDE + 0.05, options[row], size=SMALL, rotation=90, ha="right", va="top")
        for column in range(count):
            value = float(values[row, column])
            shade = "#ffffff" if np.isnan(value) else str(1 - 0.85 * min(value, 1.0))
            heat.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="white", linewidth=0.5))
            if row != column:
                ink = "white" if value > 0.6 else INK
                heat.text(column + 0.5, row + 0.5, short(value), ha="center", va="center", fontsize=SMALL, color=ink)
    border = sum(places[0]["groups"][option] == "weights" for option in options)
    if 0 < border < count:
        heat.axhline(border, color="white", linewidth=2.4)
        heat.axvline(border, color="white", linewidth=2.4)


def short(value: float) -> str:
    """Return a correlation in two or three characters.

    >>> short(0.37), short(0.996), short(float("nan"))
    ('.37', '1', '-')
    """
    if np.isnan(value):
        return "-"
    return "1" if value >= 0.995 else f"{value:.2f}".removeprefix("0")


def _plane(figure: Figure, top: float, left: float, place: Json) -> None:
    wide = PAGE - left - 0.02
    axes = panel(figure, left, top, wide, SIDE)
    points = np.array(place["plane"])
    air = 0.14 * (points.max(axis=0) - points.min(axis=0)) + 1e-9
    low, high = points.min(axis=0) - air, points.max(axis=0) + air
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
    spots = [
        ((x - low[0]) / (high[0] - low[0]) * wide, (1 - (y - low[1]) / (high[1] - low[1])) * SIDE) for x, y in points
    ]
    taken: list[Box] = [(x - 0.04, y - 0.04, x + 0.04, y + 0.04) for x, y in spots]
    for option, (x, y), point in zip(place["options"], spots, points, strict=True):
        free = place["groups"][option] == "free"
        look = ORANGE if free else BLUE
        axes.plot(*point, "s" if free else "o", color=look.colour, markersize=4, clip_on=False)
        box = free_box(x, y, text_width(option), wide, taken)
        taken.append(box)
        if abs(box[1] + box[3] - 2 * y) > 0.02:  # not beside the point
            end, middle = (box[0] - 0.02 if box[0] > x else box[2] + 0.02), (box[1] + box[3]) / 2
            axes.plot(
                [x / wide, end / wide],
                [1 - y / SIDE, 1 - middle / SIDE],
                color=look.colour,
                linewidth=0.5,
                transform=axes.transAxes,
            )
        write(figure, left + box[0], top + box[3] - 0.03, option, size=SMALL, color=look.text)


def free_box(x: float, y: float, width: float, room: float, taken: Sequence[Box]) -> Box:
    """Return where a label stands beside a point (in inches from the upper left corner of its panel): right, left,
    below or above, farther away until it covers nothing that is taken; where all is full, right of the point."""
    height = 0.12
    for step in range(6):
        away, up = 0.06, 0.12 * step
        for left, top in (
            (x + away, y - height / 2 + up),
            (x - away - width, y - height / 2 + up),
            (x + away, y - height / 2 - up),
            (x - away - width, y - height / 2 - up),
        ):
            box = (left, top, left + width, top + height)
            inside = left >= 0.02 and left + width <= room and top >= 0 and top + height <= SIDE
            clear = all(box[2] <= a or box[0] >= c or box[3] <= b or box[1] >= d for a, b, c, d in taken)
            if inside and clear:
                return box
    return (x + 0.06, y - height / 2, x + 0.06 + width, y + height / 2)
