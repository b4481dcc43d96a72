"""What has gone wrong in released code of this family, across methods: each trap as a test."""

import math
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from gapless.core import catalogue
from gapless.core.cost import Undrawn
from gapless.core.decision import Arch
from gapless.core.method import Method
from gapless.core.mix import mask_of
from gapless.core.objective import Outcome, cross_entropy
from gapless.core.pick import Picks
from gapless.core.plan import Plan, Train
from gapless.core.progress import Progress, stream
from gapless.core.space import Space
from gapless.engine import bench as benches
from gapless.engine import search as searches
from gapless.engine.record import SearchRecord
from gapless.engine.search import Search
from gapless.methods.da_nas import DANAS
from gapless.methods.darts import DARTS
from gapless.methods.dsnas import DSNAS
from gapless.methods.enas import ENAS
from gapless.methods.gdas import GDAS
from gapless.methods.snas import SNAS
from gapless.methods.spos import SPOS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet
from gapless.testing.examples import Paths, Ragged, Softmax, noise
from gapless.testing.methods import made, moved
from gapless.testing.spaces import options, snapshot

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=2, batch=4, lr=0.05)
QUICK = {
    "enas": {"steps": 1, "samples": 2, "candidates": 4},
    "rsps": {"archs": 8, "finalists": 2},
    "spos": {"searcher": "random", "evaluations": 8},
    "fairnas": {"searcher": "random", "evaluations": 8},
}
"""Fewer candidates and samples than in the papers, for time."""
CATALOGUE = {
    name: partial(catalogue.find(name, "methods"), **QUICK.get(name, {})) for name in catalogue.names("methods")
}
JUDGING = {name: CATALOGUE[name] for name in QUICK}
"""The methods that judge candidates by inherited accuracy."""


def search_of(method: Method, space: Space = SPACE, images: int = 24, train: Train = TRAIN, **settings) -> Search:
    return Search(space, method, noise(space, images), train, **{"precision": "float64", "draws": 4, **settings})


def some(count: int) -> list[Arch]:
    return [SPACE.sample(stream("trap", i)) for i in range(count)]


def archs_of(method: Method, space: Space, count: int = 40) -> list[Arch]:
    """Return architectures drawn from what a method holds."""
    with torch.no_grad():
        return [space.decode(method.sample_scores(stream("trap", i))) for i in range(count)]


# ---------------------------------------------------------------------- 1: normalisation decides the ranking


class Tracked(Paths):
    """Uniform paths with images held out, judged as the class says."""

    bn = "running"

    @property
    def plan(self) -> Plan:
        return Plan(coupling="weights_only", held_out=True, bn=self.bn, calibration=16)


def trained_on_paths(bn: str) -> Search:
    search = search_of(type("Tracked", (Tracked,), {"bn": bn})(SPACE), images=48, train=replace(TRAIN, lr=0.1))
    list(search.run())
    return search


def ranking(bn: str) -> list[int]:
    bench = trained_on_paths(bn).bench()
    losses = [bench.measure(SPACE.one_hot(arch))[0] for arch in some(12)]
    return sorted(range(12), key=losses.__getitem__)


def test_1_statistics_that_mix_paths_rank_otherwise():
    """Trap 1: running means are of all paths that trained; by them the same weights rank architectures otherwise than
    by statistics of each one's own."""
    tracked, own, recalibrated = (ranking(bn) for bn in ("running", "batch", "recalibrated"))
    assert tracked != own
    assert tracked != recalibrated


