"""Memory layouts of images, and small tensors on a device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def nchw(x: Tensor) -> Tensor:
    """View [N, H, W, C] as PyTorch's [N, C, H, W]."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """Return [N, C, H, W] as contiguous [N, H, W, C], without a copy where it is channels-last already."""
    return x.permute(0, 2, 3, 1).contiguous()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, without waiting for a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@lru_cache(maxsize=4096)
def indices(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return an index tensor (int64) on a device. Equal calls return the same tensor, which costs a GPU no copy."""
    with torch.inference_mode(False):  # or a CUDA graph could not keep it
        return to_device(torch.tensor(values), device)
