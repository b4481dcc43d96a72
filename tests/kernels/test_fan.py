"""The fused execution beside the reference: rounding in float32, badly conditioned activations, what it falls back to.

That both agree in float64, for all spaces and mixes, is a law of the published suite (tests/spaces/test_laws.py).
"""

import statistics
import subprocess
import sys
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import AvgPool, Conv, Depthwise, Norm, NormRule, Op, OpModule, Relu
from gapless.core.progress import seeded, stream
from gapless.engine.judge import recalibrate, still
from gapless.engine.supernet import MixedCell, Supernet
from gapless.kernels import fan
from gapless.kernels.forms import Chain, Pointwise, Pool, Skip, Spatial, Window, fused_form
from gapless.ops.cells import OPS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged
from gapless.testing.spaces import images, some_mixes, supernet_of

SPACES = {
    "nasbench201": NASBench201(size=16, width=8, cells=1),
    "darts": Darts(size=8, width=8, cells=3),
    "darts-partial-4": Darts(size=8, width=8, cells=3, partial=4),
    "ragged": Ragged(size=16, affine=True),
}
BATCHES, N = 5, 16


def observed(space, execution: str, x: Tensor, mix: Mix) -> list[Tensor]:
    """Logits, gradients of the mix, gradients of all weights, running statistics: one vector each."""
    with seeded("float32"):
        supernet = Supernet(space, execution).to(x.dtype).train()
    leaves = mix.to(dtype=x.dtype).leaves()
    y = supernet(x, leaves)
    towards = torch.randn(y.shape, generator=stream("towards"), dtype=torch.float64).to(y)
    (y * towards).sum().backward()
    weights = torch.cat([p.grad.flatten() for p in supernet.parameters() if p.grad is not None])
    buffers = torch.cat([b.flatten() for b in supernet.buffers() if b.dim()])
    return [v.detach().double() for v in (y.flatten(), leaves.weight.grad.flatten(), weights, buffers)]


def spoiled(x: Tensor, how: str) -> Tensor:
    if how == "offset":  # mean / std = 100
        return x + 100
    if how == "rank one":  # all channels and places are multiples of one number per image, but for a hundredth
        return x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x) + 0.01 * x
    return x


HOWS = ("usual", "offset", "rank one")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=() if name in ("nasbench201", "ragged") else pytest.mark.full)
        for name in SPACES
        for how in HOWS
    ],
)
def test_rounding_is_that_of_the_reference(name, how):
    """In float32 the error to the float64 truth is at most three times the reference's own, in the median of batches."""
    space = SPACES[name]
    ratios: list[list[float]] = [[], [], [], []]
    for batch in range(BATCHES):
        generator = stream("rounding", batch)
        x = torch.randn(N, space.channels, space.size, space.size, dtype=torch.float64, generator=generator)
        x = spoiled(x, how).float()
        mix = Mix(torch.rand(space.shape, dtype=torch.float64, generator=generator) * space.legal)
        truth = observed(space, "reference", x.double(), mix)
        for ratio, true, reference, fused in zip(
            ratios, truth, observed(space, "reference", x, mix), observed(space, "fused", x, mix), strict=True
        ):
            ratio.append(float((fused - true).norm() / (reference - true).norm()))
    medians = [statistics.median(ratio) for ratio in ratios]
    assert max(medians) <= 3, dict(zip(("logits", "mix", "weights", "statistics"), medians, strict=True))


# ---------------------------------------------------------------------- what it does when


