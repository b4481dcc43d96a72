"""DrNAS by hand: arXiv 2006.10355."""

import math
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from gapless.core.errors import UserError
from gapless.core.plan import Released, Stage
from gapless.core.progress import Progress, seeded, stream
from gapless.methods.drnas import DrNAS, dirichlet, divergence
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet
from gapless.testing.examples import Ragged

SPACE = NASBench201(size=8, width=8, cells=1)
NOW = Progress(seed=1)
ALPHA = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, -3.0]], dtype=torch.float64)
C = torch.tensor([[1.5, math.exp(-1), 3.0], [1.0, 1.0, math.exp(-3)]], dtype=torch.float64)
EVERY = torch.ones(2, 3, dtype=torch.bool)


def drawn(c: Tensor, alive: Tensor, n: int) -> Tensor:
    """Draw [n, D, O]."""
    one = dirichlet(
        c.expand(n, *c.shape).reshape(-1, c.shape[-1]),
        alive.expand(n, *c.shape).reshape(-1, c.shape[-1]),
        stream("draw"),
    )
    return one.view(n, *c.shape)


def with_alpha(rows: Tensor, **settings) -> DrNAS:
    method = DrNAS(SPACE, **settings).double()
    with torch.no_grad():
        method.alpha.zero_()
        method.alpha[: rows.shape[0], : rows.shape[1]] = rows
    return method


# ---------------------------------------------------------------------- concentration and its anchor


def test_the_concentration_by_hand():
    found = with_alpha(ALPHA).concentration()
    torch.testing.assert_close(found[:2, :3].detach(), C, rtol=0, atol=1e-15)
    assert torch.equal(found[2:], torch.ones(4, 5, dtype=torch.float64))  # alpha = 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_concentration_is_positive_everywhere(dtype):
    method = DrNAS(SPACE).to(dtype)
    with torch.no_grad():
        method.alpha.copy_(torch.linspace(-1000, 1000, 30).view(6, 5))
    c = method.concentration()
    assert (c > 0).all()
    assert torch.isfinite(c).all()
    assert torch.isfinite(method.mix(NOW).weight).all()


def test_the_divergence_is_zero_at_the_anchor_and_positive_elsewhere():
    assert divergence(torch.ones(2, 3), EVERY).tolist() == [0, 0]
    assert (divergence(C, EVERY) > 0).all()


def test_the_divergence_is_that_of_each_row():
    """Not one Dirichlet over all rows, as a known re-implementation has it."""
    expected = kl_divergence(Dirichlet(C), Dirichlet(torch.ones_like(C)))
    torch.testing.assert_close(divergence(C, EVERY), expected, rtol=0, atol=1e-13)
    joint = kl_divergence(Dirichlet(C.flatten()), Dirichlet(torch.ones(6, dtype=torch.float64)))
    assert abs(float(divergence(C, EVERY).sum() - joint)) > 0.1


def test_the_divergence_counts_living_options_only():
    alive = torch.tensor([[True, False, True], [True, True, True]])
    c = torch.where(alive, C, torch.ones_like(C))
    pair = Dirichlet(C[0, [0, 2]])
    expected = kl_divergence(pair, Dirichlet(torch.ones(2, dtype=torch.float64)))
    assert float(divergence(c, alive)[0]) == pytest.approx(float(expected), abs=1e-13)
    lone = torch.tensor([[False, False, True]])
    assert divergence(torch.tensor([[1.0, 1.0, 3.0]]), lone).tolist() == [0]


def test_the_penalty():
    method = with_alpha(ALPHA, regulariser="kl", anchor=0.5)
    ones = torch.ones(2, 2, dtype=torch.float64)  # columns 3 and 4 of the two rows have c = 1, but change c_0
    wide = torch.cat([C, ones], dim=1)
    expected = 0.5 * kl_divergence(Dirichlet(wide), Dirichlet(torch.ones_like(wide))).sum()
    assert float(method.penalty(NOW).detach()) == pytest.approx(float(expected), abs=1e-13)
    assert with_alpha(ALPHA).penalty(NOW) is None


