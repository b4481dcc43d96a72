"""The GPU backend, run by Triton's interpreter on a CPU, beside the plain backend and the reference execution.

What only a GPU can show stands in benchmarks/gpu_laws.py.
"""

import os
import re
import subprocess
import sys

import fans
import pytest
import torch
from fans import agree, both, drawn, everything, mixed, parameters_of
from torch import Tensor

from gapless.core.mix import Mix
from gapless.kernels import plain
from gapless.kernels.forms import Chain, Pointwise, Pool, Route, Skip, Spatial, Step, Window
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.spaces import images, some_mixes, supernet_of

pytest.importorskip("triton", reason="Triton, which compiles kernels for a GPU, is not installed")

from gapless.kernels.gpu import backend, launches

pytestmark = pytest.mark.needs_triton


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Walks as long as images are high: the interpreter is slow."""
    monkeypatch.setattr(launches, "PROGRAMS", 1)


@pytest.mark.parametrize(
    ("count", "height", "width", "channels", "stride", "affine"),
    [
        (2, 3, 5, 4, 2, True),
        *(pytest.param(*case, marks=pytest.mark.kernels) for case in ((2, 5, 7, 4, 2, True), (1, 3, 4, 16, 1, False))),
    ],
)
def test_a_fan_of_everything(count, height, width, channels, stride, affine):
    """All forms to two targets, one of which has a sum already, against the plain backend."""
    agree(both(backend, *mixed(stride, affine, count, height, width, channels, by_turns=True)), 1e-12)


@pytest.mark.kernels
def test_many_tiles():
    """More pixels than a tile holds, the last tile not full, and parts of gradients over several programs."""
    form, sizes = everything(1, True)[0]
    x = drawn(3, 10, 9, 16, name="x")
    routes = [Route(0, form), Route(0, Pool(True, 3, Window(1, 1), 1e-5, True)), Route(0, Skip())]
    given = [
        *parameters_of(form, sizes, 16, 16, torch.float64),
        *parameters_of(routes[1].form, [], 16, 16, torch.float64),
    ]
    agree(both(backend, routes, x, [None], given), 1e-12)


@pytest.mark.parametrize(
    ("stride", "number"),
    [
        (2, 3),
        *(pytest.param(*case, marks=pytest.mark.kernels) for case in ((1, 0), (1, 3), (2, 0))),
    ],
)
def test_walks_that_end_inside_of_an_image(stride, number, monkeypatch):
    """Several walks to a column, the last of them short or empty; sums in as many parts. What nobody has written is not
    a number."""
    monkeypatch.setattr(launches, "PROGRAMS", 1024)
    empty = Tensor.new_empty
    monkeypatch.setattr(
        Tensor,
        "new_empty",
        lambda x, *sides, **how: (y := empty(x, *sides, **how)).fill_(float("nan") if y.is_floating_point() else 0),
    )
    form, sizes = everything(stride, True)[number]
    given = [p for _ in range(2) for p in parameters_of(form, sizes, 4, 4, torch.float64)]
    agree(both(backend, [Route(0, form), Route(1, form)], drawn(1, 9, 5, 4, name="x"), [None, None], given), 1e-12)


@pytest.mark.kernels
def test_channels_come_in_blocks():
    """More than one block of input channels, of output channels, of both; in convolutions of one and of nine pixels."""
    steps = [
        Step(None, Pointwise(), True, 1e-5),
        Step(None, Spatial(Window(1, 1)), True, 1e-5),
        Step(None, Spatial(Window(1, 1)), True, 1e-5),
    ]
    given = []
    for number, shape in enumerate([(68, 132, 1, 1), (4, 68, 3, 3), (68, 4, 3, 3)]):
        given += [
            drawn(*shape, name=f"w {number}"),
            *(drawn(shape[0], name=f"{n} {number}") for n in ("scale", "shift")),
        ]
    agree(both(backend, [Route(0, Chain(tuple(steps)))], drawn(2, 3, 4, 132, name="x"), [None], given), 1e-12)


def test_a_chain_in_single_precision():
    form, sizes = everything(1, True)[0]
    x = drawn(3, 16, 16, 16, name="x", dtype=torch.float32)
    agree(both(backend, [Route(0, form)], x, [None], parameters_of(form, sizes, 16, 16, torch.float32)), 3e-5)


def test_chains_may_change_the_number_of_channels():
    fans.other_widths(backend)


def test_the_first_of_equal_pixels_takes_the_gradient_of_a_maximum():
    fans.first_of_equal_pixels(backend)


@pytest.mark.parametrize("number", [0, 5, 7, 10])
def test_what_is_not_a_number_stays_visible(number):
    fans.visible(backend, *everything(1, True)[number], at=(2, 5))


@pytest.mark.parametrize("frozen", ["weights", "state", "both"])
def test_gradients_that_nobody_wants_are_not_there(frozen):
    fans.wanted_only(backend, [everything(2, True)[i] for i in (0, 5, 7, -1)], frozen)


def test_what_nothing_depends_on_has_no_gradient():
    fans.dead_ends(backend)


@pytest.mark.kernels
def test_a_second_backward_pass_gives_the_same():
    fans.twice(backend)


def test_a_new_mask_costs_one_copy(monkeypatch):
    """Masks are drawn anew in every step: all tables of a fan go to the device at once."""
    copied: list[Tensor] = []
    monkeypatch.setattr(launches, "to_device", lambda values, device: copied.append(values) or values.to(device))
    routes, x, _, parameters = mixed(1, True, 1, 4, 4, 4)
    made = backend.layout_of(tuple(routes), tuple(x.shape), tuple(tuple(p.shape) for p in parameters))
    found = launches.Launches(made, x.device, (), True)
    assert len(copied) == 1
    tables = (found.last_norms, found.skips, *found.norms, *(table for _, *two in found.sums for table in two))
    begins = [table.on_device.data_ptr() for table in tables]
    assert all((begin - copied[0].data_ptr()) % 16 == 0 for begin in begins)  # as kernels are compiled for


def test_what_is_not_served():
    """Half precision, wide images, channels not in fours, large kernels and long strides go to the plain kernels."""
    x, skip = drawn(2, 4, 4, 4, name="x"), [Route(0, Skip())]
    assert backend.serves(skip, x, [])
    assert not backend.serves(skip, x.bfloat16(), [])
    assert not backend.serves(skip, x.new_empty(2, 4, 4, backend.CHANNELS + 4), [])
    assert not backend.serves(skip, x.new_empty(2, 4, 4, 6), [])
    flat = Route(0, Chain((Step(None, Pointwise(), False, 1e-5),)))
    assert not backend.serves([flat], x, [x.new_empty(6, 4, 1, 1)])
    for stride, dilation, served in ((2, 1, True), (3, 1, False), (3, 3, True)):
        far = Route(0, Chain((Step(Window(stride, 1, dilation), Pointwise(), False, 1e-5),)))
        assert backend.serves([far], x, [x.new_empty(4, 1, 3, 3), x.new_empty(4, 4, 1, 1)]) == served
    wide = Chain((Step(Window(1, 4), Pointwise(), False, 1e-5),))
    assert not backend.serves([Route(0, wide)], x, [x.new_empty(4, 1, 9, 9), x.new_empty(4, 4, 1, 1)])
    broad = x.new_empty(2, 4, 4, backend.WHOLE + 4)
    assert not backend.serves([Route(0, wide)], broad, [broad.new_empty(132, 1, 3, 3), broad.new_empty(4, 132, 1, 1)])
    assert backend.serves([flat], broad, [broad.new_empty(4, 132, 1, 1)])


def test_a_compiled_loop_carries_every_output():
    """The interpreter runs what is written; the compiler examines one iteration of a loop to see what changes in it. For
    a column of a 5x5 kernel it must carry five sums and the gradients of the four outputs before."""
    found = subprocess.run(
        [sys.executable, "-c", COMPILED], env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr[-2000:]
    carried = [len(line.split(",")) for line in re.findall(r"scf\.for .*iter_args\((.*?)\)", found.stdout)]
    assert max(carried) == 5 + 4


COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gapless.kernels.gpu import tiles

kernel = tiles.depthwise_weight_grad
known = {"K": 5, "T": 1, "C": 16, "A": 16, "BP": 32, "BC": 16, "INNER": False}
pointers = dict.fromkeys(("x", "saved", "vectors", "conv_grads", "grad_packed"), "*fp32") | {"table": "*i64"}
kinds = {n: "constexpr" if n in known else pointers.get(n, "i32") for n in kernel.arg_names}
print(compile(ASTSource(kernel, kinds, known), target=GPUTarget("cuda", 90, 32)).asm["ttir"])
"""


