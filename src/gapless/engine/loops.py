"""Loops over images that Numba compiles for the processor: convolutions, moments, normalisations, and their gradients.

All arrays have one axis here; an image is [H, W, C], a pixel's channels lie together and are taken ``size(v)`` at a
time. A convolution reads an image whose border of zeros is there already, so it has no cases. Tiles of eight pixels keep
sums in registers: in each step of their innermost loop one weight serves eight multiply-adds. Sums over pixels are taken
in double precision, run by run.

A *slide* is a depthwise convolution, weights [K, K, C]; a *conv* goes over channels, weights [K, K, C, O].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gapless.engine.lanes import add, double, fma, load, most, same, size, splat, store, sub, where, zero

compiled = njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)
RUN = 32
"""Pixels that are summed in single precision before the sum goes on in double."""


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
                j = yo + r * yrow + q * C + c
                if more:
                    a0 = add(a0, load(y, j, v))
                    a1 = add(a1, load(y, j + C, v))
                    a2 = add(a2, load(y, j + 2 * C, v))
                    a3 = add(a3, load(y, j + 3 * C, v))
                    a4 = add(a4, load(y, j + 4 * C, v))
                    a5 = add(a5, load(y, j + 5 * C, v))
                    a6 = add(a6, load(y, j + 6 * C, v))
                    a7 = add(a7, load(y, j + 7 * C, v))
                store(y, j, a0)
                store(y, j + C, a1)
                store(y, j + 2 * C, a2)
                store(y, j + 3 * C, a3)
                store(y, j + 4 * C, a4)
                store(y, j + 5 * C, a5)
                store(y, j + 6 * C, a6)
                store(y, j + 7 * C, a7)
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
def slide_back(g: Any, go: int, grow: int, w: Any, x: Any, row: int, H: int, W: int, C: int, K: int, s: int, d: int,
               v: Any) -> None:  # fmt: skip
    """Add to x, with its border, the gradient g [H, W, C] of a depthwise convolution of any stride."""
    for r in range(H):
        for q in range(W):
            for c in range(0, C, size(v)):
                e = load(g, go + r * grow + q * C + c, v)
                for ky in range(K):
                    i = (r * s + ky * d) * row + q * s * C + c
                    for kx in range(K):
                        store(x, i, fma(e, load(w, (ky * K + kx) * C + c, v), load(x, i, v)))
                        i += d * C


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
def conv(x: Any, xo: int, row: int, w: Any, y: Any, yo: int, yrow: int, H: int, W: int, C: int, O: int, K: int, d: int,
         more: bool, v: Any) -> None:  # fmt: skip
    """Write to (or, if ``more``, add to) y [H, W, O] the convolution of x, [., ., C], over places and channels."""
    for r in range(H):
        q = 0
        while q + 8 <= W:
            for o in range(0, O, size(v)):
                a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = zero(x, v)
                for ky in range(K):
                    for kx in range(K):
                        i = xo + (r + ky * d) * row + (q + kx * d) * C
                        k = (ky * K + kx) * C * O + o
                        for c in range(C):
                            t = load(w, k + c * O, v)
                            a0 = fma(splat(x, i + c, v), t, a0)
                            a1 = fma(splat(x, i + C + c, v), t, a1)
                            a2 = fma(splat(x, i + 2 * C + c, v), t, a2)
                            a3 = fma(splat(x, i + 3 * C + c, v), t, a3)
                            a4 = fma(splat(x, i + 4 * C + c, v), t, a4)
                            a5 = fma(splat(x, i + 5 * C + c, v), t, a5)
                            a6 = fma(splat(x, i + 6 * C + c, v), t, a6)
                            a7 = fma(splat(x, i + 7 * C + c, v), t, a7)
                j = yo + r * yrow + q * O + o
                if more:
                    a0 = add(a0, load(y, j, v))
                    a1 = add(a1, load(y, j + O, v))
                    a2 = add(a2, load(y, j + 2 * O, v))
                    a3 = add(a3, load(y, j + 3 * O, v))
                    a4 = add(a4, load(y, j + 4 * O, v))
                    a5 = add(a5, load(y, j + 5 * O, v))
                    a6 = add(a6, load(y, j + 6 * O, v))
                    a7 = add(a7, load(y, j + 7 * O, v))
                store(y, j, a0)
                store(y, j + O, a1)
                store(y, j + 2 * O, a2)
                store(y, j + 3 * O, a3)
                store(y, j + 4 * O, a4)
                store(y, j + 5 * O, a5)
                store(y, j + 6 * O, a6)
                store(y, j + 7 * O, a7)
            q += 8
        while q < W:
            for o in range(0, O, size(v)):
                a = zero(x, v)
                for ky in range(K):
                    for kx in range(K):
                        i = xo + (r + ky * d) * row + (q + kx * d) * C
                        k = (ky * K + kx) * C * O + o
                        for c in range(C):
                            a = fma(splat(x, i + c, v), load(w, k + c * O, v), a)
                j = yo + r * yrow + q * O + o
                store(y, j, add(a, load(y, j, v)) if more else a)
            q += 1


@compiled
def conv_weight(x: Any, xo: int, row: int, g: Any, go: int, grow: int, out: Any, H: int, W: int, C: int, O: int, K: int,
                d: int, v: Any) -> None:  # fmt: skip
    """Add the gradient at the weights [K, K, C, O] to ``out``, in double precision; four divides C."""
    for ky in range(K):
        for kx in range(K):
            for o in range(0, O, size(v)):
                for c in range(0, C, 4):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero(x, v)
                    for r in range(H):
                        i = xo + (r + ky * d) * row + kx * d * C + c
                        j = go + r * grow + o
                        q = 0
                        while q + 2 <= W:
                            e = load(g, j, v)
                            a0 = fma(splat(x, i, v), e, a0)
                            a1 = fma(splat(x, i + 1, v), e, a1)
                            a2 = fma(splat(x, i + 2, v), e, a2)
                            a3 = fma(splat(x, i + 3, v), e, a3)
                            e = load(g, j + O, v)
                            i += C
                            b0 = fma(splat(x, i, v), e, b0)
                            b1 = fma(splat(x, i + 1, v), e, b1)
                            b2 = fma(splat(x, i + 2, v), e, b2)
                            b3 = fma(splat(x, i + 3, v), e, b3)
                            i += C
                            j += 2 * O
                            q += 2
                        if q < W:
                            e = load(g, j, v)
                            a0 = fma(splat(x, i, v), e, a0)
                            a1 = fma(splat(x, i + 1, v), e, a1)
                            a2 = fma(splat(x, i + 2, v), e, a2)
                            a3 = fma(splat(x, i + 3, v), e, a3)
                    k = ((ky * K + kx) * C + c) * O + o
                    store(out, k, add(load(out, k, v), add(double(a0), double(b0))))
                    store(out, k + O, add(load(out, k + O, v), add(double(a1), double(b1))))
                    store(out, k + 2 * O, add(load(out, k + 2 * O, v), add(double(a2), double(b2))))
                    store(out, k + 3 * O, add(load(out, k + 3 * O, v), add(double(a3), double(b3))))


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
def frame(x: Any, xo: int, out: Any, H: int, W: int, C: int, p: int) -> None:
    """Copy [H, W, C] into a buffer with a border of p pixels, which is left as it is."""
    row = (W + 2 * p) * C
    for r in range(H):
        j = (r + p) * row + p * C
        out[j : j + W * C] = x[xo + r * W * C : xo + (r + 1) * W * C]


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
def frame_error(g: Any, go: int, y: Any, yo: int, out: Any, oo: int, H: int, W: int, C: int, p: int, lead: Any,
                first: Any, last: Any, mean: Any, more: bool, v: Any) -> None:  # fmt: skip
    """Write (or, if ``more``, add) lead * (g - first) + last * (y - mean), the gradient before a normalisation."""
    row = (W + 2 * p) * C
    for c in range(0, C, size(v)):
        a, s1, b, m, none = load(lead, c, v), load(first, c, v), load(last, c, v), load(mean, c, v), zero(g, v)
        for r in range(H):
            i, j = r * W * C + c, oo + (r + p) * row + p * C + c
            for _ in range(W):
                t = fma(sub(load(y, yo + i, v), m), b, load(out, j, v) if more else none)
                store(out, j, fma(sub(load(g, go + i, v), s1), a, t))
                i += C
                j += C


@compiled
def unframe(x: Any, out: Any, oo: int, H: int, W: int, C: int, p: int, more: bool, v: Any) -> None:
    """Write or add the inside of a buffer with a border of p pixels to [H, W, C]."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = (r + p) * row + p * C, oo + r * W * C
        for k in range(0, W * C, size(v)):
            t = load(x, i + k, v)
            store(out, j + k, add(t, load(out, j + k, v)) if more else t)


