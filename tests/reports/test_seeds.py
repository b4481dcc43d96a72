"""The figure of all seeds."""

from dataclasses import replace

import numpy as np
import pytest
from compared import COLUMN, POOL
from matplotlib.colors import to_rgb

from gapless.reports.comparison import Reference, Row, report
from gapless.reports.seeds import BEST, DOT, NAMES, SEED, seeds
from gapless.runs.comparison import ComparisonCell


def made(found, values, references=None, data=("",), **changes):
    """Return a report with these values: method -> one a seed, the same for all sets of images."""
    rows = {
        method: tuple(Row(ComparisonCell(method, "", seed), "ended", value=v) for seed, v in enumerate(told))
        for method, told in values.items()
    }
    (group,) = found.groups
    kept = group.references if references is None else references
    groups = tuple(replace(group, data=name, rows=rows, references=kept) for name in data)
    asked = replace(found.asked, methods=tuple(values), data=data, **changes)
    return replace(found, asked=asked, groups=groups)


def dots(axes, colour=SEED.colour):
    return [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == colour]


def test_every_seed_is_a_dot_beside_its_mean(folder):
    found = report(folder)
    figure = seeds(found)
    (axes,) = figure.axes
    assert figure.get_size_inches()[0] == 3.25
    for row, (line, rows) in enumerate(zip(dots(axes), found.groups[0].rows.values(), strict=True)):
        values = [r.value for r in rows if r.value is not None]
        np.testing.assert_allclose(line.get_xdata(), sorted(values))
        means = [m for m in axes.lines if m.get_linewidth() == 1.4 and np.mean(m.get_ydata()) == row]
        assert [m.get_xdata()[0] for m in means] == pytest.approx([np.mean(values)])
    low, high = axes.get_xlim()
    shown = [r.value for r in found.groups[0].references] + [r.value for r in found.rows if r.value is not None]
    assert low < min(shown) and high > max(shown), "no value is cut off"
    said = [t.get_text() for t in figure.texts]
    assert said[:5] == ["random", "pc_darts", "one random cell", "most parameters", "best cell"]
    assert f"{COLUMN} (%)" in said
    assert min(t.get_fontsize() for t in figure.texts) >= 7
    assert all(label.get_fontsize() >= 7 for label in axes.get_xticklabels())


def test_references_stand_in_their_rows(folder):
    found = report(folder)
    (axes,) = seeds(found).axes
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    references = found.groups[0].references
    assert [d.get_xdata()[0] for d in diamonds] == [r.value for r in references]
    assert [d.get_ydata()[0] for d in diamonds] == [2, 3, 4]
    assert [d.get_color() == BEST.colour for d in diamonds] == [r.value == references[-1].value for r in references]
    (band,) = axes.patches
    low, high = band.get_x(), band.get_x() + band.get_width()
    mean, spread = references[0].value, references[0].spread
    assert low == pytest.approx(max(axes.get_xlim()[0], mean - spread))
    assert high == pytest.approx(min(references[-1].value, mean + spread)), "there is no better cell than the best"


def test_equal_seeds_do_not_hide_each_other(folder):
    figure = seeds(made(report(folder), {"one": (90.0, 90.0, 90.0, 80.0), "two": (85.0,) * 9}))
    figure.canvas.draw()
    (axes,) = figure.axes
    first, second = dots(axes)
    places = axes.transData.transform(np.column_stack([first.get_xdata(), first.get_ydata()])) * 72 / figure.dpi
    apart = [np.hypot(*(a - b)) for i, a in enumerate(places) for b in places[:i]]
    assert min(apart) >= DOT - 0.1
    assert np.abs(np.array(second.get_ydata()) - 1).max() < 0.5, "however many there are, they stay in their row"
    assert [np.mean(first.get_ydata().tolist()[1:]), first.get_ydata()[0]] == [0, 0]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_panel_for_each_set_of_images(folder, count):
    names = [f"/far/away/d{i}" for i in range(count)]
    found = made(
        report(folder),
        {"random": (50.0, 60.0), "a_method_with_a_really_very_long_name": (70.0, 71.0)},
        data=tuple(names),
    )
    figure = seeds(found)
    assert len(figure.axes) == count and figure.get_size_inches()[0] == 6.75
    said = [t.get_text() for t in figure.texts]
    assert [f"d{i}" for i in range(count)] == [s for s in said if s.startswith("d") and len(s) == 2]
    assert "…" in "".join(said), "a name that is too long is shortened"
    assert said.count("random") == (2 if count == 4 else 1), "names stand once a line"
    wide, _ = figure.get_size_inches()
    assert all(axes.get_position().x0 * wide >= NAMES and axes.get_position().x1 * wide < wide for axes in figure.axes)


def test_one_value_and_no_table(folder):
    figure = seeds(made(report(folder), {"random": (55.0,)}, references=()))
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 55 < high and len(axes.get_xticks()) >= 1


def test_no_value_no_figure(folder):
    assert seeds(made(report(folder), {"random": (None, None)})) is None


def test_a_reference_above_all_that_was_found(folder):
    figure = seeds(
        made(
            report(folder),
            {"random": (99.9, 100.0)},
            references=(Reference("the best cell", 100.0, None, 100.0, POOL),),
        )
    )
    figure.canvas.draw()
    assert figure.axes[0].get_xlim()[1] > 99.99


def test_it_can_be_told_apart_in_grey():
    def grey(colour):
        return sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(colour), strict=True))

    assert abs(grey(SEED.colour) - grey(BEST.colour)) > 0.1
