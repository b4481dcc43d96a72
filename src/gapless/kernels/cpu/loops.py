"""Loops over images that Numba compiles for the processor: convolutions, moments, normalisations, and their gradients.

All arrays have one axis here; an image is [H, W, C], a pixel's channels lie together and are taken ``size(v)`` at a
time. A convolution reads an image whose border of zeros is there already, so it has no cases. Tiles keep sums in
registers, as many as hide how long a multiply-add takes and as broad as spares loads; their sides are written out,
and so are the kernels that networks have. Sums over pixels are taken in double precision, run by run.

A *slide* is a depthwise convolution, weights [K, K, C]; a *conv* goes over channels, weights [K, K, C, O].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import literally, njit  # type: ignore[attr-defined]

from gapless.kernels.cpu.lanes import (
    add,
    double,
    fma,
    into,
    load,
    most,
    outer,
    paired,
    plus,
    put,
    same,
    size,
    splat,
    store,
    sub,
    taps,
    taps_back,
    tile,
    where,
    zero,
)

RUN = 32
"""Pixels that are summed in single precision before the sum goes on in double."""
STRETCH = 256
"""The same for gradients at weights, which fill whole tiles: the rows that have so many, one at least."""
PLACES = 16
"""Of a patch of minimal filtering."""
PATCHES = 16
"""That are transformed at a time, at least, if there are so many: a row of them at least."""


HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True}
"""What all compiled functions are told."""


def compiled(function: Any, *, called: bool = True) -> Any:
    """Compile a function when it is first called with its kinds of arguments, and keep it on disk where that can be.
    What Python itself never calls is compiled faster if it is not ``called``."""

    def lazily(keep: bool) -> Any:
        return njit(function, **HOW | {"cache": keep, "no_cpython_wrapper": not called})

    try:
        return lazily(keep=True)
    except RuntimeError:  # neither beside this file nor in a home folder may it be written
        return lazily(keep=False)


def unrolled(function: Any) -> Any:
    """Compile a function into those that call it, anew for each tile that they name."""
    return njit(function, **HOW | {"forceinline": True, "no_cpython_wrapper": True})


# ---------------------------------------------------------------------- convolutions of one image


@unrolled
def _slide_some(x: Any, i: int, row: int, w: Any, c: int, y: Any, j: int, C: int, K: int, s: int, d: int, more: bool,
                v: Any, P: int) -> None:  # fmt: skip
    """P pixels of a row of :func:`slide`, for a vector of channels."""
    literally(P)
    a = tile(y, P, 1, v)
    for ky in range(K):
        for kx in range(K):
            a = taps(a, x, i + ky * d * row + kx * d * C, s * C, w, (ky * K + kx) * C + c, 1, 1, 1, v)
    put(y, j, C, C, plus(a, y, j, C, C) if more else a)


@unrolled
def _slide_known(x: Any, i: int, row: int, w: Any, c: int, y: Any, j: int, C: int, K: int, s: int, d: int, more: bool,
                 v: Any, P: int) -> None:  # fmt: skip
    """The same, for a kernel that the compiler knows."""
    literally(K), literally(s), literally(d), literally(P)
    a = tile(y, P, 1, v)
    for ky in range(K):
        a = taps(a, x, i + ky * d * row, C, w, ky * K * C + c, K, s, d, v)
    put(y, j, C, C, plus(a, y, j, C, C) if more else a)


@compiled
def slide(x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, K: int, s: int, d: int,
          more: bool, v: Any) -> None:  # fmt: skip
    """Write to (or, if ``more``, add to) y [H, W, C] the depthwise convolution of x, whose rows are ``row`` long."""
    for r in range(H):
        for c in range(0, C, size(v)):
            i, j, q = xo + r * s * row + c, yo + r * yrow + c, 0
            while s == 1 and q + 8 <= W:
                if K == 3 and d == 1:
                    _slide_known(x, i + q * C, row, w, c, y, j + q * C, C, 3, 1, 1, more, v, 8)
                elif K == 5 and d == 1:
                    _slide_known(x, i + q * C, row, w, c, y, j + q * C, C, 5, 1, 1, more, v, 8)
                elif K == 3 and d == 2:
                    _slide_known(x, i + q * C, row, w, c, y, j + q * C, C, 3, 1, 2, more, v, 8)
                elif K == 5 and d == 2:
                    _slide_known(x, i + q * C, row, w, c, y, j + q * C, C, 5, 1, 2, more, v, 8)
                else:
                    _slide_some(x, i + q * C, row, w, c, y, j + q * C, C, K, 1, d, more, v, 8)
                q += 8
            while q + 4 <= W:
                _slide_some(x, i + q * s * C, row, w, c, y, j + q * C, C, K, s, d, more, v, 4)
                q += 4
            while q < W:
                _slide_some(x, i + q * s * C, row, w, c, y, j + q * C, C, K, s, d, more, v, 1)
                q += 1


@compiled
def slide_back(g: Any, go: int, grow: int, w: Any, x: Any, xo: int, row: int, H: int, W: int, C: int, K: int, s: int,
               d: int, v: Any) -> None:  # fmt: skip
    """Add to x, with its border, the gradient g [H, W, C] of a depthwise convolution of any stride."""
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
def _slide_weight(x: Any, xo: int, row: int, step: int, below: int, g: Any, go: int, grow: int, out: Any, k: int,
                  down: int, H: int, W: int, C: int, v: Any, rows: int, cols: int) -> None:  # fmt: skip
    """Some weights of :func:`slide_weight`, for a vector of channels. ``step`` lies between two pixels of x and two
    columns, ``below`` between two rows of the tile in x, ``down`` in the weights."""
    literally(rows), literally(cols)
    some = max(1, STRETCH // W)
    for start in range(0, H, some):
        a = tile(x, rows, cols, v)
        for r in range(start, min(start + some, H)):
            i, j, q = xo + r * row, go + r * grow, 0
            while q + 4 <= W:
                a = taps_back(a, x, i + q * step, below, step, g, j + q * C, C, 4, v)
                q += 4
            while q < W:
                a = taps_back(a, x, i + q * step, below, step, g, j + q * C, C, 1, v)
                q += 1
        into(out, k, down, C, a)


@compiled
def slide_weight(x: Any, xo: int, row: int, g: Any, go: int, grow: int, out: Any, H: int, W: int, C: int, K: int,
                 s: int, d: int, v: Any) -> None:  # fmt: skip
    """Add the gradient at the weights [K, K, C] to ``out``, in double precision."""
    m, n, plain = d * row, d * C, s == 1 and d == 1
    for c in range(0, C, size(v)):
        i, j, k, ky = xo + c, go + c, c, 0
        while ky < K:  # some rows of the kernel, or a row of it stood on end
            if plain and K == 3:
                _slide_weight(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 3, 3)
                rows = 3
            elif plain and K == 5 and ky + 2 <= K:
                _slide_weight(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 2, 5)
                rows = 2
            elif plain and K == 5:
                _slide_weight(x, i, row, C, m, g, j, grow, out, k, K * C, H, W, C, v, 1, 5)
                rows = 1
            elif K == 3:
                _slide_weight(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 3, 1)
                rows = 1
            elif K == 5:
                _slide_weight(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 5, 1)
                rows = 1
            elif K == 7:
                _slide_weight(x, i, s * row, s * C, n, g, j, grow, out, k, C, H, W, C, v, 7, 1)
                rows = 1
            else:
                for kx in range(K):
                    _slide_weight(x, i + kx * n, s * row, s * C, n, g, j, grow, out, k + kx * C, C, H, W, C, v, 1, 1)
                rows = 1
            i += rows * m
            k += rows * K * C
            ky += rows


@unrolled
def _conv(x: Any, xo: int, row: int, step: int, w: Any, o: int, y: Any, j: int, C: int, O: int, K: int, d: int,
          more: bool, v: Any, rows: int, cols: int) -> None:  # fmt: skip
    """A tile of :func:`conv`: pixels of a row, vectors of channels."""
    literally(rows), literally(cols)
    a = tile(y, rows, cols, v)
    for ky in range(K):
        for kx in range(K):
            i, k = xo + ky * d * row + kx * d * C, (ky * K + kx) * C * O + o
            for c in range(C):
                a = outer(a, x, i + c, step, w, k + c * O, v)
    put(y, j, O, size(v), plus(a, y, j, O, size(v)) if more else a)


@compiled
def conv(x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, O: int, K: int, s: int,
         d: int, more: bool, v: Any) -> None:  # fmt: skip
    """Write to (or, if ``more``, add to) y [H, W, O] the convolution of x, [., ., C], over places and channels."""
    step, z = s * C, size(v)
    for r in range(H):
        o = 0
        while o < O:
            i, j, q, cols = xo + r * s * row, yo + r * yrow + o, 0, 1 if o + 2 * z > O else 2
            while cols == 2 and paired(v) and q + 8 <= W:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 8, 2)
                q += 8
            while cols == 2 and q + 6 <= W and W - q != 8:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 6, 2)
                q += 6
            while cols == 2 and q + 4 <= W:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 4, 2)
                q += 4
            while cols == 2 and q < W:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 1, 2)
                q += 1
            while q + 8 <= W:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 8, 1)
                q += 8
            while q < W:
                _conv(x, i + q * step, row, step, w, o, y, j + q * O, C, O, K, d, more, v, 1, 1)
                q += 1
            o += cols * z


@unrolled
def _conv_weight(x: Any, xo: int, row: int, step: int, g: Any, go: int, grow: int, gap: int, out: Any, k: int, H: int,
                 W: int, O: int, v: Any, rows: int, cols: int) -> None:  # fmt: skip
    """A tile of :func:`conv_weight`, for one place of the kernel: channels of x, vectors of channels of g."""
    literally(rows), literally(cols)
    some = max(1, STRETCH // W)
    for start in range(0, H, some):
        a = tile(x, rows, cols, v)
        for r in range(start, min(start + some, H)):
            i, j = xo + r * row, go + r * grow
            for q in range(W):
                a = outer(a, x, i + q * step, 1, g, j + q * gap, v)
        into(out, k, O, size(v), a)


@compiled
def conv_weight(x: Any, xo: int, row: int, g: Any, go: int, grow: int, gap: int, out: Any, H: int, W: int, C: int,
                O: int, K: int, s: int, d: int, v: Any) -> None:  # fmt: skip
    """Add the gradient at the weights [K, K, C, O] to ``out``, in double precision; four divides C. Pixels of g are
    ``gap`` numbers apart."""
    z, o = size(v), 0
    while o < O:
        cols = 1 if o + 2 * z > O else 2
        rows = 8 if C % 8 == 0 and (cols == 1 or paired(v)) else 4
        for place in range(K * K):
            i = xo + place // K * d * row + place % K * d * C
            for c in range(0, C, rows):
                k = (place * C + c) * O + o
                if rows == 8 and cols == 2:
                    _conv_weight(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 8, 2)
                elif cols == 2:
                    _conv_weight(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 4, 2)
                elif rows == 8:
                    _conv_weight(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 8, 1)
                else:
                    _conv_weight(x, i + c, s * row, s * C, g, go + o, grow, gap, out, k, H, W, O, v, 4, 1)
        o += cols * z


# ---------------------------------------------------------------------- 3x3 convolutions by minimal filtering

# Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308): patches of 4x4 pixels d give patches of
# 2x2 outputs A' [(G w G') * (B' d B)] A by 16 products in place of 36, with
#
#     B' = 1  0 -1  0      G = 1    0    0      A' = 1  1  1  0
#          0  1  1  0          1/2  1/2  1/2         0  1 -1  1
#          0 -1  1  0          1/2 -1/2  1/2
#          0 -1  0  1          0    0    1
#
# (the last row of B' and the last column of A' with the other sign, which spares a negation). What is transformed is
# [16, P, C] for P patches, so that each of the 16 places is a matrix product over channels. The way back is the adjoint
# of each part: the gradient at a patch of outputs is transformed once, for weights and for what was read.


@unrolled
def _filter(a: Any, b: Any, c: Any) -> Any:
    """G times a column."""
    return a, 0.5 * (a + b + c), 0.5 * (a - b + c), c


@compiled
def filters(w: Any, wo: int, out: Any, k: int, C: int, O: int, first: int, last: int, back: bool) -> None:
    """Write G w G' of weights [O, C, 3, 3] as [16, C, O] or, for the way back, as [16, O, C], rounded once: for the
    channels from ``first`` to ``last``, of C or, for the way back, of O."""
    runs, others, step = (O, C, C * 9) if not back else (C, O, 9)
    held = np.empty((PLACES, runs))
    for one in range(first, last):
        start = wo + one * (9 if not back else C * 9)
        for other in range(runs):
            i = start + other * step
            p0, p1, p2, p3 = _filter(np.float64(w[i]), np.float64(w[i + 3]), np.float64(w[i + 6]))
            q0, q1, q2, q3 = _filter(np.float64(w[i + 1]), np.float64(w[i + 4]), np.float64(w[i + 7]))
            r0, r1, r2, r3 = _filter(np.float64(w[i + 2]), np.float64(w[i + 5]), np.float64(w[i + 8]))
            held[0, other], held[1, other], held[2, other], held[3, other] = _filter(p0, q0, r0)
            held[4, other], held[5, other], held[6, other], held[7, other] = _filter(p1, q1, r1)
            held[8, other], held[9, other], held[10, other], held[11, other] = _filter(p2, q2, r2)
            held[12, other], held[13, other], held[14, other], held[15, other] = _filter(p3, q3, r3)
        for place in range(PLACES):
            j = k + (place * others + one) * runs
            for other in range(runs):
                out[j + other] = held[place, other]


@unrolled
def _filter_back(a: Any, b: Any, c: Any, d: Any) -> Any:
    """G' times a column."""
    return a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d


