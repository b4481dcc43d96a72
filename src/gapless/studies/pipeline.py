"""One pipeline for every run: resolve the recipe, make the folder, loop with checkpoints, write what came of it.

What differs between a search, a black-box search and a training is a :class:`Task`, one in each of ``search.py``,
``explore.py`` and ``retrain.py``::

    start(recipe)   check -> device -> free folder -> data -> threads -> task -> take the folder -> loop -> finish
    resume(run)     check -> device ----------------> data -> threads -> task -> hold, checkpoint -> loop -> finish

Whatever is refused is refused before the folder is made, or before anything in it is changed.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

from torch import Tensor

from gapless.core import files, interrupt
from gapless.core.decision import Arch
from gapless.core.errors import Stopped, UserError
from gapless.core.space import Space
from gapless.core.text import shown
from gapless.data import ImageData
from gapless.engine.bench import Judgement
from gapless.reports.show import cell_svg
from gapless.reports.tensorboard import rebuild
from gapless.runs.checked import check_recipe
from gapless.runs.checkpoint import Keeper, held, load, taken
from gapless.runs.recipe import Recipe
from gapless.runs.resolved import Resolved, resolve
from gapless.runs.run import Run, machine
from gapless.runs.schema import Damaged
from gapless.studies.device import device_of, use_threads
from gapless.studies.limits import BoundCost

FIXED = ("torch", "threads", "processor", "instructions", "gpu")
"""What can change the last bits of a number."""

# ---------------------------------------------------------------------- what a run consists of


class LoopRecord(Protocol):
    """The record of an epoch or of an evaluation."""

    @property
    def epoch(self) -> int:
        """Number of the epoch or the evaluation, from 0."""
        ...

    @property
    def seconds(self) -> float:
        """Wall time."""
        ...

    def line(self) -> dict[str, Any]:
        """Return the record as plain JSON types: a line of the trace."""
        ...


class Loop(Protocol):
    """A search or a training: it runs epoch by epoch and returns its whole state after each step."""

    epoch: int

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[LoopRecord]:
        """Yield a record per epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        ...


class Result(Protocol):
    """The result of a run."""

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        ...


@dataclass(frozen=True, eq=False)
class Answer:
    """The architecture of a finished loop, and what else the run folder keeps.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size of the run.
    images
        The images that a network was trained on, or their description; None where no image was read.
    weights
        Tensors for ``weights.safetensors``; empty for none.
    score
        What a black-box search found the architecture by.
    files
        Name of a JSON file -> its content.
    limits
        The bounds on the answer, with its costs.
    seconds
        Wall time of finding the answer after the loop.
    """

    arch: Arch
    space: Space
    images: ImageData | Mapping[str, Any] | None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    score: Mapping[str, Any] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[BoundCost, ...] = ()
    seconds: float = 0.0


R_co = TypeVar("R_co", bound=Result, covariant=True)
R = TypeVar("R", bound=Result)


class Task(Protocol[R_co]):
    """What differs between the kinds of runs."""

    @property
    def resolved(self) -> Resolved:
        """The recipe with its objects."""
        ...

    @property
    def loop(self) -> Loop | None:
        """Ready to start; None where there is nothing to loop over."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the data, or what gives the scores: a checkpoint fits no other."""
        ...

    @property
    def notice(self) -> str:
        """What is unusual about the run, or ""."""
        ...

    @property
    def pause(self) -> float:
        """Least number of seconds between two checkpoints at the ends of epochs."""
        ...

    @property
    def summary_file(self) -> str:
        """Name of the file for the summary of the result, written last; "" where ``arch.json`` ends the run."""
        ...

    def prepare(self, run: Run) -> None:
        """Write what the new folder of the run holds before the loop starts, beside its recipe and its machine."""
        ...

    def answer(self, callback: Callback) -> Answer:
        """Return the answer of the finished loop."""
        ...

    def result(self, answer: Answer, run: Run | None, seconds: float, last: Mapping[str, Any]) -> R_co:
        """Return the result; ``seconds`` is the wall time of all epochs and of the answer, ``last`` the last line of
        the trace, empty without a loop."""
        ...


