"""A black-box search by a score, from a recipe to an architecture, with a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapless.core.judge import Judge
from gapless.core.searcher import first
from gapless.engine.explore import Exploration
from gapless.engine.memory import peak_memory_mb
from gapless.report.show import show
from gapless.runs.checkpoint import held
from gapless.runs.exploring import Exploring, resolve
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies import limits
from gapless.studies.found import Found, Watcher
from gapless.studies.limits import Asked
from gapless.studies.session import begin, device_of, go, restore, use_threads

PAUSE = 1.0
"""Seconds between two checkpoints: a look-up in a table takes less time than to write one."""


def explore(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    watcher: Watcher | Callable[[Any], None] | None = None,
) -> Found:
    """Search as a checked recipe says (:func:`gapless.studies.search.search`)."""
    resolved = resolve(recipe)
    use_threads(resolved.run["threads"])
    asked = limits.ask(resolved, None)
    judge = resolved.judge(device_of(resolved.run["device"]))
    loop = _loop(resolved, judge, asked)
    run = begin(out, resolved.full().toml())
    if run is not None and asked is not None:
        limits.keep(asked, run)
    return _explore(resolved, judge, loop, run, asked, "", watcher)


def resume(run: Run, watcher: Watcher | Callable[[Any], None] | None = None) -> Found:
    """Go on from the last evaluation, or from the beginning where there is none yet.

    Raises
    ------
    UserError
        Where it cannot go on; nothing is changed then.
    """
    resolved = resolve(run.recipe())
    use_threads(resolved.run["threads"])
    asked = limits.ask(resolved, run)
    judge = resolved.judge(device_of(resolved.run["device"]))
    loop = _loop(resolved, judge, asked)
    with held(run):
        notice = restore(loop, run, judge.fingerprint)
    return _explore(resolved, judge, loop, run, asked, notice, watcher)


def _loop(resolved: Exploring, judge: Judge, asked: Asked | None) -> Exploration:
    searcher = resolved.searcher()
    if asked is not None:
        searcher.within = asked.budget.respects
    return Exploration(searcher, judge, resolved.evaluations, device=judge.device)


def _explore(
    resolved: Exploring,
    judge: Judge,
    loop: Exploration,
    run: Run | None,
    asked: Asked | None,
    notice: str,
    watcher: Watcher | Callable[[Any], None] | None,
) -> Found:
    if watcher is not None and not callable(watcher):
        notices = (notice, judge.notice, "" if asked is None else asked.elsewhere)
        watcher.started(resolved, run, " ".join(filter(None, notices)))
    told = watcher if watcher is None or callable(watcher) else watcher.told
    spent = 0.0 if run is None else sum(record["seconds"] for record in run.trace())
    minutes = resolved.run["save_every"]
    for record in go(loop, run, images=judge.fingerprint, minutes=minutes, told=told, pause=PAUSE):
        spent += record.seconds
    arch, costs = (loop.searcher.best(), ()) if asked is None else limits.best_within(loop.ranked(), asked)
    score = {
        "name": resolved.recipe.score["name"],
        "title": judge.title,
        "unit": judge.unit,
        "value": first(loop.known[arch]),
        "evaluations": loop.epoch,
        "architectures": len(loop.known),
        "notice": judge.notice,
    }
    if run is not None:
        show(arch, resolved.space, run.path / "cell.svg")
        # Last: with it the run has ended.
        run.write_arch(arch, resolved.space, resolved.recipe.space["name"], resolved.images, score)
    return Found(arch, resolved.space, run, spent, peak_memory_mb(loop.device), costs, score=score)
