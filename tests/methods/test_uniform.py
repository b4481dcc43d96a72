"""The methods that learn no architecture parameter: RSPS (arXiv 1902.07638), SPOS (arXiv 1904.00420), FairNAS (arXiv
1907.01845)."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from gapless.core.bound import Bound, budget
from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.progress import Progress
from gapless.engine.search import Search
from gapless.methods.fairnas import FairNAS
from gapless.methods.rsps import RSPS
from gapless.methods.spos import SPOS
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, noise
from gapless.testing.spaces import snapshot

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=1, batch=4, lr=0.05, momentum=0.0, weight_decay=0.0, clip=0.0, validate_every=0)
SMALL = {"rsps": {"archs": 6, "images": 4, "finalists": 2}, "spos": {"evaluations": 6}, "fairnas": {"evaluations": 6}}
MAKE = {"rsps": RSPS, "spos": SPOS, "fairnas": FairNAS}


def search_of(method, space=SPACE, images: int = 24, train: Train = TRAIN, **settings) -> Search:
    return Search(space, method, noise(space, images), train, **{"precision": "float64", "draws": 4, **settings})


@pytest.mark.parametrize("name", ["rsps", "spos"])
def test_every_pass_is_a_fresh_uniform_path(name):
    """A chi-squared test per edge: over 5000 steps every operation runs equally often."""
    method = MAKE[name](SPACE, **SMALL[name])
    counts = sum(method.mix(Progress(step=step)).weight for step in range(5000))
    chi2 = ((counts - 1000) ** 2 / 1000).sum(dim=-1)
    assert (chi2 < 23.5).all()  # exceeded once in ten thousand times with four degrees of freedom
    assert all(len(row) == 1 for row in method.mix(Progress()).active)


@pytest.mark.parametrize("name", MAKE)
def test_nothing_is_learnt_but_weights(name):
    method = MAKE[name](SPACE, **SMALL[name])
    assert not list(method.parameters())
    assert (method.plan.coupling, method.plan.held_out) == ("weights_only", True)


def test_rsps_answers_with_the_best_finalist_on_all_held_out_images():
    search = search_of(RSPS(SPACE, archs=10, images=4, finalists=3))
    list(search.run())
    answer = search.answer()
    finals = {arch: accuracy for arch, images, accuracy in search.judged if images == len(search.feed.arch)}
    assert len(finals) == 3
    assert finals[answer] == max(finals.values())
    assert finals[answer] == search.bench().judge(SPACE.one_hot(answer))


@pytest.mark.parametrize("name", MAKE)
def test_the_answer_holds_a_limit(name):
    costs = budget(SPACE, ["macs=1G"])
    drawn = sorted(costs.costs(SPACE.sample(torch.Generator().manual_seed(i)))["macs"] for i in range(9))
    limit = budget(SPACE, [Bound("macs", drawn[2])])
    search = search_of(MAKE[name](SPACE, **SMALL[name]), budget=limit)
    list(search.run())
    assert limit.respects(search.answer())
    assert search.judged
    assert all(limit.respects(arch) for arch, *_ in search.judged)


# ---------------------------------------------------------------------- SPOS


def test_spos_draws_a_range_of_multiply_adds_first():
    """With two ranges, the rare one as often as the common one: the histogram is flattened."""
    table, fixed = SPACE.cost_table("macs")
    macs = sorted(
        float(fixed + (table * SPACE.encode(SPACE.sample(torch.Generator().manual_seed(i)))).sum()) / 1e6
        for i in range(400)
    )
    values = sorted(set(macs))
    cut = next((x + y) / 2 for x, y in pairwise(values) if sum(m <= x for m in macs) > 30)
    assert sum(m <= cut for m in macs) < 120
    low, high = values[0] - 1e-6, values[-1] + 1e-6
    method = SPOS(SPACE, macs_bins=(low, cut, high))
    paths = [method.mix(Progress(step=step)) for step in range(600)]
    found = [float(fixed + (table * mix.weight).sum()) / 1e6 for mix in paths]
    rare = sum(value <= cut for value in found) / 600
    assert 0.42 < rare < 0.58


@pytest.mark.parametrize("bins", [(1.0,), (2.0, 1.0), (1.0, 1.0)])
def test_spos_takes_ascending_ranges_only(bins):
    with pytest.raises(UserError, match="`macs_bins` must"):
        SPOS(SPACE, macs_bins=bins)


# ---------------------------------------------------------------------- FairNAS


@pytest.mark.parametrize("space", [SPACE, Ragged()], ids=lambda s: s.label)
def test_every_option_runs_once_in_each_update(space):
    """Strict fairness: after t updates every option of a decision with m options has run t times."""
    method = FairNAS(space)
    m = method.passes(Progress())
    for update in range(1, 8):
        turns = [method.mix(Progress(step=update).at("weights", turn)) for turn in range(m)]
        counts = sum(mix.weight for mix in turns)
        for row, columns in enumerate(method.free()):
            assert counts[row].sum() == m
            if len(columns) == m:
                assert counts[row, columns].tolist() == [1] * m
            else:  # fewer options: whole permutations, and a part of one
                assert counts[row, columns].max() - counts[row, columns].min() <= 1
            assert not counts[row][[c for c in range(space.columns) if c not in columns]].any()


def test_permutations_of_decisions_are_independent_and_fresh():
    method = FairNAS(SPACE)
    orders = [
        tuple(tuple(method.mix(Progress(step=s).at("weights", t)).active[row][0] for t in range(5)) for row in range(6))
        for s in range(20)
    ]
    assert len({order for rows in orders for order in rows}) > 60
    assert all(len(set(rows)) > 1 for rows in orders)


def gradients(search: Search, batch, mixes) -> dict[str, Tensor]:
    search.supernet.zero_grad()
    for mix, one in zip(mixes, batch, strict=True):
        search.loss(one, mix.to(dtype=torch.float64))[0].backward()
    parameters = search.supernet.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in parameters}


@pytest.mark.parametrize("kind", ["sum", "mean"])
@pytest.mark.parametrize("batches", ["share", "own"])
def test_an_update_is_one_step_along_the_sum_of_the_paths_gradients(batches, kind):
    """With ``own`` each path has a batch to itself."""
    search = search_of(FairNAS(SPACE, batches=batches, gradients=kind), images=80)
    assert len(search._parts(Progress())) == (10 if batches == "share" else 2)
    now = Progress(step=3)
    index = [torch.arange(4 * i, 4 * i + 4) for i in range(5)]
    own = [search.feed.weight_batch(i, 3, turn) for turn, i in enumerate(index)]
    batch = own if batches == "own" else own[:1] * 5
    mixes = [search.method.mix(now.at("weights", turn)) for turn in range(5)]
    expected = gradients(search, batch, mixes)
    before = {name: p.detach().clone() for name, p in search.supernet.named_parameters()}
    search.updater.step(now, 0.1, own if batches == "own" else own[0], None, train_arch=False)
    for name, p in search.supernet.named_parameters():
        step = expected[name] / (5 if kind == "mean" else 1)
        torch.testing.assert_close(before[name] - p.detach(), 0.1 * step, rtol=1e-9, atol=1e-12)


def test_step_by_step_an_update_is_one_path_and_m_of_them_are_fair():
    method = FairNAS(SPACE, accumulate=False)
    assert method.passes(Progress()) == 1
    for first in (0, 5, 10):
        counts = sum(method.mix(Progress(step=first + k)).weight for k in range(5))
        assert counts.tolist() == [[1] * 5] * 6
    assert len(search_of(method, images=80)._parts(Progress())) == 10


def test_batches_of_an_update_are_all_different_images():
    search = search_of(FairNAS(SPACE, batches="own"), images=80)
    for part in search._parts(Progress()):
        images = torch.cat(part).tolist()
        assert len(images) == len(set(images)) == 20


def test_too_few_images_for_an_update_are_used_again():
    search = search_of(FairNAS(SPACE, batches="own", evaluations=2), images=16)
    (part,) = search._parts(Progress())
    assert len(part) == 5
    assert set(torch.cat(part).tolist()) == set(search.feed.weights.tolist())
    assert [record.train_loss > 0 for record in search.run()] == [True]


def test_what_is_judged_leaves_the_supernet_as_it_was():
    search = search_of(SPOS(SPACE, evaluations=6))
    list(search.run())
    before = snapshot(search.supernet)
    search.answer()
    assert all(torch.equal(before[name], value) for name, value in search.supernet.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (RSPS, "archs", 0),
        (RSPS, "images", 0),
        (RSPS, "finalists", -1),
        (SPOS, "evaluations", 0),
        (FairNAS, "images", -1),
    ],
)
def test_a_setting_out_of_range_is_a_sentence(kind, setting, value):
    with pytest.raises(UserError, match=f"`{setting}` must"):
        kind(SPACE, **{setting: value})