def test_decay_and_penalty_stand_for_one_another():
    assert DrNAS(SPACE).plan.arch.decay == 1e-3
    assert DrNAS(SPACE, regulariser="kl").plan.arch.decay == 0
    assert DrNAS(SPACE, anchor=0.25).plan.arch.decay == 0.25


# ---------------------------------------------------------------------- draws


def test_mean_and_variance_of_the_draw():
    """200 000 draws: E p = m = c / c_0, Var p = m (1 - m) / (c_0 + 1), to 2e-3."""
    p = drawn(C, EVERY, 200_000)
    total = C.sum(dim=1, keepdim=True)
    m = C / total
    torch.testing.assert_close(p.mean(dim=0), m, rtol=0, atol=2e-3)
    torch.testing.assert_close(p.var(dim=0), m * (1 - m) / (total + 1), rtol=0, atol=2e-3)
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(200_000, 2, dtype=torch.float64))


def test_with_options_pruned_the_others_are_a_dirichlet_of_their_own():
    """Neutrality: draw over all columns, zero some, renormalise, and it is Dirichlet(c_M)."""
    alive = torch.tensor([[True, False, True], [True, True, False]])
    p = drawn(torch.where(alive, C, torch.ones_like(C)), alive, 200_000)
    assert not p[:, ~alive].any()
    reference = Dirichlet(C)
    with seeded("reference"):
        q = reference.sample((200_000,)) * alive
    q = q / q.sum(dim=-1, keepdim=True)
    total = (C * alive).sum(dim=1, keepdim=True)
    m = C * alive / total
    for sample in (p, q):
        torch.testing.assert_close(sample.mean(dim=0), m, rtol=0, atol=2e-3)
        torch.testing.assert_close(sample.var(dim=0), m * (1 - m) / (total + 1), rtol=0, atol=2e-3)


def test_the_pathwise_gradient_is_that_of_rsample():
    """At one and the same point of the simplex, for one upstream gradient."""
    g = torch.tensor([[1.0, -2.0, 0.5], [0.3, 4.0, -1.0]], dtype=torch.float64)
    ours, theirs = C.clone().requires_grad_(), C.clone().requires_grad_()
    p = dirichlet(ours, EVERY, stream("same"))
    with mock.patch.object(torch, "_sample_dirichlet", return_value=p.detach().clone()):
        q = Dirichlet(theirs).rsample()
    assert torch.equal(p, q)
    p.backward(g)
    q.backward(g)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-14)


def test_the_pathwise_gradient_averages_to_the_gradient_of_the_mean():
    """For a linear loss E[g . p] = g . m, of which the derivative by c is (g - g . m) / c_0."""
    g = torch.tensor([[1.0, -2.0, 0.5], [0.3, 4.0, -1.0]], dtype=torch.float64)
    n = 200_000
    c = C.clone().requires_grad_()
    (drawn(c, EVERY, n) * g).sum().div(n).backward()
    total = C.sum(dim=1, keepdim=True)
    expected = (g - (g * C / total).sum(dim=1, keepdim=True)) / total
    torch.testing.assert_close(c.grad, expected, rtol=0, atol=5e-3)


def test_pruned_options_get_no_gradient_and_the_others_that_of_their_own_draw():
    alive = torch.tensor([[True, False, True], [True, True, False]])
    g = torch.tensor([[1.0, 100.0, 0.5], [0.3, 4.0, 100.0]], dtype=torch.float64)
    n = 200_000
    c = torch.where(alive, C, torch.ones_like(C)).requires_grad_()
    p = dirichlet(c.expand(n, 2, 3).reshape(-1, 3), alive.expand(n, 2, 3).reshape(-1, 3), stream("masked")).view(
        n, 2, 3
    )
    (p * g).sum().div(n).backward()
    assert not c.grad[~alive].any()
    total = (C * alive).sum(dim=1, keepdim=True)
    expected = (g - (g * C * alive / total).sum(dim=1, keepdim=True)) / total * alive
    torch.testing.assert_close(c.grad, expected, rtol=0, atol=5e-3)


