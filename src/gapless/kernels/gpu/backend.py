"""A fan on a GPU, in some tens of launches.

One launch of a kernel of :mod:`gapless.kernels.gpu.tiles` computes all chains of a kind, to whatever targets they lead;
:mod:`gapless.kernels.gpu.launches` says which. Only the inputs of normalisations are saved for the backward pass: what
follows them is a scale, a shift and a ReLU away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gapless.kernels.forms import Chain, Moments, Route
from gapless.kernels.gpu import tiles
from gapless.kernels.gpu.launches import (
    Group,
    Launches,
    Table,
    ceil_div,
    launches_of,
    padded,
    power_of_two,
    rows_between,
)
from gapless.kernels.layout import FORMATS, Layout, layout_of, supported
from gapless.kernels.plain import split_phases

__all__ = ["fan", "judged", "serves"]

CHANNELS = 512
"""Most channels of an image."""
WHOLE = 128
"""Most channels where there is a depthwise convolution: the pointwise one behind it holds all its weights at once."""
SIDE = 7
"""Largest side of a kernel."""
WARPS = {"separable_forward": 2, "conv_forward": 4, "conv_input_grad": 4, "conv_weight_grad": 4}
"""Warps of programs with matrix products. On an H100 a pass of NAS-Bench-201 takes 11.6 ms with two in all but
``conv_weight_grad``, 0.25 less with four in ``conv_forward``, 0.3 less with four in ``conv_input_grad``, 1.1 more with
two in ``conv_weight_grad``."""


def serves(routes: Sequence[Route], x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the GPU kernels compute these routes, for a state like ``x``."""
    widths = [x.shape[-1], *(side for p in parameters for side in p.shape[:2])]
    windows = [s.window for r in routes if isinstance(r.form, Chain) for s in r.form.steps if s.window is not None]
    return (
        x.dtype in FORMATS
        and all(p.dtype == x.dtype for p in parameters)
        and max(widths) <= (WHOLE if windows else CHANNELS)
        and all(rows_between(w.stride, w.dilation) <= 2 for w in windows)
        and all(width % 4 == 0 for width in (x.shape[-1], *(p.shape[0] for p in parameters)))
        and all(p.shape[-1] <= SIDE for p in parameters if p.dim() == 4)
        and max(widths) * x.numel() // x.shape[-1] < 2**31  # offsets in an image are 32-bit integers
        and supported(tuple(routes))
    )


# ---------------------------------------------------------------------- the autograd function


def fan(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], Moments]:
    """See :meth:`gapless.kernels.backend.Backend.fan`."""
    layout = layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    *outputs, moments = _Fan.apply(layout, coefficients, x, *sums, *parameters)  # type: ignore[no-untyped-call]
    means, variances = moments
    return tuple(outputs), tuple((means[at : at + c], variances[at : at + c]) for at, c in layout.slices)


def judged(
    routes: Sequence[Route],
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    moments: Moments,
) -> tuple[Tensor, ...]:
    """See :class:`gapless.kernels.backend.Judged`."""
    layout = layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    running = x.new_empty(2, layout.lengths["norms"])
    slices = [vector[at : at + c] for at, c in layout.slices for vector in running]
    if slices:
        torch._foreach_copy_(slices, [vector for pair in moments for vector in pair])
    _, _, outputs = _forward(layout, coefficients, x, sums, parameters, running)
    return tuple(outputs)


def _forward(
    layout: Layout,
    coefficients: Tensor,
    x: Tensor,
    sums: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    running: Tensor | None = None,
) -> tuple[_Pass, Tensor, list[Tensor]]:
    """Return the forward pass, its moments [2, V] and the sums at the targets."""
    packed = torch.cat([x.new_empty(0), *(p.detach().reshape(-1) for p in parameters)])
    launches = launches_of(layout, x.device, (), x.dtype == torch.float64)
    if len(packed):
        weights, packed = packed, torch.empty_like(packed)
        grid = ceil_div(launches.longest_span, 256), len(launches.spans)
        tiles.pack_weights[grid](weights, packed, launches.spans.on_device, B=256)
    run = _Pass(layout, launches, x, coefficients, packed)
    moments = run.forward(running)
    outputs = [x.new_empty(layout.outputs[t]) if before is None else before for t, before in enumerate(sums)]
    run.node_sum(outputs, [before is not None for before in sums])
    return run, moments, outputs