@compiled
def gate(h: Any, g: Any, go: int, H: int, W: int, C: int, p: int, v: Any) -> None:
    """Zero g [H, W, C] where h, in a buffer with a border of p pixels, is not positive."""
    row = (W + 2 * p) * C
    for r in range(H):
        i, j = (r + p) * row + p * C, go + r * W * C
        for k in range(0, W * C, size(v)):
            store(g, j + k, where(load(h, i + k, v), load(g, j + k, v)))


# ---------------------------------------------------------------------- for some images: a step of a chain


@compiled
def forward(lo: int, hi: int, scratch: Any, x: Any, y: Any, deep: Any, wide: Any, scale: Any, shift: Any, mean: Any,
            second: Any, sizes: Any, v: Any) -> None:  # fmt: skip
    """Compute y = conv(slide(max(scale * x + shift, 0))) and the moments of each image, from ``lo`` to ``hi``.

    ``sizes``: see :class:`gapless.engine.compiled.Sizes`.
    """
    H, W, C, K, s, p, d, k, kp, kd, h, w, O = sizes
    border = p if K else kp
    row, P = (W + 2 * border) * C, h * w
    split = (H + 2 * border) * row
    buffer, z = scratch[:split], scratch[split:]
    buffer[:] = 0
    for n in range(lo, hi):
        frame_relu(x, n * H * W * C, buffer, H, W, C, border, scale, shift, v)
        j = n * P * O
        if K:
            slide(buffer, 0, row, deep, z, 0, w * C, h, w, C, K, s, d, False, v)
            conv(z, 0, w * C, wide, y, j, w * O, h, w, C, O, 1, 1, False, v)
        else:
            conv(buffer, 0, row, wide, y, j, w * O, h, w, C, O, k, kd, False, v)
        moments(y, j, P, O, mean, second, n * O, v)


