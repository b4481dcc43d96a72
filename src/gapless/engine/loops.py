"""Loops over images that Numba compiles for the processor: convolutions, moments, normalisations, and their gradients.

All arrays have one axis here; an image is [H, W, C], a pixel's channels lie together and are taken ``size(v)`` at a
time. A convolution reads an image whose border of zeros is there already, so it has no cases. Tiles of eight pixels
keep sums in registers: in each step of their innermost loop one weight serves eight multiply-adds. Sums over pixels are
taken in double precision, run by run.

A *slide* is a depthwise convolution, weights [K, K, C]; a *conv* goes over channels, weights [K, K, C, O].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gapless.engine.lanes import add, double, fma, load, most, paired, same, size, splat, store, sub, where, zero

RUN = 32
"""Pixels that are summed in single precision before the sum goes on in double."""


def compiled(function: Any) -> Any:
    """Compile a function when it is first called with its kinds of arguments, and keep it on disk where that can be."""

    def lazily(keep: bool) -> Any:
        return njit(function, cache=keep, nogil=True, error_model="numpy", boundscheck=False)

    try:
        return lazily(keep=True)
    except RuntimeError:  # neither beside this file nor in a home folder may it be written
        return lazily(keep=False)


# ---------------------------------------------------------------------- groups of vectors


@compiled
def put8(y: Any, j: int, gap: int, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any, a6: Any, a7: Any, more: bool,
         v: Any) -> None:  # fmt: skip
    """Write or add eight vectors, ``gap`` numbers apart."""
    if more:
        a0 = add(a0, load(y, j, v))
        a1 = add(a1, load(y, j + gap, v))
        a2 = add(a2, load(y, j + 2 * gap, v))
        a3 = add(a3, load(y, j + 3 * gap, v))
        a4 = add(a4, load(y, j + 4 * gap, v))
        a5 = add(a5, load(y, j + 5 * gap, v))
        a6 = add(a6, load(y, j + 6 * gap, v))
        a7 = add(a7, load(y, j + 7 * gap, v))
    store(y, j, a0)
    store(y, j + gap, a1)
    store(y, j + 2 * gap, a2)
    store(y, j + 3 * gap, a3)
    store(y, j + 4 * gap, a4)
    store(y, j + 5 * gap, a5)
    store(y, j + 6 * gap, a6)
    store(y, j + 7 * gap, a7)


@compiled
def add4(out: Any, k: int, gap: int, a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, b2: Any, b3: Any,
         v: Any) -> None:  # fmt: skip
    """Add, in double precision, a + b for four pairs of vectors, ``gap`` numbers apart."""
    store(out, k, add(load(out, k, v), add(double(a0), double(b0))))
    store(out, k + gap, add(load(out, k + gap, v), add(double(a1), double(b1))))
    store(out, k + 2 * gap, add(load(out, k + 2 * gap, v), add(double(a2), double(b2))))
    store(out, k + 3 * gap, add(load(out, k + 3 * gap, v), add(double(a3), double(b3))))


# ---------------------------------------------------------------------- convolutions of one image


@compiled
def slide(x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, K: int, s: int, d: int,
          more: bool, v: Any) -> None:  # fmt: skip
    """Write to (or, if ``more``, add to) y [H, W, C] the depthwise convolution of x, whose rows are ``row`` long."""
    step = s * C
    for r in range(H):
        for c in range(0, C, size(v)):
            q = 0
            while q + 8 <= W:
                a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero(x, v)
                for ky in range(K):
                    i = xo + (r * s + ky * d) * row + q * step + c
                    for kx in range(K):
                        t = load(w, (ky * K + kx) * C + c, v)
                        a0 = fma(load(x, i, v), t, a0)
                        a1 = fma(load(x, i + step, v), t, a1)
                        a2 = fma(load(x, i + 2 * step, v), t, a2)
                        a3 = fma(load(x, i + 3 * step, v), t, a3)
                        a4 = fma(load(x, i + 4 * step, v), t, a4)
                        a5 = fma(load(x, i + 5 * step, v), t, a5)
                        a6 = fma(load(x, i + 6 * step, v), t, a6)
                        a7 = fma(load(x, i + 7 * step, v), t, a7)
                        i += d * C
                put8(y, yo + r * yrow + q * C + c, C, a0, a1, a2, a3, a4, a5, a6, a7, more, v)
                q += 8
            while q < W:
                a = zero(x, v)
                for ky in range(K):
                    i = xo + (r * s + ky * d) * row + q * step + c
                    for kx in range(K):
                        a = fma(load(x, i, v), load(w, (ky * K + kx) * C + c, v), a)
                        i += d * C
                j = yo + r * yrow + q * C + c
                store(y, j, add(a, load(y, j, v)) if more else a)
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


@compiled
def slide_weight(x: Any, xo: int, row: int, g: Any, go: int, grow: int, out: Any, H: int, W: int, C: int, K: int,
                 s: int, d: int, v: Any) -> None:  # fmt: skip
    """Add the gradient at the weights [K, K, C] to ``out``, in double precision."""
    step, m = s * C, d * C
    for c in range(0, C, size(v)):
        for ky in range(K):
            kx = 0
            while kx + 3 <= K:
                a0 = a1 = a2 = b0 = b1 = b2 = zero(x, v)
                for r in range(H):
                    i = xo + (r * s + ky * d) * row + kx * m + c
                    j = go + r * grow + c
                    q = 0
                    while q + 2 <= W:
                        e = load(g, j, v)
                        a0 = fma(load(x, i, v), e, a0)
                        a1 = fma(load(x, i + m, v), e, a1)
                        a2 = fma(load(x, i + 2 * m, v), e, a2)
                        e = load(g, j + C, v)
                        i += step
                        b0 = fma(load(x, i, v), e, b0)
                        b1 = fma(load(x, i + m, v), e, b1)
                        b2 = fma(load(x, i + 2 * m, v), e, b2)
                        i += step
                        j += 2 * C
                        q += 2
                    if q < W:
                        e = load(g, j, v)
                        a0 = fma(load(x, i, v), e, a0)
                        a1 = fma(load(x, i + m, v), e, a1)
                        a2 = fma(load(x, i + 2 * m, v), e, a2)
                k = (ky * K + kx) * C + c
                store(out, k, add(load(out, k, v), add(double(a0), double(b0))))
                store(out, k + C, add(load(out, k + C, v), add(double(a1), double(b1))))
                store(out, k + 2 * C, add(load(out, k + 2 * C, v), add(double(a2), double(b2))))
                kx += 3
            while kx < K:
                a0 = b0 = zero(x, v)
                for r in range(H):
                    i = xo + (r * s + ky * d) * row + kx * m + c
                    j = go + r * grow + c
                    q = 0
                    while q + 2 <= W:
                        a0 = fma(load(x, i, v), load(g, j, v), a0)
                        b0 = fma(load(x, i + step, v), load(g, j + C, v), b0)
                        i += 2 * step
                        j += 2 * C
                        q += 2
                    if q < W:
                        a0 = fma(load(x, i, v), load(g, j, v), a0)
                k = (ky * K + kx) * C + c
                store(out, k, add(load(out, k, v), add(double(a0), double(b0))))
                kx += 1


@compiled
def conv(x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, O: int, K: int, s: int,
         d: int, more: bool, v: Any) -> None:  # fmt: skip
    """Write to (or, if ``more``, add to) y [H, W, O] the convolution of x, [., ., C], over places and channels."""
    step, z = s * C, size(v)
    for r in range(H):
        q = 0
        while q + 8 <= W:
            o = 0
            while paired(v) and o + 2 * z <= O:
                a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero(x, v)
                b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = zero(x, v)
                for ky in range(K):
                    for kx in range(K):
                        i = xo + (r * s + ky * d) * row + q * step + kx * d * C
                        k = (ky * K + kx) * C * O + o
                        for c in range(C):
                            t, u = load(w, k + c * O, v), load(w, k + c * O + z, v)
                            e = splat(x, i + c, v)
                            a0, b0 = fma(e, t, a0), fma(e, u, b0)
                            e = splat(x, i + step + c, v)
                            a1, b1 = fma(e, t, a1), fma(e, u, b1)
                            e = splat(x, i + 2 * step + c, v)
                            a2, b2 = fma(e, t, a2), fma(e, u, b2)
                            e = splat(x, i + 3 * step + c, v)
                            a3, b3 = fma(e, t, a3), fma(e, u, b3)
                            e = splat(x, i + 4 * step + c, v)
                            a4, b4 = fma(e, t, a4), fma(e, u, b4)
                            e = splat(x, i + 5 * step + c, v)
                            a5, b5 = fma(e, t, a5), fma(e, u, b5)
                            e = splat(x, i + 6 * step + c, v)
                            a6, b6 = fma(e, t, a6), fma(e, u, b6)
                            e = splat(x, i + 7 * step + c, v)
                            a7, b7 = fma(e, t, a7), fma(e, u, b7)
                j = yo + r * yrow + q * O + o
                put8(y, j, O, a0, a1, a2, a3, a4, a5, a6, a7, more, v)
                put8(y, j + z, O, b0, b1, b2, b3, b4, b5, b6, b7, more, v)
                o += 2 * z
            while o < O:
                a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero(x, v)
                for ky in range(K):
                    for kx in range(K):
                        i = xo + (r * s + ky * d) * row + q * step + kx * d * C
                        k = (ky * K + kx) * C * O + o
                        for c in range(C):
                            t = load(w, k + c * O, v)
                            a0 = fma(splat(x, i + c, v), t, a0)
                            a1 = fma(splat(x, i + step + c, v), t, a1)
                            a2 = fma(splat(x, i + 2 * step + c, v), t, a2)
                            a3 = fma(splat(x, i + 3 * step + c, v), t, a3)
                            a4 = fma(splat(x, i + 4 * step + c, v), t, a4)
                            a5 = fma(splat(x, i + 5 * step + c, v), t, a5)
                            a6 = fma(splat(x, i + 6 * step + c, v), t, a6)
                            a7 = fma(splat(x, i + 7 * step + c, v), t, a7)
                put8(y, yo + r * yrow + q * O + o, O, a0, a1, a2, a3, a4, a5, a6, a7, more, v)
                o += z
            q += 8
        while q < W:
            for o in range(0, O, z):
                a = zero(x, v)
                for ky in range(K):
                    for kx in range(K):
                        i = xo + (r * s + ky * d) * row + q * step + kx * d * C
                        k = (ky * K + kx) * C * O + o
                        for c in range(C):
                            a = fma(splat(x, i + c, v), load(w, k + c * O, v), a)
                j = yo + r * yrow + q * O + o
                store(y, j, add(a, load(y, j, v)) if more else a)
            q += 1


@compiled
def conv_weight(x: Any, xo: int, row: int, g: Any, go: int, grow: int, gap: int, out: Any, H: int, W: int, C: int,
                O: int, K: int, s: int, d: int, v: Any) -> None:  # fmt: skip
    """Add the gradient at the weights [K, K, C, O] to ``out``, in double precision; four divides C. Pixels of g are
    ``gap`` numbers apart."""
    step, z = s * C, size(v)
    for ky in range(K):
        for kx in range(K):
            o = 0
            while paired(v) and o + 2 * z <= O:
                for c in range(0, C, 4):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero(x, v)
                    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero(x, v)
                    for r in range(H):
                        i = xo + (r * s + ky * d) * row + kx * d * C + c
                        j = go + r * grow + o
                        q = 0
                        while q + 2 <= W:
                            t, u = load(g, j, v), load(g, j + z, v)
                            e = splat(x, i, v)
                            a0, b0 = fma(e, t, a0), fma(e, u, b0)
                            e = splat(x, i + 1, v)
                            a1, b1 = fma(e, t, a1), fma(e, u, b1)
                            e = splat(x, i + 2, v)
                            a2, b2 = fma(e, t, a2), fma(e, u, b2)
                            e = splat(x, i + 3, v)
                            a3, b3 = fma(e, t, a3), fma(e, u, b3)
                            j += gap
                            i += step
                            t, u = load(g, j, v), load(g, j + z, v)
                            e = splat(x, i, v)
                            c0, d0 = fma(e, t, c0), fma(e, u, d0)
                            e = splat(x, i + 1, v)
                            c1, d1 = fma(e, t, c1), fma(e, u, d1)
                            e = splat(x, i + 2, v)
                            c2, d2 = fma(e, t, c2), fma(e, u, d2)
                            e = splat(x, i + 3, v)
                            c3, d3 = fma(e, t, c3), fma(e, u, d3)
                            j += gap
                            i += step
                            q += 2
                        if q < W:
                            t, u = load(g, j, v), load(g, j + z, v)
                            e = splat(x, i, v)
                            a0, b0 = fma(e, t, a0), fma(e, u, b0)
                            e = splat(x, i + 1, v)
                            a1, b1 = fma(e, t, a1), fma(e, u, b1)
                            e = splat(x, i + 2, v)
                            a2, b2 = fma(e, t, a2), fma(e, u, b2)
                            e = splat(x, i + 3, v)
                            a3, b3 = fma(e, t, a3), fma(e, u, b3)
                    k = ((ky * K + kx) * C + c) * O + o
                    add4(out, k, O, a0, a1, a2, a3, c0, c1, c2, c3, v)
                    add4(out, k + z, O, b0, b1, b2, b3, d0, d1, d2, d3, v)
                o += 2 * z
            while o < O:
                for c in range(0, C, 4):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero(x, v)
                    for r in range(H):
                        i = xo + (r * s + ky * d) * row + kx * d * C + c
                        j = go + r * grow + o
                        q = 0
                        while q + 2 <= W:
                            t = load(g, j, v)
                            a0 = fma(splat(x, i, v), t, a0)
                            a1 = fma(splat(x, i + 1, v), t, a1)
                            a2 = fma(splat(x, i + 2, v), t, a2)
                            a3 = fma(splat(x, i + 3, v), t, a3)
                            j += gap
                            i += step
                            t = load(g, j, v)
                            b0 = fma(splat(x, i, v), t, b0)
                            b1 = fma(splat(x, i + 1, v), t, b1)
                            b2 = fma(splat(x, i + 2, v), t, b2)
                            b3 = fma(splat(x, i + 3, v), t, b3)
                            j += gap
                            i += step
                            q += 2
                        if q < W:
                            t = load(g, j, v)
                            a0 = fma(splat(x, i, v), t, a0)
                            a1 = fma(splat(x, i + 1, v), t, a1)
                            a2 = fma(splat(x, i + 2, v), t, a2)
                            a3 = fma(splat(x, i + 3, v), t, a3)
                    add4(out, ((ky * K + kx) * C + c) * O + o, O, a0, a1, a2, a3, b0, b1, b2, b3, v)
                o += z


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
        j = (r + p) * row + p * C
        out[j : j + W * C] = x[xo + r * W * C : xo + (r + 1) * W * C]


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
