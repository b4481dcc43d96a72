"""Independent jobs: each in a process of its own on this machine, or as a task of a Ray cluster.

A job that fails, or is killed, is told with its error and its log, and the others go on. Every job has a fresh process,
so that its peak memory is its own. Where this process ends, for whatever reason, its jobs are asked to stop (SIGTERM).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gapless.core import files, interrupt
from gapless.core.catalogue import trusting
from gapless.core.errors import Stopped, UserError
from gapless.core.settings import Processes, Threads, convert
from gapless.core.text import shown
from gapless.runs.log import FAILED, last_failure

State = Literal["ended", "failed", "stopped"]
CHILD = "from gapless.studies.jobs import child; child()"
PAUSE = 0.05
"""Seconds between two looks at the processes."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """Something to be done elsewhere: ``work(**given)``.

    Parameters
    ----------
    name
        For people.
    work, given
        A function of an importable module, and its arguments; both are pickled.
    log
        File to which is added what it prints.
    """

    name: str
    work: Callable[..., object]
    given: Mapping[str, Any]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """What a job came to.

    Attributes
    ----------
    state
        ``ended``, ``failed``, or ``stopped`` because that was asked.
    error
        The last line of what went wrong.
    seconds
        Wall time.
    """

    state: State
    error: str = ""
    seconds: float = 0.0


OnJob = Callable[[Job, Outcome | None], None]
"""Called with None where a job begins, and with what it came to where it is over."""


@dataclass(frozen=True)
class Here:
    """Local processes, so many at once, each with so many threads."""

    at_once: Processes = 1
    threads: Threads = 1

    def __post_init__(self) -> None:
        convert(self.at_once, Processes, "jobs")
        convert(self.threads, Threads, "threads")

    def run(self, jobs: Sequence[Job], told: OnJob) -> dict[str, Outcome]:
        """Run jobs and return name -> what each came to.

        Raises
        ------
        KeyboardInterrupt
            Where that is asked (Ctrl-C, SIGTERM), when all jobs have saved and stopped; a second time ends them at
            once.
        """
        waiting, running, came = deque(jobs), list[_Running](), dict[str, Outcome]()
        free = list(range(self.at_once))
        with _terminated():
            try:
                while waiting or running:
                    while waiting and free:
                        running.append(_Running.begin(waiting.popleft(), free.pop(0), self.threads))
                        told(running[-1].job, None)
                    for one in [r for r in running if r.process.poll() is not None]:
                        running.remove(one)
                        free = sorted([*free, one.slot])
                        came[one.job.name] = one.over()
                        told(one.job, came[one.job.name])
                    time.sleep(PAUSE)
            except KeyboardInterrupt:
                _stop(running)
                raise
            finally:
                for one in running:
                    one.close()
        return came


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, job: Job, slot: int, threads: int) -> _Running:
        _add(job.log, "\n")  # an earlier try's last line is the last no more
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), **_gpu(slot)}
        with os.fdopen(files.opened_to_append(job.log), "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-c", CHILD],  # -P: nothing is imported from the working folder
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us alone: a second signal would end a job unsaved
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; that will be told
            process.stdin.write(pickle.dumps((importable(), job.work, dict(job.given))))
            process.stdin.flush()  # and left open: where it closes, we are gone
        return cls(job, process, slot)

    def over(self) -> Outcome:
        self.close()
        code, seconds = self.process.returncode, time.monotonic() - self.begun
        if code == 0:
            return Outcome("ended", seconds=seconds)
        error = last_failure(self.job.log)
        if code == STOPPED:
            return Outcome("stopped", error, seconds)
        if not error:
            how = f"killed by signal {-code} ({_named(-code)})" if code < 0 else f"exit status {code}"
            said = self.job.log.read_text(encoding="utf-8", errors="replace").split("\n")
            error = f"{how}; the log ends: {next((line for line in reversed(said) if line.strip()), 'nothing')}"
            if code == -signal.SIGKILL:
                error = f"{how}, as a system out of memory does."
            _add(self.job.log, f"\n{FAILED}{error}\n")
        return Outcome("failed", error, seconds)

    def close(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def _add(log: Path, text: str) -> None:
    """Add to a log, whose folder is made where there is none."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        files.append(log, text.encode(errors="replace"))
    except OSError as error:
        raise UserError(f"The log {shown(log)} cannot be written: {error.strerror}.") from None


def importable() -> list[str]:
    """Return the path of imports without the working folder, in which a stranger's ``random.py`` may lie."""
    here = os.path.realpath(os.getcwd())
    return [entry for entry in sys.path if entry not in ("", ".") and os.path.realpath(entry) != here]


STOPPED, WRONG = 130, 1
"""Exit status of a job that was asked to stop, and of one that failed."""


