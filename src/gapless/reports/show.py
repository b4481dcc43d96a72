"""Draw architectures and runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.space import Space
from gapless.runs.checked import component
from gapless.runs.run import Run
from gapless.tables import load_named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
Format = Literal["svg", "png", "pdf"]


def check_suffix(out: Path) -> None:
    """Raise a :class:`UserError` where no picture of that kind can be written."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"A picture is written as {', '.join(SUFFIXES)}; {str(out)!r} is none of them.")


def cell_svg(arch: Arch, space: Space) -> str:
    """Return the drawing of an architecture as SVG."""
    from gapless.reports.draw import draw, svg  # imports matplotlib

    return svg(draw(space.pictures(arch)))


def show(arch: Arch, space: Space, out: Path) -> Path:
    """Draw ``arch`` and return the file.

    Raises
    ------
    UserError
        For a suffix other than .svg, .png or .pdf, or a folder that cannot be written.
    """
    from gapless.reports.draw import draw, save  # imports matplotlib

    check_suffix(out)
    try:
        save(draw(space.pictures(arch)), out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None
    return out


@dataclass(frozen=True, eq=False)
class Drawn:
    """The figures of a run.

    Attributes
    ----------
    arch, space
        The architecture that they show, and its space.
    figures
        Name -> figure.
    range
        The numbers of the last epoch in the figure ``range`` (see :class:`gapless.reports.draws.Range`), with
        ``column`` and ``optimum``; None where there is no such figure.
    notes
        What is missing or provisional, in a sentence each.
    """

    arch: Arch
    space: Space
    figures: Mapping[str, Figure]
    range: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())


def draw_run(run: Run, *, table: str | Path | None = None, column: str | None = None) -> Drawn:
    """Draw all figures of a run.

    Parameters
    ----------
    run
        A search or a retraining, ended or not.
    table
        A benchmark table; with it the figure ``range`` is drawn where the run is a search of its space.
    column
        Its column, by default the table's own.

    Raises
    ------
    UserError
        Where a run has neither an architecture nor an epoch yet, or no use for the table.
    """
    from gapless.reports import curves, draws  # import matplotlib
    from gapless.reports.draw import draw

    rows = None if table is None else load_named(table)
    records = list(run.trace())
    arch, space, certain = read(run)
    explored = bool(records) and "asked" in records[0]
    turn = "evaluation" if explored else "epoch"
    notes = [] if certain else [f"{run.path} has not ended: the cell is the choice after {turn} {len(records)}."]
    figures = {"cell": draw(space.pictures(arch))}
    numbers = None
    if not records:
        notes.append(f"{run.path} has no trace, for nothing was trained there: only its cell is drawn.")
    else:
        if "scores" in records[0]:
            if curves.told_apart(records, space):
                figures |= curves.scores(records, space, arch)
            else:
                notes.append("No option of any decision ever scored above another: there are no scores to draw.")
        figures["evaluations" if explored else "training"] = curves.training(records)
    if archs := run.judged()["archs"]:
        figures["judged"] = curves.judged(archs)
    if rows is not None:
        if run.kind != "search":
            raise UserError(f"`table` shows what a search draws; {run.path} trained one architecture.")
        if explored:
            raise UserError(
                f"`table` shows what a search draws from its distribution; {run.path} is a black-box search and has "
                "none. Its scores are drawn without the table."
            )
        column = column or rows.default_column
        found = draws.ranges(records, space, rows, column)
        if found:
            figures["range"] = draws.draw_ranges(found, rows, column, records)
            numbers = draws.summary(found, rows, column)
        elif records:
            notes.append(
                f"The trace of {run.path} holds no draws, so their range is not drawn; a new search keeps them."
            )
    return Drawn(arch, space, figures, numbers, tuple(notes))


def read(run: Run) -> tuple[Arch, Space, bool]:
    """Return (architecture, space, whether that is certain) of a run; before its end a search has only the choice of
    its last epoch.

    Raises
    ------
    UserError
        Where not even an epoch has ended.
    """
    if run.ended:
        return *run.found(), True
    recipe = run.recipe()
    # Classes, channels and size of the data are unknown here; no decision depends on them.
    space: Space = component(recipe, "space", "spaces").make()
    if recipe.arch:
        return space.read(recipe.arch), space, True
    records = list(run.trace())
    if not records:
        raise UserError(f"{run.path} holds nothing to draw yet: its first epoch has not ended.")
    return Arch.parse(records[-1]["arch"]), space, False


def write(figures: Mapping[str, Figure], folder: Path, kind: Format) -> dict[str, Path]:
    """Write figures into a folder, made where there is none, and return name -> file.

    Raises
    ------
    UserError
        Where the folder cannot be written.
    """
    from gapless.reports.draw import save

    files = {name: folder / f"{name}.{kind}" for name in figures}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            save(figures[name], file)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from None
    return files
