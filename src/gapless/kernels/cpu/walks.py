"""Compiled walks over the images of a batch: what a fan does between two moments at which all images have to meet.

Records, whose fields :mod:`gapless.kernels.layout` describes, say what is done and where in the arrays numbers lie. A
walk takes the images one after the other, so that an image stays in the cache while all that reads it is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from gapless.kernels.cpu.lanes import pointer
from gapless.kernels.cpu.loops import (
    PATCHES,
    PLACES,
    STRETCH,
    compiled,
    conv,
    conv_weight,
    error,
    filters,
    filters_back,
    frame,
    frame_positive,
    frame_relu,
    gate,
    halve,
    hem,
    moments,
    multiply,
    multiply_weight,
    outputs,
    outputs_back,
    patches,
    patches_back,
    pool,
    pool_back,
    products,
    slide,
    slide_back,
    slide_weight,
    unframe,
    unhalve,
    weigh,
)  # fmt: skip
from gapless.kernels.cpu.workers import Walk

SCALE, SHIFT, LEAD, FIRST, LAST, MEAN = range(6)
"""Rows of ``lines``, vectors over all channels that are normalised, in the precision of the images."""
CENTRE, VARIANCE, INVERSE = range(3)
"""Rows of ``book``, the same vectors in double precision."""


# ---------------------------------------------------------------------- weights


@Walk
def pack(rank: int, lo: int, hi: int, flat: Any, packed: Any, turned: Any, steps: Any, images: int, back: bool,
         v: Any) -> None:  # fmt: skip
    """Lay the weights out as the loops read them: forward, or turned for the way back (and depthwise ones forward, too,
    whose outputs are computed again there). Of each step the part of the channels that the images from ``lo`` to ``hi``
    are of all."""
    for i in range(len(steps)):
        t = steps[i]
        C, K, k, O = t.C, t.K, t.k, t.O
        for c in range(C * lo // images, C * hi // images):
            for place in range(K * K):
                weight = flat[t.depthwise + c * K * K + place]
                packed[t.packed_depthwise + place * C + c] = weight
                if back:
                    turned[t.packed_depthwise + (K * K - 1 - place) * C + c] = weight
        sides = O if back else C
        first, last = sides * lo // images, sides * hi // images
        if t.winograd:
            filters(
                flat,
                t.conv,
                turned if back else packed,
                t.packed_conv,
                C,
                O,
                first,
                last,
                back,
            )
            continue
        for c in range(0 if back else first, 0 if back else last):
            for place in range(k * k):
                for o in range(O):
                    packed[t.packed_conv + (place * C + c) * O + o] = flat[t.conv + (o * C + c) * k * k + place]
        for o in range(first if back else 0, last if back else 0):
            for place in range(k * k):
                to = t.packed_conv + ((k * k - 1 - place) * O + o) * C
                for c in range(C):
                    turned[to + c] = flat[t.conv + (o * C + c) * k * k + place]


@Walk
def unpack(rank: int, lo: int, hi: int, found: Any, flat: Any, steps: Any, images: int, v: Any) -> None:
    """Sum the gradients at the weights over threads, and lay them out as PyTorch does; of each step a part of the
    channels, as :func:`pack`."""
    for i in range(len(steps)):
        t = steps[i]
        C, K, k, O = t.C, t.K, t.k, t.O
        first, last = C * lo // images, C * hi // images
        for c in range(first, last):
            for place in range(K * K):
                whole = 0.0
                for other in range(len(found)):
                    whole += found[other, t.packed_depthwise + place * C + c]
                flat[t.depthwise + c * K * K + place] = whole
        if t.winograd:
            filters_back(found, t.packed_conv, flat, t.conv, C, O, first, last)
            continue
        for c in range(first, last):
            for o in range(O):
                for place in range(k * k):
                    whole = 0.0
                    for other in range(len(found)):
                        whole += found[other, t.packed_conv + (place * C + c) * O + o]
                    flat[t.conv + (o * C + c) * k * k + place] = whole


# ---------------------------------------------------------------------- forward


@compiled
def filtered(n: int, room: Any, source: Any, at: int, row: int, packed: Any, kept: Any, steps: Any, begin: int,
             end: int, depth: int, H: int, W: int, C: int, fan: Any, v: Any) -> None:  # fmt: skip
    """Compute by minimal filtering the steps of this depth among those from ``begin`` to ``end`` that go by it, for an
    image. What they read is transformed once for all of them."""
    a = fan[0]
    here, there = room[a.patches :], room[a.products :]
    T = W // 2
    some = max(1, PATCHES // T)
    for r in range(0, H // 2, some):
        R = min(some, H // 2 - r)
        patches(source, at + 2 * r * row, row, here, R, T, C, v)
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                O = s.O
                multiply(here, packed[s.packed_conv :], there, R * T, C, O, depth < 0, v)
                outputs(there, kept, s.y + (n * H + 2 * r) * W * O, W * O, R, T, O, v)


@Walk
def ahead(rank: int, lo: int, hi: int, rooms: Any, x: Any, kept: Any, packed: Any, shares: Any, lines: Any, seen: Any,
          steps: Any, pools: Any, fan: Any, depth: int, v: Any) -> None:  # fmt: skip
    """Compute the steps of this depth (and, at the first, the pools), and the moments of each image."""
    a, room = fan[0], rooms[rank]
    H, W, C, B, V = a.H, a.W, a.C, a.border, a.channels
    whole, split, buffer, z = room[a.input :], room[a.split :], room[a.padded :], room[a.z :]
    second = seen[V:]
    none, never = 0 * depth, depth < 0  # written out, such numbers would have the compiler make the loops anew for them
    if depth == 0:
        hem(whole, H, W, C, B)
    for n in range(lo, hi):
        if depth == 0:
            for i in range(len(pools)):
                t = pools[i]
                inside = room[a.pool : a.pool + (H + 2 * t.p) * (W + 2 * t.p) * C]
                inside[:] = -np.inf if t.maximum else 0.0
                frame(x, n * H * W * C, inside, H, W, C, t.p)
                j = t.y + n * t.h * t.w * C
                pool(inside, kept, j, shares[t.inverse_counts :], t.maximum, t.h, t.w, W + 2 * t.p, C, t.K, t.s, v)
                if t.norm >= 0:
                    moments(kept, j, t.h * t.w, C, seen, second, n * 2 * V + t.norm, v)
            if len(steps):
                frame_positive(x, n * H * W * C, whole, H, W, C, B, v)
            if a.phases:
                row = (W + 2 * B) * C
                halve(whole, B * (row + C), row, split, H, W, C, v)
            if a.winograd:
                row = (W + 2 * B) * C
                filtered(n, room, whole, (B - 1) * (row + C), row, packed, kept, steps, none, len(steps), depth, H, W,
                         C, fan, v)  # fmt: skip
        for i in range(len(steps)):
            s = steps[i]
            if s.depth != depth:
                continue
            h, w, O = s.h, s.w, s.O
            p = s.p if s.K else s.kp
            if depth:
                hem(buffer, s.H, s.W, s.C, p)
                frame_relu(kept, s.x + n * s.H * s.W * s.C, buffer, s.H, s.W, s.C, p,
                           lines[SCALE * V + s.norm_before :],
                           lines[SHIFT * V + s.norm_before :], v)  # fmt: skip
                source, at, row = buffer, 0, (s.W + 2 * p) * s.C
            elif s.phases:
                source, at, row = split, 0, s.W * s.C
            else:
                source, row = whole, (W + 2 * B) * C
                at = (B - p) * (row + C)
            j = s.y + n * h * w * O
            k, ks, kd = s.k, s.ks, s.kd
            if s.K:
                slide(
                    source, at, row, packed[s.packed_depthwise :], z, none, w * s.C, h, w, s.C, s.K, s.s, s.d, never, v
                )
                source, at, row = z, none, w * s.C
            if not s.winograd:
                conv(source, at, row, packed[s.packed_conv :], kept, j, w * O, h, w, s.C, O, k, ks, kd, never, v)
            elif depth:
                filtered(n, room, source, at, row, packed, kept, steps, i, i + 1, depth, s.H, s.W, s.C, fan, v)
            moments(kept, j, h * w, O, seen, second, n * 2 * V + s.norm, v)


@compiled
def settle(flat: Any, share: Any, seen: Any, book: Any, lines: Any, slots: Any, images: int, depth: int) -> None:
    """Join the moments of all images, for the normalisations of this depth."""
    V = book.shape[1]
    for i in range(len(slots)):
        s = slots[i]
        if s.depth != depth:
            continue
        c = share[s.route] if s.route >= 0 else 1.0
        centre, variance, inverse = book[CENTRE, s.start :], book[VARIANCE, s.start :], book[INVERSE, s.start :]
        scale, shift = lines[SCALE * V + s.start :], lines[SHIFT * V + s.start :]
        if not s.normalised:
            centre[: s.C], variance[: s.C], inverse[: s.C], scale[: s.C], shift[: s.C] = 0.0, 1.0, 1.0, c, 0.0
            continue
        centre[: s.C], variance[: s.C] = 0.0, 0.0
        for n in range(images):
            for k in range(s.C):
                centre[k] += seen[n * 2 * V + s.source + k]
        for k in range(s.C):
            centre[k] /= images
        for n in range(images):
            for k in range(s.C):
                mean, second = seen[n * 2 * V + s.source + k], seen[(2 * n + 1) * V + s.source + k]
                variance[k] += second + s.pixels * (mean - centre[k]) ** 2
        for k in range(s.C):
            variance[k] /= images * s.pixels
            inverse[k] = 1.0 / np.sqrt(variance[k] + s.eps)
            gamma = inverse[k] if s.affine < 0 else inverse[k] * flat[s.affine + k]
            beta = 0.0 if s.affine < 0 else flat[s.affine + s.C + k]
            scale[k], shift[k] = c * gamma, c * (beta - centre[k] * gamma)


@Walk
def gather(
    rank: int, lo: int, hi: int, x: Any, kept: Any, lines: Any, targets: Any, ways: Any, fan: Any, v: Any
) -> None:
    """Write or add what arrives at each target."""
    V = fan[0].channels
    for n in range(lo, hi):
        for i in range(len(ways)):
            t = ways[i]
            count = t.pixels * t.C
            out = carray(pointer(targets[0, t.target]), (fan[0].images * count,), x.dtype)
            y, yo = (x, n * count) if t.y < 0 else (kept, t.y + n * count)
            more = t.accumulate or targets[1, t.target] != 0
            weigh(y, yo, out, n * count, lines[SCALE * V + t.norm :], lines[SHIFT * V + t.norm :], t.pixels, t.C, more,
                  v)  # fmt: skip


# ---------------------------------------------------------------------- backward


@compiled
def restore(flat: Any, book: Any, lines: Any, slots: Any) -> None:
    """Write again the lines that the way back reads: of normalisations inside scale and shift, of all the mean."""
    V = book.shape[1]
    for i in range(len(slots)):
        s = slots[i]
        for k in range(s.C):
            at = s.start + k
            scale = book[INVERSE, at] if s.affine < 0 else book[INVERSE, at] * flat[s.affine + k]
            beta = 0.0 if s.affine < 0 else flat[s.affine + s.C + k]
            lines[MEAN * V + at] = book[CENTRE, at]
            lines[SCALE * V + at], lines[SHIFT * V + at] = scale, beta - book[CENTRE, at] * scale


@Walk
def correlate(rank: int, lo: int, hi: int, x: Any, kept: Any, lines: Any, sums: Any, targets: Any, ways: Any, fan: Any,
              v: Any) -> None:  # fmt: skip
    """For the end of each way write the sums over each image of the gradient g and of g * (y - mean)."""
    V = fan[0].channels
    second = sums[V:]
    for n in range(lo, hi):
        for i in range(len(ways)):
            t = ways[i]
            count = t.pixels * t.C
            g = carray(pointer(targets[0, t.target]), (fan[0].images * count,), x.dtype)
            y, yo = (x, n * count) if t.y < 0 else (kept, t.y + n * count)
            products(
                g, n * count, y, yo, t.pixels, t.C, lines[MEAN * V + t.norm :], sums, second, n * 2 * V + t.norm, v
            )


@compiled
def carry(flat: Any, dflat: Any, share: Any, dshare: Any, sums: Any, book: Any, lines: Any, slots: Any, images: int,
          depth: int) -> None:  # fmt: skip
    """Join the sums of all images: gradients of shares, scales and shifts, and what :func:`error` needs. For the ends
    of ways (depth -1), or the normalisations inside of this depth."""
    V = book.shape[1]
    for i in range(len(slots)):
        s = slots[i]
        if (s.route < 0) if depth < 0 else (s.route >= 0 or s.depth != depth):
            continue
        c = share[s.route] if s.route >= 0 else 1.0
        s1, s2, whole = np.zeros(s.C), np.zeros(s.C), 0.0
        for n in range(images):
            for k in range(s.C):
                s1[k] += sums[n * 2 * V + s.start + k]
                s2[k] += sums[(2 * n + 1) * V + s.start + k]
        for k in range(s.C):
            at = s.start + k
            if not s.normalised:
                lines[LEAD * V + at], lines[FIRST * V + at], lines[LAST * V + at] = c, 0.0, 0.0
                whole += s2[k]
                continue
            inverse, count = book[INVERSE, at], images * s.pixels
            scale = inverse if s.affine < 0 else inverse * flat[s.affine + k]
            lines[LEAD * V + at] = c * scale
            lines[FIRST * V + at] = s1[k] / count
            lines[LAST * V + at] = -c * scale * inverse**2 * s2[k] / count
            whole += s2[k] * scale
            if s.affine >= 0:
                whole += s1[k] * flat[s.affine + s.C + k]
                dflat[s.affine + k], dflat[s.affine + s.C + k] = c * s2[k] * inverse, c * s1[k]
        if s.route >= 0:
            dshare[s.route] = whole


@compiled
def to_state(n: int, room: Any, x: Any, kept: Any, shares: Any, lines: Any, targets: Any, dx: Any, pools: Any,
             ways: Any, fan: Any, v: Any) -> None:  # fmt: skip
    """Write the gradient at an image of the state: what its chains left in the thread's buffers, and through pools and
    skips."""
    a = fan[0]
    H, W, C, V = a.H, a.W, a.C, a.channels
    image, e = room[a.dinput :], room[a.e :]
    first, last, lead, mean = lines[FIRST * V :], lines[LAST * V :], lines[LEAD * V :], lines[MEAN * V :]
    o = n * H * W * C
    if a.strided:
        unframe(room[a.dstrided :], image, 0, H, W, C, a.border, v)
    if a.phases:
        unhalve(room[a.dsplit :], image, H, W, C, v)
    gate(x, o, W * C, image, 0, dx, o, H, W, C, v)
    for i in range(len(ways)):
        t = ways[i]
        if t.y < 0:
            g = carray(pointer(targets[0, t.target]), (fan[0].images * H * W * C,), x.dtype)
            error(g, o, x, o, dx, o, W * C, C, H, W, C, lead[t.norm :], first[t.norm :], last[t.norm :],
                  mean[t.norm :], True, v)  # fmt: skip
    for i in range(len(pools)):
        t = pools[i]
        count, pixels = t.h * t.w * C, (H + 2 * t.p) * (W + 2 * t.p) * C
        e[:count] = 0
        for j in range(len(ways)):
            u = ways[j]
            if u.pool == i:
                g = carray(pointer(targets[0, u.target]), (fan[0].images * count,), x.dtype)
                error(g, n * count, kept, t.y + n * count, e, 0, t.w * C, C, t.h, t.w, C, lead[u.norm :],
                      first[u.norm :], last[u.norm :], mean[u.norm :], True, v)  # fmt: skip
        under, back = room[a.pool : a.pool + pixels], room[a.pool + pixels : a.pool + 2 * pixels]
        back[:] = 0
        if t.maximum:
            under[:] = -np.inf
            frame(x, o, under, H, W, C, t.p)
        pool_back(under, kept, t.y + n * count, e, shares[t.inverse_counts :], t.maximum, back, t.h, t.w,
                  W + 2 * t.p, C,
                  t.K, t.s, v)  # fmt: skip
        unframe(back, dx, o, H, W, C, t.p, v)


@compiled
def filtered_back(n: int, lo: int, hi: int, room: Any, source: Any, at: int, row: int, kept: Any, turned: Any,
                  lines: Any, targets: Any, dkept: Any, found: Any, to: Any, place: int, steps: Any, begin: int,
                  end: int, depth: int, H: int, W: int, C: int, fan: Any, weights: bool, below: bool,
                  v: Any) -> None:  # fmt: skip
    """Go back through what :func:`filtered` computed: add to ``to`` the gradient at what they read, if that is wanted,
    and to ``found`` those at weights."""
    a = fan[0]
    here, there, back, e = room[a.patches :], room[a.products :], room[a.dpatches :], room[a.e :]
    V = a.channels
    first, last, lead, mean = lines[FIRST * V :], lines[LAST * V :], lines[LEAD * V :], lines[MEAN * V :]
    T = W // 2
    some = max(1, PATCHES // T)
    for r in range(0, H // 2, some):
        R, more = min(some, H // 2 - r), depth < 0
        if weights:
            patches(source, at + 2 * r * row, row, here, R, T, C, v)
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                O = s.O
                j = (n * H + 2 * r) * W * O
                g = dkept if s.g >= 0 else carray(pointer(targets[0, s.target]), (a.images * H * W * O,), dkept.dtype)
                error(g, j + max(s.g, 0), kept, s.y + j, e, 0 * r, W * O, O, 2 * R, W, O, lead[s.norm :],
                      first[s.norm :], last[s.norm :], mean[s.norm :], depth < 0, v)  # fmt: skip
                outputs_back(e, there, R, T, O, v)
                if weights:
                    multiply_weight(here, there, room[a.gradients + s.winograd_grad :], R * T, C, O, v)
                if below:
                    multiply(there, turned[s.packed_conv :], back, R * T, O, C, more, v)
                    more = depth >= 0
        if below:
            patches_back(back, to, place, r, R, T, H, W, C, v)
    count = H * W // 4
    if weights and (n + 1 == hi or (n - lo) * count // STRETCH != (n + 1 - lo) * count // STRETCH):
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                own = room[a.gradients + s.winograd_grad :]
                for k in range(PLACES * C * s.O):
                    found[s.packed_conv + k] += own[k]
                    own[k] = 0


@Walk
def behind(rank: int, lo: int, hi: int, rooms: Any, x: Any, kept: Any, packed: Any, turned: Any, shares: Any,
           lines: Any, sums: Any, targets: Any, dkept: Any, dweights: Any, dx: Any, steps: Any, pools: Any, ways: Any,
           fan: Any, depth: int, weights: bool, below: bool, v: Any) -> None:  # fmt: skip
    """Go back through the steps of this depth (and, at the first, through pools and skips to the state).

    Inside, the gradient before the ReLU goes to ``dkept``, with the sums that the normalisation before it needs.
    """
    a, room = fan[0], rooms[rank]
    H, W, C, B, V = a.H, a.W, a.C, a.border, a.channels
    whole, split, buffer = room[a.input :], room[a.split :], room[a.padded :]
    z, dz, e = room[a.z :], room[a.dz :], room[a.e :]
    image, dsplit, spread = room[a.dinput :], room[a.dsplit :], room[a.dstrided :]
    first, last, lead, mean = lines[FIRST * V :], lines[LAST * V :], lines[LEAD * V :], lines[MEAN * V :]
    wrow, found = (W + 2 * B) * C, dweights[rank]
    none, never = 0 * depth, depth < 0  # as in :func:`ahead`
    one = none + 1
    if depth == 0:
        hem(whole, H, W, C, B)
    live = none  # of those that go by minimal filtering: what no gradient comes to is not among the steps
    for i in range(len(steps)):
        s = steps[i]
        if s.winograd and s.depth == depth:
            live += 1
            if weights:
                room[a.gradients + s.winograd_grad : a.gradients + s.winograd_grad + PLACES * s.C * s.O] = 0
    for n in range(lo, hi):
        if depth == 0:
            if len(steps):
                frame_positive(x, n * H * W * C, whole, H, W, C, B, v)
            if a.phases:
                halve(whole, B * (wrow + C), wrow, split, H, W, C, v)
            image[: H * W * C] = 0
            dsplit[: a.phases] = 0
            spread[: a.strided] = 0
            if live:
                filtered_back(n, lo, hi, room, whole, (B - 1) * (wrow + C), wrow, kept, turned, lines, targets, dkept,
                              found, image, none, steps, none, len(steps), depth, H, W, C, fan, weights, below,
                              v)  # fmt: skip
        for i in range(len(steps)):
            s = steps[i]
            if s.depth != depth:
                continue
            h, w, O, K, k, ks, kd = s.h, s.w, s.O, s.K, s.k, s.ks, s.kd
            if s.winograd and depth == 0:
                continue
            # the gradient at y, spread to the stride of the convolution, with the border that its way back needs
            margin = 0 if K else kd * (k - 1) - s.kp
            erow = ((s.W + kd * (k - 1)) if not K else w) * O
            inside, j = margin * (erow + O), n * h * w * O
            if not s.winograd:
                if margin or ks > 1:
                    e[: (s.H + kd * (k - 1)) * erow] = 0
                g = dkept if s.g >= 0 else carray(pointer(targets[0, s.target]), (fan[0].images * h * w * O,), x.dtype)
                error(g, j + max(s.g, 0), kept, s.y + j, e, inside, ks * erow, ks * O, h, w, O, lead[s.norm :],
                      first[s.norm :], last[s.norm :], mean[s.norm :], False, v)  # fmt: skip
            # what was read
            p = s.p if K else s.kp
            if depth:
                hem(buffer, s.H, s.W, s.C, p)
                frame_relu(kept, s.x + n * s.H * s.W * s.C, buffer, s.H, s.W, s.C, p,
                           lines[SCALE * V + s.norm_before :],
                           lines[SHIFT * V + s.norm_before :], v)  # fmt: skip
                source, at, row, into, io = buffer, 0, (s.W + 2 * p) * s.C, dkept, s.dx + n * s.H * s.W * s.C
            elif s.phases:
                source, at, row, into, io = split, 0, s.W * s.C, dsplit, 0
            else:
                source, at, row, into, io = whole, (B - p) * (wrow + C), wrow, image, 0
            reach = s.d * (K - 1) - p if K and s.s == 1 else 0
            drow = (w + 2 * reach) * s.C
            inner = reach * (drow + s.C)
            if s.winograd:
                into[io : io + s.H * s.W * s.C] = 0
                filtered_back(n, lo, hi, room, source, at, row, kept, turned, lines, targets, dkept, found, into, io,
                              steps, i, i + 1, depth, s.H, s.W, s.C, fan, weights, True, v)  # fmt: skip
            elif weights:
                sent, to, srow = source, at, row
                if K:
                    slide(
                        source,
                        at,
                        row,
                        packed[s.packed_depthwise :],
                        z,
                        none,
                        w * s.C,
                        h,
                        w,
                        s.C,
                        K,
                        s.s,
                        s.d,
                        never,
                        v,
                    )
                    sent, to, srow = z, none, w * s.C
                conv_weight(
                    sent, to, srow, e, inside, ks * erow, ks * O, found[s.packed_conv :], h, w, s.C, O, k, ks, kd, v
                )
            if K:
                if reach:
                    hem(dz, h, w, s.C, reach)
                conv(e, none, erow, turned[s.packed_conv :], dz, inner, drow, h, w, O, s.C, k, ks, kd, never, v)
                if weights:
                    slide_weight(
                        source, at, row, dz, inner, drow, found[s.packed_depthwise :], h, w, s.C, K, s.s, s.d, v
                    )
                if (below or depth) and s.s == 1:
                    slide(dz, none, drow, turned[s.packed_depthwise :], into, io, s.W * s.C, s.H, s.W, s.C, K, one, s.d,
                          depth == 0, v)  # fmt: skip
                elif depth == 0 and below:
                    slide_back(dz, inner, drow, packed[s.packed_depthwise :], spread, at, wrow, h, w, C, K, s.s, s.d, v)
            elif not s.winograd and (below or depth):
                conv(
                    e,
                    none,
                    erow,
                    turned[s.packed_conv :],
                    into,
                    io,
                    s.W * s.C,
                    s.H,
                    s.W,
                    O,
                    s.C,
                    k,
                    one,
                    kd,
                    depth == 0,
                    v,
                )
            if depth:
                gate(source, p * (row + s.C), row, into, io, into, io, s.H, s.W, s.C, v)
                products(into, io, kept, s.x + n * s.H * s.W * s.C, s.H * s.W, s.C, mean[s.norm_before :], sums,
                         sums[V:],
                         n * 2 * V + s.norm_before, v)  # fmt: skip
        if below and depth == 0:
            to_state(n, room, x, kept, shares, lines, targets, dx, pools, ways, fan, v)
