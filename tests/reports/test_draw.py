"""Cells are drawn without overlaps, with their labels as text, and always alike."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path as Curve
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gapless.reports.draw import Picture, draw, family, save

pytestmark = pytest.mark.filterwarnings("error")

DARTS_NODES = ("c[k-2]", "c[k-1]", "0", "1", "2", "3", "output")
CONCAT = tuple((node, 6, "") for node in range(2, 6))
BENCH = Picture(
    "",
    ("input", "1", "2", "output"),
    (
        (0, 1, "nor_conv_3x3"),
        (0, 2, "skip_connect"),
        (1, 2, "avg_pool_3x3"),
        (0, 3, "none"),
        (1, 3, "nor_conv_1x1"),
        (2, 3, "nor_conv_3x3"),
    ),
)
NORMAL = Picture(
    "normal",
    DARTS_NODES,
    (
        (0, 2, "sep_conv_3x3"),
        (1, 2, "sep_conv_3x3"),
        (0, 3, "sep_conv_3x3"),
        (1, 3, "sep_conv_3x3"),
        (1, 4, "sep_conv_3x3"),
        (0, 4, "skip_connect"),
        (0, 5, "skip_connect"),
        (2, 5, "dil_conv_3x3"),
        *CONCAT,
    ),
)
REDUCE = Picture(
    "reduce",
    DARTS_NODES,
    (
        (0, 2, "max_pool_3x3"),
        (1, 2, "max_pool_3x3"),
        (2, 3, "skip_connect"),
        (1, 3, "max_pool_3x3"),
        (0, 4, "max_pool_3x3"),
        (2, 4, "skip_connect"),
        (2, 5, "skip_connect"),
        (1, 5, "max_pool_3x3"),
        *CONCAT,
    ),
)
OPERATIONS = ("sep_conv_3x3", "skip_connect", "dil_conv_5x5", "max_pool_3x3", "none", "gelu", "")
EVERY_EDGE = tuple((s, t, OPERATIONS[(3 * s + t) % 6]) for t in range(2, 6) for s in range(t))
KINDS = {"k3": "conv", "k7e6": "conv", "sep_conv_3x3": "conv", "xception": "other", "kernel": "other", "skip": "skip"}
BLOCKS = ("stem", *map(str, range(1, 19)), "head")
CHAIN = Picture("", BLOCKS, tuple((i, i + 1, ("mbconv6_7x7", "mbconv3_3x3", "skip")[i % 3]) for i in range(19)))


@pytest.mark.parametrize("label", KINDS)
def test_kinds_of_operations(label):
    assert family(label) == KINDS[label]


def _random_picture(seed: int) -> Picture:
    rng = random.Random(seed)
    count, density = rng.randint(1, 14), rng.random()
    edges = [
        (source, target, rng.choice(OPERATIONS))
        for target in range(count)
        for source in range(target)
        if rng.random() < density / (1 if seed % 2 else target - source) ** 2
    ]
    rng.shuffle(edges)
    nodes = tuple(rng.choice(("", "x", "node", "a much longer name")) + str(node) for node in range(count))
    return Picture(rng.choice(("", "normal", "a title that is wider than its cell")), nodes, tuple(edges))


CASES: dict[str, tuple[list[Picture], str]] = {
    "nas-bench-201": ([BENCH], "A cell."),
    "darts": ([NORMAL, REDUCE], "The two cells that the search found. " * 5),
    "darts-every-edge": ([Picture("", DARTS_NODES, EVERY_EDGE + CONCAT)], ""),
    "chain": ([CHAIN], "A network of twenty blocks."),
    "residual-chain": ([Picture("", BLOCKS, (*CHAIN.edges, *((i, i + 2, "") for i in range(0, 18, 3))))], ""),
    "unfed-node": ([Picture("", ("input", "1", "2", "3"), ((0, 1, "conv"), (1, 3, "pool"), (2, 3, "skip")))], ""),
    "parallel-edges": (
        [Picture("", ("a", "b", "c"), ((0, 1, "x"), (0, 1, "y"), (0, 1, "z"), (0, 2, ""), (0, 2, "u")))],
        "",
    ),
    "odd-texts": ([Picture("<&>", ("$x$", "$", ""), ((0, 1, "a < b & c"), (1, 2, "$y$ \\alpha")))], "cost $ & \\frac"),
    "three-cells": ([BENCH, BENCH, BENCH], ""),
    **{f"random-{seed}": ([_random_picture(seed)], "") for seed in range(30)},
}
every_case = pytest.mark.parametrize(("pictures", "caption"), CASES.values(), ids=CASES.keys())


def _artists(figure: Figure, pattern: str) -> dict[str, Artist]:
    found = {str(artist.get_gid()): artist for artist in figure.findobj() if artist.get_gid()}
    return {name: artist for name, artist in found.items() if re.fullmatch(pattern, name)}


def _boxes(figure: Figure, pattern: str) -> dict[str, Bbox]:
    """Measure artists as they are rendered, with half the width of their outlines."""
    boxes = {}
    for name, artist in _artists(figure, pattern).items():
        outline = artist.get_linewidth() / 2 * figure.dpi / 72 if isinstance(artist, Patch) else 0.0
        boxes[name] = artist.get_window_extent().padded(outline)
    return boxes


def _polylines(figure: Figure) -> dict[str, np.ndarray]:
    """Give the points of every edge, its curves flattened."""
    lines = {}
    for name, artist in _artists(figure, r"cell\d+-edge\d+").items():
        assert isinstance(artist, Patch)
        (points,) = artist.get_path().to_polygons(artist.get_transform(), closed_only=False)
        lines[name] = np.asarray(points, dtype=float)
    return lines


def _apart(one: Bbox, two: Bbox) -> bool:
    return bool(one.x1 < two.x0 or two.x1 < one.x0 or one.y1 < two.y0 or two.y1 < one.y0)


def _meets(points: np.ndarray, box: Bbox) -> bool:
    """Tell whether a polyline enters a box."""
    return bool(Curve(points).intersects_bbox(box, filled=False))


def _edges(pictures: list[Picture]) -> Iterator[tuple[str, str, str, str, str]]:
    """Give the names of an edge, of its source, target and label, and its operation."""
    for number, picture in enumerate(pictures):
        cell = f"cell{number}"
        for index, (source, target, label) in enumerate(picture.edges):
            yield f"{cell}-edge{index}", f"{cell}-node{source}", f"{cell}-node{target}", f"{cell}-label{index}", label


@every_case
def test_boxes_texts_and_heads_are_disjoint_and_inside(pictures: list[Picture], caption: str) -> None:
    figure = draw(pictures, caption)
    boxes = _boxes(figure, r"cell\d+-(node\d+|label\d+|title-text)|caption\d+-text")
    heads = _boxes(figure, r"cell\d+-head\d+")
    labels = sum(bool(label) for *_, label in _edges(pictures))
    assert len(boxes) >= labels + sum(len(picture.nodes) for picture in pictures)
    assert len(heads) == sum(len(picture.edges) for picture in pictures)
    for (one, first), (two, second) in combinations(boxes.items(), 2):
        assert _apart(first, second), f"{one} overlaps {two}"
    targets = {edge.replace("edge", "head"): target for edge, _, target, *_ in _edges(pictures)}
    for name, head in heads.items():
        for other, box in (boxes | heads).items():
            touch = 1.0 if other == targets[name] else 0.0  # the tip lies on the border of the target
            shrunk = Bbox.from_extents(box.x0 + touch, box.y0 + touch, box.x1 - touch, box.y1 - touch)
            assert other == name or _apart(head, shrunk), f"{name} overlaps {other}"
    for name, box in (boxes | heads).items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, f"{name} leaves the figure"
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, f"{name} leaves the figure"


@every_case
def test_texts_lie_inside_their_boxes(pictures: list[Picture], caption: str) -> None:
    figure = draw(pictures, caption)
    boxes = _boxes(figure, r"cell\d+-(node|label)\d+")
    texts = _boxes(figure, r"cell\d+-(node|label)\d+-text")
    for name, box in boxes.items():
        artist = _artists(figure, f"{name}-text")[f"{name}-text"]
        assert isinstance(artist, Text)
        assert artist.get_fontproperties().get_size_in_points() >= 7
        if artist.get_text():
            text = texts[f"{name}-text"]
            assert box.x0 < text.x0 and text.x1 < box.x1 and box.y0 < text.y0 and text.y1 < box.y1


@every_case
def test_lines_run_through_no_foreign_box(pictures: list[Picture], caption: str) -> None:
    figure = draw(pictures, caption)
    boxes = _boxes(figure, r"cell\d+-(node\d+|label\d+|title-text)|caption\d+-text")
    heads = _boxes(figure, r"cell\d+-head\d+")
    lines = _polylines(figure)
    for edge, source, target, label, operation in _edges(pictures):
        for name, box in boxes.items():
            if name != label:
                # Boxes are measured with their outlines, on the middle of which an edge starts and ends.
                inset = 1.0 if name in (source, target) else 0.0
                shrunk = Bbox.from_extents(box.x0 + inset, box.y0 + inset, box.x1 - inset, box.y1 - inset)
                assert not _meets(lines[edge], shrunk), f"{edge} runs through {name}"
        for name, head in heads.items():
            assert name == edge.replace("edge", "head") or not _meets(lines[edge], head), f"{edge} runs through {name}"
        assert not operation or _meets(lines[edge], boxes[label]), f"{edge} misses its label"
        assert boxes[source].contains(*lines[edge][0]), f"{edge} does not start at {source}"
        assert not _apart(heads[edge.replace("edge", "head")], boxes[target]), f"{edge} does not end at {target}"


@every_case
def test_no_two_edges_share_a_line(pictures: list[Picture], caption: str) -> None:
    runs = []  # direction, place across, from, to
    for points in _polylines(draw(pictures, caption)).values():
        for (x, y), (a, b) in pairwise(points):
            if abs(x - a) < 1e-6 or abs(y - b) < 1e-6:
                runs.append(("down", x, *sorted((y, b))) if abs(x - a) < 1e-6 else ("across", y, *sorted((x, a))))
    for (way, place, low, high), (way2, place2, low2, high2) in combinations(runs, 2):
        assert way != way2 or abs(place - place2) > 3 or high <= low2 or high2 <= low


@every_case
def test_lines_lie_inside_the_figure(pictures: list[Picture], caption: str) -> None:
    figure = draw(pictures, caption)
    for name, points in _polylines(figure).items():
        assert (points > 1).all() and (points + 1 < (figure.bbox.width, figure.bbox.height)).all(), (
            f"{name} leaves the figure"
        )


@pytest.mark.parametrize("hub", [0, 7])
def test_edges_from_or_to_one_node_do_not_cross(hub: int) -> None:
    edges = tuple((min(hub, node), max(hub, node), "conv") for node in range(8) if node != hub)
    lines = _polylines(draw([Picture("", tuple("abcdefgh"), edges)])).values()
    assert not any(Curve(one).intersects_path(Curve(two), filled=False) for one, two in combinations(lines, 2))


def test_famous_cells_fit_a_page() -> None:
    for name in ("nas-bench-201", "darts", "darts-every-edge", "chain", "residual-chain"):
        width, height = draw(*CASES[name]).get_size_inches()
        assert width < 7 and height < 5.5, name


@every_case
def test_svg_holds_the_labels_as_text_and_is_reproducible(
    pictures: list[Picture], caption: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    save(draw(pictures, caption), first)
    save(draw(pictures, caption), second)
    assert first.read_bytes() == second.read_bytes()
    svg = first.read_text(encoding="utf-8")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    for picture in pictures:
        for label in (picture.title, *picture.nodes, *(label for *_, label in picture.edges)):
            escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            assert not label or escaped in texts
    assert "<dc:date>" not in svg


def test_caption_is_wrapped_and_complete() -> None:
    caption = "The two cells that the search found. " * 8
    figure = draw([BENCH], caption)
    lines = [artist for artist in _artists(figure, r"caption\d+-text").values() if isinstance(artist, Text)]
    assert len(lines) > 1
    assert " ".join(line.get_text() for line in lines) == caption.strip()


def test_a_cut_edge_is_dashed() -> None:
    edges = _artists(draw([BENCH]), r"cell0-edge\d+")
    dashed = {
        name
        for name, edge in edges.items()
        if isinstance(edge, Patch) and edge.get_linestyle() not in ("-", "solid", (0.0, None))
    }
    assert dashed == {"cell0-edge3"}


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_each_format_is_written_reproducibly(suffix: str, magic: bytes, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}{suffix}" for number in range(2)]
    for path in paths:
        save(draw([BENCH], "A cell."), path)
    assert paths[0].read_bytes().startswith(magic)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(("name", "given"), [("cell.jpeg", "'.jpeg'"), ("cell", "no suffix"), (".svg", "no suffix")])
def test_another_suffix_is_refused(name: str, given: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{given}; use \.svg, \.png or \.pdf"):
        save(draw([BENCH]), tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ((), (), "no nodes"),
        (("a", "b"), ((1, 0, "conv"),), "edge 1 -> 0 'conv' .* later one"),
        (("a", "b"), ((0, 0, "conv"),), "later one"),
        (("a", "b"), ((0, 2, "conv"),), "from 0 to 1"),
        (("a", "b"), ((-1, 1, "conv"),), "later one"),
        (("a", "b\nc"), (), "several lines"),
        (("a", "b"), ((0, 1, "b\nc"),), "several lines"),
    ],
)
def test_an_impossible_picture_is_refused(
    nodes: tuple[str, ...], edges: tuple[tuple[int, int, str], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Picture("normal", nodes, edges)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw([])


def test_pyplot_stays_out(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from gapless.reports.draw import Picture, draw, save;"
        f"save(draw([Picture('', ('a',), ())]), pathlib.Path({str(tmp_path / 'cell.svg')!r}));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
