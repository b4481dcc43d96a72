"""Continue an interrupted run."""

from __future__ import annotations

from pathlib import Path

from gapless.runs.checkpoint import restored
from gapless.runs.resolved import Resolved, ResolvedTraining
from gapless.runs.run import Run
from gapless.studies import pipeline, search
from gapless.studies.pipeline import OnProgress, Task
from gapless.studies.results import SearchResult, TrainingResult
from gapless.studies.retrain import ArchTraining


def resume(
    run: str | Path | Run, *, device: str | None = None, on_progress: OnProgress = None
) -> SearchResult | TrainingResult:
    """Continue a search or a training from its last checkpoint, to the same end as without the interruption.

    A run that has ended is read back when all of its files are found as they were; its trace, where that was damaged,
    is restored from its checkpoint.

    Parameters
    ----------
    run
        The folder.
    device
        Where to go on, as cpu; by default where the run began. On another device the numbers may differ.
    on_progress
        Called with the record of each epoch, or of each evaluation of a black-box search; or a
        :class:`gapless.studies.pipeline.Callback`.

    Raises
    ------
    UserError
        Where it cannot be continued: nothing is changed then.
    Stopped
        When interrupted, with everything saved.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if run.ended:
        restored(run)
        run.check_all()
        return TrainingResult.read(run) if run.kind == "retrain" else SearchResult.read(run)
    return pipeline.resume(run, task_of, device=device, on_progress=on_progress)


def task_of(resolved: Resolved, run: Run | None) -> Task[SearchResult | TrainingResult]:
    """Return the task of a run of any kind."""
    if isinstance(resolved, ResolvedTraining):
        return ArchTraining(resolved, run)
    return search.task_of(resolved, run)
