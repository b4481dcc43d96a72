"""Memory of the process: keeping it from one step to the next, and its peak."""

from __future__ import annotations

import ctypes
import sys

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's ``mallopt`` (``malloc.h``: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""


def keep_memory() -> bool:
    """Ask the C library to keep freed memory instead of handing it back to the system; return whether it does.

    A step of a supernet allocates and frees some thousands of tensors. glibc hands back what lies at the end of its
    heap and maps large blocks anew each time, and every page that comes back costs a page fault: measured, a third of a
    step on the CPU. The peak stays what it is; between steps the process does not shrink. This holds for the whole
    process, which is why only what owns a long loop calls it; other C libraries are left as they are.
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
