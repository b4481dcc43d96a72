"""The read-out under bounds: against brute force, against decode, and what it says where nothing fits."""

import random

import pytest
import torch

from gapless.core.bound import Bound, Budget, budget
from gapless.core.cost import cost
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.engine.fit import cheapest, fit, optimum, possible
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, patched
from gapless.testing.spaces import enumerate_space

NB201 = NASBench201(size=8, width=4, cells=1)
DARTS = Darts(size=8, width=4, cells=3)
SPACES = {
    "ragged": Ragged(),
    "nasbench201": NB201,
    "darts": DARTS,
    "darts-all-inputs": DARTS.replace(inputs=None),
    "patched": patched(),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
CELLS = torch.cartesian_prod(*[torch.arange(5)] * 6)
"""[15625, 6]: every cell of NAS-Bench-201."""


def scores_of(space, seed):
    """Random scores of very different sizes, some with ties, most with negative numbers."""
    generator = stream("scores", seed)
    drawn = torch.randn(space.shape, generator=generator, dtype=torch.float64)
    match seed % 4:
        case 0:
            return drawn
        case 1:
            return 1e-5 * drawn - 7
        case 2:
            return (2 * drawn).round() / 2
        case _:
            return (3 * drawn).softmax(dim=-1)


def total(scores, space, arch):
    return float((scores * space.encode(arch)).sum())


def free(space):
    """A budget that never binds, whose programme is solved all the same."""
    return Budget(space, (Bound("macs", 1.0),), (torch.zeros(space.shape, dtype=torch.float64),), (0.0,))


# ---------------------------------------------------------------------- without a binding bound


@every_space
@pytest.mark.parametrize("seed", range(8))
def test_the_programme_is_decode_where_nothing_binds(space, seed):
    scores = scores_of(space, seed)
    found, read = optimum(scores, space, free(space)), space.decode(scores)
    assert total(scores, space, found) == pytest.approx(total(scores, space, read), rel=1e-12)
    if seed % 4 != 2:  # without ties it is the same architecture
        assert found == read


@every_space
def test_fit_is_decode_where_nothing_binds_with_ties_too(space):
    for seed in range(40):
        scores = scores_of(space, seed)
        assert fit(scores, space, free(space)) == space.decode(scores)
    assert fit(torch.zeros(space.shape), space, free(space)) == space.decode(torch.zeros(space.shape))


# ---------------------------------------------------------------------- against brute force


@pytest.mark.parametrize("units", [("macs",), ("params",), ("macs", "params")], ids="-".join)
def test_the_best_of_all_cells(units):
    """The bounds are the costs of a random cell that is cheaper than what is read off: it must not be missed."""
    made = budget(NB201, [Bound(unit, 1) for unit in units], alone=NB201)
    costs = [
        c + sum(t[row][CELLS[:, row]] for row in range(6)) for t, c in zip(made.tables, made.constants, strict=True)
    ]
    tried = 0
    for seed in range(16):
        scores = scores_of(NB201, seed)
        read = made.costs(NB201.decode(scores))
        cheaper = (costs[0] < read[units[0]]).nonzero().flatten()
        if not len(cheaper):
            continue
        cell = int(cheaper[int(torch.randint(len(cheaper), (), generator=stream("at", seed)))])
        tight = made
        for unit, c in zip(units, costs, strict=True):
            tight = tight.tightened(unit, float(c[cell]))
        inside = torch.stack([c <= c[cell] for c in costs]).all(dim=0)
        sums = sum(scores[row][CELLS[:, row]] for row in range(6)).masked_fill(~inside, -torch.inf)
        found = fit(scores, NB201, tight)
        assert tight.respects(found)
        assert found != NB201.decode(scores)
        assert total(scores, NB201, found) == pytest.approx(float(sums.max()), rel=1e-12)
        if seed % 4 != 2:  # without ties it is one architecture
            assert NB201.choice(found) == tuple(CELLS[int(sums.argmax())].tolist())
        tried += 1
    assert tried >= 12


def test_the_best_of_all_ragged_architectures():
    space = Ragged()
    everything = enumerate_space(space)
    made = budget(space, ["macs=1", "params=1"])
    costs = [made.costs(arch) for arch in everything]
    codes = torch.stack([space.encode(arch) for arch in everything]).double()
    bound = 0
    for seed in range(24):
        scores = scores_of(space, seed)
        limit = costs[int(torch.randint(len(costs), (), generator=stream("at", seed)))]
        tight = made.tightened("macs", limit["macs"]).tightened("params", 1.02 * limit["params"])
        inside = torch.tensor([tight.respects(arch) for arch in everything])
        sums = (codes * scores).sum(dim=(1, 2))
        found = fit(scores, space, tight)
        assert tight.respects(found)
        assert total(scores, space, found) == pytest.approx(float(sums[inside].max()), rel=1e-12)
        bound += found != space.decode(scores)
    assert bound >= 12, "the bounds hardly ever bind: this test says nothing"


@pytest.mark.parametrize("seed", range(3))
def test_no_neighbour_in_the_darts_space_is_better(seed):
    scores = scores_of(DARTS, seed)
    wide = budget(DARTS, ["macs=1", "params=1"], alone=DARTS)
    least, read = cheapest(DARTS, wide), wide.costs(DARTS.decode(scores))
    tight = wide
    for unit in ("macs", "params"):
        tight = tight.tightened(unit, least[unit] + 0.5 * (read[unit] - least[unit]))
    found = fit(scores, DARTS, tight)
    assert tight.respects(found)
    assert found != DARTS.decode(scores)
    best = total(scores, DARTS, found)
    for other in DARTS.neighbours(found):
        assert total(scores, DARTS, other) <= best + 1e-9 or not tight.respects(other)


@pytest.mark.parametrize("size", [1e3, 1e9, 1e12])
def test_large_counts_without_a_common_divisor(size):
    """Every unit counts, and the bound is the cost of one architecture to the last."""
    chance = random.Random(1)
    space = NB201
    table = torch.tensor(
        [[float(chance.randrange(int(size))) for _ in range(5)] for _ in range(6)], dtype=torch.float64
    )
    costs = 7.0 + sum(table[row][CELLS[:, row]] for row in range(6))
    for seed in range(8):
        scores = scores_of(space, 4 * seed)
        most = float(costs[chance.randrange(len(costs))])
        tight = Budget(space, (Bound("macs", most),), (table,), (7.0,))
        sums = sum(scores[row][CELLS[:, row]] for row in range(6)).masked_fill(costs > most, -torch.inf)
        found = fit(scores, space, tight)
        assert tight.respects(found)
        assert NB201.choice(found) == tuple(CELLS[int(sums.argmax())].tolist())


def test_latencies_are_no_whole_numbers():
    table = torch.rand(NB201.shape, generator=stream("ms"), dtype=torch.float64)
    costs = 0.3 + sum(table[row][CELLS[:, row]] for row in range(6))
    for seed in range(8):
        scores = scores_of(NB201, 4 * seed + 3)
        most = float(costs[int(torch.randint(len(costs), (), generator=stream("ms", seed)))]) + 1e-9
        tight = budget(NB201, [Bound("latency", most)], latency=(table, 0.3), alone=NB201)
        sums = sum(scores[row][CELLS[:, row]] for row in range(6)).masked_fill(costs > most, -torch.inf)
        found = fit(scores, NB201, tight)
        assert tight.respects(found)
        assert NB201.choice(found) == tuple(CELLS[int(sums.argmax())].tolist())


# ---------------------------------------------------------------------- what it says


def test_the_answer_is_a_function_of_the_question(capfd):
    """With ties as well, and without a word on the terminal."""
    made = budget(DARTS, ["macs=1"], alone=DARTS)
    made = made.tightened("macs", 1.3 * cheapest(DARTS, made)["macs"])
    scores = scores_of(DARTS, 2)
    assert len({fit(scores, DARTS, made) for _ in range(5)}) == 1
    assert capfd.readouterr() == ("", "")


@every_space
def test_the_cheapest_can_be_held_and_nothing_below(space):
    made = budget(space, ["macs=1", "params=1"], alone=space)
    for unit, least in cheapest(space, made).items():
        only = budget(space, [Bound(unit, least)], alone=space)
        found = fit(scores_of(space, 0), space, only)
        assert cost(space.network(found), unit, (space.channels, space.size, space.size)) == least
        with pytest.raises(UserError, match="No architecture"):
            fit(scores_of(space, 0), space, only.tightened(unit, least - 1))


def test_what_is_impossible_is_told_with_the_smallest():
    space = NASBench201()
    with pytest.raises(UserError) as caught:
        possible(space, budget(space, ["params=10k", "macs=500M"]))
    assert str(caught.value) == (
        "No architecture of nasbench201 has at most 10,000 parameters: the smallest has 73,306 "
        "(at the size at which it would be trained)."
    )
    possible(space, budget(space, ["params=73306"]))


def test_two_that_cannot_be_held_are_told_together():
    space = NASBench201()
    with pytest.raises(
        UserError,
        match=r"at most 10,000 parameters and at most 5,000 MACs: the smallest has 73,306 parameters and 7,783,040 MACs",
    ):
        possible(space, budget(space, ["params=10k", "macs=5k"]))


def test_bounds_that_exclude_each_other_are_told():
    """What is small in one unit is large in the other: each bound can be held, both cannot."""
    space = NB201
    table = torch.arange(5, dtype=torch.float64).expand(6, 5).clone()
    made = Budget(space, (Bound("macs", 6), Bound("latency", 6)), (table, 4 - table), (0.0, 0.0))
    assert cheapest(space, made) == {"macs": 0, "latency": 0}
    with pytest.raises(
        UserError,
        match=r"at most 6 MACs and at most 6 ms at once .*Each on its own is possible: the smallest architectures have 0 MACs and 0 ms",
    ):
        possible(space, made)


def test_a_constant_above_the_bound_is_impossible():
    """No option costs anything, and the network is too large all the same."""
    made = Budget(NB201, (Bound("macs", 5),), (torch.zeros(NB201.shape, dtype=torch.float64),), (6.0,))
    assert optimum(scores_of(NB201, 0), NB201, made) is None
    with pytest.raises(UserError, match="the smallest has 6"):
        possible(NB201, made)


def test_scores_must_be_scores():
    with pytest.raises(ValueError, match="not finite"):
        fit(torch.full(NB201.shape, torch.nan), NB201, free(NB201))
