"""A comparison: methods times seeds times images as one job that can be interrupted, gone on with, and extended."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gapless.core.errors import Occupied, Stopped, UserError
from gapless.core.files import place, whole
from gapless.core.settings import NonNegative, Processes, ranged
from gapless.core.space import Space
from gapless.core.table import BenchmarkTable
from gapless.core.text import shown
from gapless.reports.comparison import Report, report, write
from gapless.runs.checked import RunSettings, check_recipe
from gapless.runs.checkpoint import held
from gapless.runs.comparison import Comparison, ComparisonCell, Folder
from gapless.runs.recipe import Recipe
from gapless.runs.resolved import ResolvedBlackBox, resolve
from gapless.runs.run import Run
from gapless.studies.device import device_of
from gapless.studies.job_work import finish_search
from gapless.studies.jobs import Here, Job, OnJob, OnRay, Outcome
from gapless.tables import load

SEEDS = (0, 1, 2)
SPACE = "nasbench201"
"""Where a comparison searches if neither a recipe nor an option says where."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison came to.

    Attributes
    ----------
    folder
        Where it lies.
    report
        The table of all its runs.
    came
        Name of a run -> what came of it in this call; runs that had ended before are not in it.
    files
        ``csv``, ``differences``, ``markdown``, ``latex`` -> the file.
    """

    folder: Folder
    report: Report
    came: Mapping[str, Outcome]
    files: Mapping[str, Path]

    @property
    def failed(self) -> dict[str, Outcome]:
        """Runs that did not come to their end."""
        return {name: came for name, came in self.came.items() if came.state != "ended"}

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        return {
            "comparison": str(self.folder.path),
            **self.report.summary(),
            "files": {name: str(path) for name, path in self.files.items()},
        }


@ranged
def compare(
    recipe: Recipe | str | Path | None = None,
    *,
    methods: Sequence[str],
    seeds: Sequence[int] = SEEDS,
    data: Sequence[str] = (),
    baseline: str | None = None,
    table: str | Path | None = None,
    columns: Sequence[str] = (),
    retrain: bool = False,
    out: str | Path,
    jobs: Processes = 1,
    ray: str | None = None,
    gpus: NonNegative = 0.0,
    planned: Callable[[int, int], None] | None = None,
    told: OnJob | None = None,
) -> Compared:
    """Search with every method under every seed, and tell what the answers are worth and how far that can be trusted.

    What has ended is not run again, what was interrupted goes on from its checkpoint, and methods, seeds and images may
    be added by a later call: the report is of those that the call names. A run that fails does not keep the others
    from running.

    Parameters
    ----------
    recipe
        What all runs share (a recipe, the path of one, or the name of one of the package); None is NAS-Bench-201 with
        each paper's settings. Its ``methods`` hold settings of single methods.
    methods
        Names of methods and searchers, or files that define one.
    seeds
        Of the searches, and of the trainings of their answers.
    data
        Sets of images, each as in a recipe; by default that of the recipe, or the digits.
    baseline
        The method that the others are compared with; by default the first.
    table, columns
        A benchmark table (:func:`gapless.tables.load`) that says what an answer is worth, and its column of accuracies:
        one for all sets of images or one for each; by default the table's own.
    retrain
        Whether every answer is trained alone, as the recipe's ``[retrain]`` says.
    out
        Folder of the comparison.
    jobs
        How many runs at once, each in a process of its own with one thread (or the recipe's ``threads``).
    ray
        Address of a Ray cluster that runs them instead, or ``local`` (:class:`gapless.studies.jobs.OnRay`). All nodes
        must see ``out`` and the images under the same paths.
    gpus
        GPUs that a run takes on the cluster.
    planned
        Called before the first run with (runs that have ended, runs that are to be run).
    told
        Called as runs begin and come to their end.

    Raises
    ------
    UserError
        For anything wrong with what was given, or where ``out`` holds runs with other settings; nothing is written
        then.
    Stopped
        When interrupted, with every run saved.
    """
    base = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else Recipe.read(recipe)
    base = base if base.space else base.over(space={"name": SPACE})
    if not data:
        data = [base.data["name"]] if "name" in base.data else [] if base.score else ["digits"]
    if table is not None:
        base.permit(str(table))
    rows = None if table is None else load(table)
    if rows is not None and not columns:
        columns = (rows.default_column,)
    asked = Comparison.of(
        base,
        tuple(methods),
        tuple(seeds),
        tuple(data),
        baseline=baseline,
        table="" if table is None else str(whole(table)),
        columns=tuple(columns),
        retrain=retrain,
    )
    _check(asked, rows)
    threads = RunSettings.of(asked.recipe).threads or 1
    runner = Here(jobs, threads) if ray is None else OnRay(ray, threads, gpus)
    folder = Folder(place(out))
    before = folder.comparison() if folder.exists else None
    if before is not None:
        before, runs = before.permitting(asked), folder.runs()
        asked = asked.keeping(before)
        searched = sorted({run.recipe().method["name"] for run in runs if run.kind == "search"})
        if unlike := asked.unlike(before, searched, retrained=any(run.kind == "retrain" for run in runs)):
            raise UserError(
                f"{folder.path} holds runs with other settings: {unlike}. They would not be comparable; give the same "
                "settings, or another `out`."
            )
    else:
        Run.check_free(folder.path)
    wanting = [cell for cell in asked.cells() if not _ended(folder, asked, cell)]
    came: dict[str, Outcome] = {}
    try:
        _try_out(asked, folder, wanting, runner)
        if before is None:
            Run.create(folder.path)
        with held(Run(folder.path)):
            if before is None:
                Run.check_free(folder.path)
            elif folder.comparison().permitting(asked) != before:
                raise Occupied(f"{shown(folder.path)} was changed by another process since. Try again.")
            folder.write(asked)
            if planned is not None:
                planned(sum(1 for _ in asked.cells()) - len(wanting), len(wanting))
            if wanting:
                came = runner.run([_job(asked, folder, cell) for cell in wanting], told or (lambda job, came: None))
            found = report(folder, asked)
            files = write(found, folder.path)
    except KeyboardInterrupt:
        raise Stopped(str(folder.path) if folder.exists else None, again="gapless compare") from None
    return Compared(folder, found, came, files)


def _check(asked: Comparison, table: BenchmarkTable | None) -> None:
    """Find what is wrong with any of the runs before one begins, as far as that needs no data."""
    for cell in asked.cells():
        checked = check_recipe(asked.recipe_of(cell))
        if checked.kind == "black-box":
            checked.judging()
        if table is not None:
            _check_table(table, checked.space.cls.usual(**checked.space.settings))
    if asked.retrain and not all("name" in asked.recipe_of(cell).data for cell in asked.cells()):
        raise UserError("`retrain` trains on images: give `data`, such as digits, a folder, or a name on the hub.")
    if table is not None:
        for column in asked.columns:
            table.accuracy(column)


def _check_table(table: BenchmarkTable, space: Space) -> None:
    try:
        table.check(space, "this comparison is of")
    except UserError as error:
        raise UserError(f"{error} Leave `table` out, or give `retrain`: then every answer is trained alone.") from None


def _ended(folder: Folder, asked: Comparison, cell: ComparisonCell) -> bool:
    runs = [folder.run(cell), *([folder.retrained(cell)] if asked.retrain else [])]
    return all(run.started and run.ended for run in runs)


def _try_out(asked: Comparison, folder: Folder, wanting: Sequence[ComparisonCell], runner: Here | OnRay) -> None:
    """Read each set of images and each score once where no run has used it yet, so that what is wrong with them is
    found before anything is written.

    That is a job, too: the peak memory of this process would be counted as that of every run, for a process inherits
    it from the one that starts it.
    """
    known = {cell.data for cell in asked.cells() if folder.run(cell).started}
    first: dict[tuple[str, bool], Recipe] = {}
    for cell in wanting:
        recipe = asked.recipe_of(cell)
        if cell.data not in known:
            first.setdefault((cell.data, check_recipe(recipe).kind == "black-box"), recipe)
    if not first:
        return
    with tempfile.TemporaryDirectory() as scratch:
        job = Job("check", read, {"recipes": list(first.values())}, Path(scratch) / "check.log")
        came = runner.run([job], lambda job, came: None)["check"]
    if came.state == "failed":
        raise UserError(came.error)


def read(recipes: Sequence[Recipe]) -> None:
    """Read the images of recipes, and what gives the scores.

    Raises
    ------
    UserError
        Where that cannot be done.
    """
    for recipe in recipes:
        checked = check_recipe(recipe)
        device_of(checked.run.device)
        resolved = resolve(checked)
        if isinstance(resolved, ResolvedBlackBox):
            resolved.judge(torch.device("cpu"))


def _job(asked: Comparison, folder: Folder, cell: ComparisonCell) -> Job:
    given: dict[str, Any] = {"recipe": asked.recipe_of(cell), "out": folder.run(cell).path.resolve()}
    if asked.retrain:
        given["alone"] = folder.retrained(cell).path.resolve()
    return Job(cell.name, finish_search, given, folder.log(cell).resolve())
