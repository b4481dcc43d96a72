"""Triton kernels for a GPU: what :mod:`gapless.engine.tiled` launches.

A program takes a *tile*: some pixels, counted over all images, with all their channels. Images are [N, H, W, C], so the
numbers of a tile lie together. Kernels read what they do from a table of whole numbers, a row for each step of a chain
(:data:`COLUMNS`), so that one launch serves all steps of a kind. Nothing is added up in an order that depends on the
clock: sums over pixels are written tile by tile, and joined in double precision.

Lines are vectors over all channels that are normalised, ``V`` in number: see the constants below.
"""

from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = (
    "x", "g", "dx", "y", "z",  # what is read and written in kept (-1: the state), in dkept, and in the errors
    "deep", "wide",  # weights among the parameters
    "H", "W", "h", "w",  # input, output
    "side", "s", "p", "d",  # kernel, stride, padding, dilation of the one convolution over places
    "slot", "before",  # its normalisation, the one that it reads
)  # fmt: skip
"""What a row of the table of steps holds."""
_COLUMN = {name: tl.constexpr(i) for i, name in enumerate(COLUMNS)}
X, G, DX, Y, Z = (_COLUMN[name] for name in ("x", "g", "dx", "y", "z"))
DEEP, WIDE, SLOT, BEFORE = (_COLUMN[name] for name in ("deep", "wide", "slot", "before"))
IN_H, IN_W, OUT_H, OUT_W = (_COLUMN[name] for name in ("H", "W", "h", "w"))
SIDE, STRIDE, PADDING, DILATION = (_COLUMN[name] for name in ("side", "s", "p", "d"))
WIDTH = tl.constexpr(len(COLUMNS))

SCALE, SHIFT, MEAN, LEAD, FIRST, LAST = (tl.constexpr(i) for i in range(6))
"""Lines: a normalisation as scale and shift, its mean, its backward pass as ``lead (g - first) + last (y - mean)``."""
CENTRE, VARIANCE, INVERSE = (tl.constexpr(i) for i in range(3))
"""Lines of the book, in double precision."""

ENDS = ("slot", "y", "places", "g")
"""What a row of the table of the ends of routes holds: ``y`` in kept (-1: the state), ``g`` in the gradients."""
END_SLOT, END_Y, END_PLACES, END_G = (tl.constexpr(i) for i in range(4))
END_WIDTH = tl.constexpr(4)

SLOTS = ("at", "C", "places", "normed", "affine", "way", "source", "eps")
"""What a row of the table of normalisations holds; ``eps`` as the bits of a double."""
SLOT_AT, SLOT_C, SLOT_PLACES, SLOT_NORMED, SLOT_AFFINE, SLOT_WAY, SLOT_SOURCE, SLOT_EPS = (
    tl.constexpr(i) for i in range(8)
)
SLOT_WIDTH = tl.constexpr(8)


# ---------------------------------------------------------------------- parts


@triton.jit
def _geometry(row):
    """Return the sides of input and output, stride, padding and dilation of a step."""
    H, W, h, w = tl.load(row + IN_H), tl.load(row + IN_W), tl.load(row + OUT_H), tl.load(row + OUT_W)
    s, p, d = tl.load(row + STRIDE), tl.load(row + PADDING), tl.load(row + DILATION)
    return (
        H.to(tl.int32), W.to(tl.int32), h.to(tl.int32), w.to(tl.int32), s.to(tl.int32), p.to(tl.int32), d.to(tl.int32),
    )  # fmt: skip


@triton.jit
def _at(entry, A: tl.constexpr):
    """Return an offset from a table, a multiple of A: known to be so, whole vectors are loaded from there."""
    return tl.multiple_of(tl.load(entry), A)


@triton.jit
def _line(lines, which: tl.constexpr, V, slot, c, C: tl.constexpr):
    """Return a line of a normalisation, [1, C]."""
    return tl.load(lines + which * V + slot + c, mask=c < C, other=0.0)[None, :]