@compiled
def backward(lo: int, hi: int, scratch: Any, x: Any, y: Any, g: Any, deep: Any, turned: Any, wide: Any, scale: Any,
             shift: Any, before: Any, lead: Any, first: Any, last: Any, mean: Any, dx: Any, ddeep: Any, dwide: Any,
             s1: Any, s2: Any, inner: bool, more: bool, weights: bool, below: bool, sizes: Any,
             v: Any) -> None:  # fmt: skip
    """Go back through y = conv(slide(max(scale * x + shift, 0))) and its normalisation, from ``lo`` to ``hi``.

    ``lead * (g - first) + last * (y - mean)`` is the gradient at y. If the step is an ``inner`` one, the gradient at
    scale * x + shift is written to ``dx``, and ``s1`` and ``s2`` take, for each image, its sum and that of its product
    with (x - before); otherwise the gradient at the maximum is written or, if ``more``, added to ``dx``. ``turned`` and ``wide`` [k, k, O, C]
    are the weights of the convolutions that go back. ``weights``, ``below``: whether gradients at weights and x are
    wanted.
    """
    H, W, C, K, s, p, d, k, kp, kd, h, w, O = sizes
    border = p if K else kp
    row, P = (W + 2 * border) * C, h * w
    split = (H + 2 * border) * row
    margin = 0 if K else kd * (k - 1) - kp
    erow = (w + 2 * margin) * O
    reach = d * (K - 1) - p if K and s == 1 else 0
    drow = (w + 2 * reach) * C
    into = reach * (drow + C)
    buffer, rest = scratch[:split], scratch[split:]
    e, rest = rest[: (h + 2 * margin) * erow], rest[(h + 2 * margin) * erow :]
    z, rest = rest[: P * C if K else 0], rest[P * C if K else 0 :]
    dz, rest = rest[: (h + 2 * reach) * drow if K else 0], rest[(h + 2 * reach) * drow if K else 0 :]
    spread = rest[:split]
    buffer[:] = 0
    e[:] = 0
    dz[:] = 0
    for n in range(lo, hi):
        i, j = n * H * W * C, n * P * O
        frame_error(g, j, y, j, e, 0, h, w, O, margin, lead, first, last, mean, False, v)
        if inner or weights:
            frame_relu(x, i, buffer, H, W, C, border, scale, shift, v)
        if K:
            if weights:
                slide(buffer, 0, row, deep, z, 0, w * C, h, w, C, K, s, d, False, v)
                conv_weight(z, 0, w * C, e, 0, erow, dwide, h, w, C, O, 1, 1, v)
            conv(e, 0, erow, wide, dz, into, drow, h, w, O, C, 1, 1, False, v)
            if weights:
                slide_weight(buffer, 0, row, dz, into, drow, ddeep, h, w, C, K, s, d, v)
            if below and s == 1:
                slide(dz, 0, drow, turned, dx, i, W * C, H, W, C, K, 1, d, more, v)
            elif below:
                spread[:] = 0
                slide_back(dz, into, drow, deep, spread, row, h, w, C, K, s, d, v)
                unframe(spread, dx, i, H, W, C, border, more, v)
        else:
            if weights:
                conv_weight(buffer, 0, row, e, margin * (erow + O), erow, dwide, h, w, C, O, k, kd, v)
            if below:
                conv(e, 0, erow, wide, dx, i, W * C, H, W, O, C, k, kd, more, v)
        if inner:
            gate(buffer, dx, i, H, W, C, border, v)
            products(dx, i, x, i, H * W, C, before, s1, s2, n * C, v)


# ---------------------------------------------------------------------- for some images: pools


