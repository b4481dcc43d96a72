"""The manifest of a finished run: size and SHA-256 of each of its files.

It is the last file that a run writes, and so the mark of its end. Whoever reads a file compares it first, once in a
process: a bit that flipped on a disk, or a number edited by hand, is noticed before anything is made of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from gapless.core import files
from gapless.core.errors import UserError
from gapless.core.text import printable, quoted, shown
from gapless.runs import schema

NAME = "manifest.json"
DEPENDS = {
    "recipe.toml": "every command that reads the run goes by it",
    "trace.jsonl": "the curves, the scores and the times of the run are read from it",
    "arch.json": "the answer of the run is read from it",
    "weights.safetensors": "export, gap, diagnose and trainings with inherited weights use it",
    "result.json": "the accuracy of the trained network is read from it",
    "judged.json": "what the method judged its candidates by is read from it",
    "latency.json": "the latencies of the answer are read from it",
    "machine.json": "where the run was computed is read from it",
    "checkpoint.pt": "`gapless resume` goes on from it",
    "gap.json": "the gap of the run is read from it",
    "diagnose.json": "the diagnosis of the run is read from it",
}
"""File of a run -> what depends on it. These files are listed; figures and pages are drawn from them."""


class Entry(TypedDict):
    """A file: its size in bytes and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


def present(folder: Path) -> bool:
    """Return whether the run in a folder has come to its end."""
    return files.is_file(folder / NAME)


def text_of(entries: Mapping[str, Entry]) -> str:
    """Return the content of a manifest."""
    return json.dumps(dict(sorted(entries.items())), indent=1) + "\n"


def entries_of(folder: Path, names: Iterable[str] = tuple(DEPENDS)) -> dict[str, Entry]:
    """Return the entries of the named files that are there."""
    return {name: entry_of(folder / name) for name in names if files.is_file(folder / name)}


def entry_of(path: Path) -> Entry:
    """Return size and SHA-256 of a file."""
    with files.opened(path) as file:
        digest, size = hashlib.sha256(), 0
        while part := file.read(2**20):
            digest.update(part)
            size += len(part)
        return {"size": size, "sha256": digest.hexdigest()}


def read(folder: Path) -> dict[str, Entry]:
    """Return the manifest of a run; empty where the run has none.

    Raises
    ------
    Damaged
        Where it is spoilt.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return {}
    repair = f"Remove it and type: gapless resume {quoted(folder)}"
    found: dict[str, Entry] = schema.read(path, dict[str, Entry], repair)
    if unknown := found.keys() - DEPENDS.keys():
        name = printable(min(unknown)[:80])
        raise schema.Damaged(f"{shown(path)} lists {name!r}, which is no file of a run. {repair}")
    return found


def check(folder: Path, name: str, repair: str) -> None:
    """Compare a file with the manifest of its run, once in a process; without a manifest nothing is compared.

    Parameters
    ----------
    folder
        Folder of the run.
    name
        Name of the file.
    repair
        What to do where it was changed, as a sentence.

    Raises
    ------
    Damaged
        Where the file is gone or is not as it was when the run ended.
    """
    listed = read(folder).get(name)
    if listed is None:
        return
    path = folder / name
    try:
        status = os.stat(path)
        now = _seen(path, status.st_ino, status.st_mtime_ns, status.st_size)
    except (OSError, UserError):
        raise schema.Damaged(f"{shown(path)} is gone or cannot be read; {DEPENDS[name]}. {repair}") from None
    if now != (listed["size"], listed["sha256"]):
        entry = json.dumps({"size": now[0], "sha256": now[1]})
        raise schema.Damaged(
            f"{shown(path)} was changed since it was written: its SHA-256 is {now[1][:12]}..., and was "
            f"{listed['sha256'][:12]}...; {DEPENDS[name]}. {repair} Where you changed it on purpose, say so in "
            f'{NAME}: "{name}": {entry}'
        )


@lru_cache(maxsize=4096)
def _seen(path: Path, inode: int, modified: int, size: int) -> tuple[int, str]:
    entry = entry_of(path)
    return entry["size"], entry["sha256"]
