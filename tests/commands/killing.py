"""Runs of the real command that are killed with SIGKILL, and what must come of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import torch

from gapless.runs.checkpoint import NAME
from gapless.testing.methods import flat

MEASURED = ("images_per_second", "seconds", "peak_memory_mb")
FILES = ("weights.safetensors", "arch.json", "recipe.toml", "cell.svg")
"""Files of a finished run that are the same wherever it was interrupted."""


def start(*words, **given):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gapless.commands.entry", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **given
    )


def finish(*words):
    process = start(*words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def kill(process, run, chance, *, at="any"):
    """Kill a process at a random moment after its first checkpoint, or while it writes one; return whether it was
    still running."""
    ready = run / NAME
    while process.poll() is None and not ready.exists():
        time.sleep(0.001)
    pause = time.monotonic() + chance.uniform(0.0, 0.6)
    while process.poll() is None and (
        time.monotonic() < pause or (at == "write" and not any(run.glob(f".{NAME}.*.tmp")))
    ):
        time.sleep(0 if at == "write" else 0.001)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def progress(run):
    """Return trace and state of a run without what was measured; an uninterrupted and a resumed run share the rest."""
    trace = [json.loads(line) for line in (run / "trace.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in trace] == list(range(len(trace)))
    state = torch.load(run / NAME, weights_only=True)["state"]
    tensors = {name: v.tolist() if isinstance(v, torch.Tensor) else v for name, v in flat(state).items()}
    return {
        "trace": [{k: v for k, v in record.items() if k not in MEASURED} for record in trace],
        "state": {name: v for name, v in tensors.items() if "seconds" not in name},
    }


def outcome(run):
    """Return everything that an uninterrupted run and a resumed one must share, bit for bit."""
    return progress(run) | {name: (run / name).read_bytes() for name in FILES}


def killed_and_resumed(begin, run, *, seed, kills, at="any"):
    """Run ``begin`` with ``--out run``, kill it and resume it so many times, let it end; return how often it was
    killed."""
    chance, done = random.Random(seed), 0
    process = start(*begin, "--out", run)
    while kill(process, run, chance, at=at):
        done += 1
        if done == kills:
            finish("resume", run)
            break
        process = start("resume", run)
    assert process.returncode in (0, -signal.SIGKILL), process.communicate()[1]
    return done
