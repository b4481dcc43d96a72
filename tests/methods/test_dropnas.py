"""DropNAS by hand: arXiv 2201.11679."""

import math

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.method import Seen
from gapless.core.mix import Mix
from gapless.core.plan import Released, Stage
from gapless.core.progress import Progress, stream
from gapless.methods.dropnas import DropNAS, adjustment, groups, survivors
from gapless.spaces.darts import Darts
from gapless.testing.examples import Ragged

SPACE = Darts(size=8, width=4, cells=3, options="original")
WEIGHTS, FREE = range(4), range(4, 8)


def drop(rate: float, n: int) -> float:
    return rate ** (1 / n)


# ---------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    ("rate", "n", "q"), [(3e-5, 4, 0.07401), (1e-5, 4, 0.05623), (1e-4, 4, 0.1), (3e-5, 2, 0.00548)]
)
def test_the_probability_to_drop_one(rate, n, q):
    assert drop(rate, n) == pytest.approx(q, abs=5e-6)


def test_the_rate_of_keeping_by_formula():
    """A group is drawn again while all of it is dropped: P(keep) = (1 - q) / (1 - q ** 4)."""
    q = drop(3e-5, 4)
    keep = (1 - q) / (1 - q**4)
    assert keep == pytest.approx(0.92602, abs=5e-6)
    everything = ((1 - q) ** 4 / (1 - q**4)) ** 2
    assert everything == pytest.approx(0.5406, abs=5e-5)
    assert 1 - everything == pytest.approx(0.46, abs=5e-3)
    assert 8 * (1 - keep) == pytest.approx(0.592, abs=5e-4)


def test_the_rate_of_keeping_over_many_draws():
    """28 rows * 8 options * 600 draws: .9260 +- .002, alike in both groups and all columns."""
    method = DropNAS(SPACE)
    masks = torch.stack([method.draw(stream("mask", i)) for i in range(600)]).double()
    assert float(masks.mean()) == pytest.approx(0.9260, abs=2e-3)
    assert (masks.mean(dim=(0, 1)) - 0.9260).abs().max() < 5e-3
    assert float(masks.all(dim=-1).double().mean()) == pytest.approx(0.5406, abs=1e-2)


@pytest.mark.parametrize("rate", [3e-5, 0.5, 0.9])
def test_each_group_keeps_one(rate):
    method = DropNAS(SPACE, rate_weights=rate, rate_free=rate)
    for i in range(100):
        mask = method.draw(stream("mask", i))
        assert mask[:, WEIGHTS].any(dim=1).all()
        assert mask[:, FREE].any(dim=1).all()


def test_each_group_has_its_rate():
    method = DropNAS(SPACE, rate_weights=0.5, rate_free=0.0)
    masks = torch.stack([method.draw(stream("mask", i)) for i in range(200)])
    q = drop(0.5, 4)
    assert masks[..., FREE].all()
    assert float(masks[..., WEIGHTS].double().mean()) == pytest.approx((1 - q) / (1 - 0.5), abs=5e-3)


def test_survivors_are_drawn_again():
    counts = [int(survivors(2, 0.9, stream(i)).sum()) for i in range(500)]
    assert min(counts) == 1
    q = math.sqrt(0.9)
    assert sum(c == 2 for c in counts) / 500 == pytest.approx((1 - q) ** 2 / (1 - q * q), abs=0.03)


def test_groups_follow_the_space():
    found = groups(SPACE)
    assert found[0] == {"weights": list(WEIGHTS), "free": list(FREE)}
    ragged = groups(Ragged())
    assert ragged[1] == {}
    assert ragged[2] == {"weights": [0]}
    method = DropNAS(Ragged(), rate_weights=0.9, rate_free=0.9)
    masks = torch.stack([method.draw(stream(i)) for i in range(50)])
    assert masks[:, 1, :2].all()
    assert masks[:, 2, 0].all()
    assert not masks[:, ~Ragged().legal].any()


def test_the_pruned_are_not_drawn():
    method = DropNAS(SPACE, rate_weights=0.5, rate_free=0.5)
    method.narrow(Stage(keep=3))
    for i in range(20):
        assert (method.alive | ~method.draw(stream(i))).all()


