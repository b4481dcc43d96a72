"""DSNAS by hand: arXiv 2002.09128."""

import itertools

import pytest
import torch
from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded
from gapless.engine.search import Search
from gapless.engine.supernet import MixedEdge
from gapless.methods.dsnas import DSNAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise
from gapless.testing.spaces import images, supernet_of

SPACE = NASBench201(size=8, width=4, cells=1)


def made(spread: float = 1.0, **settings) -> DSNAS:
    with seeded("dsnas"):
        method = DSNAS(SPACE, **settings).double()
        with torch.no_grad():
            method.alpha.normal_(std=spread)
    return method


def at(step: int = 0, epoch: int = 0, phase: str = "weights") -> Progress:
    return Progress(epoch=epoch, epochs=10, step=step, phase=phase)


def test_the_gate_is_one_and_its_gradient_is_the_credit_times_the_score():
    """dL/dalpha_d = R_d (onehot(z_d) - p_d); each row sums to zero."""
    method = made()
    mix = method.mix(at(3))
    assert torch.equal(mix.gain, torch.ones(6, dtype=torch.float64))
    credit = torch.linspace(-1, 2, 6, dtype=torch.float64)
    mix.backward({"gain": credit, "weight": torch.randn(6, 5)})
    expected = credit[:, None] * (mix.weight - method.scores().detach())
    torch.testing.assert_close(method.alpha.grad, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(method.alpha.grad.sum(dim=-1), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("execution", ["reference", "fused"])
def test_the_credit_is_the_gradient_at_the_output_times_the_output(execution):
    """R_d, as it arrives at the gate, equals <dL/d(output), output> collected by hooks on the edges, summed over the
    cells; a decision that drew "none" has none."""
    supernet = supernet_of(SPACE).double()
    method, x = made(), images(SPACE).double()
    mix = next(m for m in (method.mix(at(i)) for i in range(99)) if 3 > int(m.weight[:, 0].sum()) > 0)
    assert 0 in mix.weight.argmax(dim=-1).tolist()
    leaves = mix.leaves()
    supernet.execution = "reference"
    found: dict[int, Tensor] = {}

    def watch(edge: MixedEdge, _: object, output: Tensor) -> None:
        output.register_hook(
            lambda g: found.__setitem__(edge.row, found.get(edge.row, torch.tensor(0.0)) + (g * output.detach()).sum())
        )

    hooks = [m.register_forward_hook(watch) for m in supernet.modules() if isinstance(m, MixedEdge)]
    supernet(x, leaves).square().sum().backward()
    for hook in hooks:
        hook.remove()
    expected = torch.stack([found.get(row, torch.tensor(0.0)).double() for row in range(6)])
    supernet.execution = execution
    again = mix.leaves()
    supernet(x, again).square().sum().backward()
    torch.testing.assert_close(again.gain.grad, expected, rtol=1e-9, atol=1e-9)
    assert not again.gain.grad[mix.weight[:, 0] == 1].any()


def test_over_all_paths_the_estimator_is_the_gradient_of_the_expected_loss():
    """For a loss that is linear in the outputs, sum over paths of p(z) R_d grad log p_d equals grad E[L]."""
    alpha = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    cost = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    p = alpha.softmax(dim=-1)
    (exact,) = torch.autograd.grad((p * cost).sum(), alpha, retain_graph=True)
    total = torch.zeros_like(alpha)
    for z in itertools.product(range(2), repeat=3):
        log_p = alpha.log_softmax(dim=-1)[range(3), z]
        gate = (log_p - log_p.detach()).exp()
        chance = float(p.detach()[range(3), z].prod())
        (g,) = torch.autograd.grad((gate * cost[range(3), z]).sum(), alpha)
        total += chance * g
    torch.testing.assert_close(total, exact, rtol=1e-9, atol=1e-12)


def test_a_decision_freezes_where_the_two_best_are_far_apart_and_its_row_is_put_back():
    method = made(spread=0.0)
    with torch.no_grad():
        method.alpha[2, 3] = 5.0
        method.alpha[4, 1] = 0.5  # ahead, but by less than 0.3
        method.begin(at(0, epoch=1))
        assert method.frozen.tolist() == [-1, -1, 3, -1, -1, -1]
        kept = method.alpha[2].clone()
        method.alpha[2] = torch.tensor([9.0, 0, 0, 0, 0])
        assert all(method.mix(at(step)).active[2] == (3,) for step in range(30))
        assert method.mix(at(0, phase="judge")).active[2] == (3,)
        method.begin(at(0, epoch=2))
    assert torch.equal(method.alpha[2], kept)
    assert method.frozen[2] == 3


def test_a_frozen_decision_is_part_of_the_state():
    one, other = made(spread=3.0, freeze=0.1), made()
    with torch.no_grad():
        one.begin(at())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.frozen, other.frozen)
    assert (one.frozen >= 0).any()


def test_freezing_in_a_search_holds_the_option():
    """Rows that are frozen at the beginning of an epoch answer alike ever after."""
    search = Search(SPACE, made(freeze=0.2), noise(SPACE, 16), Train(epochs=4, batch=4, lr=0.05), precision="float64")
    frozen = torch.full((6,), -1)
    for _ in search.run():
        now = search.method.frozen.clone()
        assert torch.equal(now[frozen >= 0], frozen[frozen >= 0])
        frozen = now
    assert (frozen >= 0).any()
    best = search.method.best()
    assert torch.equal(best[frozen >= 0], frozen[frozen >= 0])


def test_the_cost_term_by_hand_and_its_threshold():
    """c p_d(z_d) F_d(z_d) lowers what was drawn: its gradient is c F p (onehot - p). Below the threshold it is off."""
    method = made(macs=0.5, macs_from=0.0)
    z, millions = list(method.drawn(at(2))), SPACE.cost_table("macs")[0] / 1e6
    method.penalty(at(2)).backward()
    p, rows = method.scores().detach(), list(range(6))
    hot = torch.nn.functional.one_hot(torch.tensor(z), 5)
    expected = 0.5 * (millions[rows, z] * p[rows, z])[:, None] * (hot - p)
    torch.testing.assert_close(method.alpha.grad, expected, rtol=1e-6, atol=1e-9)
    spent = float(millions[rows, z].sum())
    for threshold, on in ((spent * 0.99, True), (spent * 1.01, False)):
        assert bool(made(macs=0.5, macs_from=threshold).penalty(at(2))) == on


def test_defaults_are_those_of_the_script_for_the_space():
    """DSNAS/train_imagenet.py; SNAS/train_search.py for the cells of DARTS."""
    told = [(method.freeze, method.plan.arch.lr, method.plan.arch.decay) for method in (made(), DSNAS(Darts(cells=2)))]
    assert told == [(0.3, 1e-3, 0.0), (1.0, 3e-4, 1e-3)]
    given = DSNAS(Darts(cells=2), freeze=0.2, arch_lr=0.1, arch_decay=0.0)
    assert (given.freeze, given.plan.arch.lr, given.plan.arch.decay) == (0.2, 0.1, 0.0)
    assert DSNAS(SPACE, arch_lr=0.0).plan.arch.lr == 0.0


def test_the_answer_trains_on():
    assert made().plan.after == "continue"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("freeze", -0.1), ("freeze", 0.0), ("freeze", 1.5), ("macs", -1.0), ("macs_from", -1.0), ("arch_decay", -1.0)],
)
def test_a_setting_out_of_range_is_a_sentence(setting, value):
    with pytest.raises(UserError, match=f"`{setting}` must .*; got {value}"):
        DSNAS(SPACE, **{setting: value})
