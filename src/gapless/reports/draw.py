"""Draw neural cells, small graphs with an operation on each edge, fit to print in a paper.

The nodes of a cell stand below one another.  An edge to the next node runs straight down with its label on it.  Every
other edge leaves its source sideways, runs down a vertical track of its own and enters its target from the side, its
label just before the arrow head.  A node is as tall as its side edges need and the tracks lie outside the labels, so
that nothing can overlap.  A cell too tall for a page continues in a further column where only a single edge leads on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from math import ceil, hypot
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Affine2D

from gapless.core import files
from gapless.core.picture import Picture
from gapless.core.text import printable

# Lengths are in inches with y growing downwards; font sizes and line widths are in points.
LABEL_HEIGHT, LABEL_PITCH, NODE_HEIGHT, TITLE_HEIGHT, CAPTION_HEIGHT = 0.16, 0.20, 0.21, 0.24, 0.16
HEAD_LENGTH, SLANT, RADIUS, STUB, AIR = 0.08, 0.42, 0.06, 0.12, 0.04
LINE_PITCH, TRACK_PITCH = 0.09, 0.09
GAP = RADIUS + LABEL_HEIGHT + AIR + HEAD_LENGTH  # between two nodes, for a label
MARGIN, CAPTION_GAP, PICTURE_GAP = 0.05, 0.12, 0.4
PAGE_WIDTH, COLUMN_HEIGHT, CAPTION_WIDTH = 6.9, 4.5, 3.25

Point = tuple[float, float]
Dashes = tuple[float, tuple[float, ...] | None]
SOLID: Dashes = (0.0, None)
DASHES: Dashes = (0.0, (3.0, 2.0))


class _Style(NamedTuple):
    fill: str
    outline: str
    stroke: float = 0.7
    dashes: Dashes = SOLID
    ink: str = "black"
    size: float = 7.0
    weight: str = "normal"


# The operation families are safe for the colour-blind (after Okabe and Ito) and of distinct lightness in grey print.
STYLES = {
    "conv": _Style("#a9cde8", "#0072b2"),
    "pool": _Style("#fbdfb0", "#b87a00"),
    "skip": _Style("#e9f7f2", "#009e73"),
    "none": _Style("#ffffff", "#a6a6a6", dashes=DASHES, ink="#666666"),
    "other": _Style("#eccfe0", "#a85586"),
    "node": _Style("#ececec", "#333333", stroke=0.9, size=7.5),
    "title": _Style("", "", size=8.5, weight="bold"),
    "caption": _Style("", "", size=8.0),
}
# Colour, width and dashes of a line, in general and for special labels of its edge.
LINE = ("#333333", 0.9, SOLID)
LINES = {"": ("#808080", 0.6, SOLID), "none": ("#a6a6a6", 0.7, DASHES)}
METADATA: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
WRITING: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "gapless", "pdf.fonttype": 42, "savefig.bbox": None}
"""How figures are written: the same figure gives the same bytes."""


class _Box(NamedTuple):
    """A text in a rounded box around (x, y); the name becomes the id of the artists."""

    name: str
    style: str
    text: str
    x: float
    y: float
    width: float
    height: float


class _Line(NamedTuple):
    """The corners of an edge, from the border of its source to the tip of its arrow head."""

    name: str
    label: str
    corners: list[Point]


@dataclass(eq=False)
class _Edge:
    """An edge on the way to its place."""

    number: int
    source: int
    target: int
    label: str
    side: int = 1  # -1 for left
    track: int = 0  # counted outwards
    start: Point = (0.0, 0.0)
    end: Point = (0.0, 0.0)

    @property
    def span(self) -> int:
        return self.target - self.source

    @property
    def room(self) -> float:
        return LABEL_PITCH if self.label else LINE_PITCH


@dataclass
class _Sheet:
    """Shapes, and the size of the area from (0, 0) that they fill."""

    boxes: list[_Box] = field(default_factory=list)
    lines: list[_Line] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def paste(self, other: "_Sheet", x: float, y: float) -> None:
        """Add the shapes of another sheet, its upper left corner at (x, y)."""
        self.boxes += [box._replace(x=box.x + x, y=box.y + y) for box in other.boxes]
        self.lines += [line._replace(corners=[(a + x, b + y) for a, b in line.corners]) for line in other.lines]
        self.width, self.height = max(self.width, x + other.width), max(self.height, y + other.height)

    def connect(self, cell: str, edge: _Edge, corners: list[Point], x: float, y: float, width: float) -> None:
        """Add an edge with its label, if it has one, around (x, y)."""
        self.lines.append(_Line(f"{cell}-edge{edge.number}", edge.label, corners))
        if edge.label:
            name, style = f"{cell}-label{edge.number}", family(edge.label)
            self.boxes.append(_Box(name, style, edge.label, x, y, width, LABEL_HEIGHT))

    def write(self, name: str, style: str, text: str, height: float) -> None:
        """Add a line of text below, in the middle."""
        line = _Sheet(width=_text_width(text, style), height=height)
        line.boxes.append(_Box(name, style, text, line.width / 2, height / 2, line.width, height))
        wide, self.width = max(self.width, line.width), max(self.width, line.width)
        self.paste(line, (wide - line.width) / 2, self.height)


def draw(pictures: Sequence[Picture], caption: str = "") -> Figure:
    """Draw cells beside one another, and below where the width of a page is full.

    Parameters
    ----------
    pictures : sequence of Picture
        The cells, in reading order.
    caption : str
        Text below the cells, broken into lines as needed; empty for none.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of the size at which its smallest text has 7 points, independent of pyplot.  The artists carry ids
        such as ``cell0-node2``, ``cell0-edge3``, ``cell0-head3`` and ``cell0-label3``, which an SVG keeps.

    Raises
    ------
    ValueError
        If there is no picture.
    """
    if not pictures:
        raise ValueError("there is no picture to draw; give at least one")
    page = _Sheet()
    x = y = 0.0
    for number, picture in enumerate(map(_printable, pictures)):
        cell = _titled(picture, f"cell{number}")
        if x > 0 and x + cell.width > PAGE_WIDTH:
            x, y = 0.0, page.height + PICTURE_GAP
        page.paste(cell, x, y)
        x += cell.width + PICTURE_GAP
    rows = _wrap(printable(caption, keep="\n"), max(page.width, CAPTION_WIDTH))
    texts = _Sheet(width=max([page.width, *(_text_width(row, "caption") for row in rows)]))
    for number, row in enumerate(rows):
        texts.write(f"caption{number}", "caption", row, CAPTION_HEIGHT)
    sheet = _Sheet()
    sheet.paste(page, MARGIN + (texts.width - page.width) / 2, MARGIN)
    sheet.paste(texts, MARGIN, sheet.height + (CAPTION_GAP if rows else 0.0))
    return _ink(sheet, sheet.width + MARGIN, sheet.height + MARGIN)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What `draw` returned.
    path : Path
        File to write.  Its suffix is the format: .svg (text stays text), .pdf (fonts embedded) or .png (300 dpi).

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in METADATA:
        given = f"the suffix {path.suffix!r}" if suffix else "no suffix"
        raise ValueError(f"cannot write a picture to {path.name!r}, which has {given}; use .svg, .png or .pdf")
    buffer = BytesIO()
    with mpl.rc_context(WRITING):
        figure.savefig(buffer, format=suffix[1:], dpi=300, metadata=METADATA[suffix])
    files.write(path, buffer.getbuffer())


def svg(figure: Figure) -> str:
    """Return what :func:`save` writes into an .svg file."""
    buffer = StringIO()
    with mpl.rc_context(WRITING):
        figure.savefig(buffer, format="svg", dpi=300, metadata=METADATA[".svg"])
    return buffer.getvalue()


def _printable(picture: Picture) -> Picture:
    """Return a picture without characters that no font has and no SVG may hold."""
    edges = tuple((source, target, printable(label)) for source, target, label in picture.edges)
    return Picture(printable(picture.title), tuple(map(printable, picture.nodes)), edges)


def _titled(picture: Picture, name: str) -> _Sheet:
    """Place a cell below its title."""
    cell, sheet = _cell(picture, name), _Sheet()
    sheet.width = cell.width
    if picture.title:
        sheet.write(f"{name}-title", "title", picture.title, TITLE_HEIGHT)
    sheet.paste(cell, (sheet.width - cell.width) / 2, sheet.height)
    return sheet


def _cell(picture: Picture, name: str) -> _Sheet:
    """Place the nodes, labels and edges of a cell."""
    edges, nodes = [_Edge(number, *edge) for number, edge in enumerate(picture.edges)], range(len(picture.nodes))
    spine: dict[int, _Edge] = {}  # node: the edge that enters it from above
    for edge in edges:
        if edge.span == 1:
            spine.setdefault(edge.target, edge)
    outer = sorted((edge for edge in edges if spine.get(edge.target) is not edge), key=lambda edge: edge.span)
    _choose_sides(outer)
    _choose_tracks(outer)

    # Across: the nodes, the labels beside them, the tracks.
    half = max(_text_width(node, "node") for node in picture.nodes) / 2 + 0.08
    label_width = max((_text_width(edge.label, "other") + 0.1 for edge in edges if edge.label), default=0.0)
    inner = max(half, label_width / 2 if any(edge.label for edge in spine.values()) else 0.0)
    first, reach = {}, {}  # from the axis of the nodes to the first track, and to the border
    for side in (-1, 1):
        own = [edge for edge in outer if edge.side == side]
        room = label_width + AIR if any(edge.label for edge in own) else 0.0
        first[side] = max(inner + AIR, half + HEAD_LENGTH + AIR + room) + RADIUS
        reach[side] = first[side] + max(edge.track for edge in own) * TRACK_PITCH + MARGIN if own else inner
    axis, shift = reach[-1], reach[-1] + reach[1] + 2 * TRACK_PITCH

    # Down: at each side of a node the edges that enter, then those that leave, nested so as not to cross.
    entering = {
        (node, side): [e for e in outer if (e.target, e.side) == (node, side)] for node in nodes for side in reach
    }
    leaving = {(node, side): [e for e in outer[::-1] if (e.source, e.side) == (node, side)] for node, side in entering}
    rooms = {at: sum(edge.room for edge in entering[at]) + LINE_PITCH * len(leaving[at]) for at in entering}
    heights = [max(NODE_HEIGHT, rooms[node, -1] + AIR, rooms[node, 1] + AIR) for node in nodes]
    gaps = [STUB if node not in spine else GAP if spine[node].label else STUB + HEAD_LENGTH for node in nodes]
    starts = _choose_starts(edges, [gap + height for gap, height in zip(gaps, heights, strict=True)])

    sheet = _Sheet(width=len(starts) * shift - 2 * TRACK_PITCH)
    y = 0.0
    for node in nodes:
        route = [(axis, y)]
        if node in starts[1:]:
            low, gate = y + STUB, axis + reach[1] + TRACK_PITCH
            route += [(axis, low), (gate, low), (gate, 0.0), (axis + shift, 0.0)]
            axis, y, sheet.height = axis + shift, STUB, max(sheet.height, low)
        y += gaps[node] if node else 0.0
        if node in spine:
            label_y = y - HEAD_LENGTH - AIR - LABEL_HEIGHT / 2
            sheet.connect(name, spine[node], [*route, (axis, y)], axis, label_y, label_width)
        for side in reach:
            port = y + (heights[node] - rooms[node, side]) / 2
            for edge in entering[node, side]:
                edge.end = (axis + side * half, port + edge.room / 2)
                port += edge.room
            for edge in leaving[node, side]:
                edge.start = (axis + side * half, port + LINE_PITCH / 2)
                port += LINE_PITCH
        y += heights[node]
        box = (axis, y - heights[node] / 2, 2 * half, heights[node])
        sheet.boxes.append(_Box(f"{name}-node{node}", "node", picture.nodes[node], *box))
        sheet.height = max(sheet.height, y)
    for edge in outer:
        (x, start), (_, end) = edge.start, edge.end
        track = x + edge.side * (first[edge.side] - half + edge.track * TRACK_PITCH)
        label_x = x + edge.side * (HEAD_LENGTH + AIR + label_width / 2)
        sheet.connect(name, edge, [(x, start), (track, start), (track, end), (x, end)], label_x, end, label_width)
    return sheet


def _choose_sides(outer: Sequence[_Edge]) -> None:
    """Put edges left (-1) or right (1): start with all right, move the one that gains most until none gains."""
    while outer:
        gains = [sum(_clash(one, two) * one.side * two.side for two in outer) for one in outer]
        if max(gains) <= 0:
            break
        outer[gains.index(max(gains))].side *= -1


def _clash(one: _Edge, two: _Edge) -> int:
    """Rate two edges on one side: their lines cross, their labels make a node higher, or just a further track."""
    if one is two or not _overlap(one, two):
        return 0
    (a, b), (c, d) = sorted([(one.source, one.target), (two.source, two.target)])
    return 3 if a < c < b < d or (b == d and one.label and two.label) else 1


def _choose_tracks(outer: Sequence[_Edge]) -> None:
    """Give each edge, shorter ones first, the innermost track of its side that is free."""
    for number, edge in enumerate(outer):
        taken = {other.track for other in outer[:number] if other.side == edge.side and _overlap(other, edge)}
        edge.track = min(set(range(number + 1)) - taken)


def _choose_starts(edges: Sequence[_Edge], heights: Sequence[float]) -> list[int]:
    """Give the first nodes of columns of like numbers of nodes, cut where at most an edge to the next node is cut."""
    columns = ceil(sum(heights) / COLUMN_HEIGHT)
    size = len(heights) / columns
    starts = {0}
    for place in (size * column for column in range(1, columns)):
        near = [node for node in range(1, len(heights)) if abs(node - place) < size / 2]
        cuts = {node: [edge.span for edge in edges if edge.source < node <= edge.target] for node in near}
        legal = [node for node in near if cuts[node] in ([], [1])]
        starts.update(sorted(legal, key=lambda node: abs(node - place))[:1])
    return sorted(starts)


def _overlap(one: _Edge, two: _Edge) -> bool:
    """Tell whether two edges run beside a common stretch of nodes."""
    return one.source < two.target and two.source < one.target


def family(label: str) -> str:
    """Guess the kind of an operation from its name; ``k3`` and the like are convolutions of that kernel."""
    if label[:1] == "k" and label[1:2].isdigit():
        return "conv"
    words = {"none": ("none", "zero"), "pool": ("pool",), "skip": ("skip", "identity"), "conv": ("conv",)}
    return next((kind for kind, parts in words.items() if any(part in label.lower() for part in parts)), "other")


def _font(style: str) -> FontProperties:
    return FontProperties(family=["DejaVu Sans", "sans-serif"], size=STYLES[style].size, weight=STYLES[style].weight)


def _text_width(text: str, style: str) -> float:
    width, _, _ = TextToPath().get_text_width_height_descent(text, _font(style), ismath=False)
    return float(width) / 72


def _wrap(text: str, width: float) -> list[str]:
    """Break a caption into lines of at most this width, where its words allow."""
    rows: list[str] = []
    for word in text.split():
        if rows and _text_width(f"{rows[-1]} {word}", "caption") <= width:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return rows


def _ink(sheet: _Sheet, width: float, height: float) -> Figure:
    """Turn the shapes into a figure."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    inches = Affine2D().scale(1, -1).translate(0, height) + figure.dpi_scale_trans
    for line in sheet.lines:
        colour, width, dashes = LINES.get(line.label, LINE)
        (x, y), (tip_x, tip_y) = line.corners[-2:]
        length = hypot(tip_x - x, tip_y - y)
        across, down = HEAD_LENGTH * (tip_x - x) / length, HEAD_LENGTH * (tip_y - y) / length
        path = PathPatch(_rounded([*line.corners[:-1], (tip_x - across, tip_y - down)]), transform=inches, zorder=1)
        path.set(facecolor="none", edgecolor=colour, linewidth=width, linestyle=dashes, capstyle="butt", gid=line.name)
        path.set(path_effects=[withStroke(linewidth=width + 1.6, foreground="white")])
        wings = [(tip_x - across - side * down * SLANT, tip_y - down + side * across * SLANT) for side in (-1, 1)]
        head = Polygon([(tip_x, tip_y), *wings], transform=inches, zorder=2)
        head.set(facecolor=colour, linewidth=0, gid=line.name.replace("edge", "head"))
        figure.add_artist(path)
        figure.add_artist(head)
    for box in sheet.boxes:
        style = STYLES[box.style]
        if style.fill:
            corner, rounding = (
                (box.x - box.width / 2, box.y - box.height / 2),
                f"round,pad=0,rounding_size={RADIUS / 2}",
            )
            patch = FancyBboxPatch(corner, box.width, box.height, boxstyle=rounding, transform=inches, zorder=3)
            patch.set(facecolor=style.fill, edgecolor=style.outline, linewidth=style.stroke, linestyle=style.dashes)
            patch.set(gid=box.name)
            figure.add_artist(patch)
        baseline = box.y + 0.36 * style.size / 72
        text = figure.text(box.x, baseline, box.text, transform=inches, ha="center", va="baseline", zorder=4)
        text.set(font=_font(box.style), color=style.ink, parse_math=False, usetex=False, gid=f"{box.name}-text")
    return figure


def _rounded(corners: Sequence[Point]) -> Curve:
    """Join points by straight lines with rounded corners."""
    points, codes = [corners[0]], [Curve.MOVETO]
    for before, (x, y), after in zip(corners, corners[1:], corners[2:], strict=False):
        lengths = [hypot(a - x, b - y) for a, b in (before, after)]
        part = min(RADIUS, *(length / 2 for length in lengths))
        (a, b), (c, d) = before, after
        points.append((x + (a - x) * part / lengths[0], y + (b - y) * part / lengths[0]))
        points += [(x, y), (x + (c - x) * part / lengths[1], y + (d - y) * part / lengths[1])]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    return Curve([*points, corners[-1]], [*codes, Curve.LINETO])
