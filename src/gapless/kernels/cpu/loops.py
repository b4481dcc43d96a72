"""Loops over one image that Numba compiles: convolutions, moments, normalisations, and their
gradients.

All arrays have one axis here; an image is [H, W, C], the channels of a pixel are contiguous and are
processed ``size(v)`` at a time. A convolution reads an image that already has its border of zeros,
so it has no cases. Tiles keep sums in registers: as many as hide the latency of a multiply-add, in
a shape that saves loads. Their sides are literals, and so are the kernel sizes that networks use.
Sums over pixels continue in double precision after every ``RUN`` pixels.

Weights are [K, K, C] in depthwise convolutions and [K, K, C, O] in convolutions. The letters are
explained at the head of :mod:`gapless.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import literally  # type: ignore[attr-defined]

from gapless.kernels.cpu.declare import Doubles, Image, Numbers, Sums, loop, unrolled
from gapless.kernels.cpu.records import FIRST, LAST, LEAD, MEAN, PLACES
from gapless.kernels.cpu.vectors import (
    Vector,
    add,
    broadcast,
    equal,
    fma,
    load,
    maximum,
    size,
    store,
    sub,
    tile,
    tile_accumulate,
    tile_add,
    tile_outer,
    tile_store,
    tile_taps,
    tile_taps_grad,
    to_double,
    where_positive,
    wide,
    zero,
)

RUN = 32
"""Pixels that are summed in single precision before the sum continues in double precision."""
STRETCH = 256
"""The same for weight gradients, which fill whole tiles: as many rows as have this many pixels, at
least one."""


# ---------------------------------------------------------------------- convolutions of one image


@unrolled
def _depthwise_tile(
    x: Any, i: int, row: int, w: Any, c: int, y: Any, j: int, C: int, K: int, s: int, d: int, accumulate: bool, v: Any,
    P: int,
) -> None:  # fmt: skip
    """P pixels of a row of :func:`depthwise`, for a vector of channels."""
    literally(P)
    a = tile(y, P, 1, v)
    for ky in range(K):
        for kx in range(K):
            a = tile_taps(a, x, i + ky * d * row + kx * d * C, s * C, w, (ky * K + kx) * C + c, 1, 1, 1, v)
    tile_store(y, j, C, C, tile_add(a, y, j, C, C) if accumulate else a)


@unrolled
def _depthwise_known_tile(
    x: Any, i: int, row: int, w: Any, c: int, y: Any, j: int, C: int, K: int, s: int, d: int, accumulate: bool, v: Any,
    P: int,
) -> None:  # fmt: skip
    """The same, for a kernel that the compiler knows."""
    literally(K), literally(s), literally(d), literally(P)
    a = tile(y, P, 1, v)
    for ky in range(K):
        a = tile_taps(a, x, i + ky * d * row, C, w, ky * K * C + c, K, s, d, v)
    tile_store(y, j, C, C, tile_add(a, y, j, C, C) if accumulate else a)


@loop
def depthwise(
    image: Image, w: Numbers, out: Image, H: int, W: int, C: int, K: int, s: int, d: int, accumulate: bool, v: Vector
) -> None:
    """Write (or, if ``accumulate``, add) the depthwise convolution of an image to ``out`` [H, W,
    C]."""
    x, xo, row = image
    y, yo, yrow = out
    for r in range(H):
        for c in range(0, C, size(v)):
            i, j, q = xo + r * s * row + c, yo + r * yrow + c, 0
            while s == 1 and q + 8 <= W:
                if K == 3 and d == 1:
                    _depthwise_known_tile(x, i + q * C, row, w, c, y, j + q * C, C, 3, 1, 1, accumulate, v, 8)
                elif K == 5 and d == 1:
                    _depthwise_known_tile(x, i + q * C, row, w, c, y, j + q * C, C, 5, 1, 1, accumulate, v, 8)
                elif K == 3 and d == 2:
                    _depthwise_known_tile(x, i + q * C, row, w, c, y, j + q * C, C, 3, 1, 2, accumulate, v, 8)
                elif K == 5 and d == 2:
                    _depthwise_known_tile(x, i + q * C, row, w, c, y, j + q * C, C, 5, 1, 2, accumulate, v, 8)
                else:
                    _depthwise_tile(x, i + q * C, row, w, c, y, j + q * C, C, K, 1, d, accumulate, v, 8)
                q += 8
            while q + 4 <= W:
                _depthwise_tile(x, i + q * s * C, row, w, c, y, j + q * C, C, K, s, d, accumulate, v, 4)
                q += 4
            while q < W:
                _depthwise_tile(x, i + q * s * C, row, w, c, y, j + q * C, C, K, s, d, accumulate, v, 1)
                q += 1


@loop
def depthwise_input_grad(
    grad: Image, w: Numbers, out: Image, H: int, W: int, C: int, K: int, s: int, d: int, v: Vector
) -> None:
    """Add the input gradient of a depthwise convolution of any stride, of the gradient at its
    output [H, W, C], to ``out``, which has the border that the input has."""
    g, go, grow = grad
    x, xo, row = out
    for r in range(H):
        for q in range(W):
            for c in range(0, C, size(v)):
                e = load(g, go + r * grow + q * C + c, v)
                for ky in range(K):
                    i, k = xo + (r * s + ky * d) * row + q * s * C + c, ky * K * C + c
                    for _ in range(K):
                        store(x, i, fma(e, load(w, k, v), load(x, i, v)))
                        i += d * C
                        k += C


@unrolled
def _depthwise_weight_grad_tile(
    x: Any, xo: int, row: int, step: int, below: int, g: Any, go: int, grow: int, out: Any, k: int, down: int, H: int,
    W: int, C: int, v: Any, rows: int, cols: int,
) -> None:  # fmt: skip
    """Some weights of :func:`depthwise_weight_grad`, for a vector of channels. ``step`` lies
    between two pixels of x and two columns, ``below`` between two rows of the tile in x, ``down``
    in the weights."""
    literally(rows), literally(cols)
    some = max(1, STRETCH // W)
    for start in range(0, H, some):
        a = tile(x, rows, cols, v)
        for r in range(start, min(start + some, H)):
            i, j, q = xo + r * row, go + r * grow, 0
            while q + 4 <= W:
                a = tile_taps_grad(a, x, i + q * step, below, step, g, j + q * C, C, 4, v)
                q += 4
            while q < W:
                a = tile_taps_grad(a, x, i + q * step, below, step, g, j + q * C, C, 1, v)
                q += 1
        tile_accumulate(out, k, down, C, a)


@loop
def depthwise_weight_grad(
    image: Image, grad: Image, out: Doubles, H: int, W: int, C: int, K: int, s: int, d: int, v: Vector
) -> None:
    """Add the weight gradient [K, K, C] of a depthwise convolution to ``out``, in double
    precision."""
    x, xo, row = image
    g, go, grow = grad
    m, n, plain = d * row, d * C, s == 1 and d == 1
    for c in range(0, C, size(v)):
        i, j, k, ky = xo + c, go + c, c, 0
        while ky < K:  # several rows of the kernel, or one row as a column
            if plain and K == 3:
                _depthwise_weight_grad_tile(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 3, 3)
                rows = 3
            elif plain and K == 5 and ky + 2 <= K:
                _depthwise_weight_grad_tile(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 2, 5)
                rows = 2
            elif plain and K == 5:
                _depthwise_weight_grad_tile(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 1, 5)
                rows = 1
            elif K == 3:
                _depthwise_weight_grad_tile(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 3, 1)
                rows = 1
            elif K == 5:
                _depthwise_weight_grad_tile(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 5, 1)
                rows = 1
            elif K == 7:
                _depthwise_weight_grad_tile(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 7, 1)
                rows = 1
            else:
                for kx in range(K):
                    _depthwise_weight_grad_tile(
                        x, i + kx * n, s * row, s * C, n, g, j, grow, out, k + kx * C, C, H, W, C, v, 1, 1
                    )
                rows = 1
            i += rows * m
            k += rows * K * C
            ky += rows


@unrolled
def _conv_tile(
    x: Any, xo: int, row: int, step: int, w: Any, o: int, y: Any, j: int, C: int, O: int, K: int, d: int,
    accumulate: bool, v: Any, rows: int, cols: int,
) -> None:  # fmt: skip
    """A tile of :func:`conv`: pixels of a row, vectors of channels."""
    literally(rows), literally(cols)
    a = tile(y, rows, cols, v)
    for ky in range(K):
        for kx in range(K):
            i, k = xo + ky * d * row + kx * d * C, (ky * K + kx) * C * O + o
            for c in range(C):
                a = tile_outer(a, x, i + c, step, w, k + c * O, v)
    tile_store(y, j, O, size(v), tile_add(a, y, j, O, size(v)) if accumulate else a)


@unrolled
def _conv(
    x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, O: int, K: int, s: int,
    d: int, accumulate: bool, v: Any,
) -> None:  # fmt: skip
    """The tiles of :func:`conv` and :func:`pointwise`."""
    step, z = s * C, size(v)
    for r in range(H):
        o = 0
        while o < O:
            i, j, q, cols = xo + r * s * row, yo + r * yrow + o, 0, 1 if o + 2 * z > O else 2
            while cols == 2 and wide(v) and q + 8 <= W:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 8, 2)
                q += 8
            while cols == 2 and q + 6 <= W and W - q != 8:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 6, 2)
                q += 6
            while cols == 2 and q + 4 <= W:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 4, 2)
                q += 4
            while cols == 2 and q < W:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 1, 2)
                q += 1
            while q + 8 <= W:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 8, 1)
                q += 8
            while q < W:
                _conv_tile(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, accumulate, v, 1, 1)
                q += 1
            o += cols * z


@loop
def conv(
    image: Image, w: Numbers, out: Image, H: int, W: int, C: int, O: int, K: int, s: int, d: int, accumulate: bool,
    v: Vector,
) -> None:  # fmt: skip
    """Write (or, if ``accumulate``, add) the convolution of an image [., ., C] to ``out`` [H, W,
    O]."""
    x, xo, row = image
    y, yo, yrow = out
    _conv(x, xo, row, w, y, yo, yrow, H, W, C, O, K, s, d, accumulate, v)


@loop
def pointwise(
    image: Image, w: Numbers, out: Image, H: int, W: int, C: int, O: int, accumulate: bool, v: Vector
) -> None:
    """Write (or, if ``accumulate``, add) the product over channels of an image [H, W, C] and
    weights [C, O] to ``out`` [H, W, O]: :func:`conv` for a kernel that the compiler knows, because
    with few channels the loops over a kernel's places take time.
    """
    x, xo, row = image
    y, yo, yrow = out
    _conv(x, xo, row, w, y, yo, yrow, H, W, C, O, 1, 1, 1, accumulate, v)


@unrolled
def _conv_weight_grad_tile(
    x: Any, xo: int, row: int, step: int, g: Any, go: int, grow: int, gap: int, out: Any, k: int, H: int, W: int,
    O: int, v: Any, rows: int, cols: int,
) -> None:  # fmt: skip
    """A tile of :func:`conv_weight_grad`, for one place of the kernel: channels of x, vectors of
    channels of g."""
    literally(rows), literally(cols)
    some = max(1, STRETCH // W)
    for start in range(0, H, some):
        a = tile(x, rows, cols, v)
        for r in range(start, min(start + some, H)):
            i, j = xo + r * row, go + r * grow
            for q in range(W):
                a = tile_outer(a, x, i + q * step, 1, g, j + q * gap, v)
        tile_accumulate(out, k, O, size(v), a)


@loop
def conv_weight_grad(
    image: Image, grad: Image, gap: int, out: Sums, H: int, W: int, C: int, O: int, K: int, s: int, d: int, v: Vector
) -> None:
    """Add the weight gradient [K, K, C, O] of a convolution to ``out``; C is a multiple of 4.
    Pixels of the gradient at the output are ``gap`` numbers apart."""
    x, xo, row = image
    g, go, grow = grad
    z, o = size(v), 0
    while o < O:
        cols = 1 if o + 2 * z > O else 2
        rows = 8 if C % 8 == 0 and (cols == 1 or wide(v)) else 4
        for place in range(K * K):
            i = xo + place // K * d * row + place % K * d * C
            for c in range(0, C, rows):
                k = (place * C + c) * O + o
                if rows == 8 and cols == 2:
                    _conv_weight_grad_tile(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 8, 2)
                elif cols == 2:
                    _conv_weight_grad_tile(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 4, 2)
                elif rows == 8:
                    _conv_weight_grad_tile(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 8, 1)
                else:
                    _conv_weight_grad_tile(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 4, 1)
        o += cols * z


# ---------------------------------------------------------------------- 3x3 convolutions by Winograd's algorithm

# Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308): patches of 4x4 pixels d give patches of
# 2x2 outputs A' [(G w G') * (B' d B)] A by 16 products in place of 36, with
#
#     B' = 1  0 -1  0      G = 1    0    0      A' = 1  1  1  0
#          0  1  1  0          1/2  1/2  1/2         0  1 -1  1
#          0 -1  1  0          1/2 -1/2  1/2
#          0 -1  0  1          0    0    1
#
# (the last row of B' and the last column of A' with the other sign, which spares a negation). What is transformed is
# [16, P, C] for P patches, so that each of the 16 places is a matrix product over channels. The backward pass is the
# adjoint of each part: the gradient at a patch of outputs is transformed once, for the weight and the input gradient.


@unrolled
def _filter_column(a: Any, b: Any, c: Any) -> Any:
    """G times a column."""
    return a, 0.5 * (a + b + c), 0.5 * (a - b + c), c


@loop
def winograd_filter(
    w: Numbers, wo: int, out: Numbers, k: int, C: int, O: int, first: int, last: int, flip: bool, v: Vector
) -> None:
    """Write G w G' of weights [O, C, 3, 3], rounded once: as [16, C, O] for channels from ``first``
    to ``last`` of C or, if ``flip``, as [16, O, C] for the input gradient and channels of O."""
    runs, others, step = (O, C, C * 9) if not flip else (C, O, 9)
    held = np.empty((PLACES, runs))
    for one in range(first, last):
        start = wo + one * (9 if not flip else C * 9)
        for other in range(runs):
            i = start + other * step
            p0, p1, p2, p3 = _filter_column(np.float64(w[i]), np.float64(w[i + 3]), np.float64(w[i + 6]))
            q0, q1, q2, q3 = _filter_column(np.float64(w[i + 1]), np.float64(w[i + 4]), np.float64(w[i + 7]))
            r0, r1, r2, r3 = _filter_column(np.float64(w[i + 2]), np.float64(w[i + 5]), np.float64(w[i + 8]))
            held[0, other], held[1, other], held[2, other], held[3, other] = _filter_column(p0, q0, r0)
            held[4, other], held[5, other], held[6, other], held[7, other] = _filter_column(p1, q1, r1)
            held[8, other], held[9, other], held[10, other], held[11, other] = _filter_column(p2, q2, r2)
            held[12, other], held[13, other], held[14, other], held[15, other] = _filter_column(p3, q3, r3)
        for place in range(PLACES):
            j = k + (place * others + one) * runs
            for other in range(runs):
                out[j + other] = held[place, other]


@unrolled
def _filter_column_backward(a: Any, b: Any, c: Any, d: Any) -> Any:
    """G' times a column."""
    return a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d


