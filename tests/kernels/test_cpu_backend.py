"""The compiled loops beside their plain twin, finite differences, and what PyTorch's operators do in odd cases."""

from unittest import mock

import fans
import pytest
import torch
from fans import agree, both, drawn, everything, mixed, parameters_of, separable
from torch import Tensor

from gapless.kernels import plain
from gapless.kernels.cpu import backend as compiled
from gapless.kernels.cpu import declare
from gapless.kernels.cpu.memory import COUNTS, Memory, memory_of
from gapless.kernels.forms import Chain, Pointwise, Pool, Route, Skip, Spatial, Step, Window
from gapless.kernels.layout import Layout, layout_of


@pytest.mark.parametrize(
    ("images", "height", "width", "channels", "stride", "threads"),
    [(3, 8, 8, 16, 1, 2), (5, 16, 17, 4, 2, 2), (2, 9, 7, 8, 1, 1), (1, 5, 5, 32, 2, 2), (3, 9, 11, 16, 2, 1)],
)
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_a_fan_of_everything(images, height, width, channels, stride, threads, affine):
    """All forms to two targets at once, one of which something has arrived at, against the plain twin."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(both(compiled, *mixed(stride, affine, images, height, width, channels)), 1e-12)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("form", "sizes"), everything(1, True), ids=str)
def test_each_form_alone_in_single_precision(form, sizes):
    x = drawn(3, 16, 16, 16, name="x", dtype=torch.float32)
    agree(both(compiled, [Route(0, form)], x, [None], parameters_of(form, sizes, 16, 16, torch.float32)), 3e-5)


@pytest.mark.parametrize("frozen", ["nothing", "weights", "state"])
@pytest.mark.parametrize(
    ("images", "height", "width", "padding"),
    [
        (7, 18, 12, 1),
        (2, 2, 40, 1),
        (3, 2, 2, 1),
        (70, 4, 4, 1),
        (2, 6, 6, 0),
        (2, 6, 6, 2),
        (2, 6, 5, 1),
        (2, 5, 6, 1),
    ],
)
def test_3x3_convolutions_of_all_sides(images, height, width, padding, frozen):
    """Even sides go by minimal filtering: several rows of patches at a time with some left over, one wide row, one
    patch, sums over several images. Other sides and paddings do not, and both stand beside each other in a chain."""
    kept, other = (Step(None, Spatial(Window(1, p)), True, 1e-5) for p in (1, padding))
    forms = [Chain((other,)), Chain((other, kept)), Chain((kept, other))]
    routes = [Route(at % 2, form) for at, form in enumerate([*forms, forms[0]])]
    parameters = [p for r in routes for p in parameters_of(r.form, [3, 3], 8, 8, torch.float64)]
    made = memory_of(layout_of(tuple(routes), (images, height, width, 8), tuple(p.shape for p in parameters)))
    assert bool(made.steps["winograd"].any()) is (height % 2 == 0 and width % 2 == 0)
    x = drawn(images, height, width, 8, name="x").requires_grad_(frozen != "state")
    for p in parameters:
        p.requires_grad_(frozen != "weights")
    c = torch.linspace(-0.5, 1, len(routes), dtype=x.dtype).requires_grad_()
    found = []
    for fan in (plain.fan, compiled.fan):
        out, moments = fan(routes, c, x, [None, None], parameters)
        wanted = [t for t in (c, x, *parameters) if t.requires_grad]
        grads = torch.autograd.grad(sum(o.sin().sum() for o in out), wanted)
        found.append([*out, *(v for pair in moments for v in pair), *grads])
    agree(found, 1e-11)


@pytest.mark.parametrize("live", ["nothing else", "a skip", "another convolution", "a chain"])
def test_3x3_convolutions_that_lead_nowhere(live):
    """What no gradient comes to is left out on the way back, also where none of them is left."""
    conv = Step(None, Spatial(Window(1, 1)), True, 1e-5)
    other = {"a skip": Skip(), "another convolution": Chain((conv,)), "a chain": Chain((conv, conv))}
    forms = [Chain((conv,)), Chain((conv, conv)), *([other[live]] if live in other else [])]
    routes = [Route(int(at > 1), form) for at, form in enumerate(forms)]
    parameters = [p for r in routes for p in parameters_of(r.form, [3, 3], 8, 8, torch.float64)]
    x, c = drawn(3, 6, 6, 8, name="x"), drawn(len(routes), name="c")
    found = []
    for fan in (plain.fan, compiled.fan):
        out, _ = fan(routes, c, x, [drawn(3, 6, 6, 8, name="before") * 1] + [None] * (live in other), parameters)
        total = out[-1].sin().sum() if live in other else (x * x).sum() + 0 * c.sum()
        found.append(torch.autograd.grad(total, [x, c, *parameters], allow_unused=True))
    assert [g is None for g in found[0]] == [g is None for g in found[1]]
    agree([[g for g in grads if g is not None] for grads in found], 1e-11)


def test_chains_may_change_the_number_of_channels():
    fans.other_widths(compiled)


def test_gradients_by_finite_differences():
    """The loops against the definition of a derivative, not against another kernel."""
    forms = everything(1, True)
    routes = [Route(i % 2, form) for i, (form, _) in enumerate(forms) if not isinstance(form, Pool) or not form.largest]
    chosen = [(form, sizes) for form, sizes in forms if not isinstance(form, Pool) or not form.largest]
    parameters = [p for form, sizes in chosen for p in parameters_of(form, sizes, 4, 4, torch.float64)]
    x, c = drawn(2, 4, 4, 4, name="x"), drawn(len(routes), name="c")

    def run(x: Tensor, c: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return compiled.fan(routes, c, x, [None, None], parameters)[0]

    assert torch.autograd.gradcheck(run, (x, c, *parameters), fast_mode=True)


# ---------------------------------------------------------------------- odd cases


def test_the_first_of_equal_pixels_takes_the_gradient_of_a_maximum():
    fans.first_of_equal_pixels(compiled)


@pytest.mark.parametrize("at", [0, 5])
def test_what_is_not_a_number_stays_visible(at):
    for form, sizes in everything(1, True):
        fans.visible(compiled, form, sizes, at=(at % 5, at % 6))


@pytest.mark.parametrize("frozen", ["weights", "state", "both"])
def test_gradients_that_nobody_wants_are_not_there(frozen):
    fans.wanted_only(compiled, everything(2, True), frozen)


def test_what_nothing_depends_on_has_no_gradient():
    fans.dead_ends(compiled)


def test_a_second_backward_pass_gives_the_same():
    fans.twice(compiled)


def test_what_arrived_is_added_to_in_place():
    """No memory for sums of sums: what a target received from earlier states is where the new sum goes."""
    x, before = drawn(2, 4, 4, 4, name="x").detach(), drawn(2, 4, 4, 4, name="before").detach()
    copy = before.clone()
    (out,), _ = compiled.fan([Route(0, Skip())], torch.full((1,), 0.5, dtype=x.dtype), x, [before], [])
    assert out.data_ptr() == before.data_ptr()
    torch.testing.assert_close(out, copy + 0.5 * x, rtol=0, atol=1e-15)


def test_what_is_not_served():
    """Odd channels, half precision and what has no loop go to the plain kernels."""
    x = drawn(2, 4, 4, 4, name="x")
    skip = [Route(0, Skip())]
    assert compiled.serves(skip, x, [])
    assert not compiled.serves(skip, x[..., :3], [])
    assert not compiled.serves(skip, x.bfloat16(), [])
    assert not compiled.serves(skip, x.to("meta"), [])
    late = Chain((Step(None, Pointwise(), False, 1e-5), Step(None, Spatial(Window(2, 1)), False, 1e-5)))
    assert not compiled.serves([Route(0, late)], x, [])
    mixed = Chain((Step(Window(1, 1), Spatial(Window(1, 1)), False, 1e-5),))
    assert not compiled.serves([Route(0, mixed)], x, [])


# ---------------------------------------------------------------------- layouts


def test_a_layout_is_made_once():
    routes = (Route(0, Skip()), Route(1, Pool(False, 3, Window(1, 1), 1e-5)))
    first = layout_of(routes, (2, 4, 4, 8), ())
    assert layout_of(tuple(Route(r.target, r.form) for r in routes), (2, 4, 4, 8), ()) is first
    assert first.outputs == {0: (2, 4, 4, 8), 1: (2, 4, 4, 8)}
    assert first.slices == [(8, 8)]
    assert first.lengths["saved"] == 2 * 4 * 4 * 8


def test_alike_pools_are_pooled_once():
    """To whatever targets they lead, and however they are normalised."""
    pool = Pool(True, 3, Window(1, 1))
    routes = [Route(t, p) for t in range(3) for p in (pool, Pool(True, 3, Window(1, 1), 1e-5, True))]
    made = Layout(routes, (2, 4, 4, 8), [(8,)] * 6)
    assert len(made.pools) == 1
    assert made.lengths["saved"] == 2 * 4 * 4 * 8


def test_memory_kept_is_one_image_for_each_normalisation():
    """A separable convolution keeps what its two normalisations read; not what its ReLUs and depthwise ones write."""
    made = Layout([Route(0, separable(3, 1, True))], (2, 8, 8, 16), [s.shape for s in parameters_of(
        separable(3, 1, True), [3, 1, 3, 1], 16, 16, torch.float32)])  # fmt: skip
    assert made.lengths["saved"] == 2 * (2 * 8 * 8 * 16)


def test_vectors_divide_the_channels(monkeypatch):
    monkeypatch.setattr("gapless.kernels.cpu.memory.COUNTS", COUNTS)
    for channels in (4, 8, 12, 16, 20, 24, 32, 48):
        memory = Memory(Layout([Route(0, Skip())], (1, 2, 2, channels), []))
        for dtype in (torch.float32, torch.float64):
            count = memory.vectors[dtype].count
            assert channels % count == 0
            assert all(channels % longer for longer in COUNTS if longer > count)


def test_without_a_cache_functions_are_compiled_all_the_same():
    """As in a container whose file system cannot be written."""

    def njit(function, *, cache=False, **how):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function, how

    with mock.patch("gapless.kernels.cpu.declare.njit", njit):
        found, how = declare.compiled(len)
    assert found is len
    assert how["nogil"]
