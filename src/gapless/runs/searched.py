"""A finished search that trained a supernet, opened again: its size, its weights, its method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.method import Method
from gapless.core.progress import seeded
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.engine.bench import SupernetBench
from gapless.engine.feed import Feed
from gapless.engine.precision import Precision
from gapless.engine.supernet import Supernet
from gapless.runs.recipe import Recipe, Resolved, Start
from gapless.runs.run import Run


def trained(path: str | Path) -> tuple[Run, Recipe]:
    """Return a finished run that trained a supernet, and its recipe.

    Raises
    ------
    UserError
        Where it is something else.
    """
    run = Run.open(path)
    recipe = run.recipe()
    if run.kind != "search":
        raise UserError(
            f"{path} trained one architecture alone; there are weights to inherit in a search that trained a supernet."
        )
    method_of(recipe)
    if not run.ended:
        raise UserError(f"The run {path} has not ended. Go on with: gapless resume {path}")
    if not (run.path / "weights.safetensors").is_file():
        raise UserError(f"{path} holds no weights.safetensors: its supernet is gone.")
    return run, recipe


def method_of(recipe: Recipe) -> type[Method]:
    """Return the class of a recipe's method.

    Raises
    ------
    UserError
        Where what searches trains no supernet.
    """
    _, kind, _ = recipe.definitions()
    if not issubclass(kind, Method):
        raise UserError(f"{recipe.method['name']} trains no supernet: there are no weights to inherit.")
    return kind


def reopened(recipe: Recipe, space: Space) -> tuple[Method, Space]:
    """Return the method of a search as it began, and the space at the size at which the search ended: its stages may
    have changed fields."""
    with seeded("reopened"):
        method = make(method_of(recipe), {k: v for k, v in recipe.method.items() if k != "name"}, space)
    for stage in method.plan.stages:
        space = space.replace(**stage.space)
    return method, space


def going_on(recipe: Recipe, space: Space, start: Start | None = None) -> Space | None:
    """Return the space at the size at which the training of a search's answer goes on from the weights of its supernet;
    None where it starts afresh.

    Which of them holds is what ``start`` says, else the recipe's ``[retrain]``, else the method's plan.

    Raises
    ------
    UserError
        Where weights are to be inherited and there are none.
    """
    asked = start or recipe.start()
    if asked == "fresh":
        return None
    _, kind, _ = recipe.definitions()
    if asked is None and not issubclass(kind, Method):
        return None
    method, size = reopened(recipe, space)
    return size if asked == "inherited" or method.plan.after == "continue" else None


def inherited(run: Run, arch: Arch, size: Space) -> nn.Module:
    """Return the network of an architecture at the size of a search's supernet, with the weights that it has there; an
    auxiliary head is fresh.

    Raises
    ------
    UserError
        Where the weights are of another size.
    """
    child, weights = size.network(arch), run.weights()
    own = child.state_dict()
    for name, fresh in own.items():
        value = weights.get(f"network.{name}", fresh if "auxiliary" in name else None)
        if value is None or value.shape != fresh.shape:
            raise _unfit(run)
        own[name] = value
    child.load_state_dict(own)
    return child


@dataclass(eq=False)
class Reopened:
    """A finished search as a judge of architectures.

    Attributes
    ----------
    resolved
        Its recipe, with the data.
    method
        As it ended.
    bench
        Its supernet, on the images that it held out.
    """

    resolved: Resolved
    method: Method
    bench: SupernetBench

    @classmethod
    def of(cls, run: Run, device: torch.device, precision: Precision) -> Reopened:
        """Read a run.

        Raises
        ------
        UserError
            Where its weights are not those of its recipe.
        """
        resolved, weights = run.recipe().resolve(), run.weights()
        method, size = reopened(resolved.recipe, resolved.space)
        dtype = torch.float64 if precision == "float64" else torch.float32
        supernet = Supernet(size, resolved.run["execution"])
        try:
            method.load_state_dict(_part(weights, "method."))
            supernet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("method.")})
        except RuntimeError:
            raise _unfit(run) from None
        supernet.to(device, dtype)
        seed = resolved.run["seed"]
        feed = Feed(resolved.data.to(device), method.plan, resolved.train, seed, dtype)
        last = len(method.plan.stages) - 1
        return cls(resolved, method, SupernetBench(supernet, supernet, feed, method.plan, seed, stage=last))


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _unfit(run: Run) -> UserError:
    return UserError(f"The weights of {run.path} do not fit the supernet that its recipe describes.")
