"""The feature maps of the options of an edge, from ``features.json``: how alike they are, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gapless.report.panel import GREY, INK, PAGE, PITCH, SMALL, looks, panel, sheet, spread, text_width, write

NAME = "features.json"
SIDE, TITLE, FOOT, GUTTER = 1.7, 0.24, 0.12, 0.35


def figures(told: Mapping[str, Any]) -> dict[str, Figure]:
    """Return name -> figure of the width of a page, one for each decision that was looked at: the absolute correlation,
    averaged over the cells, and the plane of the mean maps in the second of them (the only one, where there is one)."""
    found = {}
    for decision in told["alike"]:
        edges = [edge for edge in told["edges"] if edge["decision"] == decision]
        found["features-" + decision.replace(":", "-").replace("<-", "-")] = _edge(decision, edges)
    return found


def _edge(decision: str, edges: list[Mapping[str, Any]]) -> Figure:
    options, count = edges[0]["options"], len(edges[0]["options"])
    names = max(map(text_width, options)) + 0.08
    side, square = SIDE, SIDE / count
    bottom = names + FOOT
    figure = sheet(PAGE, TITLE + side + bottom)
    stacked = np.array([[[np.nan if v is None else abs(v) for v in row] for row in e["correlation"]] for e in edges])
    with np.errstate(all="ignore"):
        known = ~np.isnan(stacked)
        values = np.where(known.any(axis=0), np.nansum(stacked, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    heat = panel(figure, names, TITLE, side, side)
    heat.set(xlim=(0, count), ylim=(count, 0), xticks=[], yticks=[])
    for spine in heat.spines.values():
        spine.set_visible(False)
    for row in range(count):
        write(figure, names - 0.05, TITLE + square * (row + 0.5) + 0.035, options[row], size=SMALL, ha="right")
        for column in range(count):
            value = values[row, column]
            shade = "#ffffff" if np.isnan(value) else str(1 - 0.85 * float(value))
            heat.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="white", linewidth=0.5))
            if row != column:
                ink = "white" if not np.isnan(value) and value > 0.55 else INK
                text = "-" if np.isnan(value) else f"{value:.1f}".removeprefix("0") if value < 0.95 else "1"
                heat.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=5.5, color=ink)
    for column in range(count):
        write(
            figure,
            names + square * (column + 0.5) + 0.035,
            TITLE + side + 0.05,
            options[column],
            size=SMALL,
            rotation=90,
            ha="right",
            va="top",
        )
    cells = "1 cell" if len(edges) == 1 else f"mean over {len(edges)} cells"
    write(figure, 0.0, 0.12, f"{decision}: |correlation|, {cells}", weight="bold", size=SMALL)
    _plane(figure, edges[min(1, len(edges) - 1)], names + side + GUTTER, side)
    return figure


def _plane(figure: Figure, edge: Mapping[str, Any], left: float, side: float) -> None:
    wide = PAGE - left - max(map(text_width, edge["options"])) - 0.1
    axes = panel(figure, left, TITLE, wide, side)
    points = np.array(edge["plane"])
    air = 0.12 * (points.max(axis=0) - points.min(axis=0)) + 1e-9
    axes.set_xlim(points[:, 0].min() - air[0], points[:, 0].max() + air[0])
    axes.set_ylim(points[:, 1].min() - air[1], points[:, 1].max() + air[1])
    axes.set(xticks=[], yticks=[])
    look = looks(edge["options"])
    heights = [side * (1 - float(axes.transLimits.transform((0, y))[1])) for _, y in points]
    levels = spread(heights, PITCH, 0.0, side)
    for option, (x, y), level in zip(edge["options"], points, levels, strict=True):
        free = edge["groups"][option] == "free"
        axes.plot([x], [y], "s" if free else "o", color=look[option].colour, markersize=4, clip_on=False)
        place = left + wide * float(axes.transLimits.transform((x, y))[0])
        write(figure, place + 0.07, TITLE + level + 0.035, option, size=SMALL, color=look[option].text)
    write(figure, left, 0.12, f"mean maps, {edge['place'].removeprefix('network.')}", weight="bold", size=SMALL)
    write(figure, left, TITLE + side + PITCH, "first two principal components", size=SMALL, color=GREY)
