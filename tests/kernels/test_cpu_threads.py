"""Threads that share images: every image once, on PyTorch's own threads or on a pool."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError

from gapless.kernels.cpu import threads
from gapless.kernels.cpu.declare import Doubles
from gapless.kernels.cpu.threads import Walk, thread_count
from gapless.kernels.cpu.vectors import Vector

V = Vector(np.float64, 4, False)


@Walk
def mark(rank: int, lo: int, hi: int, visits: Doubles, ranks: Doubles, v: Vector) -> None:
    """Count how often each image is visited, and how often each rank is used."""
    for n in range(lo, hi):
        visits[n] += 1
    ranks[rank] += 1


@Walk
def meet(rank: int, lo: int, hi: int, there: Doubles, met: Doubles, v: Vector) -> None:
    """Wait until all are there; only threads that run side by side get through."""
    there[rank] = 1
    turns = 0
    while there.sum() < len(there) and turns < 10**9:
        turns += 1
    met[rank] = there.sum()


@Walk
def fill(rank: int, lo: int, hi: int, size: int, v: Vector) -> None:
    """Take more memory than there is, in the second thread."""
    if rank == 1:
        np.empty(size)


@pytest.fixture(params=["PyTorch's threads", "a pool"])
def kind(request, monkeypatch):
    if request.param == "a pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("this PyTorch has no OpenMP runtime with GCC's names")
    return request.param


@pytest.mark.parametrize("images", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_image_once(kind, images, count):
    with mock.patch("torch.get_num_threads", return_value=count):
        assert thread_count(images) == min(count, images)
        visits, ranks = np.zeros(images), np.zeros(thread_count(images))
        mark(thread_count(images), images, visits, ranks, V)
    assert visits.tolist() == [1] * images
    assert ranks.tolist() == [1] * min(count, images)


def test_threads_run_side_by_side(kind):
    there, met = np.zeros(2), np.zeros(2)
    meet(2, 2, there, met, V)
    assert met.tolist() == [2, 2]


def test_a_team_that_is_smaller_than_asked_for_does_all(monkeypatch):
    """OpenMP may give fewer threads; here it gives one, and says so."""
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(
        lambda function, data, count, flags: entry(function)(data)
    )
    number, one = (ctypes.CFUNCTYPE(ctypes.c_int)(lambda value=value: value) for value in (0, 1))
    alone = threads.Runtime(*(threads._address(function) for function in (enter, number, one)))
    monkeypatch.setattr(threads, "_openmp", lambda: alone)
    visits, ranks = np.zeros(7), np.zeros(3)
    mark(3, 7, visits, ranks, V)
    assert visits.tolist() == [1] * 7
    assert ranks.tolist() == [1] * 3


def test_a_pool_that_cannot_grow_still_does_all(monkeypatch):
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    monkeypatch.setattr(threads, "_POOLS", {})
    visits, ranks = np.zeros(7), np.zeros(3)
    with mock.patch.object(threads.ThreadPoolExecutor, "submit", side_effect=RuntimeError("can't start new thread")):
        mark(3, 7, visits, ranks, V)
    assert visits.tolist() == [1] * 7
    assert ranks.tolist() == [1] * 3


def test_a_thread_without_memory_raises_in_the_caller(kind):
    with pytest.raises(MemoryError, match="not enough memory"):
        fill(2, 2, 2**58, V)
    fill(2, 2, 8, V)  # and the next one runs


def walk_that_writes(value):
    def write(rank: int, lo: int, hi: int, out: Doubles, v: Vector) -> None:
        out[rank] = value

    return Walk(write)


def test_a_walk_refuses_arguments_of_other_types():
    """It is called by its address: other types would be read as its own."""
    with pytest.raises(TypingError, match="mark.* takes .*float64"):
        mark(1, 1, np.zeros(1, np.float32), np.zeros(1), V)


def test_a_parameter_needs_a_known_annotation():
    def write(rank: int, lo: int, hi: int, out: Tensors, v: Vector) -> None:  # noqa: F821
        out[rank] = 0

    with pytest.raises(TypeError, match="write: .*Numbers.*got .'Tensors'"):
        Walk(write)


def test_walks_of_one_name_are_told_apart():
    one, two, out = walk_that_writes(1), walk_that_writes(2), np.zeros(1)
    for walk, value in ((one, 1), (two, 2), (one, 1)):
        walk(1, 1, out, V)
        assert out[0] == value


FORKED = """
import os
import numpy as np
from gapless.kernels.cpu import threads
from gapless.kernels.cpu.vectors import Vector

def mark(rank: "int", lo: "int", hi: "int", ranks: "Doubles", v: "Vector"):
    ranks[rank] += 1

v = Vector(np.float64, 4, False)
threads._openmp = lambda: None
walk = threads.Walk(mark)
walk(2, 2, np.zeros(2), v)
child = os.fork()
if not child:
    ranks = np.zeros(2)
    walk(2, 2, ranks, v)
    os._exit(0 if ranks.tolist() == [1, 1] else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own(tmp_path):
    """In a process of its own, for a fork takes along what this one holds."""
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    subprocess.run([sys.executable, str(script)], check=True, timeout=300)


def test_without_a_runtime_of_that_kind_there_is_a_pool():
    threads._openmp.cache_clear()
    try:
        with mock.patch.object(torch.backends.openmp, "is_available", return_value=False):
            assert threads._openmp() is None
    finally:
        threads._openmp.cache_clear()
