"""Small panels with curves: placed in inches, their lines labelled at the ends, fit for the columns of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from gapless.reports.draw import STYLES, Dashes, family

# Lengths are in inches; font sizes and line widths are in points.
COLUMN, PAGE = 3.25, 6.75
"""Widths of a column and of a page in the two-column formats of IEEE and in NeurIPS, with a hair to spare."""
TEXT, SMALL = 8.0, 7.0
PITCH = 0.125  # between two lines of small text
THIN, BOLD = 0.9, 1.9
SIDE, BOTTOM = 0.28, 0.38  # beside the labels of an axis, for its title; below a panel
LEADER = 0.1  # from the end of a curve to its label
FAMILY = ("DejaVu Sans", "sans-serif")
INK, GREY, RULE = "#000000", "#666666", "#b0b0b0"
DASHES: dict[str, tuple[Dashes, ...]] = {
    "conv": ((0, None), (0, (5, 1.4)), (0, (2.6, 1.2)), (0, (6, 1.2, 1.2, 1.2))),
    "pool": ((0, (1, 1)), (0, (1, 2.2)), (0, (1, 1, 1, 3))),
    "skip": ((0, (8, 1.2, 1, 1.2, 1, 1.2)), (0, (4, 1.2, 1, 1.2, 1, 1.2)), (0, (2, 1.2, 1, 1.2, 1, 1.2))),
    "none": ((0, (3, 3)),),
    "other": ((0, (9, 2)), (0, (9, 2, 3, 2)), (0, (5, 1, 5, 3)), (0, (3, 1, 3, 1, 1, 1))),
}
"""Dashes of the options of a family, in their order: no two are alike, so that a grey print tells them apart."""
SHADES = (("#000000", 0.0), ("#000000", 0.45), ("#ffffff", 0.4))
"""What is mixed into the colour of a family, and how much of it, each time that its dashes are used up."""


@dataclass(frozen=True)
class Look:
    """Colour and dashes of a line, and the colour of text about it."""

    colour: str
    dashes: Dashes = (0, None)
    ink: str = ""

    @property
    def text(self) -> str:
        """That of the line, unless it is too light for letters."""
        return self.ink or self.colour


@dataclass(frozen=True)
class End:
    """A label for the end of a curve: its text, the height of the end in data units, the look of the curve."""

    text: str
    y: float
    look: Look = Look(INK)
    bold: bool = False


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Return option label -> look: the colour of its family of operations, and dashes of its own.

    A family with more options than it has dashes begins again in a darker, then in a lighter colour.
    """
    found: dict[str, Look] = {}
    count: dict[str, int] = {}
    for label in dict.fromkeys(labels):
        kind = family(label)
        number = count[kind] = count.get(kind, -1) + 1
        turn, place = divmod(number, len(DASHES[kind]))
        tint, part = SHADES[turn % len(SHADES)]
        pairs = zip(to_rgb(STYLES[kind].outline), to_rgb(tint), strict=True)
        red, green, blue = ((1 - part) * own + part * other for own, other in pairs)
        found[label] = Look(to_hex((red, green, blue)), DASHES[kind][place], STYLES[kind].ink if kind == "none" else "")
    return found


def sheet(width: float, height: float) -> Figure:
    """Return an empty white figure of that size, independent of pyplot."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add a panel, its upper left corner so far from that of the figure."""
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), linewidth=0.6, color=INK)
    axes.tick_params(which="both", length=2.2, width=0.6, pad=2, labelsize=SMALL, labelfontfamily=FAMILY[0])
    axes.yaxis.set_major_locator(MaxNLocator(max(2, round(height / 0.28)), min_n_ticks=2, steps=[1, 2, 5, 10]))
    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axes.yaxis.set_major_formatter(plain)
    return axes


def side_room(height: float, values: Sequence[Sequence[float]]) -> float:
    """Return the room left of panels of that height, which show these values, for labels and title of the axis."""
    widest = 0.0
    for shown in values:
        axes = panel(sheet(1.0, height), 0.0, 0.0, 1.0, height)
        limits(axes, shown)
        low, high = axes.get_ylim()
        places = [y for y in axes.get_yticks() if low <= y <= high]
        widest = max([widest, *map(text_width, axes.yaxis.get_major_formatter().format_ticks(places))])
    return SIDE + widest


def side_title(figure: Figure, top: float, text: str) -> None:
    """Write the title of an axis upwards at the left border, its middle so far from the top."""
    write(figure, 0.13, top, text, rotation=90, ha="center", va="center")


def foot(figure: Figure, left: float, right: float, text: str = "epoch") -> None:
    """Write the title of the axis of epochs below, between left and right."""
    write(figure, (left + right) / 2, figure.get_size_inches()[1] - 0.06, text, ha="center")


def write(figure: Figure, left: float, top: float, text: str, *, size: float = TEXT, **looks: Any) -> None:
    """Add a line of text whose baseline starts so far from the upper left corner; ``looks`` go to the text."""
    wide, high = figure.get_size_inches()
    weight = looks.pop("weight", "normal")
    artist = figure.text(left / wide, 1 - top / high, text, parse_math=False, usetex=False, **looks)
    artist.set_fontproperties(font(size, weight))


