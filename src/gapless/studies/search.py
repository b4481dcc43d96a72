"""A search from a recipe to an architecture, with a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gapless.core.cost import count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.method import Method
from gapless.core.progress import seeded
from gapless.core.searcher import Searcher
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.engine.explore import explore
from gapless.engine.search import Record, Search, peak_memory_mb
from gapless.report.show import show
from gapless.runs.recipe import Recipe, Resolved
from gapless.runs.run import Run, machine


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
    """

    arch: Arch
    space: Space
    run: Run | None
    seconds: float
    peak_memory_mb: float

    def summary(self) -> dict[str, Any]:
        """Return the plain facts: architecture, notation, parameters and MACs at the size at which it would be trained
        alone."""
        return {
            "run": None if self.run is None else str(self.run.path),
            "arch": str(self.arch),
            "notation": self.space.write(self.arch),
            **size_of(self.space.alone(), self.arch),
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        }


def search(
    recipe: Recipe | str | Path = "demo",
    *,
    out: str | Path | None = None,
    started: Callable[[Resolved, Run | None], None] | None = None,
    told: Callable[[Record], None] | None = None,
) -> Found:
    """Search as a recipe says.

    Parameters
    ----------
    recipe
        A recipe, the path of one, or the name of one that comes with the package.
    out
        Folder of the run; None writes nothing.
    started, told
        Called when everything is set up, and after each epoch.

    Raises
    ------
    UserError
        For anything wrong with the recipe or the folder; nothing is written then.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    recipe.check()
    device_of(recipe.run.get("device", "auto"))
    if out is not None:
        Run.check_free(out)
    resolved = recipe.resolve()
    if resolved.run["threads"] > 0:
        torch.set_num_threads(resolved.run["threads"])
    begun = time.perf_counter()
    loop = _loop(resolved) if issubclass(resolved.method_class, Method) else None
    run = None if out is None else Run.create(out)
    if run is not None:
        run.write("recipe.toml", resolved.full().toml())
        run.write_json("machine.json", machine())
    if started is not None:
        started(resolved, run)
    if loop is None:
        searcher = make(resolved.method_class, {**resolved.method, "seed": resolved.run["seed"]}, resolved.space)
        assert isinstance(searcher, Searcher)
        arch, space, device = explore(searcher, None, 1), resolved.space, torch.device("cpu")
    else:
        for record in loop.run():
            if run is not None:
                run.append(record.line())
            if told is not None:
                told(record)
        arch, space, device = loop.answer(), loop.space, loop.device
    found = Found(arch, space, run, time.perf_counter() - begun, peak_memory_mb(device))
    if run is not None:
        if loop is not None:
            run.write_weights(
                {**loop.supernet.state_dict(), **{f"method.{k}": v for k, v in loop.method.state_dict().items()}}
            )
        run.write_arch(arch, space, resolved.recipe.space["name"])
        show(arch, space, run.path / "cell.svg")
    return found


def _loop(resolved: Resolved) -> Search:
    run = resolved.run
    with seeded(run["seed"], "method"):
        method = make(resolved.method_class, resolved.method, resolved.space)
    assert isinstance(method, Method)
    return Search(
        resolved.space,
        method,
        resolved.data,
        resolved.train,
        seed=run["seed"],
        device=device_of(run["device"]),
        precision=run["precision"],
    )


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU where there is one.

    Raises
    ------
    UserError
        For an unknown device, or one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device {name!r} here. Legal: auto, cpu, and cuda where there is a GPU.") from None
    return device


def size_of(space: Space, arch: Arch) -> dict[str, int]:
    """Return parameters and MACs of an architecture at the size that ``space`` says."""
    with torch.device("meta"):
        network = space.network(arch)
    return {"params": count_params(network), "macs": count_macs(network, (space.channels, space.size, space.size))}
