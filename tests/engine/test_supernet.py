"""The supernet: how a mix weighs options, by hand."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from gapless.core.cell import CellModule
from gapless.core.mix import Mix
from gapless.core.progress import Progress, seeded, stream
from gapless.engine.supernet import MixedEdge, Supernet
from gapless.methods.dropnas import DropNAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged
from gapless.testing.spaces import images, options, some_mixes, supernet_of

SPACE = NASBench201(size=8, width=4, cells=1)
COLUMNS = SPACE.decisions[0].options


def soft(space, seed: int = 0, n: int | None = None) -> Tensor:
    shape = space.shape if n is None else (n, *space.shape)
    return torch.rand(shape, dtype=torch.float64, generator=stream("soft", seed)) * space.legal


def first_edge(supernet: Supernet) -> MixedEdge:
    return next(m for m in supernet.modules() if isinstance(m, MixedEdge))


def run(edge: MixedEdge, mix: Mix, x: Tensor) -> Tensor | None:
    edge.router.set(mix)
    return edge(x)


def test_an_edge_is_the_weighted_sum_of_its_options():
    edge = first_edge(supernet_of(SPACE).eval())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    weight = torch.zeros(SPACE.shape, dtype=torch.float64)
    weight[0] = torch.tensor([0.5, 2.0, -1.0, 0.0, 3.0])
    skip, point, conv, pool = (edge[o](x) for o in COLUMNS[1:])
    assert torch.equal(run(edge, Mix(weight), x), 2.0 * skip + -1.0 * point + 0.0 * conv + 3.0 * pool)
    active = ((1, 4), *((),) * 5)
    assert torch.equal(run(edge, Mix(weight, active), x), 2.0 * skip + 3.0 * pool)


def test_mass_on_none_contributes_nothing():
    """Weights are not renormalised."""
    edge = first_edge(supernet_of(SPACE))
    weight = torch.zeros(SPACE.shape, dtype=torch.float64)
    weight[0, 0] = 1.0
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert not run(edge, Mix(weight), x).any()
    assert torch.equal(run(edge, Mix(weight, ((0,), *((),) * 5)), x), torch.zeros_like(x))


def test_an_absent_decision_adds_nothing():
    edge = first_edge(supernet_of(SPACE))
    assert run(edge, Mix(torch.ones(SPACE.shape), ((),) * 6), torch.ones(1, 4, 2, 2)) is None


def test_gain_and_offset_by_hand():
    edge = first_edge(supernet_of(SPACE).eval())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    weight = soft(SPACE)
    plain = run(edge, Mix(weight), x)
    gain, offset = torch.arange(2.0, 8.0, dtype=torch.float64), torch.arange(0.5, 6.0, dtype=torch.float64)
    assert torch.equal(run(edge, Mix(weight, gain=gain), x), 2 * plain)
    assert torch.equal(run(edge, Mix(weight, offset=offset), x), plain + 0.5)
    assert torch.equal(run(edge, Mix(weight, gain=gain, offset=offset), x), 2 * plain + 0.5)


def test_a_gain_covers_the_channels_that_bypass_the_operations():
    """PC-DARTS weighs the whole edge: mixture and bypass."""
    edge = first_edge(supernet_of(SPACE.replace(partial=2)).eval())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    weight, gain = soft(SPACE), torch.full((6,), 3.0, dtype=torch.float64)
    out = run(edge, Mix(weight, gain=gain), x)
    assert torch.equal(out[:, 1::2], 3 * x[:, 2:])
    assert torch.equal(out, 3 * run(edge, Mix(weight), x))


def test_a_uniform_gain_over_the_edges_of_a_node_divides_its_value():
    """As in PC-DARTS: with all channels and equal edge parameters a node is that of DARTS over its number of edges."""
    supernet = supernet_of(SPACE).eval()
    body = next(m for m in supernet.modules() if isinstance(m, CellModule))
    x, weight = torch.randn(2, 4, 5, 5, dtype=torch.float64), soft(SPACE)
    into = torch.tensor([1.0, 2, 2, 3, 3, 3], dtype=torch.float64)
    outs = []
    for gain in (None, 1 / into):
        supernet.router.set(Mix(weight, ((), (), (), (0, 1, 2, 3, 4), (), ()), gain=gain))
        outs.append(body(x))
    torch.testing.assert_close(outs[1], outs[0] / 3)


def test_gradients_of_gain_and_offset():
    supernet, x = supernet_of(SPACE).eval(), images(SPACE)
    mix = Mix(soft(SPACE), gain=torch.ones(6, dtype=torch.float64), offset=torch.zeros(6, dtype=torch.float64))
    assert torch.equal(supernet(x, mix), supernet(x, Mix(mix.weight)))
    leaves = mix.leaves()
    supernet(x, leaves).square().sum().backward()
    found = leaves.gradient()
    assert set(found) == {"weight", "gain", "offset"}
    assert all(g.any() for g in found.values())
    torch.testing.assert_close(
        found["gain"], (found["weight"] * mix.weight).sum(dim=1)
    )  # d/d gain = weight . d/d weight at gain 1


# ---------------------------------------------------------------------- a mix per image


@pytest.mark.parametrize("space", [SPACE, SPACE.replace(partial=2), Ragged()], ids=["nasbench201", "partial", "ragged"])
def test_each_image_can_have_a_mix_of_its_own(space):
    supernet, x = supernet_of(space).eval(), images(space)
    weight = soft(space, n=4)
    together = supernet(x, Mix(weight))
    apart = torch.cat([supernet(x[i : i + 1], Mix(weight[i])) for i in range(4)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)


def test_equal_mixes_per_image_are_one_mix():
    supernet, x = supernet_of(SPACE).train(), images(SPACE)
    one = Mix(soft(SPACE)).leaves()
    many = Mix(one.weight.detach().expand(4, -1, -1)).leaves()
    torch.testing.assert_close(supernet(x, many), supernet(x, one), rtol=1e-12, atol=1e-12)
    supernet(x, many).square().sum().backward()
    supernet(x, one).square().sum().backward()
    assert many.weight.grad.shape == (4, *SPACE.shape)
    torch.testing.assert_close(many.weight.grad.sum(dim=0), one.weight.grad)


# ---------------------------------------------------------------------- the whole


def test_a_supernet_needs_a_mix_of_its_shape():
    supernet, x = supernet_of(SPACE), images(SPACE)
    with pytest.raises(ValueError, match=r"of shape \(5, 6\); the space has \(D, O\) = \(6, 5\)"):
        supernet(x, Mix(torch.ones(5, 6)))
    with pytest.raises(RuntimeError, match=r"supernet\(images, mix\)"):
        supernet.network(x)


def test_a_failed_pass_leaves_no_mix_behind():
    supernet = supernet_of(SPACE)
    with pytest.raises(RuntimeError):
        supernet(torch.zeros(1, 5, 8, 8, dtype=torch.float64), Mix(soft(SPACE)))
    assert supernet.router.mix is None


def test_a_free_site_cannot_be_absent():
    space = Ragged()
    mix = Mix(space.legal.double(), active=((), *(tuple(row.nonzero().flatten().tolist()) for row in space.legal[1:])))
    with pytest.raises(ValueError, match="'first' cannot be absent"):
        supernet_of(space)(images(space), mix)


def test_one_mask_serves_all_cells_of_a_kind():
    """As in DropNAS: the same options run in both reduction cells, others in the normal cell."""
    space = Darts(size=8, width=4, cells=3, options="1-skip")
    supernet = supernet_of(space).eval()
    called: dict[str, Counter] = {}
    for path, row, column, module in options(supernet):
        _, _, cell, *_ = path.split(".")
        module.register_forward_hook(
            lambda *_, c=cell, key=(row, column): called.setdefault(c, Counter()).update([key])
        )
    with seeded("mask"):
        method = DropNAS(space, rate_weights=0.2, rate_free=0.2).double()
    with torch.no_grad():
        supernet(images(space), method.mix(Progress()))
    normal, first, second = (called[str(i)] for i in range(3))
    assert first == second
    assert {(row - 14, column) for row, column in first} != set(normal)
    assert set(first.values()) == {1}


def test_heirs_have_weights_type_and_mode():
    supernet = supernet_of(SPACE).eval()
    arch = SPACE.sample(stream(1))
    child = supernet.inherit(arch)
    assert not child.training
    weights = supernet.network.state_dict()
    for name, value in child.state_dict().items():
        assert torch.equal(value, weights[name])
        assert value.data_ptr() != weights[name].data_ptr()
    assert next(child.parameters()).dtype == torch.float64
    assert supernet.train().inherit(arch).training


def test_options_keep_the_order_of_columns():
    edge = first_edge(supernet_of(SPACE))
    assert list(edge) == list(COLUMNS)
    assert isinstance(edge, nn.ModuleDict)


@pytest.mark.parametrize("execution", ["fused", pytest.param("reference", marks=pytest.mark.full)])
@pytest.mark.parametrize("number", [0, 4])
@pytest.mark.parametrize("options", ["darts", "s4"])
def test_recomputed_cells_are_the_same_cells(execution, number, options):
    """Activation checkpointing changes no number, noise included, and statistics move once."""
    space = Darts(size=16, width=4, cells=3, options=options)
    mix, x, found = some_mixes(space)[number], images(space), []
    for recompute in (False, True):
        supernet = supernet_of(space, execution).train()
        supernet.recompute = recompute
        leaves = mix.leaves()
        torch.manual_seed(0)
        for _ in range(2):
            supernet(x, leaves).square().sum().backward()
        found.append((leaves.weight.grad, *(p.grad for p in supernet.parameters()), *supernet.buffers()))
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
        assert one is None or not one.isnan().any()


def test_recomputed_cells_keep_their_inputs_only():
    """The tensors that the graph keeps hold a fraction of the numbers."""
    space, kept = Darts(size=16, width=8, cells=4), []
    for recompute in (False, True):
        supernet = Supernet(space, recompute=recompute).train()
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor, seen=seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            supernet(images(space).float(), some_mixes(space)[0].to(dtype=torch.float32))
        kept.append(sum(seen.values()))
    assert kept[1] < kept[0] / 4