def test_1_recalibrated_statistics_are_a_paths_own():
    """Trap 1: what judges an architecture is the plain mean over batches that it alone ran on."""
    search = trained_on_paths("recalibrated")
    bench, supernet = search.bench(), search.supernet
    for arch in some(3):
        mix = SPACE.one_hot(arch, dtype=torch.float64)
        found: dict[str, list[Tensor]] = {}
        judged: dict[str, Tensor] = {}

        def keep(name: str, norm: nn.BatchNorm2d, given: tuple[Tensor, ...], own=found, by=judged) -> None:
            if norm.training:
                own.setdefault(name, []).append(given[0].mean(dim=(0, 2, 3)))
            else:
                by[name] = norm.running_mean.clone()

        supernet.execution = "reference"
        norms = {n: m for n, m in supernet.named_modules() if isinstance(m, nn.BatchNorm2d)}
        hooks = [m.register_forward_pre_hook(partial(keep, n)) for n, m in norms.items()]
        bench.measure(mix)
        for hook in hooks:
            hook.remove()
        assert judged
        assert found.keys() == judged.keys()
        for name, means in found.items():
            assert len(means) == 4  # 16 images by fours
            torch.testing.assert_close(judged[name], torch.stack(means).mean(dim=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "bn"),
    [
        ("rsps", "batch"),
        ("enas", "batch"),
        ("da_nas", "batch"),
        ("spos", "recalibrated"),
        ("fairnas", "recalibrated"),
    ],
)
def test_1_what_judges_drawn_paths_has_statistics_of_their_own(name, bn):
    """Trap 1: small spaces are judged by each batch, one-shot rankings recalibrated; nothing that ranks paths tracks."""
    search = search_of(made(CATALOGUE[name], SPACE), images=24, train=replace(TRAIN, epochs=3))
    assert search.plan.bn == bn
    list(search.run())
    seen = []
    judge = benches.judge

    def watch(*args, bn: str, **more):
        seen.append(bn)
        return judge(*args, bn=bn, **more)

    with mock.patch.object(benches, "judge", watch):
        search.answer()
        search.bench().measure(SPACE.one_hot(some(1)[0]))
    assert set(seen) == {bn}


def test_1_normalisation_has_scale_and_shift_in_dsnas_only():
    """Trap 1: off in the supernets of SNAS, GDAS, SPOS and NAS-Bench-201, on in that of DSNAS and in networks alone."""
    size = {"size": 32, "classes": 10}
    plain = (
        Darts(width=4, cells=3, **SNAS.setting("darts").space),
        Darts(width=4, cells=3, **GDAS.setting("darts").space),
        ShuffleNet(**size, **SPOS.setting("shufflenet").space),
        SPACE,
    )
    for space in plain:
        assert not any(m.affine for m in site_norms(space)), space.label
    dsnas = ShuffleNet(**size, **DSNAS.setting("shufflenet").space)
    assert all(m.affine for m in site_norms(dsnas))
    assert all(m.affine for m in site_norms(ShuffleNet(**size).alone()))


