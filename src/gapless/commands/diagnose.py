"""``gapless diagnose``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from gapless.commands.options import Trust, print_json
from gapless.studies.defaults import FEATURE_IMAGES

DOC = """Look at the options of a finished search: how alike their feature maps are, which mature early, which receive
the gradient, and the largest eigenvalue of the Hessian with respect to the architecture. All but the first needs a
search with `--watch`.

Writes diagnose.json, diagnose.md and figures into the run folder, and changes nothing else there."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    return _run


def _run(
    run: Annotated[Path, Parameter(help="Folder of a finished search that trained a supernet.")],
    /,
    *,
    beside: Annotated[Path | None, Parameter(help="Another such search of the same space and images.")] = None,
    images: Annotated[int, Parameter(help="Training images for the feature maps.")] = FEATURE_IMAGES,
    device: Annotated[str, Parameter(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, Parameter(help="CPU threads; 0 leaves PyTorch's own.")] = 0,
    trust: Trust = False,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    from gapless.studies.diagnose import diagnose, drawn

    console = Console(highlight=False, soft_wrap=True, markup=False)
    found = diagnose(run, beside=beside, images=images, device=device, threads=threads)
    page = drawn(run)
    for finding in page.findings:
        console.print(finding)
    console.print(f"\nPage: {page.path} ({found.seconds:.0f} s)")
    if json:
        print_json({**found.plain(), "page": str(page.path)})
