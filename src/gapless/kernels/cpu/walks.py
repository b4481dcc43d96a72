"""Walks over the images of a batch: what a fan does between two points at which the moments of all
images are exchanged.

Records, whose fields :mod:`gapless.kernels.cpu.records` describes, say what is computed and where
in the arrays numbers lie. A walk takes one image after the other, so that an image stays in the
cache while everything that reads it is computed. The arrays of a pass are given together, as
``buffers``; ``targets`` holds the addresses of the targets' sums or of their gradients, and whether
there was a sum before.
"""

from __future__ import annotations

import numpy as np

from gapless.kernels.cpu.declare import (
    Addresses,
    Buffers,
    Doubles,
    Ends,
    Host,
    Image,
    Norms,
    Numbers,
    Pools,
    Scratch,
    Steps,
    loop,
)
from gapless.kernels.cpu.loops import (
    STRETCH,
    conv,
    conv_weight_grad,
    depthwise,
    depthwise_input_grad,
    depthwise_weight_grad,
    grad_sums,
    join_phases,
    moments,
    norm_backward,
    pad,
    pad_relu,
    pad_scale_shift_relu,
    pointwise,
    pool,
    pool_backward,
    relu_backward,
    scale_shift,
    split_phases,
    unpad_add,
    winograd_filter,
    winograd_filter_backward,
    winograd_input,
    winograd_input_backward,
    winograd_multiply,
    winograd_multiply_weight_grad,
    winograd_output,
    winograd_output_backward,
    zero_border,
)
from gapless.kernels.cpu.records import (
    CENTRE,
    DX,
    FIRST,
    FLIPPED,
    GRAD_PACKED,
    GRAD_SAVED,
    INVERSE,
    INVERSE_COUNTS,
    LAST,
    LEAD,
    MEAN,
    PACKED,
    PATCHES,
    PLACES,
    SAVED,
    SCALE,
    SCRATCH_MEMORY,
    SHIFT,
    SUMS,
    VARIANCE,
    VECTORS,
    X,
)
from gapless.kernels.cpu.threads import Walk
from gapless.kernels.cpu.vectors import Vector, doubles, numbers, numbers_at

# ---------------------------------------------------------------------- weights