def site_norms(space: Space) -> list[nn.BatchNorm2d]:
    """Return the normalisations inside of options."""
    with Undrawn():
        supernet = searches.Supernet(space)
    found = [m for *_, module in options(supernet) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert found
    return found


# ---------------------------------------------------------------------- 2: what did not run


@pytest.mark.parametrize("inactive", ["skip", "coast"])
def test_2_blocks_that_did_not_run_rest_or_coast_as_dsnas_is_told(inactive):
    """Trap 2: whether decay and momentum move what did not run must not hang on how a version of PyTorch clears
    gradients: it is an option. Resting is bit for bit; coasting is -lr * (0.9 momentum + decay * w)."""
    method = made(partial(DSNAS, inactive=inactive, freeze=1.0), SPACE)
    search = search_of(method, train=replace(TRAIN, weight_decay=0.1, clip=0.0))
    batch, rows = search.feed.weight_batch(torch.arange(4), 0), range(len(SPACE.decisions))
    search.supernet.train()
    for column in (3, 2):
        before = snapshot(search.supernet)
        momentum = {p: s["momentum_buffer"].clone() for p, s in search.updater.optimiser.state.items()}
        with mock.patch.object(method, "drawn", return_value=(column,) * len(rows)):
            search.updater.step(Progress(step=3 - column), 0.1, batch, None, train_arch=True)
    rested = 0
    for path, _, column, module in options(search.supernet):
        for name, p in module.named_parameters():
            start = before[f"{path}.{name}"]
            if column == 2:
                assert not torch.equal(p.detach(), start)
                continue
            rested += 1
            expected = start
            if inactive == "coast":
                expected = start - 0.1 * (0.9 * momentum[p] + 0.1 * start)
            torch.testing.assert_close(p.detach(), expected, rtol=0 if inactive == "skip" else 1e-12, atol=0)
    assert rested


def test_2_the_path_decides_and_not_a_gradient_of_zero():
    """Trap 2: with a loss of zero all gradients are zero; what the path ran decays all the same, and nothing else."""

    def nothing(run, images, labels, mix) -> Outcome:
        loss, logits = cross_entropy(run, images, labels, mix)
        return Outcome(0 * loss, logits)

    method = made(partial(SPOS, evaluations=2), SPACE)
    search = search_of(method, train=replace(TRAIN, weight_decay=0.1, momentum=0.0), objective=nothing)
    before = snapshot(search.supernet)
    arch = SPACE.parse(
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|nor_conv_1x1~1|avg_pool_3x3~2|"
    )
    mix = SPACE.one_hot(arch, dtype=torch.float64)
    search.supernet.train()
    with mock.patch.object(method, "mix", return_value=mix):
        search.updater.step(Progress(), 0.1, search.feed.weight_batch(torch.arange(4), 0), None, train_arch=False)
    ran, moved_at_all = mask_of(mix.active, SPACE.columns), 0
    for path, row, column, module in options(search.supernet):
        for name, p in module.named_parameters():
            start = before[f"{path}.{name}"]
            if ran[row, column]:
                moved_at_all += 1
                torch.testing.assert_close(p.detach(), start * (1 - 0.1 * 0.1), rtol=1e-12, atol=0)
            else:
                assert torch.equal(p.detach(), start)
    assert moved_at_all


def test_2_momentum_of_what_did_not_run_is_not_used_up():
    """Trap 2: under "skip" an option that comes back after a rest goes on with the momentum that it had."""
    search = search_of(made(partial(SPOS, evaluations=2), SPACE))
    assert search.plan.inactive == "skip"
    batch = search.feed.weight_batch(torch.arange(4), 0)
    search.supernet.train()
    momenta = []
    for column in (3, 2):
        mix = SPACE.one_hot(Arch({d.name: d.options[column] for d in SPACE.decisions}), dtype=torch.float64)
        with mock.patch.object(search.method, "mix", return_value=mix):
            search.updater.step(Progress(), 0.1, batch, None, train_arch=False)
        here = [p for *_, c, module in options(search.supernet) if c == 3 for p in module.parameters()]
        momenta.append([search.updater.optimiser.state[p]["momentum_buffer"].clone() for p in here])
    assert momenta[0]
    assert all(map(torch.equal, *momenta))


# ---------------------------------------------------------------------- 3: "none"


def likes_none(kind: type[Method], space: Space) -> Method:
    """Return a method that holds "none" to be best everywhere."""
    method = kind(space)
    with torch.no_grad():
        method.alpha.fill_(-2.0)
        method.alpha[:, space.decisions[0].options.index("none")] = 2.0
    return method


def test_3_snas_on_darts_keeps_all_edges_and_may_answer_none():
    """Trap 3: its read-out is the argmax over all operations of all 14 edges of each cell."""
    space = Darts(**SNAS.setting("darts").space)
    answer = space.decode(likes_none(SNAS, space).scores())
    assert len(answer) == 28
    assert set(answer.values()) == {"none"}


@pytest.mark.parametrize("kind", [DARTS, GDAS])
def test_3_darts_and_gdas_never_answer_none_on_darts(kind):
    """Trap 3: two operations other than "none" into each node, however likely "none" is."""
    space = Darts(**kind.setting("darts").space)
    answer = space.decode(likes_none(kind, space).scores())
    assert len(answer) == 16
    assert "none" not in answer.values()


@pytest.mark.parametrize("name", ["rsps", "spos", "fairnas", "enas"])
def test_3_what_samples_paths_on_darts_draws_no_none(name):
    """Trap 3: an answer has no "none" there, so that neither training nor candidates spend time on it."""
    space = Darts()
    method = made(CATALOGUE[name], space)
    none = torch.tensor([d.options.index("none") for d in space.decisions])
    for step in range(30):
        weight = method.mix(Progress(step=step)).weight
        assert not weight[torch.arange(len(none)), none].any()
    assert all("none" not in arch.values() for arch in archs_of(method, space))


@pytest.mark.parametrize("name", CATALOGUE)
def test_3_on_nasbench201_every_method_may_answer_none(name):
    """Trap 3: the benchmark holds cells with "none"."""
    method = moved(made(CATALOGUE[name], SPACE))
    assert any("none" in arch.values() for arch in archs_of(method, SPACE))


def test_3_dsnas_cannot_credit_none():
    """Trap 3: the output of "none" is zero, so is its credit, and so is the gradient of that decision's alpha."""
    method = made(partial(DSNAS, freeze=1.0), SPACE)
    search = search_of(method)
    columns, seen, gradients = (3, 0, 1, 2, 0, 3), [], []
    adam = search.updater.arch_optimiser.step
    search.supernet.train()
    with (
        mock.patch.object(method, "drawn", return_value=columns),
        mock.patch.object(method, "settle", seen.append),
        mock.patch.object(
            search.updater.arch_optimiser, "step", lambda g, **m: gradients.append(g["alpha"].clone()) or adam(g)
        ),
    ):
        search.updater.step(Progress(), 0.1, search.feed.weight_batch(torch.arange(4), 0), None, train_arch=True)
    none = torch.tensor([c == 0 for c in columns])
    credit, gradient = seen[0].gradient["gain"], gradients[0]
    assert not credit[none].any()
    assert not gradient[none].any()
    assert credit[~none].all()
    assert gradient[~none].all()


# ---------------------------------------------------------------------- 4: noise of the judgement


def judged_images(search: Search) -> list[tuple[Arch, Tensor]]:
    """Return the architectures that the read-out judges, and the images by which it does."""
    found: list[Tensor] = []
    judge = benches.judge

    def watch(module, forward, batches, **more):
        batches = list(batches)
        found.append(torch.cat([x for x, _ in batches]))
        return judge(module, forward, batches, **more)

    with mock.patch.object(benches, "judge", watch):
        search.answer()
    assert len(found) == len(search.judged)
    return [(arch, images) for (arch, *_), images in zip(search.judged, found, strict=True)]


@pytest.mark.parametrize("images", ["some", "all"])
@pytest.mark.parametrize("name", JUDGING)
def test_4_every_candidate_is_judged_by_the_same_images(name, images):
    """Trap 4: on other images for each, the noise of two to four points exceeds what good architectures differ by."""
    count = {"some": 8, "all": 1000 if name == "rsps" else 0}[images]
    search = search_of(made(partial(CATALOGUE[name], images=count), SPACE))
    list(search.run())
    held = len(search.feed.arch)
    found = judged_images(search)
    finalists = 2 if name == "rsps" else 0
    first, finals = found[: len(found) - finalists], found[len(found) - finalists :]
    assert len({arch for arch, _ in first}) > 2
    for group, size in ((first, held if images == "all" else 8), (finals, held)):
        assert all(len(x) == size and torch.equal(group[0][1], x) for _, x in group)
    assert judged_images(search)[0][1].equal(first[0][1])


@pytest.mark.parametrize("name", JUDGING)
def test_4_by_default_candidates_are_judged_by_thousands_of_images(name):
    """Trap 4: at least 5000 images, or all that are held out, or the best ones again by all that are held out."""
    method = catalogue.find(name, "methods")(SPACE)
    assert method.images == 0 or method.images >= 5000 or method.finalists >= 10


# ---------------------------------------------------------------------- 5: whose images


class Sealed:
    """Images whose test split cannot be had, and which say what is asked of them."""

    def __init__(self, space: Space, images: int) -> None:
        self.inner, self.asked, self.use = noise(space, images), [], "search"

    @property
    def train(self):
        return self.inner.train

    @property
    def test(self):
        raise AssertionError("a search has asked for the test images")

    def to(self, device) -> "Sealed":
        return self

    def batch(self, split, index, **more):
        assert split is self.inner.train
        self.asked.append((self.use, frozenset(index.tolist())))
        return self.inner.batch(split, index, **more)

    @contextmanager
    def used(self, use: str):
        before, self.use = self.use, use
        try:
            yield
        finally:
            self.use = before

    def of(self, *uses: str) -> set[int]:
        return {i for use, index in self.asked if use in uses for i in index}


@cache
def whole(name: str) -> tuple[Search, Sealed, list[float]]:
    """Run a method to its answer, and return the search, which images were for what, and the rate of every update."""
    space = Ragged()
    data = Sealed(space, 32)
    train = replace(TRAIN, epochs=4, lr_min=0.01)
    search = Search(space, made(CATALOGUE[name], space), data, train, draws=4)
    judge, easy, weigh, ask = benches.judge, searches.easiest_first, search.feed.weight_batch, search.feed.arch_batch

    def under(use: str, function):
        def run(*args, **more):
            with data.used(use):
                return function(*args, **more)

        return run

    def lazily(use: str, batches):
        batches = iter(batches)
        while True:
            with data.used(use):
                item = next(batches, None)
            if item is None:
                return
            yield item

    def watch(module, forward, batches, *, calibration=(), **more):
        return judge(module, forward, lazily("judge", batches), calibration=lazily("calibrate", calibration), **more)

    with (
        mock.patch.object(benches, "judge", watch),
        mock.patch.object(searches, "easiest_first", under("order", easy)),
        mock.patch.object(search.feed, "weight_batch", under("weights", weigh)),
        mock.patch.object(search.feed, "arch_batch", under("arch", ask)),
    ):
        rates = rates_of(search)
        search.answer()
    return search, data, rates


def rates_of(search: Search) -> list[float]:
    """Run a search and return the rate of every update."""
    found = []
    update = search.updater.step

    def watch(now, lr, *args, **more):
        found.append(lr)
        answer = update(now, lr, *args, **more)
        assert {group["lr"] for group in search.updater.optimiser.param_groups} == {lr}
        return answer

    with mock.patch.object(search.updater, "step", watch):
        for epoch, record in enumerate(search.run()):
            assert record.lr == found[-1], epoch
    return found


@pytest.mark.parametrize("name", CATALOGUE)
def test_5_no_method_sees_test_images_and_what_is_judged_by_is_not_trained_on(name):
    """Trap 5: weights, order of classes and statistics come from one part of the training images, architecture and
    judgements from the other; a method that divides nothing judges nothing."""
    search, data, _ = whole(name)
    assert {use for use, _ in data.asked} <= {"weights", "arch", "judge", "calibrate", "order"}
    taught, asked = data.of("weights", "calibrate", "order"), data.of("arch", "judge")
    assert not taught & asked
    assert taught <= set(search.feed.weights.tolist())
    assert asked <= set(search.feed.arch.tolist())
    divides = search.plan.held_out or search.plan.coupling in ("alternate", "unrolled")
    assert bool(asked) == divides
    assert len(data.of("weights")) > 12
    if isinstance(search.method, Picks):
        assert divides
        assert data.of("judge")


# ---------------------------------------------------------------------- 6: learning rates


def lrs_of(method: Method, train: Train) -> list[float]:
    """Return the rate of every update of a search."""
    return rates_of(search_of(method, train=train, images=60))


@pytest.mark.parametrize("name", CATALOGUE)
def test_6_every_method_follows_one_cosine_from_its_first_value_on(name):
    """Trap 6: the first epoch runs at the initial rate (SNAS's code steps before it), the last one above the floor, and
    stages, blocks and prunings neither restart nor shift it (the code of ENAS restarts, a cosine past T_max rises)."""
    *_, found = whole(name)
    by_epoch = sorted(set(found), reverse=True)
    assert found == sorted(found, reverse=True)
    assert by_epoch == pytest.approx([0.01 + 0.02 * (1 + math.cos(math.pi * e / 4)) for e in range(4)], rel=1e-12)
    assert by_epoch[0] == 0.05


def test_6_per_step_the_rate_is_the_cosine_of_the_share_that_is_done():
    """Trap 6: a rate of every iteration, and exactly zero reached by none."""
    train = replace(TRAIN, epochs=3, lr=0.5, lr_min=0.0, lr_per="step")
    found = lrs_of(Paths(SPACE), train)
    assert len(found) == 45
    assert found == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 45)) for i in range(45)], rel=1e-12)


