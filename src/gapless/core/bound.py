"""Bounds on what an architecture may cost, the cost to expect while it is still undecided, and a penalty on that.

A *limit* of a space (:class:`gapless.core.decision.Keep`) says what an architecture is; a *bound* is what a user asks
of the answer: ``macs=50M``. Costs are additive: a constant plus an entry for each chosen option
(:meth:`gapless.core.space.Space.cost_table`), so that the cost of :func:`relax`, which is an architecture with shares
between 0 and 1, is a differentiable number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, get_args

import torch
from torch import Tensor

from gapless.core.decision import Arch
from gapless.core.errors import UserError, unknown
from gapless.core.space import Space

BoundUnit = Literal["macs", "params", "latency"]
UNITS: tuple[BoundUnit, ...] = get_args(BoundUnit)
EXAMPLES: dict[BoundUnit, str] = {"macs": "macs=50M", "params": "params=1M", "latency": "latency=5ms"}
WORDS: dict[BoundUnit, str] = {"macs": "MACs", "params": "parameters", "latency": "ms"}
THOUSANDS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "B": 9}
"""Suffix of a count -> power of ten."""
SECONDS = {"us": -3, "ms": 0, "s": 3}
"""Suffix of a time -> power of ten, in milliseconds."""
NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|\.\d+(?:[eE][+-]?\d{1,3})?"

STRENGTH = 1.0
"""Weight of the penalty. Ours: the optimiser of the architecture is an Adam, so what counts is how large the penalty's
gradient is beside the loss's. On the bundled digits the loss's spreads by 0.06 to 0.1 over a row of the mix early in a
search of NAS-Bench-201; the penalty's spread is an option's share of the bound, 0.8 for a convolution under a tight
one, so that it leads where the bound is broken. Larger would not move the parameters faster, but Adam's second moment
would remember it, and slow the search for long after the bound holds."""
TINY = 1e-12
"""Probability mass below which a row says nothing."""


@dataclass(frozen=True)
class Bound:
    """The cost in ``unit`` is at most ``most``: a number of multiply-adds, of parameters, or milliseconds.

    >>> Bound.parse("macs=50M")
    Bound(unit='macs', most=50000000.0)
    >>> str(Bound.parse("latency=800us"))
    'latency=0.8ms'

    Raises
    ------
    UserError
        Where ``most`` is not a positive number.
    """

    unit: BoundUnit
    most: float

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit", str(self.unit), UNITS)
        if not (math.isfinite(self.most) and self.most > 0):
            raise UserError(
                f"A limit is a finite number above 0, as in {EXAMPLES[self.unit]}; given: {self.unit}={self.most}."
            )

    @classmethod
    def parse(cls, text: str) -> Bound:
        """Read ``unit=number``: ``macs`` and ``params`` with k, M, G (or B) or nothing behind it, ``latency`` with us,
        ms or s.

        Raises
        ------
        UserError
            Where the text is not of that form.
        """
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise UserError(f"The `limit` {text!r} is not of the form unit=number, as {', '.join(EXAMPLES.values())}.")
        units = [unit for unit in UNITS if unit == name]
        if not units:
            raise unknown("unit to limit", name, UNITS)
        unit = units[0]
        powers = SECONDS if unit == "latency" else THOUSANDS
        found = re.fullmatch(rf"({NUMBER})\s*([A-Za-z]*)", value)
        if found is None or found.group(2) not in powers:
            legal = ", ".join(suffix for suffix in powers if suffix)
            hint = f" Did you mean {found.group(1)}M?" if found and found.group(2) == "m" and unit != "latency" else ""
            must = "a number and one of" if unit == "latency" else "a number, alone or with one of"
            raise UserError(
                f"The `limit` {text!r} is wrong: {unit} takes {must} {legal}, as in {EXAMPLES[unit]}.{hint}"
            )
        return cls(unit, float(Decimal(found.group(1)).scaleb(powers[found.group(2)])))

    def __str__(self) -> str:
        """Return what ``parse`` reads back: the same number to the last bit."""
        exact = Decimal(repr(self.most))
        if self.unit == "latency":
            return f"latency={_plain(exact)}ms"
        for suffix in ("G", "M", "k"):
            scaled = exact.scaleb(-THOUSANDS[suffix])
            if 1 <= scaled < 1000 and scaled == round(scaled, 2):
                return f"{self.unit}={_plain(scaled)}{suffix}"
        return f"{self.unit}={_plain(exact)}"


def _plain(number: Decimal) -> str:
    """Return a number without exponent and without zeros that say nothing."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def told(amount: float, unit: BoundUnit, *, word: bool = True) -> str:
    """Return an amount for a reader.

    >>> told(73306, "params"), told(4.8213, "latency"), told(73306, "params", word=False)
    ('73,306 parameters', '4.82 ms', '73,306')
    """
    text = f"{amount:,.3g}" if unit == "latency" and amount < 100 else f"{amount:,.0f}"
    return f"{text} {WORDS[unit]}" if word or unit == "latency" else text