# ---------------------------------------------------------------------- a whole supernet


SPACE = NASBench201(size=4, width=4, cells=1)


def use_triton(monkeypatch) -> None:
    """Choose backends as on a GPU."""
    monkeypatch.setattr("gapless.kernels.fan.backends", lambda device: (backend, plain))


@pytest.mark.parametrize(
    "number", [pytest.param(0, marks=pytest.mark.kernels, id="soft"), pytest.param(3, id="masked")]
)
def test_a_supernet_is_the_reference(number, monkeypatch):
    """Logits, gradients and running statistics, in float64."""
    use_triton(monkeypatch)
    x, mix, found = images(SPACE), some_mixes(SPACE)[number], []
    for execution in ("reference", "fused"):
        supernet = supernet_of(SPACE, execution).train()
        leaves = mix.leaves()
        logits = supernet(x, leaves)
        logits.square().sum().backward()
        grads = [p.grad for p in supernet.parameters()]
        found.append([logits, leaves.weight.grad, *grads, *(b for b in supernet.buffers() if b.dim())])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= 1e-10 * one.abs().max()


def test_a_judgement_by_the_moments_of_a_batch_is_its_pass():
    """All forms to two targets, one of which has a sum already, against the plain backend."""
    routes, x, arrived, parameters = mixed(2, True, 1, 5, 4, 4, by_turns=True)
    c = torch.linspace(-0.5, 1, len(routes), dtype=x.dtype)
    with torch.no_grad():
        out, moments = plain.fan(routes, c, x, [a if a is None else a.clone() for a in arrived], parameters)
        found = backend.judged(routes, c, x, [a if a is None else a.clone() for a in arrived], parameters, moments)
    agree([list(out), list(found)], 1e-12)


