"""``gapless list``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.studies.listing import Kind, listing

DOC = """List methods, scores, spaces, benchmark tables, data sets and recipes: a line each, with the source."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    return _run


def _run(
    kind: Annotated[Kind | None, Parameter(help="What to list; everything by default.")] = None,
    /,
    *,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    found = listing(kind)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for title, entries in found.items():
        if kind is None:
            console.print(f"{title}:")
        width = max((len(name) for name in entries), default=0)
        for name, source in entries.items():
            console.print(f"  {name:{width}}  {source}" if kind is None else f"{name:{width}}  {source}")
    if json:
        print_json(found)