def test_6_spos_falls_straight_to_zero_step_by_step():
    """Trap 6: 0.5 linear to 0 over all iterations."""
    setting = SPOS.setting("shufflenet").train
    assert (setting.schedule, setting.lr_per, setting.lr) == ("straight", "step", 0.5)
    found = lrs_of(Paths(SPACE), replace(setting, epochs=3, batch=4))
    assert found == pytest.approx([0.5 * (1 - i / 45) for i in range(45)], rel=1e-12)


def test_6_dsnas_warms_up_and_falls_from_where_the_curve_is():
    """Trap 6: five epochs of warm-up, then a cosine per step, of 240 epochs of which the search is the first 80."""
    setting = DSNAS.setting("shufflenet").train
    assert (setting.schedule, setting.lr_per, setting.lr, setting.lr_warmup) == ("cosine", "step", 0.5, 5)
    assert (setting.epochs, setting.lr_epochs) == (80, 240)
    found = lrs_of(Paths(SPACE), replace(setting, epochs=8, lr_epochs=24, batch=20, lr_min=0.0))
    assert found[:15] == pytest.approx([0.1 * (1 + i // 3) for i in range(15)])
    assert found[15:] == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 72)) for i in range(15, 24)])
    assert all(a > b for a, b in pairwise(found[15:]))