Preparation = Callable[[Any, Run | None], Task[R]]
"""Makes the task of a resolved recipe. The run is None for a new one, or holds what an interrupted one has kept."""


class Callback:
    """Called while a run is under way; a subclass overrides what it wants to know of."""

    def on_start(self, resolved: Resolved, run: Run | None, notice: str) -> None:
        """Everything is set up; the notice says what is unusual, or is empty."""

    def on_record(self, record: Any) -> None:
        """An epoch of a search or of a training is over, or an evaluation of a black-box search."""

    def on_judged(self, judgement: Judgement) -> None:
        """The trained supernet has judged a candidate for the answer."""


OnProgress = Callback | Callable[[Any], None] | None
"""A callback; or a function that is called with each record."""


class _OnRecord(Callback):
    """A function of records as a callback."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        self.function = function

    def on_record(self, record: Any) -> None:
        self.function(record)


def callback_of(on_progress: OnProgress) -> Callback:
    """Return what a user gave as a callback."""
    if on_progress is None:
        return Callback()
    return on_progress if isinstance(on_progress, Callback) else _OnRecord(on_progress)


# ---------------------------------------------------------------------- the pipeline


def start(
    recipe: Recipe, task_of: Preparation[R], *, out: str | Path | None = None, on_progress: OnProgress = None
) -> R:
    """Run a recipe to its end.

    Parameters
    ----------
    recipe
        What to run.
    task_of
        Makes the task.
    out
        Folder of the run; None writes nothing.
    on_progress
        Called while the run is under way.

    Raises
    ------
    UserError
        For anything wrong with the recipe or the folder; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    checked = check_recipe(recipe)
    device_of(checked.run.device)
    if out is not None:
        Run.check_free(out)
    resolved = resolve(checked)
    use_threads(resolved.run.threads)
    with recipe.located():
        task = task_of(resolved, None)
    if out is None:
        return _finish(task, None, task.notice, callback_of(on_progress))
    with taken(out) as run:
        run.write("recipe.toml", resolved.full().toml())
        run.write_json("machine.json", machine())
        task.prepare(run)
        with recipe.located(), _resumable(run):
            return _finish(task, run, task.notice, callback_of(on_progress))


def resume(run: Run, task_of: Preparation[R], *, device: str | None = None, on_progress: OnProgress = None) -> R:
    """Continue a run from its last checkpoint, or from its beginning where there is none yet.

    With ``device`` it goes on there, in place of where its recipe says.

    Raises
    ------
    UserError
        Where it cannot be continued; nothing is changed then.
    Stopped
        When interrupted, with everything saved.
    """
    run.check_regular()
    recipe = run.recipe()
    checked = check_recipe(recipe if device is None else recipe.over(run={"device": device}))
    device_of(checked.run.device)
    resolved = resolve(checked)
    use_threads(resolved.run.threads)
    task = task_of(resolved, run)
    with held(run), _resumable(run):
        if run.ended:
            raise UserError(f"{shown(run.path)} has just been ended by another process.")
        run.tidy()
        notice, trace = ("", []) if task.loop is None else _restore(task.loop, run, task.fingerprint)
        if not files.is_file(run.path / "machine.json"):  # killed while it was written
            run.write_json("machine.json", machine())
        return _finish(task, run, " ".join(filter(None, (notice, task.notice))), callback_of(on_progress), trace)


