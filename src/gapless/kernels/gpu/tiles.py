"""Triton kernels for a GPU, which :mod:`gapless.kernels.gpu.backend` launches.

A program computes a *tile*: some pixels, counted over all images, with all their channels. Images are [N, H, W, C], so
that the numbers of a tile are adjacent. A program with a depthwise convolution computes a *walk* instead: some columns,
counted over all images, row by row downwards, so that an input row is loaded once for all outputs that it contributes
to. Kernels read their arguments from a table of integers with a row for each step of a chain (:data:`COLUMNS`), so that
one launch serves all steps of a kind. Reductions are deterministic: sums over pixels are written tile by tile (or in
*chunks*, each the sum over every n-th tile) and reduced in double precision.

Weights are packed: those of one pixel of a kernel are adjacent, [K, K, out, in]. *Norm vectors* hold a number for each
channel of each normalisation, V in all. Kernels take their pointers and numbers one by one, since Triton passes no
dataclasses. Letters are those of :mod:`gapless.kernels`.
"""

from __future__ import annotations

from gapless.kernels.gpu.language import tl, triton

COLUMNS = (
    "x", "g", "dx", "y", "z",  # offsets in saved (x -1: the state), in grads (g, dx), in saved, in conv_grads
    "depthwise", "conv",  # offsets of the weights
    "H", "W", "h", "w",  # input, output
    "side", "s", "p", "d",  # kernel, stride, padding, dilation of the depthwise or else the full convolution
    "row_step",  # output rows from one output of a walk to the next
    "norm", "norm_before",  # its norm vector, the one of its input
)  # fmt: skip
"""Columns of the table of steps."""
_COLUMN = {name: tl.constexpr(i) for i, name in enumerate(COLUMNS)}
X, G, DX, Y, Z = (_COLUMN[name] for name in ("x", "g", "dx", "y", "z"))
DEPTHWISE, CONV, STEP_NORM, STEP_NORM_BEFORE = (_COLUMN[name] for name in ("depthwise", "conv", "norm", "norm_before"))
IN_H, IN_W, OUT_H, OUT_W = (_COLUMN[name] for name in ("H", "W", "h", "w"))
SIDE, STRIDE, PADDING, DILATION, ROW_STEP = (_COLUMN[name] for name in ("side", "s", "p", "d", "row_step"))
WIDTH = tl.constexpr(len(COLUMNS))

SCALE, SHIFT, MEAN, LEAD, FIRST, LAST = (tl.constexpr(i) for i in range(6))
"""Norm vectors: scale and shift, the mean, and the backward pass as ``lead (g - first) + last (y - mean)``."""
CENTRE, VARIANCE, INVERSE = (tl.constexpr(i) for i in range(3))
"""Norm vectors in double precision (``moments64``): mean, variance, one over the standard deviation."""

ENDS = ("norm", "y", "pixels", "g")
"""Columns of the table of ends of routes: ``y`` in saved (-1: the state), ``g`` in grads."""
END_NORM, END_Y, END_PIXELS, END_G = (tl.constexpr(i) for i in range(4))
END_WIDTH = tl.constexpr(4)

SPANS = ("begin", "count", "pixels")
"""Columns of the table of spans: adjacent parameters with kernels of ``pixels`` pixels."""
SPAN_BEGIN, SPAN_COUNT, SPAN_PIXELS = (tl.constexpr(i) for i in range(3))
SPAN_WIDTH = tl.constexpr(3)

NORMS = (
    "start", "C", "pixels", "normalised", "affine", "route", "source",
    "moment_parts", "sum_parts",  # number of tiles or walks that its moments and gradient sums come from
    "eps",  # the bits of a double
)  # fmt: skip
"""Columns of the table of normalisations; see :data:`gapless.kernels.layout.NORM`."""
_NORM = {name: tl.constexpr(i) for i, name in enumerate(NORMS)}
NORM_START, NORM_C, NORM_PIXELS = (_NORM[name] for name in ("start", "C", "pixels"))
NORM_NORMALISED, NORM_AFFINE, NORM_ROUTE, NORM_SOURCE = (
    _NORM[name] for name in ("normalised", "affine", "route", "source")
)
NORM_MOMENT_PARTS, NORM_SUM_PARTS, NORM_EPS = (_NORM[name] for name in ("moment_parts", "sum_parts", "eps"))
NORM_WIDTH = tl.constexpr(len(NORMS))

TARGETS = 4
"""Most targets that a launch of :func:`node_sum` writes to."""

COUNTS = (
    "images", "tiles", "chunks", "chunk_stride", "length", "pixels", "ends", "steps", "parts", "accumulate", "V",
    "H", "W", "h", "w",
)  # fmt: skip
"""Arguments whose values cause no recompilation: they change with the last batch, a mask, another fan."""

# ---------------------------------------------------------------------- functions of kernels


@triton.jit
def _geometry(row):
    """Return the sides of input and output, stride, padding and dilation of a step."""
    H, W, h, w = tl.load(row + IN_H), tl.load(row + IN_W), tl.load(row + OUT_H), tl.load(row + OUT_W)
    s, p, d = tl.load(row + STRIDE), tl.load(row + PADDING), tl.load(row + DILATION)
    return (
        H.to(tl.int32), W.to(tl.int32), h.to(tl.int32), w.to(tl.int32), s.to(tl.int32), p.to(tl.int32), d.to(tl.int32),
    )  # fmt: skip


@triton.jit
def _offset(entry, A: tl.constexpr):
    """Return an offset from a table. It is a multiple of A, which lets the compiler load whole vectors."""
    return tl.multiple_of(tl.load(entry), A)


@triton.jit
def _vector(vectors, which: tl.constexpr, V, norm, c, C: tl.constexpr):
    """Return a vector of a normalisation, [1, C]."""
    return tl.load(vectors + which * V + norm + c, mask=c < C, other=0.0)[None, :]


