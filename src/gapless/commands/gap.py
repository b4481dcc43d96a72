"""``gapless gap``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.report.gap import WORDS
from gapless.studies.gap import ARCHS, BUDGETS, IMAGES, drawn, gap
from gapless.tables import nasbench201


def command(
    run: Annotated[Path, Parameter(help="Folder of a finished search that trained a supernet.")],
    /,
    *,
    table: Annotated[Path | None, Parameter(help="NAS-Bench-201 table: what architectures are worth alone.")] = None,
    column: Annotated[str, Parameter(help="Column of the table.")] = nasbench201.DEFAULT,
    archs: Annotated[int, Parameter(help="Random architectures to rank beside the answer.")] = ARCHS,
    images: Annotated[int, Parameter(help="Test images by which all are judged.")] = IMAGES,
    budgets: Annotated[
        tuple[int, ...],
        Parameter(
            help="Batches of fine-tuning after which they are judged again; 0 tunes none.", consume_multiple=True
        ),
    ] = BUDGETS,
    beside: Annotated[
        tuple[Path, ...],
        Parameter(help="Runs of other seeds: how far they rank and answer alike.", consume_multiple=True, negative=""),
    ] = (),
    device: Annotated[str, Parameter(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, Parameter(help="CPU threads; 0 leaves PyTorch's own.")] = 0,
    seed: Annotated[int, Parameter(help="Of the random architectures.")] = 0,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    """Measure how far what the supernet of a search says can be trusted: the way from the supernet to its answer alone,
    how well it ranks architectures, how firmly it had decided, and what parameters and chance would have said.

    Writes gap.json, gap.md and figures into the run folder, and changes nothing else there."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    found = gap(
        run,
        table=table,
        column=column,
        archs=archs,
        images=images,
        budgets=() if budgets == (0,) else budgets,
        beside=beside,
        device=device,
        threads=threads,
        seed=seed,
        told=console.print,
    )
    page = drawn(run)
    console.print()
    for finding in page.findings:
        console.print(f"{WORDS[finding.sound]:>9}: {finding.text}")
    console.print(f"\nPage: {page.path} ({found.seconds:.0f} s)")
    if json:
        print_json({**found.plain(), "page": str(page.path)})