@compiled
def filters_back(d: Any, k: int, w: Any, wo: int, C: int, O: int, first: int, last: int) -> None:
    """Write G' d G to [O, C, 3, 3], of the sum of the rows of d, each [16, C, O] from k on: for channels from ``first``
    to ``last`` of C."""
    m = np.empty((PLACES, O))
    for c in range(first, last):
        m[:] = 0
        for rank in range(len(d)):
            for place in range(PLACES):
                j = k + (place * C + c) * O
                for o in range(O):
                    m[place, o] += d[rank, j + o]
        for o in range(O):
            i = wo + (o * C + c) * 9
            a0, a1, a2 = _filter_back(m[0, o], m[4, o], m[8, o], m[12, o])
            b0, b1, b2 = _filter_back(m[1, o], m[5, o], m[9, o], m[13, o])
            c0, c1, c2 = _filter_back(m[2, o], m[6, o], m[10, o], m[14, o])
            d0, d1, d2 = _filter_back(m[3, o], m[7, o], m[11, o], m[15, o])
            w[i], w[i + 1], w[i + 2] = _filter_back(a0, b0, c0, d0)
            w[i + 3], w[i + 4], w[i + 5] = _filter_back(a1, b1, c1, d1)
            w[i + 6], w[i + 7], w[i + 8] = _filter_back(a2, b2, c2, d2)


