"""What computes: names of processors and devices, and what of a machine can move the last bits of a number."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def instructions() -> str:
    """Return the widest vector instructions that PyTorch uses here (``AVX2``, ``AVX512`` ...): sums are taken in their
    order. Processors of one name can differ in them."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def memory() -> int | None:
    """Return the bytes of memory that this process may use: those of the machine, of its control group (container), or
    of its own limit (``ulimit -v``), whichever are fewest; None where the system does not say."""
    limits = (_physical(), address_space(), *_limits("memory.max", "memory.limit_in_bytes"))
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory() -> int | None:
    """Return the bytes of memory that are free for this process: those of the machine, or of its control group where
    that has fewer; None where the system does not say."""
    available = re.search(r"MemAvailable:\s*(\d+) kB", _text(Path("/proc/meminfo")))  # counts what caches can give back
    free = [int(available.group(1)) * 1024] if available else []
    for limit, used, cached in zip(
        _limits("memory.max", "memory.limit_in_bytes"),
        _limits("memory.current", "memory.usage_in_bytes"),
        _limits("memory.stat", "memory.stat"),
        strict=False,
    ):
        free.append(max(0, limit - used + cached))
    return min(free, default=_physical())


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system without them
        return None


def address_space() -> int | None:
    """Return the bytes of memory that this process may address (``ulimit -v``); None where nothing limits them."""
    found = re.search(r"Max address space\s+(\d+)", _text(Path("/proc/self/limits")))
    return int(found.group(1)) if found else None


def _limits(unified: str, legacy: str) -> list[int]:
    """Return a number of each control group around this process that sets a limit (version 2, then version 1); of
    ``memory.stat`` the bytes of cached files, which the system gives back."""
    found = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            root, name, limit = Path("/sys/fs/cgroup"), unified, "memory.max"
        elif "memory" in controllers.split(","):
            root, name, limit = Path("/sys/fs/cgroup/memory"), legacy, "memory.limit_in_bytes"
        else:
            continue
        inside = root / path.lstrip("/")
        for group in (inside, *inside.parents):
            if group.is_relative_to(root) and _text(group / limit).strip().isdigit():
                value = _text(group / name).strip()
                caches = re.findall(r"^(?:total_)?(?:in)?active_file (\d+)$", value, re.MULTILINE)
                found.append(int(value) if value.isdigit() else sum(map(int, caches[:2])))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def device_name(device: torch.device) -> str:
    """Return the name of a device: that of the GPU or the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else device.type
