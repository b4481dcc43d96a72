"""A comparison as tables: read from its folder only; written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gapless.analysis.statistics import Difference, can_show, deviation, difference, mean
from gapless.core import text
from gapless.core.table import BenchmarkTable
from gapless.runs.comparison import Comparison, ComparisonCell, Folder
from gapless.runs.run import Run
from gapless.tables import load

TEST = "test accuracy"
"""What an answer is worth that was trained alone: percent of the test images, after the last epoch."""
MACHINE = ("gapless", "torch", "threads", "processor", "instructions", "gpu")
COLUMNS = (
    *("method", "data", "seed", "state", "measure", "value", "rank", "percentile"),
    *("test_accuracy", "tested_on", "supernet_accuracy", "seconds", "peak_memory_mb"),
    *("training_seconds", "training_peak_memory_mb", "params", "macs", "architecture", *MACHINE, "error"),
)
"""Of ``comparison.csv``, a line for each run and each reference."""
DIFFERENCES = (
    *("data", "method", "baseline", "pairs", "mean", "low", "high"),
    *("p_paired", "least_paired", "p_unpaired", "least_unpaired"),
)
"""Of ``differences.csv``, a line for each method but the baseline."""
FILES = {
    "csv": "comparison.csv",
    "differences": "differences.csv",
    "markdown": "comparison.md",
    "latex": "comparison.tex",
}


@dataclass(frozen=True)
class Row:
    """One run. ``state`` is ``ended``, ``failed`` or ``not ended``; what is not known is None."""

    cell: ComparisonCell
    state: str
    error: str = ""
    value: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name of the method: that of the file, where it is one."""
        return Path(self.cell.method).stem

    @property
    def tested(self) -> bool:
        """Whether its answer was trained alone."""
        return "tested_on" in self.facts

    def line(self, measure: str) -> dict[str, Any]:
        """Return the line of the CSV."""
        told = {"data": Path(self.cell.data).name, "seed": self.cell.seed, "state": self.state, "error": self.error}
        return {"method": self.method, "measure": measure, "value": self.value, **self.facts, **told}


@dataclass(frozen=True)
class Reference:
    """A value of the table that needs no search. ``spread`` is the standard deviation over all cells, of their mean."""

    name: str
    value: float
    spread: float | None = None
    percentile: float | None = None
    architecture: str = ""


