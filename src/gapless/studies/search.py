"""A search from a recipe to an architecture, with a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from gapless.core.bound import STRENGTH
from gapless.core.cost import count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.method import Method
from gapless.core.progress import seeded
from gapless.core.searcher import Searcher
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.engine.search import Record, Search, peak_memory_mb
from gapless.report.show import show
from gapless.runs.checkpoint import held
from gapless.runs.recipe import Recipe, Resolved
from gapless.runs.run import Run
from gapless.studies import limits
from gapless.studies.limits import Asked, Held
from gapless.studies.session import begin, device_of, go, restore, use_threads


class Watcher(Protocol):
    """What is told of a search under way."""

    def started(self, resolved: Resolved, run: Run | None, notice: str) -> None:
        """Everything is set up; a notice says what is unusual, if anything."""
        ...

    def told(self, record: Record) -> None:
        """An epoch is over."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes
    ----------
    arch, space
        The architecture, and the space at the size of the search.
    run
        The run folder, or None where none was asked for.
    seconds, peak_memory_mb
        Of the search.
    limits
        What was asked of the architecture, and what it costs.
    """

    arch: Arch
    space: Space
    run: Run | None
    seconds: float
    peak_memory_mb: float
    limits: tuple[Held, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return the plain facts: architecture, notation, parameters and MACs at the size at which it would be trained
        alone."""
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **size_of(self.space.alone(), self.arch),
            **({"limits": [asdict(held) for held in self.limits]} if self.limits else {}),
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        }


def search(
    recipe: Recipe | str | Path = "demo",
    *,
    out: str | Path | None = None,
    watcher: Watcher | Callable[[Record], None] | None = None,
) -> Found:
    """Search as a recipe says.

    Parameters
    ----------
    recipe
        A recipe, the path of one, or the name of one that comes with the package.
    out
        Folder of the run; None writes nothing.
    watcher
        Called with the record of each epoch; or an object with ``started`` and ``told``, which hears of the beginning,
        too.

    Raises
    ------
    UserError
        For anything wrong with the recipe or the folder; nothing is written then.
    Stopped
        When interrupted, with everything saved.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    recipe.check()
    device_of(recipe.run.get("device", "auto"))
    if out is not None:
        Run.check_free(out)
    resolved = recipe.resolve()
    use_threads(resolved.run["threads"])
    asked = limits.ask(resolved, None)
    loop = _loop(resolved, asked)
    run = begin(out, resolved.full().toml())
    if run is not None and asked is not None:
        limits.keep(asked, run)
    return _search(resolved, loop, run, asked, "" if asked is None else asked.elsewhere, watcher)


def resume(run: Run, watcher: Watcher | Callable[[Record], None] | None = None) -> Found:
    """Go on with a search from its last checkpoint, or from its beginning where there is none yet.

    Raises
    ------
    UserError
        Where it cannot go on; nothing is changed then.
    """
    recipe = run.recipe()
    device_of(recipe.run.get("device", "auto"))
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
    return Found(arch, space, run, sum(r["seconds"] for r in records), peak)


def _search(
    resolved: Resolved,
    loop: Search | None,
    run: Run | None,
    asked: Asked | None,
    notice: str,
    watcher: Watcher | Callable[[Record], None] | None,
) -> Found:
    if watcher is not None and not callable(watcher):
        watcher.started(resolved, run, notice)
    told = watcher if watcher is None or callable(watcher) else watcher.told
    spent = 0.0 if run is None else sum(record["seconds"] for record in run.trace())
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
        arch, costs = limits.answer(loop, asked)
    if run is not None:
        if loop is not None:
            run.write_weights(
                {**loop.supernet.state_dict(), **{f"method.{k}": v for k, v in loop.method.state_dict().items()}}
            )
        show(arch, space, run.path / "cell.svg")
        run.write_arch(arch, space, resolved.recipe.space["name"], resolved.data)  # last: with it the run has ended
    return Found(arch, space, run, spent, peak_memory_mb(device), costs)


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
    )


def size_of(space: Space, arch: Arch) -> dict[str, int]:
    """Return parameters and MACs of an architecture at the size that ``space`` says."""
    with torch.device("meta"):
        network = space.network(arch)
    return {"params": count_params(network), "macs": count_macs(network, (space.channels, space.size, space.size))}