@pytest.mark.parametrize("served", [True, False])
def test_a_judgement_is_the_reference(served, monkeypatch):
    """By running statistics, also op by op where kernels do not serve; it moves nothing."""
    use_triton(monkeypatch)
    monkeypatch.setattr(backend, "serves", lambda *_: served)
    judged, called = [], backend.judged
    monkeypatch.setattr(backend, "judged", lambda *given: judged.append(given) or called(*given))
    x, mix, found = images(SPACE), some_mixes(SPACE)[0], []
    trained = supernet_of(SPACE, "reference").train()
    trained(x, mix)
    for execution in ("reference", "fused"):
        supernet = supernet_of(SPACE, execution)
        supernet.load_state_dict(trained.state_dict())
        supernet.eval()
        with torch.no_grad():
            found.append(supernet(x, mix))
        assert all(torch.equal(b, trained.state_dict()[name]) for name, b in supernet.state_dict().items())
        assert bool(judged) == (execution == "fused" and served)
    assert (found[0] - found[1]).abs().max() <= 1e-10 * found[0].abs().max()
    count = len(judged)
    assert supernet(x, mix).requires_grad  # gradients go edge by edge
    assert len(judged) == count


@pytest.mark.kernels
def test_rounding_is_that_of_the_reference(monkeypatch):
    """In float32, for images of mean / std 100, the error to the float64 truth is at most three times the reference's
    own."""
    use_triton(monkeypatch)
    x, errors = images(SPACE) + 100, {}

    def observed(execution: str, dtype: torch.dtype) -> list[Tensor]:
        supernet = supernet_of(SPACE, execution).to(dtype).train()
        leaves = Mix(some_mixes(SPACE)[0].weight.to(dtype)).leaves()
        y = supernet(x.to(dtype), leaves)
        y.square().sum().backward()
        weights = torch.cat([p.grad.flatten() for p in supernet.parameters() if p.grad is not None])
        return [y.detach().double(), leaves.weight.grad.double(), weights.double()]

    truth = observed("reference", torch.float64)
    for execution in ("reference", "fused"):
        errors[execution] = [
            float((a - b).norm() / b.norm()) for a, b in zip(observed(execution, torch.float32), truth, strict=True)
        ]
    for ours, theirs in zip(errors["fused"], errors["reference"], strict=True):
        assert ours <= 3 * theirs, errors
