"""All that leaves a state of a cell, on a CPU, in a few walks over memory.

It computes what :func:`gapless.engine.kernels.fan` computes, in the compiled loops of :mod:`gapless.engine.loops`. Each
image goes through a whole step of a chain (ReLU, depthwise convolution, convolution, moments) while it lies in the
cache; between steps only the moments of all images have to meet. Kept for the backward pass is what normalisations
read, and nothing else: what follows a normalisation is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import binding
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.engine import loops
from gapless.engine.kernels import Chain, Moments, Pool, Route, Spatial, Step, halves
from gapless.engine.lanes import Width
from gapless.engine.workers import Job, share, threads

Array = NDArray[Any]
FORMATS = (torch.float32, torch.float64)
WIDEST = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Numbers in a vector at most: eight sums of so many fit the registers."""
WIDTHS = {count: Width(count) for count in (16, 8, 4) if count <= WIDEST}
STATE = 0
"""Number of the state itself among the images that are held; those kept for the backward pass follow."""

# ---------------------------------------------------------------------- what is known to the loops


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the loops compute these routes, for a state like ``x``: on the CPU, in single or double precision,
    for channels in fours."""
    return (
        x.device.type == "cpu"
        and x.dtype in FORMATS
        and x.shape[-1] % 4 == 0
        and all(p.shape[0] % 4 == 0 and (p.dim() == 1 or p.shape[1] == 1 or p.shape[1] % 4 == 0) for p in parameters)
        and _known(tuple(routes))
    )


@lru_cache(maxsize=4096)
def _known(routes: tuple[Route, ...]) -> bool:
    steps = [step for route in routes if isinstance(route.form, Chain) for step in route.form.steps]
    return all(not isinstance(s.linear, Spatial) or (s.window is None and s.linear.window.stride == 1) for s in steps)


def _width(*channels: int) -> Width:
    return next(width for count, width in WIDTHS.items() if all(c % count == 0 for c in channels))


# ---------------------------------------------------------------------- memory


_MEMORY = threading.local()


def _scratch(rank: int, count: int, dtype: Any) -> Array:
    """Return memory of thread ``rank`` that the next call returns again."""
    held = _SCRATCH
    found = held.get((rank, dtype))
    if found is None or len(found) < count:
        held[rank, dtype] = found = np.empty(count, dtype)
    return found
_SCRATCH = {}


def _flat(x: Tensor) -> Array:
    array: Array = x.detach().view(-1).numpy()
    return array


# ---------------------------------------------------------------------- a step of a chain


class Sizes(NamedTuple):
    """Of a step: input H, W, C; depthwise convolution K, stride s, padding p, dilation d (K = 0: none); convolution k,
    padding kp, dilation kd; output h, w, O."""

    H: int
    W: int
    C: int
    K: int
    s: int
    p: int
    d: int
    k: int
    kp: int
    kd: int
    h: int
    w: int
    O: int  # noqa: E741

    @staticmethod
    def of(step: Step, sides: tuple[int, int], deep: Tensor | None, wide: Tensor) -> Sizes:
        """Return those of a step, for an image of these sides."""
        high, across = sides
        K, s, p, d = 0, 1, 0, 1
        if step.window is not None:
            assert deep is not None
            K, s, p, d = deep.shape[-1], step.window.stride, step.window.padding, step.window.dilation
            high, across = step.window.side(high, K), step.window.side(across, K)
        k, kp, kd = 1, 0, 1
        if isinstance(step.linear, Spatial):
            window = step.linear.window
            k, kp, kd = wide.shape[-1], window.padding, window.dilation
            high, across = window.side(high, k), window.side(across, k)
        return Sizes(*sides, wide.shape[1], K, s, p, d, k, kp, kd, high, across, wide.shape[0])

    @property
    def scratch(self) -> int:
        """How many numbers a thread needs beside the images."""
        border = self.p if self.K else self.kp
        framed = (self.H + 2 * border) * (self.W + 2 * border) * self.C
        margin = 0 if self.K else self.kd * (self.k - 1) - self.kp
        reach = self.d * (self.K - 1) - self.p if self.K and self.s == 1 else 0
        error = (self.h + 2 * margin) * (self.w + 2 * margin) * self.O
        deep = (self.h + 2 * reach) * (self.w + 2 * reach) * self.C + self.h * self.w * self.C
        return 2 * framed + error + deep

    @property
    def places(self) -> int:
        """How many pixels an output has."""
        return self.h * self.w


class PoolSizes(NamedTuple):
    """Of a pool: input H, W, C; kernel K, stride s, padding p; output h, w."""

    H: int
    W: int
    C: int
    K: int
    s: int
    p: int
    h: int
    w: int

    @property
    def scratch(self) -> int:
        """How many numbers a thread needs beside the images."""
        return 2 * (self.H + 2 * self.p) * (self.W + 2 * self.p) * self.C

    @property
    def places(self) -> int:
        """How many pixels an output has."""
        return self.h * self.w

    def shares(self, dtype: Any) -> Array:
        """Return one over the pixels that lie under each window, [h w]."""

        def under(side: int, out: int) -> Array:
            start = np.arange(out) * self.s - self.p
            return np.minimum(start + self.K, side) - np.maximum(start, 0)

        return (1 / np.outer(under(self.H, self.h), under(self.W, self.w))).ravel().astype(dtype)


@dataclass
class Norm:
    """A normalisation, in double precision: mean and 1 / deviation [C], scale and shift if it is affine."""

    gamma: Array | None = None
    beta: Array | None = None
    mean: Array = field(default_factory=lambda: np.empty(0))
    variance: Array = field(default_factory=lambda: np.empty(0))
    inverse: Array = field(default_factory=lambda: np.empty(0))

    def take(self, means: Array, seconds: Array, places: int, eps: float) -> None:
        """Join the moments [N, C] of images of so many places."""
        self.mean = means.mean(axis=0)
        spread = seconds.sum(axis=0) + places * np.square(means - self.mean).sum(axis=0)
        self.variance = spread / (len(means) * places)
        self.inverse = 1 / np.sqrt(self.variance + eps)

    @property
    def scale(self) -> Array:
        """What y is multiplied by."""
        return self.inverse if self.gamma is None else self.inverse * self.gamma

    @property
    def shift(self) -> Array:
        """What is then added."""
        shift: Array = -self.mean * self.scale
        return shift if self.beta is None else shift + self.beta

    def error(self, c: float, s1: Array, s2: Array, count: int) -> tuple[Array, Array, Array]:
        """Return lead, first and last of the gradient at y, ``lead * (g - first) + last * (y - mean)``, where the
        output is multiplied by c and the ``count`` values g sum to s1, and g * (y - mean) to s2."""
        lead = c * self.scale
        return lead, s1 / count, -lead * np.square(self.inverse) * s2 / count

    def affine(self, c: float, s1: Array, s2: Array) -> list[Array]:
        """Return the gradients at scale and shift, none if there are none."""
        return [] if self.gamma is None else [c * s2 * self.inverse, c * s1]

    def share(self, s1: Array, s2: Array) -> float:
        """Return the gradient at what multiplies the output."""
        return float((s2 * self.scale).sum() + (0 if self.beta is None else (s1 * self.beta).sum()))


def _vectors(parameters: Iterator[Tensor], affine: bool) -> Norm:
    if not affine:
        return Norm()
    gamma, beta = (next(parameters).detach().double().numpy() for _ in range(2))
    return Norm(gamma, beta)


@dataclass
class Pass:
    """A step of a chain: what it reads and writes among the images held, and its weights as the loops want them."""

    sizes: Sizes
    reads: int
    writes: int
    eps: float
    deep: Array
    turned: Array
    wide: Array
    back: Array
    scale: Array
    shift: Array
    norm: Norm

    @staticmethod
    def of(step: Step, sides: tuple[int, int], reads: int, writes: int, parameters: Iterator[Tensor]) -> Pass:
        """Take a step's parameters off the list."""
        deep = next(parameters) if step.window is not None else None
        wide = next(parameters)
        sizes, norm = Sizes.of(step, sides, deep, wide), _vectors(parameters, step.affine)
        w = wide.detach().numpy().reshape(sizes.O, sizes.C, -1)
        d = w[:0, 0] if deep is None else deep.detach().numpy().reshape(sizes.C, -1)
        ones = np.ones(sizes.C, w.dtype)
        return Pass(
            sizes, reads, writes, step.eps, d.T.reshape(-1), d[:, ::-1].T.reshape(-1), w.transpose(2, 1, 0).reshape(-1),
            w[..., ::-1].transpose(2, 0, 1).reshape(-1), ones, np.zeros_like(ones), norm,
        )  # fmt: skip

    @property
    def width(self) -> Width:
        """The vectors of its loops."""
        return _width(self.sizes.C, self.sizes.O)

    def forward(self, held: Sequence[Array], means: Array, seconds: Array) -> Job:
        """Return the job that computes the output and its moments [N, O]."""
        x, y = held[self.reads], held[self.writes]
        found, sizes, need, width = (means.reshape(-1), seconds.reshape(-1)), tuple(self.sizes), self.sizes.scratch, self.width

        def job(rank: int, lo: int, hi: int) -> None:
            room = _scratch(rank, need, y.dtype)
            loops.forward(lo, hi, room, x, y, self.deep, self.wide, self.scale, self.shift, *found, sizes, width)

        return job

    def backward(
        self, held: Sequence[Array], g: Array, error: tuple[Array, Array, Array], before: Norm | None, dx: Array,
        more: bool, weights: bool, below: bool, images: int,
    ) -> tuple[Job, Back]:  # fmt: skip
        """Return the job that goes back, and what it will leave. ``before`` is the normalisation between the images read
        and the ReLU, None where a state is read; then the gradient behind the ReLU is written or, if ``more``, added."""
        x, y, sizes = held[self.reads], held[self.writes], self.sizes
        deep, wide = (sizes.K**2 * sizes.C, sizes.k**2 * sizes.C * sizes.O) if weights else (0, 0)
        inner, count = before is not None, threads(images)
        sums = np.empty((2, images, sizes.C if inner else 0))
        found = Back(dx, np.zeros((count, deep)), np.zeros((count, wide)), sums)
        none = y[:0]
        vectors = [none if before is None else before.mean, *error, self.norm.mean]
        at = [a.astype(y.dtype) for a in vectors]
        s1, s2 = sums.reshape(2, -1)
        geometry, need, width = tuple(sizes), sizes.scratch, self.width

        def job(rank: int, lo: int, hi: int) -> None:
            room = _scratch(rank, need, y.dtype)
            loops.backward(
                lo, hi, room, x, y, g, self.deep, self.turned, self.back, self.scale, self.shift, *at, dx,
                found.deep[rank], found.wide[rank], s1, s2, inner, more, weights, below, geometry, width,
            )  # fmt: skip

        return job, found


