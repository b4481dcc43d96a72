"""``gapless diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import print_json
from gapless.studies.diagnose import IMAGES, diagnose, drawn


def command(
    run: Annotated[Path, Parameter(help="Folder of a finished search that trained a supernet.")],
    /,
    *,
    beside: Annotated[Path | None, Parameter(help="Another such search of the same space and images.")] = None,
    images: Annotated[int, Parameter(help="Training images for the feature maps.")] = IMAGES,
    device: Annotated[str, Parameter(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, Parameter(help="CPU threads; 0 leaves PyTorch's own.")] = 0,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    """Look at the options of a finished search: how alike their feature maps are, which mature early, which receive the
    gradient, how sharply the loss bends in the architecture. All but the first needs a search with --watch.

    Writes diagnose.json, diagnose.md and figures into the run folder, and changes nothing else there."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    found = diagnose(run, beside=beside, images=images, device=device, threads=threads)
    page = drawn(run)
    for finding in page.findings:
        console.print(finding)
    console.print(f"\nPage: {page.path} ({found.seconds:.0f} s)")
    if json:
        print_json({**found.plain(), "page": str(page.path)})