def _named(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else "unknown"


def _gpu(slot: int) -> dict[str, str]:
    """Return what gives jobs that run at once different GPUs, where there are several and nobody chose."""
    import torch

    count = torch.cuda.device_count()
    return {"CUDA_VISIBLE_DEVICES": str(slot % count)} if count > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ else {}


def _stop(running: Sequence[_Running]) -> None:
    """Ask all to save and stop, and wait; asked once more, end them."""
    try:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    except KeyboardInterrupt:
        for one in running:
            one.process.kill()
        for one in running:
            one.process.wait()


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM be what Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    interrupt.ask(0)
    before = signal.signal(signal.SIGTERM, interrupt.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def perform(work: Callable[..., object], given: Mapping[str, Any]) -> tuple[int, str]:
    """Do a job's work; return its exit status and, where it failed, the error in one line, which is printed last."""
    print(f"Begun {time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}", flush=True)
    try:
        with trusting():  # what the job names was permitted where it was given
            work(**given)
    except (Stopped, KeyboardInterrupt) as stopped:
        print(str(stopped) or "Interrupted.", flush=True)
        return STOPPED, ""
    except UserError as error:
        return WRONG, _fail(str(error))
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        return WRONG, _fail(f"{type(error).__name__}: {error}".removesuffix(": "))
    return 0, ""


def _fail(error: str) -> str:
    error = " ".join(error.split())
    print(f"{FAILED}{error}", flush=True)
    return error


def child() -> None:
    """Do the job that stands on standard input, and exit; stop where whoever gave it is gone."""
    sys.path, work, given = pickle.load(sys.stdin.buffer)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(perform(work, given)[0])


@dataclass(frozen=True)
class OnRay:
    """Tasks of a Ray cluster, each with so many CPUs and GPUs (a fraction shares one).

    ``address`` is that of a cluster (``HOST:PORT``, ``auto`` for the one of this machine, ``ray://HOST:PORT``), or
    ``local`` to start one here and stop it behind the jobs. Every node must see the same files under the same paths.
    """

    address: str
    cpus: int = 1
    gpus: float = 0.0

    def run(self, jobs: Sequence[Job], told: OnJob) -> dict[str, Outcome]:
        """Run jobs and return name -> what each came to; see :meth:`Here.run`.

        What the cluster itself loses (a node, a worker) it begins again, and a run then goes on from its checkpoint.

        Raises
        ------
        UserError
            Where Ray is not installed, or there is no cluster.
        """
        ray = self._connected()
        try:
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_calls": 1}  # one process, one job
            task = ray.remote(**options)(_task)
            waiting, came = {task.remote(job.work, dict(job.given), job.log): job for job in jobs}, {}
            begun = time.monotonic()
            with _terminated():
                try:
                    while waiting:
                        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
                        for reference in ready:
                            job = waiting.pop(reference)
                            came[job.name] = self._came(ray, reference, job, time.monotonic() - begun)
                            told(job, came[job.name])
                except KeyboardInterrupt:
                    self._stop(ray, list(waiting))
                    raise
            return came
        finally:
            ray.shutdown()

    def _connected(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise UserError("`ray` needs the package ray: pip install 'gapless[ray]'") from None
        try:
            more: dict[str, Any] = {"include_dashboard": False} if self.address == "local" else {}
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, **more)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
            raise UserError(
                f"There is no Ray cluster at {self.address} that lets this process in: {line.strip().rstrip('.')}. "
                "Start one with `ray start --head` and give its address, or give `ray` as local, which starts one on "
                "this machine. "
                "A cluster that asks for a token wants RAY_AUTH_MODE=token and its token in the environment, too."
            ) from None
        return ray

    def _came(self, ray: Any, reference: Any, job: Job, seconds: float) -> Outcome:
        try:
            status, error, seconds = ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            return Outcome("stopped", seconds=seconds)
        except ray.exceptions.RayError as lost:
            error = " ".join(str(lost).split())
            with contextlib.suppress(UserError):
                _add(job.log, f"\n{FAILED}{error}\n")
            return Outcome("failed", error, seconds)
        return Outcome("ended" if status == 0 else "stopped" if status == STOPPED else "failed", error, seconds)

    def _stop(self, ray: Any, references: list[Any]) -> None:
        """Ask all to save and stop, and wait; asked once more, end them."""
        try:
            for reference in references:
                ray.cancel(reference, force=False)
            ray.wait(references, num_returns=len(references))
        except KeyboardInterrupt:
            for reference in references:
                ray.cancel(reference, force=True)


def _task(work: Callable[..., object], given: Mapping[str, Any], log: Path) -> tuple[int, str, float]:
    """Do a job in a worker; return (status, error, seconds)."""
    begun = time.monotonic()
    _add(log, "")
    with (
        os.fdopen(files.opened_to_append(log), "a", encoding="utf-8", errors="replace", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        return *perform(work, given), time.monotonic() - begun
