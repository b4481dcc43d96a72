"""Threads that share the images of a batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

Job = Callable[[int, int, int], None]
"""Called with the number of the thread and the range of images that are its."""

_POOLS: dict[int, ThreadPoolExecutor] = {}
_LOCK = threading.Lock()


def _forget() -> None:
    """In a forked process the threads are not there any more."""
    global _LOCK
    _POOLS.clear()
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def threads(images: int) -> int:
    """Return how many threads share so many images: at most as many as PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


def share(images: int, jobs: Sequence[Job]) -> None:
    """Run the jobs one behind the other, each on all images, and return when all are done.

    Each thread goes through all jobs with its own range of images, without waiting for another. Jobs release Python's
    lock, so that the threads run side by side.
    """
    count = threads(images)

    def run(rank: int) -> None:
        lo, hi = rank * images // count, (rank + 1) * images // count
        for job in jobs:
            job(rank, lo, hi)

    others: list[Future[None]] = []
    if count > 1:
        with _LOCK:
            pool = _POOLS.setdefault(count, ThreadPoolExecutor(count - 1, thread_name_prefix="gapless"))
        others = [pool.submit(run, rank) for rank in range(1, count)]
    try:
        run(0)
    finally:
        for other in others:
            other.result()
