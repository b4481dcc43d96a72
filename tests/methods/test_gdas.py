"""GDAS by hand: arXiv 1910.04465."""

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.progress import Progress, seeded
from gapless.methods.gdas import GDAS
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.spaces import images, supernet_of

SPACE = NASBench201(size=8, width=4, cells=1)
ESTIMATORS = ("selected", "scalar_fill", "full")


def made(estimator: str = "selected", **settings) -> GDAS:
    with seeded("gdas"):
        method = GDAS(SPACE, estimator=estimator, **settings).double()
        with torch.no_grad():
            method.alpha.normal_()
    return method


def at(step: int = 0, epoch: int = 0, phase: str = "arch") -> Progress:
    return Progress(epoch=epoch, epochs=10, step=step, phase=phase)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_forward_is_one_option_and_nothing_else(estimator):
    """The drawn entry is (1 - q) + q, 1 up to the last bit; all others are exactly 0; the offset is exactly 0."""
    method = made(estimator)
    for step in range(20):
        mix = method.mix(at(step))
        assert ((mix.weight - 1).abs() < 1e-15).sum(dim=-1).tolist() == [1] * 6
        assert (mix.weight == 0).sum(dim=-1).tolist() == [4] * 6
        assert mix.offset is None or not mix.offset.any()
        drawn = tuple((column,) for column in mix.weight.argmax(dim=-1).tolist())
        assert mix.active == (drawn if estimator != "full" else method.active)


def test_what_is_drawn_follows_alpha_at_any_temperature():
    """Frequencies of 4000 draws are within four standard deviations of softmax(alpha)."""
    for tau in (10.0, 0.1):
        method = made(tau=tau, tau_end=tau)
        counts = sum((method.mix(at(step)).weight.detach() > 0.5).double() for step in range(4000)) / 4000
        p = method.scores().detach()
        assert ((counts - p).abs() <= 4 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_of_alpha_by_hand(estimator):
    """With g at the weights and s at the offset: q receives g at the drawn option (selected), s at all others too
    (scalar_fill), or g everywhere (full); then d/d alpha_o = (1 / tau) * (v_o - p_o sum v) with v = q (e - q . e)."""
    method, now = made(estimator), at(3, epoch=4)
    mix = method.mix(now)
    g = torch.linspace(-1, 2, 30, dtype=torch.float64).view(6, 5)
    s = torch.linspace(0.5, 1, 6, dtype=torch.float64)
    mix.backward({"weight": g, **({"offset": s} if estimator == "scalar_fill" else {})})
    drawn = torch.nn.functional.one_hot(mix.weight.argmax(dim=-1), 5).bool()
    arrives = {
        "selected": torch.where(drawn, g, 0.0),
        "scalar_fill": torch.where(drawn, g, s[:, None]),
        "full": g,
    }[estimator]
    q, p = method.relaxed(now).detach(), method.scores().detach()
    v = q * (arrives - (q * arrives).sum(dim=-1, keepdim=True))
    expected = (v - p * v.sum(dim=-1, keepdim=True)) / method.temperature(now)
    torch.testing.assert_close(method.alpha.grad, expected, rtol=0, atol=1e-14)
    assert method.alpha.grad.count_nonzero() == 30  # an option that did not run has a gradient: q is normalised


@pytest.mark.parametrize("execution", ["fused", "reference"])
def test_the_offset_receives_the_sum_of_the_gradient_at_the_output(execution):
    """As if every other option had returned ones: the gradient at the offset of the edges into a node is the sum of the
    gradient at that node, which a number added to the node shows."""
    supernet, x = supernet_of(SPACE, execution).train(), images(SPACE)
    mix = made("scalar_fill").mix(at()).leaves()
    supernet(x, mix).square().sum().backward()
    eps, row = 1e-6, 5
    moved = []
    for sign in (1, -1):
        shifted = made("scalar_fill").mix(at()).leaves()
        with torch.no_grad():
            shifted.offset[row] += sign * eps
        moved.append(float(supernet_of(SPACE, execution).train()(x, shifted).square().sum().detach()))
    assert float(mix.offset.grad[row]) == pytest.approx((moved[0] - moved[1]) / (2 * eps), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_of_what_was_not_drawn_rest(estimator):
    supernet, x = supernet_of(SPACE, "fused").train(), images(SPACE)
    mix = made(estimator).mix(at(phase="weights"))
    plain = SPACE.one_hot(SPACE.decode(mix.weight.detach()), dtype=torch.float64)
    torch.testing.assert_close(supernet(x, mix), supernet_of(SPACE, "fused").train()(x, plain), rtol=1e-9, atol=1e-11)
    supernet(x, mix.detach()).sum().backward()
    for name, p in supernet.named_parameters():
        edge, _, rest = name.partition(".edges.")[2].partition(".nor")
        if estimator != "full" and edge:
            row = next(i for i, d in enumerate(SPACE.decisions) if d.name == edge)
            label = ("nor" + rest).split(".")[0]
            assert (p.grad is not None) <= (SPACE.decisions[row].options[mix.active[row][0]] == label), name


def test_temperature_falls_linearly_to_the_last_epoch():
    method = made()
    assert [method.temperature(at(epoch=e)) for e in (0, 9)] == pytest.approx([10, 0.1], abs=1e-12)
    assert method.temperature(at(epoch=3)) == pytest.approx(10 - 9.9 * 3 / 9, abs=1e-12)
    assert method.temperature(Progress()) == 10


def test_the_plan_is_the_released_one():
    plan = GDAS(SPACE).plan
    assert (plan.order, plan.inactive, plan.arch_moves) == ("weights_first", "skip", "all")
    assert (plan.arch.lr, plan.arch.decay) == (3e-4, 1e-3)
    train = GDAS.setting("nasbench201").train
    assert (train.epochs, train.batch, train.nesterov, train.weight_decay) == (250, 64, True, 5e-4)
    with pytest.raises(UserError, match="`tau_end` must be more than 0; got 0"):
        GDAS(SPACE, tau_end=0)