@loop
def winograd_filter_backward(
    d: Doubles, threads: int, length: int, k: int, w: Numbers, wo: int, C: int, O: int, first: int, last: int, v: Vector
) -> None:
    """Write G' d G to w [O, C, 3, 3], for channels from ``first`` to ``last`` of C. d [16, C, O] is
    the sum over threads, each of which has ``length`` numbers; it begins at k."""
    m = np.empty((PLACES, O))
    for c in range(first, last):
        m[:] = 0
        for rank in range(threads):
            for place in range(PLACES):
                j = rank * length + k + (place * C + c) * O
                for o in range(O):
                    m[place, o] += d[j + o]
        for o in range(O):
            i = wo + (o * C + c) * 9
            a0, a1, a2 = _filter_column_backward(m[0, o], m[4, o], m[8, o], m[12, o])
            b0, b1, b2 = _filter_column_backward(m[1, o], m[5, o], m[9, o], m[13, o])
            c0, c1, c2 = _filter_column_backward(m[2, o], m[6, o], m[10, o], m[14, o])
            d0, d1, d2 = _filter_column_backward(m[3, o], m[7, o], m[11, o], m[15, o])
            w[i], w[i + 1], w[i + 2] = _filter_column_backward(a0, b0, c0, d0)
            w[i + 3], w[i + 4], w[i + 5] = _filter_column_backward(a1, b1, c1, d1)
            w[i + 6], w[i + 7], w[i + 8] = _filter_column_backward(a2, b2, c2, d2)