@Walk
def pack_weights(
    rank: int, lo: int, hi: int, params: Numbers, buffers: Buffers, steps: Steps, images: int, backward: bool, v: Vector
) -> None:
    """Pack the weights as the loops read them: for the forward pass, or flipped for the backward
    pass, which needs the depthwise ones both ways, since it recomputes depthwise convolutions. Of
    each step the share of the channels that the images from ``lo`` to ``hi`` are of all images."""
    packed, flipped = numbers(buffers, PACKED, v), numbers(buffers, FLIPPED, v)
    for i in range(len(steps)):
        t = steps[i]
        C, K, k, O = t.C, t.K, t.k, t.O
        for c in range(C * lo // images, C * hi // images):
            for place in range(K * K):
                weight = params[t.depthwise + c * K * K + place]
                packed[t.packed_depthwise + place * C + c] = weight
                if backward:
                    flipped[t.packed_depthwise + (K * K - 1 - place) * C + c] = weight
        channels = O if backward else C
        first, last = channels * lo // images, channels * hi // images
        if t.winograd:
            into = flipped if backward else packed
            winograd_filter(params, t.conv, into, t.packed_conv, C, O, first, last, backward, v)
            continue
        for c in range(0 if backward else first, 0 if backward else last):
            for place in range(k * k):
                for o in range(O):
                    packed[t.packed_conv + (place * C + c) * O + o] = params[t.conv + (o * C + c) * k * k + place]
        for o in range(first if backward else 0, last if backward else 0):
            for place in range(k * k):
                to = t.packed_conv + ((k * k - 1 - place) * O + o) * C
                for c in range(C):
                    flipped[to + c] = params[t.conv + (o * C + c) * k * k + place]


@Walk
def unpack_grads(
    rank: int, lo: int, hi: int, buffers: Buffers, grad_params: Numbers, steps: Steps, threads: int, images: int,
    scratch: Scratch, v: Vector,
) -> None:  # fmt: skip
    """Sum the weight gradients over threads and write them as PyTorch lays weights out; of each
    step a share of the channels, as in :func:`pack_weights`."""
    grad_packed, length = doubles(buffers, GRAD_PACKED), scratch[0].packed
    for i in range(len(steps)):
        t = steps[i]
        C, K, k, O = t.C, t.K, t.k, t.O
        first, last = C * lo // images, C * hi // images
        for c in range(first, last):
            for place in range(K * K):
                total = 0.0
                for other in range(threads):
                    total += grad_packed[other * length + t.packed_depthwise + place * C + c]
                grad_params[t.depthwise + c * K * K + place] = total
        if t.winograd:
            winograd_filter_backward(
                grad_packed, threads, length, t.packed_conv, grad_params, t.conv, C, O, first, last, v
            )
            continue
        for c in range(first, last):
            for o in range(O):
                for place in range(k * k):
                    total = 0.0
                    for other in range(threads):
                        total += grad_packed[other * length + t.packed_conv + (place * C + c) * O + o]
                    grad_params[t.conv + (o * C + c) * k * k + place] = total


# ---------------------------------------------------------------------- forward


@loop
def winograd_forward(
    n: int, rank: int, buffers: Buffers, source: Image, steps: Steps, begin: int, end: int, scratch: Scratch,
    depth: int, H: int, W: int, C: int, v: Vector,
) -> None:  # fmt: skip
    """Compute by Winograd's F(2x2, 3x3), for one image, the steps of this depth from ``begin`` to
    ``end`` that use it. Their common input is transformed once."""
    a, packed, saved = scratch[0], numbers(buffers, PACKED, v), numbers(buffers, SAVED, v)
    room = numbers(buffers, SCRATCH_MEMORY, v)[rank * a.length :]
    transformed, products = room[a.patches :], room[a.products :]
    T = W // 2
    some = max(1, PATCHES // T)
    for r in range(0, H // 2, some):
        R = min(some, H // 2 - r)
        winograd_input(Image(source.data, source.start + 2 * r * source.row, source.row), transformed, R, T, C, v)
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                O = s.O
                winograd_multiply(transformed, packed[s.packed_conv :], products, R * T, C, O, False, v)
                winograd_output(products, Image(saved, s.y + (n * H + 2 * r) * W * O, W * O), R, T, O, v)


@Walk
def forward(
    rank: int, lo: int, hi: int, buffers: Buffers, steps: Steps, pools: Pools, scratch: Scratch, depth: int, v: Vector
) -> None:
    """Compute the steps of this depth (and, at depth 0, the pools), and the moments of each
    image."""
    a = scratch[0]
    x, saved, packed = numbers(buffers, X, v), numbers(buffers, SAVED, v), numbers(buffers, PACKED, v)
    inverse_counts, vectors = numbers(buffers, INVERSE_COUNTS, v), numbers(buffers, VECTORS, v)
    mean = doubles(buffers, SUMS)
    second = mean[a.channels :]
    room = numbers(buffers, SCRATCH_MEMORY, v)[rank * a.length :]
    H, W, C, B, V = a.H, a.W, a.C, a.border, a.channels
    input, split, padded, z = room[a.input :], room[a.split :], room[a.padded :], room[a.z :]
    row = (W + 2 * B) * C
    if depth == 0:
        zero_border(input, H, W, C, B, v)
    for n in range(lo, hi):
        if depth == 0:
            for i in range(len(pools)):
                t = pools[i]
                under = room[a.pool : a.pool + (H + 2 * t.p) * (W + 2 * t.p) * C]
                under[:] = -np.inf if t.maximum else 0.0
                pad(x, n * H * W * C, under, H, W, C, t.p, v)
                j = t.y + n * t.h * t.w * C
                pool(
                    under,
                    saved,
                    j,
                    inverse_counts[t.inverse_counts :],
                    t.maximum != 0,
                    t.h,
                    t.w,
                    W + 2 * t.p,
                    C,
                    t.K,
                    t.s,
                    v,
                )
                if t.norm >= 0:
                    moments(saved, j, t.h * t.w, C, mean, second, n * 2 * V + t.norm, v)
            if len(steps):
                pad_relu(x, n * H * W * C, input, H, W, C, B, v)
            if a.phases:
                split_phases(Image(input, B * (row + C), row), split, H, W, C, v)
            if a.winograd:
                source = Image(input, (B - 1) * (row + C), row)
                winograd_forward(n, rank, buffers, source, steps, 0, len(steps), scratch, depth, H, W, C, v)
        for i in range(len(steps)):
            s = steps[i]
            if s.depth != depth:
                continue
            h, w, O = s.h, s.w, s.O
            p = s.p if s.K else s.kp
            if depth:
                scale, shift = vectors[SCALE * V + s.norm_before :], vectors[SHIFT * V + s.norm_before :]
                zero_border(padded, s.H, s.W, s.C, p, v)
                pad_scale_shift_relu(saved, s.x + n * s.H * s.W * s.C, padded, s.H, s.W, s.C, p, scale, shift, v)
                source = Image(padded, 0, (s.W + 2 * p) * s.C)
            elif s.phases:
                source = Image(split, 0, s.W * s.C)
            else:
                source = Image(input, (B - p) * (row + C), row)
            j = s.y + n * h * w * O
            if s.K:
                between = Image(z, 0, w * s.C)
                depthwise(source, packed[s.packed_depthwise :], between, h, w, s.C, s.K, s.s, s.d, False, v)
                source = between
            if not s.winograd:
                y = Image(saved, j, w * O)
                if s.k == 1 and s.ks == 1:
                    pointwise(source, packed[s.packed_conv :], y, h, w, s.C, O, False, v)
                else:
                    conv(source, packed[s.packed_conv :], y, h, w, s.C, O, s.k, s.ks, s.kd, False, v)
            elif depth:
                winograd_forward(n, rank, buffers, source, steps, i, i + 1, scratch, depth, s.H, s.W, s.C, v)
            moments(saved, j, h * w, O, mean, second, n * 2 * V + s.norm, v)


@Walk
def node_sum(
    rank: int, lo: int, hi: int, buffers: Buffers, targets: Addresses, ends: Ends, scratch: Scratch, v: Vector
) -> None:
    """Write the sum at each target, or add to it."""
    images, V = scratch[0].images, scratch[0].channels
    x, saved, vectors = numbers(buffers, X, v), numbers(buffers, SAVED, v), numbers(buffers, VECTORS, v)
    for n in range(lo, hi):
        for i in range(len(ends)):
            t = ends[i]
            count = t.pixels * t.C
            out = numbers_at(targets[0, t.target], images * count, v)
            y, yo = (x, n * count) if t.y < 0 else (saved, t.y + n * count)
            accumulate = t.accumulate != 0 or targets[1, t.target] != 0
            scale, shift = vectors[SCALE * V + t.norm :], vectors[SHIFT * V + t.norm :]
            scale_shift(y, yo, out, n * count, scale, shift, t.pixels, t.C, accumulate, v)


# ---------------------------------------------------------------------- normalisations, over all images


@Host
def norm_forward(
    params: Numbers, coefficients: Doubles, sums: Doubles, moments64: Doubles, vectors: Numbers, norms: Norms,
    images: int, depth: int, v: Vector,
) -> None:  # fmt: skip
    """Reduce the moments of all images to scale and shift, for the normalisations of this depth."""
    V = len(moments64) // 3
    for i in range(len(norms)):
        s = norms[i]
        if s.depth != depth:
            continue
        c = coefficients[s.route] if s.route >= 0 else 1.0
        centre = moments64[CENTRE * V + s.start :]
        variance, inverse = moments64[VARIANCE * V + s.start :], moments64[INVERSE * V + s.start :]
        scale, shift = vectors[SCALE * V + s.start :], vectors[SHIFT * V + s.start :]
        if not s.normalised:
            centre[: s.C], variance[: s.C], inverse[: s.C], scale[: s.C], shift[: s.C] = 0.0, 1.0, 1.0, c, 0.0
            continue
        centre[: s.C], variance[: s.C] = 0.0, 0.0
        for n in range(images):
            for k in range(s.C):
                centre[k] += sums[n * 2 * V + s.source + k]
        for k in range(s.C):
            centre[k] /= images
        for n in range(images):
            for k in range(s.C):
                mean, second = sums[n * 2 * V + s.source + k], sums[(2 * n + 1) * V + s.source + k]
                variance[k] += second + s.pixels * (mean - centre[k]) ** 2
        for k in range(s.C):
            variance[k] /= images * s.pixels
            inverse[k] = 1.0 / np.sqrt(variance[k] + s.eps)
            gamma = inverse[k] if s.affine < 0 else inverse[k] * params[s.affine + k]
            beta = 0.0 if s.affine < 0 else params[s.affine + s.C + k]
            scale[k], shift[k] = c * gamma, c * (beta - centre[k] * gamma)


@Host
def norm_restore(params: Numbers, moments64: Doubles, vectors: Numbers, norms: Norms, v: Vector) -> None:
    """Write again the vectors that the backward pass reads: the mean of all normalisations, and
    scale and shift without the weight of the mix."""
    V = len(moments64) // 3
    for i in range(len(norms)):
        s = norms[i]
        for k in range(s.C):
            at = s.start + k
            inverse, centre = moments64[INVERSE * V + at], moments64[CENTRE * V + at]
            scale = inverse if s.affine < 0 else inverse * params[s.affine + k]
            beta = 0.0 if s.affine < 0 else params[s.affine + s.C + k]
            vectors[MEAN * V + at] = centre
            vectors[SCALE * V + at], vectors[SHIFT * V + at] = scale, beta - centre * scale


@Host
def norm_grads(
    params: Numbers, grad_params: Numbers, coefficients: Doubles, grad_coefficients: Doubles, sums: Doubles,
    moments64: Doubles, vectors: Numbers, norms: Norms, images: int, depth: int, v: Vector,
) -> None:  # fmt: skip
    """Reduce the sums of all images to the gradients of coefficients, scales and shifts and to what
    :func:`~gapless.kernels.cpu.loops.norm_backward` needs: for the ends of routes (depth -1), or
    for the normalisations of this depth inside of chains."""
    V = len(moments64) // 3
    for i in range(len(norms)):
        s = norms[i]
        if (s.route < 0) if depth < 0 else (s.route >= 0 or s.depth != depth):
            continue
        c = coefficients[s.route] if s.route >= 0 else 1.0
        s1, s2, total = np.zeros(s.C), np.zeros(s.C), 0.0
        for n in range(images):
            for k in range(s.C):
                s1[k] += sums[n * 2 * V + s.start + k]
                s2[k] += sums[(2 * n + 1) * V + s.start + k]
        for k in range(s.C):
            at = s.start + k
            if not s.normalised:
                vectors[LEAD * V + at], vectors[FIRST * V + at], vectors[LAST * V + at] = c, 0.0, 0.0
                total += s2[k]
                continue
            inverse, count = moments64[INVERSE * V + at], images * s.pixels
            scale = inverse if s.affine < 0 else inverse * params[s.affine + k]
            vectors[LEAD * V + at] = c * scale
            vectors[FIRST * V + at] = s1[k] / count
            vectors[LAST * V + at] = -c * scale * inverse**2 * s2[k] / count
            total += s2[k] * scale
            if s.affine >= 0:
                total += s1[k] * params[s.affine + s.C + k]
                grad_params[s.affine + k], grad_params[s.affine + s.C + k] = c * s2[k] * inverse, c * s1[k]
        if s.route >= 0:
            grad_coefficients[s.route] = total


# ---------------------------------------------------------------------- backward


@Walk
def end_grad_sums(
    rank: int, lo: int, hi: int, buffers: Buffers, targets: Addresses, ends: Ends, scratch: Scratch, v: Vector
) -> None:
    """Write, for the end of each route and each image, the sums of the gradient g and of g * (y -
    mean)."""
    images, V = scratch[0].images, scratch[0].channels
    x, saved, vectors = numbers(buffers, X, v), numbers(buffers, SAVED, v), numbers(buffers, VECTORS, v)
    first = doubles(buffers, SUMS)
    second = first[V:]
    for n in range(lo, hi):
        for i in range(len(ends)):
            t = ends[i]
            count = t.pixels * t.C
            g = numbers_at(targets[0, t.target], images * count, v)
            y, yo = (x, n * count) if t.y < 0 else (saved, t.y + n * count)
            mean = vectors[MEAN * V + t.norm :]
            grad_sums(g, n * count, y, yo, t.pixels, t.C, mean, first, second, n * 2 * V + t.norm, v)


@loop
def state_grad(
    n: int, rank: int, buffers: Buffers, targets: Addresses, pools: Pools, ends: Ends, scratch: Scratch, v: Vector
) -> None:
    """Write the gradient at an image of the state: what its chains left in the thread's buffers,
    and what comes through pools and skips."""
    a = scratch[0]
    x, saved, dx = numbers(buffers, X, v), numbers(buffers, SAVED, v), numbers(buffers, DX, v)
    inverse_counts, vectors = numbers(buffers, INVERSE_COUNTS, v), numbers(buffers, VECTORS, v)
    room = numbers(buffers, SCRATCH_MEMORY, v)[rank * a.length :]
    H, W, C, V = a.H, a.W, a.C, a.channels
    dinput, e = room[a.dinput :], room[a.e :]
    o = n * H * W * C
    if a.strided:
        unpad_add(room[a.dstrided :], dinput, 0, H, W, C, a.border, v)
    if a.phases:
        join_phases(room[a.dsplit :], dinput, H, W, C, v)
    relu_backward(Image(x, o, W * C), dinput, 0, dx, o, H, W, C, v)
    for i in range(len(ends)):
        t = ends[i]
        if t.y < 0:
            g = numbers_at(targets[0, t.target], a.images * H * W * C, v)
            norm_backward(g, o, x, o, Image(dx, o, W * C), C, H, W, C, vectors, V, t.norm, True, v)
    for i in range(len(pools)):
        t = pools[i]
        count, pixels = t.h * t.w * C, (H + 2 * t.p) * (W + 2 * t.p) * C
        e[:count] = 0
        for j in range(len(ends)):
            u = ends[j]
            if u.pool == i:
                g, out = numbers_at(targets[0, u.target], a.images * count, v), Image(e, 0, t.w * C)
                norm_backward(
                    g, n * count, saved, t.y + n * count, out, C, t.h, t.w, C, vectors, V, u.norm, True, v
                )  # fmt: skip
        under, grad = room[a.pool : a.pool + pixels], room[a.pool + pixels : a.pool + 2 * pixels]
        grad[:] = 0
        if t.maximum:
            under[:] = -np.inf
            pad(x, o, under, H, W, C, t.p, v)
        pool_backward(
            under, saved, t.y + n * count, e, inverse_counts[t.inverse_counts :], t.maximum != 0, grad, t.h, t.w,
            W + 2 * t.p, C, t.K, t.s, v,
        )  # fmt: skip
        unpad_add(grad, dx, o, H, W, C, t.p, v)


@loop
def winograd_backward(
    n: int, lo: int, hi: int, rank: int, buffers: Buffers, targets: Addresses, source: Image, out: Image, steps: Steps,
    begin: int, end: int, scratch: Scratch, depth: int, H: int, W: int, C: int, weights: bool, state: bool, v: Vector,
) -> None:  # fmt: skip
    """Compute the backward pass of :func:`winograd_forward`: add the input gradient to ``out`` if
    it is wanted (``state``), and the weight gradients (``weights``) to the thread's. It takes what
    identifies an image, a thread and a range of steps, each once."""
    a, flipped, saved = scratch[0], numbers(buffers, FLIPPED, v), numbers(buffers, SAVED, v)
    grad_saved, vectors = numbers(buffers, GRAD_SAVED, v), numbers(buffers, VECTORS, v)
    grad_packed = doubles(buffers, GRAD_PACKED)[rank * a.packed :]
    room = numbers(buffers, SCRATCH_MEMORY, v)[rank * a.length :]
    transformed, products, back, e = room[a.patches :], room[a.products :], room[a.dpatches :], room[a.e :]
    T = W // 2
    some = max(1, PATCHES // T)
    for r in range(0, H // 2, some):
        R, accumulate = min(some, H // 2 - r), False
        if weights:
            winograd_input(Image(source.data, source.start + 2 * r * source.row, source.row), transformed, R, T, C, v)
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                O = s.O
                j = (n * H + 2 * r) * W * O
                g = grad_saved if s.g >= 0 else numbers_at(targets[0, s.target], a.images * H * W * O, v)
                norm_backward(
                    g, j + max(s.g, 0), saved, s.y + j, Image(e, 0, W * O), O, 2 * R, W, O, vectors, a.channels, s.norm,
                    False, v,
                )  # fmt: skip
                winograd_output_backward(e, products, R, T, O, v)
                if weights:
                    own = room[a.winograd_grads + s.winograd_grad :]
                    winograd_multiply_weight_grad(transformed, products, own, R * T, C, O, v)
                if state:
                    winograd_multiply(products, flipped[s.packed_conv :], back, R * T, O, C, accumulate, v)
                    accumulate = True
        if state:
            winograd_input_backward(back, out.data, out.start, r, R, T, H, W, C, v)
    count = H * W // 4
    if weights and (n + 1 == hi or (n - lo) * count // STRETCH != (n + 1 - lo) * count // STRETCH):
        for i in range(begin, end):
            s = steps[i]
            if s.winograd and s.depth == depth:
                own = room[a.winograd_grads + s.winograd_grad :]
                for k in range(PLACES * C * s.O):
                    grad_packed[s.packed_conv + k] += own[k]
                    own[k] = 0


@Walk
def backward(
    rank: int, lo: int, hi: int, buffers: Buffers, targets: Addresses, steps: Steps, pools: Pools, ends: Ends,
    scratch: Scratch, depth: int, weights: bool, state: bool, v: Vector,
) -> None:  # fmt: skip
    """Compute the backward pass of the steps of this depth (and, at depth 0, of pools and skips).

    Inside of chains the gradient before the ReLU goes to ``grad_saved``, with the sums that the
    preceding normalisation needs. ``weights`` and ``state``: whether the gradients at the weights
    and at the state are wanted.
    """
    a = scratch[0]
    x, saved, packed, flipped = (
        numbers(buffers, X, v),
        numbers(buffers, SAVED, v),
        numbers(buffers, PACKED, v),
        numbers(buffers, FLIPPED, v),
    )
    vectors, grad_saved = numbers(buffers, VECTORS, v), numbers(buffers, GRAD_SAVED, v)
    first = doubles(buffers, SUMS)
    grad_packed = doubles(buffers, GRAD_PACKED)[rank * a.packed :]
    room = numbers(buffers, SCRATCH_MEMORY, v)[rank * a.length :]
    H, W, C, B, V = a.H, a.W, a.C, a.border, a.channels
    input, split, padded = room[a.input :], room[a.split :], room[a.padded :]
    z, dz, e = room[a.z :], room[a.dz :], room[a.e :]
    dinput, dsplit, dstrided = room[a.dinput :], room[a.dsplit :], room[a.dstrided :]
    second, input_row = first[V:], (W + 2 * B) * C
    if depth == 0:
        zero_border(input, H, W, C, B, v)
    live = 0  # steps that use Winograd's F(2x2, 3x3) and receive a gradient; those that do not are not among the steps
    for i in range(len(steps)):
        s = steps[i]
        if s.winograd and s.depth == depth:
            live += 1
            if weights:
                start = a.winograd_grads + s.winograd_grad
                room[start : start + PLACES * s.C * s.O] = 0
    for n in range(lo, hi):
        if depth == 0:
            if len(steps):
                pad_relu(x, n * H * W * C, input, H, W, C, B, v)
            if a.phases:
                split_phases(Image(input, B * (input_row + C), input_row), split, H, W, C, v)
            dinput[: H * W * C] = 0
            dsplit[: a.phases] = 0
            dstrided[: a.strided] = 0
            if live:
                winograd_backward(
                    n, lo, hi, rank, buffers, targets, Image(input, (B - 1) * (input_row + C), input_row),
                    Image(dinput, 0, W * C), steps, 0, len(steps), scratch, depth, H, W, C, weights, state, v,
                )  # fmt: skip
        for i in range(len(steps)):
            s = steps[i]
            if s.depth != depth or (s.winograd and depth == 0):
                continue
            h, w, O, K, k, ks, kd = s.h, s.w, s.O, s.K, s.k, s.ks, s.kd
            # the gradient at y, with the stride of the convolution and the border that its input gradient needs
            margin = 0 if K else kd * (k - 1) - s.kp
            erow = ((s.W + kd * (k - 1)) if not K else w) * O
            at_output, j = Image(e, margin * (erow + O), ks * erow), n * h * w * O
            if not s.winograd:
                if margin or ks > 1:
                    e[: (s.H + kd * (k - 1)) * erow] = 0
                g = grad_saved if s.g >= 0 else numbers_at(targets[0, s.target], a.images * h * w * O, v)
                norm_backward(
                    g, j + max(s.g, 0), saved, s.y + j, at_output, ks * O, h, w, O, vectors, V, s.norm, False, v
                )  # fmt: skip
            # the input
            p = s.p if K else s.kp
            own = n * s.H * s.W * s.C
            if depth:
                scale, shift = vectors[SCALE * V + s.norm_before :], vectors[SHIFT * V + s.norm_before :]
                zero_border(padded, s.H, s.W, s.C, p, v)
                pad_scale_shift_relu(saved, s.x + own, padded, s.H, s.W, s.C, p, scale, shift, v)
                source, out = Image(padded, 0, (s.W + 2 * p) * s.C), Image(grad_saved, s.dx + own, s.W * s.C)
            elif s.phases:
                source, out = Image(split, 0, s.W * s.C), Image(dsplit, 0, s.W * s.C)
            else:
                source, out = Image(input, (B - p) * (input_row + C), input_row), Image(dinput, 0, s.W * s.C)
            reach = s.d * (K - 1) - p if K and s.s == 1 else 0
            drow = (w + 2 * reach) * s.C
            at_depthwise = Image(dz, reach * (drow + s.C), drow)
            if s.winograd:
                out.data[out.start : out.start + s.H * s.W * s.C] = 0
                winograd_backward(
                    n, lo, hi, rank, buffers, targets, source, out, steps, i, i + 1, scratch, depth, s.H, s.W, s.C,
                    weights, True, v,
                )  # fmt: skip
            elif weights:
                read = source
                if K:
                    read = Image(z, 0, w * s.C)
                    depthwise(source, packed[s.packed_depthwise :], read, h, w, s.C, K, s.s, s.d, False, v)
                conv_weight_grad(
                    read, at_output, ks * O, grad_packed[s.packed_conv :], h, w, s.C, O, k, ks, kd, v
                )  # fmt: skip
            if K:
                if reach:
                    zero_border(dz, h, w, s.C, reach, v)
                if k == 1 and ks == 1:
                    pointwise(Image(e, 0, erow), flipped[s.packed_conv :], at_depthwise, h, w, O, s.C, False, v)
                else:
                    conv(Image(e, 0, erow), flipped[s.packed_conv :], at_depthwise, h, w, O, s.C, k, ks, kd, False, v)
                if weights:
                    depthwise_weight_grad(
                        source, at_depthwise, grad_packed[s.packed_depthwise :], h, w, s.C, K, s.s, s.d, v
                    )  # fmt: skip
                if (state or depth) and s.s == 1:
                    depthwise(
                        Image(dz, 0, drow), flipped[s.packed_depthwise :], out, s.H, s.W, s.C, K, 1, s.d, depth == 0, v
                    )  # fmt: skip
                elif depth == 0 and state:
                    written = Image(dstrided, source.start, source.row)
                    depthwise_input_grad(at_depthwise, packed[s.packed_depthwise :], written, h, w, C, K, s.s, s.d, v)
            elif not s.winograd and (state or depth) and k == 1:
                pointwise(Image(e, 0, erow), flipped[s.packed_conv :], out, s.H, s.W, O, s.C, depth == 0, v)
            elif not s.winograd and (state or depth):
                conv(Image(e, 0, erow), flipped[s.packed_conv :], out, s.H, s.W, O, s.C, k, 1, kd, depth == 0, v)
            if depth:
                inside = Image(source.data, p * (source.row + s.C), source.row)
                relu_backward(inside, out.data, out.start, out.data, out.start, s.H, s.W, s.C, v)
                grad_sums(
                    out.data, out.start, saved, s.x + own, s.H * s.W, s.C, vectors[MEAN * V + s.norm_before :], first,
                    second, n * 2 * V + s.norm_before, v,
                )  # fmt: skip
        if state and depth == 0:
            state_grad(n, rank, buffers, targets, pools, ends, scratch, v)
