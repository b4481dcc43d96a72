"""beta-DARTS by hand: arXiv 2203.01665."""

import math

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.plan import Stage, Train
from gapless.core.progress import Progress, seeded
from gapless.engine.search import Search
from gapless.methods.beta_darts import BetaDARTS
from gapless.methods.darts import DARTS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise

SPACE = NASBench201(size=8, width=4, cells=1)


def at(epoch: int, epochs: int = 100) -> Progress:
    return Progress(epoch=epoch, epochs=epochs, phase="arch")


def with_rows(space, row: list[float], **settings) -> BetaDARTS:
    method = BetaDARTS(space, **settings).double()
    with torch.no_grad():
        method.alpha.copy_(torch.tensor(row, dtype=torch.float64).expand_as(method.alpha))
    return method


def test_the_term_by_hand():
    """Rows log(1, 2, 5, 1, 1): logsumexp is log 10, the gradient lambda * (1, 2, 5, 1, 1) / 10 / E."""
    method = with_rows(SPACE, [math.log(v) for v in (1, 2, 5, 1, 1)])
    term = method.penalty(at(20))  # lambda = 50 * 20 / 100 = 10
    assert float(term.detach()) == pytest.approx(10 * math.log(10), abs=1e-12)
    term.backward()
    expected = 10 * torch.tensor([1, 2, 5, 1, 1], dtype=torch.float64) / 10 / 6
    torch.testing.assert_close(method.alpha.grad, expected.expand(6, 5), rtol=0, atol=1e-14)


def test_strength_grows_linearly_from_nothing():
    method = with_rows(SPACE, [0.0] * 5)
    assert method.penalty(at(0)) is None
    found = [float(method.penalty(at(epoch)).detach()) / math.log(5) for epoch in (1, 50, 99)]
    assert found == pytest.approx([0.5, 25, 49.5], abs=1e-12)
    assert float(method.penalty(at(25, 50)).detach()) / math.log(5) == pytest.approx(25, abs=1e-12)


@pytest.mark.parametrize(("space", "options"), [(SPACE, 5), (Darts(size=8, width=4, cells=3), 8)], ids=["201", "darts"])
def test_at_the_start_it_is_the_logarithm_of_the_number_of_options(space, options):
    torch.manual_seed(0)
    value = float(BetaDARTS(space).penalty(at(2)).detach())
    assert value == pytest.approx(math.log(options), abs=1e-3)


def test_under_the_term_alone_a_row_sinks_by_a_known_sum_and_grows_more_even():
    """One plain step of size eta: the sum of every row falls by eta * lambda / E, the order stays, the variance of the
    probabilities does not grow; a row of equals stays one."""
    torch.manual_seed(1)
    method, eta = BetaDARTS(SPACE).double(), 0.02
    with torch.no_grad():
        method.alpha.normal_(std=2)
        method.alpha[0] = 0.3
    before = method.alpha.detach().clone()
    method.penalty(at(50)).backward()  # lambda = 25
    with torch.no_grad():
        method.alpha -= eta * method.alpha.grad
    after = method.alpha.detach()
    torch.testing.assert_close(
        (before - after).sum(dim=1), torch.full((6,), eta * 25 / 6, dtype=torch.float64), rtol=0, atol=1e-13
    )
    assert torch.equal(before.argsort(dim=1), after.argsort(dim=1))
    assert (after.softmax(dim=1).var(dim=1) <= before.softmax(dim=1).var(dim=1)).all()
    assert after[0].unique().numel() == 1


def test_pruned_options_take_no_part():
    method = with_rows(SPACE, [0.0, 1.0, 2.0, 3.0, 4.0])
    method.narrow(Stage(keep=2))
    term = method.penalty(at(2))
    assert float(term.detach()) == pytest.approx(math.log(math.exp(3) + math.exp(4)), abs=1e-12)
    term.backward()
    assert not method.alpha.grad[~method.alive].any()


def test_without_strength_it_is_darts_bit_for_bit():
    found = []
    for make in (lambda space: BetaDARTS(space, lambda_max=0), DARTS):
        with seeded("method"):
            method = make(SPACE)
        search = Search(SPACE, method, noise(SPACE, 16), Train(epochs=2, batch=4), seed=1)
        list(search.run())
        found.append([method.alpha.detach(), *(p.detach() for p in search.supernet.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_term_does_not_reach_the_weights():
    """After one step from the same start the weights are DARTS's; alpha is not."""
    found = []
    for make in (BetaDARTS, DARTS):
        with seeded("method"):
            method = make(SPACE)
        search = Search(SPACE, method, noise(SPACE, 8), Train(epochs=4, batch=4), seed=1)
        batch, other = search.feed.weight_batch(torch.arange(4), 0), search.feed.arch_batch()
        before = method.alpha.detach().clone()
        now = Progress(epoch=2, epochs=4)
        search.updater.arch_step(now, 0.025, batch, other)
        moved = method.alpha.detach().clone()
        with torch.no_grad():
            method.alpha.copy_(before)
        search.updater.weight_step(now, batch)
        found.append((moved, [p.detach() for p in search.supernet.parameters()]))
    assert not torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))


def test_settings_are_those_of_the_released_code():
    plan = BetaDARTS(SPACE).plan
    assert (plan.arch.lr, plan.arch.decay, plan.arch.betas, plan.coupling) == (3e-4, 1e-3, (0.5, 0.999), "alternate")
    assert BetaDARTS.setting("nasbench201").train.epochs == 100
    with pytest.raises(UserError, match="lambda_max"):
        BetaDARTS(SPACE, lambda_max=-1)
