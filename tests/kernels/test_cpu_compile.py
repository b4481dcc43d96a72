"""The compilation of the CPU kernels: announced, on all cores, once for all processes, and the same without a cache.

Real compilations happen in processes of their own with an empty cache, and only of the few short functions in ``FEW``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fans import mixed
from numba.core import event

import gapless
from gapless.kernels.announce import Compilation, compile_seconds, reporting, timing, to_stderr
from gapless.kernels.cpu import backend, walks
from gapless.kernels.cpu.compile import prepare, units
from gapless.kernels.cpu.declare import LOOPS
from gapless.kernels.cpu.vectors import Vector

V = Vector(np.float32, 4, False)
FEW = ("pad", "unpad_add", "relu_backward", "end_grad_sums", "grad_sums", "entry.end_grad_sums")
PROGRAM = f"""
import dataclasses, json, sys
import numpy as np
from gapless.kernels import announce
from gapless.kernels.cpu import compile, loops
from gapless.kernels.cpu.declare import cache_folder, from_python
from gapless.kernels.cpu.vectors import Vector

every = compile.units
compile.units = lambda vector: [unit for unit in every(vector) if unit.name in {FEW!r}]
compile.cores = lambda: 2
if "no children" in sys.argv:
    sys.executable = "/bin/false"
v, states = Vector(np.float32, 4, False), []
with announce.reporting(states.append):
    compile.prepare([v])
    compile.prepare([v, Vector(np.float64, 4, False)] if "two" in sys.argv else [v])
random = np.random.default_rng(0)
g, y, mean = (random.standard_normal(n, np.float32) for n in (28, 28, 4))
first, second = np.zeros(4), np.zeros(4)
from_python(loops.grad_sums)(g, 0, y, 0, 7, 4, mean, first, second, 0, v)
print(json.dumps([[dataclasses.asdict(s) for s in states], first.tolist(), second.tolist(), str(cache_folder())]))
"""


def start(cache: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    source = str(Path(gapless.__file__).parents[1])
    own = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | own)


def ended(process: subprocess.Popen[str]) -> tuple[list[Compilation], tuple[list[float], list[float]], str]:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    states, first, second, folder = json.loads(out.splitlines()[-1])
    return [Compilation(**state) for state in states], (first, second), folder


def sums() -> tuple[list[float], list[float]]:
    """What the program computes, in double precision."""
    random = np.random.default_rng(0)
    g, y, mean = (random.standard_normal(n, np.float32).astype(float) for n in (28, 28, 4))
    g, y = g.reshape(7, 4), y.reshape(7, 4)
    return g.sum(0).tolist(), (g * (y - mean)).sum(0).tolist()


def right(found: tuple[list[float], list[float]]) -> bool:
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(found, sums(), strict=True))


def test_processes_that_start_at_once_compile_each_function_once(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    states, found, folders = zip(*map(ended, processes), strict=True)
    assert sorted([state.done for state in each if not state.note] for each in states) == [[], [*range(len(FEW) + 1)]]
    assert all(right(each) for each in found)
    assert found[0] == found[1]
    assert all(str(tmp_path) in folder for folder in folders)
    waited = next(each for each in states if not any(state.done and not state.note for state in each))
    assert all("Another process" in state.text for state in waited)
    assert [state.done for state in waited] in ([0, len(FEW)], [])
    again, same, _ = ended(start(tmp_path))
    assert again == []
    assert same == found[0]


def test_without_child_processes_functions_are_compiled_all_the_same(tmp_path):
    states, found, _ = ended(start(tmp_path, "no children"))
    assert [state.done for state in states] == [0, *range(len(FEW) + 1)]  # begun in child processes, and once more here
    assert [bool(state.note) for state in states if not state.done] == [False, True]
    assert right(found)


def test_a_cache_that_cannot_be_written_changes_no_result_and_is_said_once(tmp_path):
    """As with a read-only home and a read-only package; files stand where folders would be, for root may write
    anywhere."""
    source = tmp_path / "src"
    shutil.copytree(Path(gapless.__file__).parent, source / "gapless", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "gapless" / "kernels" / "cpu" / "__pycache__").touch()
    (tmp_path / "file").touch()
    hidden = {name: str(tmp_path / "file" / "below") for name in ("HOME", "XDG_CACHE_HOME")}
    states, found, folder = ended(start(tmp_path / "file" / "below", "two", **hidden, PYTHONPATH=str(source)))
    assert folder == "None"
    assert [state.done for state in states] == [*range(len(FEW) + 1)] * 2
    assert [bool(state.note) for state in states if not state.done] == [True, False]
    assert "NUMBA_CACHE_DIR" in states[0].text
    assert right(found)


def test_what_is_ready_is_not_announced():
    states: list[Compilation] = []
    vector = compile_once()
    with reporting(states.append):
        prepare([vector])
    assert states == []


@pytest.mark.parametrize("stride", [1, 2])
def test_everything_that_a_fan_needs_is_prepared(stride):
    """Nothing is compiled in the middle of a step, neither forward nor backward."""

    class Refuse(event.Listener):
        def on_start(self, event):
            raise AssertionError(event.data)

        def on_end(self, event):
            pass

    compile_once()
    routes, x, _, parameters = mixed(stride, True, 2, 8, 8, 4)
    with event.install_listener("numba:compile", Refuse()):
        sums, _ = backend.fan(routes, torch.ones(len(routes), dtype=x.dtype), x, [None, None], parameters)
        torch.autograd.grad(sum(y.sum() for y in sums), [x, *parameters])


def compile_once() -> Vector:
    from gapless.kernels.cpu.memory import vector_of

    vector = vector_of(np.dtype(np.float64), 4)
    prepare([vector])
    return vector


def test_a_compilation_is_announced_on_stderr_without_a_callback(capsys):
    """Once, not for each function; the standard output stays the program's own."""
    for done in range(3):
        to_stderr(Compilation(done, 2, 21.4))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Compiling the CPU kernels for this processor, once; about 21 s.\n"


def test_units_are_all_functions_callees_first():
    names = [unit.name for unit in units(V)]
    assert len(set(names)) == len(names)
    assert {"conv", "conv_weight_grad.doubles", "backward", "entry.backward", "norm_grads"} <= set(names)
    for name, loop in LOOPS.items():
        assert all(names.index(callee.name) < names.index(name) for callee in loop.callees)
    assert {"state_grad", "winograd_backward", "conv"} <= {loop.name for loop in walks.backward.declared.callees}
    double = [unit.name for unit in units(Vector(np.float64, 4, False))]
    assert set(names) - set(double) == {"conv_weight_grad.doubles"}


def test_time_that_is_spent_compiling_is_counted():
    before = compile_seconds()
    with timing():
        time.sleep(0.02)
    assert 0.02 <= compile_seconds() - before < 1
