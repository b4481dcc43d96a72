"""Threads that share images: every image once, on PyTorch's own threads or on a pool."""

import ctypes
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch

from gapless.kernels.cpu import workers
from gapless.kernels.cpu.workers import Walk, threads


@Walk
def mark(rank, lo, hi, seen, ranks):
    """Count for each image how often it was seen, and for each number of a thread how often it was there."""
    for n in range(lo, hi):
        seen[n] += 1
    ranks[rank] += 1


@Walk
def meet(rank, lo, hi, there, met):
    """Wait until all are there; only threads that run side by side get through."""
    there[rank] = 1
    turns = 0
    while there.sum() < len(there) and turns < 10**9:
        turns += 1
    met[rank] = there.sum()


@Walk
def fill(rank, lo, hi, size):
    """Take more memory than there is, in the second thread."""
    if rank == 1:
        np.empty(size)


@pytest.fixture(params=["PyTorch's threads", "a pool"])
def kind(request, monkeypatch):
    if request.param == "a pool":
        monkeypatch.setattr(workers, "_openmp", lambda: None)
    elif workers._openmp() is None:
        pytest.skip("this PyTorch has no OpenMP runtime with GCC's names")
    return request.param


@pytest.mark.parametrize("images", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_image_once(kind, images, count):
    with mock.patch("torch.get_num_threads", return_value=count):
        assert threads(images) == min(count, images)
        seen, ranks = np.zeros(images), np.zeros(threads(images))
        mark(threads(images), images, seen, ranks)
    assert seen.tolist() == [1] * images
    assert ranks.tolist() == [1] * min(count, images)


def test_threads_run_side_by_side(kind):
    there, met = np.zeros(2), np.zeros(2)
    meet(2, 2, there, met)
    assert met.tolist() == [2, 2]


def test_a_team_that_is_smaller_than_asked_for_does_all(monkeypatch):
    """OpenMP may give fewer threads; here it gives one, who is told so."""
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(
        lambda function, data, count, flags: entry(function)(data)
    )
    number, one = (ctypes.CFUNCTYPE(ctypes.c_int)(lambda value=value: value) for value in (0, 1))
    alone = workers.Runtime(*(workers._address(function) for function in (enter, number, one)))
    monkeypatch.setattr(workers, "_openmp", lambda: alone)
    seen, ranks = np.zeros(7), np.zeros(3)
    mark(3, 7, seen, ranks)
    assert seen.tolist() == [1] * 7
    assert ranks.tolist() == [1] * 3


def test_a_pool_that_cannot_grow_still_does_all(monkeypatch):
    monkeypatch.setattr(workers, "_openmp", lambda: None)
    monkeypatch.setattr(workers, "_POOLS", {})
    seen, ranks = np.zeros(7), np.zeros(3)
    with mock.patch.object(workers.ThreadPoolExecutor, "submit", side_effect=RuntimeError("can't start new thread")):
        mark(3, 7, seen, ranks)
    assert seen.tolist() == [1] * 7
    assert ranks.tolist() == [1] * 3


def test_a_thread_without_memory_is_heard_of(kind):
    with pytest.raises(MemoryError, match="no memory left"):
        fill(2, 2, 2**58)
    fill(2, 2, 8)  # and the next one runs


def walk_that_writes(value):
    def write(rank, lo, hi, out):
        out[rank] = value

    return Walk(write)


def test_walks_of_one_name_are_told_apart():
    one, two, out = walk_that_writes(1), walk_that_writes(2), np.zeros(1)
    for walk, value in ((one, 1), (two, 2), (one, 1)):
        walk(1, 1, out)
        assert out[0] == value


FORKED = """
import os
import numpy as np
from gapless.kernels.cpu import workers

def mark(rank, lo, hi, ranks):
    ranks[rank] += 1

workers._openmp = lambda: None
walk = workers.Walk(mark)
walk(2, 2, np.zeros(2))
child = os.fork()
if not child:
    ranks = np.zeros(2)
    walk(2, 2, ranks)
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
    workers._openmp.cache_clear()
    try:
        with mock.patch.object(torch.backends.openmp, "is_available", return_value=False):
            assert workers._openmp() is None
    finally:
        workers._openmp.cache_clear()