@pytest.mark.parametrize("name", CATALOGUE)
def test_6_a_restart_is_asked_for(name):
    """Trap 6: by default a stage goes on along the curve; DrNAS's released behaviour is its ``faithful``."""
    assert made(CATALOGUE[name], SPACE).plan.released.lr_after_stage == "continue"


# ---------------------------------------------------------------------- 7: noise in half precision

GUMBEL = {"snas": SNAS, "gdas": GDAS, "dsnas": DSNAS, "da_nas": DANAS, "enas": partial(ENAS, steps=1, samples=2)}


@pytest.mark.parametrize("name", GUMBEL)
def test_7_noise_is_drawn_in_float32_under_half_precision(name):
    """Trap 7: uniform numbers in bfloat16 have eight bits, and one in 256 of them is 0: the noise would be infinite."""
    kinds = []
    rand = torch.rand

    def watch(*args, **more):
        found = rand(*args, **more)
        kinds.append(found.dtype)
        return found

    search = search_of(made(GUMBEL[name], SPACE), images=24, precision="bfloat16", train=replace(TRAIN, epochs=3))
    with mock.patch.object(torch, "rand", watch):
        records = list(search.run())
    assert set(kinds) == {torch.float32}
    assert len(kinds) >= search.step
    assert all(math.isfinite(record.train_loss) for record in records)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", GUMBEL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_7_uniform_numbers_of_zero_and_one_make_a_finite_mix(name, value, dtype):
    """Trap 7: -log(-log U) is infinite at both ends; the released code draws again, here U is clamped."""
    method = moved(made(GUMBEL[name], SPACE)).to(dtype)

    def end(shape, *, dtype=torch.float32, **more):
        return torch.full(tuple(shape), value, dtype=dtype)

    with mock.patch.object(torch, "rand", end):
        mix = method.mix(Progress())
    assert torch.isfinite(mix.weight).all()
    assert torch.allclose(mix.weight.sum(dim=-1).float(), torch.ones(6), atol=1e-2)


