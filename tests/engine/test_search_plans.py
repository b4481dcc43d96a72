"""Fields of a plan and of training that samplers brought: blocks of architecture updates, images of each pass's own, what
decays, stages that prune over all decisions, rewards, and what is judged. In float64, on a few random images."""

import io
import math
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.bound import Bound, budget
from gapless.core.decision import Arch
from gapless.core.method import Method, Rewarded, Seen
from gapless.core.mix import Mix
from gapless.core.objective import Outcome, cross_entropy
from gapless.core.pick import Bench
from gapless.core.plan import Adam, Plan, Released, Stage, Train
from gapless.core.progress import Progress, stream
from gapless.core.space import Space
from gapless.engine.search import Search
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, Softmax, noise
from gapless.testing.methods import (
    a_resumed_search_ends_as_an_uninterrupted_one,
    a_search_is_a_function_of_the_seed,
    flat,
    made,
    story,
    watched,
)
from gapless.testing.spaces import snapshot

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=2, batch=4, lr=0.05, lr_min=0.01, weight_decay=1e-2, clip=1.0)
PLAIN = replace(TRAIN, momentum=0.0, weight_decay=0.0, clip=0.0)
FAST = Adam(lr=0.1, decay=0.01)


def search_of(method: Method, space: Space = SPACE, train: Train = TRAIN, images: int = 16, **settings: Any) -> Search:
    return Search(space, method, noise(space, images), train, **{"precision": "float64", "draws": 4, **settings})


def softmax(space: Space = SPACE, turns: int = 1, kind: type[Softmax] = Softmax, **plan: Any) -> Softmax:
    return made(lambda s: kind(s, plan=Plan(**{"arch": FAST, **plan}), turns=turns), space)


def batch_of(search: Search, part: int, step: int = 0) -> tuple[Tensor, Tensor]:
    """Return the images 4 * part to 4 * part + 3, augmented."""
    return search.feed.weight_batch(torch.arange(4 * part, 4 * part + 4), step)


def moves(search: Search, before: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: p.detach() - before[name] for name, p in search.supernet.named_parameters()}


# ---------------------------------------------------------------------- blocks


def test_a_block_stands_behind_each_epoch_and_nothing_in_its_steps():
    search, seen = search_of(softmax(arch_block=3), images=24), []
    step, update = search.updater.arch_step, search.updater.step
    search.updater.arch_step = lambda now, *a, **m: seen.append(("arch", now.epoch, now.step)) or step(now, *a, **m)
    search.updater.step = lambda now, *a, **m: seen.append(("weights", now.epoch, now.step)) or update(now, *a, **m)
    records = list(search.run())
    assert seen == [
        *(("weights", 0, i) for i in range(3)),
        *(("arch", 0, 3),) * 3,
        *(("weights", 1, i) for i in range(3, 6)),
        *(("arch", 1, 6),) * 3,
    ]
    assert search.updater.arch_optimiser.steps == 6
    assert search.feed.drawn == 6
    assert all(math.isfinite(record.arch_loss) for record in records)


def test_a_block_is_the_loop_written_out():
    """Adam on the architecture's images at the weights of the epoch's end, which the block does not move."""
    search, batches = search_of(softmax(arch_block=3), train=replace(TRAIN, epochs=1)), []
    step = search.updater.arch_step

    def watch(now: Progress, lr: float, batch: Any, arch_batch: Any, **more: Any) -> Tensor:
        assert batch is None
        batches.append(arch_batch)
        return step(now, lr, batch, arch_batch, **more)

    with mock.patch.object(search.updater, "arch_step", watch):
        (record,) = search.run()
    twin = search_of(softmax(coupling="weights_only", held_out=True), train=replace(TRAIN, epochs=1))
    list(twin.run())
    for p, q in zip(search.supernet.parameters(), twin.supernet.parameters(), strict=True):
        assert torch.equal(p, q)
    alpha = softmax().alpha.detach().double().requires_grad_()
    adam = torch.optim.Adam([alpha], lr=FAST.lr, betas=FAST.betas, weight_decay=FAST.decay)
    twin.supernet.train()
    losses = []
    for images, labels in batches:
        adam.zero_grad()
        loss = F.cross_entropy(twin.supernet(images, Mix(alpha.softmax(dim=-1))), labels)
        losses.append(float(loss.detach()))
        loss.backward()
        adam.step()
    torch.testing.assert_close(search.method.alpha.detach(), alpha.detach(), rtol=0, atol=1e-12)
    assert record.arch_loss == pytest.approx(sum(losses) / 3, rel=1e-12)