class _Fan(Function):
    @staticmethod
    def forward(
        ctx: Any, layout: Layout, coefficients: Tensor, x: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        sums, parameters = tensors[: len(layout.outputs)], tensors[len(layout.outputs) :]
        run, moments, outputs = _forward(layout, coefficients, x, sums, parameters)  # type: ignore[arg-type]
        ctx.layout = layout
        ctx.save_for_backward(coefficients, x, run.packed, run.saved, run.argmax, run.moments64, run.vectors)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*(t for t in sums if t is not None))
        ctx.mark_non_differentiable(moments)
        return *outputs, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        coefficients, x, packed, *buffers = ctx.saved_tensors
        count, wanted = len(layout.outputs), ctx.needs_input_grad
        state, weights = wanted[2], any(wanted[3 + count :])
        target_grads = [None if g is None else g.contiguous() for g in grads[:count]]
        dead = tuple(t for t, g in enumerate(target_grads) if g is None)
        if len(dead) == count:
            return (None,) * (3 + count + len(layout.shapes))
        # no loss depends on dead targets: as in the reference execution, their gradients are None, not zero
        launches = launches_of(layout, x.device, dead, x.dtype == torch.float64)
        run = _Pass(layout, launches, x, coefficients, packed, *buffers)
        parts = [g.view(-1) for g in target_grads if g is not None]
        inner = layout.lengths["grad_saved"] if weights or state else 0
        if inner:
            flat = x.new_empty(launches.target_grads + inner)
            torch.cat(parts, out=flat[: launches.target_grads])
        else:
            flat = parts[0] if len(parts) == 1 else torch.cat(parts)
        grad_coefficients, dx, grad_params = run.backward(flat, weights, state)
        param_grads: list[Tensor | None] = [None] * len(layout.shapes)
        if grad_params is not None:
            split = grad_params.split([math.prod(shape) for shape in layout.shapes])
            param_grads = [
                part.view(shape) if want and owner not in dead else None
                for part, shape, want, owner in zip(
                    split, layout.shapes, wanted[3 + count :], layout.owners, strict=True
                )
            ]
        passed = [g if want else None for g, want in zip(target_grads, wanted[3:], strict=False)]
        return None, grad_coefficients, dx, *passed, *param_grads


# ---------------------------------------------------------------------- passes


@dataclass(frozen=True)
class Grads:
    """Buffers of a backward pass.

    Attributes
    ----------
    grads
        Gradients of the sums at targets, followed by those inside of chains.
    conv_grads
        Gradients of the outputs of full and depthwise convolutions, of one step of each chain.
    packed
        Gradients of the packed weights, [chunks, parameters].
    tile_sums
        Sums of g and of g (y - mean) over tiles, [2, tiles, V].
    coefficients
        Gradients of the coefficients.
    weights
        Whether the weight gradients are needed.
    """

    grads: Tensor
    conv_grads: Tensor
    packed: Tensor
    tile_sums: Tensor
    coefficients: Tensor
    weights: bool