def _restore(loop: Loop, run: Run, fingerprint: str) -> tuple[str, list[str]]:
    """Load the run's last checkpoint into a loop, and make the trace match; return a notice, or "", and the trace."""
    found, trace, notices = load(run, images=fingerprint), list[str](), []
    if found is not None:
        state, trace = found
        try:
            loop.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"The checkpoint of {run.path} does not fit its recipe: {error}") from None
        trace = trace[: loop.epoch]
    elif any(os.path.lexists(run.path / name) for name in ("arch.json", "result.json")):
        raise UserError(
            f"{shown(run.path)} holds the answer of a run, and neither its manifest.json nor its checkpoint: it cannot "
            "be gone on with. Put them back; or run its recipe.toml again into another folder."
        )
    elif files.is_file(run.path / "trace.jsonl"):
        notices.append("There is no checkpoint, so the run begins anew.")
    now = machine()
    try:
        before = run.machine()
    except Damaged:
        before = {}
        files.remove(run.path / "machine.json")
        notices.append("machine.json was damaged and is written anew: where the run began is not known.")
    run.restore(trace)
    if (run.path / "tensorboard").is_dir():
        rebuild(run)
    changed = [
        f"{key} {before[key]} then, {now[key]} now" for key in FIXED if key in before and before[key] != now[key]
    ]
    if changed:
        notices.append(f"Begun elsewhere ({'; '.join(changed)}): the last bits may differ.")
    return " ".join(notices), trace


@contextmanager
def _resumable(run: Run) -> Iterator[None]:
    """Let an interrupt outside of the loop end as :class:`Stopped`: what was computed until then is saved."""
    interrupt.ask(0)
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        if interrupt.caused(error):
            raise Stopped(str(run.path)) from None
        raise


def _finish(task: Task[R], run: Run | None, notice: str, callback: Callback, trace: Sequence[str] = ()) -> R:
    """Run the loop of a task to its end, and write what came of it; the file that marks the end is the last."""
    callback.on_start(task.resolved, run, notice)
    seconds, last = 0.0, dict[str, Any]()
    for line in map(json.loads, trace):
        seconds, last = seconds + line["seconds"], line
    if task.loop is not None:
        more, last = _loop(task, task.loop, run, last, callback, list(trace))
        seconds += more
    answer = task.answer(callback)
    if run is not None:
        for name, content in answer.files.items():
            run.write_json(name, content)
        if answer.weights:
            run.write_weights(answer.weights)
        run.write("cell.svg", cell_svg(answer.arch, answer.space))
    result = task.result(answer, run, seconds + answer.seconds, last)
    if run is not None:
        summary, name = result.summary(), task.resolved.checked.space.name
        alone = {"params": summary["params"], "macs": summary["macs"], "start": getattr(result, "start", "fresh")}
        run.write_arch(answer.arch, answer.space, name, answer.images, alone, answer.score)
        if task.summary_file:
            run.write_json(task.summary_file, summary)
        run.end()
    return result


def _loop(
    task: Task[R], loop: Loop, run: Run | None, last: dict[str, Any], callback: Callback, trace: list[str]
) -> tuple[float, dict[str, Any]]:
    """Run a loop to its end; return its wall time and the last line of the trace.

    The callback gets each record when it is in the trace and its checkpoint is written. Where records come quickly, the
    task's ``pause`` keeps checkpoints rare: what follows the last checkpoint is computed again when the run is resumed.

    An interrupt (Ctrl-C, SIGTERM) ends the run after the current step with :class:`Stopped`, everything saved; a second
    one ends it at once.
    """
    seconds = 0.0
    keeper = Keeper(run, loop.state_dict, task.fingerprint, task.resolved.run.save_every, trace)
    with _stopping(keeper):
        for record in loop.run(keeper if run is not None else None):
            seconds, last = seconds + record.seconds, record.line()
            if run is not None:
                trace.append(json.dumps(last))
                run.append(trace[-1])
                if time.monotonic() - keeper.saved >= task.pause:
                    keeper.save()
            callback.on_record(record)
        if task.pause or keeper.stop:
            keeper.save()
        if keeper.stop and run is not None:  # asked for after the last step
            raise Stopped(str(run.path))
    return seconds, last


@contextmanager
def _stopping(keeper: Keeper) -> Iterator[None]:
    """Let the first interrupt ask the keeper to stop, where there is a folder to save to; the second has its usual
    effect."""
    if keeper.run is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        interrupt.ask(number)
        keeper.stop = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in interrupt.SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