@compiled
def pool(lo: int, hi: int, scratch: Any, x: Any, y: Any, share: Any, mean: Any, second: Any, sizes: Any,
         v: Any) -> None:  # fmt: skip
    """Pool images [H, W, C] and take the moments of each. ``share`` [h, w] is one over the pixels under a window, for
    averages; empty for maxima."""
    H, W, C, K, s, p, h, w = sizes
    row = (W + 2 * p) * C
    buffer = scratch[: (H + 2 * p) * row]
    buffer[:] = 0 if len(share) else -np.inf
    for n in range(lo, hi):
        frame(x, n * H * W * C, buffer, H, W, C, p)
        for r in range(h):
            for q in range(w):
                for c in range(0, C, size(v)):
                    start = r * s * row + q * s * C + c
                    a = load(buffer, start, v)
                    for ky in range(K):
                        i = start + ky * row
                        for kx in range(K):
                            t = load(buffer, i, v)
                            if ky or kx:
                                a = add(a, t) if len(share) else most(a, t)
                            i += C
                    if len(share):
                        a = fma(a, splat(share, r * w + q, v), zero(y, v))
                    store(y, ((n * h + r) * w + q) * C + c, a)
        moments(y, n * h * w * C, h * w, C, mean, second, n * C, v)


@compiled
def pool_back(lo: int, hi: int, scratch: Any, x: Any, y: Any, g: Any, share: Any, dx: Any, more: bool, sizes: Any,
              v: Any) -> None:  # fmt: skip
    """Write or add the gradient of :func:`pool` to ``dx``. Where several pixels are the largest, the first takes it all."""
    H, W, C, K, s, p, h, w = sizes
    row = (W + 2 * p) * C
    split = (H + 2 * p) * row
    buffer, spread = scratch[:split], scratch[split : 2 * split]
    buffer[:] = -np.inf
    for n in range(lo, hi):
        spread[:] = 0
        if not len(share):
            frame(x, n * H * W * C, buffer, H, W, C, p)
        for r in range(h):
            for q in range(w):
                for c in range(0, C, size(v)):
                    start = r * s * row + q * s * C + c
                    j = ((n * h + r) * w + q) * C + c
                    left = load(g, j, v)
                    if len(share):
                        left = fma(left, splat(share, r * w + q, v), zero(g, v))
                    top, none = load(y, j, v), zero(g, v)
                    for ky in range(K):
                        i = start + ky * row
                        for kx in range(K):
                            if len(share):
                                store(spread, i, add(load(spread, i, v), left))
                            else:
                                take = fma(same(load(buffer, i, v), top), left, none)
                                store(spread, i, add(load(spread, i, v), take))
                                left = sub(left, take)
                            i += C
        unframe(spread, dx, n * H * W * C, H, W, C, p, more, v)


# ---------------------------------------------------------------------- for some images: sums at a node


@compiled
def accumulate(lo: int, hi: int, y: Any, out: Any, scale: Any, shift: Any, P: int, C: int, more: bool,
               v: Any) -> None:  # fmt: skip
    """Write scale * y + shift to ``out``, or add it, for the images [P, C] from ``lo`` to ``hi``."""
    for c in range(0, C, size(v)):
        a, b = load(scale, c, v), load(shift, c, v)
        if more:
            for i in range(lo * P * C + c, hi * P * C + c, C):
                store(out, i, add(load(out, i, v), fma(load(y, i, v), a, b)))
        else:
            for i in range(lo * P * C + c, hi * P * C + c, C):
                store(out, i, fma(load(y, i, v), a, b))


@compiled
def correlate(lo: int, hi: int, g: Any, y: Any, mean: Any, first: Any, second: Any, P: int, C: int,
              v: Any) -> None:  # fmt: skip
    """Write the sums of g and g * (y - mean) of each image."""
    for n in range(lo, hi):
        products(g, n * P * C, y, n * P * C, P, C, mean, first, second, n * C, v)


@compiled
def error(lo: int, hi: int, g: Any, y: Any, out: Any, lead: Any, first: Any, last: Any, mean: Any, P: int, C: int,
          more: bool, v: Any) -> None:  # fmt: skip
    """Write or add the gradient before a normalisation, lead * (g - first) + last * (y - mean)."""
    for n in range(lo, hi):
        i = n * P * C
        frame_error(g, i, y, i, out, i, P, 1, C, 0, lead, first, last, mean, more, v)


@compiled
def relu_back(lo: int, hi: int, x: Any, g: Any, out: Any, count: int, more: bool, v: Any) -> None:
    """Write or add g where x is positive, for images of ``count`` numbers."""
    for i in range(lo * count, hi * count, size(v)):
        t = where(load(x, i, v), load(g, i, v))
        store(out, i, add(t, load(out, i, v)) if more else t)