def test_a_blocks_images_are_the_architectures():
    search, asked = search_of(softmax(arch_block=5), images=40), []
    cut = search.feed._batch

    def watch(index: Tensor, name: str, *key: int) -> Any:
        asked.append((name, index.tolist(), key))
        return cut(index, name, *key)

    with mock.patch.object(search.feed, "_batch", watch):
        search.run_epoch()
    arch = [index for name, index, _ in asked if name == "arch"]
    assert len(arch) == 5
    assert len({i for index in arch for i in index}) == 20  # one round over 20 images by fours
    assert {i for index in arch for i in index} == set(search.feed.arch.tolist())
    assert {i for name, index, _ in asked if name == "weights" for i in index} == set(search.feed.weights.tolist())


def test_a_block_waits_for_the_end_of_the_warm_up():
    search = search_of(softmax(arch_block=2, warmup_epochs=1), train=replace(TRAIN, epochs=3))
    steps = []
    for record in search.run():
        steps.append((search.updater.arch_optimiser.steps, record.arch_loss is None))
    assert steps == [(0, True), (2, False), (4, False)]


class Drawn(Softmax):
    """A random mix at every pass, and a penalty of the draw."""

    def noise_of(self, now: Progress) -> Tensor:
        return torch.rand(self.alpha.shape, generator=now.stream(), dtype=torch.float64)

    def mix(self, now: Progress) -> Mix:
        return Mix((self.alpha + self.noise_of(now)).softmax(dim=-1), self.active)

    def penalty(self, now: Progress) -> Tensor:
        return (self.alpha * self.noise_of(now)).sum()


BLOCKS = {
    "softmax": partial(Softmax, plan=Plan(arch_block=3, arch=FAST)),
    "drawn": partial(Drawn, plan=Plan(arch_block=3, arch=FAST)),
    "own batches": partial(Softmax, plan=Plan(arch_block=2, batches="own", gradients="mean", arch=FAST), turns=2),
    "stages": partial(
        Softmax,
        plan=Plan(
            arch_block=2,
            arch_after_stage="restart",
            stages=(Stage(0.5, classes=0.5), Stage(0.5, keep=0.5, over="all")),
            arch=FAST,
        ),
    ),
}


@pytest.mark.parametrize(
    ("name", "space"),
    [
        pytest.param(name, space, marks=() if (name, space) == ("drawn", SPACE) else pytest.mark.full)
        for name in BLOCKS
        for space in (SPACE, Ragged())
    ],
    ids=lambda value: getattr(value, "label", value),
)
def test_a_search_with_blocks_resumes_and_is_a_function_of_the_seed(name, space):
    a_resumed_search_ends_as_an_uninterrupted_one(BLOCKS[name], space)
    a_search_is_a_function_of_the_seed(BLOCKS[name], space)


@pytest.mark.parametrize(
    "name", [n if n in ("drawn", "stages") else pytest.param(n, marks=pytest.mark.full) for n in BLOCKS]
)
def test_stopped_at_any_place_of_a_block_it_ends_as_it_would_have(name):
    """Between any two updates, of the steps or of the block: bit for bit."""
    saved: list[bytes] = []

    def save() -> None:
        buffer = io.BytesIO()
        torch.save(whole.state_dict(), buffer)
        saved.append(buffer.getvalue())

    whole = search_of(made(BLOCKS[name], SPACE), images=24)
    told = [story(record) for record in whole.run(save)]
    inside = 0
    for content in saved:
        state = torch.load(io.BytesIO(content), weights_only=True)
        inside += 0 < state["tally"]["updates"] < whole.plan.arch_block
        again = search_of(made(BLOCKS[name], SPACE), images=24)
        again.load_state_dict(state)
        begun = again.epoch
        assert [story(record) for record in again.run()] == told[begun:]
        one, other = flat(whole.state_dict()), flat(again.state_dict())
        assert one.keys() == other.keys()
        for key, value in one.items():
            same = torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
            assert same, key
    assert inside >= 2


