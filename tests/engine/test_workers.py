"""Threads that share images: every image once, on PyTorch's own threads or on a pool."""

import os
import sys
import threading
from unittest import mock

import pytest
import torch

from gapless.engine import workers
from gapless.engine.workers import share, threads


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
    seen, ranks, lock = [], [], threading.Lock()

    def job(rank: int, lo: int, hi: int) -> None:
        with lock:
            seen.extend(range(lo, hi))
            ranks.append(rank)

    with mock.patch("torch.get_num_threads", return_value=count):
        assert threads(images) == min(count, images)
        share(images, job)
    assert sorted(seen) == list(range(images))
    assert sorted(ranks) == list(range(min(count, images)))


def test_threads_run_side_by_side(kind):
    """Each waits for the other: only two at once get through."""
    meeting = threading.Barrier(2, timeout=60)
    with mock.patch("torch.get_num_threads", return_value=2):
        share(2, lambda rank, lo, hi: meeting.wait() and None)


def test_an_exception_of_any_thread_is_raised(kind):
    def job(rank: int, lo: int, hi: int) -> None:
        if rank == 1:
            raise ValueError("the second half")

    with mock.patch("torch.get_num_threads", return_value=2):
        with pytest.raises(ValueError, match="the second half"):
            share(2, job)
        share(2, lambda rank, lo, hi: None)  # and the next one runs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of forks beside threads")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(workers, "_openmp", lambda: None)
    with mock.patch("torch.get_num_threads", return_value=2):
        share(2, lambda rank, lo, hi: None)
        child = os.fork()
        if not child:
            seen = []
            share(2, lambda rank, lo, hi: seen.append(rank))
            os._exit(0 if sorted(seen) == [0, 1] else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_without_a_runtime_of_that_kind_there_is_a_pool():
    workers._openmp.cache_clear()
    try:
        with mock.patch.object(torch.backends.openmp, "is_available", return_value=False):
            assert workers._openmp() is None
    finally:
        workers._openmp.cache_clear()