def test_one_mask_for_a_step_and_another_for_the_other_cell():
    """A row of the mask serves all cells of a kind; normal and reduction cell have masks of their own."""
    method = DropNAS(SPACE, rate_weights=0.1, rate_free=0.1)
    mixes = [method.mix(Progress(step=i)) for i in range(50)]
    assert all(len(mix.active) == 28 for mix in mixes)
    assert any(mix.active[:14] != mix.active[14:] for mix in mixes)
    assert len({mix.active for mix in mixes}) == 50


def test_a_rate_is_a_probability():
    with pytest.raises(UserError, match="`rate_free` must be at least 0 and less than 1; got 1.0"):
        DropNAS(SPACE, rate_free=1.0)


# ---------------------------------------------------------------------- the mix


def test_nothing_is_dropped_at_rate_zero():
    method = DropNAS(SPACE, rate_weights=0, rate_free=0)
    mix = method.mix(Progress())
    assert mix.active == method.active
    assert torch.equal(mix.weight, method.alpha.softmax(dim=-1))


def test_what_is_kept_is_weighed_by_a_softmax_over_it():
    method = DropNAS(SPACE, rate_weights=0.5, rate_free=0.5).double()
    with torch.no_grad():
        method.alpha[0] = torch.arange(8.0).log1p()
    mix = method.mix(Progress(step=3))
    kept = list(mix.active[0])
    assert len(kept) < 8
    shares = torch.tensor([c + 1.0 for c in kept], dtype=torch.float64)
    torch.testing.assert_close(mix.weight[0, kept].detach(), shares / shares.sum())
    torch.testing.assert_close(mix.weight.sum(dim=1), torch.ones(28, dtype=torch.float64))
    mix.backward({"weight": torch.randn(28, 8, dtype=torch.float64)})
    mask = method.draw(Progress(step=3).stream("mask"))
    assert not method.alpha.grad[~mask].any()
    assert method.alpha.grad[mask].any()


def test_evaluation_and_warm_up_keep_everything():
    method = DropNAS(SPACE, rate_weights=0.5, rate_free=0.5, warmup=2)
    everything = tuple(tuple(range(8)) for _ in range(28))
    assert method.mix(Progress(stage_epoch=1)).active == everything
    assert method.mix(Progress(stage_epoch=2)).active != everything
    assert method.mix(Progress(stage_epoch=2).at("judge")).active == everything


# ---------------------------------------------------------------------- alpha-adjust

OLD = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64).log()
NEW = torch.tensor([[4.0, 4.0, 3.0], [2.0, 2.0, 2.0]], dtype=torch.float64).log()
KEPT = torch.tensor([[True, True, False], [True, True, True]])
ALIVE = torch.ones(2, 3, dtype=torch.bool)


def test_alpha_adjust_by_hand():
    """The kept mass was 1 + 2 = 3 and is 4 + 4 = 8: ln(3 / 8) is added to both. Nothing was dropped in the second
    row."""
    expected = torch.tensor([[math.log(3 / 8), math.log(3 / 8), 0], [0, 0, 0]], dtype=torch.float64)
    for as_coded in (False, True):
        torch.testing.assert_close(adjustment(OLD, NEW, KEPT, ALIVE, as_coded=as_coded), expected, rtol=0, atol=1e-15)


def test_alpha_adjust_leaves_the_dropped_where_they_were():
    torch.manual_seed(0)
    old = torch.randn(40, 6, dtype=torch.float64)
    kept = torch.rand(40, 6) < 0.7
    kept[:, 0] = True
    alive = torch.ones_like(kept)
    new = old + torch.where(kept, 0.1 * torch.randn_like(old), torch.zeros_like(old))
    after = new + adjustment(old, new, kept, alive)
    torch.testing.assert_close(
        (after.exp() * kept).sum(dim=1)[~kept.all(dim=1)], (old.exp() * kept).sum(dim=1)[~kept.all(dim=1)]
    )
    some = ~kept.all(dim=1)
    before, now = old.softmax(dim=1), after.softmax(dim=1)
    torch.testing.assert_close(now[some][~kept[some]], before[some][~kept[some]], rtol=0, atol=1e-15)
    assert torch.equal(after[~kept], old[~kept])
    assert torch.equal(after[~some], new[~some])
    difference = (after - new)[some].masked_fill(~kept[some], torch.nan)
    spread = difference.nan_to_num(-1e9).amax(dim=1) - difference.nan_to_num(1e9).amin(dim=1)
    torch.testing.assert_close(spread, torch.zeros_like(spread), rtol=0, atol=1e-15)


