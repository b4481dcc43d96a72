"""Going on with what was interrupted."""

from __future__ import annotations

from pathlib import Path

from gapless.runs.run import Run
from gapless.studies import retrain, search
from gapless.studies.found import Found, Watcher
from gapless.studies.retrain import Trained


def resume(
    run: str | Path | Run,
    *,
    searching: Watcher | None = None,
    training: retrain.Watcher | None = None,
) -> Found | Trained:
    """Go on with a search or a training from its last checkpoint, to the same end as if it had never stopped.

    A run that has ended is read back.

    Parameters
    ----------
    run
        The folder.
    searching, training
        What is called as a search or a training goes on.

    Raises
    ------
    UserError
        Where it cannot go on: nothing is changed then.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if run.kind == "retrain":
        return retrain.finished(run) if run.ended else retrain.resume(run, training)
    return search.finished(run) if run.ended else search.resume(run, searching)
