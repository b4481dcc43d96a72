"""Curves of a run: the scores of every decision, and the training of the supernet or of a network alone.

The scores stand in small panels, one per decision, all with the same axes. Up to nine have the names of the options at
the ends of their lines. More share one key, beside them or above; where the decisions of a block feed nodes, each row
of panels is a node. A block of more than thirty is a heat map instead, a row per decision with the score of its chosen
option, on as many pages as that takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError
from gapless.core.space import Space
from gapless.reports.panel import (
    BOTTOM,
    COLUMN,
    GREY,
    INK,
    LEADER,
    PAGE,
    PITCH,
    SMALL,
    TEXT,
    End,
    Look,
    curve,
    epochs,
    foot,
    label_ends,
    last,
    limits,
    looks,
    panel,
    sheet,
    shortened,
    side_room,
    side_title,
    text_width,
    write,
)

DIRECT, PANELS, BLOCKS, ROWS = 9, 30, 8, 60
"""Most panels with labels at the lines; most panels of a figure; most figures; most rows of a page of a heat map."""
TITLE, GAP, KEY_PITCH = 0.17, 0.13, 0.15
NAMED, KEYED = 1.15, 0.95
"""Height of a panel with the names of options at its lines, and with a key."""
FIRST, SECOND = Look("#0072b2"), Look("#b87a00", (0, (4, 1.4)))

Record = Mapping[str, Any]
SEARCHED = (
    ("loss", (("training", "train_loss"), ("architecture", "arch_loss"))),
    ("accuracy (%)", (("training", "train_accuracy"), ("held-out", "valid_accuracy"))),
    ("learning rate", (("", "lr"),)),
)
RETRAINED = (
    ("loss", (("training", "train_loss"),)),
    ("accuracy (%)", (("training", "train_accuracy"), ("test", "test_accuracy"))),
    ("learning rate", (("", "lr"),)),
)
EXPLORED = (("score", (("evaluated", "score"), ("best", "best"))),)
JUDGED = (("accuracy (%)", (("judged", "accuracy"), ("best", "best"))),)
"""Panels from top to bottom: title of the axis, then (label, field of the record) of each curve."""


@dataclass(frozen=True)
class Place:
    """A panel of a grid: its decision, row and column."""

    row: int
    decision: Decision
    line: int
    column: int


def scores(records: Sequence[Record], space: Space, arch: Arch) -> dict[str, Figure]:
    """Draw how the scores of every decision moved.

    Parameters
    ----------
    records
        The trace of a search, at least one record.
    space
        That was searched.
    arch
        The answer, or the current choice: its options are drawn bold, decisions that it lacks are titled "not kept".

    Returns
    -------
    dict
        Name -> figure of the width of a page: ``scores``, or one for each block of decisions, the part of their names
        before a colon (``scores-normal``, ``scores-reduce``), or the pages of a heat map (``scores-1``, ...).
    """
    table = _table(records, space)
    blocks = _blocks(space.decisions)
    if len(blocks) > BLOCKS or max(map(len, blocks.values())) > PANELS:
        rows = range(len(space.decisions))
        pages = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
        return {
            f"scores-{number}" if len(pages) > 1 else "scores": _heat(records, table, space, arch, page)
            for number, page in enumerate(pages, start=1)
        }
    return {
        f"scores-{block}" if block else "scores": _small_multiples(records, table, space, arch, block, rows)
        for block, rows in blocks.items()
    }


def training(records: Sequence[Record]) -> Figure:
    """Draw losses, accuracies and learning rate of a search or of a network trained alone, in the width of a column; of
    a search by a score that score.

    A value that was not measured leaves a gap; a curve without any value is left out, and so is a panel without a
    curve.
    """
    if "asked" in records[0]:
        return _panels(records, EXPLORED, "evaluation")
    return _panels(records, RETRAINED if "test_accuracy" in records[0] else SEARCHED, "epoch")


def judged(archs: Sequence[Record]) -> Figure:
    """Draw what a supernet said of the candidates for its method's answer, in their order and in the width of a column:
    ``accuracy``, and the best so far.

    Where finalists were judged again, on more images, these second judgements are left out.
    """
    first = [told for told in archs if told["images"] == archs[0]["images"]]
    best = np.maximum.accumulate([told["accuracy"] for told in first])
    records = [{**told, "best": value} for told, value in zip(first, best.tolist(), strict=True)]
    return _panels(records, JUDGED, "architecture")


def told_apart(records: Sequence[Record], space: Space) -> bool:
    """Return whether any record scores an option of a decision above another."""
    table = _table(records, space)
    return bool((np.nanmax(table, axis=-1) > np.nanmin(table, axis=-1)).any())


def _table(records: Sequence[Record], space: Space) -> NDArray[np.float64]:
    """Return the scores [T, D, O], NaN where there is no option or its score is infinite."""
    table = np.array([[[np.nan if v is None else v for v in row] for row in r["scores"]] for r in records])
    if table.shape[1:] != tuple(space.shape):
        raise UserError(
            f"The trace holds scores {list(table.shape[1:])}; the space of the run has {list(space.shape)}."
        )
    return np.where(np.isfinite(table) & space.legal.numpy(), table, np.nan)


def _panels(records: Sequence[Record], plan: Sequence[tuple[str, Sequence[tuple[str, str]]]], along: str) -> Figure:
    panels = [
        (title, [(label, field) for label, field in curves if any(r.get(field) is not None for r in records)])
        for title, curves in plan
    ]
    panels = [(title, curves) for title, curves in panels if curves]
    names = [label for _, curves in panels for label, _ in curves if len(curves) > 1]
    room = LEADER + max(map(text_width, names)) + 0.03 if names else text_width(str(len(records))) / 2 + 0.03
    high, gap, top = 0.95, 0.14, 0.08
    left = side_room(high, [[r[f] for _, f in curves for r in records if r.get(f) is not None] for _, curves in panels])
    height = top + len(panels) * (high + gap) - gap + BOTTOM
    figure = sheet(COLUMN, height)
    for number, (title, curves) in enumerate(panels):
        axes = panel(figure, left, top + number * (high + gap), COLUMN - left - room, high)
        epochs(axes, len(records), starts(records), labels=number + 1 == len(panels))
        drawn = [
            (label, look, curve(axes, [r.get(field) for r in records], look, label=field))
            for (label, field), look in zip(curves, (FIRST, SECOND), strict=False)
        ]
        limits(axes, [v for *_, values in drawn for v in values])
        if len(curves) > 1:
            label_ends(axes, [End(label, y, look) for label, look, v in drawn if (y := last(v)) is not None])
        side_title(figure, top + number * (high + gap) + high / 2, title)
    foot(figure, left, COLUMN - room, along)
    return figure


def starts(records: Sequence[Record]) -> list[int]:
    """Return the number of epochs before each stage but the first."""
    stages = [r.get("stage", 0) for r in records]
    return [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]


def _blocks(decisions: Sequence[Decision]) -> dict[str, list[int]]:
    """Return block -> rows: the parts of the names before a colon, where all have one."""
    found: dict[str, list[int]] = {}
    colons = all(":" in d.name for d in decisions)
    for row, decision in enumerate(decisions):
        found.setdefault(decision.name.partition(":")[0] if colons else "", []).append(row)
    return found


@dataclass(frozen=True)
class Layout:
    """Where the panels of a figure stand, in inches from its upper left corner.

    Attributes
    ----------
    places
        The panels.
    key
        Lines of (place from the left of the key, option); empty where the lines have their names at their ends.
    corner
        Upper left of the key.
    page, height
        Of the figure.
    left, top
        Of the first panel's place; a title of the panel comes first.
    wide, high
        Of a panel.
    across, down
        From one panel to the next.
    """

    places: tuple[Place, ...]
    key: Sequence[Sequence[tuple[float, str]]]
    corner: tuple[float, float]
    page: float
    height: float
    left: float
    top: float
    wide: float
    high: float
    across: float
    down: float


def _layout(space: Space, rows: Sequence[int], left: float, top: float, count: int) -> Layout:
    """Place the panels of these decisions, with names at the lines where there is room for them, else with a key."""
    decisions = [space.decisions[row] for row in rows]
    names = list(dict.fromkeys(option for d in decisions for option in d.options))
    width = max(text_width(name, SMALL, "bold") for name in names)  # any option may be the chosen one
    direct = len(rows) <= DIRECT and width <= 1.0 and max(len(d.options) for d in decisions) * PITCH <= NAMED
    places = _grid(space, rows, 3 if direct else 5, nodes=not direct)
    columns, lines = max(p.column for p in places) + 1, max(p.line for p in places) + 1
    page, high = PAGE if columns > 1 else COLUMN, NAMED if direct else KEYED
    gap, room = (GAP, LEADER + width + 0.05) if direct else (0.1, 0.0)
    edge = 0.05 if direct else max(0.05, text_width(str(count)) / 2 + 0.01)  # the label of the last tick sticks out
    wide = (page - left - edge - columns * room - (columns - 1) * gap) / columns
    across, down = wide + room + gap, high + TITLE + 0.16
    corner, key = (left, top + 0.1), []
    if not direct:
        free = columns - sum(p.line == 0 for p in places)  # a first line that is not full has room for the key
        key = _key(names, free * across - 2 * gap) if free > 1 else []
        if key and len(key) * KEY_PITCH <= high:
            corner = (left + (columns - free) * across + gap, top + TITLE + 0.08)
        else:
            key = _key(names, page - left)
            top += len(key) * KEY_PITCH + 0.08
    height = top + lines * down - 0.16 + BOTTOM
    return Layout(tuple(places), key, corner, page, height, left, top, wide, high, across, down)


def _small_multiples(
    records: Sequence[Record], table: NDArray[np.float64], space: Space, arch: Arch, block: str, rows: Sequence[int]
) -> Figure:
    """Draw a panel per decision."""
    values = table[:, rows]
    there = values[~np.isnan(values)]
    shown = [float(there.min()), float(there.max())] if there.size else []
    side = max(side_room(high, [shown]) for high in (NAMED, KEYED))
    at = _layout(space, rows, side, 0.26 if block else 0.06, len(records))
    look = looks([option for d in space.decisions for option in d.options])
    figure = sheet(at.page, at.height)
    if block:
        write(figure, 0.05, 0.17, block, size=8.5, weight="bold")
    for line, entries in enumerate(at.key):
        for left, name in entries:
            _key_entry(figure, at.corner[0] + left, at.corner[1] + line * KEY_PITCH, name, look[name])
    for place in at.places:
        left, top = at.left + place.column * at.across, at.top + place.line * at.down
        axes = panel(figure, left, top + TITLE, at.wide, at.high)
        lowest = not any(p.column == place.column and p.line > place.line for p in at.places)
        epochs(axes, len(records), starts(records), labels=lowest)
        axes.tick_params(axis="y", labelleft=place.column == 0)
        limits(axes, shown)
        chosen = arch.get(place.decision.name)
        ends = _options(axes, table[:, place.row], place.decision, chosen, look)
        if not at.key:
            label_ends(axes, ends)
        name = place.decision.name.removeprefix(f"{block}:")
        said = "not kept" if chosen is None else chosen if at.key else ""
        colour = GREY if chosen is None else look[chosen].text
        _panel_title(figure, left, top + 0.115, at.wide, name, said, colour, kept=chosen is not None)
    foot(figure, at.left, at.left + max(p.column for p in at.places) * at.across + at.wide)
    side_title(figure, (at.top + TITLE + at.height - BOTTOM) / 2, "score")
    return figure


def _options(
    axes: Axes, values: NDArray[np.float64], decision: Decision, chosen: str | None, look: Mapping[str, Look]
) -> list[End]:
    """Draw a line per option from values [epochs, O], the chosen one bold, and return the labels of their ends."""
    ends = []
    for column, option in enumerate(decision.options):
        drawn = curve(axes, values[:, column].tolist(), look[option], bold=option == chosen, label=option)
        y = last(drawn)
        if y is None:
            continue
        ends.append(End(option, y, look[option], option == chosen))
        if option == chosen:
            dot = Line2D(
                [len(drawn)], [y], color=look[option].colour, marker="o", markersize=3.4, linestyle="", zorder=5
            )
            axes.add_line(dot)
            dot.set_clip_on(False)
    return ends


def _grid(space: Space, rows: Sequence[int], columns: int, *, nodes: bool) -> list[Place]:
    """Place panels: a line for the decisions of each node where they fit so, else one after another."""
    decisions = [(row, space.decisions[row]) for row in rows]
    groups = [list(group) for _, group in groupby(decisions, key=lambda pair: pair[1].into)]
    if nodes and all(d.into for _, d in decisions) and 1 < max(map(len, groups)) <= columns:
        return [Place(*pair, line, column) for line, group in enumerate(groups) for column, pair in enumerate(group)]
    columns = min(columns, len(rows))
    return [Place(*pair, *divmod(number, columns)) for number, pair in enumerate(decisions)]


def _key(names: Sequence[str], width: float) -> list[list[tuple[float, str]]]:
    """Return the lines of a key: the place of each entry, and its name; columns of one width."""
    wide = max(text_width(name) for name in names) + 0.55
    columns = max(1, int(width / wide))
    lines = ceil(len(names) / columns)
    return [[(i // lines * wide, names[i]) for i in range(line, len(names), lines)] for line in range(lines)]


def _key_entry(figure: Figure, left: float, top: float, name: str, look: Look) -> None:
    wide, high = figure.get_size_inches()
    y = 1 - (top - 0.035) / high
    line = Line2D([left / wide, (left + 0.36) / wide], [y, y], color=look.colour, linewidth=1.1)
    line.set(linestyle=look.dashes, transform=figure.transFigure)
    figure.add_artist(line)
    write(figure, left + 0.42, top, name, size=SMALL, color=look.text)


def _panel_title(
    figure: Figure, left: float, top: float, width: float, name: str, said: str, colour: str, *, kept: bool
) -> None:
    """Write the name of a decision above its panel, and what is said of it at the right."""
    weight = "bold" if kept else "normal"
    air = 0.06
    said = shortened(said, max(width - text_width(name, TEXT) - air, 0.65 * width), SMALL, weight)
    rest = width - text_width(said, SMALL, weight) - air if said else width
    write(figure, left, top, shortened(name, rest, TEXT), color=INK if kept else GREY)
    if said:
        write(figure, left + width, top, said, size=SMALL, color=colour, weight=weight, ha="right")


def _heat(
    records: Sequence[Record], table: NDArray[np.float64], space: Space, arch: Arch, rows: Sequence[int]
) -> Figure:
    """Draw a row per decision: the score of its chosen option, or of the best one where none is kept."""
    decisions = [space.decisions[row] for row in rows]
    shown = [_shown(table[-1, row], space.decisions[row], arch) for row in rows]
    said = [name if d.name in arch else "not kept" for name, d in zip(shown, decisions, strict=True)]
    everywhere = [
        table[:, i, d.options.index(_shown(table[-1, i], d, arch))] for i, d in enumerate(space.decisions)
    ]  # one scale for all pages
    low, high = float(np.nanmin(everywhere)), float(np.nanmax(everywhere))
    left = min(max(text_width(d.name) for d in decisions), 2.2) + 0.12
    right = min(max(map(text_width, said)), 1.4) + 0.12
    top = 0.42
    height = top + len(rows) * PITCH + BOTTOM
    figure = sheet(PAGE, height)
    axes = panel(figure, left, top, PAGE - left - right, len(rows) * PITCH)
    values = np.array(
        [table[:, row, d.options.index(name)] for row, d, name in zip(rows, decisions, shown, strict=True)]
    )
    count = len(records)
    extent = (0.5, count + 0.5, len(rows), 0)
    axes.imshow(values, cmap="Greys", vmin=low, vmax=high, aspect="auto", interpolation="nearest", extent=extent)
    epochs(axes, count, starts(records))
    axes.set_xlim(0.5, count + 0.5)
    axes.set_yticks([])
    for line in axes.lines:  # the colour of an epoch fills the half before and behind it
        line.set(xdata=[float(np.asarray(line.get_xdata())[0]) + 0.5] * 2, color=SECOND.colour, zorder=4)
    for number, (decision, name, told) in enumerate(zip(decisions, shown, said, strict=True)):
        y, colour = top + (number + 0.5) * PITCH + 0.035, GREY if told != name else looks([name])[name].text
        write(figure, left - 0.06, y, shortened(decision.name, left - 0.1), size=SMALL, ha="right")
        write(figure, PAGE - right + 0.06, y, shortened(told, right - 0.1), size=SMALL, color=colour)
    _scale(figure, left, low, high)
    foot(figure, left, PAGE - right)
    return figure


def _shown(values: NDArray[np.float64], decision: Decision, arch: Arch) -> str:
    """Return the chosen option, or where the decision is not kept the best that could be."""
    if decision.name in arch:
        return arch[decision.name]
    return max((decision.options[i] for i in decision.eligible), key=lambda o: values[decision.options.index(o)])


def _scale(figure: Figure, left: float, low: float, high: float) -> None:
    """Add what the greys of a heat map mean."""
    name = "score of the chosen option"
    write(figure, left, 0.2, name, size=SMALL)
    start = left + text_width(name) + 0.15
    axes = panel(figure, start, 0.1, 1.5, 0.1)
    axes.imshow(
        np.linspace(0, 1, 256)[None], cmap="Greys", aspect="auto", extent=(low, high if high > low else low + 1, 0, 1)
    )
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4)