class _Pass:
    """A forward or backward pass of a fan; ``buffers`` are those of the forward pass."""

    def __init__(
        self, layout: Layout, launches: Launches, x: Tensor, coefficients: Tensor, packed: Tensor, *buffers: Tensor
    ) -> None:
        self.layout, self.launches, self.x, self.packed = layout, launches, x, packed
        self.coefficients = coefficients.contiguous()
        self.V, self.images = layout.lengths["norms"], layout.images
        if buffers:
            self.saved, self.argmax, self.moments64, self.vectors = buffers
        else:
            self.saved = x.new_empty(layout.lengths["saved"])
            maxima = sum(p["h"] * p["w"] for p, _ in launches.pools if p["maximum"])
            self.argmax = x.new_empty(self.images * maxima * layout.C, dtype=torch.int8)
            self.moments64 = x.new_empty(3, self.V, dtype=torch.float64)
            self.vectors = x.new_empty(6, self.V)
        self.tile = {"BP": launches.pixels}
        reduced = launches.rows * launches.width
        self.reduction = {"BT": launches.rows, "BC": launches.width, "num_warps": max(4, min(16, reduced // 512))}
        self.state = {"C": layout.C, "BC": padded(layout.C)} | self.tile
        # three products of the parts of rounded factors are as exact as float32
        self.precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
        if x.dtype == torch.float64:
            self.precision = "ieee"

    def input_of(self, group: Group) -> Tensor:
        """Return the input of the first steps of chains."""
        return split_phases(self.x.relu()) if group.kind.phases else self.x

    def constants(self, group: Group, *names: str) -> dict[str, Any]:
        """Return what a kernel is compiled for."""
        kind = group.kind
        values = {
            "K": kind.K, "T": kind.T, "C": kind.C, "O": kind.O, "BC": group.BC, "BO": group.BO, "DENSE": group.dense,
            "PRECISION": self.precision,
        }  # fmt: skip
        return {name: values[name] for name in names} | {"A": self.launches.align, "BP": group.pixels}

    def tiles_of(self, pixels: int) -> int:
        """Return the number of tiles for ``pixels`` of each image."""
        return ceil_div(self.images * pixels, self.launches.pixels)

    # ------------------------------------------------------------------ forward

    def forward(self, running: Tensor | None = None) -> Tensor:
        """Compute the inputs of all normalisations, and return their moments [2, V], or the running ones."""
        launches, layout = self.launches, self.layout
        tile_moments = self.x.new_empty(3, launches.tiles, self.V)
        moments = self.x.new_empty(2, self.V)
        for depth in range(layout.depth):
            for group in launches.groups[depth]:
                arguments = (
                    self.input_of(group), self.saved, self.packed, self.vectors, tile_moments, group.table.on_device,
                    self.images, launches.tiles,
                )  # fmt: skip
                constants = self.constants(group, "C", "O", "BC", "BO", "PRECISION") | {"INNER": depth > 0}
                if group.kind.K:
                    tiles.separable_forward[group.tiles, group.count](
                        *arguments, group.length, self.V, **constants, K=group.kind.K, T=group.kind.T,
                        num_warps=_warps(group),
                    )  # fmt: skip
                else:
                    tiles.conv_forward[group.tiles, group.count, group.blocks[1]](
                        *arguments, self.V, **constants, num_warps=WARPS["conv_forward"]
                    )
            if not depth:
                self.pool(tile_moments)
            norms = launches.norms[depth]
            if len(norms):
                tiles.norm_forward[(len(norms),)](
                    tile_moments, moments if running is None else running, self.packed, self.coefficients,
                    self.moments64, self.vectors, moments, norms.on_device, self.images, launches.tiles, self.V,
                    RUNNING=running is not None, **self.reduction,
                )  # fmt: skip
        return moments

    def pool(self, tile_moments: Tensor) -> None:
        """Compute the pools of the state."""
        begin, layout = 0, self.layout
        for pool, _ in self.launches.pools:
            count = self.images * pool["h"] * pool["w"] * layout.C
            tiles.pool[(self.tiles_of(pool["h"] * pool["w"]),)](
                self.x, self.saved[pool["y"] :], self.argmax[begin:] if pool["maximum"] else self.argmax, tile_moments,
                pool["norm"], self.images, self.launches.tiles, self.V, layout.H, layout.W, pool["h"], pool["w"],
                pool["K"], pool["s"], pool["p"], K=pool["K"], MAXIMUM=bool(pool["maximum"]), **self.state,
            )  # fmt: skip
            begin += count if pool["maximum"] else 0

    def node_sum(self, outputs: Sequence[Tensor], accumulate: Sequence[bool]) -> None:
        """Write, or (``accumulate``) add, the sum at each target."""
        for targets, ends, ranges in self.launches.sums:
            out = [outputs[t] for t in targets]
            channels = out[0].shape[-1]
            pixels = out[0].numel() // channels
            tiles.node_sum[ceil_div(pixels, self.launches.pixels), len(out)](
                self.x, self.saved, self.vectors, *out, *([out[0]] * (tiles.TARGETS - len(out))), ends.on_device,
                ranges.on_device, pixels, self.V, sum(accumulate[t] << bit for bit, t in enumerate(targets)),
                C=channels, A=self.launches.align, BC=padded(channels), **self.tile,
            )  # fmt: skip

    # ------------------------------------------------------------------ backward

    def backward(self, grads: Tensor, weights: bool, state: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of the coefficients, of the state (``state``) and of the parameters (``weights``).

        ``grads`` begins with the gradients of the sums at targets; the rest is memory for those inside of chains.
        """
        launches, layout, x = self.launches, self.layout, self.x
        all_used = len(launches.last_norms) == len(self.coefficients)
        buffers = Grads(
            grads,
            x.new_empty(launches.conv_grads),
            (x.new_zeros if launches.affine else x.new_empty)(launches.chunks if weights else 1, len(self.packed)),
            x.new_empty(2, launches.tiles, self.V),
            (torch.empty_like if all_used else torch.zeros_like)(self.coefficients),
            weights,
        )
        dx = torch.empty_like(x) if state else None
        dx_parts = x.new_empty(launches.dx_parts if state else 0, x.numel())
        phases: Tensor | None = None
        most = max(math.prod(layout.outputs[t][1:3]) for t in launches.alive)
        for channels, ends in launches.ends:
            tiles.grad_sums[self.tiles_of(most), len(ends)](
                x, self.saved, self.vectors, grads, buffers.tile_sums, ends.on_device, self.images, launches.tiles,
                self.V, C=channels, A=launches.align, BC=padded(channels), **self.tile,
            )  # fmt: skip
        self.norm_grads(launches.last_norms, buffers)
        begun = 0
        for depth in reversed(range(layout.depth if state or weights else 0)):
            if depth < layout.depth - 1:
                self.norm_grads(launches.inner_norms[depth], buffers)
            for group in launches.groups[depth]:
                source = self.input_of(group)
                self.norm_backward(group, source, buffers, depth > 0)
                if weights:
                    self.weight_grad(group, source, buffers, depth > 0)
                if depth:
                    self.input_grad(group, buffers)
                elif state and group.kind.phases:
                    part = torch.empty_like(source)
                    self.state_grads(group, buffers, part)
                    part = torch.where(source <= 0, 0.0, part)
                    phases = part if phases is None else phases + part
                elif state:
                    self.state_grads(group, buffers, dx_parts[begun:])
                    begun += len(group.ranges)
        if dx is not None:
            self.state_grad(grads, dx, phases, dx_parts)
        if not weights:
            return buffers.coefficients, dx, None
        count = len(self.packed)
        grad_params = torch.empty_like(self.packed)
        if count:
            chunks = len(buffers.packed)
            tiles.unpack_grads[ceil_div(launches.longest_span, 64), len(launches.spans)](
                buffers.packed, grad_params, launches.spans.on_device, count, chunks, R=min(64, power_of_two(chunks)),
                B=64,
            )  # fmt: skip
        return buffers.coefficients, dx, grad_params

    def norm_backward(self, group: Group, source: Tensor, buffers: Grads, inner: bool) -> None:
        """Compute the gradients before the normalisations of a group's steps; behind a depthwise convolution also those
        before and of the pointwise one."""
        launches, table = self.launches, group.table.on_device
        if not group.kind.K:
            tiles.norm_backward[group.tiles, group.count, group.blocks[1]](
                self.saved, self.vectors, buffers.grads, buffers.conv_grads, table, self.images, self.V,
                **self.constants(group, "O", "BO"),
            )  # fmt: skip
            return
        weights, warps = buffers.weights, _warps(group)
        chunks, length = (launches.chunks, group.weight_length) if weights else (group.tiles, group.length)
        tiles.pointwise_backward[chunks, group.count](
            source, self.saved, self.packed, self.vectors, buffers.grads, buffers.conv_grads, buffers.packed, table,
            self.images, chunks, len(self.packed), length, self.V,
            **self.constants(group, "K", "T", "C", "O", "BC", "BO", "PRECISION"), B=_split(group, warps), INNER=inner,
            WEIGHTS=weights, num_warps=warps,
        )  # fmt: skip

    def weight_grad(self, group: Group, source: Tensor, buffers: Grads, inner: bool) -> None:
        """Compute the weight gradients of a group's full or depthwise convolutions."""
        launches, count, table = self.launches, len(self.packed), group.table.on_device
        chunks, length = launches.chunks, group.weight_length
        if not group.kind.K:
            warps = WARPS["conv_weight_grad"]
            constants = self.constants(group, "C", "O", "BC", "BO", "PRECISION") | {"BP": group.columns}
            for side, begin, steps in group.sides:
                tiles.conv_weight_grad[chunks, steps, side * math.prod(group.blocks)](
                    source, self.saved, self.vectors, buffers.conv_grads, buffers.packed,
                    table[begin * len(tiles.COLUMNS) :], self.images, chunks, count, length, self.V, K=side,
                    INNER=inner, B=_split(group, warps), num_warps=warps, **constants,
                )  # fmt: skip
            return
        tiles.depthwise_weight_grad[chunks, group.count, group.kind.K](
            source, self.saved, self.vectors, buffers.conv_grads, buffers.packed, table, self.images, chunks, count,
            length, self.V, **self.constants(group, "K", "T", "C", "BC"), INNER=inner, num_warps=4,
        )  # fmt: skip

    def input_grad(self, group: Group, buffers: Grads) -> None:
        """Compute the gradients after the normalisations that a group's steps read."""
        launches = self.launches
        arguments = (
            self.saved, self.packed, self.vectors, buffers.conv_grads, buffers.grads, buffers.tile_sums,
            group.table.on_device, self.images, launches.tiles,
        )  # fmt: skip
        if group.kind.K:
            tiles.depthwise_input_grad[group.input_tiles, group.count](
                *arguments, group.input_length, self.V, **self.constants(group, "K", "C", "BC"), num_warps=4
            )
        else:
            tiles.conv_input_grad[group.input_tiles, group.count, group.blocks[0]](
                *arguments, self.V, **self.constants(group, "C", "O", "BC", "BO", "DENSE", "PRECISION"),
                num_warps=WARPS["conv_input_grad"],
            )  # fmt: skip

    def state_grads(self, group: Group, buffers: Grads, dx_parts: Tensor) -> None:
        """Compute the input gradients of the first steps of chains, summed over each range of a group."""
        grid = (group.input_tiles, len(group.ranges))
        arguments = (self.packed, buffers.conv_grads, dx_parts, group.table.on_device)
        size = self.images, group.H, group.W
        if group.kind.K and group.kind.stride == 1:
            tiles.depthwise_state_grad[grid](
                *arguments, group.range_table.on_device, *size, group.input_length,
                **self.constants(group, "K", "C", "BC"), num_warps=4,
            )  # fmt: skip
        elif group.kind.K:
            tiles.strided_state_grad[grid](
                *arguments, group.count, *size, group.kind.stride, **self.constants(group, "K", "C", "BC")
            )
        else:
            tiles.conv_state_grad[(*grid, group.blocks[0])](
                *arguments, group.count, *size, **self.constants(group, "C", "O", "BC", "BO", "DENSE", "PRECISION"),
                num_warps=WARPS["conv_input_grad"],
            )  # fmt: skip

    def norm_grads(self, norms: Table, buffers: Grads) -> None:
        """Reduce the gradient sums of all tiles."""
        if len(norms):
            tiles.norm_grads[(len(norms),)](
                buffers.tile_sums, self.packed, buffers.packed, self.coefficients, buffers.coefficients,
                self.moments64, self.vectors, norms.on_device, self.images, self.launches.tiles, self.V,
                **self.reduction,
            )  # fmt: skip

    def state_grad(self, grads: Tensor, dx: Tensor, phases: Tensor | None, dx_parts: Tensor) -> None:
        """Write the gradient of the state: from chains (``dx_parts`` and ``phases``), skips and pools."""
        launches, layout, x = self.launches, self.layout, self.x
        tiles.state_grad[(self.tiles_of(layout.H * layout.W),)](
            x, self.vectors, grads, dx, dx_parts, launches.skips.on_device, len(launches.skips),
            self.images * layout.H * layout.W, self.V, len(dx_parts), A=launches.align, **self.state,
        )  # fmt: skip
        if phases is not None:
            dx[:, ::2, ::2] += phases[..., : layout.C]
            dx[:, 1::2, 1::2] += phases[:, : layout.H // 2, : layout.W // 2, layout.C :]
        begin = 0
        for pool, ends in launches.pools:
            pixels = pool["h"] * pool["w"]
            count = self.images * pixels * layout.C
            if len(ends):
                e = x.new_empty(count)
                tiles.pool_output_grad[(self.tiles_of(pixels),)](
                    self.saved, self.vectors, grads, e, ends.on_device, len(ends), self.images * pixels, self.V,
                    A=launches.align, **self.state,
                )  # fmt: skip
                tiles.pool_backward[(self.tiles_of(layout.H * layout.W),)](
                    e, self.argmax[begin:] if pool["maximum"] else self.argmax, dx, self.images, layout.H, layout.W,
                    pool["h"], pool["w"], pool["K"], pool["s"], pool["p"], K=pool["K"], DENSE=pool["s"] == 1,
                    MAXIMUM=bool(pool["maximum"]), **self.state,
                )  # fmt: skip
            begin += count if pool["maximum"] else 0


def _warps(group: Group) -> int:
    """Return the warps of a program of a walk with matrix products."""
    return WARPS["separable_forward"] if group.pixels >= 64 else 4


def _split(group: Group, warps: int) -> int:
    """Return the number of partial sums of a product over pixels: one for each warp where it is small."""
    return warps if group.BC * group.BO == 256 and group.columns >= 16 * warps else 1
