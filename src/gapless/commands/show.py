"""``gapless show``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import Trust, print_json
from gapless.core.errors import UserError

DOC = """Draw a run (its cell, scores and training, fit to print) or the cells of an architecture."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    return _run


def _run(
    given: Annotated[str, Parameter(help="A run folder or an architecture in any notation.")],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="A folder for all figures of a run, or a .svg, .png or .pdf file for the cell alone "
            "[default: the run folder; for an architecture cell.svg here]."
        ),
    ] = None,
    format: Annotated[
        Literal["svg", "png", "pdf"] | None, Parameter(help="Of the files in a folder [default: svg].")
    ] = None,
    space: Annotated[
        str | None,
        Parameter(help="The space of the architecture; by default that of the run, or the one that can read it."),
    ] = None,
    table: Annotated[
        Path | None,
        Parameter(help="A benchmark table: draw how good the architectures are that a search draws, too."),
    ] = None,
    column: Annotated[str | None, Parameter(help="Column of the table [default: the table's own].")] = None,
    tensorboard: Annotated[
        bool,
        Parameter(
            help="Write the trace of a run for TensorBoard, too: RUN/tensorboard.", negative="", show_default=False
        ),
    ] = False,
    trust: Trust = False,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    from gapless.studies.evaluate import locate
    from gapless.studies.show import figures, show

    console = Console(highlight=False, soft_wrap=True, markup=False)
    is_file = out is not None and bool(out.suffix) and not out.is_dir()
    if not os.path.isdir(given) or is_file:
        wanting = {"--table": table, "--column": column, "--tensorboard": tensorboard, "--format": format}
        extra = [name for name, value in wanting.items() if value]
        if extra:
            one = "is for" if len(extra) == 1 else "are for"
            raise UserError(f"{' and '.join(extra)} {one} all figures of a run: give its folder, and no file as --out.")
        path = show(given, space=space, out=out)
        console.print(f"Drawn: {path}")
        arch, own, run = locate(given, space)
        if json:
            told = {"run": run and str(run.path), "arch": str(arch), "notation": own.write(arch), "picture": str(path)}
            print_json(told)
        return
    if column and table is None:
        raise UserError("--column is a column of a benchmark table; give the table, too: --table PATH.")
    if space is not None:
        locate(given, space)  # says where the run is of another space
    found = figures(
        given,
        out=out,
        kind=format or "svg",
        table=table,
        column=column,
        tensorboard=tensorboard,
    )
    for path in found.files.values():
        console.print(f"Drawn: {path}")
    if found.tensorboard is not None:
        console.print(f"Written: {found.tensorboard}; see it with: tensorboard --logdir {found.tensorboard}")
    for note in found.notes:
        console.print(note)
    if json:
        print_json(
            {
                "run": given,
                "arch": str(found.arch),
                "notation": found.space.write(found.arch),
                "picture": str(found.files["cell"]),
                "figures": {name: str(path) for name, path in found.files.items()},
                "range": found.range,
                "tensorboard": found.tensorboard and str(found.tensorboard),
                "notes": list(found.notes),
            }
        )