# ---------------------------------------------------------------------- 8: a collapse can be seen


def entropies(record: SearchRecord) -> list[float]:
    """Return the entropy of each decision's scores, in nats."""
    return [-sum(p * math.log(p) for p in row if p > 0) for row in record.scores]


class Collapsing(Softmax):
    """Is drawn to "skip_connect", whatever the loss says."""

    def penalty(self, now: Progress) -> Tensor:
        return -1e3 * self.alpha[:, 1].sum()


def test_8_a_collapse_is_in_the_records():
    """Trap 8: a search that ends in a corner says so beside its accuracy: the entropy of its scores falls from log 5 to
    nothing, the architecture is of one operation, and so is all that is drawn from what it holds."""
    plan = Plan(arch=replace(Plan().arch, lr=0.5))
    search = search_of(made(partial(Collapsing, plan=plan), SPACE), train=replace(TRAIN, epochs=8))
    first, *_, last = search.run()
    assert entropies(last)[0] < 0.01 < 0.05 < entropies(first)[0] < math.log(5)
    assert max(entropies(last)) < 0.01
    assert set(SPACE.read(last.arch).values()) == {"skip_connect"}
    drawn = [SPACE.unpack(text) for text in last.draws]
    counts = {option: sum(list(a.values()).count(option) for a in drawn) for option in SPACE.decisions[0].options}
    assert counts["skip_connect"] > 0.99 * sum(counts.values())
    assert last.valid_accuracy is not None
    early = [SPACE.unpack(text) for text in first.draws]
    assert len(set(drawn)) < len(set(early)) / 2


