"""The log of a job: how its last line says that the job failed."""

from __future__ import annotations

from pathlib import Path

FAILED = "Failed: "
"""How the last line of a log begins where a run could not be brought to its end."""


def last_failure(log: Path) -> str:
    """Return the error on the last line of a log; "" where there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return lines[-1].removeprefix(FAILED) if lines and lines[-1].startswith(FAILED) else ""
