"""``gapless table``: import the official benchmark files, show a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.core.text import quoted

DOC = """Import the official NAS-Bench-201 results, or show what a table holds."""
Json = Annotated[
    bool,
    Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
]


def command(arguments: Sequence[str]) -> App:
    """Return the group of commands to bind: their options are always the same."""
    group = App(name="table", help=DOC)
    group.command(import_, name="import")
    group.command(show, name="show")
    return group


def import_(
    path: Annotated[
        Path,
        Parameter(
            help="The unpacked folder `NATS-tss-v1_0-3ffb9-simple` or the file `NATS-tss-v1_0-3ffb9.pickle.pbz2`."
        ),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="The Parquet file to write.")] = Path("accuracy.parquet"),
    trust: Annotated[
        bool,
        Parameter(
            help="Read the pickles. That runs whatever their author put into them; say so only for files that you have "
            "from the authors of NATS-Bench.",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Import the official NATS-Bench topology files into a small table.

    The official download is pickles, and reading a pickle runs code: nothing is read without `--trust`. It needs the
    package nats-bench: `pip install 'gapless[nats-bench]'`. The table holds, for each cell, the mean over all seeds in
    the files. `gapless evaluate --table` and every study read it, and need neither the pickles nor the package.
    """
    from rich.progress import Progress

    from gapless.studies.tables import import_table

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading cells", total=None)
        found = import_table(
            path, out, trust=trust, told=lambda done, total: bar.update(task, completed=done, total=total)
        )
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"Written: {found.path}, {found.cells:,} cells, {len(found.columns)} accuracies each")
    for sentence in found.warnings:
        console.print(f"Warning: {sentence}")
    console.print(f"Next: gapless table show {quoted(found.path)}")
    if json:
        print_json(found.summary())


def show(
    path: Annotated[Path, Parameter(help="A table: the Parquet file, or the folder that holds accuracy.parquet.")],
    /,
    *,
    json: Json = False,
) -> None:
    """Show what a table holds: cells, columns, the best of each, percentiles, and where it is from."""
    from gapless.core.table import PERCENT
    from gapless.studies.tables import PERCENTILES, show_table

    found = show_table(path)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{found['table']}: {found['cells']:,} {found['noun']}s")
    names = {n: n if c["unit"] == PERCENT else f"{n} ({c['unit']})" for n, c in found["columns"].items()}
    width = max(len(name) for name in names.values())
    marks = "".join(f"{f'{p} %':>8}" for p in PERCENTILES)
    console.print(f"  {'':{width}}{marks}{'best':>8}  best {found['noun']}")
    for name, column in found["columns"].items():
        levels = "".join(f" {value:7.2f}" for value in column["percentiles"].values())
        console.print(f"  {names[name]:{width}}{levels} {column['best']:7.2f}  {column['arch']}")
    told = found["provenance"]
    if not told:
        console.print("The file does not say where it is from.")
    for key in ("title", "source", "sha256", "means"):
        if key in told:
            console.print(f"{key}: {told[key]}")
    if "versions" in told:
        console.print("read with: " + ", ".join(f"{name} {number}" for name, number in told["versions"].items()))
    for name, sets in told.get("sets", {}).items():
        seeds = ", ".join(f"{cells:,} cells with {n}" for n, cells in told["seeds"][name].items())
        console.print(f"  {name}: {sets}; seeds: {seeds}")
    for sentence in told.get("warnings", ()):
        console.print(f"Warning: {sentence}")
    if json:
        print_json(found)
