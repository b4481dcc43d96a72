"""Fans of every form that a cell can hold, and laws of every backend, which is compared with the plain one."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.progress import stream
from gapless.core.tensors import nchw, nhwc
from gapless.kernels import plain
from gapless.kernels.forms import Chain, Form, Pointwise, Pool, Route, Skip, Spatial, Step, Window


def pairs(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return few combinations of factors in which every pair of values of two factors occurs (pairwise testing)."""
    columns = list(itertools.combinations(range(len(factors)), 2))
    rows = list(itertools.product(*factors))
    left = {(i, j, row[i], row[j]) for row in rows for i, j in columns}
    chosen = []
    while left:
        new = [{(i, j, row[i], row[j]) for i, j in columns} & left for row in rows]
        best = max(range(len(rows)), key=lambda number: len(new[number]))
        chosen.append(rows[best])
        left -= new[best]
    return chosen


def drawn(*shape: int, name: str = "", dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=stream("compiled", name)).to(dtype).requires_grad_()


def separable(kernel: int, stride: int, affine: bool, dilation: int = 1) -> Chain:
    padding = dilation * (kernel - 1) // 2
    first = Step(Window(stride, padding, dilation), Pointwise(), affine, 1e-5)
    second = Step(Window(1, (kernel - 1) // 2), Pointwise(), affine, 1e-5)
    return Chain((first,) if dilation > 1 else (first, second))


def everything(stride: int, affine: bool) -> list[tuple[Form, list[int]]]:
    """Every form that a cell can hold at a stride, with the kernels of its convolutions, depthwise and full by turns."""
    forms: list[tuple[Form, list[int]]] = [
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
    return [*forms, (Chain((Step(None, Pointwise(), affine, 1e-5),), split_phases=True), [1])]


def parameters_of(form: Form, sizes: list[int], channels: int, out: int, dtype) -> list[Tensor]:
    if isinstance(form, Pool):
        return [drawn(channels, name=n, dtype=dtype) for n in ("scale", "shift")] if form.affine else []
    found, left = [], iter(sizes)
    width = channels * (2 if isinstance(form, Chain) and form.split_phases else 1)
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
    for fan in (plain.fan, ours.fan):
        out, moments = fan(routes, c, x, [a if a is None else a.clone() for a in arrived], parameters)
        towards = [drawn(*o.shape, name=f"towards {i}").detach().to(o) for i, o in enumerate(out)]
        total = sum((o * t).sum() for o, t in zip(out, towards, strict=True))
        leaves = [x, c, *(a for a in arrived if a is not None), *parameters]
        found.append([*out, *(v for pair in moments for v in pair), *torch.autograd.grad(total, leaves)])
    return found


def agree(found: list[list[Tensor]], law: float) -> None:
    for i, (theirs, ours) in enumerate(zip(*found, strict=True)):
        off, scale = (theirs - ours).abs().max(), theirs.abs().max()
        assert theirs.shape == ours.shape
        assert off <= law * scale, f"number {i} is off by {off:.1e}, the largest entry is {scale:.1e}"


def mixed(
    stride: int, affine: bool, images: int, height: int, width: int, channels: int, dtype=torch.float64, by_turns=False
):
    """All forms to two targets at once (``by_turns``: each form to one of them), one of which something has arrived at:
    routes, state, what arrived, parameters."""
    routes, parameters = [], []
    for target, (number, (form, sizes)) in itertools.product(range(2), enumerate(everything(stride, affine))):
        if by_turns and number % 2 != target:
            continue
        routes.append(Route(target, form))
        parameters += parameters_of(form, sizes, channels, channels, dtype)
    x = drawn(images, height, width, channels, name="x", dtype=dtype)
    there = drawn(images, -(-height // stride), -(-width // stride), channels, name="arrived", dtype=dtype)
    return routes, x, [there, None], parameters


# ---------------------------------------------------------------------- laws of every implementation


def first_of_equal_pixels(ours) -> None:
    """The first of equal pixels takes the gradient of a maximum, as in PyTorch, also for whole plains of equal pixels,
    which a ReLU makes."""
    x = drawn(2, 7, 8, 4, name="x").detach().mul(2).round().requires_grad_()
    pool = Pool(True, 3, Window(2, 1))
    (found,), _ = ours.fan([Route(0, pool)], torch.ones(1, dtype=x.dtype), x, [None], [])
    theirs = nhwc(F.max_pool2d(nchw(x), 3, 2, 1))
    towards = drawn(*found.shape, name="towards").detach()
    (a,), (b,) = (torch.autograd.grad((y * towards).sum(), x) for y in (found, theirs))
    assert torch.equal(found, theirs)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def visible(ours, form: Form, sizes: list[int], at: tuple[int, int]) -> None:
    """A NaN in the state reaches every output that it reaches in PyTorch: a search must see that it diverged."""
    x = drawn(2, 5, 6, 4, name="x").detach()
    x[1, at[0], at[1]] = torch.nan
    given, ones = parameters_of(form, sizes, 4, 4, torch.float64), torch.ones(1, dtype=x.dtype)
    (found,), _ = ours.fan([Route(0, form)], ones, x, [None], given)
    (theirs,), _ = plain.fan([Route(0, form)], ones, x, [None], given)
    assert torch.equal(found.isnan(), theirs.isnan()), form


def wanted_only(ours, forms: list[tuple[Form, list[int]]], frozen: str) -> None:
    """Gradients that nobody wants (``weights``, ``state`` or ``both``) are not asked for, and the others are right."""
    routes = [Route(0, form) for form, _ in forms]
    parameters = [p for form, sizes in forms for p in parameters_of(form, sizes, 4, 4, torch.float64)]
    x, c = drawn(3, 6, 6, 4, name="x"), drawn(len(routes), name="c")
    x.requires_grad_(frozen == "weights")
    for p in parameters:
        p.requires_grad_(frozen == "state")
    wanted = [t for t in (c, x, *parameters) if t.requires_grad]
    grads = []
    for fan in (plain.fan, ours.fan):
        (out,), _ = fan(routes, c, x, [None], parameters)
        grads.append(torch.autograd.grad(out.sin().sum(), wanted))
    agree([list(g) for g in grads], 1e-12)


def dead_ends(ours) -> None:
    """A node that leads nowhere: weights before it get no gradient, not one of zero, which would decay them."""
    form, sizes = everything(1, True)[0]
    routes = [Route(0, form), Route(1, form), Route(1, Skip()), Route(0, Pool(True, 3, Window(1, 1), 1e-5, True))]
    given = [parameters_of(form, sizes, 8, 8, torch.float64) for _ in range(2)]
    flat = [*given[0], *given[1], *parameters_of(routes[3].form, [], 8, 8, torch.float64)]
    x, c, found = drawn(3, 6, 6, 8, name="x"), drawn(4, name="c"), []
    for fan in (plain.fan, ours.fan):
        (_, out), _ = fan(routes, c, x, [None, drawn(3, 6, 6, 8, name="before") * 1], flat)
        found.append(torch.autograd.grad(out.sin().sum(), [x, c, *flat], allow_unused=True))
    assert [g is None for g in found[0]] == [g is None for g in found[1]]
    assert sum(g is None for g in found[1]) == len(given[0]) + 2
    agree([[g for g in grads if g is not None] for grads in found], 1e-12)


def twice(ours) -> None:
    """Nothing that is kept for the backward pass is spoiled by it, or by another fan that ran in between."""
    form, sizes = everything(1, True)[0]
    x, c, given = drawn(2, 6, 6, 8, name="x"), drawn(1, name="c"), parameters_of(form, sizes, 8, 8, torch.float64)
    (out,), _ = ours.fan([Route(0, form)], c, x, [None], given)
    once = torch.autograd.grad(out.sin().sum(), [x, c, *given], retain_graph=True)
    ours.fan([Route(0, form)], 2 * c, x + 1, [None], given)[0][0].sum().backward()
    for one, other in zip(once, torch.autograd.grad(out.sin().sum(), [x, c, *given]), strict=True):
        assert torch.equal(one, other)


def other_widths(ours) -> None:
    """A chain may change the number of channels."""
    step = Chain((Step(None, Pointwise(), True, 1e-5), Step(None, Spatial(Window(1, 1)), False, 1e-5)))
    vectors = [drawn(8, name=name) for name in ("scale", "shift")]
    given = [drawn(8, 16, 1, 1, name="first"), *vectors, drawn(8, 8, 3, 3, name="w")]
    agree(both(ours, [Route(0, step)], drawn(2, 6, 5, 16, name="x"), [None], given), 1e-12)
