"""Records of the CPU kernels: those of :mod:`gapless.kernels.records` with the places of packed
weights, and buffers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gapless.kernels import records
from gapless.kernels.records import END, NORM, Array

__all__ = ["BUFFER", "END", "NORM", "POOL", "SCRATCH", "STEP", "Array"]

_INT = np.int64
STEP = np.dtype([*records.STEP.descr, *((name, _INT) for name in (
    "packed_depthwise", "packed_conv",  # where its weights lie, packed for the forward pass or flipped
    "winograd", "winograd_grad",  # whether it uses Winograd's F(2x2, 3x3), and where a thread sums its weight gradient
))])  # fmt: skip
"""A step of a chain, with the places of its packed weights."""
POOL = np.dtype([*records.POOL.descr, ("inverse_counts", _INT)])
"""A pool, with the place of one over the number of pixels under each window (averages only)."""
SCRATCH = np.dtype([(name, _INT) for name in (
    "images", "channels", "H", "W", "C", "border", "phases", "strided", "winograd", "packed", "length",
    "input", "split", "padded", "z", "dz", "e", "dinput", "dsplit", "dstrided", "pool", "patches", "products",
    "dpatches", "winograd_grads",
)])  # fmt: skip
"""One record: the state, the lengths of a norm vector, of the packed weights and of a thread's
scratch memory, and where its buffers begin: ``input`` (ReLU of the state, with a border), ``split``
(its phases), ``padded`` (input of an inner step), ``z`` (output of a depthwise convolution), ``e``
(gradient at the output of a step), ``d...`` (gradients), a pool's input, and what Winograd's
transforms read and write."""
BUFFER = np.dtype([("address", _INT), ("length", _INT)])
"""An array that walks read or write. They take their arrays as one array of these: Numba looks at
each argument of a call from Python."""


class Buffers(NamedTuple):
    """The arrays of a forward or backward pass, in the order of their records."""

    x: Array
    saved: Array
    packed: Array
    flipped: Array
    inverse_counts: Array
    vectors: Array
    sums: Array
    scratch: Array
    grad_saved: Array
    grad_packed: Array
    dx: Array


X, SAVED, PACKED, FLIPPED, INVERSE_COUNTS, VECTORS, SUMS, SCRATCH_MEMORY, GRAD_SAVED, GRAD_PACKED, DX = range(11)
"""Places of the arrays among the records of :class:`Buffers`."""
SCALE, SHIFT, LEAD, FIRST, LAST, MEAN = range(6)
"""Rows of ``vectors``: norm vectors in the precision of the images. SCALE and SHIFT are those of
the forward pass; the gradient before a normalisation is LEAD * (g - FIRST) + LAST * (y - MEAN)."""
CENTRE, VARIANCE, INVERSE = range(3)
"""Rows of ``moments64``: mean, variance and one over the standard deviation, in double
precision."""
PLACES = 16
"""Numbers in a patch that Winograd's transforms read or write."""
PATCHES = 16
"""Patches that are transformed at a time, at least, if there are as many; at least one row of
them."""
