"""Fused implementation of a fan on a GPU, in Triton."""

from importlib.util import find_spec

INSTALLED = find_spec("triton") is not None
"""Whether Triton is installed; PyTorch's builds for GPUs depend on it."""
