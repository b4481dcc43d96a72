"""The page of a comparison: what the methods' answers are worth, what that shows, the answers, and what repeats it.

A section is a small function from what the folder holds to HTML; it returns None where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gapless.analysis.statistics import mean
from gapless.core.text import quoted
from gapless.reports import gap as gaps
from gapless.reports.comparison import (
    TEST,
    Grid,
    Group,
    Report,
    Row,
    costs,
    differences,
    heading,
    methods,
    report,
    worth,
)
from gapless.reports.draw import draw
from gapless.reports.html import (
    NOTHING,
    Html,
    Section,
    document,
    drawing,
    facts,
    join,
    paragraph,
    prose,
    table,
    tag,
    text,
)
from gapless.reports.parts import (
    MACHINES,
    Page,
    commands,
    folded,
    lasted,
    machine_facts,
    trains_supernet,
)
from gapless.reports.seeds import seeds
from gapless.runs.comparison import NAME, Comparison, Folder
from gapless.runs.run import Run

FEW = 6
"""So many cells are drawn openly; of more methods and sets of images they are folded."""
DOTS = "A dot is a seed, the short line the mean of a method. The scale is logarithmic in the error."
REFERENCES = (
    "The diamonds needed no search: the grey band is one standard deviation over all cells to both sides of their "
    "mean, up to the best cell, and may be cut off to the left."
)
"""What stands below the figure."""


@dataclass(frozen=True, eq=False)
class ComparisonFacts:
    """What the folder of a comparison holds, read once."""

    folder: Folder
    report: Report

    @property
    def name(self) -> str:
        """Of the folder, wherever it lies."""
        return self.folder.path.resolve().name

    @property
    def asked(self) -> Comparison:
        """What was asked last."""
        return self.report.asked

    @cached_property
    def gaps(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of a run -> what was measured of its gap."""
        runs = {row.cell.name: self.folder.run(row.cell) for row in self.report.rows}
        return {name: gaps.read(run) for name, run in runs.items() if (run.path / gaps.NAME).is_file()}

    @cached_property
    def answers(self) -> tuple[tuple[Group, tuple[Row, ...], Row], ...]:
        """The runs of each method on each set of images, and which of them has the best answer: that of the first seed
        where nothing says what answers are worth. Methods without an answer are left out."""
        return tuple(
            (group, rows, max(found, key=lambda row: -1.0 if row.value is None else row.value))
            for group in self.report.groups
            for rows in group.rows.values()
            if (found := [row for row in rows if "architecture" in row.facts])
        )


def page(folder: Folder) -> Page:
    """Return the page of a comparison.

    Raises
    ------
    UserError
        Where ``comparison.toml`` or the table cannot be read, or the measured gap of a run.
    """
    told = ComparisonFacts(folder, report(folder))
    sections = [section for make in SECTIONS if (section := make(told)) is not None]
    html = document(f"{_title(told)} ({told.name})", lead(told), sections)
    return Page(html, tuple(section.name for section in sections), told.report.notes)


# ---------------------------------------------------------------------- what was compared


def lead(told: ComparisonFacts) -> Html:
    """Say what was compared, and how much of it has ended."""
    parts = [tag("p", text("A comparison"), class_="kind"), tag("h1", text(_title(told)))]
    count = f"{len(told.report.rows) - len(told.report.missing)} of {len(told.report.rows)} runs have ended"
    parts.append(tag("p", text(f"{told.name}: {_count(told.asked.methods, 'method')}, {_seeds(told)}, {count}")))
    parts.append(facts((name, text(said)) for name, said in _facts(told)))
    return join(parts)


def _title(told: ComparisonFacts) -> str:
    """Return methods on space on data, by the names that one knows them by."""
    data = ", ".join(Path(name).name for name in told.asked.data if name)
    return " on ".join(filter(None, (heading(told.asked), data)))


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _seeds(told: ComparisonFacts) -> str:
    return f"{_count(told.asked.seeds, 'seed')} ({', '.join(map(str, told.asked.seeds))})"


