"""Draw what a run found and how it went, or a given architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.files import place
from gapless.core.space import Space
from gapless.reports import show as picture
from gapless.reports import tensorboard as board
from gapless.reports.show import SUFFIXES, Format
from gapless.runs.run import Run
from gapless.studies.evaluate import locate


def show(given: str | Path, *, space: str | None = None, out: str | Path | None = None) -> Path:
    """Draw the cells and return the file.

    Parameters
    ----------
    given, space
        A run folder or an architecture in any notation; see :func:`gapless.studies.evaluate.locate`.
    out
        A file ending in .svg, .png or .pdf; by default ``cell.svg`` in the run folder, or here.
    """
    if out is not None:
        picture.check_suffix(place(out))
    arch, own, run = locate(given, space)
    return picture.show(arch, own, place(out) if out else (run.path if run else Path()) / "cell.svg")


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of a run, written.

    Attributes
    ----------
    arch, space
        The architecture that they show, and its space.
    files
        Name -> file: ``cell``, ``scores`` (or one for each block), ``training``, ``evaluations``, ``judged``,
        ``range``.
    range
        The numbers of the last epoch in the figure ``range``; None where there is no such figure.
    notes
        What is missing or provisional, in a sentence each.
    tensorboard
        The folder of the event files; None where none were asked for.
    """

    arch: Arch
    space: Space
    files: Mapping[str, Path]
    range: Mapping[str, Any] | None
    notes: tuple[str, ...]
    tensorboard: Path | None = None


def figures(
    run: str | Path,
    *,
    out: str | Path | None = None,
    kind: Format = "svg",
    table: str | Path | None = None,
    column: str | None = None,
    tensorboard: bool = False,
) -> Figures:
    """Draw all figures of a run, fit to print, and return where they are.

    Parameters
    ----------
    run
        Folder of a search or of a retraining, ended or not.
    out
        Folder for the figures; by default that of the run.
    kind
        ``svg`` (text stays text), ``png`` (300 dpi) or ``pdf`` (fonts embedded).
    table, column
        A benchmark table (:func:`gapless.tables.load`) and the column that is read, by default the table's own; with a
        table the figure ``range`` is drawn.
    tensorboard
        Whether to write the trace as TensorBoard event files, too, into ``tensorboard`` in the run folder.

    Raises
    ------
    UserError
        Where the folder holds no run or nothing to draw yet, the table does not fit, or files cannot be written.
    """
    if f".{kind}" not in SUFFIXES:
        raise UserError(f"A figure is written as svg, png or pdf; {kind!r} is none of them.")
    opened = Run.open(run)
    drawn = picture.draw_run(opened, table=table, column=column)
    files = picture.write(drawn.figures, opened.path if out is None else place(out), kind)
    events = board.rebuild(opened) if tensorboard else None
    return Figures(drawn.arch, drawn.space, files, drawn.range, drawn.notes, events)
