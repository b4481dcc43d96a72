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
from gapless.core.space import Space
from gapless.core.text import quoted
from gapless.engine.bench import SupernetBench
from gapless.engine.feed import Feed
from gapless.engine.precision import Precision
from gapless.engine.supernet import Supernet
from gapless.runs.checked import CheckedRecipe, Component, Start, check_recipe
from gapless.runs.resolved import ResolvedSearch, ResolvedTraining, resolve
from gapless.runs.run import Run


def trained(path: str | Path) -> tuple[Run, CheckedRecipe]:
    """Return a finished run that trained a supernet, and its recipe.

    Raises
    ------
    UserError
        Where it is something else.
    """
    run = Run.open(path)
    if run.kind != "search":
        raise UserError(
            f"{path} trained one architecture alone; there are weights to inherit in a search that trained a supernet."
        )
    checked = check_recipe(run.recipe())
    method_of(checked)
    if not run.ended:
        raise UserError(f"The run {path} has not ended. Go on with: gapless resume {quoted(path)}")
    if not (run.path / "weights.safetensors").is_file():
        raise UserError(f"{path} holds no weights.safetensors: its supernet is gone.")
    return run, checked


def method_of(checked: CheckedRecipe) -> Component[Method]:
    """Return the method of a search.

    Raises
    ------
    UserError
        Where it trains no supernet.
    """
    method = checked.method
    assert method is not None
    if not issubclass(method.cls, Method):
        raise UserError(f"{method.name} trains no supernet: there are no weights to inherit.")
    return method


def reopened(checked: CheckedRecipe, space: Space) -> tuple[Method, Space]:
    """Return the method of a search as it began, and the space at the size at which the search ended: its stages may
    have changed fields."""
    with seeded("reopened"):
        method = method_of(checked).make(space)
    for stage in method.plan.stages:
        space = space.replace(**stage.space)
    return method, space


def continued_size(checked: CheckedRecipe, space: Space, start: Start | None = None) -> Space | None:
    """Return the space at the size at which the answer of a search is trained further from the weights of its supernet;
    None where its training starts from fresh weights.

    ``start`` decides, else the recipe's ``[retrain]``, else the method's plan.

    Raises
    ------
    UserError
        Where weights are to be inherited and there are none.
    """
    start = start or checked.retrain.start
    if start == "fresh" or (start is None and checked.kind != "supernet"):
        return None
    method, size = reopened(checked, space)
    return size if start == "inherited" or method.plan.after == "continue" else None


def starting_network(resolved: ResolvedTraining) -> nn.Module:
    """Return the network that a training starts from: freshly initialised, or with the weights of a search's
    supernet."""
    retrain = resolved.checked.retrain
    if retrain.start != "inherited":
        return resolved.space.network(resolved.arch)
    assert retrain.weights is not None
    return inherited(Run.open(retrain.weights), resolved.arch, resolved.space)


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
class TrainedSupernet:
    """The supernet of a finished search as a judge of architectures.

    Attributes
    ----------
    resolved
        The recipe of the search, with its data.
    method
        In its last state.
    bench
        The supernet, on the images that the search held out.
    """

    resolved: ResolvedSearch
    method: Method
    bench: SupernetBench

    @classmethod
    def of(cls, run: Run, device: torch.device, precision: Precision) -> TrainedSupernet:
        """Read the supernet of a run.

        Raises
        ------
        UserError
            Where its weights are not those of its recipe.
        """
        resolved, weights = resolve(run.recipe()), run.weights()
        assert isinstance(resolved, ResolvedSearch)
        method, size = reopened(resolved.checked, resolved.space)
        dtype = torch.float64 if precision == "float64" else torch.float32
        supernet = Supernet(size, resolved.run.execution)
        try:
            method.load_state_dict(_part(weights, "method."))
            supernet.load_state_dict({k: v for k, v in weights.items() if not k.startswith("method.")})
        except RuntimeError:
            raise _unfit(run) from None
        supernet.to(device, dtype)
        seed = resolved.run.seed
        feed = Feed(resolved.data.to(device), method.plan, resolved.train, seed, dtype)
        last = len(method.plan.stages) - 1
        return cls(resolved, method, SupernetBench(supernet, supernet, feed, method.plan, seed, stage=last))


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _unfit(run: Run) -> UserError:
    return UserError(f"The weights of {run.path} do not fit the supernet that its recipe describes.")
