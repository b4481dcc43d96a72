"""PC-DARTS by hand: arXiv 1907.05737."""

import math

import pytest
import torch

from gapless.core.cell import rejoin
from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded
from gapless.engine.search import Search
from gapless.methods.darts import DARTS
from gapless.methods.pc_darts import PCDARTS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, noise, patched

SPACE = Darts(size=8, width=8, cells=3, partial=4)
NOW = Progress()


def made(space, beta: dict[str, float] | None = None) -> PCDARTS:
    method = PCDARTS(space).double()
    with torch.no_grad():
        method.alpha.zero_()
        method.beta.zero_()
        for name, value in (beta or {}).items():
            method.beta[space.rows[name]] = value
    return method


def test_edges_into_a_node_share_it():
    """softmax(log 1, log 2, log 5) = 1/8, 2/8, 5/8 for the three edges into the second node of the normal cell."""
    edges = {"normal:3<-0": math.log(1), "normal:3<-1": math.log(2), "normal:3<-2": math.log(5)}
    gain = made(SPACE, edges).gain().detach()
    rows = [SPACE.rows[name] for name in edges]
    torch.testing.assert_close(gain[rows], torch.tensor([1, 2, 5], dtype=gain.dtype) / 8, rtol=0, atol=1e-15)
    assert gain[SPACE.rows["normal:2<-0"]] == 0.5
    assert gain[SPACE.rows["reduce:5<-4"]] == pytest.approx(1 / 5, abs=1e-15)


@pytest.mark.parametrize("space", [SPACE, NASBench201(), Ragged(), patched()], ids=lambda space: space.label)
def test_shares_of_a_node_sum_to_one(space):
    method = PCDARTS(space).double()
    with torch.no_grad():
        method.beta.copy_(torch.linspace(-3, 3, len(space.decisions), dtype=torch.float64))
    sums: dict[str, float] = {}
    for decision, share in zip(space.decisions, method.gain().tolist(), strict=True):
        node = decision.into or decision.name
        sums[node] = sums.get(node, 0.0) + share
    assert all(total == pytest.approx(1, abs=1e-14) for total in sums.values())


def test_a_site_that_is_summed_with_none_keeps_its_output():
    space = patched()
    alone = [row for row, decision in enumerate(space.decisions) if not decision.into]
    assert alone
    assert all(made(space, {space.decisions[row].name: 3.0}).gain()[row] == 1 for row in alone)


def test_the_gradient_of_beta_sums_to_nothing_over_a_node():
    """A constant on all edges into a node changes nothing; and edge normalisation does learn."""
    method = made(SPACE)
    method.mix(NOW).backward({"weight": torch.zeros(SPACE.shape), "gain": torch.linspace(0, 1, 28)})
    for into in {decision.into for decision in SPACE.decisions}:
        rows = [row for row, decision in enumerate(SPACE.decisions) if decision.into == into]
        assert method.beta.grad[rows].sum() == pytest.approx(0, abs=1e-15)
        assert method.beta.grad[rows].abs().max() > 1e-3
    assert not method.alpha.grad.any()


def test_uniform_shares_are_not_darts():
    """The value of a node is then DARTS's divided by the number of edges into it."""
    ours, darts = made(SPACE).mix(NOW), DARTS(SPACE).mix(NOW)
    assert darts.gain is None
    counts = torch.tensor([sum(o.into == d.into for o in SPACE.decisions) for d in SPACE.decisions])
    torch.testing.assert_close(ours.gain.detach(), 1 / counts.double(), rtol=0, atol=1e-15)


def test_edges_are_read_off_by_the_product():
    """Two edges with equal operations: the larger beta is kept."""
    kept = SPACE.decode(made(SPACE, {"normal:3<-2": 2.0, "normal:3<-0": 1.0}).scores())
    assert {name for name in kept if name.startswith("normal:3")} == {"normal:3<-0", "normal:3<-2"}


def test_channels_are_shuffled_by_the_rule():
    """Position g (C / K) + m moves to m K + g: what went through the operations stands at multiples of K, and the rest
    is what came in, bit for bit."""
    x = torch.randn(2, 8, 3, 3)
    out = rejoin(10 * x[:, :2], x, 4, 1)
    for m in range(2):
        assert torch.equal(out[:, 4 * m], 10 * x[:, m])
        for g in range(1, 4):
            assert torch.equal(out[:, 4 * m + g], x[:, 2 * g + m])


def test_for_t0_epochs_only_weights_are_trained():
    """Alpha and beta rest bit for bit, then both move."""
    space = NASBench201(size=8, width=8, cells=1, partial=4)
    with seeded("method"):
        method = PCDARTS(space)
    search = Search(space, method, noise(space, 16), Train(epochs=7, batch=4))
    before = (method.alpha.detach().clone(), method.beta.detach().clone())
    for epoch in range(4):
        search.run_epoch()
        now = (method.alpha.detach(), method.beta.detach())
        assert [torch.equal(a, b) for a, b in zip(before, now, strict=True)] == [epoch < int(7 * 15 / 50)] * 2


def test_the_warm_up_is_the_released_one():
    assert PCDARTS(SPACE).plan.warmup(50) == 15
    assert PCDARTS(SPACE).plan.warmup(2) == 0
    assert PCDARTS(SPACE, warmup_share=35 / 50).plan.warmup(50) == 35
    assert PCDARTS(SPACE, warmup_share=0).plan.warmup(50) == 0
    setting = PCDARTS.setting("darts")
    assert (setting.train.batch, setting.train.lr, setting.train.lr_min, setting.space) == (
        256,
        0.1,
        0.0,
        {"partial": 4},
    )


def test_what_cannot_be():
    with pytest.raises(UserError, match="`arch_clip` must be at least 0; got -1"):
        PCDARTS(SPACE, arch_clip=-1)
    with pytest.raises(UserError, match="`warmup_share` must be at least 0 and less than 1; got 15"):
        PCDARTS(SPACE, warmup_share=15)
    with pytest.raises(UserError, match="partial"):
        Darts(width=10, partial=4)