@triton.jit
def _positive(a):
    """Return the ReLU; what is not a number stays so."""
    return tl.where(a <= 0, 0.0, a)


@triton.jit
def _read(source, n, iy, ix, H, W, live, c, scale, shift, C: tl.constexpr, NORMED: tl.constexpr):
    """Return the ReLU of pixels (n, iy, ix), normalised before; zeros around the image."""
    inside = (live & (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None]
    at = ((n * H + iy) * W + ix) * C
    a = tl.load(source + at[:, None] + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
    if NORMED:
        a = tl.where(inside, a * scale + shift, 0.0)
    return _positive(a)


@triton.jit
def _normal(kept, lines, row, V, c, x, C: tl.constexpr, A: tl.constexpr, INNER: tl.constexpr):
    """Return what a step reads, and the normalisation before it."""
    if INNER:
        before = tl.load(row + BEFORE)
        scale, shift = _line(lines, SCALE, V, before, c, C), _line(lines, SHIFT, V, before, c, C)
        source = kept + _at(row + X, A)
    else:
        source = x
        scale, shift = 0.0, 0.0
    return source, scale, shift


@triton.jit
def _slide(source, deep, side, n, top, left, d, H, W, live, c, scale, shift, K: tl.constexpr, C: tl.constexpr,
           BP: tl.constexpr, BC: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """Return the depthwise convolution of a tile. The loop over rows is not unrolled: that would fill all registers."""
    z = tl.zeros([BP, BC], source.dtype.element_ty)
    for ky in range(side):
        for kx in tl.static_range(K):
            a = _read(source, n, top + ky * d, left + kx * d, H, W, live, c, scale, shift, C, INNER)
            z += a * tl.load(deep + c * (K * K) + ky * K + kx, mask=c < C, other=0.0)[None, :]
    return z


@triton.jit
def _error(g, y, lines, slot, V, m, live, c, C: tl.constexpr):
    """Return the gradient before a normalisation at pixels m: ``lead (g - first) + last (y - mean)``."""
    at, mask = m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    e = (tl.load(g + at, mask=mask, other=0.0) - _line(lines, FIRST, V, slot, c, C)) * _line(lines, LEAD, V, slot, c, C)
    off = tl.load(y + at, mask=mask, other=0.0) - _line(lines, MEAN, V, slot, c, C)
    return tl.where(mask, e + off * _line(lines, LAST, V, slot, c, C), 0.0)


@triton.jit
def _note(y, seen, tile, tiles, slot, V, live, c, C: tl.constexpr):
    """Write mean and centred sum of squares of a tile."""
    count = tl.sum(live.to(tl.int32), axis=0)
    mean = tl.sum(tl.where(live[:, None], y, 0.0), axis=0) / tl.maximum(count, 1).to(y.dtype)
    off = tl.where(live[:, None], y - mean[None, :], 0.0)
    to = seen + tile * V + slot + c
    tl.store(to, mean, mask=c < C)
    tl.store(to + tiles * V, tl.sum(off * off, axis=0), mask=c < C)


@triton.jit
def _outer(e, z, B: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, PRECISION: tl.constexpr):
    """Return the sum over pixels of products of e and z, in B parts: one for each warp where the product is small."""
    if B > 1:
        e, z = tl.reshape(e, [B, BP // B, BO]), tl.reshape(z, [B, BP // B, BC])
        return tl.dot(tl.permute(e, (0, 2, 1)), z, input_precision=PRECISION, out_dtype=e.dtype)
    else:
        return tl.dot(tl.trans(e), z, input_precision=PRECISION, out_dtype=e.dtype)


@triton.jit
def _none(B: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, dtype: tl.constexpr):
    """Return sums of no products, as :func:`_outer` gives them."""
    if B > 1:
        return tl.zeros([B, BO, BC], dtype)
    else:
        return tl.zeros([BO, BC], dtype)


@triton.jit
def _joined(part, B: tl.constexpr):
    """Return the sum of the parts, [BO, BC]."""
    if B > 1:
        return tl.sum(part, axis=0)
    else:
        return part


@triton.jit
def _area(top, left, H, W, K: tl.constexpr):
    """Return how many pixels of a window are in the image."""
    rows = tl.minimum(top + K, H) - tl.maximum(top, 0)
    return rows * (tl.minimum(left + K, W) - tl.maximum(left, 0))


# ---------------------------------------------------------------------- forward


@triton.jit
def ahead(
    x, kept, flat, lines, seen, table, images, tiles, V, K: tl.constexpr, KK: tl.constexpr, C: tl.constexpr,
    O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a tile of the output of a step, and its moments: ReLU, a depthwise convolution of K pixels a side and a
    pointwise one, or (K = 0) a convolution of KK pixels a side. INNER: it reads what a step before it left."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    m, c, o = tile * BP + tl.arange(0, BP), tl.arange(0, BC), tl.arange(0, BO)
    live = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    deep, wide = flat + tl.load(row + DEEP), flat + tl.load(row + WIDE)
    known = (c < C)[:, None] & (o < O)[None, :]
    y = tl.zeros([BP, BO], x.dtype.element_ty)
    if K > 0:
        z = _slide(source, deep, side, n, top, left, d, H, W, live, c, scale, shift, K, C, BP, BC, INNER)
        weight = tl.load(wide + o[None, :] * C + c[:, None], mask=known, other=0.0)
        y += tl.dot(z, weight, input_precision=PRECISION, out_dtype=x.dtype.element_ty)
    else:
        for t in range(side * side):
            a = _read(source, n, top + t // KK * d, left + t % KK * d, H, W, live, c, scale, shift, C, INNER)
            weight = tl.load(wide + (o[None, :] * C + c[:, None]) * (KK * KK) + t, mask=known, other=0.0)
            y += tl.dot(a, weight, input_precision=PRECISION, out_dtype=x.dtype.element_ty)
    to = kept + _at(row + Y, A) + m[:, None] * O + o[None, :]
    tl.store(to, y, mask=live[:, None] & (o < O)[None, :])
    _note(y, seen, tile, tiles, tl.load(row + SLOT), V, live, o, O)


@triton.jit
def pool(
    x, out, chosen, seen, slot, images, tiles, V, H, W, h, w, side, s, p, K: tl.constexpr, LARGEST: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Pool a tile, and take its moments; ``chosen`` gets the place of the first largest number of each window."""
    tile = tl.program_id(0)
    m, c = tile * BP + tl.arange(0, BP), tl.arange(0, BC)
    live = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    at, mask = m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    best = tl.full([BP, BC], float("-inf") if LARGEST else 0.0, x.dtype.element_ty)
    which = tl.zeros([BP, BC], tl.int32)
    for ky in range(side):
        for kx in tl.static_range(K):
            iy, ix = top + ky, left + kx
            inside = (live & (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None]
            place = ((n * H + iy) * W + ix) * C
            a = tl.load(x + place[:, None] + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
            if LARGEST:
                more = inside & ((a > best) | (a != a))
                best = tl.where(more, a, best)
                which = tl.where(more, ky * K + kx, which)
            else:
                best += a
    if LARGEST:
        tl.store(chosen + at, which.to(tl.int8), mask=mask)
    else:
        best = best / _area(top, left, H, W, K).to(x.dtype.element_ty)[:, None]
    tl.store(out + at, best, mask=mask)
    if slot >= 0:
        _note(best, seen, tile, tiles, slot, V, live, c, C)


@triton.jit
def settle(
    seen, flat, shares, book, lines, moments, table, images, tiles, V, BP: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Join the moments of all tiles, for one normalisation."""
    row = table + tl.program_id(0) * SLOT_WIDTH
    at, C = tl.load(row + SLOT_AT), tl.load(row + SLOT_C).to(tl.int32)
    way, affine = tl.load(row + SLOT_WAY), tl.load(row + SLOT_AFFINE)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    known = c < C
    share = tl.load(shares + tl.maximum(way, 0)).to(tl.float64)
    share = tl.where(way >= 0, share, 1.0)
    mean, variance, inverse = tl.zeros([BC], tl.float64), tl.full([BC], 1.0, tl.float64), tl.full([BC], 1.0, tl.float64)
    gamma, beta = tl.full([BC], 1.0, tl.float64), tl.zeros([BC], tl.float64)
    if tl.load(row + SLOT_NORMED) > 0:
        total = images * tl.load(row + SLOT_PLACES).to(tl.int32)
        own = tl.cdiv(total, BP)
        source = seen + tl.load(row + SLOT_SOURCE)
        first = tl.load(source + c, mask=known, other=0.0).to(tl.float64)  # sums about a mean lose no digits
        second = tl.zeros([BC], tl.float64)
        for start in range(0, own, BT):
            tile = start + t
            count = tl.minimum(total - tile * BP, BP).to(tl.float64)[:, None]
            mask = (tile < own)[:, None] & known[None, :]
            place = source + tile[:, None] * V + c[None, :]
            off = tl.where(mask, tl.load(place, mask=mask, other=0.0).to(tl.float64) - first[None, :], 0.0)
            spread = tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64)
            mean += tl.sum(count * off, axis=0)
            second += tl.sum(spread + count * off * off, axis=0)
        mean = mean / total
        second = second - total * mean * mean
        mean = mean + first
        variance = second / total
        inverse = 1.0 / tl.sqrt(variance + tl.load(row + SLOT_EPS).to(tl.float64, bitcast=True))
        gamma = inverse
        if affine >= 0:
            gamma = inverse * tl.load(flat + affine + c, mask=known, other=0.0).to(tl.float64)
            beta = tl.load(flat + affine + C + c, mask=known, other=0.0).to(tl.float64)
    kind = lines.dtype.element_ty
    tl.store(book + CENTRE * V + at + c, mean, mask=known)
    tl.store(book + VARIANCE * V + at + c, variance, mask=known)
    tl.store(book + INVERSE * V + at + c, inverse, mask=known)
    tl.store(lines + SCALE * V + at + c, (share * gamma).to(kind), mask=known)
    tl.store(lines + SHIFT * V + at + c, (share * (beta - mean * gamma)).to(kind), mask=known)
    tl.store(lines + MEAN * V + at + c, mean.to(kind), mask=known)
    tl.store(moments + at + c, mean.to(kind), mask=known)
    tl.store(moments + V + at + c, variance.to(kind), mask=known)


@triton.jit
def gather(
    x, kept, lines, out, table, ways, pixels, V, more, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write, or (``more``) add, a tile of what arrives at a target."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    mask, at = (m < pixels)[:, None] & (c < C)[None, :], m[:, None] * C + c[None, :]
    total = tl.load(out + at, mask=mask & (more > 0), other=0.0)
    for i in range(ways):
        row = table + i * END_WIDTH
        slot, y = tl.load(row + END_SLOT), tl.load(row + END_Y)
        source = kept + tl.multiple_of(tl.maximum(y, 0), A)
        if y < 0:
            source = x
        a = tl.load(source + at, mask=mask, other=0.0)
        total += a * _line(lines, SCALE, V, slot, c, C) + _line(lines, SHIFT, V, slot, c, C)
    tl.store(out + at, total, mask=mask)


# ---------------------------------------------------------------------- backward


@triton.jit
def correlate(
    x, kept, lines, given, sums, table, images, tiles, V, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """For the end of a route write the sums over a tile of the gradient g and of g (y - mean)."""
    row, tile = table + tl.program_id(1) * END_WIDTH, tl.program_id(0)
    slot, y = tl.load(row + END_SLOT), tl.load(row + END_Y)
    m, c = tile * BP + tl.arange(0, BP), tl.arange(0, BC)
    mask = (m < images * tl.load(row + END_PLACES).to(tl.int32))[:, None] & (c < C)[None, :]
    at = m[:, None] * C + c[None, :]
    source = kept + tl.multiple_of(tl.maximum(y, 0), A)
    if y < 0:
        source = x
    g = tl.load(given + _at(row + END_G, A) + at, mask=mask, other=0.0)
    off = tl.load(source + at, mask=mask, other=0.0) - _line(lines, MEAN, V, slot, c, C)
    to = sums + tile * V + slot + c
    tl.store(to, tl.sum(g, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(g * off, axis=0), mask=c < C)


@triton.jit
def carry(
    sums, flat, found, shares, dshares, book, lines, table, images, tiles, V, BP: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Join the sums of all tiles, for one normalisation: gradients of its share, scale and shift, and what the gradient
    before it needs."""
    row = table + tl.program_id(0) * SLOT_WIDTH
    at, C = tl.load(row + SLOT_AT), tl.load(row + SLOT_C).to(tl.int32)
    way, affine = tl.load(row + SLOT_WAY), tl.load(row + SLOT_AFFINE)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    known = c < C
    share = tl.load(shares + tl.maximum(way, 0)).to(tl.float64)
    share = tl.where(way >= 0, share, 1.0)
    total = images * tl.load(row + SLOT_PLACES).to(tl.int32)
    own = tl.cdiv(total, BP)
    s1, s2 = tl.zeros([BC], tl.float64), tl.zeros([BC], tl.float64)
    for start in range(0, own, BT):
        tile = start + t
        mask = (tile < own)[:, None] & known[None, :]
        place = sums + at + tile[:, None] * V + c[None, :]
        s1 += tl.sum(tl.load(place, mask=mask, other=0.0).to(tl.float64), axis=0)
        s2 += tl.sum(tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64), axis=0)
    lead, first, last = tl.zeros([BC], tl.float64) + share, tl.zeros([BC], tl.float64), tl.zeros([BC], tl.float64)
    whole = s2
    kind = lines.dtype.element_ty
    if tl.load(row + SLOT_NORMED) > 0:
        inverse = tl.load(book + INVERSE * V + at + c, mask=known, other=0.0)
        scale = inverse
        if affine >= 0:
            scale = inverse * tl.load(flat + affine + c, mask=known, other=0.0).to(tl.float64)
            tl.store(found + affine + c, (share * s2 * inverse).to(kind), mask=known)
            tl.store(found + affine + C + c, (share * s1).to(kind), mask=known)
            whole = s1 * tl.load(flat + affine + C + c, mask=known, other=0.0).to(tl.float64)
        else:
            whole = tl.zeros([BC], tl.float64)
        whole += s2 * scale
        lead = share * scale
        first = s1 / total
        last = -share * scale * inverse * inverse * s2 / total
    tl.store(lines + LEAD * V + at + c, lead.to(kind), mask=known)
    tl.store(lines + FIRST * V + at + c, first.to(kind), mask=known)
    tl.store(lines + LAST * V + at + c, last.to(kind), mask=known)
    if way >= 0:
        tl.store(dshares + way, tl.sum(tl.where(known, whole, 0.0), axis=0).to(kind))


@triton.jit
def slide(
    x, kept, flat, lines, out, table, images, V, K: tl.constexpr, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Compute a tile of the depthwise convolution of a step again."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    m, c = tile * BP + tl.arange(0, BP), tl.arange(0, BC)
    live = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    deep = flat + tl.load(row + DEEP)
    z = _slide(source, deep, side, n, top, left, d, H, W, live, c, scale, shift, K, C, BP, BC, INNER)
    tl.store(out + _at(row + Z, A) + m[:, None] * C + c[None, :], z, mask=live[:, None] & (c < C)[None, :])


@triton.jit
def turn(
    kept, flat, lines, after, convolved, errors, found, table, images, chunks, stride, V, K: tl.constexpr,
    C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
    WEIGHTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient before the normalisation of a step, or (K > 0) the one before its pointwise convolution, and
    (WEIGHTS) a chunk's part of the gradient at the weights of that, for what it read. ``after`` holds the gradient
    behind. A program takes every ``chunks``-th tile."""
    row, chunk = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    _H, _W, h, w, _s, _p, _d = _geometry(row)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    total = images * h * w
    slot, y = tl.load(row + SLOT), kept + _at(row + Y, A)
    g, to, z = after + _at(row + G, A), errors + _at(row + Z, A), convolved + _at(row + Z, A)
    wide = tl.load(row + WIDE)
    known, place = (o < O)[:, None] & (c < C)[None, :], o[:, None] * C + c[None, :]
    B: tl.constexpr = 4 if BC * BO == 256 and BP >= 64 else 1
    part = _none(B, BC, BO, errors.dtype.element_ty)
    for tile in range(chunk, tl.cdiv(total, BP), chunks):
        m = tile * BP + tl.arange(0, BP)
        live = m < total
        e = _error(g, y, lines, slot, V, m, live, o, O)
        if K > 0:
            weight = tl.load(flat + wide + place, mask=known, other=0.0)
            dz = tl.dot(e, weight, input_precision=PRECISION, out_dtype=errors.dtype.element_ty)
            at, mask = m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
            tl.store(to + at, dz, mask=mask)
            if WEIGHTS:
                part += _outer(e, tl.load(z + at, mask=mask, other=0.0), B, BP, BC, BO, PRECISION)
        else:
            tl.store(to + m[:, None] * O + o[None, :], e, mask=live[:, None] & (o < O)[None, :])
    if WEIGHTS and K > 0:
        tl.store(found + chunk * stride + wide + place, _joined(part, B), mask=known)


@triton.jit
def _product(part, own, source, n, iy, ix, H, W, live, c, scale, shift, K: tl.constexpr, C: tl.constexpr,
             B: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr,
             PRECISION: tl.constexpr):  # fmt: skip
    """Add to the gradient at one pixel of a kernel: products with what it saw."""
    a = _read(source, n, iy, ix, H, W, live, c, scale, shift, C, INNER)
    if K > 0:
        part += own * a
    else:
        part += _outer(own, a, B, BP, BC, BO, PRECISION)
    return part


@triton.jit
def _put(to, part, K: tl.constexpr, B: tl.constexpr, known):
    """Write the gradient at one pixel of a kernel."""
    if K > 0:
        tl.store(to, tl.sum(part, axis=0)[None, :], mask=known)
    else:
        tl.store(to, _joined(part, B), mask=known)


@triton.jit
def weigh(
    x, kept, lines, errors, found, table, images, chunks, stride, V, K: tl.constexpr, KK: tl.constexpr,
    C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a chunk's part of the gradient at one row, of up to seven pixels, of the kernel of a step's convolution
    over places."""
    row, chunk, ky = table + tl.program_id(1) * WIDTH, tl.program_id(0), tl.program_id(2)
    S: tl.constexpr = K if K > 0 else KK
    H, W, h, w, s, p, d = _geometry(row)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    total = images * h * w
    e = errors + _at(row + Z, A)
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    B: tl.constexpr = 4 if BC * BO == 256 and BP >= 64 else 1
    if K > 0:
        p0 = tl.zeros([BP, BC], x.dtype.element_ty)
    else:
        p0 = _none(B, BC, BO, x.dtype.element_ty)
    p1, p2, p3, p4, p5, p6 = p0, p0, p0, p0, p0, p0
    for tile in range(chunk, tl.cdiv(total, BP), chunks):
        m = tile * BP + tl.arange(0, BP)
        live = m < total
        n, y, q = m // (h * w), (m // w) % h * s - p + ky * d, m % w * s - p
        if K > 0:
            own = tl.load(e + m[:, None] * C + c[None, :], mask=live[:, None] & (c < C)[None, :], other=0.0)
        else:
            own = tl.load(e + m[:, None] * O + o[None, :], mask=live[:, None] & (o < O)[None, :], other=0.0)
        p0 = _product(p0, own, source, n, y, q, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION)
        if S > 1:
            p1 = _product(
                p1, own, source, n, y, q + d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
        if S > 2:
            p2 = _product(
                p2, own, source, n, y, q + 2 * d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
        if S > 3:
            p3 = _product(
                p3, own, source, n, y, q + 3 * d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
        if S > 4:
            p4 = _product(
                p4, own, source, n, y, q + 4 * d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
        if S > 5:
            p5 = _product(
                p5, own, source, n, y, q + 5 * d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
        if S > 6:
            p6 = _product(
                p6, own, source, n, y, q + 6 * d, H, W, live, c, scale, shift, K, C, B, BP, BC, BO, INNER, PRECISION
            )
    to = found + chunk * stride + ky * S
    if K > 0:
        to += tl.load(row + DEEP) + c[None, :] * (K * K)
        known = (c < C)[None, :]
    else:
        to += tl.load(row + WIDE) + (o[:, None] * C + c[None, :]) * (KK * KK)
        known = (o < O)[:, None] & (c < C)[None, :]
    _put(to, p0, K, B, known)
    if S > 1:
        _put(to + 1, p1, K, B, known)
    if S > 2:
        _put(to + 2, p2, K, B, known)
    if S > 3:
        _put(to + 3, p3, K, B, known)
    if S > 4:
        _put(to + 4, p4, K, B, known)
    if S > 5:
        _put(to + 5, p5, K, B, known)
    if S > 6:
        _put(to + 6, p6, K, B, known)


@triton.jit
def fold(found, out, count, stride, chunks, B: tl.constexpr):
    """Add up the parts of gradients."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    total = tl.zeros([B], tl.float64)
    for chunk in range(chunks):
        total += tl.load(found + chunk * stride + at, mask=at < count, other=0.0).to(tl.float64)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=at < count)


@triton.jit
def _under(n, y, x, h, w, s, live):
    """Return whether a window begins at (y, x), and the place of its output."""
    oy, ox = y // s, x // s
    inside = live & (y >= 0) & (x >= 0) & (oy < h) & (ox < w) & (oy * s == y) & (ox * s == x)
    return inside[:, None], ((n * h + oy) * w + ox)[:, None]


@triton.jit
def _back(row, flat, errors, m, live, c, o, K: tl.constexpr, KK: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
          A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Return the gradient at pixels m of what a step's convolution over places read."""
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    e, deep, wide = errors + _at(row + Z, A), flat + tl.load(row + DEEP), flat + tl.load(row + WIDE)
    total = tl.zeros([BP, BC], errors.dtype.element_ty)
    if K > 0:
        for ky in range(side):
            for kx in tl.static_range(K):
                inside, at = _under(n, iy - ky * d, ix - kx * d, h, w, s, live)
                own = tl.load(e + at * C + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
                total += own * tl.load(deep + c * (K * K) + ky * K + kx, mask=c < C, other=0.0)[None, :]
    else:
        known = (o < O)[:, None] & (c < C)[None, :]
        for t in range(side * side):
            inside, at = _under(n, iy - t // KK * d, ix - t % KK * d, h, w, s, live)
            own = tl.load(e + at * O + o[None, :], mask=inside & (o < O)[None, :], other=0.0)
            weight = tl.load(wide + (o[:, None] * C + c[None, :]) * (KK * KK) + t, mask=known, other=0.0)
            total += tl.dot(own, weight, input_precision=PRECISION, out_dtype=errors.dtype.element_ty)
    return total


@triton.jit
def behind(
    kept, flat, lines, errors, dkept, sums, table, images, tiles, V, K: tl.constexpr, KK: tl.constexpr,
    C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient after the normalisation before a step, and the sums that it needs."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, _h, _w, _s, _p, _d = _geometry(row)
    m, c, o = tile * BP + tl.arange(0, BP), tl.arange(0, BC), tl.arange(0, BO)
    live = m < images * H * W
    g = _back(row, flat, errors, m, live, c, o, K, KK, C, O, A, BP, BC, PRECISION)
    before, mask, at = tl.load(row + BEFORE), live[:, None] & (c < C)[None, :], m[:, None] * C + c[None, :]
    y = tl.load(kept + _at(row + X, A) + at, mask=mask, other=0.0)
    normal = y * _line(lines, SCALE, V, before, c, C) + _line(lines, SHIFT, V, before, c, C)
    g = tl.where(mask, tl.where(normal <= 0, 0.0, g), 0.0)
    tl.store(dkept + _at(row + DX, A) + at, g, mask=mask)
    to = sums + tile * V + before + c
    tl.store(to, tl.sum(g, axis=0), mask=c < C)
    off = tl.where(mask, y - _line(lines, MEAN, V, before, c, C), 0.0)
    tl.store(to + tiles * V, tl.sum(g * off, axis=0), mask=c < C)


@triton.jit
def collect(
    flat, errors, image, table, steps, pixels, more, K: tl.constexpr, KK: tl.constexpr, C: tl.constexpr,
    O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write, or (``more``) add, a tile of the gradient at what the first steps of chains read."""
    m, c, o = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC), tl.arange(0, BO)
    live = m < pixels
    to, mask = image + m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    total = tl.load(to, mask=mask & (more > 0), other=0.0)
    for i in range(steps):
        total += _back(table + i * WIDTH, flat, errors, m, live, c, o, K, KK, C, O, A, BP, BC, PRECISION)
    tl.store(to, total, mask=mask)


@triton.jit
def pass_on(
    x, lines, given, dx, table, ways, pixels, V, chains, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Finish a tile of the gradient at the state: the ReLU of what chains left in dx (``chains``), and the skips."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    at, mask = m[:, None] * C + c[None, :], (m < pixels)[:, None] & (c < C)[None, :]
    state = tl.load(x + at, mask=mask, other=0.0)
    total = tl.where(state <= 0, 0.0, tl.load(dx + at, mask=mask & (chains > 0), other=0.0))
    for i in range(ways):
        row = table + i * END_WIDTH
        g = tl.load(given + _at(row + END_G, A) + at, mask=mask, other=0.0)
        total += g * _line(lines, LEAD, V, tl.load(row + END_SLOT), c, C)
    tl.store(dx + at, total, mask=mask)


@triton.jit
def pool_error(
    kept, lines, given, out, table, ways, pixels, V, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient at a pool of the state, from all routes that read it."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    live = m < pixels
    total = tl.zeros([BP, BC], out.dtype.element_ty)
    for i in range(ways):
        row = table + i * END_WIDTH
        y, g = kept + _at(row + END_Y, A), given + _at(row + END_G, A)
        total += _error(g, y, lines, tl.load(row + END_SLOT), V, m, live, c, C)
    tl.store(out + m[:, None] * C + c[None, :], total, mask=live[:, None] & (c < C)[None, :])


@triton.jit
def unpool(
    e, chosen, dx, images, H, W, h, w, side, s, p, K: tl.constexpr, LARGEST: tl.constexpr, C: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Add a tile of the gradient that comes to the state through a pool."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    live = m < images * H * W
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    to, mask = dx + m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    total = tl.load(to, mask=mask, other=0.0)
    for ky in range(side):
        for kx in tl.static_range(K):
            inside, at = _under(n, iy - ky, ix - kx, h, w, s, live)
            at = at * C + c[None, :]
            own = tl.load(e + at, mask=inside & (c < C)[None, :], other=0.0)
            if LARGEST:
                which = tl.load(chosen + at, mask=inside & (c < C)[None, :], other=-1).to(tl.int32)
                total += tl.where(which == ky * K + kx, own, 0.0)
            else:
                area = _area(iy - ky - p, ix - kx - p, H, W, K)[:, None]
                total += own / tl.where(inside, area, 1).to(e.dtype.element_ty)
    tl.store(to, total, mask=mask)
