"""The best architecture that holds every bound: an exact 0/1 programme, solved by HiGHS through SciPy."""

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
"""What scores are scaled to span. The solver stops at an absolute gap of 1e-6, which is then a share of 1e-12."""
LARGEST = 1e4
"""Largest coefficient of a cost row, so that one unit of a cost is far above the solver's tolerance of 1e-6."""
TRIES = 1000
"""Architectures beyond a bound by less than that tolerance that are put aside before the solver is given up."""

Row = tuple[NDArray[np.float64], float, float]
"""Coefficients, and what their sum lies between."""


def fit(scores: Tensor, space: Space, budget: Budget) -> Arch:
    """Return the architecture with the largest sum of scores [D, O] of all that hold every bound.

    Without a bound the largest sum is what :meth:`gapless.core.space.Space.decode` reads off; where that holds every
    bound, it is the answer. Where a bound binds, ties are broken by the solver, the same way each time.

    Raises
    ------
    UserError
        Where no architecture holds the bounds.
    """
    arch = space.decode(scores)
    if budget.respects(arch):
        return arch
    best = optimum(scores, space, budget)
    if best is None:
        raise _impossible(space, budget)
    return best


def possible(space: Space, budget: Budget) -> None:
    """Raise the :class:`UserError` of :func:`fit` where no architecture holds the bounds; to be asked before a
    search."""
    fit(torch.zeros(space.shape), space, budget)


def cheapest(space: Space, budget: Budget) -> dict[BoundUnit, float]:
    """Return the smallest cost that an architecture has, unit by unit."""
    parts = zip(budget.bounds, budget.tables, strict=True)
    return {bound.unit: budget.costs(space.decode(-table))[bound.unit] for bound, table in parts}


def optimum(scores: Tensor, space: Space, budget: Budget) -> Arch | None:
    """Return the solution of the programme, or None where there is none: one option for each present decision, the
    limits of the space, a row for each bound."""
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
        rows.append((chosen.astype(np.float64), -math.inf, len(held) - 1.0))  # within the tolerance only: not this one
    raise RuntimeError(f"HiGHS gave {TRIES} architectures that break a bound by less than its tolerance")


def _answers(space: Space, places: list[list[int]]) -> list[Row]:
    """Return the rows of the space: one option for each decision, ``count`` options over the decisions of a limit."""
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
    """Return the row of a bound, in numbers that suit the solver; None where no option costs anything and the bound
    holds.

    Counts are divided by what they have in common: for convolutions that leaves small whole numbers.
    """
    rest = bound.most - constant
    if not cost.any():
        return (cost, -math.inf, -1.0) if rest < 0 else None
    if bound.unit != "latency":
        common = math.gcd(*(int(c) for c in cost))
        cost, rest = (
            cost / common,
            math.floor(rest / common) + 0.5,
        )  # half a unit of room for rounding, in whole numbers
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
        raise RuntimeError(f"HiGHS found no architecture: {result.message}")
    chosen: NDArray[np.bool_] = result.x > 0.5
    return chosen


def _impossible(space: Space, budget: Budget) -> UserError:
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
        f"No architecture of {name} has {asked} at once ({where}). One by one they can be held: the smallest "
        f"architectures have {has}. Raise one of the limits."
    )
