"""Commands in forked processes, in which the n-th write goes wrong in a chosen way."""

import contextlib
import errno
import io
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import in_turn
import torch
import torch._dynamo  # the optimisers of PyTorch import it
from killing import FILES, progress

import gapless.commands.compare
import gapless.commands.resume
import gapless.commands.retrain
import gapless.commands.search
import gapless.reports.draw
import gapless.studies.diagnose
import gapless.studies.export
import gapless.studies.gap
import gapless.studies.report
import gapless.studies.show  # noqa: F401
from gapless.commands import app
from gapless.core import files, interrupt
from gapless.studies.jobs import Here

MOMENTS = ("before", "created", "half", "written", "after")
"""Where inside a write: before it, with an empty draft, a half one, a whole one, and with the file in its place."""
SEARCH = (
    "search", "--space", "nasbench201", "--space.width", "4", "--space.cells", "1", "--method", "dropnas", "--epochs", "2",
    "--train.batch", "16", "--data", "digits", "--data.train_images", "40", "--data.test_images", "20", "--threads", "1",
    "--execution", "reference",
)  # fmt: skip


@dataclass
class Fault:
    """What goes wrong at the n-th write, from 0: the process is killed or interrupted, or there is no room."""

    nth: int
    moment: str = "before"
    what: str = "kill"  # or "interrupt", "terminate", "room"

    def strike(self):
        if self.what == "room":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(
            os.getpid(),
            {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[self.what],
        )


class Writes:
    """Stands in for the two functions that write files, counts their calls, and strikes in one of them."""

    def __init__(self, fault):
        self.fault, self.count, self.write, self.append = fault, 0, files.write, files.append

    def here(self, moment):
        return self.fault is not None and (self.count, moment) == (self.fault.nth, self.fault.moment)

    def writing(self, path, content):
        at, replace, fdopen = self, os.replace, os.fdopen

        class Halved(io.FileIO):
            def write(self, data):
                if at.here("created"):
                    at.fault.strike()
                if at.here("half"):
                    super().write(bytes(data)[: len(bytes(data)) // 2])
                    at.fault.strike()
                    raise OSError(errno.EIO, "half written")
                return super().write(data)

        def put(one, other):
            if at.here("written"):
                at.fault.strike()
            replace(one, other)

        if self.here("before"):
            self.fault.strike()
        files.os = _Os(os, replace=put, fdopen=lambda handle, mode: Halved(handle, "wb") if mode == "wb" else fdopen(handle, mode))  # fmt: skip
        try:
            self.write(path, content)
        finally:
            files.os = os
        if self.here("after"):
            self.fault.strike()
        self.count += 1

    def appending(self, path, content):
        if self.here("before") or self.here("created"):
            self.fault.strike()
        if self.here("half"):
            self.append(path, content[: len(content) // 2])
            self.fault.strike()
        self.append(path, content)
        if self.here("written") or self.here("after"):
            self.fault.strike()
        self.count += 1


class _Os:
    def __init__(self, module, **instead):
        self._module, self._instead = module, instead

    def __getattr__(self, name):
        return self._instead.get(name) or getattr(self._module, name)


@dataclass
class Came:
    """How a command ended: its status (negative: the signal that killed it), and what it printed."""

    status: int
    out: str
    err: str
    writes: int

    def well(self):
        """Assert that it ended in order: done, refused or interrupted with a sentence, or killed by us."""
        assert self.status in (0, 2, 130, 143, -signal.SIGKILL), (self.status, self.err[-3000:])
        assert "Traceback" not in self.err and "Error:" not in self.err, self.err[-3000:]
        assert len(self.err.strip().splitlines()) <= 3, self.err[-3000:]
        return self


def command(*words, where, fault=None, seconds=120):
    """Run a command in a fork of this process, in the folder ``where``."""
    sys.stdout.flush()
    sys.stderr.flush()
    place = Path(where) / f".came-{os.getpid()}-{time.monotonic_ns()}"
    child = os.fork()
    if child == 0:
        _child([str(word) for word in words], where, fault, place)
    end = time.monotonic() + seconds
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"{words} hangs: nothing for {seconds} s")
        time.sleep(0.01)
    status = os.waitstatus_to_exitcode(done[1])
    parts = {}
    for name in ("out", "err", "writes"):
        file = place.with_name(f"{place.name}.{name}")
        parts[name] = file.read_text(errors="replace") if file.exists() else ""
        file.unlink(missing_ok=True)
    return Came(status, parts["out"], parts["err"], int(parts["writes"] or 0))


def _child(words, where, fault, place):
    status = 99
    try:
        os.setsid()
        os.chdir(where)
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(place.with_name(f"{place.name}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
        for number in interrupt.SIGNALS:
            signal.signal(number, interrupt.leave)
        writes = Writes(fault)
        files.write, files.append = writes.writing, writes.appending
        Here.run = in_turn.run  # so that what strikes strikes the jobs of a comparison, too
        torch.set_num_threads(1)
        status = app.run(words)
        place.with_name(f"{place.name}.writes").write_text(str(writes.count))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def outcome(run):
    """Return everything that an uninterrupted run and a resumed one must share, bit for bit, and what was left lying."""
    return {
        **progress(run),
        "leavings": sorted(p.name for p in run.iterdir() if p.name.endswith(".tmp")),
        **{name: (run / name).read_bytes() for name in FILES if (run / name).exists()},
    }