@pytest.mark.parametrize("name", ["darts", "snas", "dsnas", "gdas", "da_nas", "beta_darts"])
def test_8_recorded_scores_are_probabilities_from_which_the_entropy_follows(name):
    """Trap 8: each row is a distribution over the living options, and its entropy that of what the method holds."""
    search = search_of(made(CATALOGUE[name], SPACE), train=replace(TRAIN, epochs=3))
    (*_, record) = search.run()
    p = search.method.probabilities().detach().double()
    assert all(sum(row) == pytest.approx(1, abs=1e-9) for row in record.scores)
    assert entropies(record) == pytest.approx((-torch.xlogy(p, p).sum(dim=-1)).tolist(), abs=1e-9)
    assert entropies(record) != pytest.approx([math.log(5)] * 6, abs=1e-9)


@pytest.mark.parametrize("name", JUDGING)
def test_8_what_a_read_out_judged_is_kept(name):
    """Trap 8: the spread of the candidates stands beside the answer's own accuracy."""
    search = search_of(made(CATALOGUE[name], SPACE))
    list(search.run())
    answer = search.answer()
    judged = {arch: accuracy for arch, _, accuracy in search.judged}
    assert answer in judged
    assert all(0 <= accuracy <= 1 for accuracy in judged.values())
    assert len(judged) > 2


# ---------------------------------------------------------------------- 9: multiply-adds


def test_9_a_multiply_add_counts_once():
    """Trap 9: 1024 x 1000 is 1.024 million, not (2 * 1024 - 1) * 1000, and the last convolution has 1024 channels:
    stem, last convolution and classifier of the ImageNet network cost 38.555648 million."""
    _, fixed = ShuffleNet.usual().cost_table("macs")
    stem, last, classifier = 112 * 112 * 16 * 3 * 9, 7 * 7 * 640 * 1024, 1024 * 1000
    assert (stem, last, classifier) == (5_419_008, 32_112_640, 1_024_000)
    assert fixed == stem + last + classifier == 38_555_648
    smaller = ShuffleNet.usual(classes=10).cost_table("macs")[1]
    assert fixed - smaller == 1024 * 990


@pytest.mark.parametrize(("name", "millions"), [("SPOS", 322.92), ("DSNAS", 323.33)])
def test_9_published_architectures_cost_what_was_published(name, millions):
    """Trap 9: SPOS prints 323 M; DSNAS's own counter, which counts the classifier nearly twice, one million more than
    ours of its architecture."""
    space = ShuffleNet.usual()
    table, fixed = space.cost_table("macs")
    assert float(fixed + (table * space.encode(space.parse(name))).sum()) / 1e6 == pytest.approx(millions, abs=5e-3)


def test_9_what_methods_charge_and_what_limits_hold_is_the_same_count():
    """Trap 9: SNAS's and DSNAS's cost terms, SPOS's ranges and the user's limits read one table."""
    table, fixed = SPACE.cost_table("macs")
    assert torch.equal(SNAS(SPACE, resource=1.0).costs[1].double(), table)
    assert torch.equal(DSNAS(SPACE, macs=1.0).millions, table / 1e6)
    method = SPOS(SPACE, macs_bins=(0.0, 1.0))
    for arch in some(5):
        assert method._macs(arch) == float(fixed + (table * SPACE.encode(arch)).sum())