def test_as_coded_differs_where_dropped_alphas_moved():
    """ln(rho / (1 - rho) * sum_dropped exp(new) / sum_kept exp(new)): with the dropped one moved from 3 to 6, ln((3 /
    3) * 6 / 8)."""
    moved = NEW.clone()
    moved[0, 2] = math.log(6)
    assert float(adjustment(OLD, moved, KEPT, ALIVE, as_coded=True)[0, 0]) == pytest.approx(math.log(6 / 8), abs=1e-15)
    assert float(adjustment(OLD, moved, KEPT, ALIVE)[0, 0]) == pytest.approx(math.log(3 / 8), abs=1e-15)


def test_the_pruned_are_not_dropped():
    alive = torch.tensor([[True, True, False], [True, True, True]])
    assert not adjustment(OLD, NEW, KEPT, alive).any()


def test_settling_adjusts_by_the_mix_that_ran():
    space = Ragged()
    method = DropNAS(space).double()
    before = method.alpha.detach().clone()
    active = tuple(row[:1] for row in method.active)
    with torch.no_grad():
        method.alpha[:, 0] += 1
        method.settle(
            Seen(
                Progress(),
                Mix(torch.zeros(space.shape), active),
                torch.zeros(()),
                torch.zeros(()),
                {},
                {"alpha": before},
            )
        )
    several = space.legal.sum(dim=1) > 1
    torch.testing.assert_close(method.alpha[several], before[several])
    torch.testing.assert_close(method.alpha[~several, 0], before[~several, 0] + 1)


def test_without_adjust_alphas_stay_where_they_went():
    method = DropNAS(Ragged(), adjust=False)
    before = method.alpha.detach().clone()
    with torch.no_grad():
        method.alpha += 1
        method.settle(
            Seen(
                Progress(),
                Mix(method.alpha, tuple(row[:1] for row in method.active)),
                torch.zeros(()),
                torch.zeros(()),
                {},
                {"alpha": before},
            )
        )
    assert torch.equal(method.alpha.detach(), before + 1)


# ---------------------------------------------------------------------- read-out and settings


def test_two_ways_to_rank_edges():
    """Rows [conv, none] = [2, 1] and [1.5, -3]: raw alpha prefers the first, the softmax the second, .73 and .99."""
    space = Darts(size=8, width=4, cells=3, options="original", inputs=1)
    ways = {}
    for faithful in (False, True):
        method = DropNAS(space, faithful=faithful)
        with torch.no_grad():
            method.alpha.fill_(-20)
            method.alpha[0, 0], method.alpha[0, 7] = 2, 1
            method.alpha[1, 0], method.alpha[1, 7] = 1.5, -3
        ways[faithful] = method.scores().detach()
    assert ways[False][0, 0] == pytest.approx(0.73, abs=5e-3)
    assert ways[False][1, 0] == pytest.approx(0.99, abs=5e-3)
    assert "normal:2<-1" in space.decode(ways[False])
    assert "normal:2<-0" in space.decode(ways[True])


def test_what_the_papers_code_uses():
    setting = DropNAS.setting("darts")
    train = setting.train
    assert (train.epochs, train.batch, train.lr, train.lr_min, train.clip, train.momentum, train.weight_decay) == (
        76,
        96,
        0.0375,
        0.0015,
        3.0,
        0.9,
        3e-4,
    )
    assert setting.space == {"options": "original", "cells": 14}
    plan = DropNAS(SPACE).plan
    assert (plan.coupling, plan.inactive, plan.decay_on, plan.released) == ("joint", "skip", "ran", Released())
    plan = DropNAS(SPACE, faithful=True).plan
    assert (plan.coupling, plan.inactive, plan.decay_on) == ("joint", "coast", "ran")
    assert plan.released == Released(decay_step="separate")
    assert (plan.arch.lr, plan.arch.betas, plan.arch.decay) == (3e-4, (0.5, 0.999), 1e-3)
