"""``gapless report``: all that is known of a run, or of a comparison, on one page of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gapless.core import files
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.files import place
from gapless.core.space import Space
from gapless.reports import comparison_page, parts
from gapless.reports import page as run_page
from gapless.runs.comparison import NAME as COMPARISON
from gapless.runs.comparison import Folder
from gapless.runs.run import Run

NAME = "report.html"


@dataclass(frozen=True, eq=False)
class Page:
    """A page, written.

    Attributes
    ----------
    path
        The file.
    bytes
        Its size.
    sections
        Names of its parts, in their order.
    notes
        What is missing or provisional, in a sentence each.
    arch, space
        The architecture that the page of a run shows, and its space; None of a comparison, whose runs have their own.
    """

    path: Path
    bytes: int
    sections: tuple[str, ...]
    notes: tuple[str, ...]
    arch: Arch | None
    space: Space | None


def report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    table: str | Path | None = None,
    column: str | None = None,
) -> Page:
    """Write one page of HTML that tells all of a run or of a comparison, and needs no other file and no network.

    Parameters
    ----------
    folder
        Of a search, of a retraining or of a comparison, ended or not.
    out
        The file, ending in .html; by default ``report.html`` in the folder.
    table, column
        A benchmark table (:func:`gapless.tables.load`) and the column that is read, by default the table's own; with a
        table the page of a run shows what a search draws.

    Raises
    ------
    UserError
        Where the folder holds neither or nothing to show yet, the table does not fit, or the file cannot be written;
        nothing is written then.
    """
    path = Path(folder) / NAME if out is None else place(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"The report is one page of HTML: `out` must end in .html; got {out}.")
    found = _page(Path(folder), table, column)
    content = found.html.encode()
    _write(path, content)
    return Page(path, len(content), found.sections, found.notes, found.arch, found.space)


def _page(folder: Path, table: str | Path | None, column: str | None) -> parts.Page:
    if Folder(folder).exists:
        if table is not None or column is not None:
            raise UserError(
                f"`table` and `column` are for the page of a run; {folder} is a comparison and has its own. To read "
                f"its answers off another one, type: gapless compare {folder}, with that `table`."
            )
        return comparison_page.page(Folder(folder))
    if not Run(folder).started:
        raise UserError(f"{folder} is neither a run nor a comparison: it has no recipe.toml and no {COMPARISON}.")
    if column is not None and table is None:
        raise UserError("`column` is a column of a benchmark table; give the `table`, too.")
    return run_page.page(Run(folder), table=table, column=column)


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole, in a folder made where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None