def test_forms_are_read_off_the_layers():
    rule = NormRule()
    assert fused_form(OPS["none"].build(4)).form is None
    assert fused_form(OPS["skip_connect"].build(4)).form == Skip()
    assert fused_form(OPS["max_pool_3x3"].build(4, stride=2)).form == Pool(True, 3, Window(2, 1))
    assert fused_form(Op((AvgPool(3), Norm())).build(4, norm=rule)).form == Pool(False, 3, Window(1, 1), 1e-5, True)
    separable, dilated = fused_form(OPS["sep_conv_3x3"].build(4, stride=2)), fused_form(OPS["dil_conv_5x5"].build(4))
    assert [step.window for step in separable.form.steps] == [Window(2, 1), Window(1, 1)]
    assert [step.linear for step in separable.form.steps] == [Pointwise()] * 2
    assert [step.window for step in dilated.form.steps] == [Window(1, 4, 2)]
    assert [step.linear for step in fused_form(OPS["nor_conv_3x3"].build(4)).form.steps] == [Spatial(Window(1, 1))]
    reduction = fused_form(OPS["skip_connect"].build(4, stride=2))
    assert isinstance(reduction.form, Chain)
    assert reduction.form.split_phases
    assert [p.shape for p in reduction.parameters] == [(4, 8, 1, 1), (4,), (4,)]
    for layers in ((Conv(3), Norm()), (Relu(), Conv(3)), (AvgPool(3), Relu()), (Relu(), Depthwise(3), Norm())):
        assert fused_form(Op(layers).build(4, norm=rule)) is None, layers


def test_an_operation_that_is_not_understood_is_called():
    """A space with an operation that no kernel knows gives the same in both executions."""
    strange = {**OPS, "sep_conv_3x3": Op((Conv(3), Relu(), AvgPool(3), Norm()))}
    with mock.patch("gapless.spaces.darts.find", lambda label: strange[label.partition("#")[0]]):
        space = Darts(size=8, width=4, cells=3)
        mix = some_mixes(space)[0]
        x, outs = images(space), []
        for execution in ("reference", "fused"):
            supernet = supernet_of(space, execution).train()
            called = []
            for module in supernet.modules():
                if isinstance(module, nn.ModuleDict) and "sep_conv_3x3" in module:
                    module["sep_conv_3x3"][0].register_forward_hook(lambda *_, called=called: called.append(1))
            outs.append(supernet(x, mix))
            assert len(called) == 3 * 14
    torch.testing.assert_close(*outs, rtol=1e-11, atol=1e-11)


