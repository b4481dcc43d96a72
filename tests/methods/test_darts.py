"""DARTS by hand: arXiv 1806.09055."""

import math

import pytest
import torch

from gapless.core.plan import Released, Stage
from gapless.core.progress import Progress
from gapless.methods.darts import DARTS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged

SPACE = Darts(size=8, width=4, cells=3)
NOW = Progress()


def with_alpha(space, rows: list[list[float]], **settings) -> DARTS:
    method = DARTS(space, **settings).double()
    with torch.no_grad():
        method.alpha.zero_()
        for i, row in enumerate(rows):
            method.alpha[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return method


def test_a_row_is_a_softmax():
    rows = [[math.log(1), math.log(2), math.log(5)], [0.0, math.log(3), 0.0]]
    method = with_alpha(NASBench201(), rows)
    with torch.no_grad():
        method.alpha[:, 3:] = -torch.inf  # two decisions of three options
    expected = torch.tensor([[1 / 8, 2 / 8, 5 / 8], [1 / 5, 3 / 5, 1 / 5]], dtype=torch.float64)
    torch.testing.assert_close(method.mix(NOW).weight[:2, :3].detach(), expected, rtol=0, atol=1e-15)


def test_the_gradient_of_a_row_by_hand():
    """d/d alpha_o of g . p is p_o * (g_o - g . p)."""
    method = with_alpha(NASBench201(), [[math.log(1), math.log(2), math.log(5), -50.0, -50.0]])
    g = torch.zeros(NASBench201().shape, dtype=torch.float64)
    g[0, :3] = torch.tensor([8.0, 16.0, 24.0])
    method.mix(NOW).backward({"weight": g})
    mean = (8 + 2 * 16 + 5 * 24) / 8
    expected = [1 / 8 * (8 - mean), 2 / 8 * (16 - mean), 5 / 8 * (24 - mean)]
    assert method.alpha.grad[0, :3].tolist() == pytest.approx(expected, abs=1e-12)
    assert not method.alpha.grad[1:].any()


def test_equal_alphas_are_uniform():
    weight = with_alpha(SPACE, []).mix(NOW).weight
    assert torch.equal(weight, torch.full(SPACE.shape, 1 / 8, dtype=torch.float64))


def test_a_constant_on_a_row_changes_nothing():
    """Of mix, scores and genotype."""
    method = DARTS(SPACE).double()
    mix, arch = method.mix(NOW).weight.detach(), SPACE.decode(method.scores())
    with torch.no_grad():
        method.alpha += torch.linspace(-3, 3, SPACE.shape[0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(method.mix(NOW).weight.detach(), mix, rtol=0, atol=1e-15)
    assert SPACE.decode(method.scores()) == arch


def test_none_takes_mass_and_thereby_strength():
    """Two edges with the same odds between their operations; the one with less mass on none is the stronger."""
    rows = [[0.0] * 8 for _ in range(28)]
    for source, none in ((0, 3.0), (1, 0.0), (2, 2.0)):
        rows[2 + source] = [none, 1.0, 0, 0, 0, 0, 0, 0]
    arch = SPACE.decode(with_alpha(SPACE, rows).scores())
    assert {name for name in arch if name.startswith("normal:3")} == {"normal:3<-1", "normal:3<-2"}


def test_the_start_is_small_and_random():
    torch.manual_seed(0)
    alpha = DARTS(SPACE).alpha
    assert alpha.shape == (28, 8)
    assert float(alpha.detach().std()) == pytest.approx(1e-3, rel=0.2)


def test_what_is_pruned_or_does_not_exist_has_no_share():
    method = DARTS(Ragged())
    assert torch.equal(method.mix(NOW).weight[2], torch.tensor([1.0, 0, 0, 0]))
    method.narrow(Stage(keep=2))
    weight = method.mix(NOW).weight
    assert ((weight > 0).sum(dim=1) <= 2).all()
    torch.testing.assert_close(weight.sum(dim=1), torch.ones(9))


@pytest.mark.parametrize(
    ("settings", "coupling", "virtual"),
    [
        ({}, "alternate", "plain"),
        ({"unrolled": True}, "unrolled", "plain"),
        ({"unrolled": True, "faithful": True}, "unrolled", "momentum"),
    ],
)
def test_the_plan(settings, coupling, virtual):
    plan = DARTS(SPACE, **settings).plan
    assert (plan.coupling, plan.released.virtual, plan.order, plan.warmup_epochs, plan.arch_clip) == (
        coupling,
        virtual,
        "arch_first",
        0,
        None,
    )
    assert (plan.arch.lr, plan.arch.betas, plan.arch.decay) == (3e-4, (0.5, 0.999), 1e-3)


def test_what_the_papers_code_uses():
    train = DARTS.setting("darts").train
    assert (train.epochs, train.batch, train.lr, train.lr_min, train.momentum, train.weight_decay, train.clip) == (
        50,
        64,
        0.025,
        0.001,
        0.9,
        3e-4,
        5.0,
    )
    assert train.arch_share == 0.5
    assert DARTS.setting("nasbench201").train.epochs == 100


@pytest.mark.parametrize(
    ("space", "clip_over"), [(NASBench201(), "weights+arch"), (Darts(), "weights"), (Ragged(), "weights")]
)
def test_what_the_released_code_adds(space, clip_over):
    assert DARTS(space, faithful=True).plan.released == Released(clip_over=clip_over, virtual="momentum")
    assert DARTS(space).plan.released == Released()
