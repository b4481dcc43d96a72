"""Figures of scores and training: they show the trace and nothing else, and no text lies on another."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from gapless.core.decision import Arch
from gapless.reports import curves
from gapless.reports.draw import save
from gapless.spaces.darts import OPTIONS, Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.patched import Patched
from gapless.testing.examples import Ragged

pytestmark = pytest.mark.filterwarnings("error")


def chain(count, options=("same", "conv_3x3", "skip")):
    model = nn.Sequential(*(nn.Identity() for _ in range(count)))
    return Patched(model=model, swaps={str(i): dict.fromkeys(options) for i in range(count)})


def drawn(space, records):
    return curves.scores(records, space, Arch.parse(records[-1]["arch"]))


def texts(figure: Figure) -> list[Text]:
    """What can be read: the texts of the figure, and the labels of ticks within the limits of their axis."""
    figure.draw_without_rendering()
    found = list(figure.texts)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        found += [t.label1 for t in axis.majorTicks if t.label1.get_visible() and low <= t.get_loc() <= high]
    return [text for text in found if text.get_text()]


def check(figure: Figure) -> None:
    """No text overlaps another or is cut, and the figure fits a column or a page."""
    width, height = figure.get_size_inches()
    assert width in (3.25, 6.75) and height <= 9
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    for name, box in boxes:
        assert box.x0 >= -0.5 and box.y0 >= -0.5, name
        assert box.x1 <= figure.bbox.x1 + 0.5 and box.y1 <= figure.bbox.y1 + 0.5, name
    for (one, a), (two, b) in combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # The box of a text has room for descenders, which names on neighbouring lines may share.
        assert across <= 0 or down <= 0.25 * min(a.height, b.height), f"{one!r} lies on {two!r}"


CASES = {
    "nasbench201": (NASBench201(), 12),
    "staged": (NASBench201(), 40),
    "darts": (Darts(), 50),
    "darts with none": (Darts(options="original", inputs=None), 5),
    "ragged": (Ragged(), 20),
    "one epoch": (Ragged(), 1),
    "one decision": (chain(1), 3),
    "chain": (chain(12, ("same", "conv", "an_option_with_quite_a_long_name")), 100),
    "thirty": (chain(30), 30),
    "heat": (chain(45), 30),
    "heat of one epoch": (chain(31), 1),
    "many options": (chain(3, tuple(f"op{i}" for i in range(14))), 5),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_lies_on_another(case, trace):
    space, count = CASES[case]
    for figure in drawn(space, trace(space, count, stages=min(2, count))).values():
        check(figure)


def test_one_page_per_block_and_a_panel_per_decision(trace):
    figures = drawn(Darts(), trace(Darts(), 4))
    assert list(figures) == ["scores-normal", "scores-reduce"]
    assert [len(f.axes) for f in figures.values()] == [14, 14]
    assert list(drawn(NASBench201(), trace(NASBench201(), 4))) == ["scores"]
    assert list(drawn(chain(45), trace(chain(45), 4))) == ["scores"]
    assert list(drawn(chain(130), trace(chain(130), 2))) == ["scores-1", "scores-2", "scores-3"]


@pytest.mark.parametrize("space", [NASBench201(), Ragged()], ids=lambda s: s.label)
def test_lines_are_the_trace(space, trace):
    records = trace(space, 6, stages=3)
    figure = drawn(space, records)["scores"]
    arch = Arch.parse(records[-1]["arch"])
    assert len(figure.axes) == len(space.decisions)
    for row, (axes, decision) in enumerate(zip(figure.axes, space.decisions, strict=True)):
        lines = {line.get_label(): line for line in axes.lines if line.get_label() in decision.options}
        assert tuple(lines) == decision.options
        for column, option in enumerate(decision.options):
            np.testing.assert_array_equal(lines[option].get_xdata(), range(1, 7))
            np.testing.assert_array_equal(lines[option].get_ydata(), [r["scores"][row][column] for r in records])
            assert (lines[option].get_linewidth() > 1) == (arch.get(decision.name) == option)
        boundaries = [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]
        assert boundaries == [2, 4]
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1, "panels are compared: they share their axis"


def test_options_are_named_at_their_lines_and_unkept_decisions_are_told(trace):
    said = [t.get_text() for t in texts(drawn(NASBench201(), trace(NASBench201(), 5))["scores"])]
    assert said.count("skip_connect") == 6
    assert "not kept" not in said
    records = trace(Darts(), 5)
    pages = drawn(Darts(), records)
    kept = Arch.parse(records[-1]["arch"])
    for kind in ("normal", "reduce"):
        said = [t.get_text() for t in texts(pages[f"scores-{kind}"])]
        assert said.count("not kept") == 14 - sum(name.startswith(kind) for name in kept) == 6
        chosen = [option for name, option in kept.items() if name.startswith(kind)]
        for option in OPTIONS["darts"]:  # once in the key, and above each panel where it was chosen
            assert said.count(option) == 1 + chosen.count(option)


def test_a_heat_map_shows_the_score_of_the_chosen_option(trace):
    space = chain(70)
    records = trace(space, 7)
    arch = Arch.parse(records[-1]["arch"])
    pages = drawn(space, records)
    shown = np.concatenate([figure.axes[0].images[0].get_array() for figure in pages.values()])
    wanted = [
        [r["scores"][row][d.options.index(arch[d.name])] for r in records] for row, d in enumerate(space.decisions)
    ]
    np.testing.assert_array_equal(shown, wanted)
    scales = {figure.axes[0].images[0].get_clim() for figure in pages.values()}
    assert scales == {(np.min(wanted), np.max(wanted))}, "one scale on all pages"


def test_a_heat_map_tells_what_is_not_kept(trace, monkeypatch):
    monkeypatch.setattr(curves, "PANELS", 5)
    (figure,) = drawn(Ragged(), trace(Ragged(), 5)).values()
    assert [t.get_text() for t in texts(figure)].count("not kept") == 2
    check(figure)


def test_scores_that_are_not_finite_are_left_out(trace):
    records = trace(NASBench201(), 4)
    records[1]["scores"][0][0] = float("-inf")
    records[2]["scores"][0][0] = None
    line = drawn(NASBench201(), records)["scores"].axes[0].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [False, True, True, False]


def test_stages_start_after_the_epochs_before_them():
    assert curves.starts([{"stage": s} for s in (0, 0, 1, 1, 1, 2)]) == [2, 5]
    assert curves.starts([{"epoch": 0}]) == []


def curves_of(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.lines if line.get_label()[0] != "_"}


def test_training_of_a_search(trace):
    records = trace(NASBench201(), 6, stages=2)
    figure = curves.training(records)
    check(figure)
    lines = curves_of(figure)
    assert list(lines) == ["train_loss", "arch_loss", "train_accuracy", "valid_accuracy", "lr"]
    for name, line in lines.items():
        wanted = [np.nan if r[name] is None else r[name] for r in records]
        np.testing.assert_array_equal(line.get_ydata(), wanted)
    dots = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert [list(d.get_xdata()) for d in dots] == [[2, 4, 6]]
    assert {"architecture", "held-out", "accuracy (%)", "epoch"} <= {t.get_text() for t in texts(figure)}


def test_training_of_a_network_alone(retrained):
    figure = curves.training(retrained)
    check(figure)
    assert list(curves_of(figure)) == ["train_loss", "train_accuracy", "test_accuracy", "lr"]
    assert "test" in {t.get_text() for t in texts(figure)}


def test_curves_without_values_are_left_out(trace):
    records = [{**r, "arch_loss": None, "valid_accuracy": None} for r in trace(NASBench201(), 3)]
    figure = curves.training(records)
    assert list(curves_of(figure)) == ["train_loss", "train_accuracy", "lr"]
    check(figure)


@pytest.mark.parametrize("values", [(1e-5, 3e-5), (0.0, 0.0), (-12.5, -11.25), (1e4, 3e5)])
def test_the_room_for_numbers_is_measured(values, retrained):
    low, high = values
    for i, record in enumerate(retrained):
        record["lr"] = low + (high - low) * i / 3
    check(curves.training(retrained))


def test_files_are_alike_with_text_as_text_and_fonts_embedded(trace, tmp_path):
    records = trace(NASBench201(), 5)
    for name in ("one", "two"):
        save(drawn(NASBench201(), records)["scores"], tmp_path / f"{name}.svg")
    one = (tmp_path / "one.svg").read_bytes()
    assert one == (tmp_path / "two.svg").read_bytes()
    assert b">nor_conv_3x3<" in one
    save(curves.training(records), tmp_path / "a.pdf")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
