"""What computes: names of processors and devices, and what of a machine can move the last bits of a number."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def instructions() -> str:
    """Return the widest vector instructions that PyTorch uses here (``AVX2``, ``AVX512`` ...): sums are taken in their
    order. Processors of one name can differ in them."""
    return torch.backends.cpu.get_cpu_capability()


def device_name(device: torch.device) -> str:
    """Return the name of a device: that of the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else device.type
