"""The trace of a run as TensorBoard event files. TensorBoard is an extra: it is imported when a board is opened."""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapless.core import files
from gapless.core.errors import UserError
from gapless.core.space import Space
from gapless.reports.show import read
from gapless.runs.run import Run

FOLDER = "tensorboard"
"""Of the event files, in the run folder."""
TAGS = {
    "train_loss": "loss/training",
    "arch_loss": "loss/architecture",
    "valid_loss": "loss/held-out",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/training",
    "valid_accuracy": "accuracy/held-out",
    "test_accuracy": "accuracy/test",
    "score": "score/evaluated",
    "best": "score/best so far",
    "lr": "learning rate",
    "images_per_second": "images per second",
}
"""Field of a record -> tag. Losses in nats, accuracies in percent."""


class Board:
    """Event files in a folder.

    The step of a value is its epoch, counted from 1; its time is that of opening plus the ``seconds`` of the epochs
    until then, so that the relative time axis shows the time of training, also where a board is rebuilt.

    Parameters
    ----------
    folder
        Made where there is none; a file is added to those that are in it.

    Raises
    ------
    UserError
        Where TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("TensorBoard is not installed. Try: pip install 'gapless[tensorboard]'") from None
        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}.") from None
        self._time = time.time()

    def add(self, record: Mapping[str, Any], space: Space) -> None:
        """Write a line of a trace: losses, accuracies, learning rate, speed; of a search ``scores/DECISION/OPTION``.

        What is None or not finite is left out.
        """
        self._time += record.get("seconds") or 0.0
        values = {tag: record.get(name) for name, tag in TAGS.items()}
        for decision, row in zip(space.decisions, record.get("scores", ()), strict=False):
            values |= {f"scores/{decision.name}/{o}": v for o, v in zip(decision.options, row, strict=False)}
        for tag, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(tag, value, record["epoch"] + 1, walltime=self._time)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()


def rebuild(run: Run) -> Path:
    """Write the whole trace of a run anew, in place of the event files that are there, and return the folder.

    Raises
    ------
    UserError
        Where TensorBoard is not installed, the folder cannot be written, or the run has no epoch yet.
    """
    _, space, _ = read(run)
    folder, draft = run.path / FOLDER, run.path / f".{FOLDER}.{secrets.token_hex(8)}{files.DRAFT}"
    try:
        draft.mkdir()
        board = Board(draft)
        for record in run.trace():
            board.add(record, space)
        board.close()
        files.folder(folder)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        for new in draft.iterdir():
            new.replace(folder / new.name)
        draft.rmdir()
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
