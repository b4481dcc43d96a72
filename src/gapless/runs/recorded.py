"""The space of a run as the run recorded it: what is needed to read and draw it without the code of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision, Keep
from gapless.core.errors import Untrusted
from gapless.core.picture import Picture
from gapless.core.space import Space


@dataclass(frozen=True, kw_only=True)
class RecordedSpace(Space):
    """A space from a file that is not run: it knows the answer of its run, and builds no network.

    Parameters
    ----------
    refusal
        Why the file is not run, which is said where a network is asked for.
    answer, notation
        The architecture that the run found, and how the space writes it.
    decided, kept
        The decisions, and how many of them are present.
    drawn
        What to draw of the answer.
    """

    python_only: ClassVar[str] = "the code of an outside file"
    refusal: str
    answer: Arch
    notation: str
    decided: tuple[Decision, ...]
    kept: tuple[Keep, ...]
    drawn: tuple[Picture, ...]

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions of the space."""
        return self.decided

    @property
    def limits(self) -> tuple[Keep, ...]:
        """How many of the decisions are present."""
        return self.kept

    def build(self, choose: Choose) -> nn.Module:
        """Raise :class:`Untrusted`: only the code of the space can."""
        raise Untrusted(self.refusal)

    def write(self, arch: Arch) -> str:
        """Return the notation of the answer; of other architectures that of Gapless."""
        return self.notation if arch == self.answer else str(arch)

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return what to draw of the answer; of other architectures a chain."""
        return self.drawn if arch == self.answer else super().pictures(arch)


def described(space: Space, arch: Arch) -> dict[str, Any]:
    """Return what ``arch.json`` records of a space, as plain JSON types: see :func:`recorded`."""
    return {
        "label": space.label or type(space).__name__,
        "decisions": [{"name": d.name, "options": list(d.options), "never": list(d.never)} for d in space.decisions],
        "kept": [{"among": list(keep.among), "count": keep.count} for keep in space.limits],
        "pictures": [
            {"title": p.title, "nodes": list(p.nodes), "edges": [list(edge) for edge in p.edges]}
            for p in space.pictures(arch)
        ],
    }


def recorded(content: Mapping[str, Any], refusal: str, measured: Sequence[str]) -> RecordedSpace:
    """Return the space that ``arch.json`` describes.

    Raises
    ------
    ValueError, TypeError
        Where the description makes no sense.
    """
    told = content["described"]
    space = RecordedSpace(
        **{name: content[name] for name in measured},
        refusal=refusal,
        answer=Arch.parse(content["arch"]),
        notation=content["notation"],
        decided=tuple(Decision(d["name"], tuple(d["options"]), never=tuple(d["never"])) for d in told["decisions"]),
        kept=tuple(Keep(tuple(keep["among"]), keep["count"]) for keep in told["kept"]),
        drawn=tuple(
            Picture(p["title"], tuple(p["nodes"]), tuple((a, b, label) for a, b, label in p["edges"]))
            for p in told["pictures"]
        ),
    )
    object.__setattr__(space, "label", told["label"])  # of a class elsewhere; here of the one space
    return space
