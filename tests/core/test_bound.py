"""Bounds: what is read, what an undecided architecture costs in expectation, when the penalty is zero."""

import itertools
import math
import random

import pytest
import torch

from gapless.core.bound import Bound, Budget, budget, cost_of, expected, relax, told
from gapless.core.cost import cost
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, patched

SPACES = {
    "ragged": Ragged(),
    "nasbench201": NASBench201(size=8, width=4, cells=1),
    "darts": Darts(size=8, width=4, cells=3),
    "darts-one-input": Darts(size=8, width=4, cells=3, inputs=1),
    "darts-all-inputs": Darts(size=8, width=4, cells=3, inputs=None),
    "patched": patched(),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))


def table_of(space, seed=0):
    return torch.rand(space.shape, generator=stream("table", seed), dtype=torch.float64) * space.legal


def soft(space, seed=0, size=1.0):
    """Probabilities over the options that exist."""
    scores = size * torch.randn(space.shape, generator=stream("soft", seed), dtype=torch.float64)
    return scores.masked_fill(~space.legal, -math.inf).softmax(dim=-1)


# ---------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("text", "unit", "most"),
    [
        ("macs=50M", "macs", 50e6),
        ("macs=50000000", "macs", 50e6),
        ("macs = 1.5 G", "macs", 1.5e9),
        ("params=1B", "params", 1e9),
        ("params=20k", "params", 20e3),
        ("params=20K", "params", 20e3),
        ("params=.5M", "params", 5e5),
        ("params=1e6", "params", 1e6),
        ("latency=5ms", "latency", 5.0),
        ("latency=800us", "latency", 0.8),
        ("latency=0.02s", "latency", 20.0),
    ],
)
def test_a_bound_is_read(text, unit, most):
    assert Bound.parse(text) == Bound(unit, most)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("50M", "not of the form unit=number, as macs=50M, params=1M, latency=5ms"),
        ("macs=", "not of the form unit=number"),
        ("mac=50M", "no unit to limit 'mac'. Did you mean 'macs'?"),
        ("flops=50M", "Legal: macs, params, latency"),
        ("macs=50m", "Did you mean 50M?"),
        ("macs=50ms", "takes a number, alone or with one of k, K, M, G, B, as in macs=50M"),
        ("macs=-3M", "as in macs=50M"),
        ("macs=many", "as in macs=50M"),
        ("macs=1M2", "as in macs=50M"),
        ("macs=nan", "as in macs=50M"),
        ("latency=5", "latency takes a number and one of us, ms, s, as in latency=5ms"),
        ("latency=5M", "us, ms, s"),
        ("params=0", "a finite number above 0"),
        ("params=1e999", "a finite number above 0"),
        ("params=1e99999999999", "as in params=1M"),
    ],
)
def test_what_is_no_bound_is_told(text, said):
    with pytest.raises(UserError) as caught:
        Bound.parse(text)
    assert said in str(caught.value)


def test_a_bound_is_written_shortly():
    texts = ["macs=50M", "macs=1.25G", "params=73306", "params=20k", "latency=5ms", "latency=0.8ms"]
    assert [str(Bound.parse(text)) for text in texts] == texts


def test_what_is_written_reads_back_to_the_last_bit():
    chance = random.Random(0)
    numbers = [10 ** chance.uniform(-3, 15) for _ in range(300)] + [
        float(round(10 ** chance.uniform(0, 10))) for _ in range(300)
    ]
    for number, unit in itertools.product(numbers, ("macs", "params", "latency")):
        assert Bound.parse(str(Bound(unit, number))) == Bound(unit, number)


def test_amounts_are_told():
    assert told(1_234_567, "macs") == "1,234,567 MACs"
    assert told(0.01234, "latency") == "0.0123 ms"
    assert told(1234.5, "latency") == "1,234 ms"


# ---------------------------------------------------------------------- the relaxation


@every_space
def test_it_is_exact_for_an_architecture(space):
    table = table_of(space)
    for i in range(20):
        arch = space.sample(stream("arch", i))
        code = space.encode(arch)
        assert torch.equal(relax(code, space), code.double())
        assert float(expected(code, space, table, 3.0)) == pytest.approx(cost_of(arch, space, table, 3.0), rel=1e-12)


