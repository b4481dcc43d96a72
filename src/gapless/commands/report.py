"""``gapless report``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import Trust, print_json

DOC = """Write all that is known of a run or of a comparison on one page of HTML: the answers, how far they can be
trusted, the cells, the figures, what repeats it. The page needs no network and no other file."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    return _run


def _run(
    folder: Annotated[Path, Parameter(help="Folder of a search, of a retraining or of a comparison, ended or not.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="The file, ending in .html [default: report.html in the folder].")
    ] = None,
    table: Annotated[
        Path | None,
        Parameter(help="A benchmark table: show how good the architectures are that a search draws, too."),
    ] = None,
    column: Annotated[str | None, Parameter(help="Column of the table [default: the table's own].")] = None,
    trust: Trust = False,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    from gapless.studies.report import report

    console = Console(highlight=False, soft_wrap=True, markup=False)
    found = report(folder, out=out, table=table, column=column)
    console.print(f"Written: {found.path} ({found.bytes / 1000:,.0f} kB)")
    for note in found.notes:
        console.print(note)
    if json:
        of: dict[str, str] = {"comparison": str(folder)}
        if found.arch is not None and found.space is not None:
            of = {"run": str(folder), "arch": str(found.arch), "notation": found.space.write(found.arch)}
        rest = {"page": str(found.path), "bytes": found.bytes, "sections": found.sections, "notes": found.notes}
        print_json({**of, **rest})
