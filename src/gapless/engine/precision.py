"""Floating-point precision of a search or training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from gapless.core.errors import UserError

Precision = Literal["float32", "tf32", "bfloat16", "float64"]


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Set whether matrix products and convolutions on a GPU may round their factors to TF32, 10 bits of mantissa: with
    ``tf32`` they do. Otherwise float32 is float32, unlike PyTorch's default for convolutions; our own kernels add three
    products of TF32 parts, which is as exact."""
    if device.type != "cuda":
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def checked(precision: Precision, device: torch.device) -> Precision:
    """Return the precision if the device supports it.

    Raises
    ------
    UserError
        If it does not.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"`precision` tf32 needs an NVIDIA GPU, but the device is {device}. Try float32.", of="run")
    return precision
