"""``gapless show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.studies.evaluate import locate
from gapless.studies.show import show


def command(
    architecture: Annotated[str, Parameter(help="A run folder or an architecture in any notation.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="A .svg, .png or .pdf file [default: cell.svg in the run folder, or here].")
    ] = None,
    space: Annotated[
        str | None,
        Parameter(help="The space of the architecture; by default that of the run, or the one that can read it."),
    ] = None,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    """Draw the cells of an architecture."""
    path = show(architecture, space=space, out=out)
    Console(highlight=False, soft_wrap=True, markup=False).print(f"Drawn: {path}")
    if json:
        arch, own, run = locate(architecture, space)
        found = {"run": run and str(run.path), "arch": str(arch), "notation": own.write(arch), "picture": str(path)}
        print_json(found)