@every_space
@pytest.mark.parametrize("unit", ["macs", "params"])
def test_it_is_the_count_of_the_network(space, unit):
    table, constant = space.cost_table(unit)
    arch = space.sample(stream("count"))
    counted = cost(space.network(arch), unit, (space.channels, space.size, space.size))
    assert float(expected(space.encode(arch), space, table, constant)) == counted
    assert cost_of(arch, space, table, constant) == counted


@every_space
def test_it_is_exact_where_count_rows_dominate(space):
    """Absent rows may hold anything that is weak; then the strongest are present for sure."""
    table = table_of(space)
    arch = space.sample(stream("dominant"))
    code = space.encode(arch).double()
    weak = code + 1e-9 * soft(space) * (code.sum(dim=-1, keepdim=True) == 0)
    assert float(expected(weak, space, table, 1.0)) == pytest.approx(cost_of(arch, space, table, 1.0), rel=1e-7)


@every_space
def test_shares_are_those_of_an_architecture(space):
    """Rows sum to the chance of being present, which is one outside limits and sums to ``count`` under one."""
    limited = {name for limit in space.limits for name in limit.among}
    for seed in range(30):
        relaxed = relax(soft(space, seed, size=seed / 5), space)
        assert not relaxed[~space.eligible].any()
        assert bool((relaxed >= 0).all())
        present = relaxed.sum(dim=-1)
        assert bool((present <= 1 + 1e-12).all())
        for d in space.decisions:
            if d.name not in limited:
                assert float(present[space.rows[d.name]]) == pytest.approx(1)
        for limit in space.limits:
            assert float(present[[space.rows[n] for n in limit.among]].sum()) == pytest.approx(limit.count)


def test_presence_by_hand():
    """Into node 4 go two of three; strengths 0.6, 0.2, 0.1: shares 4/3, 4/9, 2/9, so the first is sure, and the others
    share one in proportion 2 to 1."""
    space = Ragged()
    p = torch.zeros(space.shape)
    p[space.rows["4<-2"], :3] = torch.tensor([0.6, 0.3, 0.1])
    p[space.rows["4<-3"], :2] = torch.tensor([0.2, 0.2])
    p[space.rows["4<-0"], :4] = torch.tensor([0.1, 0.7, 0.1, 0.1])  # "none" is not eligible, and is no strength
    relaxed = relax(p, space)
    assert relaxed[space.rows["4<-2"]].tolist() == pytest.approx([0.6, 0.3, 0.1, 0])
    assert relaxed[space.rows["4<-3"]].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0])
    assert relaxed[space.rows["4<-0"]].tolist() == pytest.approx([1 / 9, 0, 1 / 9, 1 / 9])


@pytest.mark.parametrize("name", ["nasbench201", "darts-all-inputs", "patched"])
def test_it_is_the_mean_over_draws_where_nothing_is_limited(name):
    space = SPACES[name]
    p, table = soft(space, 3), table_of(space, 3)
    draws = torch.multinomial(p, 20_000, replacement=True, generator=stream("draws"))
    costs = table.gather(1, draws).sum(dim=0)
    error = float(costs.std()) / math.sqrt(draws.shape[1])
    assert float(expected(p, space, table, 5.0)) == pytest.approx(5 + float(costs.mean()), abs=4 * error)


@every_space
def test_the_gradient_is_true(space):
    p = soft(space, 5).requires_grad_()
    table = table_of(space)
    assert torch.autograd.gradcheck(lambda q: expected(q, space, table, 1.0), p, eps=1e-7, atol=1e-5)


@every_space
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1000.0])
def test_the_gradient_is_finite(space, size):
    """From undecided to rows that are all "none", or one-hot to the last bit, in float32."""
    alpha = (size * torch.randn(space.shape, generator=stream("alpha"))).masked_fill(~space.legal, -math.inf)
    alpha.requires_grad_()
    expected(alpha.softmax(dim=-1), space, table_of(space), 0.0).backward()
    assert bool(torch.isfinite(alpha.grad).all())


@every_space
def test_nothing_at_all_is_undecided(space):
    """A row that has no eligible mass counts as even, not as free of cost."""
    relaxed = relax(torch.zeros(space.shape), space)
    assert torch.allclose(relaxed, relax(space.eligible / space.eligible.sum(-1, keepdim=True), space)) or space.limits
    assert float(relaxed.sum()) == pytest.approx(float(space.encode(space.sample(stream(0))).sum()))