def font(size: float = TEXT, weight: str = "normal") -> FontProperties:
    """Return the font of all figures."""
    return FontProperties(family=list(FAMILY), size=size, weight=weight)


def text_width(text: str, size: float = SMALL, weight: str = "normal") -> float:
    """Return the width of a line of text in inches."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, font(size, weight), ismath=False)
    return float(width) / 72


def shortened(text: str, width: float, size: float = SMALL, weight: str = "normal") -> str:
    """Return the text, or as much of its end behind an ellipsis as fits: names differ in their ends.

    >>> shortened("2<-0", 1.0), shortened("backbone.layer4.1.conv2", 0.6)
    ('2<-0', '…4.1.conv2')
    """
    short = text
    while len(short) > 2 and text_width(short, size, weight) > width:
        short = "…" + short.removeprefix("…")[1:]
    return short


def epochs(axes: Axes, count: int, starts: Sequence[int], *, labels: bool = True) -> None:
    """Set the axis of ``count`` epochs, counted from 1, with a thin line where a stage starts after ``starts``
    epochs."""
    axes.set_xlim(*((1, count) if count > 1 else (0.5, 1)))
    narrow = axes.get_position().width * axes.get_figure(root=True).get_size_inches()[0] < 1.4  # type: ignore[union-attr]
    axes.xaxis.set_major_locator(MaxNLocator(3 if narrow else 5, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="x", labelbottom=labels)
    for start in starts:
        axes.axvline(start, color=RULE, linewidth=0.6, zorder=2.2)  # above shades, below curves


def curve(
    axes: Axes, values: Sequence[float | None], look: Look, *, bold: bool = False, label: str = ""
) -> NDArray[np.float64]:
    """Draw a value per epoch and return them; None leaves a gap, and a value between two gaps is a dot."""
    y = np.array([np.nan if v is None or not np.isfinite(v) else v for v in values], dtype=np.float64)
    x, there = np.arange(1, len(y) + 1), ~np.isnan(y)
    beside = np.concatenate([[False], there[:-1]]) | np.concatenate([there[1:], [False]])
    width, order = (BOLD, 4) if bold else (THIN, 3)
    line = Line2D(x, y, color=look.colour, linewidth=width, zorder=order, label=label)
    line.set(linestyle=look.dashes, dash_capstyle="butt", solid_joinstyle="round")
    axes.add_line(line)
    alone = there & ~beside
    if alone.any():
        dots = Line2D(x[alone], y[alone], color=look.colour, linestyle="", marker="o", markersize=2.2, zorder=order)
        axes.add_line(dots)
        dots.set_clip_on(False)
    return y


def last(values: NDArray[np.float64]) -> float | None:
    """Return the last value that is there."""
    there = values[~np.isnan(values)]
    return float(there[-1]) if len(there) else None


def limits(axes: Axes, values: Sequence[float]) -> None:
    """Set the axis to the finite values with a little air; where all are one, around it."""
    finite = [v for v in values if np.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - air, high + air)


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Write labels right of a panel, each beside the end of its curve, spread so that none overlaps another."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    wide, high = figure.get_size_inches()
    box = axes.get_position()
    height = box.height * high
    scale = axes.transScale + axes.transLimits
    heights = [float(scale.transform((1, end.y))[1]) * height for end in ends]
    right = box.x1 * wide
    for end, y, place in zip(ends, heights, spread(heights, PITCH, 0.0, height), strict=True):
        x = [(right + dx) / wide for dx in (0.025, LEADER - 0.02)]
        leader = Line2D(x, [box.y0 + y / high, box.y0 + place / high], color=end.look.colour, linewidth=0.5)
        leader.set_transform(figure.transFigure)
        figure.add_artist(leader)
        top = (1 - box.y0) * high - place + 0.36 * SMALL / 72
        weight = "bold" if end.bold else "normal"
        write(figure, right + LEADER, top, end.text, size=SMALL, color=end.look.text, weight=weight)


def spread(places: Sequence[float], pitch: float, low: float, high: float) -> list[float]:
    """Move places as little as possible, in the sum of squares, so that they lie at least ``pitch`` apart, in order.

    They end between ``low`` and ``high`` where they fit, else beyond ``high``.

    >>> spread([1.0, 1.0, 5.0], 1.0, 0.0, 9.0)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    pools: list[tuple[float, int]] = []  # mean and size; merged while a pool lies above the next
    for number, index in enumerate(order):
        pools.append((places[index] - number * pitch, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, m), (two, n) = pools[-2:]
            pools[-2:] = [((m * one + n * two) / (m + n), m + n)]
    flat = [
        min(max(mean, low), max(low, high - (len(places) - 1) * pitch)) for mean, size in pools for _ in range(size)
    ]
    found = [0.0] * len(places)
    for number, index in enumerate(order):
        found[index] = flat[number] + number * pitch
    return found