# ---------------------------------------------------------------------- an undecided architecture


def relax(probabilities: Tensor, space: Space) -> Tensor:
    """Return [D, O] float64: how much of each option an architecture holds in expectation, with a graph to
    ``probabilities``.

    Decisions are taken to be independent. Each row is divided by its sum over the eligible options (evenly among them
    where there is none), and weighed by the chance that the decision is present. Under a limit that keeps ``count``
    decisions this chance is proportional to the decision's strength, which is its largest eligible probability, as for
    reading off; what exceeds 1 is handed to the others, so that the chances sum to ``count`` (sampling theory calls it
    inclusion with probability proportional to size). The relaxation is exact where rows are one-hot and, under a limit,
    ``count`` rows have all the strength: it equals ``space.encode(arch)`` then.

    Parameters
    ----------
    probabilities
        [D, O], not negative. Rows need not sum to one.
    space
        Whose decisions these are; its size does not matter.

    Raises
    ------
    ValueError
        For another shape.
    """
    if tuple(probabilities.shape) != space.shape:
        raise ValueError(f"probabilities are of shape {tuple(probabilities.shape)}; (D, O) is {space.shape}")
    eligible = space.eligible.to(probabilities.device)
    held = torch.where(eligible, probabilities.double(), 0.0)
    choice = _shares(held, eligible)
    return choice * _presence(held.amax(dim=-1), space).unsqueeze(-1) if space.limits else choice


def _shares(weight: Tensor, free: Tensor) -> Tensor:
    """Return rows [.., n] that sum to one, proportional to ``weight`` over what is free, even where there is no weight,
    and zero where nothing is free."""
    inside = torch.where(free, weight, 0.0)
    mass = inside.sum(dim=-1, keepdim=True)
    some = mass > TINY
    even = free.double() / free.sum(dim=-1, keepdim=True).clamp_min(1)
    return torch.where(some, inside / torch.where(some, mass, 1.0), even)


def _presence(strength: Tensor, space: Space) -> Tensor:
    """Return [D]: the chance that each decision is present, 1 for those under no limit."""
    member = torch.zeros(len(space.limits), len(strength), dtype=torch.bool)
    for row, limit in enumerate(space.limits):
        member[row, [space.rows[name] for name in limit.among]] = True
    member = member.to(strength.device)
    counts = torch.tensor([[limit.count] for limit in space.limits], device=strength.device)
    weight = strength.expand(member.shape)
    sure = torch.zeros_like(member)

    def chances() -> Tensor:
        free = member & ~sure
        return _shares(weight, free) * (counts - sure.sum(dim=-1, keepdim=True))

    for _ in range(max(limit.count for limit in space.limits)):  # each round settles one more, or nothing is left to do
        sure = sure | (chances().detach() >= 1)
    return torch.where(sure, 1.0, chances()).sum(dim=0) + ~member.any(dim=0)


def expected(probabilities: Tensor, space: Space, table: Tensor, constant: float) -> Tensor:
    """Return the expected cost under :func:`relax`: a float64 scalar with a graph to ``probabilities`` [D, O].

    ``table`` [D, O] and ``constant`` are those of :meth:`gapless.core.space.Space.cost_table`.
    """
    relaxed = relax(probabilities, space)
    return constant + (relaxed * table.to(relaxed)).sum()


def cost_of(arch: Arch, space: Space, table: Tensor, constant: float) -> float:
    """Return what an architecture of the space costs."""
    chosen = [(row, column) for row, column in enumerate(space.choice(arch)) if column is not None]
    rows = table.tolist()
    return float(constant + sum(rows[row][column] for row, column in chosen))