@unrolled
def _load_column(x: Any, i: int, hop: int, v: Any) -> Any:
    return load(x, i, v), load(x, i + hop, v), load(x, i + 2 * hop, v), load(x, i + 3 * hop, v)


@loop
def winograd_input(image: Image, out: Numbers, R: int, T: int, C: int, v: Vector) -> None:
    """Write B' d B [16, R T, C] of R rows of T patches d of an image, two pixels apart."""
    x, xo, row = image
    z, hop = size(v), R * T * C
    for r in range(R):
        for c in range(0, C, z):
            i, k = xo + 2 * r * row + c, r * T * C + c
            p0, p1, p2, p3 = _input_column(*_load_column(x, i, row, v))
            i += C
            q0, q1, q2, q3 = _input_column(*_load_column(x, i, row, v))
            for _ in range(T):
                i += C
                s0, s1, s2, s3 = _input_column(*_load_column(x, i, row, v))
                i += C
                t0, t1, t2, t3 = _input_column(*_load_column(x, i, row, v))
                _store_input_row(out, k, hop, p0, q0, s0, t0)
                _store_input_row(out, k + 4 * hop, hop, p1, q1, s1, t1)
                _store_input_row(out, k + 8 * hop, hop, p2, q2, s2, t2)
                _store_input_row(out, k + 12 * hop, hop, p3, q3, s3, t3)
                p0, p1, p2, p3, q0, q1, q2, q3 = s0, s1, s2, s3, t0, t1, t2, t3
                k += C


