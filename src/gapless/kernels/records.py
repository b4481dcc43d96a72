"""Records that describe what a fan computes, as NumPy structured types.

Records hold offsets into flat buffers. ``saved`` holds what the backward pass needs, ``grad_saved``
gradients inside of chains, ``parameters`` all parameters one after the other, and a *norm vector*
one number for each channel of each normalisation.

This module needs neither PyTorch nor a compiler, so that processes that only compile kernels start
fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Row = dict[str, Any]
_INT = np.int64
STEP = np.dtype([(name, _INT) for name in (
    "depth", "target", "norm", "norm_before",  # position in its chain, its target; its norm vector, the one it reads
    "x", "y", "g", "dx",  # input and output in saved (-1: the state), gradients in grad_saved (-1: of the target)
    "depthwise", "conv",  # weights in the parameters
    "H", "W", "C", "h", "w", "O",  # input, output
    "K", "s", "p", "d", "k", "ks", "kp", "kd",  # kernel (0: none), stride, padding, dilation: depthwise, convolution
    "phases",  # whether it reads the two phases of a factorised reduction
)])  # fmt: skip
"""A step of a chain."""
POOL = np.dtype([(name, _INT) for name in ("y", "norm", "maximum", "h", "w", "K", "s", "p")])
"""A pool of the state, which several routes may share; ``norm``: where its moments go, -1 if they
are not needed."""
NORM = np.dtype(
    [(name, _INT) for name in ("start", "C", "pixels", "depth", "normalised", "affine", "target", "route", "source")]
    + [("eps", np.float64)]
)
"""A normalisation (``normalised`` 0: only the weight of a mix), whose vectors begin at ``start``;
``affine``: scale and shift in the parameters (-1: none), ``route``: the route that ends with it
(-1: it is inside of a chain), ``source``: the norm vector that holds its moments."""
END = np.dtype([(name, _INT) for name in ("target", "norm", "y", "pool", "pixels", "C", "accumulate")])
"""The end of a route; ``accumulate``: an earlier route leads to the same target."""


def as_records(rows: Sequence[Row], kind: np.dtype[Any]) -> Array:
    """Return dictionaries as records."""
    return np.array([tuple(row[name] for name in kind.names or ()) for row in rows], kind)


def as_dicts(table: Array) -> list[Row]:
    """Return records as dictionaries."""
    return [dict(zip(table.dtype.names or (), row, strict=True)) for row in table.tolist()]