# ---------------------------------------------------------------------- bounds with their tables


@dataclass(frozen=True, eq=False)
class Budget:
    """Bounds, and what they are measured by.

    Attributes
    ----------
    space
        At the size at which the architecture is to be used.
    bounds
        One per unit.
    tables, constants
        For each bound [D, O] float64 and a number: the cost of a network is the constant plus the entries of its
        options.
    """

    space: Space
    bounds: tuple[Bound, ...]
    tables: tuple[Tensor, ...]
    constants: tuple[float, ...]

    def costs(self, arch: Arch) -> dict[BoundUnit, float]:
        """Return what an architecture costs in each unit that is bounded."""
        parts = zip(self.bounds, self.tables, self.constants, strict=True)
        return {bound.unit: cost_of(arch, self.space, table, constant) for bound, table, constant in parts}

    def respects(self, arch: Arch) -> bool:
        """Return whether an architecture holds every bound."""
        costs = self.costs(arch)
        return all(costs[bound.unit] <= bound.most for bound in self.bounds)

    def expected(self, probabilities: Tensor) -> dict[BoundUnit, float]:
        """Return the expected cost of undecided decisions [D, O] in each unit that is bounded."""
        relaxed = relax(probabilities.detach(), self.space)
        parts = zip(self.bounds, self.tables, self.constants, strict=True)
        return {bound.unit: float(constant + (relaxed * table.to(relaxed)).sum()) for bound, table, constant in parts}

    def penalty(self, probabilities: Tensor, strength: float = STRENGTH) -> Tensor:
        """Return ``strength * sum over bounds of max(0, expected / most - 1)``: a scalar with a graph to
        ``probabilities`` [D, O], zero where every bound holds in expectation."""
        relaxed = relax(probabilities, self.space)
        excess = torch.zeros((), dtype=relaxed.dtype, device=relaxed.device)
        for bound, table, constant in zip(self.bounds, self.tables, self.constants, strict=True):
            cost = constant + (relaxed * table.to(relaxed)).sum()
            excess = excess + (cost / bound.most - 1).relu()
        return strength * excess

    def to(self, device: torch.device | str) -> Budget:
        """Return the budget with its tables on a device, so that a step need not move them."""
        return replace(self, tables=tuple(table.to(device) for table in self.tables))

    def tightened(self, unit: BoundUnit, most: float) -> Budget:
        """Return the budget with another number for one unit."""
        return replace(self, bounds=tuple(Bound(unit, most) if b.unit == unit else b for b in self.bounds))


def budget(
    space: Space,
    bounds: Sequence[Bound | str],
    *,
    latency: tuple[Tensor, float] | None = None,
    alone: Space | None = None,
) -> Budget:
    """Return the bounds with the tables that they are measured by.

    Parameters
    ----------
    space
        As searched.
    bounds
        At most one per unit; texts are parsed.
    latency
        Table and constant in milliseconds at the size of ``alone`` (:mod:`gapless.measure.latency`), where latency is
        bounded.
    alone
        The space at the size at which the architecture is to be used; by default ``space.alone()``.

    Raises
    ------
    UserError
        For two bounds on one unit, or one on latency without a table.
    """
    read = tuple(Bound.parse(bound) if isinstance(bound, str) else bound for bound in bounds)
    units = [bound.unit for bound in read]
    for unit in units:
        if units.count(unit) > 1:
            given = ", ".join(str(bound) for bound in read if bound.unit == unit)
            raise UserError(f"The `limit` is given twice for {unit} ({given}); give one.")
    alone = space.alone() if alone is None else alone
    if (alone.decisions, alone.limits) != (space.decisions, space.limits):
        raise ValueError("the space at the size of use asks other questions than the space that is searched")
    priced: list[tuple[Tensor, float]] = []
    for bound in read:
        if bound.unit != "latency":
            priced.append(alone.cost_table(bound.unit))
        elif latency is None:
            raise UserError(
                "A limit on latency needs a table of measured latencies; there is none. Try macs or params."
            )
        else:
            priced.append(latency)
    return Budget(alone, read, tuple(table for table, _ in priced), tuple(float(constant) for _, constant in priced))