def test_one_option_left_is_certain_and_has_no_gradient():
    c = C.clone().requires_grad_()
    alive = torch.tensor([[False, True, False], [True, False, False]])
    p = dirichlet(c, alive, stream("one"))
    assert torch.equal(p, alive.double())
    p.sum().backward()
    assert not c.grad.any()


def test_a_large_concentration_draws_its_mean():
    """With m held equal to a softmax row, c to infinity is DARTS."""
    row = torch.tensor([[0.2, -0.4, 1.0]], dtype=torch.float64).softmax(dim=-1)
    spread = [float((drawn(scale * row, EVERY[:1], 2000) - row).abs().max()) for scale in (1e2, 1e4, 1e8)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3


# ---------------------------------------------------------------------- the method


def test_training_draws_and_evaluation_takes_the_mean():
    method = with_alpha(ALPHA)
    torch.testing.assert_close(
        method.mix(NOW.at("judge")).weight[1], torch.cat([C[1], torch.ones(2, dtype=torch.float64)]) / (C[1].sum() + 2)
    )
    assert not torch.equal(method.mix(NOW).weight, method.mix(NOW.at("arch")).weight)
    faithful = with_alpha(ALPHA, faithful=True)
    assert not torch.equal(faithful.mix(NOW.at("judge")).weight, faithful.mean())
    assert torch.equal(method.mix(NOW).weight, faithful.mix(NOW).weight)


def test_one_draw_serves_all_cells_of_a_kind():
    """The mix is [D, O]: the normal and the reduction cell have rows of their own, all cells of a kind share them."""
    space = Darts(size=8, width=4, cells=3, options="drnas")
    weight = DrNAS(space).mix(NOW).weight
    assert weight.shape == (28, 7)
    assert not torch.equal(weight[:14], weight[14:])


def test_two_ways_to_read_off_agree_on_the_option_and_may_rank_edges_otherwise():
    with seeded("rank"):
        alpha = 0.3 * torch.randn(4000, 7, dtype=torch.float64)
    c = torch.nn.functional.elu(alpha) + 1
    softmax, mean = alpha.softmax(dim=-1), c / c.sum(dim=-1, keepdim=True)
    assert torch.equal(softmax.argmax(dim=-1), mean.argmax(dim=-1))
    one, other = softmax.amax(dim=-1).view(2, -1), mean.amax(dim=-1).view(2, -1)
    differ = ((one[0] > one[1]) != (other[0] > other[1])).double().mean()
    assert float(differ) == pytest.approx(0.05, abs=0.03)


def test_reading_off():
    method, other = with_alpha(ALPHA), with_alpha(ALPHA, read="mean")
    torch.testing.assert_close(method.scores(), method.alpha.softmax(dim=-1))
    assert torch.equal(other.scores(), other.mean())


def test_pruning_keeps_the_top_alphas_and_zeroes_the_others():
    """Kept options are those of the largest alpha, masks only shrink."""
    with seeded("prune"):
        method = DrNAS(Ragged())
        method.alpha.data.normal_()
    before = method.alpha.detach().clone()
    for keep in (3, 2):
        alive = method.alive.clone()
        method.narrow(Stage(keep=keep))
        assert (alive | ~method.alive).all()
        for row in range(9):
            order = before[row].masked_fill(~alive[row], -torch.inf).argsort(descending=True)[:keep]
            wanted = {int(i) for i in order if alive[row, i]}
            assert set(method.active[row]) == wanted
        assert not method.alpha[~method.alive].any()
        assert torch.equal(method.alpha[method.alive], before[method.alive])


@pytest.mark.parametrize(
    ("space", "stages"),
    [(Darts(options="drnas", width=36), [(0.5, None, 6), (0.5, 4, 4)]), (NASBench201(), [(0.5, None, 4), (0.5, 3, 2)])],
    ids=["darts", "nasbench201"],
)
def test_the_stages_of_progressive_learning(space, stages):
    plan = DrNAS(space, progressive=True).plan
    assert [(s.share, s.keep, s.space["partial"]) for s in plan.stages] == stages
    assert plan.warmup_epochs == 10
    assert DrNAS(space).plan.stages == (Stage(),)
    assert DrNAS(space).plan.warmup_epochs == 0


def test_stages_of_ones_own():
    """The ImageNet setting of the released code: partial channels 6 then 3, seven options then four."""
    space = Darts(options="drnas", width=48)
    stages = DrNAS(space, progressive=True, partials=(6, 3)).plan.stages
    assert [(s.share, s.keep, s.space) for s in stages] == [(0.5, None, {"partial": 6}), (0.5, 4, {"partial": 3})]
    stages = DrNAS(space, progressive=True, keep=(2,)).plan.stages
    assert [(s.keep, s.space["partial"]) for s in stages] == [(None, 6), (2, 4)]
    plan = DrNAS(space, progressive=True, partials=(6, 3, 3, 1), keep=(5, 4, 2), warmup=1).plan
    assert [(s.keep, s.space["partial"]) for s in plan.stages] == [(None, 6), (5, 3), (4, 3), (2, 1)]
    assert plan.stage_epochs(8) == (2, 2, 2, 2)
    plan = DrNAS(space, progressive=True, partials=(6,), keep=(), warmup=0, arch_lr=0.0).plan
    assert [(s.share, s.keep, s.space) for s in plan.stages] == [(1.0, None, {"partial": 6})]
    assert (plan.warmup_epochs, plan.arch.lr) == (0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partials": (6, 3)}, "set `progressive`, too"),
        ({"keep": (3,)}, "set `progressive`, too"),
        ({"progressive": True, "partials": ()}, "`partials` must be at least one number"),
        ({"progressive": True, "keep": ()}, "`keep` must be 1 numbers, .*; got 0"),
        ({"progressive": True, "partials": (6, 3, 1)}, "`keep` must be 2 numbers, .*; got 1"),
        ({"progressive": True, "partials": (6,)}, "`keep` must be 0 numbers, .*; got 1"),
        ({"progressive": True, "keep": (4, 2)}, "`keep` must be 1 numbers, .*; got 2"),
        ({"progressive": True, "partials": (3, 6)}, r"`partials` must be .*; got \[3, 6\]"),
        ({"progressive": True, "partials": (6, 0)}, "`partials` must each be at least 1; got 0 in 6 0"),
        ({"progressive": True, "partials": (6, 3, 1), "keep": (2, 4)}, r"`keep` must be .*; got \[2, 4\]"),
        ({"progressive": True, "keep": (0,)}, "`keep` must each be at least 1; got 0 in 0"),
        ({"progressive": True, "partials": (6, 5)}, "`width` cannot be split into `partial` parts; got 36 and 5"),
        ({"warmup": -1}, "`warmup` must be at least 0; got -1"),
        ({"arch_clip": -1.0}, "`arch_clip` must be at least 0; got -1"),
    ],
)
def test_stages_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        DrNAS(Darts(options="drnas", width=36), **settings)


