"""Draw the cells of an architecture."""

from __future__ import annotations

from pathlib import Path

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.space import Space
from gapless.report.draw import draw, save

SUFFIXES = (".svg", ".png", ".pdf")


def check_suffix(out: Path) -> None:
    """Raise a :class:`UserError` where no picture of that kind can be written."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"A picture is written as {', '.join(SUFFIXES)}; {str(out)!r} is none of them.")


def show(arch: Arch, space: Space, out: Path) -> Path:
    """Draw ``arch`` and return the file.

    Raises
    ------
    UserError
        For a suffix other than .svg, .png or .pdf, or a folder that cannot be written.
    """
    check_suffix(out)
    try:
        save(draw(space.pictures(arch)), out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None
    return out
