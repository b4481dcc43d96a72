"""Threads that share the images of a batch: those of PyTorch, where they can be had.

PyTorch's own operations run on the threads of an OpenMP runtime, which wait for the next one by spinning. A second pool
would fight with them for the cores, so jobs run on these very threads wherever the runtime answers to the names that
GCC's compiler gives it (``GOMP_parallel``; LLVM's and Intel's runtimes have them on Linux too), and on a pool of our
own elsewhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

Job = Callable[[int, int, int], None]
"""Called with the number of the thread and the range of images that are its."""
Region = Callable[[Callable[[int], None], int], None]
"""Calls a function with 0 to n - 1, each on a thread of its own; when all have returned it raises what one raised."""


def threads(images: int) -> int:
    """Return how many threads share so many images: at most as many as PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


def share(images: int, job: Job) -> None:
    """Run a job on all images, and return when it is done.

    Each thread has its own range of images. The job releases Python's lock, so that the threads run side by side. If
    it raises, the first exception is raised here.
    """
    count = threads(images)

    def run(rank: int) -> None:
        job(rank, rank * images // count, (rank + 1) * images // count)

    if count == 1:
        run(0)
    else:
        (_openmp() or _pool)(run, count)


@cache
def _openmp() -> Region | None:
    """Return a parallel region of PyTorch's own runtime, None if it has none of this kind."""
    if not torch.backends.openmp.is_available():
        return None
    try:
        free, held = ctypes.CDLL(torch._C.__file__), ctypes.PyDLL(torch._C.__file__)
        enter, number = free.GOMP_parallel, held.omp_get_thread_num
    except (OSError, AttributeError):
        return None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    enter.argtypes, enter.restype = [kind, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None

    def region(run: Callable[[int], None], count: int) -> None:
        seen: list[int] = []
        failed: list[BaseException] = []

        def one(_: Any) -> None:
            try:
                rank = number()
                seen.append(rank)
                run(rank)
            except BaseException as error:  # nothing may be raised through the runtime
                failed.append(error)

        enter(kind(one), None, count, 0)
        if failed:
            raise failed[0]
        for rank in set(range(count)).difference(seen):  # it may give fewer threads than it was asked for
            run(rank)

    return region


_POOLS: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOLS.clear)  # in a forked process the threads are not there any more


def _pool(run: Callable[[int], None], count: int) -> None:
    pool = _POOLS.setdefault(count, ThreadPoolExecutor(count - 1, thread_name_prefix="gapless"))
    others = [pool.submit(run, rank) for rank in range(1, count)]
    try:
        run(0)
    finally:
        for other in others:
            other.result()
