"""SNAS by hand: arXiv 1812.09926."""

import math

import pytest
import torch
from torch.distributions import RelaxedOneHotCategorical

from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded
from gapless.core.space import Space
from gapless.engine.search import Search
from gapless.methods.snas import SNAS, log_density
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise

SPACE = NASBench201(size=8, width=4, cells=1)


def made(space: Space = SPACE, spread: float = 1.0, **settings) -> SNAS:
    with seeded("snas"):
        method = SNAS(space, **settings).double()
        with torch.no_grad():
            method.alpha.normal_(std=spread)
    return method


def at(step: int = 0, epoch: int = 0, epochs: int = 10, phase: str = "weights") -> Progress:
    return Progress(epoch=epoch, epochs=epochs, step=step, phase=phase)


def test_weights_sum_to_one_and_have_a_gradient():
    mix = made().mix(at())
    assert torch.allclose(mix.weight.sum(dim=-1), torch.ones(6, dtype=torch.float64))
    assert mix.weight.requires_grad


def test_the_temperature_is_linear_in_the_epochs():
    """1 to 0.03 over 150 epochs; 10 to 1 over 100, where the last epoch has 1.09 (the code in xiangning-chen/DrNAS)."""
    method = made()
    assert method.temperature(at(epoch=0, epochs=150)) == 1.0
    assert method.temperature(at(epoch=75, epochs=150)) == pytest.approx(0.515)
    assert made(tau=10.0, tau_end=1.0).temperature(at(epoch=99, epochs=100)) == pytest.approx(1.09)


@pytest.mark.parametrize("epoch", [0, 5, 9])
def test_the_gradient_of_alpha_by_hand(epoch):
    """dL/dalpha_k = (w_k / tau) (g_k - sum_l w_l g_l)."""
    method, now = made(), at(3, epoch)
    mix = method.mix(now)
    g = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mix.backward({"weight": g})
    w = mix.weight.detach()
    expected = w / method.temperature(now) * (g - (w * g).sum(dim=-1, keepdim=True))
    torch.testing.assert_close(method.alpha.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_log_density_is_that_of_the_library(temperature):
    logits = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = RelaxedOneHotCategorical(torch.tensor(temperature, dtype=torch.float64), logits=logits)
    with seeded("relaxed"):
        w = theirs.sample()
    inside = w.amin(dim=-1) > 1e-4
    assert int(inside.sum()) > 10
    found = log_density(logits, w, temperature)[inside]
    torch.testing.assert_close(found, theirs.log_prob(w)[inside], rtol=1e-9, atol=1e-9)


def test_the_log_density_of_what_is_left_does_not_count_the_pruned():
    logits = torch.tensor([[0.3, -0.2, -math.inf]])
    w = torch.tensor([[0.6, 0.4, 0.0]])
    torch.testing.assert_close(log_density(logits, w, 0.7), log_density(logits[:, :2], w[:, :2], 0.7))


@pytest.mark.parametrize("scale", ["log", "raw"])
@pytest.mark.parametrize("estimator", ["reparametrization", "discrete", "policy_gradient"])
def test_the_resource_term_makes_cheap_options_likely(estimator, scale):
    """With a constant task loss and nothing but the term, "none" and the other free options gain at the convolutions'
    cost."""
    method = made(
        spread=0.0,
        resource=1.0 if scale == "log" else 1e-4,
        resource_estimator=estimator,
        resource_scale=scale,
        tau_end=1.0,
    )
    optimiser = torch.optim.Adam([method.alpha], lr=0.05)
    for step in range(300):
        optimiser.zero_grad()
        method.penalty(at(step)).backward()
        optimiser.step()
    p = method.scores().detach().mean(dim=0)
    assert float(p[3]) < 0.1
    assert float(p[0]) > float(p[3])


def test_the_resource_term_by_hand():
    """One decision's cost under weights: mean of logarithms, those below 1 as 1; or 0.43 (2 params + MACs / 4000 +
    accesses / 100)."""
    for scale in ("log", "raw"):
        method = made(resource=2.0, resource_scale=scale)
        w = method.drawn(at(7)).detach()
        units = [(SPACE.cost_table(unit)[0] * w).sum(dim=-1) for unit in ("params", "macs", "access")]
        if scale == "log":
            expected = sum(u.clamp_min(1).log() for u in units) / 3
        else:
            expected = 0.43 * (2 * units[0] + units[1] / 4000 + units[2] / 100)
        torch.testing.assert_close(method.penalty(at(7)), 2 * expected.sum(), rtol=1e-6, atol=1e-9)


def test_the_penalty_is_of_the_draw_that_the_pass_ran():
    method = made(resource=1.0)
    mix = method.mix(at(11))
    torch.testing.assert_close(method.penalty(at(11)), method.cost(mix.weight).sum())


def test_one_level_trains_both_on_all_images_and_bilevel_divides_them():
    train = Train(epochs=1, batch=4)
    assert not len(Search(SPACE, SNAS(SPACE), noise(SPACE, 16), train).feed.arch)
    assert len(Search(SPACE, SNAS(SPACE, bilevel=True), noise(SPACE, 16), train).feed.arch) == 8


def test_the_darts_space_keeps_all_edges_and_may_answer_none():
    """The released read-out: argmax over all operations, "none" included, of all 14 edges."""
    space = Darts(**SNAS.setting("darts").space)
    method = SNAS(space)
    with torch.no_grad():
        method.alpha[:, 0] = 5.0
    assert set(space.decode(method.scores()).values()) == {"none"}


def test_alpha_is_part_of_the_state():
    """The released code loses it on a single GPU."""
    assert "alpha" in made().state_dict()


@pytest.mark.parametrize(
    ("setting", "value"), [("tau", 0.0), ("tau_end", -1.0), ("resource", -1.0), ("arch_clip", -1.0)]
)
def test_a_setting_out_of_range_is_a_sentence(setting, value):
    with pytest.raises(UserError, match=f"`{setting}` must"):
        SNAS(SPACE, **{setting: value})
