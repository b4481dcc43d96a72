"""``gapless evaluate``."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from gapless.commands.options import TRUST, Option, bind, peek, print_json, settings, table
from gapless.core import catalogue
from gapless.core.errors import UserError

if TYPE_CHECKING:
    from gapless.core.space import Space
    from gapless.core.table import Column

DOC = """Print parameters and multiply-adds of an architecture, and its row, rank and percentile in a table.

The size is that at which the paper trains an architecture alone, unless options such as `--space.cells 20` say
otherwise. Give a run folder, or an architecture in any notation of the field: `|nor_conv_3x3~0|+|...`,
`Genotype(normal=[...], ...)`, a published name such as `DARTS_V2`, or a file holding one."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind for these arguments: its options follow the space."""
    space = space_of(arguments)
    options = [
        Option("space", str, "The space of the architecture; by default that of the run, or the one that can read it."),
        Option("table", Path, "A benchmark table that holds the architecture."),
        Option("column", str, "The column of the table by which it is ranked; by default the table's own."),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
    ]
    if space is not None and not space.python_only:
        full = space.alone()
        options += settings(
            "space", type(space), f"Space {space.label}", {n: getattr(full, n) for n in full.__dataclass_fields__}
        )
    return bind(_run, [("architecture", str, "A run folder or an architecture.", True)], options)


def space_of(arguments: Sequence[str]) -> Space | None:
    """Return the space that the arguments name, or in which their architecture can be read, or whose notation it looks
    like, for other options may make it readable; None for none of these."""
    name = peek(arguments, "space")
    if name is not None:
        return catalogue.find(name, "spaces")()  # type: ignore[no-any-return]
    words = [word for word in arguments[1:] if not word.startswith("-")]
    for word in words:
        from gapless.studies.evaluate import locate

        with contextlib.suppress(UserError):
            return locate(word)[1]
    for word in filter(os.path.isdir, words):  # a run that has not ended: what it lacks is said when the command runs
        from gapless.runs.checked import component
        from gapless.runs.run import Run

        with contextlib.suppress(UserError):
            space: Space = component(Run.open(word).recipe(), "space", "spaces").make()
            return space
    spaces = [catalogue.find(name, "spaces") for name in catalogue.names("spaces") if words]
    return next((space() for word in words for space in spaces if space.claims(word)), None)


def _said(column: Column, value: float) -> str:
    """Return short name and value; percent is what is meant where no unit stands."""
    return f"{column.short or column.name} {f'{value:.2f}' if column.is_accuracy else column.text(value)}"


def _run(given: str, typed: Mapping[str, Any]) -> None:
    from gapless.studies.evaluate import evaluate
    from gapless.tables import load_named

    rows = load_named(typed["table"]) if "table" in typed else None
    found = evaluate(
        given, space=typed.get("space"), fields=table(typed, "space"), table=rows, column=typed.get("column")
    )
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{found['space']}: {found['notation']}")
    console.print(f"  {found['params']:,} parameters, {found['macs']:,} MACs")
    if rows is not None:
        row = found["table"]
        console.print(
            f"  {row['column']}: {rows.column(row['column']).text(row[row['column']])}, rank {row['rank']:,} of "
            f"{row['cells']:,}; better than {row['percentile']:.2f} % of all {rows.noun}s"
        )
        for group, columns in itertools.groupby(rows.columns.values(), key=lambda c: c.group):
            console.print(f"  {group}: {', '.join(_said(column, row[column.name]) for column in columns)}")
    if typed.get("json"):
        print_json(found)
