"""Fans of all that a cell can hold, and how an implementation of them is compared with its plain twin."""

import itertools

import torch
from torch import Tensor

from gapless.core.progress import stream
from gapless.engine import kernels
from gapless.engine.kernels import Chain, Pointwise, Pool, Route, Skip, Spatial, Step, Window


def drawn(*shape: int, name: str = "", dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=stream("compiled", name)).to(dtype).requires_grad_()


def separable(kernel: int, stride: int, affine: bool, dilation: int = 1) -> Chain:
    padding = dilation * (kernel - 1) // 2
    first = Step(Window(stride, padding, dilation), Pointwise(), affine, 1e-5)
    second = Step(Window(1, (kernel - 1) // 2), Pointwise(), affine, 1e-5)
    return Chain((first,) if dilation > 1 else (first, second))


def everything(stride: int, affine: bool) -> list[tuple[Skip | Pool | Chain, list[int]]]:
    """Every form that a cell can hold at a stride, with the kernels of its convolutions, depthwise and full by turns."""
    forms: list[tuple[Skip | Pool | Chain, list[int]]] = [
        (separable(3, stride, affine), [3, 1, 3, 1]),
        (separable(5, stride, affine), [5, 1, 5, 1]),
        (separable(7, stride, affine), [7, 1, 7, 1]),
        (separable(3, stride, affine, 2), [3, 1]),
        (separable(5, stride, affine, 2), [5, 1]),
        (Chain((Step(None, Spatial(Window(stride, 1)), affine, 1e-5),)), [3]),
        (Chain((Step(None, Spatial(Window(stride, 1)), affine, 1e-5), Step(None, Spatial(Window(1, 1)), True, 1e-3))), [3, 3]),
    ]  # fmt: skip
    norms = ((None, False), (1e-5, False), (1e-5, True))
    forms += [(Pool(big, 3, Window(stride, 1), *norm), []) for big in (True, False) for norm in norms]
    if stride == 1:
        return [*forms, (Skip(), []), (Chain((Step(None, Pointwise(), affine, 1e-5),)), [1])]
    return [*forms, (Chain((Step(None, Pointwise(), affine, 1e-5),), halves=True), [1])]


def parameters_of(form: Skip | Pool | Chain, sizes: list[int], channels: int, out: int, dtype) -> list[Tensor]:
    if isinstance(form, Pool):
        return [drawn(channels, name=n, dtype=dtype) for n in ("scale", "shift")] if form.affine else []
    found, left = [], iter(sizes)
    width = channels * (2 if isinstance(form, Chain) and form.halves else 1)
    for at, step in enumerate(form.steps if isinstance(form, Chain) else ()):
        if step.window is not None:
            k = next(left)
            found.append(drawn(width, 1, k, k, name=f"deep {at} {k}", dtype=dtype))
        k = next(left)
        found.append(drawn(out, width, k, k, name=f"wide {at} {k}", dtype=dtype))
        width = out
        found += [drawn(out, name=f"{n} {at}", dtype=dtype) for n in ("scale", "shift")] if step.affine else []
    return found


def both(ours, routes, x: Tensor, arrived, parameters) -> list[list[Tensor]]:
    """Outputs, moments and gradients of the plain kernels and of the module ``ours``."""
    c = torch.linspace(-0.5, 1, len(routes), dtype=x.dtype).requires_grad_()
    assert ours.serves(routes, x, parameters)
    found = []
    for fan in (kernels.fan, ours.fan):
        out, moments = fan(routes, c, x, [a if a is None else a.clone() for a in arrived], parameters)
        towards = [drawn(*o.shape, name=f"towards {i}").detach().to(o) for i, o in enumerate(out)]
        total = sum((o * t).sum() for o, t in zip(out, towards, strict=True))
        leaves = [x, c, *(a for a in arrived if a is not None), *parameters]
        found.append([*out, *(v for pair in moments for v in pair), *torch.autograd.grad(total, leaves)])
    return found


def agree(found: list[list[Tensor]], law: float) -> None:
    for i, (plain, ours) in enumerate(zip(*found, strict=True)):
        off, scale = (plain - ours).abs().max(), plain.abs().max()
        assert plain.shape == ours.shape
        assert off <= law * scale, f"number {i} is off by {off:.1e}, the largest entry is {scale:.1e}"


def mixed(stride: int, affine: bool, images: int, height: int, width: int, channels: int, dtype=torch.float64):
    """All forms to two targets at once, one of which something has arrived at: routes, state, what arrived, parameters."""
    routes, parameters = [], []
    for target, (form, sizes) in itertools.product(range(2), everything(stride, affine)):
        routes.append(Route(target, form))
        parameters += parameters_of(form, sizes, channels, channels, dtype)
    x = drawn(images, height, width, channels, name="x", dtype=dtype)
    there = drawn(images, -(-height // stride), -(-width // stride), channels, name="arrived", dtype=dtype)
    return routes, x, [there, None], parameters
