"""A search space: decisions, limits and one description of the network. Everything else is derived once, here."""

from __future__ import annotations

import abc
import json
import math
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from gapless.core import cost, files
from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision, Keep, check
from gapless.core.errors import UserError
from gapless.core.memo import remembered
from gapless.core.mix import Mix, mask_of, one_hot
from gapless.core.network import Chosen
from gapless.core.picture import Picture
from gapless.core.settings import Natural, Side, check_names, check_ranges
from gapless.core.text import printable

DIGITS = string.digits + string.ascii_lowercase


@dataclass(frozen=True, kw_only=True)
class Space(abc.ABC):
    """The base of every space. A space is frozen: another size is ``dataclasses.replace(space, cells=20)``.

    Parameters
    ----------
    classes
        Number of classes of the data.
    channels
        Channels of the images.
    size
        Side of the images in pixels; height and width where they are not square.
    """

    source: ClassVar[str] = ""
    label: ClassVar[str] = ""
    python_only: ClassVar[str] = ""
    """What such a space needs that only Python can give; empty where the command line can make it."""
    readings: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Fields under which an architecture given without its space is read, in the order in which they are tried."""
    scale: ClassVar[tuple[str, ...]] = ()
    """Fields that set depth and width: those of a supernet may be smaller than those of the network trained alone."""
    classes: Natural = 10
    channels: Natural = 3
    size: Side | tuple[Side, Side] = 32

    def __post_init__(self) -> None:
        if not isinstance(self.size, int):
            height, width = self.size
            object.__setattr__(self, "size", height if height == width else (height, width))
        check_ranges(type(self), vars(self), "space")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return self.channels, height, width

    # ------------------------------------------------------------------ what a space says of itself

    @property
    @abc.abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The questions, in row order."""

    @property
    def limits(self) -> tuple[Keep, ...]:
        """How many decisions are present; by default all are."""
        return ()

    @abc.abstractmethod
    def build(self, choose: Choose) -> nn.Module:
        """Describe the network. ``forward`` of the module maps images [N, C, H, W] to logits [N, classes]."""

    def alone(self) -> Space:
        """Return the space at the size at which the paper trains an architecture on its own."""
        return self

    @property
    def protocol(self) -> str:
        """The name of the protocol by which an architecture is usually trained alone."""
        return "photos"

    def deployed(self) -> Self:
        """Return the space without what only training needs, as an auxiliary head; by default there is nothing such."""
        return self

    @classmethod
    def usual(cls, **fields: Any) -> Self:
        """Return the space with these fields, on the data that its paper used where nothing else is said."""
        check_names(cls, fields, "space")
        return cls(**fields)

    @classmethod
    def published(cls) -> tuple[str, ...]:
        """Return the names of published architectures that ``parse`` knows."""
        return ()

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether a text looks as if it were meant in this space's notation."""
        return False

    def write(self, arch: Arch) -> str:
        """Return the notation of the field."""
        return str(arch)

    def parse(self, text: str) -> Arch:
        """Read the notation of the field; the inverse of ``write``."""
        return Arch.parse(text)

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return what to draw: by default a chain with an edge per decision."""
        nodes = ("input", *(d.name for d in self.decisions[:-1]), "output")
        return (Picture("", nodes, tuple((i, i + 1, arch.get(d.name, "")) for i, d in enumerate(self.decisions))),)

    # ------------------------------------------------------------------ what follows from it

    @cached_property
    def rows(self) -> dict[str, int]:
        """Decision name -> row."""
        return {d.name: i for i, d in enumerate(self.decisions)}

    @cached_property
    def columns(self) -> int:
        """O: the largest number of options of a decision."""
        return max(len(d.options) for d in self.decisions)

    @property
    def shape(self) -> tuple[int, int]:
        """(D, O)."""
        return len(self.decisions), self.columns

    @cached_property
    def legal(self) -> Tensor:
        """[D, O] bool: the options that exist."""
        return mask_of(tuple(tuple(range(len(d.options))) for d in self.decisions), self.columns)

    @cached_property
    def eligible(self) -> Tensor:
        """[D, O] bool: the options that an architecture may hold."""
        return mask_of(tuple(d.eligible for d in self.decisions), self.columns)

    @cached_property
    def count(self) -> int:
        """The number of architectures."""
        limited = {name for limit in self.limits for name in limit.among}
        answers = {d.name: len(d.eligible) for d in self.decisions}
        total = math.prod(n for name, n in answers.items() if name not in limited)
        for limit in self.limits:  # elementary symmetric polynomial: the sum over subsets of the product of answers
            ways = [1] + [0] * limit.count
            for name in limit.among:
                for k in range(limit.count, 0, -1):
                    ways[k] += ways[k - 1] * answers[name]
            total *= ways[limit.count]
        return total

    def check(self, arch: Arch) -> None:
        """Raise a :class:`UserError` where ``arch`` is not in the space."""
        check(arch, self.decisions, self.limits)

    def read(self, given: str | Path) -> Arch:
        """Read an architecture in any notation: the field's, ours, or a file holding one; and check that it is in the
        space."""
        text = str(given).strip()
        if os.path.isfile(text):
            text = _content(Path(text))
        try:
            arch = Arch.parse(text) if "=" in text and "(" not in text else self.parse(text)
        except UserError:
            raise
        except (ValueError, OverflowError, RecursionError):  # numbers of thousands of digits, deep brackets
            raise UserError(f"{printable(text[:80])!r} is no architecture of {self.label or 'this space'}.") from None
        self.check(arch)
        return arch

    def sample(self, generator: torch.Generator) -> Arch:
        """Draw kept decisions, then their options, uniformly and independently."""
        absent: set[str] = set()
        for limit in self.limits:
            order = torch.randperm(len(limit.among), generator=generator).tolist()
            absent |= {limit.among[i] for i in order[limit.count :]}
        choice = {}
        for d in self.decisions:
            if d.name not in absent:
                pick = int(torch.randint(len(d.eligible), (), generator=generator))
                choice[d.name] = d.options[d.eligible[pick]]
        return Arch(choice)

    def neighbours(self, arch: Arch) -> tuple[Arch, ...]:
        """Return the architectures one change away: another option, or another kept decision with any of its
        options."""
        self.check(arch)
        found: list[Arch] = []
        for d in self.decisions:
            legal = [d.options[i] for i in d.eligible]
            if d.name in arch:
                found += [Arch({**arch, d.name: o}) for o in legal if o != arch[d.name]]
                continue
            limit = next(k for k in self.limits if d.name in k.among)
            for out in (name for name in limit.among if name in arch):
                rest = {k: v for k, v in arch.items() if k != out}
                found += [Arch({**rest, d.name: o}) for o in legal]
        return tuple(found)

    def choice(self, arch: Arch) -> tuple[int | None, ...]:
        """Return the column of each decision, ``None`` where it is absent."""
        return tuple(d.options.index(arch[d.name]) if d.name in arch else None for d in self.decisions)

    def pack(self, arch: Arch) -> str:
        """Return a character per decision: its column, counted 0 to 9 and a to z, or ``-`` where it is absent."""
        return "".join("-" if c is None else DIGITS[c] for c in self.choice(arch))

    def unpack(self, text: str) -> Arch:
        """Return the architecture of a packed text; the inverse of ``pack``."""
        pairs = zip(self.decisions, text, strict=True)
        return Arch({d.name: d.options[DIGITS.index(c)] for d, c in pairs if c != "-"})

    def encode(self, arch: Arch) -> Tensor:
        """Return [D, O]: a one in each row of a decision that is present."""
        self.check(arch)
        return self.one_hot(arch).weight

    def one_hot(self, arch: Arch, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Mix:
        """Return the mix that runs ``arch`` alone."""
        return one_hot(self.choice(arch), self.columns, dtype=dtype, device=device)

    def decode(self, scores: Tensor) -> Arch:
        """Read an architecture off scores [D, O]: in each row the best eligible option; of limited decisions those with
        the best option.

        Ties go to the lower column and to the earlier decision. For the DARTS space this is the rule of DARTS (arXiv
        1806.09055), "the two strongest edges into each node, by their strongest operation that is not none"; for
        NAS-Bench-201 the argmax.
        """
        if tuple(scores.shape) != self.shape:
            raise ValueError(
                f"scores are of shape {tuple(scores.shape)}; "
                f"this space has {self.shape[0]} decisions and {self.shape[1]} columns"
            )
        if not torch.isfinite(scores[self.eligible.to(scores.device)]).all():
            raise ValueError("scores are not finite")
        table = torch.where(self.eligible, scores.detach().cpu().double(), -math.inf).tolist()
        best = [max(range(self.columns), key=row.__getitem__) for row in table]
        absent: set[str] = set()
        for limit in self.limits:
            order = sorted(limit.among, key=lambda name: -table[self.rows[name]][best[self.rows[name]]])
            absent |= set(order[limit.count :])
        return Arch({d.name: d.options[best[i]] for i, d in enumerate(self.decisions) if d.name not in absent})

    def network(self, arch: Arch) -> nn.Module:
        """Return the stand-alone network of ``arch``: only kept edges and chosen options, freshly initialised."""
        self.check(arch)
        chosen = Chosen(arch)
        network = self.build(chosen)
        network.__dict__["drop_path"] = chosen.drop  # no child of the network: a Sequential would run it
        return network

    def cost_table(self, unit: cost.Unit) -> tuple[Tensor, int]:
        """Return ([D, O] float64, constant): the cost of a network is the constant plus the entries of its options.

        Units and conventions: :mod:`gapless.core.cost`.
        """
        table, constant = _cost_table(self, unit)
        return table.clone(), constant

    def replace(self, **fields: Any) -> Self:
        """Return the space with other fields; an unknown field is an error in the user's words."""
        check_names(type(self), fields, "space")
        return replace(self, **fields)


@remembered
def _cost_table(space: Space, unit: cost.Unit) -> tuple[Tensor, int]:
    bill = cost.Bill(unit, {d.name: d.options for d in space.decisions})
    with cost.Undrawn():
        network = space.build(bill)
    network.to("meta").eval()
    cost.shape_of(network, space.image_shape)
    bill.open = False
    constant = cost.cost(network, unit, space.image_shape)
    table = torch.zeros(space.shape, dtype=torch.float64)
    for (name, option), amount in bill.table.items():
        row = space.rows[name]
        table[row, space.decisions[row].options.index(option)] = amount
    return table, constant


def _content(path: Path) -> str:
    try:
        text = files.read_text(path, "The architecture").strip()
        return str(json.loads(text)["arch"]) if path.suffix == ".json" else text
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} holds no architecture: neither a text in the field's notation nor JSON with a key 'arch'."
        ) from None
