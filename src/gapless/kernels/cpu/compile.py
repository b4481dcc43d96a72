"""Compiles the CPU kernels before they are needed: announced, on all cores, once per machine.

Numba would compile each function when it is first called: on one core, and in silence. Here every
function is a unit of its own (:mod:`gapless.kernels.cpu.declare`): child processes compile the
missing ones into Numba's cache on disk, and this process loads them from there. Other processes
that need the same functions wait for them. Where the cache cannot be written, this process compiles
the functions itself, each time.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread, get_ident
from typing import Any

from filelock import Timeout
from numba.core import event

from gapless.kernels.announce import Compilation, report, timing
from gapless.kernels.cpu import walks
from gapless.kernels.cpu.declare import LOOPS, Host, Loop, cache_folder, cache_lock
from gapless.kernels.cpu.threads import Walk
from gapless.kernels.cpu.vectors import Vector

# ---------------------------------------------------------------------- what is compiled

SECONDS = {
    "depthwise_weight_grad": 4.8, "conv": 3.9, "pointwise": 3.9, "depthwise": 2.5, "backward": 2.5,
    "winograd_filter": 2.2, "conv_weight_grad.doubles": 2.0, "conv_weight_grad": 1.7, "winograd_filter_backward": 1.6,
    "pack_weights": 1.3, "norm_forward": 1.3, "forward": 1.1, "state_grad": 1.1, "winograd_backward": 1.0,
}  # fmt: skip
"""Seconds that the longer functions took to compile on one core of a Xeon of 2.1 GHz; the others
take about 0.3."""
START = 5.0
"""Seconds until a child process has imported Numba and has compiled something."""


@dataclass(frozen=True)
class Unit:
    """One function to be compiled for some vectors. Units whose names begin alike up to a full stop
    are types of one function of Numba."""

    name: str
    vector: Vector
    compile: Callable[[], object]

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return SECONDS.get(self.name, 0.3)

    @property
    def request(self) -> str:
        """What a child process is sent."""
        return json.dumps([self.name, self.vector.dtype.name, self.vector.count, self.vector.wide])

    def cached(self) -> bool:
        """Load the function, and return whether it and its callees were in the cache."""
        with event.install_listener("numba:compile", _Refuse()):
            try:
                self.compile()
            except _MissingError:
                return False
        return True


def units(vector: Vector) -> Iterator[Unit]:
    """Return all functions for some vectors; callees come before their callers."""
    v = vector._numba_type_
    for each in LOOPS.values():
        for doubles in each.variants(v):
            yield Unit(each.name + ".doubles" * doubles, vector, lambda e=each, d=doubles: e.compile(v, d))  # type: ignore[misc]
    for each in vars(walks).values():
        if isinstance(each, Host):
            yield Unit(each.name, vector, lambda e=each: e.compile(v))  # type: ignore[misc]
        elif isinstance(each, Walk):
            yield Unit(each.declared.name, vector, lambda e=each: e.declared.compile(v))  # type: ignore[misc]
            yield Unit(f"entry.{each.declared.name}", vector, lambda e=each: e.load(v))  # type: ignore[misc]


class _MissingError(Exception):
    """A function is not in the cache."""


class _Refuse(event.Listener):
    """Stops Numba where it would begin to compile, in the thread that created it."""

    def __init__(self) -> None:
        self.thread = get_ident()

    def on_start(self, event: Any) -> None:
        if get_ident() == self.thread:
            raise _MissingError

    def on_end(self, event: Any) -> None:
        pass


# ---------------------------------------------------------------------- compilation

READY: set[Vector] = set()
"""Vectors for which everything is loaded."""
UNWRITABLE = (
    "Numba's cache cannot be written, so this is repeated in every process; set NUMBA_CACHE_DIR to a writable folder."
)


def prepare(vectors: Sequence[Vector]) -> None:
    """Load all functions for some vectors, and compile first what is not in the cache."""
    wanted = [unit for vector in dict.fromkeys(vectors) if vector not in READY for unit in units(vector)]
    missing = [unit for unit in wanted if not unit.cached()]
    if missing:
        with timing():
            _compile(missing)
    READY.update(vectors)


def _compile(missing: Sequence[Unit]) -> None:
    if cache_folder() is None:
        _compile_here(missing, "" if READY else UNWRITABLE)
        return
    lock = cache_lock()
    assert not isinstance(lock, nullcontext)
    count, waited = len(missing), Compilation(0, len(missing), _seconds(missing), "Another process is doing it.")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(waited)
        lock.acquire()
    try:
        missing = [unit for unit in missing if not unit.cached()]  # another process may have compiled some
        if not missing:
            report(replace(waited, done=count))
        elif cores() > 1 and sys.executable:
            _compile_in_processes(missing)
            missing = [unit for unit in missing if not unit.cached()]
            if missing:
                _compile_here(missing, "Child processes could not do it, so this process does.")
        else:
            _compile_here(missing)
    finally:
        lock.release()


def cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(missing: Sequence[Unit], processes: int = 1) -> float:
    seconds = sum(unit.seconds for unit in missing) / processes
    return seconds if processes == 1 else seconds + START


def _compile_here(missing: Sequence[Unit], note: str = "") -> None:
    seconds = _seconds(missing)
    report(Compilation(0, len(missing), seconds, note))
    for done, unit in enumerate(missing, 1):
        unit.compile()
        report(Compilation(done, len(missing), seconds, note))


def _compile_in_processes(missing: Sequence[Unit]) -> None:
    """Let as many child processes as there are cores compile into the cache. One process compiles
    all types of a function, because they share an index in the cache."""
    batches: dict[str, list[Unit]] = {}
    for unit in missing:
        batches.setdefault(unit.name.partition(".")[0], []).append(unit)
    processes = min(cores(), len(batches))
    seconds = _seconds(missing, processes)
    queue: SimpleQueue[list[Unit]] = SimpleQueue()
    for batch in sorted(batches.values(), key=lambda batch: -sum(unit.seconds for unit in batch)):
        queue.put(batch)
    ended: SimpleQueue[bool] = SimpleQueue()
    children = [_child() for _ in range(processes)]
    threads = [Thread(target=_feed, args=(child, queue, ended), daemon=True) for child in children]
    report(Compilation(0, len(missing), seconds))
    try:
        for thread in threads:
            thread.start()
        done = running = 0
        while running < processes:
            if ended.get():
                done += 1
                report(Compilation(done, len(missing), seconds))
            else:
                running += 1
    finally:
        for child in children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):  # what was not sent to a process that has died
                    pipe.close()  # type: ignore[union-attr]


def _child() -> subprocess.Popen[str]:
    """Start a process that compiles what it is sent. It is isolated (``-I``) and gets this
    process's path, so that it imports the same packages whatever the working folder or the
    environment."""
    path = [entry for entry in sys.path if entry]
    program = f"import sys; sys.path[:] = {path!r}; from gapless.kernels.cpu.compile import serve; serve()"
    return subprocess.Popen(
        [sys.executable, "-I", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _feed(child: subprocess.Popen[str], queue: SimpleQueue[list[Unit]], ended: SimpleQueue[bool]) -> None:
    """Send a child process one batch after the other; put True for each function that is compiled,
    at last False."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        while True:
            for unit in queue.get_nowait():
                print(unit.request, file=child.stdin, flush=True)
                if not child.stdout.readline():
                    raise BrokenPipeError
                ended.put(True)
    except (Empty, OSError):  # all are compiled, or the process has died
        pass
    ended.put(False)


def serve() -> None:
    """Compile what is requested on the standard input; runs in a child process, which calls nothing
    that it compiles."""
    gc.disable()  # the compiler makes millions of objects that live until the process ends
    Loop.stand_in = ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value or 0
    for line in sys.stdin:
        name, dtype, count, wide = json.loads(line)
        next(unit for unit in units(Vector(dtype, count, wide)) if unit.name == name).compile()
        print("done", flush=True)