def test_without_triton_a_gpu_uses_pytorch():
    """Every module of the GPU backend imports; only a launch asks for Triton."""
    program = """
import sys
sys.modules["triton"] = None
import torch
from gapless.kernels import fan, plain
from gapless.kernels.gpu import backend, launches, tiles
assert fan.backends(torch.device("cuda")) == (plain,)
try:
    tiles.node_sum[1, 1](0)
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "install the package triton" in result.stdout


@pytest.mark.parametrize("mode", ["evaluation", "a mix per image", "autocast"])
def test_what_the_kernels_do_not_do_runs_edge_by_edge(mode):
    space = SPACES["nasbench201"]
    x = images(space)
    weight = torch.rand(space.shape, dtype=torch.float64, generator=stream("weight"))
    mix = Mix(weight.expand(len(x), -1, -1) if mode == "a mix per image" else weight)
    outs = []
    for execution in ("reference", "fused"):
        supernet = supernet_of(space, execution).train(mode != "evaluation")
        with (
            mock.patch("gapless.engine.supernet.Fan", side_effect=AssertionError),
            torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"),
        ):
            outs.append(supernet(x, mix))
    torch.testing.assert_close(
        *outs, rtol=1e-2 if mode == "autocast" else 1e-11, atol=1e-2 if mode == "autocast" else 1e-11
    )


def test_statistics_rest_where_they_are_to():
    """Architecture passes without statistics, and recalibration with a cumulative mean, as edge by edge."""
    space = SPACES["nasbench201"]
    mix, x = some_mixes(space)[0], images(space)
    found = []
    for execution in ("reference", "fused"):
        supernet = supernet_of(space, execution).train()
        before = {name: b.clone() for name, b in supernet.named_buffers()}
        with still(supernet):
            supernet(x, mix).sum().backward()
        assert all(torch.equal(b, before[name]) for name, b in supernet.named_buffers())
        recalibrate(supernet, lambda images, s=supernet: s(images, mix), [x, 2 * x + 1, x.flip(0)])
        found.append(torch.cat([b.double().flatten() for b in supernet.buffers()]))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_one_set_of_parameters_serves_both():
    """The execution can be changed at any time; state dicts are the same."""
    space = SPACES["darts"]
    supernet, x, mix = supernet_of(space, "fused").train(), images(space), some_mixes(space)[0]
    assert list(supernet.state_dict()) == list(supernet_of(space, "reference").state_dict())
    first = supernet(x, mix)
    supernet.execution = "reference"
    torch.testing.assert_close(supernet(x, mix), first, rtol=1e-11, atol=1e-11)


def test_a_batch_of_another_layout_is_the_same_batch():
    space = SPACES["nasbench201"]
    supernet, x, mix = supernet_of(space, "fused").train(), images(space), some_mixes(space)[0]
    assert torch.equal(supernet(x, mix), supernet(x.contiguous(memory_format=torch.channels_last), mix))


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_dropped_options_are_neither_computed_nor_updated(name):
    """What a mask drops is no route of any fan, gets no gradient, and its statistics rest."""
    from gapless.kernels.cpu import backend as compiled

    space = SPACES[name]
    masked = next(m for m in some_mixes(space) if m.active is not None and any(len(a) == 1 for a in m.active))
    supernet = supernet_of(space, "fused").to(torch.float32).train()
    mix = masked.to(dtype=torch.float32)
    before = {key: buffer.clone() for key, buffer in supernet.named_buffers()}
    routes: list[int] = []

    def counting(given, *rest):
        routes.append(len(given))
        return fan(given, *rest)

    fan = compiled.fan
    with mock.patch("gapless.kernels.cpu.backend.fan", counting):
        supernet(images(space).float(), mix).sum().backward()
    cells = [m for m in supernet.modules() if isinstance(m, MixedCell)]
    outside = sum(1 for m in supernet.modules() if isinstance(m, OpModule) and m.runner is not None)
    assert (
        sum(routes)
        <= sum(
            sum(not op.zero for c in masked.active[edge.row] for op in [list(edge.values())[c]])
            for cell in cells
            for edge in cell.edges.values()
        )
        + outside
    )
    for cell in cells:
        for edge in cell.edges.values():
            for column, op in enumerate(edge.values()):
                if column not in masked.active[edge.row]:
                    assert all(p.grad is None for p in op.parameters())
                    for key, buffer in supernet.named_buffers():
                        if any(buffer is own for own in op.buffers()):
                            assert torch.equal(buffer, before[key]), key
                elif next(op.parameters(), None) is not None:
                    assert any(p.grad is not None for p in op.parameters())


@pytest.mark.parametrize("name", ["nasbench201", "darts-partial-4"])
def test_a_cell_in_which_nothing_runs_is_the_reference(name):
    space, found = SPACES[name], []
    mix = Mix(torch.zeros(space.shape, dtype=torch.float64), active=((),) * len(space.decisions))
    for execution in ("reference", "fused"):
        found.append(supernet_of(space, execution).double().train()(images(space, 2).double(), mix).detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-10 * float(found[0].abs().max()))


@pytest.mark.parametrize("name", SPACES)
def test_what_a_network_needs_is_compiled_before_its_first_fan(name, monkeypatch):
    """Vectors as long as the numbers of channels allow; what was not foreseen would be compiled in the middle of a step."""
    from gapless.kernels.cpu import memory

    foreseen, used = set(), set()
    usual, found = memory.vector_of, foreseen

    def recorded(dtype, *channels):
        if dtype == torch.empty(0).numpy().dtype:
            found.add(next(count for count in (16, 8, 4, 1) if not any(c % count for c in channels)))
        return usual(dtype, *channels)

    monkeypatch.setattr(memory, "vector_of", recorded)
    memory.memory_of.cache_clear()
    space = SPACES[name]
    supernet = supernet_of(space, "fused").float().train()
    supernet._prepared, prepared = True, supernet._fused_groups()
    fan.prepare(prepared, images(space).float())
    found = used
    supernet(images(space).float(), some_mixes(space)[0].to(dtype=torch.float32))
    assert used <= foreseen | {1}, "the longest vectors of a fan"
    assert used