@triton.jit
def _load_input(
    source, n, iy, ix, H, W, valid, c, scale, shift, C: tl.constexpr, NORMALISED: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """Return pixels (n, iy, ix), zero outside of the image, after their normalisation (NORMALISED) and ReLU
    (RELU)."""
    inside = (valid & (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None]
    at = ((n * H + iy) * W + ix) * C
    a = tl.load(source + at[:, None] + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
    if NORMALISED:
        a = tl.where(inside, a * scale + shift, 0.0)
    return tl.where(a <= 0, 0.0, a) if RELU else a  # NaN stays NaN


@triton.jit
def _input_of(saved, vectors, row, V, c, x, C: tl.constexpr, A: tl.constexpr, INNER: tl.constexpr):
    """Return where the input of a step lies, with scale and shift of the normalisation before it (INNER)."""
    if INNER:
        norm_before = tl.load(row + STEP_NORM_BEFORE)
        scale, shift = _vector(vectors, SCALE, V, norm_before, c, C), _vector(vectors, SHIFT, V, norm_before, c, C)
        source = saved + _offset(row + X, A)
    else:
        source = x
        scale, shift = 0.0, 0.0
    return source, scale, shift


@triton.jit
def _next_pixel(ky, kx, i, side, blocks: tl.constexpr):
    """Return the pixel of a kernel in the next iteration of a loop over pixels and blocks of channels. A division
    would cost as much as the loop's body."""
    kx += (i + 1) // blocks - i // blocks
    over = kx == side
    return tl.where(over, ky + 1, ky), tl.where(over, 0, kx)


@triton.jit
def _walk(tile, images, h, w, row_step, length, BP: tl.constexpr):
    """Return the columns of a walk (image, column in the image, whether it exists), its first row, and the numbers of
    its first output and of the one after its last."""
    blocks = tl.cdiv(images * w, BP)
    m = tile % blocks * BP + tl.arange(0, BP)
    line = tile // blocks
    first = line // row_step * length
    return m // w, m % w, m < images * w, line % row_step, first, first + length


@triton.jit
def _add_rows(
    q0, q1, q2, q3, q4, q5, q6, source, depthwise, n, top, left, d, H, W, valid, c, scale, shift, K: tl.constexpr,
    T: tl.constexpr, C: tl.constexpr, NORMALISED: tl.constexpr, RELU: tl.constexpr, FLIPPED: tl.constexpr,
):  # fmt: skip
    """Add T more input rows, from ``top`` on, times their weights, to the outputs that they contribute to: q0 is the
    newest output, and each older one sees the rows T kernel rows lower. FLIPPED: with the flipped kernel."""
    c_mask, down = c < C, (-K if FLIPPED else K) * C
    for q in tl.static_range(T):
        for kx in tl.static_range(K):
            a = _load_input(source, n, top + q * d, left + kx * d, H, W, valid, c, scale, shift, C, NORMALISED, RELU)
            at = depthwise + (K * K - 1 - kx if FLIPPED else kx) * C + q * down + c
            if q < K:
                q0 += a * tl.load(at, mask=c_mask, other=0.0)[None, :]
            if q + T < K:
                q1 += a * tl.load(at + T * down, mask=c_mask, other=0.0)[None, :]
            if q + 2 * T < K:
                q2 += a * tl.load(at + 2 * T * down, mask=c_mask, other=0.0)[None, :]
            if q + 3 * T < K:
                q3 += a * tl.load(at + 3 * T * down, mask=c_mask, other=0.0)[None, :]
            if q + 4 * T < K:
                q4 += a * tl.load(at + 4 * T * down, mask=c_mask, other=0.0)[None, :]
            if q + 5 * T < K:
                q5 += a * tl.load(at + 5 * T * down, mask=c_mask, other=0.0)[None, :]
            if q + 6 * T < K:
                q6 += a * tl.load(at + 6 * T * down, mask=c_mask, other=0.0)[None, :]
    return q0, q1, q2, q3, q4, q5, q6


@triton.jit
def _select(i: tl.constexpr, q0, q1, q2, q3, q4, q5, q6):
    """Return argument number i."""
    if i == 0:  # noqa: SIM116 (kernels have no dictionaries)
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
def _norm_backward(g, y, vectors, norm, V, m, valid, c, C: tl.constexpr):
    """Return the gradient before a normalisation at pixels m: ``lead (g - first) + last (y - mean)``."""
    at, mask = m[:, None] * C + c[None, :], valid[:, None] & (c < C)[None, :]
    e = (tl.load(g + at, mask=mask, other=0.0) - _vector(vectors, FIRST, V, norm, c, C)) * _vector(
        vectors, LEAD, V, norm, c, C
    )
    off = tl.load(y + at, mask=mask, other=0.0) - _vector(vectors, MEAN, V, norm, c, C)
    return tl.where(mask, e + off * _vector(vectors, LAST, V, norm, c, C), 0.0)


@triton.jit
def _moments(y, tile_moments, tile, tiles, norm, V, valid, c, C: tl.constexpr):
    """Write mean, centred sum of squares and number of pixels of a tile."""
    count = tl.sum(valid.to(tl.int32), axis=0)
    mean = tl.sum(tl.where(valid[:, None], y, 0.0), axis=0) / tl.maximum(count, 1).to(y.dtype)
    off = tl.where(valid[:, None], y - mean[None, :], 0.0)
    _store_moments(mean, tl.sum(off * off, axis=0), count, tile_moments, tile, tiles, norm, V, c, C)


@triton.jit
def _store_moments(mean, square_sum, count, tile_moments, tile, tiles, norm, V, c, C: tl.constexpr):
    """Write moments of a tile."""
    to = tile_moments + tile * V + norm
    tl.store(to + c, mean, mask=c < C)
    tl.store(to + tiles * V + c, square_sum, mask=c < C)
    tl.store(to + 2 * tiles * V, count.to(mean.dtype))


@triton.jit
def _split_tf32(a):
    """Return the nearest TF32 number (11 bits) and the remainder (13 bits)."""
    high = ((a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return high, a - high


@triton.jit
def _matmul(a, b, PRECISION: tl.constexpr):
    """Return a matrix product. ``tf32x3``: three TF32 products of the parts, small ones first, are as exact as
    float32. Triton's own ``tf32x3`` also checks every number for NaN and infinity."""
    if PRECISION == "tf32x3":
        high, low = _split_tf32(a)
        other_high, other_low = _split_tf32(b)
        product = tl.dot(low, other_high, input_precision="tf32")
        product = tl.dot(high, other_low, product, input_precision="tf32")
        return tl.dot(high, other_high, product, input_precision="tf32")
    else:
        return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _weight_product(
    e, z, B: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the sum over pixels of e' z, in B partial sums: one for each warp where the product is small."""
    if B > 1:
        e, z = tl.reshape(e, [B, BP // B, BO]), tl.reshape(z, [B, BP // B, BC])
        return _matmul(tl.permute(e, (0, 2, 1)), z, PRECISION)
    else:
        return _matmul(tl.trans(e), z, PRECISION)


@triton.jit
def _zero_product(B: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, dtype: tl.constexpr):
    """Return the zero of :func:`_weight_product`."""
    if B > 1:
        return tl.zeros([B, BO, BC], dtype)
    else:
        return tl.zeros([BO, BC], dtype)


@triton.jit
def _reduce_product(part, B: tl.constexpr):
    """Return the sum of the partial sums, [BO, BC]."""
    if B > 1:
        return tl.sum(part, axis=0)
    else:
        return part


@triton.jit
def _window_area(top, left, H, W, K: tl.constexpr):
    """Return how many pixels of a window are inside the image."""
    rows = tl.minimum(top + K, H) - tl.maximum(top, 0)
    return rows * (tl.minimum(left + K, W) - tl.maximum(left, 0))


@triton.jit
def _span_entries(row, B: tl.constexpr):
    """Return the start of a span, positions in its packed weights, their positions in the unpacked ones, and whether
    they exist."""
    count, pixels = tl.load(row + SPAN_COUNT).to(tl.int32), tl.load(row + SPAN_PIXELS).to(tl.int32)
    at = tl.program_id(0) * B + tl.arange(0, B)
    each = count // pixels
    return tl.load(row + SPAN_BEGIN), at, at % each * pixels + at // each, at < count


# ---------------------------------------------------------------------- forward


@triton.jit(do_not_specialize=COUNTS)
def pack_weights(weights, packed, table, B: tl.constexpr):
    """Pack weights."""
    begin, at, of, valid = _span_entries(table + tl.program_id(1) * SPAN_WIDTH, B)
    tl.store(packed + begin + at, tl.load(weights + begin + of, mask=valid, other=0.0), mask=valid)


@triton.jit(do_not_specialize=COUNTS)
def conv_forward(
    x, saved, packed, vectors, tile_moments, table, images, tiles, V, C: tl.constexpr, O: tl.constexpr,
    A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a tile of a step's output, ReLU and convolution, for a block of channels, and its moments. INNER: the
    input is another step's output."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    m, o = tile * BP + tl.arange(0, BP), tl.program_id(2) * BO + tl.arange(0, BO)
    valid = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    conv = packed + _offset(row + CONV, A)
    y = tl.zeros([BP, BO], x.dtype.element_ty)
    ky, kx = tl.program_id(0) * 0, tl.program_id(0) * 0  # no constants: they are carried by a loop
    for i in range(side * side * tl.cdiv(C, BC)):
        t, c = i // tl.cdiv(C, BC), i % tl.cdiv(C, BC) * BC + tl.arange(0, BC)
        source, scale, shift = _input_of(saved, vectors, row, V, c, x, C, A, INNER)
        a = _load_input(source, n, top + ky * d, left + kx * d, H, W, valid, c, scale, shift, C, INNER, True)
        weight_mask = (c < C)[:, None] & (o < O)[None, :]
        weight = tl.load(conv + t * (O * C) + o[None, :] * C + c[:, None], mask=weight_mask, other=0.0)
        y += _matmul(a, weight, PRECISION)
        ky, kx = _next_pixel(ky, kx, i, side, tl.cdiv(C, BC))
    to = saved + _offset(row + Y, A) + m[:, None] * O + o[None, :]
    tl.store(to, y, mask=valid[:, None] & (o < O)[None, :])
    _moments(y, tile_moments, tile, tiles, tl.load(row + STEP_NORM), V, valid, o, O)


@triton.jit(do_not_specialize=COUNTS)
def separable_forward(
    x, saved, packed, vectors, tile_moments, table, images, tiles, length, V, K: tl.constexpr, T: tl.constexpr,
    C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a walk of a step's output, ReLU, depthwise convolution of K pixels a side and pointwise convolution,
    and its moments. The walk has ``length`` outputs, and the input moves by T kernel rows from one to the next."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    row_step = tl.load(row + ROW_STEP).to(tl.int32)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    n, ox, valid, r, first, end = _walk(tile, images, h, w, row_step, length, BP)
    source, scale, shift = _input_of(saved, vectors, row, V, c, x, C, A, INNER)
    depthwise, conv, to = (
        packed + _offset(row + DEPTHWISE, A),
        packed + _offset(row + CONV, A),
        saved + _offset(row + Y, A),
    )
    weight = tl.load(conv + o[None, :] * C + c[:, None], mask=(c < C)[:, None] & (o < O)[None, :], other=0.0)
    LAG: tl.constexpr = (K - 1) // T  # when an output is whole
    z = tl.zeros([BP, BC], x.dtype.element_ty)
    p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
    sum1, sum2 = tl.zeros([BP, BO], x.dtype.element_ty), tl.zeros([BP, BO], x.dtype.element_ty)
    centre = tl.zeros([BO], x.dtype.element_ty)
    columns = tl.sum(valid.to(tl.int32), axis=0)
    for j in range(first, end + LAG):
        q0, q1, q2, q3, q4, q5, q6 = _add_rows(
            z, p0, p1, p2, p3, p4, p5, source, depthwise, n, r * s - p + j * T * d, ox * s - p, d, H, W, valid, c,
            scale, shift, K, T, C, INNER, True, False,
        )  # fmt: skip
        oy = r + (j - LAG) * row_step
        if (j - LAG >= first) & (oy < h):
            y = _matmul(_select(LAG, q0, q1, q2, q3, q4, q5, q6), weight, PRECISION)
            at = ((n * h + oy) * w + ox) * O
            tl.store(to + at[:, None] + o[None, :], y, mask=valid[:, None] & (o < O)[None, :])
            if j - LAG == first:  # moments about a number near the mean lose no digits
                centre = tl.sum(tl.where(valid[:, None], y, 0.0), axis=0) / columns.to(y.dtype)
            off = tl.where(valid[:, None], y - centre[None, :], 0.0)
            sum1 += off
            sum2 += off * off
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    count = columns * tl.maximum(tl.minimum(tl.cdiv(h - r, row_step) - first, length), 0)
    total, over = tl.sum(sum1, axis=0), tl.maximum(count, 1).to(sum1.dtype)
    square_sum = tl.maximum(tl.sum(sum2, axis=0) - total * (total / over), 0.0)
    _store_moments(
        centre + total / over, square_sum, count, tile_moments, tile, tiles, tl.load(row + STEP_NORM), V, o, O
    )


@triton.jit(do_not_specialize=COUNTS)
def pool(
    x, out, argmax, tile_moments, norm, images, tiles, V, H, W, h, w, side, s, p, K: tl.constexpr,
    MAXIMUM: tl.constexpr, C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Compute a tile of a pool and its moments. ``argmax`` receives the position of the first maximum in each
    window."""
    tile = tl.program_id(0)
    m, c = tile * BP + tl.arange(0, BP), tl.arange(0, BC)
    valid = m < images * h * w
    n, top, left = m // (h * w), (m // w) % h * s - p, m % w * s - p
    at, mask = m[:, None] * C + c[None, :], valid[:, None] & (c < C)[None, :]
    best = tl.full([BP, BC], float("-inf") if MAXIMUM else 0.0, x.dtype.element_ty)
    which = tl.zeros([BP, BC], tl.int32)
    for ky in range(side):
        for kx in tl.static_range(K):
            iy, ix = top + ky, left + kx
            inside = (valid & (iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None]
            place = ((n * H + iy) * W + ix) * C
            a = tl.load(x + place[:, None] + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
            if MAXIMUM:
                larger = inside & ((a > best) | (a != a))
                best = tl.where(larger, a, best)
                which = tl.where(larger, ky * K + kx, which)
            else:
                best += a
    if MAXIMUM:
        tl.store(argmax + at, which.to(tl.int8), mask=mask)
    else:
        best = best / _window_area(top, left, H, W, K).to(x.dtype.element_ty)[:, None]
    tl.store(out + at, best, mask=mask)
    if norm >= 0:
        _moments(best, tile_moments, tile, tiles, norm, V, valid, c, C)


@triton.jit
def _reduce_moments(tile_moments, source, total, parts, tiles, V, c, t, c_mask, BT: tl.constexpr, BC: tl.constexpr):
    """Return mean and variance from the moments of tiles."""
    source = tile_moments + source
    first = tl.load(source + c, mask=c_mask, other=0.0).to(
        tl.float64
    )  # sums about a number near the mean lose no digits
    sum1, sum2 = tl.zeros([BT, BC], tl.float64), tl.zeros([BT, BC], tl.float64)
    for start in range(0, parts, BT):
        tile = start + t
        there = tile < parts
        count = tl.load(source + (2 * tiles + tile) * V, mask=there, other=0.0).to(tl.float64)[:, None]
        mask = there[:, None] & c_mask[None, :]
        place = source + tile[:, None] * V + c[None, :]
        off = tl.where(mask, tl.load(place, mask=mask, other=0.0).to(tl.float64) - first[None, :], 0.0)
        sum1 += count * off
        sum2 += tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64) + count * off * off
    mean = tl.sum(sum1, axis=0) / total
    second = tl.sum(sum2, axis=0) - total * mean * mean
    return mean + first, second / total


@triton.jit(do_not_specialize=COUNTS)
def norm_forward(
    tile_moments, running, packed, coefficients, moments64, vectors, moments, table, images, tiles, V,
    RUNNING: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Reduce the moments of all tiles of one normalisation, or read its running statistics (RUNNING), and derive
    scale and shift."""
    row = table + tl.program_id(0) * NORM_WIDTH
    at, C = tl.load(row + NORM_START), tl.load(row + NORM_C).to(tl.int32)
    route, affine = tl.load(row + NORM_ROUTE), tl.load(row + NORM_AFFINE)
    # loads are issued together, before any is used
    normalised, pixels, parts = (
        tl.load(row + NORM_NORMALISED),
        tl.load(row + NORM_PIXELS),
        tl.load(row + NORM_MOMENT_PARTS).to(tl.int32),
    )
    source, eps = tl.load(row + NORM_SOURCE), tl.load(row + NORM_EPS).to(tl.float64, bitcast=True)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    c_mask = c < C
    coefficient = tl.load(coefficients + tl.maximum(route, 0)).to(tl.float64)
    coefficient = tl.where(route >= 0, coefficient, 1.0)
    mean, variance, inverse = tl.zeros([BC], tl.float64), tl.full([BC], 1.0, tl.float64), tl.full([BC], 1.0, tl.float64)
    gamma, beta = tl.full([BC], 1.0, tl.float64), tl.zeros([BC], tl.float64)
    if normalised > 0:
        if RUNNING:
            mean = tl.load(running + at + c, mask=c_mask, other=0.0).to(tl.float64)
            variance = tl.load(running + V + at + c, mask=c_mask, other=0.0).to(tl.float64)
        else:
            mean, variance = _reduce_moments(
                tile_moments, source, images * pixels.to(tl.int32), parts, tiles, V, c, t, c_mask, BT, BC
            )
        inverse = 1.0 / tl.sqrt(variance + eps)
        gamma = inverse
        if affine >= 0:
            gamma = inverse * tl.load(packed + affine + c, mask=c_mask, other=0.0).to(tl.float64)
            beta = tl.load(packed + affine + C + c, mask=c_mask, other=0.0).to(tl.float64)
    dtype = vectors.dtype.element_ty
    tl.store(moments64 + CENTRE * V + at + c, mean, mask=c_mask)
    tl.store(moments64 + VARIANCE * V + at + c, variance, mask=c_mask)
    tl.store(moments64 + INVERSE * V + at + c, inverse, mask=c_mask)
    tl.store(vectors + SCALE * V + at + c, (coefficient * gamma).to(dtype), mask=c_mask)
    tl.store(vectors + SHIFT * V + at + c, (coefficient * (beta - mean * gamma)).to(dtype), mask=c_mask)
    tl.store(vectors + MEAN * V + at + c, mean.to(dtype), mask=c_mask)
    tl.store(moments + at + c, mean.to(dtype), mask=c_mask)
    tl.store(moments + V + at + c, variance.to(dtype), mask=c_mask)


@triton.jit(do_not_specialize=COUNTS)
def node_sum(
    x, saved, vectors, out0, out1, out2, out3, table, ranges, pixels, V, accumulate, C: tl.constexpr,
    A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write, or (bits of ``accumulate``) add, a tile of the sum at a target."""
    number = tl.program_id(1)
    out = out0
    if number == 1:
        out = out1
    if number == 2:
        out = out2
    if number == 3:
        out = out3
    begin, end = tl.load(ranges + 2 * number).to(tl.int32), tl.load(ranges + 2 * number + 1).to(tl.int32)
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    mask, at = (m < pixels)[:, None] & (c < C)[None, :], m[:, None] * C + c[None, :]
    total = tl.load(out + at, mask=mask & ((accumulate >> number) % 2 > 0), other=0.0)
    for i in range(begin, end):
        row = table + i * END_WIDTH
        norm, y = tl.load(row + END_NORM), tl.load(row + END_Y)
        source = saved + tl.multiple_of(tl.maximum(y, 0), A)
        if y < 0:
            source = x
        a = tl.load(source + at, mask=mask, other=0.0)
        total += a * _vector(vectors, SCALE, V, norm, c, C) + _vector(vectors, SHIFT, V, norm, c, C)
    tl.store(out + at, total, mask=mask)


# ---------------------------------------------------------------------- backward


@triton.jit(do_not_specialize=COUNTS)
def grad_sums(
    x, saved, vectors, grads, tile_sums, table, images, tiles, V, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the sums of g and of g (y - mean) over a tile at the end of a route."""
    row, tile = table + tl.program_id(1) * END_WIDTH, tl.program_id(0)
    norm, y = tl.load(row + END_NORM), tl.load(row + END_Y)
    m, c = tile * BP + tl.arange(0, BP), tl.arange(0, BC)
    mask = (m < images * tl.load(row + END_PIXELS).to(tl.int32))[:, None] & (c < C)[None, :]
    at = m[:, None] * C + c[None, :]
    source = saved + tl.multiple_of(tl.maximum(y, 0), A)
    if y < 0:
        source = x
    g = tl.load(grads + _offset(row + END_G, A) + at, mask=mask, other=0.0)
    off = tl.load(source + at, mask=mask, other=0.0) - _vector(vectors, MEAN, V, norm, c, C)
    to = tile_sums + tile * V + norm + c
    tl.store(to, tl.sum(g, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(g * off, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def norm_grads(
    tile_sums, packed, grad_packed, coefficients, grad_coefficients, moments64, vectors, table, images, tiles, V,
    BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Reduce the sums of all tiles of one normalisation to the gradients of its coefficient, scale and shift, and
    derive the vectors of its backward pass."""
    row = table + tl.program_id(0) * NORM_WIDTH
    at, C = tl.load(row + NORM_START), tl.load(row + NORM_C).to(tl.int32)
    route, affine = tl.load(row + NORM_ROUTE), tl.load(row + NORM_AFFINE)
    count = images * tl.load(row + NORM_PIXELS).to(tl.int32)
    normalised, parts = tl.load(row + NORM_NORMALISED), tl.load(row + NORM_SUM_PARTS).to(tl.int32)
    c, t = tl.arange(0, BC), tl.arange(0, BT)
    c_mask = c < C
    coefficient = tl.load(coefficients + tl.maximum(route, 0)).to(tl.float64)
    coefficient = tl.where(route >= 0, coefficient, 1.0)
    inverse = tl.load(moments64 + INVERSE * V + at + c, mask=c_mask, other=0.0)
    sum1, sum2 = tl.zeros([BT, BC], tl.float64), tl.zeros([BT, BC], tl.float64)
    for start in range(0, parts, BT):
        tile = start + t
        mask = (tile < parts)[:, None] & c_mask[None, :]
        place = tile_sums + at + tile[:, None] * V + c[None, :]
        sum1 += tl.load(place, mask=mask, other=0.0).to(tl.float64)
        sum2 += tl.load(place + tiles * V, mask=mask, other=0.0).to(tl.float64)
    s1, s2 = tl.sum(sum1, axis=0), tl.sum(sum2, axis=0)
    lead, first, last = tl.zeros([BC], tl.float64) + coefficient, tl.zeros([BC], tl.float64), tl.zeros([BC], tl.float64)
    grad_coefficient = s2
    dtype = vectors.dtype.element_ty
    if normalised > 0:
        scale = inverse
        if affine >= 0:
            scale = inverse * tl.load(packed + affine + c, mask=c_mask, other=0.0).to(tl.float64)
            tl.store(grad_packed + affine + c, (coefficient * s2 * inverse).to(dtype), mask=c_mask)
            tl.store(grad_packed + affine + C + c, (coefficient * s1).to(dtype), mask=c_mask)
            grad_coefficient = s1 * tl.load(packed + affine + C + c, mask=c_mask, other=0.0).to(tl.float64)
        else:
            grad_coefficient = tl.zeros([BC], tl.float64)
        grad_coefficient += s2 * scale
        lead = coefficient * scale
        first = s1 / count
        last = -coefficient * scale * inverse * inverse * s2 / count
    tl.store(vectors + LEAD * V + at + c, lead.to(dtype), mask=c_mask)
    tl.store(vectors + FIRST * V + at + c, first.to(dtype), mask=c_mask)
    tl.store(vectors + LAST * V + at + c, last.to(dtype), mask=c_mask)
    if route >= 0:
        tl.store(grad_coefficients + route, tl.sum(tl.where(c_mask, grad_coefficient, 0.0), axis=0).to(dtype))


@triton.jit(do_not_specialize=COUNTS)
def norm_backward(
    saved, vectors, grads, conv_grads, table, images, V, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BO: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient before the normalisation of a step."""
    row = table + tl.program_id(1) * WIDTH
    m, o = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(2) * BO + tl.arange(0, BO)
    valid = m < images * (tl.load(row + OUT_H) * tl.load(row + OUT_W)).to(tl.int32)
    g, y = grads + _offset(row + G, A), saved + _offset(row + Y, A)
    e = _norm_backward(g, y, vectors, tl.load(row + STEP_NORM), V, m, valid, o, O)
    tl.store(conv_grads + _offset(row + Z, A) + m[:, None] * O + o[None, :], e, mask=valid[:, None] & (o < O)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def pointwise_backward(
    x, saved, packed, vectors, grads, conv_grads, grad_packed, table, images, chunks, chunk_stride, length, V,
    K: tl.constexpr, T: tl.constexpr, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, BO: tl.constexpr, B: tl.constexpr, INNER: tl.constexpr, WEIGHTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the input gradient of a step's pointwise convolution, and (WEIGHTS) the chunk's part of its weight
    gradient, for which the depthwise convolution is recomputed. A program takes every ``chunks``-th walk."""
    row, chunk = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, s, p, d = _geometry(row)
    row_step = tl.load(row + ROW_STEP).to(tl.int32)
    c, o = tl.arange(0, BC), tl.arange(0, BO)
    norm, y = tl.load(row + STEP_NORM), saved + _offset(row + Y, A)
    g, to = grads + _offset(row + G, A), conv_grads + _offset(row + Z, A)
    source, scale, shift = _input_of(saved, vectors, row, V, c, x, C, A, INNER)
    depthwise, conv = _offset(row + DEPTHWISE, A), _offset(row + CONV, A)
    weight_mask, place = (o < O)[:, None] & (c < C)[None, :], o[:, None] * C + c[None, :]
    weight = tl.load(packed + conv + place, mask=weight_mask, other=0.0)
    part = _zero_product(B, BC, BO, conv_grads.dtype.element_ty)
    LAG: tl.constexpr = (K - 1) // T if WEIGHTS else 0
    z = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    walks = tl.cdiv(images * w, BP) * row_step * tl.cdiv(tl.cdiv(h, row_step), length)
    for tile in range(chunk, walks, chunks):
        n, ox, valid, r, first, end = _walk(tile, images, h, w, row_step, length, BP)
        p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
        for j in range(first, end + LAG):
            q0, q1, q2, q3, q4, q5, q6 = z, p0, p1, p2, p3, p4, p5
            if WEIGHTS:
                q0, q1, q2, q3, q4, q5, q6 = _add_rows(
                    q0, q1, q2, q3, q4, q5, q6, source, packed + depthwise, n, r * s - p + j * T * d, ox * s - p, d, H,
                    W, valid, c, scale, shift, K, T, C, INNER, True, False,
                )  # fmt: skip
            oy = r + (j - LAG) * row_step
            if (j - LAG >= first) & (oy < h):
                m = (n * h + oy) * w + ox
                e = _norm_backward(g, y, vectors, norm, V, m, valid, o, O)
                dz = _matmul(e, weight, PRECISION)
                tl.store(to + m[:, None] * C + c[None, :], dz, mask=valid[:, None] & (c < C)[None, :])
                if WEIGHTS:
                    part += _weight_product(e, _select(LAG, q0, q1, q2, q3, q4, q5, q6), B, BP, BC, BO, PRECISION)
            p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    if WEIGHTS:
        tl.store(
            grad_packed + chunk * tl.multiple_of(chunk_stride, A) + conv + place,
            _reduce_product(part, B),
            mask=weight_mask,
        )


@triton.jit(do_not_specialize=COUNTS)
def depthwise_weight_grad(
    x, saved, vectors, conv_grads, grad_packed, table, images, chunks, chunk_stride, length, V, K: tl.constexpr,
    T: tl.constexpr, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Write the chunk's part of the weight gradient of a depthwise convolution, for one column of its kernel."""
    row, chunk, kx = table + tl.program_id(1) * WIDTH, tl.program_id(0), tl.program_id(2)
    H, W, h, w, s, p, d = _geometry(row)
    row_step = tl.load(row + ROW_STEP).to(tl.int32)
    c = tl.arange(0, BC)
    e = conv_grads + _offset(row + Z, A)
    source, scale, shift = _input_of(saved, vectors, row, V, c, x, C, A, INNER)
    LAG: tl.constexpr = (K - 1) // T
    z = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    p0, p1, p2, p3, p4, p5, p6, r0, r1, r2 = z, z, z, z, z, z, z, z, z, z
    walks = tl.cdiv(images * w, BP) * row_step * tl.cdiv(tl.cdiv(h, row_step), length)
    for tile in range(chunk, walks, chunks):
        n, ox, valid, r, first, end = _walk(tile, images, h, w, row_step, length, BP)
        # Gradients of the outputs before this one. Each begins as a value of its own: the compiler examines one
        # iteration and treats what is unchanged by it as loop-invariant, as w2 would be, which becomes the former w1.
        w1, w2 = tl.zeros([BP, BC], conv_grads.dtype.element_ty), tl.zeros([BP, BC], conv_grads.dtype.element_ty)
        w3, w4 = tl.zeros([BP, BC], conv_grads.dtype.element_ty), tl.zeros([BP, BC], conv_grads.dtype.element_ty)
        w5, w6 = tl.zeros([BP, BC], conv_grads.dtype.element_ty), tl.zeros([BP, BC], conv_grads.dtype.element_ty)
        for j in range(first, end + LAG):
            oy = r + j * row_step
            at = ((n * h + oy) * w + ox) * C
            mask = (valid & (j < end) & (oy < h))[:, None] & (c < C)[None, :]
            w0 = tl.load(e + at[:, None] + c[None, :], mask=mask, other=0.0)
            iy, ix = r * s - p + j * T * d, ox * s - p + kx * d
            a = _load_input(source, n, iy, ix, H, W, valid, c, scale, shift, C, INNER, True)
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
                a = _load_input(source, n, iy + d, ix, H, W, valid, c, scale, shift, C, INNER, True)
                if K > 1:
                    r0 += a * w0
                if 1 + T < K:
                    r1 += a * w1
                if 1 + 2 * T < K:
                    r2 += a * w2
            w1, w2, w3, w4, w5, w6 = w0, w1, w2, w3, w4, w5
    to = grad_packed + chunk * tl.multiple_of(chunk_stride, A) + _offset(row + DEPTHWISE, A) + kx * C + c
    for i in tl.static_range(7):
        if i * T < K:
            tl.store(to + i * T * K * C, tl.sum(_select(i, p0, p1, p2, p3, p4, p5, p6), axis=0), mask=c < C)
        if T > 1 and i < 3 and i * T + 1 < K:
            tl.store(to + (i * T + 1) * K * C, tl.sum(_select(i, r0, r1, r2, r2, r2, r2, r2), axis=0), mask=c < C)


@triton.jit
def _add_weight_product(
    part, own, source, n, iy, ix, H, W, valid, c, scale, shift, C: tl.constexpr, B: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, BO: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the weight gradient at one pixel of a kernel: the product of the output gradient and the input."""
    a = _load_input(source, n, iy, ix, H, W, valid, c, scale, shift, C, INNER, True)
    return part + _weight_product(own, a, B, BP, BC, BO, PRECISION)


@triton.jit(do_not_specialize=COUNTS)
def conv_weight_grad(
    x, saved, vectors, conv_grads, grad_packed, table, images, chunks, chunk_stride, length, V, K: tl.constexpr,
    C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
    B: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the chunk's part of the weight gradient of a convolution, for one row of its kernel (K pixels, at most
    seven) and a block of channels."""
    row, chunk, place = table + tl.program_id(1) * WIDTH, tl.program_id(0), tl.program_id(2)
    ky, block = place % K, place // K
    H, W, h, w, s, p, d = _geometry(row)
    c, o = block % tl.cdiv(C, BC) * BC + tl.arange(0, BC), block // tl.cdiv(C, BC) * BO + tl.arange(0, BO)
    e = conv_grads + _offset(row + Z, A)
    source, scale, shift = _input_of(saved, vectors, row, V, c, x, C, A, INNER)
    p0 = _zero_product(B, BC, BO, x.dtype.element_ty)
    p1, p2, p3, p4, p5, p6 = p0, p0, p0, p0, p0, p0
    for tile in range(chunk, tl.cdiv(images * w, BP) * tl.cdiv(h, length), chunks):
        n, ox, valid, _r, first, end = _walk(tile, images, h, w, 1, length, BP)
        for oy in range(first, tl.minimum(end, h)):
            m, y, q = (n * h + oy) * w + ox, oy * s - p + ky * d, ox * s - p
            own = tl.load(e + m[:, None] * O + o[None, :], mask=valid[:, None] & (o < O)[None, :], other=0.0)
            p0 = _add_weight_product(
                p0, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
            )
            if K > 1:
                q += d
                p1 = _add_weight_product(
                    p1, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
            if K > 2:
                q += d
                p2 = _add_weight_product(
                    p2, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
            if K > 3:
                q += d
                p3 = _add_weight_product(
                    p3, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
            if K > 4:
                q += d
                p4 = _add_weight_product(
                    p4, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
            if K > 5:
                q += d
                p5 = _add_weight_product(
                    p5, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
            if K > 6:
                q += d
                p6 = _add_weight_product(
                    p6, own, source, n, y, q, H, W, valid, c, scale, shift, C, B, BP, BC, BO, INNER, PRECISION
                )
    to = (
        grad_packed
        + chunk * tl.multiple_of(chunk_stride, A)
        + _offset(row + CONV, A)
        + ky * (K * O * C)
        + o[:, None] * C
        + c[None, :]
    )
    weight_mask = (o < O)[:, None] & (c < C)[None, :]
    for kx in tl.static_range(K):
        tl.store(to + kx * (O * C), _reduce_product(_select(kx, p0, p1, p2, p3, p4, p5, p6), B), mask=weight_mask)


@triton.jit(do_not_specialize=COUNTS)
def unpack_grads(grad_packed, out, table, chunk_stride, chunks, R: tl.constexpr, B: tl.constexpr):
    """Sum the weight gradients of all chunks, and write them where the unpacked weights lie."""
    begin, at, to, valid = _span_entries(table + tl.program_id(1) * SPAN_WIDTH, B)
    total = tl.zeros([R, B], tl.float64)
    for start in range(0, chunks, R):
        chunk = start + tl.arange(0, R)
        at_chunk = grad_packed + chunk[:, None].to(tl.int64) * chunk_stride + begin + at[None, :]
        total += tl.load(at_chunk, mask=(chunk < chunks)[:, None] & valid[None, :], other=0.0).to(tl.float64)
    tl.store(out + begin + to, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=valid)


@triton.jit
def _window_output(n, y, x, h, w, s, valid, DENSE: tl.constexpr):
    """Return whether a window begins at (y, x), and the position of its output. DENSE: the stride is 1."""
    if DENSE:
        oy, ox = y, x
        inside = valid & (y >= 0) & (x >= 0) & (y < h) & (x < w)
    else:
        oy, ox = y // s, x // s
        inside = valid & (y >= 0) & (x >= 0) & (oy < h) & (ox < w) & (oy * s == y) & (ox * s == x)
    return inside[:, None], ((n * h + oy) * w + ox)[:, None]


@triton.jit
def _conv_input_grad(
    row, packed, conv_grads, m, valid, c, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the input gradient of a step's convolution at pixels m, for a block of channels."""
    H, W, h, w, s, p, d = _geometry(row)
    side = tl.load(row + SIDE).to(tl.int32)
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    e, conv = conv_grads + _offset(row + Z, A), packed + _offset(row + CONV, A)
    total = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    ky, kx = tl.program_id(0) * 0, tl.program_id(0) * 0  # no constants: they are carried by a loop
    for i in range(side * side * tl.cdiv(O, BO)):
        t, o = i // tl.cdiv(O, BO), i % tl.cdiv(O, BO) * BO + tl.arange(0, BO)
        inside, at = _window_output(n, iy - ky * d, ix - kx * d, h, w, s, valid, DENSE)
        own = tl.load(e + at * O + o[None, :], mask=inside & (o < O)[None, :], other=0.0)
        weight_mask = (o < O)[:, None] & (c < C)[None, :]
        weight = tl.load(conv + t * (O * C) + o[:, None] * C + c[None, :], mask=weight_mask, other=0.0)
        total += _matmul(own, weight, PRECISION)
        ky, kx = _next_pixel(ky, kx, i, side, tl.cdiv(O, BO))
    return total


@triton.jit
def _relu_backward(g, saved, vectors, grad_saved, row, m, valid, c, V, C: tl.constexpr, A: tl.constexpr):
    """Write g, the gradient after a normalisation and its ReLU, where the ReLU is positive; return it, and it times
    the centred input of the normalisation."""
    norm_before, mask, at = (
        tl.load(row + STEP_NORM_BEFORE),
        valid[:, None] & (c < C)[None, :],
        m[:, None] * C + c[None, :],
    )
    y = tl.load(saved + _offset(row + X, A) + at, mask=mask, other=0.0)
    normal = y * _vector(vectors, SCALE, V, norm_before, c, C) + _vector(vectors, SHIFT, V, norm_before, c, C)
    g = tl.where(mask, tl.where(normal <= 0, 0.0, g), 0.0)
    tl.store(grad_saved + _offset(row + DX, A) + at, g, mask=mask)
    return g, tl.where(mask, g * (y - _vector(vectors, MEAN, V, norm_before, c, C)), 0.0)


@triton.jit(do_not_specialize=COUNTS)
def conv_input_grad(
    saved, packed, vectors, conv_grads, grad_saved, tile_sums, table, images, tiles, V, C: tl.constexpr,
    O: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a tile of the input gradient of a convolution inside of a chain, through ReLU, and the sums for the
    normalisation before it."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    m, c = tile * BP + tl.arange(0, BP), tl.program_id(2) * BC + tl.arange(0, BC)
    valid = m < images * (tl.load(row + IN_H) * tl.load(row + IN_W)).to(tl.int32)
    g = _conv_input_grad(row, packed, conv_grads, m, valid, c, C, O, A, BP, BC, BO, DENSE, PRECISION)
    g, product = _relu_backward(g, saved, vectors, grad_saved, row, m, valid, c, V, C, A)
    to = tile_sums + tile * V + tl.load(row + STEP_NORM_BEFORE) + c
    tl.store(to, tl.sum(g, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(product, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def depthwise_input_grad(
    saved, packed, vectors, conv_grads, grad_saved, tile_sums, table, images, tiles, length, V, K: tl.constexpr,
    C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write a walk of the input gradient of a depthwise convolution inside of a chain, through ReLU, and the sums for
    the normalisation before it."""
    row, tile = table + tl.program_id(1) * WIDTH, tl.program_id(0)
    H, W, h, w, _s, p, d = _geometry(row)
    c, pad = tl.arange(0, BC), (K - 1) * d - p
    n, ix, valid, r, first, end = _walk(tile, images, H, W, d, length, BP)
    e, depthwise = conv_grads + _offset(row + Z, A), packed + _offset(row + DEPTHWISE, A)
    z = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    p0, p1, p2, p3, p4, p5, sum1, sum2 = z, z, z, z, z, z, z, z
    for j in range(first, end + K - 1):
        q0, q1, q2, q3, q4, q5, q6 = _add_rows(
            z, p0, p1, p2, p3, p4, p5, e, depthwise, n, r - pad + j * d, ix - pad, d, h, w, valid, c, 0.0, 0.0, K,
            1, C, False, False, True,
        )  # fmt: skip
        iy = r + (j - K + 1) * d
        if (j - K + 1 >= first) & (iy < H):
            g = _select(K - 1, q0, q1, q2, q3, q4, q5, q6)
            g, product = _relu_backward(g, saved, vectors, grad_saved, row, (n * H + iy) * W + ix, valid, c, V, C, A)
            sum1 += g
            sum2 += product
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5
    to = tile_sums + tile * V + tl.load(row + STEP_NORM_BEFORE) + c
    tl.store(to, tl.sum(sum1, axis=0), mask=c < C)
    tl.store(to + tiles * V, tl.sum(sum2, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def conv_state_grad(
    packed, conv_grads, dx_parts, table, steps, images, H, W, C: tl.constexpr, O: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, DENSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a tile of the sum of the input gradients of some of the convolutions that read the state."""
    part = tl.program_id(1)
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(2) * BC + tl.arange(0, BC)
    valid = m < images * H * W
    total = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    for i in range(part, steps, tl.num_programs(1)):
        total += _conv_input_grad(
            table + i * WIDTH, packed, conv_grads, m, valid, c, C, O, A, BP, BC, BO, DENSE, PRECISION
        )
    to = dx_parts + part.to(tl.int64) * (images * H * W * C) + m[:, None] * C + c[None, :]
    tl.store(to, total, mask=valid[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def depthwise_state_grad(
    packed, conv_grads, dx_parts, table, ranges, images, H, W, length, K: tl.constexpr, C: tl.constexpr,
    A: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write a walk of the sum of the input gradients of some of the depthwise convolutions that read the state, with
    stride 1 and equal padding and dilation."""
    part, c = tl.program_id(1), tl.arange(0, BC)
    begin, end = tl.load(ranges + 2 * part).to(tl.int32), tl.load(ranges + 2 * part + 1).to(tl.int32)
    _H, _W, h, w, _s, p, d = _geometry(table + begin * WIDTH)
    pad = (K - 1) * d - p
    n, ix, valid, r, first, last = _walk(tl.program_id(0), images, H, W, d, length, BP)
    z = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    p0, p1, p2, p3, p4, p5 = z, z, z, z, z, z
    to = dx_parts + part.to(tl.int64) * (images * H * W * C)
    for j in range(first, last + K - 1):
        q0, q1, q2, q3, q4, q5, q6 = z, p0, p1, p2, p3, p4, p5
        for i in range(begin, end):
            row = table + i * WIDTH
            q0, q1, q2, q3, q4, q5, q6 = _add_rows(
                q0, q1, q2, q3, q4, q5, q6, conv_grads + _offset(row + Z, A), packed + _offset(row + DEPTHWISE, A), n,
                r - pad + j * d, ix - pad, d, h, w, valid, c, 0.0, 0.0, K, 1, C, False, False, True,
            )  # fmt: skip
        iy = r + (j - K + 1) * d
        mask = (valid & (j - K + 1 >= first) & (iy < H))[:, None] & (c < C)[None, :]
        at = ((n * H + iy) * W + ix) * C
        tl.store(to + at[:, None] + c[None, :], _select(K - 1, q0, q1, q2, q3, q4, q5, q6), mask=mask)
        p0, p1, p2, p3, p4, p5 = q0, q1, q2, q3, q4, q5


@triton.jit(do_not_specialize=COUNTS)
def strided_state_grad(
    packed, conv_grads, dx_parts, table, steps, images, H, W, s, K: tl.constexpr, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write a tile of the sum of the input gradients of some of the depthwise convolutions that read the state, with
    stride s. A tile holds every s-th pixel of every s-th row, which the same pixels of a kernel contribute to."""
    part, c = tl.program_id(1), tl.arange(0, BC)
    down, right = tl.cdiv(H, s), tl.cdiv(W, s)
    blocks = tl.cdiv(images * down * right, BP)
    phase = tl.program_id(0) // blocks
    m = tl.program_id(0) % blocks * BP + tl.arange(0, BP)
    y, x = phase // s, phase % s
    n, iy, ix = m // (down * right), (m // right) % down * s + y, m % right * s + x
    valid = (m < images * down * right) & (iy < H) & (ix < W)
    total = tl.zeros([BP, BC], conv_grads.dtype.element_ty)
    for i in range(part, steps, tl.num_programs(1)):
        row = table + i * WIDTH
        _H, _W, h, w, _s, p, d = _geometry(row)
        e, depthwise = conv_grads + _offset(row + Z, A), packed + _offset(row + DEPTHWISE, A)
        for t in range(K * K):
            ky, kx = t // K, t % K
            if ((y + p + (K * s - ky) * d) % s == 0) & ((x + p + (K * s - kx) * d) % s == 0):
                inside, at = _window_output(n, iy + p - ky * d, ix + p - kx * d, h, w, s, valid, False)
                own = tl.load(e + at * C + c[None, :], mask=inside & (c < C)[None, :], other=0.0)
                total += own * tl.load(depthwise + t * C + c, mask=c < C, other=0.0)[None, :]
    at = ((n * H + iy) * W + ix) * C
    to = dx_parts + part.to(tl.int64) * (images * H * W * C) + at[:, None] + c[None, :]
    tl.store(to, total, mask=valid[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def state_grad(
    x, vectors, grads, dx, dx_parts, table, ends, pixels, V, parts, C: tl.constexpr, A: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write a tile of the gradient of the state: the ``parts`` sums over chains through ReLU, and the skips."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    at, mask = m[:, None] * C + c[None, :], (m < pixels)[:, None] & (c < C)[None, :]
    state = tl.load(x + at, mask=mask, other=0.0)
    total = tl.zeros([BP, BC], x.dtype.element_ty)
    for _ in range(parts):
        total += tl.load(dx_parts + at, mask=mask, other=0.0)
        dx_parts += pixels * C
    total = tl.where(state <= 0, 0.0, total)
    for i in range(ends):
        row = table + i * END_WIDTH
        g = tl.load(grads + _offset(row + END_G, A) + at, mask=mask, other=0.0)
        total += g * _vector(vectors, LEAD, V, tl.load(row + END_NORM), c, C)
    tl.store(dx + at, total, mask=mask)


@triton.jit(do_not_specialize=COUNTS)
def pool_output_grad(
    saved, vectors, grads, out, table, ends, pixels, V, C: tl.constexpr, A: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Write a tile of the output gradient of a pool, summed over all routes that share it."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    valid = m < pixels
    total = tl.zeros([BP, BC], out.dtype.element_ty)
    for i in range(ends):
        row = table + i * END_WIDTH
        y, g = saved + _offset(row + END_Y, A), grads + _offset(row + END_G, A)
        total += _norm_backward(g, y, vectors, tl.load(row + END_NORM), V, m, valid, c, C)
    tl.store(out + m[:, None] * C + c[None, :], total, mask=valid[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=COUNTS)
def pool_backward(
    e, argmax, dx, images, H, W, h, w, side, s, p, K: tl.constexpr, DENSE: tl.constexpr, MAXIMUM: tl.constexpr,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Add a tile of the input gradient of a pool."""
    m, c = tl.program_id(0) * BP + tl.arange(0, BP), tl.arange(0, BC)
    valid = m < images * H * W
    n, iy, ix = m // (H * W), (m // W) % H + p, m % W + p
    to, mask = dx + m[:, None] * C + c[None, :], valid[:, None] & (c < C)[None, :]
    total = tl.load(to, mask=mask, other=0.0)
    for ky in range(side):
        for kx in tl.static_range(K):
            inside, at = _window_output(n, iy - ky, ix - kx, h, w, s, valid, DENSE)
            at = at * C + c[None, :]
            own = tl.load(e + at, mask=inside & (c < C)[None, :], other=0.0)
            if MAXIMUM:
                which = tl.load(argmax + at, mask=inside & (c < C)[None, :], other=-1).to(tl.int32)
                total += tl.where(which == ky * K + kx, own, 0.0)
            else:
                area = _window_area(iy - ky - p, ix - kx - p, H, W, K)[:, None]
                total += own / tl.where(inside, area, 1).to(e.dtype.element_ty)
    tl.store(to, total, mask=mask)
