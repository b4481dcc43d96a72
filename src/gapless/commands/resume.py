"""``gapless resume``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gapless.commands.options import Trust, print_json

DOC = """Go on with a search or a training from its last checkpoint, to the same end as if it had never stopped."""


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """Return the function to bind: its options are always the same."""
    return _run


def _run(
    run: Annotated[Path, Parameter(help="The folder of a search or a training that was interrupted.")],
    /,
    *,
    device: Annotated[
        str | None,
        Parameter(
            help="Where to go on: cpu, cuda, cuda:1 ...; by default where it began. Another device may round "
            "otherwise, and so come to another end."
        ),
    ] = None,
    trust: Trust = False,
    json: Annotated[
        bool,
        Parameter(help="Print one JSON object as the last line of standard output.", negative="", show_default=False),
    ] = False,
) -> None:
    from gapless.commands import retrain as trainings
    from gapless.commands import search as searches
    from gapless.commands.watch import WatchSearch, WatchTraining
    from gapless.runs.run import Run
    from gapless.studies.results import TrainingResult
    from gapless.studies.resume import resume

    folder = Run.open(run)
    if folder.ended:
        print(f"{run} has ended; there is nothing to go on with. What it came to:")
    with WatchTraining() if folder.kind == "retrain" else WatchSearch() as watch:
        result = resume(folder, device=device, on_progress=watch)
    if isinstance(result, TrainingResult):
        trainings.tell(result)
    else:
        searches.tell(result)
    if json:
        print_json(result.summary())
