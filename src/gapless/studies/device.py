"""The device and the CPU threads of a study."""

from __future__ import annotations

import torch

from gapless.core.errors import UserError


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU where there is one.

    Raises
    ------
    UserError
        For an unknown device, or one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device {name!r} here. Legal: auto, cpu, and cuda where there is a GPU.") from None
    return device


def use_threads(count: int) -> None:
    """Set PyTorch's CPU threads; 0 leaves them."""
    if count > 0:
        torch.set_num_threads(count)
