"""Architectures of a search trained from scratch, several at once: what they are worth alone where no table says it.

Each is trained at the size at which the space trains alone, and where the supernet was smaller at that size, too: how
alike the two orders are says what the depth gap costs (P-DARTS, arXiv 1904.12760). The trainings lie in the folder
``alone`` of the run, and go on where they were interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gapless.core import files
from gapless.core.decision import Arch
from gapless.core.errors import Stopped, UserError
from gapless.core.settings import Processes, Repeats, Threads, convert, fields_of
from gapless.core.space import Space
from gapless.runs import schema
from gapless.runs.checked import check_recipe
from gapless.runs.run import Run
from gapless.studies.job_work import finish_training
from gapless.studies.jobs import Here, Job, OnJob, Outcome
from gapless.studies.retrain import KEPT, plan

FOLDER, SETTINGS = "alone", "settings.json"
Size = Literal["small", "full"]
"""``small``: depth and width of the supernet; ``full``: those at which the space trains alone."""
OF_DATA = ("classes", "channels", "size")


@dataclass(frozen=True)
class Trainings:
    """How architectures are trained from scratch.

    Parameters
    ----------
    count
        Trainings of each, with seeds 0, 1, ...; two say how much of an order is noise.
    jobs
        How many at once, each in a process of its own.
    protocol
        Name of a ``protocol`` and settings that differ from it; by default as the run's recipe says, or the space.
    data
        Settings of the images that differ from the search's.
    threads
        Of each process; 0 is one.
    """

    count: Repeats
    jobs: Processes = 1
    protocol: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    threads: Threads = 0

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("trainings", self.count, Repeats),
            ("jobs", self.jobs, Processes),
            ("threads", self.threads, Threads),
        ):
            convert(value, kind, name)


def sizes(source: Run) -> dict[Size, Space]:
    """Return the space at each size at which the run's architectures can be trained alone, the full one last; it alone
    where the supernet had that depth and width."""
    _, space = source.found()
    full = space.alone().replace(**source.recipe().retrain.get("space", {}))
    small = full.replace(**{name: getattr(space, name) for name in space.scale})
    return {"full": full} if small == full else {"small": small, "full": full}


def train_alone(
    source: Run, archs: Sequence[Arch], at: Mapping[Size, Space], asked: Trainings, told: OnJob | None = None
) -> dict[Size, dict[Arch, list[float]]]:
    """Train every architecture at every size so often, and return size -> architecture -> test accuracies in percent.

    Raises
    ------
    UserError
        Where the run's folder holds trainings by other settings, or one failed: the others go on, and are kept.
    Stopped
        When interrupted, with everything saved.
    """
    folder = Run(source.path / FOLDER)
    trained: dict[tuple[Size, Arch, int], Run] = {}
    jobs = []
    for seed in range(asked.count):
        for size, space in at.items():
            for arch in archs:
                text = space.write(arch)
                name = f"{size}-{hashlib.sha256(str(arch).encode()).hexdigest()[:10]}-seed{seed}"
                run = trained[size, arch, seed] = Run(folder.path / name)
                given = {"given": text, "out": run.path.resolve(), **_settings(source, space, asked, seed)}
                if not (run.started and run.ended):
                    log = (folder.path / "logs" / f"{name}.log").resolve()
                    jobs.append(Job(name, finish_training, given, log))
    _check(source, folder, archs[0], at, asked)
    if jobs:
        try:
            came = Here(asked.jobs, asked.threads or 1).run(jobs, told or (lambda job, came: None))
        except KeyboardInterrupt:
            raise Stopped(str(source.path), again="gapless gap") from None
        failed = {name: c for name, c in came.items() if c.state != "ended"}
        if failed:
            raise _failed(failed, folder)
    return {
        size: {arch: [_accuracy(trained[size, arch, seed]) for seed in range(asked.count)] for arch in archs}
        for size in at
    }


def _settings(source: Run, space: Space, asked: Trainings, seed: int) -> dict[str, Any]:
    """Return how :func:`gapless.studies.retrain.retrain` is called."""
    recipe = source.recipe()
    usual = type(space).usual().alone()
    fields = {k: getattr(space, k) for k in fields_of(type(space)) if k not in OF_DATA}
    changed = bool(asked.protocol) and "protocol" in asked.protocol
    own = {} if changed else {k: v for k, v in recipe.retrain.items() if k not in ("space", "start")}
    run = {k: v for k, v in recipe.run.items() if k in ("device", "precision")}
    return {
        "space": recipe.space["name"],
        "fields": {k: v for k, v in fields.items() if v != getattr(usual, k)},
        "protocol": {**own, **asked.protocol},
        "data": {**{k: v for k, v in recipe.data.items() if k in KEPT}, **asked.data},
        "run": {**run, "threads": asked.threads or 1, "seed": seed},
    }


def _check(source: Run, folder: Run, arch: Arch, at: Mapping[Size, Space], asked: Trainings) -> None:
    """Find what is wrong with the settings before a training begins, and write them down, or compare them with those
    that are there."""
    told: dict[str, Any] = {}
    for size, space in at.items():
        given = _settings(source, space, asked, 0)
        recipe = plan(space.write(arch), **given)
        check_recipe(recipe)
        told[size] = {"space": given["fields"], "retrain": dict(recipe.retrain), "data": dict(recipe.data)}
    now, path = json.loads(json.dumps(told, default=str)), folder.path / SETTINGS
    if path.exists():
        before = schema.read(path, schema.AloneFile, "Remove that folder to train them again.")
        for size in set(now) & set(before):
            for table, values in now[size].items():
                was = before[size][table]
                for key in sorted({*values, *was}):
                    if values.get(key) != was.get(key):
                        raise UserError(
                            f"{folder.path} holds trainings by other settings: {table}.{key} is "
                            f"{values.get(key, 'not set')}, and was {was.get(key, 'not set')}. They would not be "
                            "comparable; give the same settings, or remove that folder."
                        )
        now = {**before, **now}
    files.folder(folder.path)
    folder.write_json(SETTINGS, now)


def _failed(failed: Mapping[str, Outcome], folder: Run) -> UserError:
    name, came = next(iter(failed.items()))
    return UserError(
        f"{len(failed)} trainings did not come to their end; {name}: {came.error or came.state} The logs are in "
        f"{folder.path / 'logs'}. The same command goes on with them."
    )


def _accuracy(run: Run) -> float:
    return float(run.result()["test_accuracy"])