def test_the_passes_of_a_block_are_drawn_each_on_its_own_and_the_penalty_is_of_what_was_drawn():
    method = made(BLOCKS["drawn"], SPACE)
    search, asked = search_of(method), []
    penalty = method.penalty
    with watched(method) as seen, mock.patch.object(method, "penalty", lambda now: asked.append(now) or penalty(now)):
        search.run_epoch()
    mixes = [mix.weight for phase, mix in seen if phase == "arch"]
    assert len(mixes) == len(asked) == 3
    assert [now.turn for now in asked] == [0, 1, 2]
    assert {(now.phase, now.step) for now in asked} == {("arch", 2)}
    noises = [method.noise_of(now) for now in asked]
    assert not any(torch.equal(a, b) for a, b in ((noises[0], noises[1]), (noises[1], noises[2])))


# ---------------------------------------------------------------------- images of each pass's own


def test_each_pass_of_an_update_can_have_images_of_its_own():
    """Weights and architecture: as many batches as passes, each other images; with ``share`` all passes see one."""
    for batches, each in (("share", 1), ("own", 2)):
        search, given = search_of(softmax(turns=2, batches=batches), images=32), []
        loss = search.loss
        with (
            watched(search.method) as seen,
            mock.patch.object(
                search.updater, "loss", lambda b, m, loss=loss, given=given: given.append(b[0]) or loss(b, m)
            ),
        ):
            search.run_epoch()
        phases = [phase for phase, _ in seen if phase != "judge"]
        for phase in ("weights", "arch"):
            images = [x for x, p in zip(given, phases, strict=True) if p == phase]
            pairs = list(zip(images[::2], images[1::2], strict=True))
            assert len(pairs) == 4 // each
            assert all(torch.equal(a, b) == (batches == "share") for a, b in pairs)
        assert search.feed.drawn == 4


def test_the_passes_own_images_are_a_round_over_all_of_them():
    search, asked = search_of(softmax(turns=2, batches="own"), images=32), []
    cut = search.feed._batch

    def watch(index: Tensor, name: str, *key: int) -> Any:
        asked.append((name, index.tolist(), key))
        return cut(index, name, *key)

    with mock.patch.object(search.feed, "_batch", watch):
        search.run_epoch()
    for name, own in (("weights", search.feed.weights), ("arch", search.feed.arch)):
        images = [i for n, index, _ in asked if n == name for i in index]
        assert sorted(images) == own.tolist()
    assert [key for name, _, key in asked if name == "weights"] == [(0,), (0, 1), (1,), (1, 1)]


