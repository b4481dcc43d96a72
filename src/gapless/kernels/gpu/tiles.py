"""Triton kernels for a GPU: what :mod:`gapless.kernels.gpu.backend` launches.

A program takes a *tile*: some pixels, counted over all images, with all their channels. Images are [N, H, W, C], so the
numbers of a tile lie together. Where a depthwise convolution is at work it takes a *walk*: some columns, counted over
all images, and goes down some of their rows, so that a row is read once for all outputs that it has a part in. Kernels
read what they do from a table of whole numbers, a row for each step of a chain (:data:`COLUMNS`), so that one launch
serves all steps of a kind. Nothing is added up in an order that depends on the clock: sums over pixels are written tile
by tile (walk by walk), and joined in double precision.

Weights come packed: those of a pixel of a kernel lie together, [K, K, out, in].

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
    "apart",  # how many rows a walk moves on from an output to the next
    "norm", "norm_before",  # its normalisation, the one that it reads
)  # fmt: skip
"""What a row of the table of steps holds."""
_COLUMN = {name: tl.constexpr(i) for i, name in enumerate(COLUMNS)}
X, G, DX, Y, Z = (_COLUMN[name] for name in ("x", "g", "dx", "y", "z"))
DEEP, WIDE, SLOT, BEFORE = (_COLUMN[name] for name in ("deep", "wide", "norm", "norm_before"))
IN_H, IN_W, OUT_H, OUT_W = (_COLUMN[name] for name in ("H", "W", "h", "w"))
SIDE, STRIDE, PADDING, DILATION, APART = (_COLUMN[name] for name in ("side", "s", "p", "d", "apart"))
WIDTH = tl.constexpr(len(COLUMNS))

SCALE, SHIFT, MEAN, LEAD, FIRST, LAST = (tl.constexpr(i) for i in range(6))
"""Lines: a normalisation as scale and shift, its mean, its backward pass as ``lead (g - first) + last (y - mean)``."""
CENTRE, VARIANCE, INVERSE = (tl.constexpr(i) for i in range(3))
"""Lines of the book, in double precision."""

ENDS = ("norm", "y", "pixels", "g")
"""What a row of the table of the ends of routes holds: ``y`` in kept (-1: the state), ``g`` in the gradients."""
END_SLOT, END_Y, END_PLACES, END_G = (tl.constexpr(i) for i in range(4))
END_WIDTH = tl.constexpr(4)

SPANS = ("begin", "count", "pixels")
"""What a row of the table of spans holds: parameters whose convolution has a kernel of so many pixels."""
SPAN_BEGIN, SPAN_COUNT, SPAN_PIXELS = (tl.constexpr(i) for i in range(3))
SPAN_WIDTH = tl.constexpr(3)

SLOTS = ("start", "C", "pixels", "normalised", "affine", "route", "source", "seen", "sums", "eps")
"""What a row of the table of normalisations holds: ``seen`` and ``sums`` are in how many parts its moments and the sums
of its gradient come, ``eps`` the bits of a double."""
SLOT_AT, SLOT_C, SLOT_PLACES, SLOT_NORMED, SLOT_AFFINE, SLOT_WAY, SLOT_SOURCE, SLOT_SEEN, SLOT_SUMS, SLOT_EPS = (
    tl.constexpr(i) for i in range(10)
)
SLOT_WIDTH = tl.constexpr(10)


TARGETS = 4
"""How many targets a launch of :func:`gather` writes to, at most."""

COUNTS = (
    "images", "tiles", "chunks", "stride", "length", "pixels", "ways", "steps", "chains", "more", "V", "H", "W", "h",
    "w",
)  # fmt: skip
"""Numbers that kernels are not compiled anew for: a last batch, a mask, a fan of other edges."""

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
def _read(source, n, iy, ix, H, W, live, c, scale, shift, C: tl.constexpr, NORMED: tl.constexpr,
          POSITIVE: tl.constexpr):  # fmt: skip
    """Return pixels (n, iy, ix), normalised before (NORMED), their ReLU (POSITIVE); zeros around the image."""
    inside = (live & (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None]
    at = ((n * H + iy) * W + ix) * C
    a = tl.load(source + at[:, None] + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
    if NORMED:
        a = tl.where(inside, a * scale + shift, 0.0)
    return tl.where(a <= 0, 0.0, a) if POSITIVE else a  # what is not a number stays so


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
def _onward(ky, kx, i, side, blocks: tl.constexpr):
    """Return the pixel of a kernel that the next turn of a loop over pixels, and blocks of channels, is at: a division
    would cost as much as what is done there."""
    kx += (i + 1) // blocks - i // blocks
    over = kx == side
    return tl.where(over, ky + 1, ky), tl.where(over, 0, kx)


@triton.jit
def _walk(tile, images, h, w, apart, length, BP: tl.constexpr):
    """Return the columns of a walk (image, place in the row, whether it is there), its first row, and how many outputs
    come before its first and before its end."""
    blocks = tl.cdiv(images * w, BP)
    m = tile % blocks * BP + tl.arange(0, BP)
    line = tile // blocks
    first = line // apart * length
    return m // w, m % w, m < images * w, line % apart, first, first + length


@triton.jit
def _taps(q0, q1, q2, q3, q4, q5, q6, source, deep, n, top, left, d, H, W, live, c, scale, shift,
          K: tl.constexpr, T: tl.constexpr, C: tl.constexpr, NORMED: tl.constexpr, POSITIVE: tl.constexpr,
          TURNED: tl.constexpr):  # fmt: skip
    """Add T more rows, from ``top`` on, times their weights, to the outputs that they have a part in: q0 is the newest
    of them, and a row lies T rows of the kernel lower for each that is older. TURNED: the kernel is turned by half."""
    known, down = c < C, (-K if TURNED else K) * C
    for q in tl.static_range(T):
        for kx in tl.static_range(K):
            a = _read(source, n, top + q * d, left + kx * d, H, W, live, c, scale, shift, C, NORMED, POSITIVE)
            at = deep + (K * K - 1 - kx if TURNED else kx) * C + q * down + c
            if q < K:
                q0 += a * tl.load(at, mask=known, other=0.0)[None, :]
            if q + T < K:
                q1 += a * tl.load(at + T * down, mask=known, other=0.0)[None, :]
            if q + 2 * T < K:
                q2 += a * tl.load(at + 2 * T * down, mask=known, other=0.0)[None, :]
            if q + 3 * T < K:
                q3 += a * tl.load(at + 3 * T * down, mask=known, other=0.0)[None, :]
            if q + 4 * T < K:
                q4 += a * tl.load(at + 4 * T * down, mask=known, other=0.0)[None, :]
            if q + 5 * T < K:
                q5 += a * tl.load(at + 5 * T * down, mask=known, other=0.0)[None, :]
            if q + 6 * T < K:
                q6 += a * tl.load(at + 6 * T * down, mask=known, other=0.0)[None, :]
    return q0, q1, q2, q3, q4, q5, q6


@triton.jit
def _pick(i: tl.constexpr, q0, q1, q2, q3, q4, q5, q6):
    """Return one of seven."""
    if i == 0:  # noqa: SIM116 (kernels know no dictionaries)
        return q0
    elif i == 1:
        return q1
    elif i == 2:
        return q2
    elif i == 3:
        return q3
    elif i == 4:
        return q4
    elif i == 5:
        return q5
    else:
        return q6


@triton.jit
def _error(g, y, lines, slot, V, m, live, c, C: tl.constexpr):
    """Return the gradient before a normalisation at pixels m: ``lead (g - first) + last (y - mean)``."""
    at, mask = m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    e = (tl.load(g + at, mask=mask, other=0.0) - _line(lines, FIRST, V, slot, c, C)) * _line(lines, LEAD, V, slot, c, C)
    off = tl.load(y + at, mask=mask, other=0.0) - _line(lines, MEAN, V, slot, c, C)
    return tl.where(mask, e + off * _line(lines, LAST, V, slot, c, C), 0.0)


@triton.jit
def _note(y, seen, tile, tiles, slot, V, live, c, C: tl.constexpr):
    """Write mean and centred sum of squares of a tile, and how many pixels they are of."""
    count = tl.sum(live.to(tl.int32), axis=0)
    mean = tl.sum(tl.where(live[:, None], y, 0.0), axis=0) / tl.maximum(count, 1).to(y.dtype)
    off = tl.where(live[:, None], y - mean[None, :], 0.0)
    _noted(mean, tl.sum(off * off, axis=0), count, seen, tile, tiles, slot, V, c, C)


@triton.jit
def _noted(mean, spread, count, seen, tile, tiles, slot, V, c, C: tl.constexpr):
    """Write what is known."""
    to = seen + tile * V + slot
    tl.store(to + c, mean, mask=c < C)
    tl.store(to + tiles * V + c, spread, mask=c < C)
    tl.store(to + 2 * tiles * V, count.to(mean.dtype))


@triton.jit
def _parts(a):
    """Return the nearest number of TF32 to each (11 bits), and what is left of it (13 bits)."""
    most = ((a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return most, a - most


@triton.jit
def _times(a, b, PRECISION: tl.constexpr):
    """Return a matrix product. ``tf32x3``: three products of parts, the small ones first, are as exact as one of whole
    numbers; Triton's own does the same, and looks at every number for what is not one."""
    if PRECISION == "tf32x3":
        most, rest = _parts(a)
        largest, left = _parts(b)
        found = tl.dot(rest, largest, input_precision="tf32")
        found = tl.dot(most, left, found, input_precision="tf32")
        return tl.dot(most, largest, found, input_precision="tf32")
    else:
        return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _outer(e, z, B: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, PRECISION: tl.constexpr):
    """Return the sum over pixels of products of e and z, in B parts: one for each warp where the product is small."""
    if B > 1:
        e, z = tl.reshape(e, [B, BP // B, BO]), tl.reshape(z, [B, BP // B, BC])
        return _times(tl.permute(e, (0, 2, 1)), z, PRECISION)
    else:
        return _times(tl.trans(e), z, PRECISION)


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


@triton.jit
def _span(row, B: tl.constexpr):
    """Return where a span begins, some places among its packed weights and what they are among its weights."""
    count, pixels = tl.load(row + SPAN_COUNT).to(tl.int32), tl.load(row + SPAN_PIXELS).to(tl.int32)
    at = tl.program_id(0) * B + tl.arange(0, B)
    each = count // pixels
    return tl.load(row + SPAN_BEGIN), at, at % each * pixels + at // each, at < count


# ---------------------------------------------------------------------- forward


@triton.jit(do_not_specialize=COUNTS)
def pack(weights, packed, table, B: tl.constexpr):
    """Pack weights."""
    begin, at, of, live = _span(table + tl.program_id(1) * SPAN_WIDTH, B)
    tl.store(packed + begin + at, tl.load(weights + begin + of, mask=live, other=0.0), mask=live)


@triton.jit(do_not_specialize=COUNTS)
def ahead(
    x, kept, flat, lines, seen, table, images, tiles, V, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a tile of the output of a step, and its moments: ReLU and a convolution. INNER: it reads what a step
    before it left. Channels come in blocks."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    m, o = tile * BP + tl.arange(0, BP), tl.program_id(2) * BO + tl.arange(0, BO)
    live = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    wide = flat + _at(row + WIDE, A)
    y = tl.zeros([BP, BO], x.dtype.element_ty)
    ky, kx = tl.program_id(0) * 0, tl.program_id(0) * 0  # no constants: a loop hands them on
    for i in range(side * side * tl.cdiv(C, BC)):
        t, c = i // tl.cdiv(C, BC), i % tl.cdiv(C, BC) * BC + tl.arange(0, BC)
        source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
        a = _read(source, n, top + ky * d, left + kx * d, H, W, live, c, scale, shift, C, INNER, True)
        known = (c < C)[:, None] & (o < O)[None, :]
        weight = tl.load(wide + t * (O * C) + o[None, :] * C + c[:, None], mask=known, other=0.0)
        y += _times(a, weight, PRECISION)
        ky, kx = _onward(ky, kx, i, side, tl.cdiv(C, BC))
    to = kept + _at(row + Y, A) + m[:, None] * O + o[None, :]
    tl.store(to, y, mask=live[:, None] & (o < O)[None, :])
    _note(y, seen, tile, tiles, tl.load(row + SLOT), V, live, o, O)


@triton.jit(do_not_specialize=COUNTS)
def slide(
    x, kept, flat, lines, seen, table, images, tiles, length, V, K: tl.constexpr, T: tl.constexpr, C: tl.constexpr,
    O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The same for ReLU, a depthwise convolution of K pixels a side, and a pointwise one, on a walk of ``length``
    outputs, T rows apart in what it reads."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    apart = tl.load(row + APART).to(tl.int32)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    n, ox, live, r, first, end = _walk(tile, images, h, w, apart, length, BP)
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    deep, wide, to = flat + _at(row + DEEP, A), flat + _at(row + WIDE, A), kept + _at(row + Y, A)
    weight = tl.load(wide + o[None, :] * C + c[:, None], mask=(c < C)[:, None] & (o < O)[None, :], other=0.0)
    LAG: tl.constexpr = (K - 1) // T  # when an output is whole
    z = tl.zeros([BP, BC], x.dtype.element_ty)
    p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
    once, twice = tl.zeros([BP, BO], x.dtype.element_ty), tl.zeros([BP, BO], x.dtype.element_ty)
    centre = tl.zeros([BO], x.dtype.element_ty)
    columns = tl.sum(live.to(tl.int32), axis=0)
    for j in range(first, end + LAG):
        q0, q1, q2, q3, q4, q5, q6 = _taps(
            z, p0, p1, p2, p3, p4, p5, source, deep, n, r * s - p + j * T * d, ox * s - p, d, H, W, live, c, scale,
            shift, K, T, C, INNER, True, False,
        )  # fmt: skip
        oy = r + (j - LAG) * apart
        if (j - LAG >= first) & (oy < h):
            y = _times(_pick(LAG, q0, q1, q2, q3, q4, q5, q6), weight, PRECISION)
            at = ((n * h + oy) * w + ox) * O
            tl.store(to + at[:, None] + o[None, :], y, mask=live[:, None] & (o < O)[None, :])
            if j - LAG == first:  # moments about a number near the mean lose no digits
                centre = tl.sum(tl.where(live[:, None], y, 0.0), axis=0) / columns.to(y.dtype)
            off = tl.where(live[:, None], y - centre[None, :], 0.0)
            once += off
            twice += off * off
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    count = columns * tl.maximum(tl.minimum(tl.cdiv(h - r, apart) - first, length), 0)
    total, over = tl.sum(once, axis=0), tl.maximum(count, 1).to(once.dtype)
    spread = tl.maximum(tl.sum(twice, axis=0) - total * (total / over), 0.0)
    _noted(centre + total / over, spread, count, seen, tile, tiles, tl.load(row + SLOT), V, o, O)


@triton.jit(do_not_specialize=COUNTS)
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
def _joint(seen, source, total, own, tiles, V, c, t, known, BT: tl.constexpr, BC: tl.constexpr):
    """Return mean and variance, for the moments of tiles."""
    source = seen + source
    first = tl.load(source + c, mask=known, other=0.0).to(tl.float64)  # sums about a mean lose no digits
    once, twice = tl.zeros([BT, BC], tl.float64), tl.zeros([BT, BC], tl.float64)
    for start in range(0, own, BT):
        tile = start + t
        there = tile < own
        count = tl.load(source + (2 * tiles + tile) * V, mask=there, other=0.0).to(tl.float64)[:, None]
        mask = there[:, None] & known[None, :]
        place = source + tile[:, None] * V + c[None, :]
        off = tl.where(mask, tl.load(place, mask=mask, other=0.0).to(tl.float64) - first[None, :], 0.0)
        once += count * off
        twice += tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64) + count * off * off
    mean = tl.sum(once, axis=0) / total
    second = tl.sum(twice, axis=0) - total * mean * mean
    return mean + first, second / total


@triton.jit(do_not_specialize=COUNTS)
def settle(
    seen, given, flat, shares, book, lines, moments, table, images, tiles, V, GIVEN: tl.constexpr, BT: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Join the moments of all tiles, for one normalisation; or take those that are given (GIVEN)."""
    row = table + tl.program_id(0) * SLOT_WIDTH
    at, C = tl.load(row + SLOT_AT), tl.load(row + SLOT_C).to(tl.int32)
    way, affine = tl.load(row + SLOT_WAY), tl.load(row + SLOT_AFFINE)
    # what is read here is on its way at once
    normed, places, own = tl.load(row + SLOT_NORMED), tl.load(row + SLOT_PLACES), tl.load(row + SLOT_SEEN).to(tl.int32)
    source, eps = tl.load(row + SLOT_SOURCE), tl.load(row + SLOT_EPS).to(tl.float64, bitcast=True)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    known = c < C
    share = tl.load(shares + tl.maximum(way, 0)).to(tl.float64)
    share = tl.where(way >= 0, share, 1.0)
    mean, variance, inverse = tl.zeros([BC], tl.float64), tl.full([BC], 1.0, tl.float64), tl.full([BC], 1.0, tl.float64)
    gamma, beta = tl.full([BC], 1.0, tl.float64), tl.zeros([BC], tl.float64)
    if normed > 0:
        if GIVEN:
            mean = tl.load(given + at + c, mask=known, other=0.0).to(tl.float64)
            variance = tl.load(given + V + at + c, mask=known, other=0.0).to(tl.float64)
        else:
            mean, variance = _joint(seen, source, images * places.to(tl.int32), own, tiles, V, c, t, known, BT, BC)
        inverse = 1.0 / tl.sqrt(variance + eps)
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


@triton.jit(do_not_specialize=COUNTS)
def gather(
    x, kept, lines, out0, out1, out2, out3, table, ranges, pixels, V, more, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write, or (bits of ``more``) add, a tile of what arrives at a target."""
    turn = tl.program_id(1)
    out = out0
    if turn == 1:
        out = out1
    if turn == 2:
        out = out2
    if turn == 3:
        out = out3
    begin, end = tl.load(ranges + 2 * turn).to(tl.int32), tl.load(ranges + 2 * turn + 1).to(tl.int32)
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    mask, at = (m < pixels)[:, None] & (c < C)[None, :], m[:, None] * C + c[None, :]
    total = tl.load(out + at, mask=mask & ((more >> turn) % 2 > 0), other=0.0)
    for i in range(begin, end):
        row = table + i * END_WIDTH
        slot, y = tl.load(row + END_SLOT), tl.load(row + END_Y)
        source = kept + tl.multiple_of(tl.maximum(y, 0), A)
        if y < 0:
            source = x
        a = tl.load(source + at, mask=mask, other=0.0)
        total += a * _line(lines, SCALE, V, slot, c, C) + _line(lines, SHIFT, V, slot, c, C)
    tl.store(out + at, total, mask=mask)


# ---------------------------------------------------------------------- backward


@triton.jit(do_not_specialize=COUNTS)
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


@triton.jit(do_not_specialize=COUNTS)
def carry(
    sums, flat, found, shares, dshares, book, lines, table, images, tiles, V, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Join the sums of all tiles, for one normalisation: gradients of its share, scale and shift, and what the gradient
    before it needs."""
    row = table + tl.program_id(0) * SLOT_WIDTH
    at, C = tl.load(row + SLOT_AT), tl.load(row + SLOT_C).to(tl.int32)
    way, affine = tl.load(row + SLOT_WAY), tl.load(row + SLOT_AFFINE)
    total = images * tl.load(row + SLOT_PLACES).to(tl.int32)
    normed, own = tl.load(row + SLOT_NORMED), tl.load(row + SLOT_SUMS).to(tl.int32)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    known = c < C
    share = tl.load(shares + tl.maximum(way, 0)).to(tl.float64)
    share = tl.where(way >= 0, share, 1.0)
    inverse = tl.load(book + INVERSE * V + at + c, mask=known, other=0.0)
    once, twice = tl.zeros([BT, BC], tl.float64), tl.zeros([BT, BC], tl.float64)
    for start in range(0, own, BT):
        tile = start + t
        mask = (tile < own)[:, None] & known[None, :]
        place = sums + at + tile[:, None] * V + c[None, :]
        once += tl.load(place, mask=mask, other=0.0).to(tl.float64)
        twice += tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64)
    s1, s2 = tl.sum(once, axis=0), tl.sum(twice, axis=0)
    lead, first, last = tl.zeros([BC], tl.float64) + share, tl.zeros([BC], tl.float64), tl.zeros([BC], tl.float64)
    whole = s2
    kind = lines.dtype.element_ty
    if normed > 0:
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


@triton.jit(do_not_specialize=COUNTS)
def turn(
    kept, lines, after, errors, table, images, V, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient before the normalisation of a step; ``after`` holds the gradient behind."""
    row = table + tl.program_id(1) * WIDTH
    m, o = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(2) * BO + tl.arange(0, BO)
    live = m < images * (tl.load(row + OUT_H) * tl.load(row + OUT_W)).to(tl.int32)
    g, y = after + _at(row + G, A), kept + _at(row + Y, A)
    e = _error(g, y, lines, tl.load(row + SLOT), V, m, live, o, O)
    tl.store(errors + _at(row + Z, A) + m[:, None] * O + o[None, :], e, mask=live[:, None] & (o < O)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def slide_back(
    x, kept, flat, lines, after, errors, found, table, images, chunks, stride, length, V, K: tl.constexpr,
    T: tl.constexpr, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BO: tl.constexpr, B: tl.constexpr, INNER: tl.constexpr, WEIGHTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient before the pointwise convolution of a step, and (WEIGHTS) a chunk's part of the gradient at
    its weights, for which the depthwise convolution is computed again. A program takes every ``chunks``-th walk."""
    row, chunk = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    apart = tl.load(row + APART).to(tl.int32)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    slot, y = tl.load(row + SLOT), kept + _at(row + Y, A)
    g, to = after + _at(row + G, A), errors + _at(row + Z, A)
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    deep, wide = _at(row + DEEP, A), _at(row + WIDE, A)
    known, place = (o < O)[:, None] & (c < C)[None, :], o[:, None] * C + c[None, :]
    weight = tl.load(flat + wide + place, mask=known, other=0.0)
    part = _none(B, BC, BO, errors.dtype.element_ty)
    LAG: tl.constexpr = (K - 1) // T if WEIGHTS else 0
    z = tl.zeros([BP, BC], errors.dtype.element_ty)
    walks = tl.cdiv(images * w, BP) * apart * tl.cdiv(tl.cdiv(h, apart), length)
    for tile in range(chunk, walks, chunks):
        n, ox, live, r, first, end = _walk(tile, images, h, w, apart, length, BP)
        p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
        for j in range(first, end + LAG):
            q0, q1, q2, q3, q4, q5, q6 = z, p0, p1, p2, p3, p4, p5
            if WEIGHTS:
                q0, q1, q2, q3, q4, q5, q6 = _taps(
                    q0, q1, q2, q3, q4, q5, q6, source, flat + deep, n, r * s - p + j * T * d, ox * s - p, d, H, W,
                    live, c, scale, shift, K, T, C, INNER, True, False,
                )  # fmt: skip
            oy = r + (j - LAG) * apart
            if (j - LAG >= first) & (oy < h):
                m = (n * h + oy) * w + ox
                e = _error(g, y, lines, slot, V, m, live, o, O)
                dz = _times(e, weight, PRECISION)
                tl.store(to + m[:, None] * C + c[None, :], dz, mask=live[:, None] & (c < C)[None, :])
                if WEIGHTS:
                    part += _outer(e, _pick(LAG, q0, q1, q2, q3, q4, q5, q6), B, BP, BC, BO, PRECISION)
            p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    if WEIGHTS:
        tl.store(found + chunk * tl.multiple_of(stride, A) + wide + place, _joined(part, B), mask=known)


@triton.jit(do_not_specialize=COUNTS)
def slide_weigh(
    x, kept, lines, errors, found, table, images, chunks, stride, length, V, K: tl.constexpr, T: tl.constexpr,
    C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Write a chunk's part of the gradient at one column of the kernel of a depthwise convolution."""
    row, chunk, kx = table + tl.program_id(1) * WIDTH, tl.program_id(0), tl.program_id(2)
    H, W, h, w, s, p, d = _geometry(row)
    apart = tl.load(row + APART).to(tl.int32)
    c = tl.arange(0, BC)
    e = errors + _at(row + Z, A)
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    LAG: tl.constexpr = (K - 1) // T
    z = tl.zeros([BP, BC], errors.dtype.element_ty)
    p0, p1, p2, p3, p4, p5, p6, r0, r1, r2 = z, z, z, z, z, z, z, z, z, z
    walks = tl.cdiv(images * w, BP) * apart * tl.cdiv(tl.cdiv(h, apart), length)
    for tile in range(chunk, walks, chunks):
        n, ox, live, r, first, end = _walk(tile, images, h, w, apart, length, BP)
        # Gradients at the outputs before this one. Each begins as a value of its own: the compiler looks at one turn of
        # a loop, and takes what then still is what it was to stay so, as w2 would be, which becomes what w1 was before.
        w1, w2 = tl.zeros([BP, BC], errors.dtype.element_ty), tl.zeros([BP, BC], errors.dtype.element_ty)
        w3, w4 = tl.zeros([BP, BC], errors.dtype.element_ty), tl.zeros([BP, BC], errors.dtype.element_ty)
        w5, w6 = tl.zeros([BP, BC], errors.dtype.element_ty), tl.zeros([BP, BC], errors.dtype.element_ty)
        for j in range(first, end + LAG):
            oy = r + j * apart
            at = ((n * h + oy) * w + ox) * C
            mask = (live & (j < end) & (oy < h))[:, None] & (c < C)[None, :]
            w0 = tl.load(e + at[:, None] + c[None, :], mask=mask, other=0.0)
            iy, ix = r * s - p + j * T * d, ox * s - p + kx * d
            a = _read(source, n, iy, ix, H, W, live, c, scale, shift, C, INNER, True)
            p0 += a * w0
            if T < K:
                p1 += a * w1
            if 2 * T < K:
                p2 += a * w2
            if 3 * T < K:
                p3 += a * w3
            if 4 * T < K:
                p4 += a * w4
            if 5 * T < K:
                p5 += a * w5
            if 6 * T < K:
                p6 += a * w6
            if T > 1:
                a = _read(source, n, iy + d, ix, H, W, live, c, scale, shift, C, INNER, True)
                if K > 1:
                    r0 += a * w0
                if 1 + T < K:
                    r1 += a * w1
                if 1 + 2 * T < K:
                    r2 += a * w2
            w1, w2, w3, w4, w5, w6 = w0, w1, w2, w3, w4, w5
    to = found + chunk * tl.multiple_of(stride, A) + _at(row + DEEP, A) + kx * C + c
    for i in tl.static_range(7):
        if i * T < K:
            tl.store(to + i * T * K * C, tl.sum(_pick(i, p0, p1, p2, p3, p4, p5, p6), axis=0), mask=c < C)
        if T > 1 and i < 3 and i * T + 1 < K:
            tl.store(to + (i * T + 1) * K * C, tl.sum(_pick(i, r0, r1, r2, r2, r2, r2, r2), axis=0), mask=c < C)


@triton.jit
def _product(part, own, source, n, iy, ix, H, W, live, c, scale, shift, C: tl.constexpr, B: tl.constexpr,
             BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr,
             PRECISION: tl.constexpr):  # fmt: skip
    """Add to the gradient at one pixel of a kernel: products with what it saw."""
    a = _read(source, n, iy, ix, H, W, live, c, scale, shift, C, INNER, True)
    return part + _outer(own, a, B, BP, BC, BO, PRECISION)


@triton.jit(do_not_specialize=COUNTS)
def weigh(
    x, kept, lines, errors, found, table, images, chunks, stride, length, V, KK: tl.constexpr, C: tl.constexpr,
    O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, B: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a chunk's part of the gradient at one row, of up to seven pixels, of the kernel of a convolution over
    places, for a block of channels."""
    row, chunk, place = table + tl.program_id(1) * WIDTH, tl.program_id(0), tl.program_id(2)
    ky, block = place % KK, place // KK
    H, W, h, w, s, p, d = _geometry(row)
    c, o = block % tl.cdiv(C, BC) * BC + tl.arange(0, BC), block // tl.cdiv(C, BC) * BO + tl.arange(0, BO)
    e = errors + _at(row + Z, A)
    source, scale, shift = _normal(kept, lines, row, V, c, x, C, A, INNER)
    p0 = _none(B, BC, BO, x.dtype.element_ty)
    p1, p2, p3, p4, p5, p6 = p0, p0, p0, p0, p0, p0
    for tile in range(chunk, tl.cdiv(images * w, BP) * tl.cdiv(h, length), chunks):
        n, ox, live, _r, first, end = _walk(tile, images, h, w, 1, length, BP)
        for oy in range(first, tl.minimum(end, h)):
            m, y, q = (n * h + oy) * w + ox, oy * s - p + ky * d, ox * s - p
            own = tl.load(e + m[:, None] * O + o[None, :], mask=live[:, None] & (o < O)[None, :], other=0.0)
            p0 = _product(p0, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 1:
                q += d
                p1 = _product(p1, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 2:
                q += d
                p2 = _product(p2, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 3:
                q += d
                p3 = _product(p3, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 4:
                q += d
                p4 = _product(p4, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 5:
                q += d
                p5 = _product(p5, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
            if KK > 6:
                q += d
                p6 = _product(p6, own, source, n, y, q, H, W, live, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION)
    to = (
        found + chunk * tl.multiple_of(stride, A) + _at(row + WIDE, A) + ky * (KK * O * C) + o[:, None] * C + c[None, :]
    )
    known = (o < O)[:, None] & (c < C)[None, :]
    for kx in tl.static_range(KK):
        tl.store(to + kx * (O * C), _joined(_pick(kx, p0, p1, p2, p3, p4, p5, p6), B), mask=known)


@triton.jit(do_not_specialize=COUNTS)
def fold(found, out, table, stride, chunks, R: tl.constexpr, B: tl.constexpr):
    """Add up the parts of gradients at packed weights, and write them where the weights are."""
    begin, at, to, live = _span(table + tl.program_id(1) * SPAN_WIDTH, B)
    total = tl.zeros([R, B], tl.float64)
    for start in range(0, chunks, R):
        chunk = start + tl.arange(0, R)
        place = found + chunk[:, None].to(tl.int64) * stride + begin + at[None, :]
        total += tl.load(place, mask=(chunk < chunks)[:, None] & live[None, :], other=0.0).to(tl.float64)
    tl.store(out + begin + to, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=live)


@triton.jit
def _under(n, y, x, h, w, s, live, DENSE: tl.constexpr):
    """Return whether a window begins at (y, x), and the place of its output. DENSE: windows begin everywhere."""
    if DENSE:
        oy, ox = y, x
        inside = live & (y >= 0) & (x >= 0) & (y < h) & (x < w)
    else:
        oy, ox = y // s, x // s
        inside = live & (y >= 0) & (x >= 0) & (oy < h) & (ox < w) & (oy * s == y) & (ox * s == x)
    return inside[:, None], ((n * h + oy) * w + ox)[:, None]


@triton.jit
def _back(row, flat, errors, m, live, c, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
          BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Return the gradient at pixels m of what a step's convolution over places read."""
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    e, wide = errors + _at(row + Z, A), flat + _at(row + WIDE, A)
    total = tl.zeros([BP, BC], errors.dtype.element_ty)
    ky, kx = tl.program_id(0) * 0, tl.program_id(0) * 0  # no constants: a loop hands them on
    for i in range(side * side * tl.cdiv(O, BO)):
        t, o = i // tl.cdiv(O, BO), i % tl.cdiv(O, BO) * BO + tl.arange(0, BO)
        inside, at = _under(n, iy - ky * d, ix - kx * d, h, w, s, live, DENSE)
        own = tl.load(e + at * O + o[None, :], mask=inside & (o < O)[None, :], other=0.0)
        known = (o < O)[:, None] & (c < C)[None, :]
        weight = tl.load(wide + t * (O * C) + o[:, None] * C + c[None, :], mask=known, other=0.0)
        total += _times(own, weight, PRECISION)
        ky, kx = _onward(ky, kx, i, side, tl.cdiv(O, BO))
    return total


@triton.jit
def _before(g, kept, lines, dkept, row, m, live, c, V, C: tl.constexpr, A: tl.constexpr):
    """Write the gradient after a normalisation, for that after its ReLU, and return it and its product with what the
    normalisation centred."""
    before, mask, at = tl.load(row + BEFORE), live[:, None] & (c < C)[None, :], m[:, None] * C + c[None, :]
    y = tl.load(kept + _at(row + X, A) + at, mask=mask, other=0.0)
    normal = y * _line(lines, SCALE, V, before, c, C) + _line(lines, SHIFT, V, before, c, C)
    g = tl.where(mask, tl.where(normal <= 0, 0.0, g), 0.0)
    tl.store(dkept + _at(row + DX, A) + at, g, mask=mask)
    return g, tl.where(mask, g * (y - _line(lines, MEAN, V, before, c, C)), 0.0)


@triton.jit(do_not_specialize=COUNTS)
def behind(
    kept, flat, lines, errors, dkept, sums, table, images, tiles, V, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient after the normalisation before a step, and the sums that it needs."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    m, c = tile * BP + tl.arange(0, BP), tl.program_id(2) * BC + tl.arange(0, BC)
    live = m < images * (tl.load(row + IN_H) * tl.load(row + IN_W)).to(tl.int32)
    g = _back(row, flat, errors, m, live, c, C, O, A, BP, BC, BO, DENSE, PRECISION)
    g, product = _before(g, kept, lines, dkept, row, m, live, c, V, C, A)
    to = sums + tile * V + tl.load(row + BEFORE) + c
    tl.store(to, tl.sum(g, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(product, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def slide_behind(
    kept, flat, lines, errors, dkept, sums, table, images, tiles, length, V, K: tl.constexpr, C: tl.constexpr,
    A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The same for a depthwise convolution, on a walk."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, _s, p, d = _geometry(row)
    c, turned = tl.arange(0, BC), (K - 1) * d - p
    n, ix, live, r, first, end = _walk(tile, images, H, W, d, length, BP)
    e, deep = errors + _at(row + Z, A), flat + _at(row + DEEP, A)
    z = tl.zeros([BP, BC], errors.dtype.element_ty)
    p0, p1, p2, p3, p4, p5, once, twice = z, z, z, z, z, z, z, z
    for j in range(first, end + K - 1):
        q0, q1, q2, q3, q4, q5, q6 = _taps(
            z, p0, p1, p2, p3, p4, p5, e, deep, n, r - turned + j * d, ix - turned, d, h, w, live, c, 0.0, 0.0, K, 1,
            C, False, False, True,
        )  # fmt: skip
        iy = r + (j - K + 1) * d
        if (j - K + 1 >= first) & (iy < H):
            g = _pick(K - 1, q0, q1, q2, q3, q4, q5, q6)
            g, product = _before(g, kept, lines, dkept, row, (n * H + iy) * W + ix, live, c, V, C, A)
            once += g
            twice += product
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    to = sums + tile * V + tl.load(row + BEFORE) + c
    tl.store(to, tl.sum(once, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(twice, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def collect(
    flat, errors, parts, table, steps, images, H, W, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a tile of a part of the gradient at what the first steps of chains read, from some of them."""
    part = tl.program_id(1)
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(2) * BC + tl.arange(0, BC)
    live = m < images * H * W
    total = tl.zeros([BP, BC], errors.dtype.element_ty)
    for i in range(part, steps, tl.num_programs(1)):
        total += _back(table + i * WIDTH, flat, errors, m, live, c, C, O, A, BP, BC, BO, DENSE, PRECISION)
    to = parts + part.to(tl.int64) * (images * H * W * C) + m[:, None] * C + c[None, :]
    tl.store(to, total, mask=live[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def slide_collect(
    flat, errors, parts, table, shares, images, H, W, length, K: tl.constexpr, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The same for depthwise convolutions of stride 1 and alike padding and dilation, on a walk."""
    part, c = tl.program_id(1), tl.arange(0, BC)
    begin, end = tl.load(shares + 2 * part).to(tl.int32), tl.load(shares + 2 * part + 1).to(tl.int32)
    _H, _W, h, w, _s, p, d = _geometry(table + begin * WIDTH)
    turned = (K - 1) * d - p
    n, ix, live, r, first, last = _walk(tl.program_id(0), images, H, W, d, length, BP)
    z = tl.zeros([BP, BC], errors.dtype.element_ty)
    p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
    to = parts + part.to(tl.int64) * (images * H * W * C)
    for j in range(first, last + K - 1):
        q0, q1, q2, q3, q4, q5, q6 = z, p0, p1, p2, p3, p4, p5
        for i in range(begin, end):
            row = table + i * WIDTH
            q0, q1, q2, q3, q4, q5, q6 = _taps(
                q0, q1, q2, q3, q4, q5, q6, errors + _at(row + Z, A), flat + _at(row + DEEP, A), n,
                r - turned + j * d, ix - turned, d, h, w, live, c, 0.0, 0.0, K, 1, C, False, False, True,
            )  # fmt: skip
        iy = r + (j - K + 1) * d
        mask = (live & (j - K + 1 >= first) & (iy < H))[:, None] & (c < C)[None, :]
        at = ((n * H + iy) * W + ix) * C
        tl.store(to + at[:, None] + c[None, :], _pick(K - 1, q0, q1, q2, q3, q4, q5, q6), mask=mask)
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5


@triton.jit(do_not_specialize=COUNTS)
def stride_collect(
    flat, errors, parts, table, steps, images, H, W, s, K: tl.constexpr, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The same for depthwise convolutions of another stride: a tile holds every s-th pixel of every s-th row, which the
    same pixels of a kernel have touched."""
    part, c = tl.program_id(1), tl.arange(0, BC)
    down, right = tl.cdiv(H, s), tl.cdiv(W, s)
    blocks = tl.cdiv(images * down * right, BP)
    kind = tl.program_id(0) // blocks
    m = tl.program_id(0) % blocks * BP + tl.arange(0, BP)
    y, x = kind // s, kind % s
    n, iy, ix = m // (down * right), (m // right) % down * s + y, m % right * s + x
    live = (m < images * down * right) & (iy < H) & (ix < W)
    total = tl.zeros([BP, BC], errors.dtype.element_ty)
    for i in range(part, steps, tl.num_programs(1)):
        row = table + i * WIDTH
        _H, _W, h, w, _s, p, d = _geometry(row)
        e, deep = errors + _at(row + Z, A), flat + _at(row + DEEP, A)
        for t in range(K * K):
            ky, kx = t // K, t % K
            if ((y + p + (K * s - ky) * d) % s == 0) & ((x + p + (K * s - kx) * d) % s == 0):
                inside, at = _under(n, iy + p - ky * d, ix + p - kx * d, h, w, s, live, False)
                own = tl.load(e + at * C + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
                total += own * tl.load(deep + t * C + c, mask=c < C, other=0.0)[None, :]
    at = ((n * H + iy) * W + ix) * C
    to = parts + part.to(tl.int64) * (images * H * W * C) + at[:, None] + c[None, :]
    tl.store(to, total, mask=live[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def pass_on(
    x, lines, given, dx, parts, table, ways, pixels, V, chains, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient at the state: the ReLU of what chains left in ``chains`` parts, and the skips."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    at, mask = m[:, None] * C + c[None, :], (m < pixels)[:, None] & (c < C)[None, :]
    state = tl.load(x + at, mask=mask, other=0.0)
    total = tl.zeros([BP, BC], x.dtype.element_ty)
    for _ in range(chains):
        total += tl.load(parts + at, mask=mask, other=0.0)
        parts += pixels * C
    total = tl.where(state <= 0, 0.0, total)
    for i in range(ways):
        row = table + i * END_WIDTH
        g = tl.load(given + _at(row + END_G, A) + at, mask=mask, other=0.0)
        total += g * _line(lines, LEAD, V, tl.load(row + END_SLOT), c, C)
    tl.store(dx + at, total, mask=mask)


@triton.jit(do_not_specialize=COUNTS)
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


@triton.jit(do_not_specialize=COUNTS)
def unpool(
    e, chosen, dx, images, H, W, h, w, side, s, p, K: tl.constexpr, DENSE: tl.constexpr, LARGEST: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Add a tile of the gradient that comes to the state through a pool."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    live = m < images * H * W
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    to, mask = dx + m[:, None] * C + c[None, :], live[:, None] & (c < C)[None, :]
    total = tl.load(to, mask=mask, other=0.0)
    for ky in range(side):
        for kx in tl.static_range(K):
            inside, at = _under(n, iy - ky, ix - kx, h, w, s, live, DENSE)
            at = at * C + c[None, :]
            own = tl.load(e + at, mask=inside & (c < C)[None, :], other=0.0)
            if LARGEST:
                which = tl.load(chosen + at, mask=inside & (c < C)[None, :], other=-1).to(tl.int32)
                total += tl.where(which == ky * K + kx, own, 0.0)
            else:
                area = _area(iy - ky - p, ix - kx - p, H, W, K)[:, None]
                total += own / tl.where(inside, area, 1).to(e.dtype.element_ty)
    tl.store(to, total, mask=mask)
