"""Draw what a run found, or a given architecture."""

from __future__ import annotations

from pathlib import Path

from gapless.report import show as picture
from gapless.studies.evaluate import locate


def show(given: str | Path, *, space: str | None = None, out: str | Path | None = None) -> Path:
    """Draw the cells and return the file.

    Parameters
    ----------
    given, space
        A run folder or an architecture in any notation; see :func:`gapless.studies.evaluate.locate`.
    out
        A file ending in .svg, .png or .pdf; by default ``cell.svg`` in the run folder, or here.
    """
    if out is not None:
        picture.check_suffix(Path(out))
    arch, own, run = locate(given, space)
    return picture.show(arch, own, Path(out) if out else (run.path if run else Path()) / "cell.svg")
