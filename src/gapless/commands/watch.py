"""Shows a run under way: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gapless.analysis.alarm import alarms
from gapless.core.space import Space
from gapless.data import ImageData
from gapless.engine.bench import Judgement
from gapless.engine.explore import EvaluationRecord
from gapless.engine.record import SearchRecord
from gapless.engine.retrain import TrainingRecord
from gapless.kernels.announce import Compilation, reporting
from gapless.runs.resolved import Resolved, ResolvedBlackBox, ResolvedSearch, ResolvedTraining
from gapless.runs.run import Run
from gapless.studies.jobs import Job, Outcome
from gapless.studies.pipeline import Callback

EVERY = 50
"""Candidates between two lines, where there is no terminal."""


class Watch:
    """What every long command prints."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True, markup=False)
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.live)
        self.task: Any = None
        self.epochs = 0
        self.compiling: Any = None
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.bar.start()
        self.stack.callback(self.bar.stop)
        self.stack.enter_context(reporting(self.compiled))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def compiled(self, state: Compilation) -> None:
        """Say that kernels are being compiled, and how far this is: by a bar, or in a line per quarter."""
        if not state.done:
            self.console.print(state.text)
        if self.live:
            if self.compiling is None:
                self.compiling = self.bar.add_task("compiling")
            self.bar.update(self.compiling, total=state.total, completed=state.done)
            if state.done == state.total:
                self.bar.remove_task(self.compiling)
                self.compiling = None
        elif 4 * state.done // state.total > 4 * (state.done - 1) // state.total and state.done:
            print(f"compiled {state.done} of {state.total} functions", flush=True)

    def begin(self, data: ImageData, epochs: int, batch: int, run: Run | None, notice: str) -> None:
        """Say what data it runs on, and where it goes on."""
        sizes = f"{len(data.train):,} training images of {data.size[0]}x{data.size[1]} in {len(data.classes)} classes"
        self.console.print(f"Data: {data.name}, {sizes}. {epochs} epochs of batches of {batch}.")
        self.console.print(f"Test images, which are not trained on: {len(data.test):,}, {data.tested}.")
        self.wait("epochs", epochs, run, notice)

    def wait(self, what: str, count: int, run: Run | None, notice: str) -> None:
        """Begin to count epochs or evaluations, and say where it goes on."""
        done = 0 if run is None else sum(1 for _ in run.trace())
        if done:
            self.console.print(f"Going on after {what.removesuffix('s')} {done}.")
        if notice:
            self.console.print(notice)
        self.epochs = count
        self.task = self.bar.add_task(what, total=count, completed=done)

    def say(self, record: SearchRecord | TrainingRecord, more: str) -> None:
        """Say what an epoch did."""
        text = f"loss {record.train_loss:6.3f}, training accuracy {record.train_accuracy:5.1f} %{more}"
        if self.live:
            self.bar.update(self.task, advance=1, description=text)
        else:
            rate = f"{record.images_per_second:,.0f} images/s"
            print(f"epoch {record.epoch + 1}/{self.epochs}: {text}, {rate}", flush=True)


class WatchSearch(Watch, Callback):
    """What a command prints while it searches."""

    candidates = 0
    best = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.space: Space | None = None
        self.records: list[dict[str, Any]] = []
        self.raised: set[str] = set()

    def on_start(self, resolved: Resolved, run: Run | None, notice: str) -> None:
        """Say what is searched."""
        space = self.space = resolved.space
        self.records = [] if run is None else list(run.trace())
        names = {table: getattr(resolved.recipe, table)["name"] for table in ("space", "method")}
        self.console.print(f"Searching {names['space']} ({space.count:,} architectures) with {names['method']}.")
        if isinstance(resolved, ResolvedBlackBox):
            self.console.print(f"{resolved.evaluations:,} evaluations by the score {resolved.score.name}.")
            self.wait("evaluations", resolved.evaluations, run, notice)
        elif isinstance(resolved, ResolvedSearch):
            self.begin(resolved.data, resolved.train.epochs, resolved.train.batch, run, notice)

    def on_record(self, record: SearchRecord | EvaluationRecord) -> None:
        """Say what an epoch did; of an evaluation, what is the best so far, where that is new or the last."""
        if isinstance(record, EvaluationRecord):
            best = f"best score so far {record.best:.2f}"
            if self.live:
                self.bar.update(self.task, advance=1, description=best)
            elif record.asked == record.arch or record.epoch + 1 == self.epochs:
                print(f"evaluation {record.epoch + 1}/{self.epochs}: {best}", flush=True)
            return
        valid = "" if record.valid_accuracy is None else f", held-out accuracy {record.valid_accuracy:5.1f} %"
        self.say(record, valid)
        self.records.append(record.line())
        assert self.space is not None
        for alarm in alarms(self.space, self.records):
            if alarm.name not in self.raised:  # once is enough
                self.raised.add(alarm.name)
                self.console.print(f"Warning after epoch {record.epoch + 1}: {alarm.text}")

    def on_judged(self, judgement: Judgement) -> None:
        """Say how many candidates the trained supernet has judged, and the best of them."""
        self.candidates += 1
        self.best = max(self.best, judgement[2])
        text = f"{self.candidates:,} architectures judged with the supernet's weights, best {100 * self.best:.1f} %"
        if self.live:
            self.bar.update(self.task, description=text)
        elif self.candidates % EVERY == 0:
            print(text, flush=True)


class WatchTraining(Watch, Callback):
    """What a command prints while it trains."""

    def on_start(self, resolved: Resolved, run: Run | None, notice: str) -> None:
        """Say what is trained."""
        assert isinstance(resolved, ResolvedTraining)
        retrain = resolved.checked.retrain
        name = retrain.protocol or resolved.space.protocol
        self.console.print(f"Training one architecture of {resolved.checked.space.name} alone, protocol {name}:")
        self.console.print(f"  {resolved.space.write(resolved.arch)}")
        if retrain.start == "inherited":
            self.console.print(f"It starts from the weights of the supernet of {retrain.weights}.")
        self.begin(resolved.data, resolved.protocol.epochs, resolved.protocol.batch, run, notice)

    def on_record(self, record: TrainingRecord) -> None:
        """Say what an epoch did."""
        test = "" if record.test_accuracy is None else f", test accuracy {record.test_accuracy:5.1f} %"
        self.say(record, test)


class WatchJobs(Watch):
    """What a command prints while runs are under way in processes of their own."""

    done = 0

    def planned(self, there: int, wanting: int) -> None:
        """Say how many runs have ended before, and how many are to be run."""
        had = f" {there} of them had ended before." if there else ""
        self.console.print(f"{there + wanting} runs.{had}")
        self.epochs, self.done = there + wanting, there
        self.task = self.bar.add_task("runs", total=self.epochs, completed=there)

    def told(self, job: Job, came: Outcome | None) -> None:
        """Say what began, and what came of it."""
        if came is None:
            self.console.print(f"{job.name}: begun")
            return
        self.done += 1
        self.bar.update(self.task, advance=1)
        what = f"{came.state} in {came.seconds:.0f} s ({self.done} of {self.epochs})"
        self.console.print(f"{job.name}: {what}" + (f": {came.error} Log: {job.log}" if came.error else ""))
