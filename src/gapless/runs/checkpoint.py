"""Checkpoints of a run: everything that it needs to go on, written at once, and read without executing anything."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gapless.core import files
from gapless.core.errors import Occupied, Stopped, UserError
from gapless.core.text import shown
from gapless.runs import manifest
from gapless.runs.run import FILES, Run
from gapless.runs.schema import Damaged

NAME = "checkpoint.pt"
FORMAT = 2
PATIENCE = 60.0
"""Seconds in which a process that was left alone should have saved its run, a step and a checkpoint."""
KEYS = {"format", "gapless", "recipe", "images", "state", "trace"}


def save(run: Run, state: Mapping[str, Any], *, images: str, trace: Sequence[str] = ()) -> None:
    """Write the state of a run: to a temporary name, synced, renamed, so that a whole checkpoint is always there.

    Parameters
    ----------
    run
        The folder.
    state
        Tensors and plain types.
    images
        Fingerprint of the data, or of what gives the scores.
    trace
        The lines of the trace until here: a trace that was damaged is restored from them.

    Raises
    ------
    UserError
        Where the folder cannot be written or the disk is full; the checkpoint before is untouched.
    """
    whole = {
        "format": FORMAT,
        "gapless": version("gapless"),
        "recipe": _digest(run),
        "images": images,
        "state": dict(state),
        "trace": list(trace),
    }
    file = io.BytesIO()
    torch.save(whole, file)
    run.write_bytes(NAME, file.getbuffer())


def load(run: Run, *, images: str) -> tuple[dict[str, Any], list[str]] | None:
    """Return the state of the last checkpoint and the lines of the trace until then, or None where there is none yet.

    Only tensors and plain types are read (``weights_only``): a checkpoint from a stranger can execute nothing.

    Raises
    ------
    UserError
        Where the checkpoint is damaged, is none, belongs to another run, version or data.
    """
    if not os.path.lexists(run.path / NAME):
        return None
    whole = _read(run)
    if whole["images"] != images:
        raise UserError(
            f"The images are not those that the run {shown(run.path)} began with, or what gives its scores has "
            "changed. Restore it, or begin a new run."
        )
    return whole["state"], [str(line) for line in whole["trace"]]


def restored(run: Run) -> bool:
    """Write the trace of a finished run again, from its checkpoint, where it was changed; return whether it was.

    Raises
    ------
    UserError
        Where the checkpoint does not hold it: nothing is changed.
    """
    try:
        run.checked("trace.jsonl")
    except Damaged:
        if not os.path.lexists(run.path / NAME):
            raise
        lines = [str(line) for line in _read(run)["trace"]]
        content = "".join(f"{line}\n" for line in lines).encode()
        if hashlib.sha256(content).hexdigest() != manifest.read(run.path)["trace.jsonl"]["sha256"]:
            raise
        with held(run):
            run.restore(lines)
        return True
    return False


def _read(run: Run) -> dict[str, Any]:
    """Return the content of the checkpoint of a run, compared with the run."""
    path = run.path / NAME
    files.checked(path, "The checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, KeyError):
        raise UserError(
            f"{path} is damaged, or is no checkpoint of Gapless: it was not loaded. The trace and all other files are "
            "as they were. Put a whole copy in its place; or remove it, and the run begins anew."
        ) from None
    if not isinstance(whole, dict) or not whole.keys() >= KEYS or not isinstance(whole["state"], dict):
        raise UserError(f"{path} is no checkpoint of Gapless. Nothing was changed.")
    here = version("gapless")
    if whole["format"] != FORMAT or whole["gapless"] != here:
        raise UserError(
            f"{path} was written by Gapless {whole['gapless']}; this is {here}, which could go on with other numbers. "
            f"Install that version (pip install gapless=={whole['gapless']}) to go on, or begin a new run."
        )
    if whole["recipe"] != _digest(run):
        raise UserError(
            f"{path} belongs to another run, or {run.path / 'recipe.toml'} was changed since. A run goes on as it "
            "began: restore the recipe, or begin a new run with the changed one."
        )
    return whole


def _digest(run: Run) -> str:
    return hashlib.sha256(files.read_bytes(run.path / "recipe.toml", "The recipe")).hexdigest()


@contextmanager
def held(run: Run, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the run, so that no other process writes into it; a process that dies lets go.

    Where another one holds it, that is waited for so many seconds.

    Raises
    ------
    UserError
        Where another process still holds it.
    """
    lock = FileLock(run.path / ".lock", timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        raise Occupied(f"Another process is running {shown(run.path)}.") from None
    except OSError as error:
        raise UserError(f"{shown(run.path)} cannot be written: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def taken(out: str | Path) -> Iterator[Run]:
    """Make the folder of a new run and hold it: of several processes that want one folder, one gets it.

    Where what follows fails before there is anything to go on with, the folder is left as it was.

    Raises
    ------
    UserError
        Where the folder is not free, cannot be written, or another process holds it.
    """
    missing = next((p for p in reversed([files.place(out), *files.place(out).parents]) if not os.path.lexists(p)), None)
    run = Run.create(out)
    with held(run):
        Run.check_free(run.path)
        run.tidy()
        try:
            yield run
        except BaseException as error:
            if not isinstance(error, Stopped) and not run.saved:
                _leave(run, missing)
            raise


def _leave(run: Run, missing: Path | None) -> None:
    """Remove what a run has written before there was anything to go on with, and the folders from ``missing`` on that
    were made for it. What somebody else has put there stays. The lock goes, too, while it is held: whoever waits for it
    finds it gone and takes a new one."""
    with suppress(OSError):
        for path in (*(run.path / name for name in FILES), *files.drafts(run.path), run.path / ".lock"):
            files.remove(path)
        for path in [run.path, *run.path.parents] if missing is not None else ():
            path.rmdir()
            if path == missing:
                break


@dataclass
class Keeper:
    """Saves a run at the ends of its epochs and every few minutes in between, and stops it where that is asked.

    Called after each step.

    Parameters
    ----------
    run
        The folder; None saves nothing.
    state
        Tells the state.
    images
        Fingerprint of the data.
    minutes
        Between two checkpoints inside an epoch; 0 saves at the ends of epochs only.
    """

    run: Run | None
    state: Callable[[], Mapping[str, Any]]
    images: str
    minutes: float
    trace: list[str] = field(default_factory=list)
    """The lines of the trace so far."""
    stop: bool = False
    """Set from outside (a signal): the run ends after this step."""
    saved: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        """Save where it is time; raise :class:`Stopped` where a stop is asked for, with everything saved."""
        due = self.minutes > 0 and time.monotonic() - self.saved >= 60 * self.minutes
        if due or self.stop:
            self.save()
        if self.stop:
            raise Stopped(None if self.run is None else str(self.run.path))

    def save(self) -> None:
        """Save now."""
        if self.run is not None:
            save(self.run, self.state(), images=self.images, trace=self.trace)
        self.saved = time.monotonic()
