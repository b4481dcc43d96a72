"""``gapless report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.core.errors import UserError
from gapless.studies.report import page
from gapless.tables import nasbench201


def command(
    run: Annotated[Path, Parameter(help="Folder of a search or of a retraining, ended or not.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="The file, ending in .html [default: report.html in the run folder].")
    ] = None,
    table: Annotated[
        Path | None,
        Parameter(help="NAS-Bench-201 table: show how good the architectures are that a search draws, too."),
    ] = None,
    column: Annotated[str | None, Parameter(help=f"Column of the table [default: {nasbench201.DEFAULT}].")] = None,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    """Write all that is known of a run on one page of HTML: the answer, how far it can be trusted, the cell, the
    curves, what repeats it. The page needs no network and no other file."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if column and table is None:
        raise UserError("--column is a column of the NAS-Bench-201 table; give the table, too: --table PATH.")
    found = page(run, out=out, table=table, column=column or nasbench201.DEFAULT)
    console.print(f"Written: {found.path} ({found.bytes / 1000:,.0f} kB)")
    for note in found.notes:
        console.print(note)
    if json:
        print_json(
            {
                "run": str(run),
                "arch": str(found.arch),
                "notation": found.space.write(found.arch),
                "page": str(found.path),
                "bytes": found.bytes,
                "sections": list(found.sections),
                "notes": list(found.notes),
            }
        )