@unrolled
def _column(x: Any, i: int, hop: int, v: Any) -> Any:
    return load(x, i, v), load(x, i + hop, v), load(x, i + 2 * hop, v), load(x, i + 3 * hop, v)


@compiled
def patches(x: Any, xo: int, row: int, out: Any, R: int, T: int, C: int, v: Any) -> None:
    """Write B' d B [16, R T, C] of R rows of T patches, each two pixels behind the one before."""
    z, hop = size(v), R * T * C
    for r in range(R):
        for c in range(0, C, z):
            i, k = xo + 2 * r * row + c, r * T * C + c
            p0, p1, p2, p3 = _patch(*_column(x, i, row, v))
            i += C
            q0, q1, q2, q3 = _patch(*_column(x, i, row, v))
            for _ in range(T):
                i += C
                s0, s1, s2, s3 = _patch(*_column(x, i, row, v))
                i += C
                t0, t1, t2, t3 = _patch(*_column(x, i, row, v))
                _row_of_patch(out, k, hop, p0, q0, s0, t0)
                _row_of_patch(out, k + 4 * hop, hop, p1, q1, s1, t1)
                _row_of_patch(out, k + 8 * hop, hop, p2, q2, s2, t2)
                _row_of_patch(out, k + 12 * hop, hop, p3, q3, s3, t3)
                p0, p1, p2, p3, q0, q1, q2, q3 = s0, s1, s2, s3, t0, t1, t2, t3
                k += C


