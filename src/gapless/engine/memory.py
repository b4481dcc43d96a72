"""Memory of the process: keeping it from one step to the next, and its peak."""

from __future__ import annotations

import ctypes
import sys

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's ``mallopt`` (``malloc.h``: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""


def keep_memory() -> bool:
    """Ask the C library to keep freed memory instead of returning it to the system; return whether it does.

    A step of a supernet allocates and frees thousands of tensors. By default glibc returns memory at the end of its
    heap and maps every large block anew, and each page then costs a page fault: measured, a third of a step on the CPU.
    The peak does not change, but the process does not shrink between steps. The setting holds for the whole process, so
    only long loops should call this. Other C libraries than glibc have no such setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    most = 32 << 20  # the largest threshold that every glibc accepts
    return bool(mallopt(MMAP_THRESHOLD, most)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory so far in MiB: allocated on a GPU, or resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
