"""The supernet as a judge of architectures."""

import pytest
import torch

from gapless.core.bound import Bound, budget
from gapless.core.plan import Plan, Train
from gapless.engine.judge import judge, untouched
from gapless.engine.search import Search
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Paths, noise
from gapless.testing.spaces import snapshot

SPACE = NASBench201(size=8, width=4, cells=1)


class Judged(Paths):
    """Uniform paths, with images held out."""

    bn = "batch"

    @property
    def plan(self) -> Plan:
        return Plan(coupling="weights_only", held_out=True, bn=self.bn, calibration=8)


def trained(bn: str = "batch", images: int = 40, share: float = 0.5) -> Search:
    kind = type("Judged", (Judged,), {"bn": bn})
    search = Search(SPACE, kind(SPACE), noise(SPACE, images), Train(epochs=1, batch=4, arch_share=share))
    list(search.run())
    return search


@pytest.mark.parametrize("bn", ["running", "batch", "recalibrated"])
def test_two_judgements_of_one_architecture_are_one_number_and_leave_no_trace(bn):
    search = trained(bn)
    before, bench = snapshot(search.supernet), search.bench()
    archs = [SPACE.sample(torch.Generator().manual_seed(i)) for i in range(4)]
    first = [bench.judge(SPACE.one_hot(arch), 12) for arch in archs]
    torch.manual_seed(99)
    assert [bench.judge(SPACE.one_hot(arch), 12) for arch in reversed(archs)] == first[::-1]
    assert all(torch.equal(before[name], value) for name, value in search.supernet.state_dict().items())


def test_the_statistics_are_those_that_the_plan_says():
    """Each policy equals the judge's own under it, and they differ."""
    found = []
    for bn in ("running", "batch", "recalibrated"):
        search = trained(bn)
        bench, mix = search.bench(), SPACE.one_hot(SPACE.sample(torch.Generator().manual_seed(3)))
        calibration = [x for x, _ in search.feed.plain(search.feed.weights)] if bn == "recalibrated" else ()
        own = judge(
            search.supernet,
            lambda x, search=search, mix=mix: search.supernet(x, mix),
            search.feed.plain(search.feed.arch),
            bn=bn,
            calibration=calibration,
        )
        measured = bench.measure(mix)
        found.append(measured[0])
        if bn != "recalibrated":
            assert measured == own
    assert len(set(found)) == 3


def test_recalibration_reads_so_many_training_images_and_none_that_judge():
    search = trained("recalibrated")
    seen = []
    plain = search.feed.plain

    def watch(index, size=None):
        seen.append((index, size))
        return plain(index, size)

    search.feed.plain = watch
    search.bench().measure(SPACE.one_hot(SPACE.sample(torch.Generator().manual_seed(3))))
    (judged, _), (calibrated, size) = seen
    assert torch.equal(judged, search.feed.arch)
    assert (len(calibrated), size) == (8, 4)
    assert not set(calibrated.tolist()) & set(search.feed.arch.tolist())


def test_images_are_held_out_from_weights_only_plans_that_ask_for_it():
    search = trained(share=0.25)
    assert (len(search.feed.weights), len(search.feed.arch)) == (30, 10)
    whole = Search(SPACE, Paths(SPACE), noise(SPACE, 40), Train(epochs=1, batch=4))
    assert (len(whole.feed.weights), len(whole.feed.arch)) == (40, 0)
    assert torch.equal(whole.feed.judging(0), whole.feed.weights)


def test_a_part_of_the_images_is_the_same_for_all():
    search = trained()
    bench, asked = search.bench(), []
    measure = bench.measure

    def watch(mix, batches):
        seen = list(batches)
        asked.append(torch.cat([x for x, _ in seen]))
        return measure(mix, seen)

    bench.measure = watch
    mix = SPACE.one_hot(SPACE.sample(torch.Generator().manual_seed(3)))
    for images in (8, 8, 12, 1000):
        bench.judge(mix, images)
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(asked[2][:8], asked[0])
    assert [len(x) for x in asked] == [8, 8, 12, 20]


def test_explore_finds_the_best_that_it_judged_and_lets_finalists_run_again():
    search = trained(images=80)
    bench = search.bench()
    best = bench.explore("random", 12, images=8)
    assert len(bench.judged) == len({arch for arch, *_ in bench.judged})
    assert all(images == 8 for _, images, _ in bench.judged)
    assert {a: v for a, _, v in bench.judged}[best] == max(v for *_, v in bench.judged)
    again = search.bench()
    winner = again.explore("random", 12, images=8, finalists=3)
    final = [(a, v) for a, images, v in again.judged if images == 40]
    partial = {a: v for a, images, v in again.judged if images == 8}
    assert len(final) == 3
    assert winner == max(final, key=lambda pair: pair[1])[0]
    assert min(partial[a] for a, _ in final) >= sorted(partial.values())[-3]


def test_explore_keeps_within_the_budget():
    search = trained()
    macs = budget(SPACE, ["macs=1G"])
    drawn = sorted(macs.costs(SPACE.sample(torch.Generator().manual_seed(i)))["macs"] for i in range(9))
    search.budget = budget(SPACE, [Bound("macs", drawn[2])])
    bench = search.bench()
    assert bench.respects(bench.explore("random", 6, images=4))
    assert all(bench.respects(arch) for arch, *_ in bench.judged)


def test_nothing_is_dropped_while_batches_are_judged():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(192, 10))
    x, y = torch.randn(16, 3, 8, 8), torch.randint(10, (16,))
    expected = torch.nn.functional.cross_entropy(network.eval()(x), y)
    with untouched(network):
        loss, _ = judge(network, network, [(x, y)], bn="batch")
    assert loss == pytest.approx(float(expected.detach()))