@unrolled
def _patch(a: Any, b: Any, c: Any, d: Any) -> Any:
    """B' times a column."""
    return sub(a, c), add(b, c), sub(c, b), sub(d, b)


@unrolled
def _row_of_patch(out: Any, k: int, hop: int, a: Any, b: Any, c: Any, d: Any) -> None:
    e, f, g, h = _patch(a, b, c, d)
    store(out, k, e)
    store(out, k + hop, f)
    store(out, k + 2 * hop, g)
    store(out, k + 3 * hop, h)


@unrolled
def _patch_back(a: Any, b: Any, c: Any, d: Any) -> Any:
    """B times a column."""
    return a, sub(sub(b, c), d), sub(add(b, c), a), d


@compiled
def patches_back(d: Any, x: Any, xo: int, r: int, R: int, T: int, H: int, W: int, C: int, v: Any) -> None:
    """Add to x [H, W, C], from its row 2 r - 1 on, B d B' of R rows of T patches [16, R T, C]; what falls on the border
    is left out."""
    z, hop, row = size(v), R * T * C, W * C
    for down in range(R):
        for c in range(0, C, z):
            k, left = down * T * C + c, xo + (2 * (r + down) - 1) * row + c
            for q in range(T):
                a0, b0, c0, d0 = _patch_back(*_column(d, k, 4 * hop, v))
                a1, b1, c1, d1 = _patch_back(*_column(d, k + hop, 4 * hop, v))
                a2, b2, c2, d2 = _patch_back(*_column(d, k + 2 * hop, 4 * hop, v))
                a3, b3, c3, d3 = _patch_back(*_column(d, k + 3 * hop, 4 * hop, v))
                i, first, last = left + (2 * q - 1) * C, q > 0, q + 1 < T
                if r + down > 0:
                    _onto(x, i, C, first, last, v, a0, a1, a2, a3)
                _onto(x, i + row, C, first, last, v, b0, b1, b2, b3)
                _onto(x, i + 2 * row, C, first, last, v, c0, c1, c2, c3)
                if 2 * (r + down) + 2 < H:
                    _onto(x, i + 3 * row, C, first, last, v, d0, d1, d2, d3)
                k += C