@unrolled
def _input_column(a: Any, b: Any, c: Any, d: Any) -> Any:
    """B' times a column."""
    return sub(a, c), add(b, c), sub(c, b), sub(d, b)


@unrolled
def _store_input_row(out: Any, k: int, hop: int, a: Any, b: Any, c: Any, d: Any) -> None:
    e, f, g, h = _input_column(a, b, c, d)
    store(out, k, e)
    store(out, k + hop, f)
    store(out, k + 2 * hop, g)
    store(out, k + 3 * hop, h)


@unrolled
def _input_column_backward(a: Any, b: Any, c: Any, d: Any) -> Any:
    """B times a column."""
    return a, sub(sub(b, c), d), sub(add(b, c), a), d


@loop
def winograd_input_backward(
    d: Numbers, x: Numbers, xo: int, r: int, R: int, T: int, H: int, W: int, C: int, v: Vector
) -> None:
    """Add B d B' of R rows of T patches [16, R T, C] to x [H, W, C], from its row 2 r - 1 on,
    without the border."""
    z, hop, row = size(v), R * T * C, W * C
    for down in range(R):
        for c in range(0, C, z):
            k, left = down * T * C + c, xo + (2 * (r + down) - 1) * row + c
            for q in range(T):
                a0, b0, c0, d0 = _input_column_backward(*_load_column(d, k, 4 * hop, v))
                a1, b1, c1, d1 = _input_column_backward(*_load_column(d, k + hop, 4 * hop, v))
                a2, b2, c2, d2 = _input_column_backward(*_load_column(d, k + 2 * hop, 4 * hop, v))
                a3, b3, c3, d3 = _input_column_backward(*_load_column(d, k + 3 * hop, 4 * hop, v))
                i, first, last = left + (2 * q - 1) * C, q > 0, q + 1 < T
                if r + down > 0:
                    _add_input_row(x, i, C, first, last, v, a0, a1, a2, a3)
                _add_input_row(x, i + row, C, first, last, v, b0, b1, b2, b3)
                _add_input_row(x, i + 2 * row, C, first, last, v, c0, c1, c2, c3)
                if 2 * (r + down) + 2 < H:
                    _add_input_row(x, i + 3 * row, C, first, last, v, d0, d1, d2, d3)
                k += C