@dataclass(frozen=True)
class Group:
    """All runs on one set of images.

    Attributes
    ----------
    data, measure
        Its name, "" where none was needed; and what the values are: a column of the table, or :data:`TEST`, in percent,
        or "" where nothing says what an answer is worth.
    rows
        Method (as listed) -> its runs, by seed.
    references
        Of the table.
    differences
        Method -> how far it lies above the baseline.
    """

    data: str
    measure: str
    rows: Mapping[str, tuple[Row, ...]]
    references: tuple[Reference, ...]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Report:
    """The tables of a comparison, and in ``limits`` what they cannot show, in plain sentences."""

    asked: Comparison
    groups: tuple[Group, ...]
    limits: tuple[str, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """All runs."""
        return tuple(row for group in self.groups for found in group.rows.values() for row in found)

    @property
    def missing(self) -> tuple[Row, ...]:
        """The runs that have not come to their end."""
        return tuple(row for row in self.rows if row.state != "ended")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known with the tables: which runs are not in them, and their limits."""
        if not self.missing:
            return self.limits
        what = "; ".join(f"{row.cell.name}: {row.error or row.state}" for row in self.missing)
        return (f"{len(self.missing)} of {len(self.rows)} runs are not in the means. {what}", *self.limits)

    def summary(self) -> dict[str, Any]:
        """Return plain JSON types: ``runs``, ``references``, ``methods``, ``differences``, ``notes``."""
        runs, references, methods, differences = [], [], [], []
        for group in self.groups:
            data = Path(group.data).name
            for name, rows in group.rows.items():
                runs += [row.line(group.measure) for row in rows]
                methods.append({"method": Path(name).stem, "data": data, "measure": group.measure, **_means(rows)})
            references += [{"data": data, **asdict(r)} for r in group.references]
            differences += list(_difference_lines(self.asked, group))
        told = {"runs": runs, "methods": methods, "references": references, "differences": differences}
        plain: dict[str, Any] = _plain({"baseline": Path(self.asked.baseline).stem, **told, "notes": list(self.notes)})
        return plain


def report(folder: Folder, checked: Comparison | None = None) -> Report:
    """Read a comparison; files that ``checked``, which was checked before, names, too, are permitted."""
    asked = folder.comparison()
    asked = asked if checked is None else asked.permitting(checked)
    asked.recipe.permit(asked.table)
    table = load(asked.table) if asked.table else None
    groups = tuple(_group(folder, asked, table, data) for data in asked.data)
    return Report(asked, groups, tuple(_limits(asked, groups)))


def _group(folder: Folder, asked: Comparison, table: BenchmarkTable | None, data: str) -> Group:
    column = asked.column(data)
    rows = {
        method: tuple(_row(folder, asked, table, column, ComparisonCell(method, data, seed)) for seed in asked.seeds)
        for method in asked.methods
    }
    values = {m: {r.cell.seed: r.value for r in found if r.value is not None} for m, found in rows.items()}
    base = values[asked.baseline]
    differences = {}
    for method, own in values.items():
        if method != asked.baseline and own and base:
            pairs = [(own[seed], base[seed]) for seed in asked.seeds if seed in own and seed in base]
            differences[method] = difference(pairs, list(own.values()), list(base.values()))
    measure = column or (TEST if asked.retrain else "")
    return Group(data, measure, rows, _references(table, column), differences)


def _row(folder: Folder, asked: Comparison, table: BenchmarkTable | None, column: str, cell: ComparisonCell) -> Row:
    run, alone = folder.run(cell), folder.retrained(cell)
    facts = _facts(run, table, column) if run.started else {}
    trained = asked.retrain and alone.started and alone.ended
    if trained:
        came = alone.result()
        facts |= {
            "test_accuracy": came["test_accuracy"],
            "tested_on": f"{came['test_images']:,} images: {came['tested_on']}",
            "training_seconds": came["seconds"],
            "training_peak_memory_mb": came["peak_memory_mb"],
            "params": came["params"],
            "macs": came["macs"],
        }
    if "architecture" in facts and (trained or not asked.retrain):
        state, error = "ended", ""
    else:
        error = folder.failure(cell)
        state = "failed" if error else "not ended"
    value = facts.pop("column", None) if column else facts.get("test_accuracy")
    return Row(cell, state, error, value if state == "ended" else None, facts)


def _facts(run: Run, table: BenchmarkTable | None, column: str) -> dict[str, Any]:
    """Return what a search's folder tells, as far as it has come."""
    records, judged = list(run.trace()), run.judged()
    found: dict[str, Any] = {name: run.machine().get(name) for name in MACHINE}
    found["seconds"] = sum(r["seconds"] for r in records) + judged["seconds"]
    if records:
        found["peak_memory_mb"] = max(r["peak_memory_mb"] for r in records)
        found["supernet_accuracy"] = records[-1].get("valid_accuracy")
    if not run.ended:
        return found
    arch, space = run.found()
    text = space.write(arch)
    found |= {"architecture": text, **{unit: run.alone()[unit] for unit in ("params", "macs")}}
    if table is not None:
        place = {"rank": table.rank(arch, column), "percentile": table.percentile(arch, column)}
        found |= {"column": table.row(arch)[column], **place}
    return found


def _references(table: BenchmarkTable | None, column: str) -> tuple[Reference, ...]:
    """Return what a table says of architectures that nobody searched for."""
    if table is None:
        return ()
    values, noun = table.column(column).values.numpy(), table.noun
    largest = table.parse(table.archs[int(table.params.numpy().argmax())])
    named = ((f"the {noun} with most parameters", largest), (f"the best {noun}", table.best(column)))
    return (
        Reference(f"one random {noun} (mean of all {len(values):,})", float(values.mean()), float(values.std())),
        *(
            Reference(name, table.row(arch)[column], None, table.percentile(arch, column), table.key(arch))
            for name, arch in named
        ),
    )


def _limits(asked: Comparison, groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        for tested in sorted({row.facts["tested_on"] for rows in group.rows.values() for row in rows if row.tested}):
            yield f"{_titled('Test accuracy is', asked, group)} of {tested}."
    if not any(group.measure for group in groups):
        yield (
            "Nothing here says what the architectures are worth, only what it cost to find them: give a benchmark "
            "table, or let every answer be trained alone."
        )
        return
    if not asked.table and "random" not in asked.methods:
        yield "No method that searches nothing is compared: add the method random to see what searching gains."
    count = sum(len(group.differences) for group in groups)
    if not count:
        return
    yield can_show(min(len(d.differences) for group in groups for d in group.differences.values()))
    if count > 1:
        yield (
            f"The p-values are not corrected for there being {count} comparisons; to do so, compare them with 0.05 / "
            f"{count} = {0.05 / count:.2g} (Bonferroni)."
        )


# ---------------------------------------------------------------------- tables of text


@dataclass(frozen=True)
class Grid:
    """A table of text: a title, a header, and lines as long as it."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def grids(found: Report) -> Iterator[Grid]:
    """Yield the tables of a report: for each set of images the methods, then the differences."""
    for group in found.groups:
        yield methods(found.asked, group)
        if group.differences:
            yield differences(found.asked, group)


def _titled(what: str, asked: Comparison, group: Group) -> str:
    several = len(asked.data) > 1 and group.data
    return f"{Path(group.data).name}: {what[:1].lower()}{what[1:]}" if several else what


def methods(asked: Comparison, group: Group) -> Grid:
    """Return what the answers are worth and what they cost, a line for each method and each reference."""
    value, cost = worth(asked, group), costs(asked, group)
    rest = [line[1:] for line in cost.lines]
    rest += [("",) * (len(cost.header) - 1)] * (len(value.lines) - len(rest))
    lines = tuple(one + other for one, other in zip(value.lines, rest, strict=True))
    return Grid(value.title if group.measure else cost.title, value.header + cost.header[1:], lines)


def worth(asked: Comparison, group: Group) -> Grid:
    """Return what the answers are worth, a line for each method and each reference; where nothing says it, how many
    runs ended."""
    ranked, tested = bool(asked.table), bool(asked.table) and asked.retrain
    header = ["method"]
    header += [*(f"seed {seed}" for seed in asked.seeds), "mean ± deviation"] if group.measure else ["runs"]
    header += [*(["percentile"] if ranked else []), *([TEST] if tested else [])]
    lines = []
    for name, rows in group.rows.items():
        done = [row for row in rows if row.state == "ended"]
        line = [Path(name).stem]
        if group.measure:
            line += [row.state if row.value is None else f"{row.value:.2f}" for row in rows]
            values = [row.value for row in rows if row.value is not None]
            line.append(_spread(values, 2) + (f" (of {len(values)})" if 0 < len(values) < len(rows) else ""))
        else:
            line.append(str(len(done)) if len(done) == len(rows) else f"{len(done)} of {len(rows)}")
        line += [_spread(_known(done, "percentile"), 1)] if ranked else []
        line += [_spread(_known(done, "test_accuracy"), 2)] if tested else []
        lines.append(tuple(line))
    for r in group.references:
        spread = "" if r.spread is None else f" ± {r.spread:.2f}"
        percentile = "" if r.percentile is None else f"{r.percentile:.1f}"
        line = [r.name, *[""] * len(asked.seeds), f"{r.value:.2f}{spread}", percentile]
        lines.append(tuple(line + [""] * (len(header) - len(line))))
    title = f"What the answers are worth, {group.measure} in %" if group.measure else "Runs that ended"
    return Grid(_titled(title, asked, group), tuple(header), tuple(lines))


def costs(asked: Comparison, group: Group) -> Grid:
    """Return what the answers and the searches cost, a line for each method: means and deviations over the runs that
    ended, and the most memory of any."""
    header = ["method", "parameters", "seconds", "memory in MiB", *(["training seconds"] if asked.retrain else [])]
    lines = []
    for name, rows in group.rows.items():
        done = [row for row in rows if row.state == "ended"]
        line = [Path(name).stem, _spread(_known(done, "params"), 0), _spread(_known(done, "seconds"), 1)]
        line.append(_most(_known(done, "peak_memory_mb")))
        line += [_spread(_known(done, "training_seconds"), 1)] if asked.retrain else []
        lines.append(tuple(line))
    return Grid(_titled("What the searches cost", asked, group), tuple(header), tuple(lines))


def differences(asked: Comparison, group: Group) -> Grid:
    """Return how far each method lies above the baseline."""
    title = f"Difference from {Path(asked.baseline).stem}, seed by seed, in percentage points"
    header = ("method", "pairs", "mean difference", "95 % interval", "p (signs)", "p (unpaired)")
    lines = []
    for name, d in group.differences.items():
        span = "" if math.isnan(d.low) else f"{d.low:+.2f} to {d.high:+.2f}"
        lines.append(
            (
                Path(name).stem,
                str(len(d.differences)),
                "" if math.isnan(d.mean) else f"{d.mean:+.2f}",
                span,
                _p(d.p_paired, d.least_paired),
                _p(d.p_unpaired, d.least_unpaired),
            )
        )
    return Grid(_titled(title, asked, group), header, tuple(lines))


def _p(value: float, least: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f} (least {least:.3f})"


def _known(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row.facts[name]) for row in rows if row.facts.get(name) is not None]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    more = f" ± {deviation(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):,.{digits}f}{more}"


def _most(values: Sequence[float]) -> str:
    return f"{max(values):,.0f}" if values else ""


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    """Return mean and sample deviation over the runs that ended of what a CSV line holds for each."""
    done = [row for row in rows if row.state == "ended"]
    values = [row.value for row in rows if row.value is not None]
    found: dict[str, Any] = {"runs": len(done), "mean": mean(values), "deviation": deviation(values)}
    for name in ("percentile", "params", "macs", "seconds", "peak_memory_mb", "training_seconds"):
        found[name] = mean(_known(done, name))
    return found


# ---------------------------------------------------------------------- files


def markdown(found: Report) -> str:
    """Return the report as Markdown: columns stand under each other, too."""
    parts = [f"# {text.markdown(heading(found.asked))}"]
    parts += [f"{text.markdown(grid.title)}:\n\n{_aligned(grid)}" for grid in grids(found)]
    parts += ["\n".join(f"* {text.markdown(note)}" for note in found.notes)] if found.notes else []
    return "\n\n".join(parts) + "\n"


def heading(asked: Comparison) -> str:
    """Return what was compared, and in which space."""
    names = ", ".join(Path(m).stem for m in asked.methods)
    return f"{names} on {Path(str(asked.recipe.space.get('name', ''))).stem}".removesuffix(" on ")


def _aligned(grid: Grid) -> str:
    """Return a table as it stands in Markdown, padded: a column of text to the left, of numbers to the right."""
    lines = [tuple(map(text.markdown, line)) for line in (grid.header, *grid.lines)]
    wide = [max(len(line[i]) for line in lines) for i in range(len(grid.header))]

    def row(line: Sequence[str]) -> str:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, wide, strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(wide))
    return "\n".join([row(lines[0]), f"|{rule}|", *map(row, lines[1:])])


def latex(found: Report) -> str:
    """Return the tables as LaTeX, for ``\\input``; they need the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for grid in grids(found):
        rows = [" & ".join(map(text.latex, line)) + r" \\" for line in (grid.header, *grid.lines)]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{text.latex(grid.title)}.}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
                    r"\toprule",
                    rows[0],
                    r"\midrule",
                    *rows[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    parts += ["\n".join(f"% {text.printable(note)}" for note in found.notes)] if found.notes else []
    return "\n\n".join(parts) + "\n"


def lines(found: Report) -> Iterator[dict[str, Any]]:
    """Yield the lines of ``comparison.csv``."""
    for group in found.groups:
        for rows in group.rows.values():
            yield from (row.line(group.measure) for row in rows)
        for r in group.references:
            yield {
                "method": r.name,
                "data": Path(group.data).name,
                "state": "reference",
                "measure": group.measure,
                "value": r.value,
                "percentile": r.percentile,
                "architecture": r.architecture,
            }


def _difference_lines(asked: Comparison, group: Group) -> Iterator[dict[str, Any]]:
    for name, d in group.differences.items():
        told = {k: v for k, v in asdict(d).items() if k in DIFFERENCES}
        names = {"data": Path(group.data).name, "method": Path(name).stem, "baseline": Path(asked.baseline).stem}
        yield {**names, "pairs": len(d.differences), **told}


def _csv(columns: Sequence[str], rows: Iterator[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        known = {k: v for k, v in row.items() if v is not None and not (isinstance(v, float) and math.isnan(v))}
        writer.writerow({k: round(v, 6) if isinstance(v, float) else text.cell(v) for k, v in known.items()})
    return file.getvalue()


def write(found: Report, folder: Path) -> dict[str, Path]:
    """Write all files of a report and return name -> file (:data:`FILES`).

    Raises
    ------
    UserError
        Where the folder cannot be written.
    """
    contents = {
        "csv": _csv(COLUMNS, lines(found)),
        "differences": _csv(
            DIFFERENCES, (line for group in found.groups for line in _difference_lines(found.asked, group))
        ),
        "markdown": markdown(found),
        "latex": latex(found),
    }
    for name, content in contents.items():
        Run(folder).write(FILES[name], content)
    return {name: folder / file for name, file in FILES.items()}


def _plain(value: Any) -> Any:
    """Return plain JSON types; NaN is null."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
