"""What the pages of a run and of a comparison have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapless.core.decision import Arch
from gapless.core.space import Space
from gapless.reports.html import Html, Section, join, paragraph, tag, text
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run

MACHINES = "Machine and versions"
MACHINE = {
    "processor": "Processor",
    "instructions": "Instructions",
    "cores": "Cores",
    "threads": "CPU threads",
    "gpu": "GPU",
    "system": "System",
    "gapless": "Gapless",
    "torch": "PyTorch",
    "python": "Python",
}
"""What is told of a machine, in this order: field of ``machine.json`` -> its name."""


@dataclass(frozen=True, eq=False)
class Page:
    """A page.

    Attributes
    ----------
    html
        The file's content.
    sections
        Names of the parts, in their order.
    notes
        What is missing or provisional, in a sentence each.
    arch, space
        The architecture that the page of a run shows, and its space; None of a comparison, whose runs have their own.
    """

    html: str
    sections: tuple[str, ...]
    notes: tuple[str, ...]
    arch: Arch | None = None
    space: Space | None = None


def trains_supernet(recipe: Recipe) -> bool:
    """Return whether the run of a resolved recipe trains a supernet, so that there is a gap to measure."""
    return bool(recipe.train)


def commands(of: str, lines: Sequence[str]) -> Section:
    """Tell the commands that do it again, and what looks closer."""
    said = paragraph(
        f"To be typed in the folder that holds the {of}. A processor that rounds otherwise can come to another answer."
    )
    return Section("repeat", "Commands", join([said, tag("pre", text("\n".join(lines)))]))


def folded(summary: str, file: Path) -> Html:
    """Return the content of a file, folded."""
    return tag("details", tag("summary", text(summary)), tag("pre", text(file.read_text(encoding="utf-8"))))


def machine_facts(run: Run) -> tuple[tuple[str, Html], ...]:
    """Return where a run began, by which versions."""
    found = run.machine()
    return tuple((name, text(found[key])) for key, name in MACHINE.items() if found.get(key) is not None)


def lasted(seconds: float) -> str:
    """Return a time for a reader.

    >>> lasted(0.21), lasted(90), lasted(8000)
    ('0.2 s', '90 s', '2 h 13 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
