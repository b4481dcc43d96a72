"""The best architecture within a budget: an exact 0/1 linear program, solved by HiGHS through SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gapless.core.bound import Bound, BoundUnit, Budget, told
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.space import Space

SPREAD = 1e6
"""Range that the scores are scaled to. The solver stops at an absolute gap of 1e-6, which is then a relative gap of
1e-12."""
LARGEST = 1e4
"""Largest coefficient of a cost constraint: one unit of a cost is then far above the solver's tolerance of 1e-6."""
TRIES = 1000
"""Number of architectures that exceed a bound by less than that tolerance and are excluded before giving up."""

Row = tuple[NDArray[np.float64], float, float]
"""A linear constraint: coefficients, lower and upper bound of their sum."""


def fit(scores: Tensor, space: Space, budget: Budget) -> Arch:
    """Return the architecture with the largest sum of scores [D, O] among those within the budget.

    Without bounds that is the result of :meth:`gapless.core.space.Space.decode`, and if this is within the budget, it
    is returned. Otherwise the solver breaks ties, deterministically.

    Raises
    ------
    UserError
        If no architecture is within the budget.
    """
    arch = space.decode(scores)
    if budget.respects(arch):
        return arch
    best = optimum(scores, space, budget)
    if best is None:
        raise _impossible(space, budget)
    return best


def possible(space: Space, budget: Budget) -> None:
    """Raise the :class:`UserError` of :func:`fit` if no architecture is within the budget; call it before a search."""
    fit(torch.zeros(space.shape), space, budget)


def cheapest(space: Space, budget: Budget) -> dict[BoundUnit, float]:
    """Return the smallest cost of any architecture, for each unit on its own."""
    parts = zip(budget.bounds, budget.tables, strict=True)
    return {bound.unit: budget.costs(space.decode(-table))[bound.unit] for bound, table in parts}


def optimum(scores: Tensor, space: Space, budget: Budget) -> Arch | None:
    """Return the architecture with the largest sum of scores within the budget; None if there is none.

    The constraints are: one option for each present decision, the limits of the space, one row per bound."""
    places = space.eligible.nonzero().tolist()
    pick = tuple(torch.tensor(places).T)
    value = scores.detach().cpu().double()[pick].numpy()
    span = float(value.max() - value.min())
    value = (value - value.min()) * (SPREAD / span if span else 0.0)
    rows = _answers(space, places)
    for bound, table, constant in zip(budget.bounds, budget.tables, budget.constants, strict=True):
        row = _bounded(bound, table.cpu()[pick].numpy(), constant)
        if row is not None:
            rows.append(row)
    for _ in range(TRIES):
        chosen = _solve(value, rows)
        if chosen is None:
            return None
        held = [places[i] for i in np.flatnonzero(chosen)]
        arch = Arch({(d := space.decisions[row]).name: d.options[column] for row, column in held})
        space.check(arch)
        if budget.respects(arch):
            return arch
        rows.append((chosen.astype(np.float64), -math.inf, len(held) - 1.0))  # exceeds a bound: exclude it
    raise RuntimeError(f"HiGHS returned {TRIES} architectures that exceed a bound by less than its tolerance")


def _answers(space: Space, places: list[list[int]]) -> list[Row]:
    """Return the constraints of the space: one option per decision, ``count`` options over the decisions of a limit."""
    at = np.array([row for row, _ in places])
    limited = {name for limit in space.limits for name in limit.among}
    rows: list[Row] = []
    for row, d in enumerate(space.decisions):
        rows.append(((at == row).astype(np.float64), 0.0 if d.name in limited else 1.0, 1.0))
    for limit in space.limits:
        among = np.isin(at, [space.rows[name] for name in limit.among])
        rows.append((among.astype(np.float64), float(limit.count), float(limit.count)))
    return rows


def _bounded(bound: Bound, cost: NDArray[np.float64], constant: float) -> Row | None:
    """Return the constraint of a bound, scaled for the solver; None if no option has a cost and the bound holds.

    Counts are divided by their greatest common divisor, which for convolutions leaves small integers.
    """
    rest = bound.most - constant
    if not cost.any():
        return (cost, -math.inf, -1.0) if rest < 0 else None
    if bound.unit != "latency":
        common = math.gcd(*(int(c) for c in cost))
        cost, rest = (
            cost / common,
            math.floor(rest / common) + 0.5,
        )  # half a unit of slack for rounding; the costs are integers
    scale = LARGEST / cost.max()
    return cost * scale, -math.inf, rest * scale


def _solve(value: NDArray[np.float64], rows: list[Row]) -> NDArray[np.bool_] | None:
    from scipy.optimize import Bounds, LinearConstraint, milp  # here, because importing it takes half a second

    matrix, low, high = (np.array(part) for part in zip(*rows, strict=True))
    result: Any = milp(
        -value,
        integrality=np.ones_like(value),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0.0},
    )
    if result.status == 2:
        return None
    if result.status != 0:
        raise RuntimeError(f"HiGHS failed: {result.message}")
    chosen: NDArray[np.bool_] = result.x > 0.5
    return chosen


def _impossible(space: Space, budget: Budget) -> UserError:
    """Return the error for a budget that no architecture is within."""
    name = space.label or type(space).__name__
    where = "at the size at which it would be trained"
    least = cheapest(space, budget)
    broken = [bound for bound in budget.bounds if least[bound.unit] > bound.most]
    if broken:
        asked = " and ".join(f"at most {told(b.most, b.unit)}" for b in broken)
        has = " and ".join(told(least[b.unit], b.unit, word=len(broken) > 1) for b in broken)
        return UserError(f"No architecture of {name} has {asked}: the smallest has {has} ({where}).")
    asked = " and ".join(f"at most {told(b.most, b.unit)}" for b in budget.bounds)
    has = " and ".join(told(least[b.unit], b.unit) for b in budget.bounds)
    return UserError(
        f"No architecture of {name} has {asked} at once ({where}). Each on its own is possible: the smallest "
        f"architectures have {has}. Raise one of the limits."
    )
