"""``gapless diagnose``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gapless.commands.options import TRUST, Option, bind, print_json
from gapless.core.settings import Sample, Threads
from gapless.studies.defaults import FEATURE_IMAGES

DOC = """Look at the options of a finished search: how alike their feature maps are, which mature early, which receive
the gradient, and the largest eigenvalue of the Hessian with respect to the architecture. All but the first needs a
search with `--watch`.

Writes diagnose.json, diagnose.md and figures into the run folder, and changes nothing else there."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    options = [
        Option("beside", Path, "Another such search of the same space and images."),
        Option("images", Sample, "Training images for the feature maps.", default=FEATURE_IMAGES),
        Option("device", str, "auto, cpu or cuda.", default="auto"),
        Option("threads", Threads, "CPU threads; 0 leaves PyTorch's own.", default=0),
        Option("json", bool, "Print one JSON object as the last line of standard output."),
        TRUST,
    ]
    return bind(_run, [("run", Path, "Folder of a finished search that trained a supernet.", True)], options)


def _run(run: Path, typed: Mapping[str, Any]) -> None:
    from gapless.studies.diagnose import diagnose, drawn

    console = Console(highlight=False, soft_wrap=True, markup=False)
    found = diagnose(
        run,
        beside=typed.get("beside"),
        images=typed.get("images", FEATURE_IMAGES),
        device=typed.get("device", "auto"),
        threads=typed.get("threads", 0),
    )
    page = drawn(run)
    for finding in page.findings:
        console.print(finding)
    console.print(f"\nPage: {page.path} ({found.seconds:.0f} s)")
    if typed.get("json"):
        print_json({**found.plain(), "page": str(page.path)})