@dataclass
class Back:
    """What the backward pass of a step leaves: the gradient at its input, those of its weights from each thread, and the
    sums [2, N, C] that the normalisation before it needs."""

    dx: Array
    deep: Array
    wide: Array
    sums: Array

    def weights(self, sizes: Sizes) -> list[Array]:
        """Return the gradients at the weights, in PyTorch's order of axes."""
        wide = self.wide.sum(axis=0).reshape(sizes.k, sizes.k, sizes.C, sizes.O).transpose(3, 2, 0, 1)
        if not sizes.K:
            return [wide]
        return [self.deep.sum(axis=0).reshape(sizes.K, sizes.K, 1, sizes.C).transpose(3, 2, 0, 1), wide]


@dataclass
class Pooling:
    """A pool of a state, which several routes may share."""

    sizes: PoolSizes
    writes: int
    share: Array


@dataclass
class Way:
    """A route: the images at its end, how they are normalised, and what leads there."""

    target: int
    ends: int
    norm: Norm | None
    eps: float = 0.0
    passes: list[Pass] = field(default_factory=list)
    pooling: Pooling | None = None

    def line(self, c: float, channels: int) -> tuple[Array, Array]:
        """Return scale and shift with which its end is added."""
        if self.norm is None:
            return np.full(channels, c), np.zeros(channels)
        return c * self.norm.scale, c * self.norm.shift