def _facts(told: ComparisonFacts) -> Iterator[tuple[str, str]]:
    asked, recipe = told.asked, told.asked.recipe
    settings = ", ".join(f"{name} {value}" for name, value in recipe.space.items() if name != "name")
    yield "Space", Path(str(recipe.space["name"])).stem + (f" ({settings})" if settings else "")
    yield "Images", ", ".join(name for name in asked.data if name) or "none were needed"
    ended = (told.folder.run(row.cell) for row in told.report.rows if "architecture" in row.facts)
    score = next(filter(None, (run.score() for run in ended)), None)
    if score is not None:
        yield "Black boxes go by", f"{score['title']}, {score['evaluations']:,} evaluations each"
    if asked.table:
        yield "Worth", f"{', '.join(dict.fromkeys(asked.columns))} of {Path(asked.table).name}"
    else:
        yield "Worth", f"{TEST} of the answer trained alone" if asked.retrain else "not known, only costs are compared"
    if len(asked.methods) > 1:
        yield "Baseline", Path(asked.baseline).stem
    known = [row.facts.get(name) for row in told.report.rows for name in ("seconds", "training_seconds")]
    yield "Time", f"{lasted(sum(seconds for seconds in known if seconds is not None))}, all runs together"


# ---------------------------------------------------------------------- what came of it


def values(told: ComparisonFacts) -> Section:
    """Draw and tell what the answers are worth, how far the methods differ, and what they cost."""
    asked, parts = told.asked, [_drawn(told)]
    for group in told.report.groups:
        grids = [worth(asked, group), costs(asked, group)] if group.measure else [methods(asked, group)]
        grids[1:1] = [differences(asked, group)] if group.differences else []
        parts += [_grid(grid) for grid in grids]
    title = "What the answers are worth" if any(group.measure for group in told.report.groups) else "What it cost"
    return Section("values", title, join(filter(None, parts)))


def _drawn(told: ComparisonFacts) -> Html:
    figure = seeds(told.report)
    if figure is None:
        return NOTHING
    found = [
        f"{Path(method).stem}{f' on {Path(group.data).name}' if group.data else ''} {mean(known):.2f}"
        for group in told.report.groups
        for method, rows in group.rows.items()
        if (known := [row.value for row in rows if row.value is not None])
    ]
    said = f"{DOTS} {REFERENCES}" if told.asked.table else DOTS
    return drawing(figure, "seeds", f"The value of every seed of every method. Means: {', '.join(found)}.", prose(said))


def _grid(grid: Grid) -> Html:
    return join([tag("h3", text(grid.title)), table(grid.header, grid.lines, caption=grid.title)])


def missing(told: ComparisonFacts) -> Section | None:
    """Tell which runs have not come to their end, and why."""
    rows = told.report.missing
    if not rows:
        return None
    said = f"{len(rows)} of {len(told.report.rows)} runs are not in the means. What they printed stands in `logs/`."
    failed = [tag("li", tag("p", text(f"{row.cell.name}: {row.error}"))) for row in rows if row.error]
    waiting = ", ".join(row.cell.name for row in rows if not row.error)
    parts = [paragraph(said)]
    parts += [tag("h3", text("Failed")), tag("ul", *failed, class_="runs")] if failed else []
    parts += [tag("h3", text("Not ended")), tag("p", text(waiting))] if waiting else []
    return Section("missing", "Runs that have not ended", join(parts))


def limits(told: ComparisonFacts) -> Section | None:
    """Tell what the numbers can and cannot show."""
    said = [paragraph(note) for note in told.report.limits]
    return Section("limits", "What this can show", join(said)) if said else None


def trust(told: ComparisonFacts) -> Section | None:
    """Tell the gaps that were measured."""
    if not told.gaps:
        return None
    found = gaps.summary_table(told.gaps)
    caption = "How well supernets rank, and what is left of their accuracy"
    said = paragraph(
        "Kendall's tau of accuracies inherited from the supernet with what architectures are worth, and accuracies on "
        "the test images; statistics of batch normalisation were gathered anew for the answer.",
        "quiet",
    )
    return Section("trust", "The gap", join([table(found.head, found.rows, caption=caption, code=found.code), said]))


# ---------------------------------------------------------------------- the answers


def answers(told: ComparisonFacts) -> Section | None:
    """Draw the best answer of every method, and tell all of them."""
    if not told.answers:
        return None
    few = len(told.answers) <= FEW
    parts = [_answer(told, *found, number, few) for number, found in enumerate(told.answers)]
    several = len(told.asked.seeds) > 1 and any(group.measure for group in told.report.groups)
    said = "Of each method the best of its seeds stands here; what a method is worth is its mean." if several else ""
    return Section("answers", "The answers", join([paragraph(said, "quiet"), *parts] if said else parts))