def test_a_descent_makes_it_cheaper():
    space = Ragged()
    table = table_of(space)
    alpha = torch.zeros(space.shape, dtype=torch.float64, requires_grad=True)
    first = None
    for _ in range(200):
        value = expected(alpha.masked_fill(~space.legal, -math.inf).softmax(-1), space, table, 0.0)
        first = value.item() if first is None else first
        (gradient,) = torch.autograd.grad(value, alpha)
        alpha = (alpha - 2 * gradient).detach().requires_grad_()
    least = cost_of(space.decode(-table), space, table, 0.0)
    assert value.item() - least < 0.2 * (first - least)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(D, O\) is \(9, 4\)"):
        relax(torch.zeros(4, 9), Ragged())


# ---------------------------------------------------------------------- the penalty


def two_bounds(most, other):
    """Ragged, "macs" with entries 0.25 and "params" with entries 0.5: seven decisions are present."""
    space = Ragged()
    quarter = 0.25 * space.legal.double()
    return Budget(space, (Bound("macs", most), Bound("params", other)), (quarter, 2 * quarter), (10.0, 20.0))


def test_the_penalty_by_hand():
    """Four decisions outside limits, one and two under them: 7 present, costs 11.75 and 23.5."""
    p = soft(Ragged())
    assert two_bounds(5, 30).expected(p) == pytest.approx({"macs": 11.75, "params": 23.5})
    assert float(two_bounds(5, 30).penalty(p)) == pytest.approx(11.75 / 5 - 1)
    assert float(two_bounds(5, 30).penalty(p, strength=2)) == pytest.approx(2 * (11.75 / 5 - 1))
    assert float(two_bounds(5, 20).penalty(p)) == pytest.approx(11.75 / 5 - 1 + 23.5 / 20 - 1)


def test_the_penalty_is_zero_with_its_gradient_where_bounds_hold():
    p = soft(Ragged()).requires_grad_()
    value = two_bounds(12, 24).penalty(p)
    value.backward()
    assert value.item() == 0
    assert not p.grad.any()


def test_the_penalty_points_to_what_is_cheaper():
    space = SPACES["nasbench201"]
    least = budget(space, ["params=1"], alone=space)
    p = soft(space).requires_grad_()
    least.penalty(p).backward()
    conv, skip = (space.decisions[0].options.index(o) for o in ("nor_conv_3x3", "skip_connect"))
    assert bool((p.grad[:, conv] > p.grad[:, skip]).all())


# ---------------------------------------------------------------------- the budget


def test_costs_are_counted_at_the_size_of_use():
    """73,306 parameters: NAS-Bench-201's smallest network, at its own size, not at that of the search."""
    space = NASBench201(size=8, width=4, cells=1)
    made = budget(space, ["params=1M"])
    bare = space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert made.costs(bare) == {"params": cost(space.alone().network(bare), "params")}
    assert budget(space, ["params=1M"], alone=space).costs(bare)["params"] < made.costs(bare)["params"]


def test_a_bound_holds_up_to_and_with_its_number():
    space = SPACES["nasbench201"]
    arch = space.sample(stream("edge"))
    exact = cost(space.network(arch), "macs", (3, 8, 8))
    assert budget(space, [Bound("macs", exact)], alone=space).respects(arch)
    assert not budget(space, [Bound("macs", exact - 1)], alone=space).respects(arch)


def test_latency_needs_a_table():
    space = SPACES["ragged"]
    with pytest.raises(UserError, match="needs a table of measured latencies"):
        budget(space, ["latency=5ms"])
    made = budget(space, ["latency=5ms"], latency=(table_of(space), 2.0))
    arch = space.sample(stream(0))
    assert made.costs(arch)["latency"] == cost_of(arch, space, table_of(space), 2.0)


def test_two_bounds_on_one_unit_are_refused():
    with pytest.raises(UserError, match=r"given twice for macs \(macs=5M, macs=6M\)"):
        budget(SPACES["ragged"], ["macs=5M", "params=1M", "macs=6M"])


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="asks other questions"):
        budget(SPACES["ragged"], [], alone=SPACES["nasbench201"])


def test_a_budget_is_tightened():
    made = two_bounds(5, 30).tightened("macs", 4)
    assert made.bounds == (Bound("macs", 4), Bound("params", 30))