def test_a_space_without_partial_channels_is_named():
    with pytest.raises(UserError, match="widens partial channels from stage to stage, and this space has none"):
        DrNAS(ShuffleNet(), progressive=True)


def test_the_clip_of_alphas_gradient():
    assert DrNAS(SPACE).plan.arch_clip is None
    assert DrNAS(SPACE, arch_clip=5.0).plan.arch_clip == 5.0


def test_what_the_papers_code_uses():
    darts, bench = Darts(options="drnas"), NASBench201()
    assert (DrNAS(darts).plan.arch.lr, DrNAS(bench).plan.arch.lr) == (6e-4, 3e-4)
    train = DrNAS.setting("darts").train
    assert (train.epochs, train.lr, train.lr_min, train.batch, train.clip) == (50, 0.1, 0.0, 64, 5.0)
    train = DrNAS.setting("nasbench201").train
    assert (train.epochs, train.lr, train.lr_min) == (100, 0.025, 0.001)
    restart = Released(lr_after_stage="restart")
    assert DrNAS(bench, faithful=True).plan.released == replace(restart, clip_over="weights+arch")
    assert DrNAS(darts, faithful=True).plan.released == DrNAS(Ragged(), faithful=True).plan.released == restart
    assert DrNAS(bench).plan.released == Released()