def _answer(told: ComparisonFacts, group: Group, rows: Sequence[Row], best: Row, number: int, few: bool) -> Html:
    """Tell the best answer of a method and, folded, those of all its runs."""
    several = len(told.report.groups) > 1 and group.data
    name = f"{best.method}, {Path(group.data).name}" if several else best.method
    arch, space = told.folder.run(best.cell).found()
    which = "first" if best.value is None else "best"
    label = f"The {which} answer of {name} as a graph: {best.facts['architecture']}"
    drawn = drawing(draw(space.pictures(arch)), f"cell{number}", label)
    head = tag("div", tag("h3", text(name)), *_run(best), *([drawn] if few else []))
    rest = [] if few else [drawn]
    found = [row for row in rows if "architecture" in row.facts]
    rest += [tag("ul", *(tag("li", *_run(row)) for row in found), class_="runs")] if len(found) > 1 else []
    what = f"All {len(found)} answers of {name}" if len(found) > 1 else f"The cell of {name}"
    folds = [tag("details", tag("summary", text(what)), *rest)] if rest else []
    return tag("div", head, *folds, class_="method")


def _run(row: Row) -> Iterator[Html]:
    """Yield what came of a run: its name, its value, its size; and its answer."""
    value = "" if row.value is None else f"{row.value:.2f} %, "
    state = "" if row.state == "ended" else f", {row.state}"
    yield tag("p", text(f"{row.cell.name}: {value}{row.facts['params']:,} parameters{state}"))
    yield tag("p", tag("code", text(row.facts["architecture"])))


# ---------------------------------------------------------------------- what repeats it


def repeat(told: ComparisonFacts) -> Section:
    """Tell the commands that do it again, and what looks closer."""
    name, again = quoted(told.name), quoted(f"{told.name}-again")
    lines = [f"gapless compare {name}"] if told.report.missing else []
    lines.append(f"mkdir {again} && cp {quoted(f'{told.name}/{NAME}')} {again} && gapless compare {again}")
    ended = [row for row in told.report.rows if "architecture" in row.facts]
    best = max((best for *_, best in told.answers), key=lambda row: row.value or 0.0, default=None)
    if best is not None:
        lines += [f"gapless {verb} {quoted(f'{told.name}/{best.cell.name}')}" for verb in ("show", "report")]
    unknown = [row.cell.name for row in ended if row.cell.name not in told.gaps and _supernet(told, row)]
    lines += [f"gapless gap {quoted(f'{told.name}/{unknown[0]}')}"] if unknown else []
    return commands("comparison", lines)


def _supernet(told: ComparisonFacts, row: Row) -> bool:
    return trains_supernet(told.folder.run(row.cell).recipe())


def recipe(told: ComparisonFacts) -> Section:
    """Tell everything that determines the runs, folded."""
    return Section("recipe", "Recipe", folded(f"{NAME}, every setting that was given", told.folder.path / NAME))


def machine(told: ComparisonFacts) -> Section | None:
    """Tell where the runs began: each machine once, with its runs where there are several."""
    found: dict[tuple[tuple[str, Html], ...], list[str]] = {}
    for run in _runs(told):
        if pairs := machine_facts(run):
            found.setdefault(pairs, []).append(run.path.name)
    if not found:
        return None
    if len(found) == 1:
        return Section("machine", MACHINES, facts(*found))
    parts = [paragraph("The runs began on different machines or versions: their seconds do not compare.")]
    for pairs, names in found.items():
        parts += [tag("p", text(", ".join(names))), facts(pairs)]
    return Section("machine", MACHINES, join(parts))


def _runs(told: ComparisonFacts) -> Iterator[Run]:
    for row in told.report.rows:
        runs = [told.folder.run(row.cell), *([told.folder.retrained(row.cell)] if told.asked.retrain else [])]
        yield from (run for run in runs if run.started)


SECTIONS: tuple[Callable[[ComparisonFacts], Section | None], ...] = (
    *(values, missing, limits, trust),
    answers,
    *(repeat, recipe, machine),
)
"""The parts of a comparison's page, in their order."""
