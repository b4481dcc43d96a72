"""The precision in which networks are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from gapless.core.errors import UserError

Precision = Literal["float32", "tf32", "bfloat16", "float64"]


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Set what matrix products and convolutions on a GPU may round to: float32 is float32, which PyTorch's own default
    is not for convolutions (our own kernels add three products of TF32 parts, which is as exact); ``tf32`` keeps 10
    bits of the factors' mantissas."""
    if device.type != "cuda":
        yield
        return
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def checked(precision: Precision, device: torch.device) -> Precision:
    """Return the precision.

    Raises
    ------
    UserError
        Where the device does not have it.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision is tf32, a format of NVIDIA's GPUs, but the device is {device}. Try float32.")
    return precision