@unrolled
def _onto(x: Any, i: int, C: int, first: bool, last: bool, v: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Add a row of four pixels, of which the first and the last may be none."""
    e, f, g, h = _patch_back(a, b, c, d)
    if first:
        store(x, i, add(load(x, i, v), e))
    store(x, i + C, add(load(x, i + C, v), f))
    store(x, i + 2 * C, add(load(x, i + 2 * C, v), g))
    if last:
        store(x, i + 3 * C, add(load(x, i + 3 * C, v), h))


@compiled
def outputs(m: Any, y: Any, yo: int, yrow: int, R: int, T: int, O: int, v: Any) -> None:
    """Write A' m A of R rows of T patches [16, R T, O] to y [2 R, 2 T, O]."""
    z, hop = size(v), R * T * O
    for r in range(R):
        for o in range(0, O, z):
            k, j = r * T * O + o, yo + 2 * r * yrow + o
            for _ in range(T):
                a0, b0 = _output(*_column(m, k, 4 * hop, v))
                a1, b1 = _output(*_column(m, k + hop, 4 * hop, v))
                a2, b2 = _output(*_column(m, k + 2 * hop, 4 * hop, v))
                a3, b3 = _output(*_column(m, k + 3 * hop, 4 * hop, v))
                e, f = _output(a0, a1, a2, a3)
                g, h = _output(b0, b1, b2, b3)
                store(y, j, e)
                store(y, j + O, f)
                store(y, j + yrow, g)
                store(y, j + yrow + O, h)
                k += O
                j += 2 * O


@unrolled
def _output(a: Any, b: Any, c: Any, d: Any) -> Any:
    """A' times a column."""
    return add(add(a, b), c), add(sub(b, c), d)


@compiled
def outputs_back(g: Any, out: Any, R: int, T: int, O: int, v: Any) -> None:
    """Write A g A' [16, R T, O] of gradients g [2 R, 2 T, O]."""
    z, hop, row = size(v), R * T * O, 2 * T * O
    for r in range(R):
        for o in range(0, O, z):
            k, j = r * T * O + o, 2 * r * row + o
            for _ in range(T):
                a, b, c, d = load(g, j, v), load(g, j + O, v), load(g, j + row, v), load(g, j + row + O, v)
                _row_of_outputs(out, k, hop, a, b)
                _row_of_outputs(out, k + 4 * hop, hop, add(a, c), add(b, d))
                _row_of_outputs(out, k + 8 * hop, hop, sub(a, c), sub(b, d))
                _row_of_outputs(out, k + 12 * hop, hop, c, d)
                k += O
                j += 2 * O


@unrolled
def _row_of_outputs(out: Any, k: int, hop: int, a: Any, b: Any) -> None:
    store(out, k, a)
    store(out, k + hop, add(a, b))
    store(out, k + 2 * hop, sub(a, b))
    store(out, k + 3 * hop, b)


@compiled
def multiply(x: Any, w: Any, y: Any, P: int, C: int, O: int, more: bool, v: Any) -> None:
    """Write to (or, if ``more``, add to) y [16, P, O] the products of x [16, P, C] and w [16, C, O]."""
    for place in range(PLACES):
        conv(x, place * P * C, 0, w[place * C * O :], y, place * P * O, 0, 1, P, C, O, 1, 1, 1, more, v)


@compiled
def multiply_weight(x: Any, g: Any, out: Any, P: int, C: int, O: int, v: Any) -> None:
    """Add the gradient at the weights [16, C, O] to ``out``."""
    for place in range(PLACES):
        conv_weight(x, place * P * C, 0, g, place * P * O, 0, O, out[place * C * O :], 1, P, C, O, 1, 1, 1, v)


# ---------------------------------------------------------------------- sums over the pixels of one image


@compiled
def moments(y: Any, yo: int, P: int, C: int, mean: Any, second: Any, at: int, v: Any) -> None:
    """Write the mean of each channel of [P, C], and the sum of squared distances from it, from ``at`` on."""
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
            whole = add(whole, add(double(add(a0, a1)), double(add(a2, a3))))
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
            whole = add(whole, add(double(add(a0, a1)), double(add(a2, a3))))
        store(second, at + c, whole)
    for c in range(C):  # the mean that was subtracted is a rounded one
        second[at + c] -= P * (mean[at + c] - centre[c]) ** 2


@compiled
def products(g: Any, go: int, y: Any, yo: int, P: int, C: int, mean: Any, first: Any, second: Any, at: int,
             v: Any) -> None:  # fmt: skip
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
            s1 = add(s1, add(double(a0), double(a1)))
            s2 = add(s2, add(double(b0), double(b1)))
        store(first, at + c, s1)
        store(second, at + c, s2)


# ---------------------------------------------------------------------- images in and out of buffers


@compiled
def hem(out: Any, H: int, W: int, C: int, p: int) -> None:
    """Zero the border of p pixels of a buffer around [H, W, C]."""
    row = (W + 2 * p) * C
    out[: p * row] = 0
    for r in range(p, H + p):
        out[r * row : r * row + p * C] = 0
        out[(r + 1) * row - p * C : (r + 1) * row] = 0
    out[(H + p) * row : (H + 2 * p) * row] = 0


@compiled
def frame(x: Any, xo: int, out: Any, H: int, W: int, C: int, p: int) -> None:
    """Copy [H, W, C] into a buffer with a border of p pixels, which is left as it is."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = xo + r * W * C, (r + p) * row + p * C
        for c in range(W * C):  # not as slices, for whose lengths the compiler would prepare sentences
            out[j + c] = x[i + c]


@compiled
def frame_positive(x: Any, xo: int, out: Any, H: int, W: int, C: int, p: int, v: Any) -> None:
    """Write max(x, 0) into a buffer with a border of p pixels, which is left as it is."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = xo + r * W * C, (r + p) * row + p * C
        for k in range(0, W * C, size(v)):
            t = load(x, i + k, v)
            store(out, j + k, where(t, t))


@compiled
def frame_relu(x: Any, xo: int, out: Any, H: int, W: int, C: int, p: int, scale: Any, shift: Any, v: Any) -> None:
    """Write max(scale * x + shift, 0) into a buffer with a border of p pixels, which is left as it is."""
    row = (W + 2 * p) * C
    for c in range(0, C, size(v)):
        a, b = load(scale, c, v), load(shift, c, v)
        for r in range(H):
            i, j = xo + r * W * C + c, (r + p) * row + p * C + c
            for _ in range(W):
                t = fma(load(x, i, v), a, b)
                store(out, j, where(t, t))
                i += C
                j += C


@compiled
def error(g: Any, go: int, y: Any, yo: int, out: Any, oo: int, row: int, gap: int, H: int, W: int, C: int, lead: Any,
          first: Any, last: Any, mean: Any, more: bool, v: Any) -> None:  # fmt: skip
    """Write (or, if ``more``, add) lead * (g - first) + last * (y - mean), the gradient before a normalisation, to rows
    of pixels that are ``gap`` numbers apart."""
    for c in range(0, C, size(v)):
        a, s1, b, m, none = load(lead, c, v), load(first, c, v), load(last, c, v), load(mean, c, v), zero(g, v)
        for r in range(H):
            i, j = r * W * C + c, oo + r * row + c
            for _ in range(W):
                t = fma(sub(load(y, yo + i, v), m), b, load(out, j, v) if more else none)
                store(out, j, fma(sub(load(g, go + i, v), s1), a, t))
                i += C
                j += gap


@compiled
def unframe(x: Any, out: Any, oo: int, H: int, W: int, C: int, p: int, v: Any) -> None:
    """Add the inside of a buffer with a border of p pixels to [H, W, C]."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = (r + p) * row + p * C, oo + r * W * C
        for k in range(0, W * C, size(v)):
            store(out, j + k, add(load(x, i + k, v), load(out, j + k, v)))


@compiled
def gate(h: Any, ho: int, row: int, g: Any, go: int, out: Any, oo: int, H: int, W: int, C: int, v: Any) -> None:
    """Write g [H, W, C] where h, whose rows are ``row`` long, is positive, and zero elsewhere."""
    for r in range(H):
        i, j = ho + r * row, r * W * C
        for k in range(j, j + W * C, size(v)):
            store(out, oo + k, where(load(h, i + k - j, v), load(g, go + k, v)))


@compiled
def halve(x: Any, xo: int, row: int, out: Any, H: int, W: int, C: int, v: Any) -> None:
    """Write what the convolutions of a factorised reduction read, [ceil(H / 2), ceil(W / 2), 2 C]: each second pixel,
    and behind it the one below and at the right of it, zeros where there is none."""
    none = zero(x, v)
    j = 0
    for r in range(0, H, 2):
        for q in range(0, W, 2):
            i, there = xo + r * row + q * C, r + 1 < H and q + 1 < W
            for c in range(0, C, size(v)):
                store(out, j + c, load(x, i + c, v))
                store(out, j + C + c, load(x, i + row + C + c, v) if there else none)
            j += 2 * C


@compiled
def unhalve(x: Any, out: Any, H: int, W: int, C: int, v: Any) -> None:
    """Add what lies as :func:`halve` writes it to [H, W, C]."""
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


@compiled
def pool(x: Any, y: Any, yo: int, shares: Any, largest: bool, h: int, w: int, W: int, C: int, K: int, s: int,
         v: Any) -> None:  # fmt: skip
    """Pool x, in a buffer of rows of W pixels. ``shares`` [h, w], for averages: one over the pixels under a window."""
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
                            a = most(a, t) if largest else add(a, t)
                        i += C
                if not largest:
                    a = fma(a, splat(shares, r * w + q, v), zero(y, v))
                store(y, yo + (r * w + q) * C + c, a)


@compiled
def pool_back(x: Any, y: Any, yo: int, g: Any, shares: Any, largest: bool, out: Any, h: int, w: int, W: int, C: int,
              K: int, s: int, v: Any) -> None:  # fmt: skip
    """Add the gradient of :func:`pool` to ``out``, a buffer like x. The first of equal pixels takes it all."""
    for r in range(h):
        for q in range(w):
            for c in range(0, C, size(v)):
                start, j = (r * s * W + q * s) * C + c, (r * w + q) * C + c
                left = load(g, j, v)
                if not largest:
                    left = fma(left, splat(shares, r * w + q, v), zero(g, v))
                top, none = load(y, yo + j, v), zero(g, v)
                for ky in range(K):
                    i = start + ky * W * C
                    for _ in range(K):
                        take = left
                        if largest:
                            take = fma(same(load(x, i, v), top), left, none)
                            left = sub(left, take)
                        store(out, i, add(load(out, i, v), take))
                        i += C


@compiled
def weigh(y: Any, yo: int, out: Any, oo: int, scale: Any, shift: Any, P: int, C: int, more: bool, v: Any) -> None:
    """Write scale * y + shift of [P, C], or add it."""
    for c in range(0, C, size(v)):
        a, b = load(scale, c, v), load(shift, c, v)
        if more:
            for k in range(c, P * C + c, C):
                store(out, oo + k, add(load(out, oo + k, v), fma(load(y, yo + k, v), a, b)))
        else:
            for k in range(c, P * C + c, C):
                store(out, oo + k, fma(load(y, yo + k, v), a, b))
