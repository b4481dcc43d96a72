"""A search from a recipe to an architecture, with a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gapless.core.bound import STRENGTH
from gapless.core.method import Method
from gapless.core.progress import seeded
from gapless.core.searcher import Searcher
from gapless.core.settings import make
from gapless.engine.memory import peak_memory_mb
from gapless.engine.search import Search
from gapless.report.show import show
from gapless.runs.checkpoint import held
from gapless.runs.recipe import Recipe, Resolved
from gapless.runs.run import Run
from gapless.runs.searched import going_on
from gapless.studies import explore, limits
from gapless.studies.found import Found, Watcher, told_of
from gapless.studies.limits import Asked
from gapless.studies.session import begin, device_of, go, restore, use_threads


def search(
    recipe: Recipe | str | Path = "demo",
    *,
    out: str | Path | None = None,
    watcher: Watcher | Callable[[Any], None] | None = None,
) -> Found:
    """Search as a recipe says.

    Parameters
    ----------
    recipe
        A recipe, the path of one, or the name of one that comes with the package.
    out
        Folder of the run; None writes nothing.
    watcher
        Called with the record of each epoch, or of each evaluation; or an object with ``started`` and ``told``, which
        hears of the beginning, too.

    Raises
    ------
    UserError
        For anything wrong with the recipe or the folder; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    recipe = (recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)).completed()
    recipe.check()
    device_of(recipe.run.get("device", "auto"))
    if out is not None:
        Run.check_free(out)
    if recipe.scored:
        return explore.explore(recipe, out=out, watcher=watcher)
    resolved = recipe.resolve()
    use_threads(resolved.run["threads"])
    asked = limits.ask(resolved, None)
    loop = _loop(resolved, asked)
    run = begin(out, resolved.full().toml())
    if run is not None and asked is not None:
        limits.keep(asked, run)
    return _search(resolved, loop, run, asked, "" if asked is None else asked.elsewhere, watcher)


def resume(run: Run, watcher: Watcher | Callable[[Any], None] | None = None) -> Found:
    """Go on with a search from its last checkpoint, or from its beginning where there is none yet.

    Raises
    ------
    UserError
        Where it cannot go on; nothing is changed then.
    """
    recipe = run.recipe()
    device_of(recipe.run.get("device", "auto"))
    if recipe.scored:
        return explore.resume(run, watcher)
    resolved = recipe.resolve()
    use_threads(resolved.run["threads"])
    asked = limits.ask(resolved, run)
    loop = _loop(resolved, asked)
    with held(run):
        notices = [] if loop is None else [restore(loop, run, resolved.data.fingerprint)]
    if asked is not None:
        notices.append(asked.elsewhere)
    notice = " ".join(filter(None, notices))
    return _search(resolved, loop, run, asked, notice, watcher)


def finished(run: Run) -> Found:
    """Return what a search that has ended found."""
    arch, space = run.found()
    records = list(run.trace())
    peak = max((r["peak_memory_mb"] for r in records), default=0.0)
    seconds = sum(r["seconds"] for r in records) + run.judged()["seconds"]
    size = going_on(run.recipe(), space)
    return Found(arch, space, run, seconds, peak, size=size, judged=told_of(run.judged(), arch), score=run.score())


def _search(
    resolved: Resolved,
    loop: Search | None,
    run: Run | None,
    asked: Asked | None,
    notice: str,
    watcher: Watcher | Callable[[Any], None] | None,
) -> Found:
    if watcher is not None and not callable(watcher):
        watcher.started(resolved, run, notice)
    told = watcher if watcher is None or callable(watcher) else watcher.told
    spent = 0.0 if run is None else sum(record["seconds"] for record in run.trace())
    judged: dict[str, Any] = {"seconds": 0.0, "archs": []}
    if loop is None:
        searcher = make(resolved.method_class, {**resolved.method, "seed": resolved.run["seed"]}, resolved.space)
        assert isinstance(searcher, Searcher)
        space, device = resolved.space, torch.device("cpu")
        arch, costs = limits.first_within(searcher, asked)
    else:
        images, minutes = resolved.data.fingerprint, resolved.run["save_every"]
        for record in go(loop, run, images=images, minutes=minutes, told=told):
            spent += record.seconds
        space, device = loop.space, loop.device
        begun = time.perf_counter()
        arch, costs = limits.answer(loop, asked, getattr(watcher, "judged", None))
        picked = time.perf_counter() - begun
        spent += picked
        archs = [{"arch": str(a), "images": n, "accuracy": 100 * value} for a, n, value in loop.judged]
        judged = {"seconds": picked, "archs": archs}
    if run is not None:
        if loop is not None:
            if judged["archs"]:
                run.write_json("judged.json", judged)
            run.write_weights(
                {**loop.supernet.state_dict(), **{f"method.{k}": v for k, v in loop.method.state_dict().items()}}
            )
        show(arch, space, run.path / "cell.svg")
        run.write_arch(arch, space, resolved.recipe.space["name"], resolved.data)  # last: with it the run has ended
    size = going_on(resolved.recipe, resolved.space)
    return Found(arch, space, run, spent, peak_memory_mb(device), costs, size=size, judged=told_of(judged, arch))


def _loop(resolved: Resolved, asked: Asked | None) -> Search | None:
    """Return the loop of a method; None for a black-box search."""
    run = resolved.run
    if not issubclass(resolved.method_class, Method):
        return None
    with seeded(run["seed"], "method"):
        method = make(resolved.method_class, resolved.method, resolved.space)
    return Search(
        resolved.space,
        method,
        resolved.data,
        resolved.train,
        seed=run["seed"],
        device=device_of(run["device"]),
        precision=run["precision"],
        execution=run["execution"],
        recompute=run["recompute"],
        graphs=run["graphs"],
        budget=None if asked is None else asked.budget,
        strength=resolved.recipe.limit.get("strength", STRENGTH),
        watch=run["watch"],
    )
