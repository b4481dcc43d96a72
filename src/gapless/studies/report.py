"""``gapless report``: all that is known of a run on one page of HTML."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.space import Space
from gapless.report import page as pages
from gapless.runs.run import Run
from gapless.tables import nasbench201

NAME = "report.html"


@dataclass(frozen=True, eq=False)
class Page:
    """The page of a run, written.

    Attributes
    ----------
    arch, space
        The architecture that it shows, and its space.
    path
        The file.
    bytes
        Its size.
    sections
        Names of its parts, in their order.
    notes
        What is missing or provisional, in a sentence each.
    """

    arch: Arch
    space: Space
    path: Path
    bytes: int
    sections: tuple[str, ...]
    notes: tuple[str, ...]


def page(
    run: str | Path,
    *,
    out: str | Path | None = None,
    table: str | Path | None = None,
    column: str = nasbench201.DEFAULT,
) -> Page:
    """Write one page of HTML that tells all of a run, and needs no other file and no network.

    Parameters
    ----------
    run
        Folder of a search or of a retraining, ended or not.
    out
        The file, ending in .html; by default ``report.html`` in the run folder.
    table, column
        The NAS-Bench-201 table and what is read of it; with a table the page shows what a search draws.

    Raises
    ------
    UserError
        Where the folder holds no run or nothing to show yet, the table does not fit, or the file cannot be written;
        nothing is written then.
    """
    path = Path(run) / NAME if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"The report is one page of HTML: give --out a file that ends in .html; given: {out}.")
    found = pages.page(Run.open(run), table=table, column=column)
    content = found.html.encode()
    _write(path, content)
    return Page(found.arch, found.space, path, len(content), found.sections, found.notes)


def _write(path: Path, content: bytes) -> None:
    """Write a file at once, in a folder made where there is none."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None