def test_one_image_in_two_turns_is_augmented_twice():
    search = search_of(softmax())
    index = search.feed.weights[:4]
    first, again, second, later = (search.feed.weight_batch(index, *key)[0] for key in ((3,), (3, 0), (3, 1), (4, 0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(second, later)


def test_the_gradient_of_own_batches_is_the_sum_over_them():
    """By plain autograd; for the architecture, too."""
    search = search_of(softmax(turns=2, batches="own", order="weights_first"), train=PLAIN)
    mix = Mix(softmax().alpha.detach().double().softmax(dim=-1))
    parts, arch_parts = [batch_of(search, 0), batch_of(search, 1)], [batch_of(search, 2), batch_of(search, 3)]
    twin = search_of(softmax(), train=PLAIN).supernet.train()
    sum(F.cross_entropy(twin(x, mix), y) for x, y in parts).backward()
    before, given = snapshot(search.supernet), []
    adam = search.updater.arch_optimiser.step
    with mock.patch.object(
        search.updater.arch_optimiser, "step", lambda g, **m: given.append(g["alpha"].clone()) or adam(g)
    ):
        search.updater.step(Progress(), 0.1, parts, arch_parts, train_arch=True)
    for name, p in twin.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else -0.1 * p.grad
        torch.testing.assert_close(moves(search, before)[name], expected, rtol=1e-9, atol=1e-12)
    alpha = softmax().alpha.detach().double().requires_grad_()
    sum(F.cross_entropy(search.supernet(x, Mix(alpha.softmax(dim=-1))), y) for x, y in arch_parts).backward()
    torch.testing.assert_close(given[0], alpha.grad, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- the mean of gradients


@pytest.mark.parametrize("coupling", ["alternate", "joint"])
def test_the_mean_of_equal_passes_moves_the_weights_as_one_pass(coupling):
    """The weights only: the architecture's gradients are summed all the same."""
    ends = {}
    for turns, gradients in ((1, "sum"), (2, "mean"), (2, "sum")):
        search = search_of(softmax(turns=turns, coupling=coupling, gradients=gradients), train=PLAIN)
        before, given = snapshot(search.supernet), []
        adam = search.updater.arch_optimiser.step
        watch = partial(lambda adam, given, g, **m: given.append(g["alpha"].clone()) or adam(g, **m), adam, given)
        with mock.patch.object(search.updater.arch_optimiser, "step", watch):
            search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True)
        ends[turns, gradients] = moves(search, before), given[0]
    one, mean, total = ends[1, "sum"], ends[2, "mean"], ends[2, "sum"]
    torch.testing.assert_close(mean[1], 2 * one[1], rtol=1e-9, atol=1e-12)
    if coupling == "joint":  # otherwise alpha has moved by another step before
        for name, change in one[0].items():
            torch.testing.assert_close(mean[0][name], change, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(total[0][name], 2 * change, rtol=1e-9, atol=1e-12)


def test_the_clip_bounds_the_mean():
    """Of two equal passes the mean has one pass's norm: a bound just above it cuts the sum and not the mean."""
    probe = search_of(softmax(coupling="weights_only"), train=PLAIN)
    probe.updater.step(Progress(), 0.0, batch_of(probe, 0), None, train_arch=False)
    norm = float(torch.stack([p.grad.norm() for p in probe.supernet.parameters() if p.grad is not None]).norm())
    for gradients, length in (("mean", norm), ("sum", 1.5 * norm)):
        search = search_of(
            softmax(turns=2, coupling="weights_only", gradients=gradients), train=replace(PLAIN, clip=1.5 * norm)
        )
        before = snapshot(search.supernet)
        search.updater.step(Progress(), 0.1, batch_of(search, 0), None, train_arch=False)
        step = torch.stack([m.norm() for m in moves(search, before).values()]).norm()
        assert float(step) == pytest.approx(0.1 * length, rel=1e-6)


# ---------------------------------------------------------------------- the beginning of an epoch


class Begins(Softmax):
    """Counts the beginnings of epochs in its state, and moves alpha at each."""

    def __init__(self, space: Space, **settings: Any) -> None:
        super().__init__(space, **settings)
        self.register_buffer("begun", torch.zeros((), dtype=torch.long))

    def begin(self, now: Progress) -> None:
        assert not torch.is_grad_enabled()
        self.begun += 1
        self.alpha[0, 0] += 1.0
        self.seen = now


@pytest.mark.parametrize("block", [pytest.param(0, marks=pytest.mark.full), 2])
def test_an_epoch_begins_once_also_where_it_is_resumed(block):
    """Saved behind the second step of the second epoch, and in its block; a state saved between two epochs begins the
    next one."""
    make = partial(softmax, kind=Begins, arch_block=block)
    search, states = search_of(make(), images=24), {}
    search.run_epoch(lambda: states.setdefault(("first", search.step, search.tally.updates), copied(search)))
    assert int(search.method.begun) == 1
    assert (search.method.seen.epoch, search.method.seen.step, search.method.seen.steps) == (0, 0, 3)
    states["between"] = copied(search)
    search.run_epoch(lambda: states.setdefault(("second", search.step, search.tally.updates), copied(search)))
    assert int(search.method.begun) == 2
    assert (search.method.seen.epoch, search.method.seen.step) == (1, 3)
    assert len(states) == 7 + 2 * block
    for key, state in states.items():
        again = search_of(make(), images=24)
        again.load_state_dict(state)
        list(again.run())
        assert int(again.method.begun) == 2, key
        assert torch.equal(again.method.alpha, search.method.alpha), key


def copied(search: Search) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(search.state_dict(), buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


# ---------------------------------------------------------------------- what decays


def nothing(run: Any, images: Tensor, labels: Tensor, mix: Mix) -> Outcome:
    loss, logits = cross_entropy(run, images, labels, mix)
    return Outcome(0 * loss, logits)


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize(
    ("plan", "pull"),
    [
        ({}, 1),
        ({"inactive": "coast"}, 1),
        ({"inactive": "coast", "decay_on": "ran"}, 1),
        ({"decay_on": "ran", "released": Released(decay_step="separate")}, 2),
    ],
    ids=["coupled", "coasting", "what ran", "separate"],
)
def test_scales_shifts_and_biases_decay_or_not(plan, pull, norms):
    """With a gradient of zero a step is -lr * decay * w (twice that in the separate step), and nothing at all for what
    has one dimension where norms do not decay."""
    space = Ragged(affine=True)
    train = replace(TRAIN, momentum=0.0, clip=0.0, decay_norms=norms)
    search = search_of(softmax(space, coupling="joint", **plan), space, train, objective=nothing)
    with torch.no_grad():
        for p in search.supernet.parameters():
            p.add_(0.5)
    before = snapshot(search.supernet)
    search.supernet.train()
    search.updater.step(Progress(), 0.1, batch_of(search, 0), None, train_arch=True)
    kinds = set()
    for name, p in search.supernet.named_parameters():
        decays = norms or p.dim() > 1
        kinds.add((p.dim() > 1, decays))
        expected = before[name] * (1 - 0.1 * pull * TRAIN.weight_decay) if decays else before[name]
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12 if decays else 0, atol=0)
    assert kinds == {(True, True), (False, norms)}


def test_the_virtual_step_leaves_the_decay_of_norms_out_too():
    space = Ragged(affine=True)
    method = softmax(space, coupling="unrolled", released=Released(virtual="momentum"))
    search = search_of(method, space, replace(TRAIN, decay_norms=False))
    for p, drift in zip(search.supernet.parameters(), search.updater._drift(), strict=True):
        expected = TRAIN.weight_decay * p.detach() if p.dim() > 1 else torch.zeros_like(p)
        torch.testing.assert_close(drift, expected)


def test_a_search_without_decay_of_norms_resumes():
    """The optimiser has two groups; its state goes by name."""
    space, train = Ragged(affine=True), replace(TRAIN, decay_norms=False)
    whole = search_of(softmax(space), space, train)
    states: list[dict[str, Any]] = []
    list(whole.run(lambda: states.append(copied(whole))))
    assert len(whole.updater.optimiser.param_groups) == 2
    again = search_of(softmax(space), space, train)
    again.load_state_dict(states[1])
    list(again.run())
    for (name, p), q in zip(whole.supernet.state_dict().items(), again.supernet.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_without_decay_of_norms_the_rest_of_a_search_is_as_it_was():
    """On networks whose normalisations have no scale and no shift, only biases know."""
    ends = []
    for norms in (True, False):
        search = search_of(softmax(), train=replace(TRAIN, decay_norms=norms), images=4)
        before = snapshot(search.supernet)
        search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 0), train_arch=True)
        ends.append((search, before))
    (one, start), (other, _) = ends
    differs = {n for (n, p), q in zip(one.supernet.named_parameters(), other.supernet.parameters(), strict=True)
               if not torch.equal(p, q)}  # fmt: skip
    assert differs == {n for n, p in one.supernet.named_parameters() if p.dim() == 1 and start[n].any()}


# ---------------------------------------------------------------------- smoothed labels


def test_label_smoothing_is_pytorchs_in_training_and_none_where_the_supernet_is_judged():
    train = replace(TRAIN, label_smoothing=0.3, epochs=1)
    search = search_of(softmax(order="weights_first"), train=train)
    twin = search_of(softmax(), train=replace(train, label_smoothing=0.0))
    batch, arch_batch = batch_of(search, 0), batch_of(search, 1)
    mix = Mix(softmax().alpha.detach().double().softmax(dim=-1))
    search.supernet.train()
    logits = twin.supernet.train()(batch[0], mix).detach()
    loss, _, arch_loss = search.updater.step(Progress(), 0.1, batch, arch_batch, train_arch=True)
    torch.testing.assert_close(loss, F.cross_entropy(logits, batch[1], label_smoothing=0.3), rtol=1e-12, atol=0)
    one_hot = 0.7 * F.one_hot(batch[1], 10).double() + 0.03
    torch.testing.assert_close(loss, -(one_hot * logits.log_softmax(dim=-1)).sum(dim=-1).mean(), rtol=1e-12, atol=0)
    twin.supernet.load_state_dict(search.supernet.state_dict())
    logits = twin.supernet.train()(arch_batch[0], mix).detach()
    assert float(arch_loss) == pytest.approx(float(F.cross_entropy(logits, arch_batch[1], label_smoothing=0.3)))
    twin.supernet.load_state_dict(search.supernet.state_dict())
    twin.method.load_state_dict(search.method.state_dict())
    assert search.validate(Progress()) == twin.validate(Progress())


# ---------------------------------------------------------------------- stages


@pytest.mark.parametrize("after", ["continue", "restart"])
def test_the_moments_of_alpha_go_on_behind_a_stage_or_start_at_zero(after):
    stages = (Stage(0.5), Stage(0.5, keep=3))
    search = search_of(softmax(stages=stages, arch_after_stage=after))
    search.run_epoch()
    mean, steps = search.updater.arch_optimiser.mean["alpha"].clone(), search.updater.arch_optimiser.steps
    assert steps == 2
    search.enter(1)
    if after == "continue":
        assert search.updater.arch_optimiser.steps == 2
        assert torch.equal(search.updater.arch_optimiser.mean["alpha"], mean)
    else:
        assert search.updater.arch_optimiser.steps == 0
        assert not search.updater.arch_optimiser.mean["alpha"].any()
        assert not search.updater.arch_optimiser.square["alpha"].any()
    search.run_epoch()
    assert search.updater.arch_optimiser.steps == (4 if after == "continue" else 2)


def ranked(scores: list[list[float]]) -> Softmax:
    """Return a method whose scores have this order."""
    method = softmax()
    with torch.no_grad():
        method.alpha.copy_(torch.tensor(scores).log())
    return method


ROWS = [[0.50, 0.20, 0.15, 0.10, 0.05], *([[0.22, 0.21, 0.20, 0.19, 0.18]] * 5)]


def test_a_stage_can_prune_over_all_decisions_by_hand():
    """Nine of 30 are the three worst of the first decision and the worst ones of the five others; one by one: 0.05,
    0.10, 0.15, five times 0.18, and one of the five 0.19."""
    method = ranked(ROWS)
    method.narrow(Stage(keep=0.7, over="all"))
    assert method.active[0] == (0, 1)
    assert sorted(map(len, method.active[1:])) == [3, 4, 4, 4, 4]
    assert all(4 not in row for row in method.active[1:])
    other = ranked(ROWS)
    other.narrow(Stage(keep=0.7))
    assert [len(row) for row in other.active] == [4] * 6  # round(3.5) of each


def test_a_number_over_all_decisions_is_a_number_for_each_on_average():
    method = ranked(ROWS)
    method.narrow(Stage(keep=4, over="all"))
    assert sum(map(len, method.active)) == 24
    assert method.active[0] == (0, 1)
    assert sorted(map(len, method.active[1:])) == [4, 4, 4, 5, 5]


def test_pruning_over_all_leaves_each_decision_one_that_can_be_read_off():
    method = ranked([[0.9, 0.04, 0.03, 0.02, 0.01]] * 5 + [[0.2004, 0.2001, 0.2, 0.1999, 0.1996]])
    method.narrow(Stage(keep=0.05, over="all"))
    assert method.active == ((0,),) * 6
    space = Ragged()
    best = softmax(space)
    row = space.rows["3<-0"]  # "none", which may not be read off, "max", "conv"
    with torch.no_grad():
        best.alpha.zero_()
        best.alpha[row, :3] = torch.tensor([3.0, 2.0, 1.0])
    best.narrow(Stage(keep=0.05, over="all"))
    assert best.active[row] == (1,)


# ---------------------------------------------------------------------- validation


class Judged(Drawn):
    """Three draws where it is judged."""

    def passes(self, now: Progress) -> int:
        return 3 if now.phase == "judge" else 1


def test_validation_is_the_mean_over_the_draws_that_judge():
    method = softmax(kind=Judged)
    search = search_of(method)
    search.run_epoch()
    now = Progress(epoch=7, step=9)
    bench = search.bench()
    with torch.no_grad():
        each = [bench.measure(method.mix(now.at("judge", turn))) for turn in range(3)]
    assert len({loss for loss, _ in each}) == 3
    loss, accuracy = search.validate(now)
    assert loss == pytest.approx(sum(value for value, _ in each) / 3, rel=1e-12)
    assert accuracy == pytest.approx(sum(value for _, value in each) / 3, rel=1e-12)


# ---------------------------------------------------------------------- rewards


class Taught(Drawn):
    """Learns from rewards: its regret pulls alpha[0, 0] up by the accuracy; its mix has a graph that must not be
    used."""

    def __init__(self, space: Space, **settings: Any) -> None:
        super().__init__(space, **settings)
        self.told: list[tuple[Mix, float, float]] = []
        self.weight = 0.0

    def regret(self, mix: Mix, loss: Tensor, accuracy: Tensor) -> Tensor:
        assert not loss.requires_grad
        assert not accuracy.requires_grad
        self.told.append((mix, float(loss), float(accuracy)))
        return -accuracy * self.alpha[0, 0]

    def penalty(self, now: Progress) -> Tensor:
        return self.weight * self.alpha[1].sum()


def taught(weight: float = 0.0, turns: int = 2, **plan: Any) -> Taught:
    method = softmax(turns=turns, kind=Taught, bn="batch", arch_moves="all", **plan)
    assert isinstance(method, Rewarded)
    method.weight = weight
    return method


def gradient_of(search: Search, **given: Any) -> Tensor:
    """Return the gradient at alpha of an update."""
    found: list[Tensor] = []
    adam = search.updater.arch_optimiser.step
    with mock.patch.object(
        search.updater.arch_optimiser, "step", lambda g, **m: found.append(g["alpha"].clone()) or adam(g)
    ):
        search.updater.step(Progress(), 0.1, **given, train_arch=True)
    return found[0]


@pytest.mark.parametrize("batches", ["share", "own"])
def test_a_regret_is_asked_for_each_pass_with_what_its_batch_says(batches):
    """Loss and accuracy are those of the supernet under the pass's mix on the pass's batch, by the plan's statistics."""
    method = taught(batches=batches)
    search = search_of(method)
    given = [batch_of(search, 1), batch_of(search, 2)] if batches == "own" else batch_of(search, 1)
    batch = [batch_of(search, 0)] * 2 if batches == "own" else batch_of(search, 0)
    before = {n: b.clone() for n, b in search.supernet.state_dict().items()}
    expected = []
    for turn in range(2):
        mix = method.mix(Progress().at("arch", turn)).detach()
        one = given[turn] if batches == "own" else given
        expected.append((mix.weight, *search.bench().measure(mix, [one])))
    assert all(torch.equal(before[n], b) for n, b in search.supernet.state_dict().items())
    gradient = gradient_of(search, batch=batch, arch_batch=given)
    assert [(loss, accuracy) for _, loss, accuracy in method.told] == [tuple(e[1:]) for e in expected]
    assert all(torch.equal(mix.weight, e[0]) for (mix, *_), e in zip(method.told, expected, strict=True))
    wanted = torch.zeros(6, 5, dtype=torch.float64)
    wanted[0, 0] = -sum(accuracy for *_, accuracy in expected)
    torch.testing.assert_close(gradient, wanted)  # nothing came through the mix


def test_rewards_come_with_penalties_and_budgets():
    """Both move the parameters beside the regret, as for methods with a gradient at the mix."""
    free = search_of(taught())
    batch, arch_batch = batch_of(free, 0), batch_of(free, 1)
    plain = gradient_of(free, batch=batch, arch_batch=arch_batch)
    pulled = gradient_of(search_of(taught(weight=3.0)), batch=batch, arch_batch=arch_batch)
    expected = plain.clone()
    expected[1] += 3.0
    torch.testing.assert_close(pulled, expected)
    least = min(budget(SPACE, ["macs=1G"]).costs(SPACE.sample(stream("cost", i)))["macs"] for i in range(30))
    held = search_of(taught(), budget=budget(SPACE, [Bound("macs", least)]), strength=2.0)
    bound = gradient_of(held, batch=batch, arch_batch=arch_batch) - plain
    fresh = taught().double()
    held.budget.penalty(fresh.probabilities(), 2.0).backward()
    torch.testing.assert_close(bound, fresh.alpha.grad, rtol=1e-9, atol=1e-12)
    assert bound.any()


def test_a_rewarded_pass_moves_no_weight_and_no_statistic():
    search = search_of(taught(arch_block=2))
    states: list[dict[str, Tensor]] = []
    step = search.updater.arch_step

    def watch(*args: Any, **more: Any) -> Tensor:
        states.append(snapshot(search.supernet))
        answer = step(*args, **more)
        states.append(snapshot(search.supernet))
        return answer

    with mock.patch.object(search.updater, "arch_step", watch):
        search.run_epoch()
    assert len(states) == 4
    assert all(torch.equal(states[0][n], other[n]) for other in states[1:] for n in states[0])
    assert len(search.method.told) == 4


def test_settle_is_shown_a_rewarded_update():
    method, seen = taught(), []
    search = search_of(method)
    with mock.patch.object(method, "settle", seen.append):
        search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True)
    (shown,) = seen
    assert isinstance(shown, Seen)
    assert shown.gradient == {}
    assert float(shown.accuracy) == method.told[-1][2]


# ---------------------------------------------------------------------- what is judged


class Picky(Softmax):
    """Judges three architectures, one of them by four images, and answers with the second."""

    def pick(self, bench: Bench) -> Arch:
        archs = [bench.space.sample(bench.stream(f"pick {i}")) for i in range(3)]
        for arch, images in zip(archs, (None, 4, 1000), strict=True):
            bench.inherited(arch, images)
        bench.judge(bench.space.one_hot(archs[0]))  # of a mix: not noted
        return archs[1]


def test_what_a_pick_judges_is_kept_beside_the_answer():
    search = search_of(softmax(kind=Picky))
    list(search.run())
    assert search.judged == []
    answer = search.answer()
    bench = search.bench()
    archs = [SPACE.sample(bench.stream(f"pick {i}")) for i in range(3)]
    assert answer == archs[1]
    assert [(arch, images) for arch, images, _ in search.judged] == list(zip(archs, (8, 4, 8), strict=True))
    for arch, images, accuracy in search.judged:
        assert accuracy == bench.judge(SPACE.one_hot(arch), images if images == 4 else None)
    first = list(search.judged)
    search.answer()
    assert search.judged == first
