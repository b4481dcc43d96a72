"""What one process of a comparison does: begin or resume a run and finish it, with its own log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gapless.engine.explore import EvaluationRecord
from gapless.runs.checkpoint import PATIENCE, held
from gapless.runs.recipe import Recipe
from gapless.runs.resolved import Resolved
from gapless.runs.run import Run
from gapless.studies.pipeline import Callback
from gapless.studies.resume import resume
from gapless.studies.retrain import retrain
from gapless.studies.search import search


def finish_search(recipe: Recipe, out: Path, alone: Path | None = None) -> None:
    """Begin or resume a search and finish it; with ``alone``, a folder, retrain its architecture into that folder."""
    run = Run(out)
    if _free(run):
        search(recipe, out=out, on_progress=_Log())
    elif not run.ended:
        resume(run, on_progress=_Log())
    if alone is None:
        return
    own = run.recipe().retrain
    protocol = {k: v for k, v in recipe.retrain.items() if k != "space"}
    fields = {} if "space" in own else recipe.retrain.get("space", {})
    finish_training(out, alone, protocol=protocol, fields=fields, run={"seed": recipe.run["seed"]})


def finish_training(given: str | Path, out: Path, **settings: Any) -> None:
    """Begin or resume the training of an architecture and finish it.

    ``settings`` are those of :func:`gapless.studies.retrain.retrain`.
    """
    run = Run(out)
    if _free(run):
        retrain(given, out=out, on_progress=_Log(), **settings)
    elif not run.ended:
        resume(run, on_progress=_Log())


def _free(run: Run) -> bool:
    """Return whether a run has yet to begin. The process of an earlier call that was killed may still be saving it:
    that is waited for."""
    if run.started:
        with held(run, patience=PATIENCE):
            return False
    return True


class _Log(Callback):
    """Prints a line an epoch, into the log of a job."""

    def on_start(self, resolved: Resolved, run: Run | None, notice: str) -> None:
        print(f"{'' if run is None else run.path.name}: {notice or 'under way'}", flush=True)

    def on_record(self, record: Any) -> None:
        if not isinstance(record, EvaluationRecord):
            print(f"epoch {record.epoch + 1}: loss {record.train_loss:.3f}, {record.seconds:.1f} s", flush=True)