# ---------------------------------------------------------------------- the function


def fan(
    routes: Sequence[Route],
    coefficient: Tensor,
    x: Tensor,
    arrived: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :func:`gapless.engine.kernels.fan`; for what :func:`serves` says yes to."""
    found = _Fan.apply(tuple(routes), len(arrived), coefficient, x, *arrived, *parameters)  # type: ignore[no-untyped-call]
    moments = iter(found[len(arrived) :])
    return found[: len(arrived)], tuple(zip(moments, moments, strict=True))


class _Fan(Function):
    @staticmethod
    def forward(
        ctx: Any, routes: tuple[Route, ...], targets: int, coefficient: Tensor, x: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        arrived, parameters = tensors[:targets], iter(tensors[targets:])
        images, sides, channels = x.shape[0], (x.shape[1], x.shape[2]), x.shape[3]
        kept: list[Tensor] = [x]
        ways: list[Way] = []
        pools: dict[Pool, Pooling] = {}
        split: int | None = None
        for route in routes:
            if isinstance(route.form, Pool):
                form = route.form
                alike = replace(form, eps=None, affine=False)
                if alike not in pools:
                    window, k = form.window, form.kernel
                    out = (window.side(sides[0], k), window.side(sides[1], k))
                    sizes = PoolSizes(*sides, channels, k, window.stride, window.padding, *out)
                    kept.append(x.new_empty(images, *out, channels))
                    numbers = _flat(kept[-1]).dtype
                    pools[alike] = Pooling(
                        sizes, len(kept) - 1, np.empty(0, numbers) if form.largest else sizes.shares(numbers)
                    )
                pooling = pools[alike]
                norm = None if form.eps is None else _vectors(parameters, form.affine)  # type: ignore[arg-type]
                ways.append(Way(route.target, pooling.writes, norm, form.eps or 0.0, pooling=pooling))
            elif isinstance(route.form, Chain):
                reads, size = STATE, sides
                if route.form.halves:
                    if split is None:
                        kept.append(halves(x))
                        split = len(kept) - 1
                    reads, size = split, (kept[split].shape[1], kept[split].shape[2])
                passes: list[Pass] = []
                for step in route.form.steps:
                    one = Pass.of(step, size, reads, len(kept), parameters)  # type: ignore[arg-type]
                    size, reads = (one.sizes.h, one.sizes.w), len(kept)
                    kept.append(x.new_empty(images, *size, one.sizes.O))
                    passes.append(one)
                ways.append(Way(route.target, reads, passes[-1].norm, passes=passes))
            else:
                ways.append(Way(route.target, STATE, None))
        held = [_flat(t) for t in kept]
        # pools with the first steps of chains, then step by step: each needs the moments of the one before
        depth = max([len(way.passes) for way in ways] + [1])
        for at in range(depth):
            jobs: list[Job] = []
            found: list[tuple[Norm, Array, Array, int, float]] = []
            if not at:
                for pooling in pools.values():
                    means, seconds = np.empty((2, images, channels))
                    jobs.append(_pool(pooling, held, means, seconds))
                    for way in ways:
                        if way.pooling is pooling and way.norm is not None:
                            found.append((way.norm, means, seconds, pooling.sizes.places, way.eps))
            for way in ways:
                if at < len(way.passes):
                    one = way.passes[at]
                    if at:
                        before = way.passes[at - 1].norm
                        one.scale, one.shift = (a.astype(one.wide.dtype) for a in (before.scale, before.shift))
                    means, seconds = np.empty((2, images, one.sizes.O))
                    jobs.append(one.forward(held, means, seconds))
                    found.append((one.norm, means, seconds, one.sizes.places, one.eps))
            share(images, jobs)
            for norm, means, seconds, places, eps in found:
                norm.take(means, seconds, places, eps)
        shares = coefficient.detach().double().tolist()
        sums = list(arrived)
        jobs = []
        for c, way in zip(shares, ways, strict=True):
            more = sums[way.target] is not None
            if not more:
                sums[way.target] = torch.empty_like(kept[way.ends])
            out = sums[way.target]
            assert out is not None
            jobs.append(_accumulate(held[way.ends], _flat(out), way.line(c, out.shape[3]), out, more))
        share(images, jobs)
        ctx.ways, ctx.pools, ctx.split, ctx.shares = ways, tuple(pools.values()), split, shares
        ctx.targets, ctx.given = targets, len(kept)
        ctx.save_for_backward(*kept, *tensors[targets:])
        ctx.mark_dirty(*(t for t in arrived if t is not None))
        moments = [
            torch.from_numpy(a).to(x)
            for way in ways
            for norm in ([p.norm for p in way.passes] or [way.norm])
            if norm is not None
            for a in (norm.mean, norm.variance)
        ]
        ctx.mark_non_differentiable(*moments)
        return *sums, *moments  # type: ignore[return-value]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        ways: list[Way] = ctx.ways
        tensors = ctx.saved_tensors[: ctx.given]
        x, held = tensors[0], [_flat(t) for t in tensors]
        wanted = ctx.needs_input_grad
        below, weights = wanted[3], any(wanted[4 + ctx.targets :])
        whole = [g.contiguous() for g in given[: ctx.targets]]
        g, images = [_flat(t) for t in whole], x.shape[0]
        places = [t.shape[1] * t.shape[2] for t in whole]
        channels = whole[0].shape[3]
        sums = [np.empty((2, images, channels)) for _ in ways]
        share(
            images,
            [
                _correlate(g[w.target], held[w.ends], w.norm, s, places[w.target], channels)
                for w, s in zip(ways, sums, strict=True)
            ],
        )
        carried = [(s[0].sum(axis=0), s[1].sum(axis=0)) for s in sums]
        shared = [
            s2.sum() if way.norm is None else way.norm.share(s1, s2)
            for way, (s1, s2) in zip(ways, carried, strict=True)
        ]
        dx = torch.empty_like(x) if below else None
        at_read: dict[int, Array] = {}
        gradients: list[list[Array]] = [[] for _ in ways]
        errors: list[tuple[Array, Array, Array] | None] = []
        for way, c, (s1, s2), found in zip(ways, ctx.shares, carried, gradients, strict=True):
            count = images * places[way.target]
            errors.append(None if way.norm is None else way.norm.error(c, s1, s2, count))
            if way.norm is not None and not way.passes:
                found += way.norm.affine(c, s1, s2)
        arriving = [g[way.target] for way in ways]
        depth = max([len(way.passes) for way in ways] + [1])
        for turn in range(depth):
            jobs: list[Job] = []
            after: list[tuple[int, int, Back]] = []
            for i, way in enumerate(ways):
                at = len(way.passes) - 1 - turn
                if at < 0 or not (weights or below):
                    continue
                one, error = way.passes[at], errors[i]
                assert error is not None
                before = way.passes[at - 1].norm if at else None
                if before is not None:
                    into, more = np.empty_like(held[one.reads]), False
                else:
                    more = one.reads in at_read
                    if not more:
                        at_read[one.reads] = np.empty_like(held[one.reads]) if below else held[0][:0]
                    into = at_read[one.reads]
                job, found_back = one.backward(
                    held, arriving[i], error, before, into, more, weights, below or at > 0, images
                )
                jobs.append(job)
                after.append((i, at, found_back))
            if turn == depth - 1 and dx is not None:
                jobs += _assemble(ctx, held, g, errors, at_read, dx, places)
            share(images, jobs)
            for i, at, back in after:
                one, (s1, s2) = ways[i].passes[at], carried[i]
                c = 1.0 if turn else ctx.shares[i]
                gradients[i][:0] = [*back.weights(one.sizes), *one.norm.affine(c, s1, s2)] if weights else []
                if at:
                    arriving[i], (s1, s2) = back.dx, back.sums.sum(axis=1)
                    before = ways[i].passes[at - 1].norm
                    carried[i], errors[i] = (s1, s2), before.error(1.0, s1, s2, images * ways[i].passes[at - 1].sizes.places)
        flat: list[Tensor | None] = [None] * (len(wanted) - 4 - ctx.targets)
        if weights:
            flat = [torch.from_numpy(np.ascontiguousarray(a)).to(x) for found in gradients for a in found]
        passed = [t if wanted[4 + i] else None for i, t in enumerate(whole)]
        return None, None, torch.tensor(shared, dtype=x.dtype), dx, *passed, *flat


def _pool(pooling: Pooling, held: Sequence[Array], means: Array, seconds: Array) -> Job:
    x, y, sizes, need = held[STATE], held[pooling.writes], tuple(pooling.sizes), pooling.sizes.scratch
    flat, width = (means.reshape(-1), seconds.reshape(-1)), _width(pooling.sizes.C)

    def job(rank: int, lo: int, hi: int) -> None:
        loops.pool(lo, hi, _scratch(rank, need, x.dtype), x, y, pooling.share, *flat, sizes, width)

    return job


def _accumulate(y: Array, out: Array, line: tuple[Array, Array], shape: Tensor, more: bool) -> Job:
    scale, shift = (a.astype(y.dtype) for a in line)
    places, channels = shape.shape[1] * shape.shape[2], shape.shape[3]
    width = _width(channels)

    def job(rank: int, lo: int, hi: int) -> None:
        loops.accumulate(lo, hi, y, out, scale, shift, places, channels, more, width)

    return job


def _correlate(g: Array, y: Array, norm: Norm | None, sums: Array, places: int, channels: int) -> Job:
    mean = np.zeros(channels, y.dtype) if norm is None else norm.mean.astype(y.dtype)
    s1, s2 = sums.reshape(2, -1)
    width = _width(channels)

    def job(rank: int, lo: int, hi: int) -> None:
        loops.correlate(lo, hi, g, y, mean, s1, s2, places, channels, width)

    return job


def _assemble(
    ctx: Any, held: Sequence[Array], g: Sequence[Array], errors: Sequence[tuple[Array, Array, Array] | None],
    at_read: dict[int, Array], dx: Tensor, places: Sequence[int],
) -> list[Job]:  # fmt: skip
    """Return the jobs that gather the gradient at the state from its chains, pools and skips."""
    x, out = held[STATE], _flat(dx)
    images, high, wide, channels = dx.shape
    width, count = _width(channels), high * wide * channels
    jobs: list[Job] = []
    begun = False

    def positive(source: Array, more: bool) -> Job:
        return lambda rank, lo, hi: loops.relu_back(lo, hi, x, source, out, count, more, width)

    def plain(y: Array, source: Array, into: Array, vectors: list[Array], pixels: int, more: bool) -> Job:
        return lambda rank, lo, hi: loops.error(lo, hi, source, y, into, *vectors, pixels, channels, more, width)

    def unsplit(parts: Array, into: Array) -> Job:
        whole = into.reshape(dx.shape)
        apart = parts.reshape(images, -(-high // 2), -(-wide // 2), 2 * channels)

        def job(rank: int, lo: int, hi: int) -> None:
            whole[lo:hi, ::2, ::2] += apart[lo:hi, ..., :channels]
            whole[lo:hi, 1::2, 1::2] += apart[lo:hi, : high // 2, : wide // 2, channels:]

        return job

    def clear(into: Array) -> Job:
        def job(rank: int, lo: int, hi: int) -> None:
            into[lo * count : hi * count] = 0

        return job

    def back(pooling: Pooling, into: Array, more: bool) -> Job:
        y, sizes, need = held[pooling.writes], tuple(pooling.sizes), pooling.sizes.scratch

        def job(rank: int, lo: int, hi: int) -> None:
            loops.pool_back(lo, hi, _scratch(rank, need, x.dtype), x, y, into, pooling.share, out, more, sizes, width)

        return job

    if ctx.split in at_read:
        if STATE not in at_read:
            at_read[STATE] = np.empty_like(x)
            jobs.append(clear(at_read[STATE]))
        jobs.append(unsplit(at_read[ctx.split], at_read[STATE]))
    if STATE in at_read:
        jobs.append(positive(at_read[STATE], False))
        begun = True
    for way, c, error in zip(ctx.ways, ctx.shares, errors, strict=True):
        if way.ends == STATE:
            vectors = [np.full(channels, v, x.dtype) for v in (c, 0, 0, 0)]
            jobs.append(plain(x, g[way.target], out, vectors, high * wide, begun))
            begun = True
    for pooling in ctx.pools:
        y, into, more = held[pooling.writes], np.empty_like(held[pooling.writes]), False
        for way, c, error in zip(ctx.ways, ctx.shares, errors, strict=True):
            if way.pooling is pooling:
                vectors = [np.full(channels, v, x.dtype) for v in (c, 0, 0, 0)]
                if error is not None:
                    vectors = [a.astype(x.dtype) for a in (*error, way.norm.mean)]
                jobs.append(plain(y, g[way.target], into, vectors, pooling.sizes.places, more))
                more = True
        jobs.append(back(pooling, into, begun))
        begun = True
    return jobs
