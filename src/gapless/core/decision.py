"""Decisions, limits on how many are present, and architectures: answers to every decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gapless.core.errors import UserError, nearest

RESERVED = set(",=\n ")


@dataclass(frozen=True)
class Decision:
    """One question that a search answers: an edge of a cell, a block of a chain, a width.

    Parameters
    ----------
    name
        Unique within a space; free of commas, equal signs and blanks.
    options
        The labels of the answers, in column order. One operation may stand twice under labels of its own: ``skip``,
        ``skip#2``.
    into
        Decisions with the same non-empty ``into`` are summed at one node.
    groups
        Label -> group name, where the options fall into groups (DropNAS: ``weights`` and ``free``).
    values
        One number per option, where options are sizes (a width, a depth).
    never
        Options that only exist while the space is relaxed and may not be part of an architecture (``none`` in the DARTS
        space).
    """

    name: str
    options: tuple[str, ...]
    into: str = ""
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    values: tuple[float, ...] | None = None
    never: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for label in (self.name, *self.options):
            if not label or RESERVED & set(label):
                raise ValueError(f"{label!r} cannot name a decision or an option: no blanks, commas or equal signs")
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"decision {self.name!r} has the option labels {self.options}: each must stand once")

    @property
    def eligible(self) -> tuple[int, ...]:
        """Columns that an architecture may hold."""
        return tuple(i for i, option in enumerate(self.options) if option not in self.never)


@dataclass(frozen=True)
class Keep:
    """Exactly ``count`` of the decisions ``among`` are present in an architecture."""

    among: tuple[str, ...]
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.count <= len(self.among):
            raise ValueError(f"cannot keep {self.count} of {len(self.among)} decisions")


class Arch(Mapping[str, str]):
    """An architecture: decision name -> option label. Absent decisions are not in it. Immutable and hashable.

    >>> a = Arch({"2<-0": "skip_connect", "1<-0": "none"})
    >>> str(a)
    '1<-0=none,2<-0=skip_connect'
    >>> Arch.parse(str(a)) == a
    True
    """

    __slots__ = ("_choice", "_hash")

    def __init__(self, choice: Mapping[str, str]) -> None:
        self._choice = dict(sorted(choice.items()))
        self._hash = hash(tuple(self._choice.items()))

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Read ``decision=option,decision=option``; the inverse of ``str``.

        Raises
        ------
        UserError
            Where the text is not of that form or a decision stands twice.
        """
        choice: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.strip().split(","))):
            name, equals, option = part.partition("=")
            if not equals or not name or not option:
                raise UserError(f"{part!r} is not of the form decision=option, as in '1<-0=skip_connect'.")
            if name in choice:
                raise UserError(f"The decision {name!r} is answered twice.")
            choice[name] = option
        return cls(choice)

    def __getitem__(self, name: str) -> str:
        return self._choice[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choice)

    def __len__(self) -> int:
        return len(self._choice)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arch) and self._choice == other._choice

    def __str__(self) -> str:
        return ",".join(f"{name}={option}" for name, option in self._choice.items())

    def __repr__(self) -> str:
        return f"Arch({str(self)!r})"


def check(arch: Arch, decisions: tuple[Decision, ...], limits: tuple[Keep, ...]) -> None:
    """Raise a :class:`UserError` that says why ``arch`` does not belong to the space, if it does not."""
    known = {d.name: d for d in decisions}
    for name, option in arch.items():
        if name not in known:
            raise UserError(f"The space has no decision {name!r}.{nearest(name, known)} It has: {', '.join(known)}.")
        legal = [o for o in known[name].options if o not in known[name].never]
        if option not in legal:
            raise UserError(f"{option!r} is no answer to {name!r}.{nearest(option, legal)} Legal: {', '.join(legal)}.")
    limited: set[str] = set()
    for limit in limits:
        limited |= set(limit.among)
        present = [name for name in limit.among if name in arch]
        if len(present) != limit.count:
            raise UserError(
                f"Exactly {limit.count} of {', '.join(limit.among)} must be present; "
                f"given: {', '.join(present) or 'none'}."
            )
    missing = [d.name for d in decisions if d.name not in limited and d.name not in arch]
    if missing:
        raise UserError(f"The architecture does not answer {', '.join(missing)}.")