@unrolled
def _add_input_row(x: Any, i: int, C: int, first: bool, last: bool, v: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Add a row of four pixels, of which the first and the last may be none."""
    e, f, g, h = _input_column_backward(a, b, c, d)
    if first:
        store(x, i, add(load(x, i, v), e))
    store(x, i + C, add(load(x, i + C, v), f))
    store(x, i + 2 * C, add(load(x, i + 2 * C, v), g))
    if last:
        store(x, i + 3 * C, add(load(x, i + 3 * C, v), h))


@loop
def winograd_output(m: Numbers, out: Image, R: int, T: int, O: int, v: Vector) -> None:
    """Write A' m A of R rows of T patches m [16, R T, O] to ``out`` [2 R, 2 T, O]."""
    y, yo, yrow = out
    z, hop = size(v), R * T * O
    for r in range(R):
        for o in range(0, O, z):
            k, j = r * T * O + o, yo + 2 * r * yrow + o
            for _ in range(T):
                a0, b0 = _output_column(*_load_column(m, k, 4 * hop, v))
                a1, b1 = _output_column(*_load_column(m, k + hop, 4 * hop, v))
                a2, b2 = _output_column(*_load_column(m, k + 2 * hop, 4 * hop, v))
                a3, b3 = _output_column(*_load_column(m, k + 3 * hop, 4 * hop, v))
                e, f = _output_column(a0, a1, a2, a3)
                g, h = _output_column(b0, b1, b2, b3)
                store(y, j, e)
                store(y, j + O, f)
                store(y, j + yrow, g)
                store(y, j + yrow + O, h)
                k += O
                j += 2 * O


@unrolled
def _output_column(a: Any, b: Any, c: Any, d: Any) -> Any:
    """A' times a column."""
    return add(add(a, b), c), add(sub(b, c), d)


@loop
def winograd_output_backward(g: Numbers, out: Numbers, R: int, T: int, O: int, v: Vector) -> None:
    """Write A g A' [16, R T, O] of gradients g [2 R, 2 T, O]."""
    z, hop, row = size(v), R * T * O, 2 * T * O
    for r in range(R):
        for o in range(0, O, z):
            k, j = r * T * O + o, 2 * r * row + o
            for _ in range(T):
                a, b, c, d = load(g, j, v), load(g, j + O, v), load(g, j + row, v), load(g, j + row + O, v)
                _store_output_row(out, k, hop, a, b)
                _store_output_row(out, k + 4 * hop, hop, add(a, c), add(b, d))
                _store_output_row(out, k + 8 * hop, hop, sub(a, c), sub(b, d))
                _store_output_row(out, k + 12 * hop, hop, c, d)
                k += O
                j += 2 * O


@unrolled
def _store_output_row(out: Any, k: int, hop: int, a: Any, b: Any) -> None:
    store(out, k, a)
    store(out, k + hop, add(a, b))
    store(out, k + 2 * hop, sub(a, b))
    store(out, k + 3 * hop, b)


@loop
def winograd_multiply(x: Numbers, w: Numbers, y: Numbers, P: int, C: int, O: int, accumulate: bool, v: Vector) -> None:
    """Write (or, if ``accumulate``, add) the products of x [16, P, C] and w [16, C, O] to y [16, P,
    O]."""
    for place in range(PLACES):
        image, out = Image(x, place * P * C, 0), Image(y, place * P * O, 0)
        pointwise(image, w[place * C * O :], out, 1, P, C, O, accumulate, v)


@loop
def winograd_multiply_weight_grad(x: Numbers, g: Numbers, out: Numbers, P: int, C: int, O: int, v: Vector) -> None:
    """Add the weight gradient [16, C, O] of :func:`winograd_multiply` to ``out``."""
    for place in range(PLACES):
        image, grad = Image(x, place * P * C, 0), Image(g, place * P * O, 0)
        conv_weight_grad(image, grad, O, out[place * C * O :], 1, P, C, O, 1, 1, 1, v)


# ---------------------------------------------------------------------- sums over the pixels of one image


@loop
def moments(y: Numbers, yo: int, P: int, C: int, mean: Doubles, second: Doubles, at: int, v: Vector) -> None:
    """Write the mean of each channel of [P, C] and the sum of squared differences from it, from
    ``at`` on."""
    for c in range(0, C, size(v)):
        whole = zero(mean, v)
        for start in range(0, P, RUN):
            a0 = a1 = a2 = a3 = zero(y, v)
            p, end = start, min(start + RUN, P)
            i = yo + p * C + c
            while p + 4 <= end:
                a0 = add(a0, load(y, i, v))
                a1 = add(a1, load(y, i + C, v))
                a2 = add(a2, load(y, i + 2 * C, v))
                a3 = add(a3, load(y, i + 3 * C, v))
                i += 4 * C
                p += 4
            while p < end:
                a0 = add(a0, load(y, i, v))
                i += C
                p += 1
            whole = add(whole, add(to_double(add(a0, a1)), to_double(add(a2, a3))))
        store(mean, at + c, whole)
    centre = np.empty(C, y.dtype)
    for c in range(C):
        mean[at + c] /= P
        centre[c] = mean[at + c]
    for c in range(0, C, size(v)):
        whole = zero(mean, v)
        m = load(centre, c, v)
        for start in range(0, P, RUN):
            a0 = a1 = a2 = a3 = zero(y, v)
            p, end = start, min(start + RUN, P)
            i = yo + p * C + c
            while p + 4 <= end:
                t0 = sub(load(y, i, v), m)
                t1 = sub(load(y, i + C, v), m)
                t2 = sub(load(y, i + 2 * C, v), m)
                t3 = sub(load(y, i + 3 * C, v), m)
                a0 = fma(t0, t0, a0)
                a1 = fma(t1, t1, a1)
                a2 = fma(t2, t2, a2)
                a3 = fma(t3, t3, a3)
                i += 4 * C
                p += 4
            while p < end:
                t0 = sub(load(y, i, v), m)
                a0 = fma(t0, t0, a0)
                i += C
                p += 1
            whole = add(whole, add(to_double(add(a0, a1)), to_double(add(a2, a3))))
        store(second, at + c, whole)
    for c in range(C):  # the mean that was subtracted is a rounded one
        second[at + c] -= P * (mean[at + c] - centre[c]) ** 2


@loop
def grad_sums(
    g: Numbers, go: int, y: Numbers, yo: int, P: int, C: int, mean: Numbers, first: Doubles, second: Doubles, at: int,
    v: Vector,
) -> None:  # fmt: skip
    """Write the sums of g and of g * (y - mean) over [P, C], from ``at`` on."""
    for c in range(0, C, size(v)):
        s1 = s2 = zero(first, v)
        m = load(mean, c, v)
        for start in range(0, P, RUN):
            a0 = a1 = b0 = b1 = zero(y, v)
            p, end = start, min(start + RUN, P)
            i, j = go + p * C + c, yo + p * C + c
            while p + 2 <= end:
                e0, e1 = load(g, i, v), load(g, i + C, v)
                a0 = add(a0, e0)
                a1 = add(a1, e1)
                b0 = fma(e0, sub(load(y, j, v), m), b0)
                b1 = fma(e1, sub(load(y, j + C, v), m), b1)
                i += 2 * C
                j += 2 * C
                p += 2
            if p < end:
                e0 = load(g, i, v)
                a0 = add(a0, e0)
                b0 = fma(e0, sub(load(y, j, v), m), b0)
            s1 = add(s1, add(to_double(a0), to_double(a1)))
            s2 = add(s2, add(to_double(b0), to_double(b1)))
        store(first, at + c, s1)
        store(second, at + c, s2)


# ---------------------------------------------------------------------- images in and out of buffers


@loop
def zero_border(out: Numbers, H: int, W: int, C: int, p: int, v: Vector) -> None:
    """Write zeros to the border of p pixels around [H, W, C]."""
    row = (W + 2 * p) * C
    out[: p * row] = 0
    for r in range(p, H + p):
        out[r * row : r * row + p * C] = 0
        out[(r + 1) * row - p * C : (r + 1) * row] = 0
    out[(H + p) * row : (H + 2 * p) * row] = 0


@loop
def pad(x: Numbers, xo: int, out: Numbers, H: int, W: int, C: int, p: int, v: Vector) -> None:
    """Copy [H, W, C] into a buffer with a border of p pixels, which is not written."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = xo + r * W * C, (r + p) * row + p * C
        for c in range(W * C):  # not as slices: the compiler would prepare error messages about their lengths
            out[j + c] = x[i + c]


@loop
def pad_relu(x: Numbers, xo: int, out: Numbers, H: int, W: int, C: int, p: int, v: Vector) -> None:
    """Write max(x, 0) into a buffer with a border of p pixels, which is not written."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = xo + r * W * C, (r + p) * row + p * C
        for k in range(0, W * C, size(v)):
            t = load(x, i + k, v)
            store(out, j + k, where_positive(t, t))


@loop
def pad_scale_shift_relu(
    x: Numbers, xo: int, out: Numbers, H: int, W: int, C: int, p: int, scale: Numbers, shift: Numbers, v: Vector
) -> None:
    """Write max(scale * x + shift, 0) into a buffer with a border of p pixels, which is not
    written."""
    row = (W + 2 * p) * C
    for c in range(0, C, size(v)):
        a, b = load(scale, c, v), load(shift, c, v)
        for r in range(H):
            i, j = xo + r * W * C + c, (r + p) * row + p * C + c
            for _ in range(W):
                t = fma(load(x, i, v), a, b)
                store(out, j, where_positive(t, t))
                i += C
                j += C


@loop
def norm_backward(
    g: Numbers, go: int, y: Numbers, yo: int, out: Image, gap: int, H: int, W: int, C: int, vectors: Numbers, V: int,
    at: int, accumulate: bool, v: Vector,
) -> None:  # fmt: skip
    """Write (or, if ``accumulate``, add) the gradient before a normalisation, lead * (g - first) +
    last * (y - mean), to an image whose pixels are ``gap`` numbers apart. ``vectors``: norm vectors
    of length V, of which the normalisation has the part that begins at ``at``."""
    written, oo, row = out
    lead, first, last, mean = (
        vectors[LEAD * V + at :],
        vectors[FIRST * V + at :],
        vectors[LAST * V + at :],
        vectors[MEAN * V + at :],
    )
    for c in range(0, C, size(v)):
        a, s1, b, m, none = load(lead, c, v), load(first, c, v), load(last, c, v), load(mean, c, v), zero(g, v)
        for r in range(H):
            i, j = r * W * C + c, oo + r * row + c
            for _ in range(W):
                t = fma(sub(load(y, yo + i, v), m), b, load(written, j, v) if accumulate else none)
                store(written, j, fma(sub(load(g, go + i, v), s1), a, t))
                i += C
                j += gap


@loop
def unpad_add(x: Numbers, out: Numbers, oo: int, H: int, W: int, C: int, p: int, v: Vector) -> None:
    """Add the inside of a buffer with a border of p pixels to [H, W, C]."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = (r + p) * row + p * C, oo + r * W * C
        for k in range(0, W * C, size(v)):
            store(out, j + k, add(load(x, i + k, v), load(out, j + k, v)))


@loop
def relu_backward(image: Image, g: Numbers, go: int, out: Numbers, oo: int, H: int, W: int, C: int, v: Vector) -> None:
    """Write g [H, W, C] where an image is positive or NaN, and zero elsewhere."""
    h, ho, row = image
    for r in range(H):
        i, j = ho + r * row, r * W * C
        for k in range(j, j + W * C, size(v)):
            store(out, oo + k, where_positive(load(h, i + k - j, v), load(g, go + k, v)))


@loop
def split_phases(image: Image, out: Numbers, H: int, W: int, C: int, v: Vector) -> None:
    """Write the input of a factorised reduction's convolutions, [ceil(H / 2), ceil(W / 2), 2 C]:
    every second pixel, and after it the pixel below and to the right, zeros where there is none."""
    x, xo, row = image
    none = zero(x, v)
    j = 0
    for r in range(0, H, 2):
        for q in range(0, W, 2):
            i, there = xo + r * row + q * C, r + 1 < H and q + 1 < W
            for c in range(0, C, size(v)):
                store(out, j + c, load(x, i + c, v))
                store(out, j + C + c, load(x, i + row + C + c, v) if there else none)
            j += 2 * C


@loop
def join_phases(x: Numbers, out: Numbers, H: int, W: int, C: int, v: Vector) -> None:
    """Add phases as :func:`split_phases` writes them to [H, W, C]."""
    j = 0
    for r in range(0, H, 2):
        for q in range(0, W, 2):
            i, there = (r * W + q) * C, r + 1 < H and q + 1 < W
            for c in range(0, C, size(v)):
                store(out, i + c, add(load(out, i + c, v), load(x, j + c, v)))
                if there:
                    k = i + (W + 1) * C + c
                    store(out, k, add(load(out, k, v), load(x, j + C + c, v)))
            j += 2 * C


# ---------------------------------------------------------------------- pools and sums of one image


@loop
def pool(
    x: Numbers, y: Numbers, yo: int, inverse_counts: Numbers, largest: bool, h: int, w: int, W: int, C: int, K: int,
    s: int, v: Vector,
) -> None:  # fmt: skip
    """Pool x, in a buffer whose rows have W pixels. ``inverse_counts`` [h, w], for averages: one
    over the pixels under each window."""
    for r in range(h):
        for q in range(w):
            for c in range(0, C, size(v)):
                start = (r * s * W + q * s) * C + c
                a = load(x, start, v)
                for ky in range(K):
                    i = start + ky * W * C
                    for kx in range(K):
                        t = load(x, i, v)
                        if ky or kx:
                            a = maximum(a, t) if largest else add(a, t)
                        i += C
                if not largest:
                    a = fma(a, broadcast(inverse_counts, r * w + q, v), zero(y, v))
                store(y, yo + (r * w + q) * C + c, a)


@loop
def pool_backward(
    x: Numbers, y: Numbers, yo: int, g: Numbers, inverse_counts: Numbers, largest: bool, out: Numbers, h: int, w: int,
    W: int, C: int, K: int, s: int, v: Vector,
) -> None:  # fmt: skip
    """Add the input gradient of :func:`pool` to ``out``, a buffer like x. The first of equal pixels
    receives all of it."""
    for r in range(h):
        for q in range(w):
            for c in range(0, C, size(v)):
                start, j = (r * s * W + q * s) * C + c, (r * w + q) * C + c
                left = load(g, j, v)
                if not largest:
                    left = fma(left, broadcast(inverse_counts, r * w + q, v), zero(g, v))
                top, none = load(y, yo + j, v), zero(g, v)
                for ky in range(K):
                    i = start + ky * W * C
                    for _ in range(K):
                        take = left
                        if largest:
                            take = fma(equal(load(x, i, v), top), left, none)
                            left = sub(left, take)
                        store(out, i, add(load(out, i, v), take))
                        i += C


@loop
def scale_shift(
    y: Numbers, yo: int, out: Numbers, oo: int, scale: Numbers, shift: Numbers, P: int, C: int, accumulate: bool,
    v: Vector,
) -> None:  # fmt: skip
    """Write (or, if ``accumulate``, add) scale * y + shift of [P, C]."""
    for c in range(0, C, size(v)):
        a, b = load(scale, c, v), load(shift, c, v)
        if accumulate:
            for k in range(c, P * C + c, C):
                store(out, oo + k, add(load(out, oo + k, v), fma(load(y, yo + k, v), a, b)))
        else:
            for k in range(c, P * C + c, C):
                store(out, oo + k, fma(load(y, yo + k, v), a, b))
