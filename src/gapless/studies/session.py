"""What every long run shares: its device, its threads, its folder, its checkpoints, and how it is interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch

from gapless.core.errors import UserError
from gapless.report.tensorboard import rebuild
from gapless.runs.checkpoint import Keeper, held, load
from gapless.runs.run import Run, machine

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FIXED = ("torch", "threads", "processor", "instructions", "gpu")
"""What can move the last bits of a number."""


class Record(Protocol):
    """What a loop tells of an epoch."""

    def line(self) -> dict[str, Any]:
        """Return plain JSON types."""
        ...


R_co = TypeVar("R_co", bound=Record, covariant=True)
R = TypeVar("R", bound=Record)


class Loop(Protocol[R_co]):
    """A search or a training: it runs epoch by epoch and can tell its whole state after each step."""

    epoch: int

    def run(self, after_step: Callable[[], None] | None = None) -> Iterator[R_co]:
        """Yield a record per epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        ...


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU where there is one.

    Raises
    ------
    UserError
        For an unknown device, or one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device {name!r} here. Legal: auto, cpu, and cuda where there is a GPU.") from None
    return device


def use_threads(count: int) -> None:
    """Set PyTorch's CPU threads; 0 leaves them."""
    if count > 0:
        torch.set_num_threads(count)


def begin(out: str | Path | None, recipe: str) -> Run | None:
    """Make the folder of a run and write its recipe and its machine; None for no folder."""
    if out is None:
        return None
    run = Run.create(out)
    run.write("recipe.toml", recipe)
    run.write_json("machine.json", machine())
    return run


def restore(loop: Loop[R], run: Run, images: str) -> str:
    """Bring a loop to where the run's last checkpoint stands, and its trace with it; return a notice, or "".

    Raises
    ------
    UserError
        Where the checkpoint cannot be used; nothing is changed then.
    """
    state = load(run, images=images)
    if state is not None:
        try:
            loop.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"The checkpoint of {run.path} does not fit its recipe: {error}") from None
    run.rewind(loop.epoch)
    if (run.path / "tensorboard").is_dir():
        rebuild(run)
    before, now = run.machine(), machine()
    changed = [
        f"{key} {before[key]} then, {now[key]} now" for key in FIXED if key in before and before[key] != now[key]
    ]
    return f"Begun elsewhere ({'; '.join(changed)}): the last bits may differ." if changed else ""


def go(
    loop: Loop[R],
    run: Run | None,
    *,
    images: str,
    minutes: float,
    told: Callable[[R], None] | None = None,
    pause: float = 0.0,
) -> Iterator[R]:
    """Run a loop to its end; yield each record when it is in the trace and the checkpoint behind it is written.

    Where records come quickly, ``pause`` is the least number of seconds between two of their checkpoints: what the
    trace tells beyond the last one is dropped and done again when the run goes on.

    An interrupt (Ctrl-C, SIGTERM) ends the run after the present step with :class:`Stopped`, everything saved; a second
    one ends it at once.
    """
    keeper = Keeper(run, loop.state_dict, images, minutes)
    with nullcontext() if run is None else held(run), stopping(keeper):
        for record in loop.run(keeper if run is not None else None):
            if run is not None:
                run.append(record.line())
                if time.monotonic() - keeper.saved >= pause:
                    keeper.save()
            if told is not None:
                told(record)
            yield record
        if pause:
            keeper.save()


@contextmanager
def stopping(keeper: Keeper) -> Iterator[None]:
    """Let the first interrupt ask the keeper to stop, where there is a folder to save to; the second is as ever."""
    if keeper.run is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        keeper.stop = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
