"""The search loop beside a loop written out by hand, and each field of a plan by what it changes. In float64, on a few
random images."""

import math
import time
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.method import Method, Seen
from gapless.core.mix import Mix
from gapless.core.objective import Outcome, cross_entropy
from gapless.core.pick import Bench
from gapless.core.plan import Adam, Plan, Released, Stage, Train
from gapless.core.progress import Progress, seeded
from gapless.core.space import Space
from gapless.engine.judge import untouched
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.kernels.announce import timing
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS
from gapless.methods.dropnas import DropNAS
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Paths, Ragged, Softmax, noise
from gapless.testing.methods import MakeMethod, made, story, watched
from gapless.testing.spaces import options, snapshot

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=2, batch=4, lr=0.05, lr_min=0.01, weight_decay=1e-2, clip=1.0)
FAST = Adam(lr=0.1, decay=0.01)


def search_of(method: Method, space: Space = SPACE, train: Train = TRAIN, images: int = 16, **settings: Any) -> Search:
    return Search(space, method, noise(space, images), train, **{"precision": "float64", "draws": 4, **settings})


def softmax(space: Space = SPACE, turns: int = 1, **plan: Any) -> Softmax:
    plan = {"arch": FAST, **plan}
    return made(lambda s: Softmax(s, plan=Plan(**plan), turns=turns), space)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def batch_of(search: Search, part: int, step: int = 0) -> tuple[Tensor, Tensor]:
    """Return the images 4 * part to 4 * part + 3, augmented."""
    return search.feed.weight_batch(torch.arange(4 * part, 4 * part + 4), step)


class Batches:
    """Records what a search feeds to its updates."""

    def __init__(self, search: Search) -> None:
        self.search, self.seen = search, []
        update = search.updater.step

        def watch(now: Progress, lr: float, batch: Any, arch_batch: Any, *, train_arch: bool) -> Any:
            self.seen.append((now, lr, batch, arch_batch, train_arch))
            return update(now, lr, batch, arch_batch, train_arch=train_arch)

        search.updater.step = watch  # type: ignore[method-assign]


# ---------------------------------------------------------------------- against a loop by hand


def by_hand(batches: Batches, coupling: str, order: str) -> tuple[Supernet, Tensor]:
    """Train a supernet and a softmax by plain PyTorch on the recorded batches, and return both."""
    search = batches.search
    with seeded(0, "weights"):
        supernet = Supernet(SPACE).double().train()
    alpha = softmax().alpha.detach().double().requires_grad_()
    sgd = torch.optim.SGD(supernet.parameters(), lr=1, momentum=TRAIN.momentum, weight_decay=TRAIN.weight_decay)
    adam = torch.optim.Adam([alpha], lr=FAST.lr, betas=FAST.betas, weight_decay=FAST.decay)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(supernet(batch[0], Mix(alpha.softmax(dim=-1))), batch[1])

    def clear() -> None:
        supernet.zero_grad(set_to_none=True)
        alpha.grad = None

    def arch(lr: float, batch: tuple[Tensor, Tensor], arch_batch: tuple[Tensor, Tensor]) -> None:
        clear()
        if coupling == "unrolled":
            alpha.grad = second_order(lr, batch, arch_batch)
        else:
            loss(arch_batch).backward()
        adam.step()

    def second_order(lr: float, batch: tuple[Tensor, Tensor], arch_batch: tuple[Tensor, Tensor]) -> Tensor:
        """Equations 7 and 8 of DARTS; the virtual step of its code has momentum and decay."""
        ws = list(supernet.parameters())
        start = [w.detach().clone() for w in ws]

        def put(values: list[Tensor]) -> None:
            with torch.no_grad():
                for w, value in zip(ws, values, strict=True):
                    w.copy_(value)

        step = list(torch.autograd.grad(loss(batch), ws))
        if search.plan.released.virtual == "momentum":
            buffers = [sgd.state.get(w, {}).get("momentum_buffer", torch.zeros_like(w)) for w in ws]
            step = [
                g + TRAIN.weight_decay * w + TRAIN.momentum * b for g, w, b in zip(step, start, buffers, strict=True)
            ]
        put([w - lr * g for w, g in zip(start, step, strict=True)])
        with untouched(supernet):
            direct, *v = torch.autograd.grad(loss(arch_batch), [alpha, *ws])
        r = 0.01 / torch.cat([g.flatten() for g in v]).norm()
        sides = []
        for sign in (1, -1):
            put([w + sign * r * g for w, g in zip(start, v, strict=True)])
            sides += torch.autograd.grad(loss(batch), [alpha])
        put(start)
        return direct - lr * (sides[0] - sides[1]) / (2 * r)

    def weights(batch: tuple[Tensor, Tensor]) -> None:
        clear()
        loss(batch).backward()
        nn.utils.clip_grad_norm_([p for p in supernet.parameters() if p.grad is not None], TRAIN.clip)
        sgd.step()

    for _, lr, batch, arch_batch, _ in batches.seen:
        sgd.param_groups[0]["lr"] = lr
        if coupling == "joint":
            weights(batch)
            adam.step()
        elif order == "arch_first":
            arch(lr, batch, arch_batch)
            weights(batch)
        else:
            weights(batch)
            if arch_batch is not None:
                arch(lr, batch, arch_batch)
    assert search.step == len(batches.seen)
    return supernet, alpha


@pytest.mark.parametrize(
    ("coupling", "order", "virtual"),
    [
        ("alternate", "arch_first", "plain"),
        ("alternate", "weights_first", "plain"),
        ("unrolled", "arch_first", "plain"),
        ("unrolled", "arch_first", "momentum"),
        ("unrolled", "weights_first", "momentum"),
        ("joint", "arch_first", "plain"),
        ("weights_only", "weights_first", "plain"),
    ],
)
def test_a_search_is_the_loop_written_out(coupling, order, virtual):
    search = search_of(softmax(coupling=coupling, order=order, released=Released(virtual=virtual)))
    batches = Batches(search)
    records = list(search.run())
    supernet, alpha = by_hand(batches, coupling, order)
    near = 1e-9 if coupling == "unrolled" else 1e-12  # a difference of losses is divided by a small radius
    torch.testing.assert_close(search.method.alpha.detach(), alpha.detach(), rtol=0, atol=near)
    for (name, p), q in zip(search.supernet.state_dict().items(), supernet.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=near, msg=lambda m, n=name: f"{n}: {m}")
    assert [r.arch_loss is None for r in records] == [coupling == "weights_only"] * 2


def test_the_two_orders_differ():
    ends = []
    for order in ("arch_first", "weights_first"):
        search = search_of(softmax(order=order))
        list(search.run())
        ends.append(search)
    assert not same_state(ends[0].supernet, ends[1].supernet)


def test_dropnas_without_dropping_is_one_level_darts():
    """A joint softmax with one optimiser step, and decay on everything."""
    zero = made(
        lambda s: DropNAS(s, rate_weights=0, rate_free=0, adjust=False, arch_lr=FAST.lr, arch_decay=FAST.decay), SPACE
    )
    ends = [search_of(zero), search_of(softmax(coupling="joint"))]
    stories = [[story(record) for record in search.run()] for search in ends]
    assert torch.equal(ends[0].method.alpha, ends[1].method.alpha)
    assert same_state(ends[0].supernet, ends[1].supernet)
    assert stories[0] == stories[1]


def test_alpha_adjust_without_dropping_changes_nothing():
    ends = []
    for adjust in (True, False):
        search = search_of(made(lambda s, a=adjust: DropNAS(s, rate_weights=0, rate_free=0, adjust=a), SPACE))
        list(search.run())
        ends.append(search.method.alpha.detach())
    assert torch.equal(*ends)


# ---------------------------------------------------------------------- second order


def test_unrolled_at_rate_zero_is_first_order():
    """Bit for bit. Only running statistics know: those of the virtual pass are not kept."""
    ends = []
    for coupling in ("alternate", "unrolled"):
        search = search_of(softmax(coupling=coupling), train=replace(TRAIN, lr=0.0, lr_min=0.0))
        list(search.run())
        ends.append(search)
    assert torch.equal(ends[0].method.alpha, ends[1].method.alpha)
    for p, q in zip(ends[0].supernet.parameters(), ends[1].supernet.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("virtual", ["plain", "momentum"])
def test_the_virtual_step_is_plain_or_has_momentum_and_decay(virtual):
    """At the first step there is no momentum yet; at the second there is: w' = w - lr * (g + decay * w + .9 *
    buffer)."""
    search = search_of(softmax(coupling="unrolled", released=Released(virtual=virtual)))
    for step in range(2):
        batch, arch_batch = batch_of(search, 0, step), batch_of(search, 1, step)
        names = dict(search.supernet.named_parameters())
        buffers = {n: search.updater.optimiser.state.get(p, {}).get("momentum_buffer") for n, p in names.items()}
        drift = search.updater._drift()
        for (n, p), d in zip(names.items(), drift, strict=True):
            expected = torch.zeros_like(p)
            if virtual == "momentum":
                expected = 1e-2 * p.detach() + (0 if buffers[n] is None else 0.9 * buffers[n])
            torch.testing.assert_close(d, expected)
        search.updater.step(Progress(step=step), 0.1, batch, arch_batch, train_arch=True)
    assert search.updater.optimiser.state


def test_the_arch_step_of_second_order_leaves_the_weights():
    """Weights after an unrolled step are those of a weight step under the alpha that it found."""
    search = search_of(softmax(coupling="unrolled", order="weights_first"))
    twin = search_of(softmax(coupling="weights_only"))
    batch, arch_batch = batch_of(search, 0), batch_of(search, 1)
    search.updater.step(Progress(), 0.1, batch, arch_batch, train_arch=True)
    twin.updater.step(Progress(), 0.1, batch, None, train_arch=False)
    for p, q in zip(search.supernet.parameters(), twin.supernet.parameters(), strict=True):
        assert torch.equal(p, q)


# ---------------------------------------------------------------------- fields of the plan


class Nothing(Softmax):
    """A sampler that has drawn "none" on every edge into the output."""

    def mix(self, now: Progress) -> Mix:
        p = self.scores()
        hot = torch.zeros_like(p)
        hot[:3, 3] = 1
        hot[3:, 0] = 1
        return Mix(hot * p, tuple((int(i),) for i in hot.argmax(dim=1)), gain=p.sum(dim=1), offset=p.sum(dim=1) - 1)


@pytest.mark.parametrize("execution", ["fused", "reference"])
@pytest.mark.parametrize("coupling", ["alternate", "joint"])
def test_an_architecture_that_leads_nowhere_has_a_gradient_of_zero(coupling, execution):
    """One of 125 random cells of NAS-Bench-201 has nothing but "none" into its output: the loss does not see the
    edges."""
    method = made(lambda s: Nothing(s, plan=Plan(coupling=coupling, arch_moves="all")), SPACE)
    search = search_of(method, execution=execution)
    seen: list[Seen] = []
    with mock.patch.object(method, "settle", seen.append):
        for record in search.run():
            assert math.isfinite(record.train_loss)
    assert len(seen) == (4 if coupling == "alternate" else 8)
    for step in seen:
        assert not step.gradient["weight"].any()


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_architecture_gradient_is_clipped_where_asked(clip):
    search = search_of(softmax(arch_clip=clip))
    norms = []
    step = search.updater.arch_optimiser.step

    def watch(gradient: dict[str, Tensor], **more: Any) -> None:
        norms.append(float(gradient["alpha"].norm()))
        step(gradient, **more)

    with mock.patch.object(search.updater.arch_optimiser, "step", watch):
        list(search.run())
    assert len(norms) == 4
    if clip is None:
        assert min(norms) > 1e-3
    else:
        assert norms == pytest.approx([clip] * 4, rel=1e-2)


def test_architecture_passes_move_the_running_statistics():
    """As in all released code."""
    buffers = {}
    for coupling in ("alternate", "weights_only"):
        search = search_of(softmax(order="weights_first", coupling=coupling))
        batch, arch_batch = batch_of(search, 0), batch_of(search, 1)
        search.updater.step(Progress(), 0.1, batch, arch_batch, train_arch=coupling == "alternate")
        buffers[coupling] = {n: b.clone() for n, b in search.supernet.named_buffers()}
    for name, value in buffers["weights_only"].items():
        assert not torch.equal(buffers["alternate"][name], value), name


class Drawn(Method):
    """A random mix at every pass."""

    source = "made for this test"

    def __init__(self, space: Space, plan: Plan) -> None:
        super().__init__(space)
        self.alpha = nn.Parameter(torch.zeros(space.shape))
        self._plan = plan

    @property
    def plan(self) -> Plan:
        return self._plan

    def mix(self, now: Progress) -> Mix:
        noise = torch.rand(self.alpha.shape, generator=now.stream(), dtype=torch.float64)
        return Mix((self.alpha + noise).softmax(dim=-1), self.active)

    def scores(self) -> Tensor:
        return self.alpha


@pytest.mark.parametrize("order", ["arch_first", "weights_first"])
def test_each_pass_has_a_mix_of_its_own(order):
    search = search_of(Drawn(SPACE, Plan(order=order, arch=FAST)))
    run = []
    loss = search.loss
    with (
        watched(search.method) as seen,
        mock.patch.object(
            search.updater, "loss", lambda batch, mix: run.append(mix.weight.detach()) or loss(batch, mix)
        ),
    ):
        search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True)
    assert [phase for phase, _ in seen] == (["arch", "weights"] if order == "arch_first" else ["weights", "arch"])
    assert len(run) == 2
    assert not torch.equal(run[0], run[1])
    assert search.method.alpha.any()


class OneMix(Softmax):
    """Returns the same mix, with the same graph, for all passes of an update."""

    last: tuple[Any, Mix] | None = None

    def mix(self, now: Progress) -> Mix:
        key = (now.step, now.phase)
        if self.last is None or self.last[0] != key:
            self.last = key, super().mix(now)
        return self.last[1]


@pytest.mark.parametrize("plan", [{}, {"released": Released(clip_over="weights+arch")}, {"coupling": "joint"}])
def test_one_mix_can_serve_several_passes(plan):
    plan = Plan(order="weights_first", arch=FAST, **plan)
    ends = []
    for kind in (OneMix, Softmax):
        method = made(lambda s, kind=kind: kind(s, plan=plan, turns=2), SPACE)
        search = search_of(method)
        assert all(math.isfinite(record.train_loss) for record in search.run())
        ends.append(method.alpha.detach())
    assert torch.equal(*ends)


def test_the_gradients_of_several_passes_are_summed():
    """Two equal passes are one with twice the gradient: twice the plain step."""
    ends, train = [], replace(TRAIN, clip=0.0, weight_decay=0.0, momentum=0.0)
    for turns in (1, 2):
        search = search_of(softmax(turns=turns, coupling="weights_only"), train=train)
        start = {n: p.detach().clone() for n, p in search.supernet.named_parameters()}
        search.updater.step(Progress(), 0.1, batch_of(search, 0), None, train_arch=False)
        ends.append({n: p.detach() - start[n] for n, p in search.supernet.named_parameters()})
    for name, change in ends[0].items():
        torch.testing.assert_close(ends[1][name], 2 * change, rtol=1e-9, atol=1e-12)


class Turns(Softmax):
    """Runs one column per pass: the third, then the fourth."""

    def mix(self, now: Progress) -> Mix:
        column = 2 + now.turn
        weight = torch.zeros_like(self.alpha)
        weight[:, column] = 1
        return Mix(weight * self.scores(), ((column,),) * len(self.alpha))


@pytest.mark.parametrize("coupling", ["alternate", "joint"])
def test_what_ran_in_any_pass_moves(coupling):
    plan = Plan(coupling=coupling, arch=FAST)
    search = search_of(made(lambda s: Turns(s, plan=plan, turns=2), SPACE))
    before = search.method.alpha.detach().clone()
    losses: list[Tensor] = []
    loss = search.loss

    def watch(batch: Any, mix: Mix) -> tuple[Tensor, Tensor]:
        found = loss(batch, mix)
        losses.append(found[0].detach())
        return found

    with mock.patch.object(search.updater, "loss", watch):
        told, _, arch_loss = search.updater.step(
            Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True
        )
    moved = search.method.alpha.detach() != before
    assert moved[:, [2, 3]].all()
    assert not moved[:, [0, 1, 4]].any()
    torch.testing.assert_close(told, torch.stack(losses[-2:]).mean())
    torch.testing.assert_close(arch_loss, torch.stack(losses[:2]).mean())


class Row(Method):
    """Runs the columns that it is told, all with weight ``level``; at level 0 nothing but decay moves alpha."""

    source = "made for this test"

    def __init__(self, space: Space, plan: Plan, level: float = 1.0) -> None:
        super().__init__(space)
        self.alpha = nn.Parameter(torch.ones(space.shape))
        self._plan, self.level = plan, level
        self.columns: tuple[int, ...] = (2, 3)

    @property
    def plan(self) -> Plan:
        return self._plan

    def mix(self, now: Progress) -> Mix:
        weight = torch.zeros_like(self.alpha)
        weight[:, list(self.columns)] = self.level
        return Mix(weight * self.alpha, (self.columns,) * len(self.alpha))

    def scores(self) -> Tensor:
        return self.alpha


def option_weights(search: Search, column: int) -> dict[str, nn.Parameter]:
    return {
        f"{path}.{n}": p
        for path, _, c, module in options(search.supernet)
        if c == column
        for n, p in module.named_parameters()
    }


@pytest.mark.parametrize("decay_on", ["all", "ran"])
@pytest.mark.parametrize("inactive", ["skip", "coast"])
@pytest.mark.parametrize("coupling", ["joint", "weights_only"])
def test_an_option_that_does_not_run_skips_or_coasts(coupling, inactive, decay_on):
    """Column 3 runs at the first step and not at the second. Skipping, it rests; coasting, momentum and perhaps decay
    move it."""
    plan = Plan(coupling=coupling, inactive=inactive, decay_on=decay_on, arch=FAST)
    search = search_of(Row(SPACE, plan))
    method, batch = search.method, batch_of(search, 0)
    joint = coupling == "joint"
    search.updater.step(Progress(), 0.1, batch, None, train_arch=joint)
    watched_weights = option_weights(search, 3)
    before = {name: p.detach().clone() for name, p in watched_weights.items()}
    momentum = {
        name: search.updater.optimiser.state[p]["momentum_buffer"].clone() for name, p in watched_weights.items()
    }
    alpha = method.alpha.detach().clone()
    assert watched_weights
    method.columns = (2,)
    search.updater.step(Progress(step=1), 0.1, batch, None, train_arch=joint)
    for name, p in watched_weights.items():
        buffer = search.updater.optimiser.state[p]["momentum_buffer"]
        if inactive == "skip":
            assert torch.equal(p, before[name])
            assert torch.equal(buffer, momentum[name])
            continue
        pull = TRAIN.weight_decay * before[name] if decay_on == "all" else 0.0
        expected = 0.9 * momentum[name] + pull
        torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(p.detach(), before[name] - 0.1 * expected, rtol=1e-12, atol=1e-15)
    if joint:
        moved = method.alpha.detach() != alpha
        assert moved[:, 2].all()
        assert moved[:, 3].all() == (inactive == "coast")
        if inactive == "coast":
            assert moved[:, 0].all() == (decay_on == "all")
        else:
            assert not moved[:, [0, 1, 4]].any()
    else:
        assert torch.equal(method.alpha.detach(), alpha)


@pytest.mark.parametrize(
    ("inactive", "step", "pull"),
    [("skip", "coupled", 1), ("coast", "coupled", 1), ("coast", "separate", 2), ("skip", "separate", 2)],
)
def test_decay_touches_what_ran_only(inactive, step, pull):
    """Partial decay. With all weights of the mix 0 nothing else moves an option: by -lr * decay * w, or twice that as
    the code has it."""
    plan = Plan(
        coupling="joint",
        inactive=inactive,
        decay_on="ran",
        arch=Adam(lr=0.1, decay=0.5),
        released=Released(decay_step=step),
    )
    search = search_of(Row(SPACE, plan, level=0.0), train=replace(TRAIN, clip=0.0))
    ran, rested = option_weights(search, 3), option_weights(search, 2)
    search.method.columns = (3, 4)
    start = {name: p.detach().clone() for name, p in (ran | rested).items()}
    search.updater.step(Progress(), 0.1, batch_of(search, 0), None, train_arch=True)
    for name, p in ran.items():
        torch.testing.assert_close(
            p.detach(), start[name] - 0.1 * pull * TRAIN.weight_decay * start[name], rtol=1e-12, atol=0
        )
    for name, p in rested.items():
        assert torch.equal(p.detach(), start[name])
    alpha = search.method.alpha.detach()
    assert torch.equal(alpha[:, [0, 1, 2]], torch.ones(6, 3, dtype=torch.float64))
    assert (alpha[:, [3, 4]] < 1).all()


def test_a_weight_step_sees_no_gradient_of_the_architecture_pass():
    """And the parameters none of the weight pass."""
    search = search_of(softmax())
    search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True)
    assert search.method.alpha.grad is None or not search.method.alpha.grad.any()
    alone = search_of(softmax())
    alone.updater.step(Progress(), 0.1, batch_of(alone, 0), None, train_arch=False)
    assert alone.method.alpha.grad is None or not alone.method.alpha.grad.any()
    assert torch.equal(alone.method.alpha, softmax().double().alpha)


class Watched(Softmax):
    """Keeps what ``settle`` was shown."""

    seen: Seen | None = None

    def settle(self, seen: Seen) -> None:
        self.seen = seen


class Pulled(Watched):
    """A penalty of 5 * sum(alpha)."""

    def penalty(self, now: Progress) -> Tensor | None:
        assert now.phase == ("weights" if self.plan.coupling == "joint" else "arch")
        return 5 * self.alpha.sum()


@pytest.mark.parametrize("coupling", ["alternate", "joint", "unrolled"])
def test_a_penalty_is_added_and_settle_is_shown_the_step(coupling):
    plain = softmax(coupling=coupling)
    pulled = made(lambda s: Pulled(s, plan=Plan(coupling=coupling, arch=FAST)), SPACE)
    found = []
    for method in (plain, pulled):
        search = search_of(method)
        step = search.updater.arch_optimiser.step
        with mock.patch.object(
            search.updater.arch_optimiser,
            "step",
            lambda g, step=step, **more: found.append(g["alpha"].clone()) or step(g, **more),
        ):
            before = method.alpha.detach().clone()
            _, _, loss = search.updater.step(Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True)
    torch.testing.assert_close(found[1], found[0] + 5)
    seen = pulled.seen
    assert torch.equal(seen.before["alpha"], before)
    assert torch.equal(seen.mix.weight, before.softmax(dim=-1))
    assert not seen.mix.weight.requires_grad
    assert set(seen.gradient) == {"weight"}
    assert seen.gradient["weight"].shape == SPACE.shape
    assert torch.equal(seen.loss, loss)
    assert 0 <= float(seen.accuracy) <= 1


# ---------------------------------------------------------------------- stages


def staged(**plan: Any) -> Method:
    """Two stages: partial channels 4 then 2, and two options left."""
    stages = (Stage(0.5, space={"partial": 4}), Stage(0.5, keep=2, space={"partial": 2}))
    return made(lambda s: Softmax(s, plan=Plan(stages=stages, arch=FAST, **plan)), SPACE)


WIDE = SPACE.replace(width=8)


@pytest.mark.parametrize(("after", "factor"), [("continue", 1.0), ("restart", 2.0)])
def test_at_a_boundary_the_supernet_grows_and_the_rate_goes_on_or_restarts(after, factor):
    train = replace(TRAIN, epochs=4, lr_min=0.0)
    search = search_of(staged(released=Released(lr_after_stage=after)), WIDE, train)
    rates, sizes = [], []
    for record in search.run():
        rates.append(record.lr)
        sizes.append((record.stage, search.space.partial, sum(p.numel() for p in search.supernet.parameters())))
    plain = [0.025 * (1 + math.cos(math.pi * e / 4)) for e in range(4)]
    assert rates == pytest.approx(plain[:2] + [factor * r for r in plain[2:]])
    assert [stage for stage, *_ in sizes] == [0, 0, 1, 1]
    assert [partial for _, partial, _ in sizes] == [4, 4, 2, 2]
    assert sizes[1][2] < sizes[2][2]
    assert all(len(row) == 2 for row in search.method.active)


def test_momentum_goes_on_over_a_boundary():
    search = search_of(staged(), WIDE)
    search.run_epoch()
    old = {
        n: search.updater.optimiser.state[p]["momentum_buffer"].clone() for n, p in search.supernet.named_parameters()
    }
    weights = snapshot(search.supernet)
    search.enter(1)
    for name, p in search.supernet.named_parameters():
        momentum = search.updater.optimiser.state[p]["momentum_buffer"]
        assert momentum.shape == p.shape
        part = tuple(slice(0, n) for n in old[name].shape)
        assert torch.equal(momentum[part], old[name])
        assert torch.equal(p[part], weights[name])
    search.run_epoch()


def test_a_stage_of_the_same_size_keeps_the_supernet():
    stages = (Stage(0.5), Stage(0.5, keep=3))
    search = search_of(softmax(stages=stages))
    before = search.supernet
    list(search.run())
    assert search.supernet is before
    assert all(len(row) == 3 for row in search.method.active)


def test_a_warm_up_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match="leaves no epoch"):
        search_of(DARTS(SPACE, warmup=2))


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize("coupling", ["joint", "weights_only"])
def test_one_level_has_nothing_to_validate_on(coupling):
    search = search_of(softmax(coupling=coupling), images=10)
    batches = Batches(search)
    record = search.run_epoch()
    assert (record.valid_loss, record.valid_accuracy) == (None, None)
    assert [(len(b[2][1]), b[3]) for b in batches.seen] == [(4, None), (4, None), (2, None)]


def test_both_sides_are_augmented_by_streams_of_their_own():
    search = search_of(softmax())
    index = search.feed.arch[:4]
    one, again, other = (search.feed._batch(index, "weights", step)[0] for step in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, search.feed._batch(index, "arch", 0)[0])


def test_validation_is_on_the_architectures_images_and_leaves_no_trace():
    train = replace(TRAIN, epochs=5, validate_every=2)
    search, silent = search_of(softmax(), train=train), search_of(softmax(), train=replace(train, validate_every=0))
    measured = [record.valid_loss is not None for record in search.run()]
    assert measured == [False, True, False, True, True]
    assert [record.valid_loss for record in silent.run()] == [None] * 5
    assert same_state(search.supernet, silent.supernet)
    assert torch.equal(search.method.alpha, silent.method.alpha)


# ---------------------------------------------------------------------- records and precision


def test_a_record_says_what_the_epoch_did():
    search = search_of(softmax())
    first, second = search.run()
    assert (first.epoch, second.epoch, first.stage) == (0, 1, 0)
    assert first.lr == 0.05
    assert second.lr == pytest.approx(0.03)
    assert first.line()["arch"] == first.arch
    assert len(second.scores) == 6
    assert len(second.scores[0]) == 5
    assert SPACE.read(second.arch) == search.arch() == SPACE.decode(torch.tensor(second.scores))
    assert 0 <= first.train_accuracy <= 100
    assert 0 <= first.valid_accuracy <= 100
    assert first.images_per_second > 0
    assert first.peak_memory_mb > 0
    assert first.seconds > 0


def test_a_search_is_not_slower_because_kernels_are_compiled(monkeypatch):
    """What is compiled between its first two steps is in neither of its measurements of time."""
    search, turns, clock, usual = search_of(softmax()), [], [0.0], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: usual() + clock[0])

    def compiling() -> None:
        turns.append(None)
        if len(turns) == 1:
            with timing():
                clock[0] += 1000

    record = next(iter(search.run(compiling)))
    assert len(turns) > 1
    assert 0 < record.seconds < 1000


def test_the_clock_that_a_method_sees():
    search = search_of(softmax(stages=(Stage(0.5), Stage(0.5))))
    batches = Batches(search)
    list(search.run())
    clocks = [now for now, *_ in batches.seen]
    assert [(now.epoch, now.step, now.steps, now.stage, now.stage_epoch) for now in clocks] == [
        (0, 0, 2, 0, 0),
        (0, 1, 2, 0, 0),
        (1, 2, 2, 1, 0),
        (1, 3, 2, 1, 0),
    ]
    assert [now.done for now in clocks] == [0, 0.25, 0.5, 0.75]
    assert {now.epochs for now in clocks} == {2}


@pytest.mark.parametrize(
    "make",
    [DARTS, lambda s: DARTS(s, unrolled=True), DrNAS, DropNAS, Paths],
    ids=["darts", "unrolled", "drnas", "dropnas", "paths"],
)
def test_bfloat16_runs(make: MakeMethod):
    space = Ragged()
    search = Search(space, made(make, space), noise(space, 16), TRAIN, precision="bfloat16")
    for record in search.run():
        assert math.isfinite(record.train_loss)
        assert record.arch_loss is None or math.isfinite(record.arch_loss)
        assert record.valid_loss is None or math.isfinite(record.valid_loss)
    assert {p.dtype for p in (*search.supernet.parameters(), *search.method.parameters())} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in (*search.supernet.parameters(), *search.method.parameters()))


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float64", torch.float64)])
def test_precision_is_that_of_all_parameters(precision, dtype):
    search = Search(SPACE, made(DARTS, SPACE), noise(SPACE, 16), TRAIN, precision=precision)
    search.run_epoch()
    assert {p.dtype for p in (*search.supernet.parameters(), *search.method.parameters())} == {dtype}


def test_float32_is_close_to_float64():
    ends = []
    for precision in ("float32", "float64"):
        search = Search(SPACE, made(DARTS, SPACE), noise(SPACE, 16), TRAIN, precision=precision)
        ends.append([record.train_loss for record in search.run()])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


# ---------------------------------------------------------------------- objectives and answers


@pytest.mark.parametrize("order", ["arch_first", "weights_first"])
def test_an_objective_takes_the_place_of_cross_entropy(order):
    """Twice the cross entropy: of the pass that comes first, twice the loss and twice the gradient."""

    def twice(run: Any, images: Tensor, labels: Tensor, mix: Mix) -> Outcome:
        loss, logits = cross_entropy(run, images, labels, mix)
        return Outcome(2 * loss, logits)

    train = replace(TRAIN, clip=0.0, weight_decay=0.0, momentum=0.0)
    seen = []
    for objective in (cross_entropy, twice):
        method = made(lambda s: Watched(s, plan=Plan(order=order, arch=FAST)), SPACE)
        search = search_of(method, train=train, objective=objective)
        start = snapshot(search.supernet)
        loss, _, arch_loss = search.updater.step(
            Progress(), 0.1, batch_of(search, 0), batch_of(search, 1), train_arch=True
        )
        moves = {n: p.detach() - start[n] for n, p in search.supernet.named_parameters()}
        first = order == "arch_first"
        seen.append({"loss": arch_loss, **method.seen.gradient} if first else {"loss": loss, **moves})
    for name, value in seen[0].items():
        torch.testing.assert_close(seen[1][name], 2 * value, rtol=1e-9, atol=1e-12)


class Picky(Softmax):
    """Answers with the drawn architecture that the supernet judges best."""

    def pick(self, bench: Bench) -> Arch:
        drawn = [bench.space.sample(bench.stream(f"pick {i}")) for i in range(5)]
        return max(drawn, key=lambda arch: bench.judge(bench.space.one_hot(arch)))


def test_a_method_can_read_its_answer_off_the_supernet():
    search = search_of(made(Picky, SPACE))
    list(search.run())
    before = snapshot(search.supernet)
    answer = search.answer()
    assert answer in [SPACE.sample(search.bench().stream(f"pick {i}")) for i in range(5)]
    assert search.answer() == answer
    assert all(torch.equal(before[name], value) for name, value in search.supernet.state_dict().items())
    plain = search_of(softmax())
    assert plain.answer() == plain.arch()


def test_a_search_that_diverges_stops_with_a_sentence(monkeypatch):
    monkeypatch.setattr("gapless.core.training.check_ranges", lambda *given: None)  # no legal rate makes it so soon
    wild = replace(TRAIN, lr=1e30, lr_min=1e30, clip=0.0)
    with pytest.raises(UserError, match=r"training loss is .* in epoch .* Try a smaller `lr`") as caught:
        list(search_of(softmax(), train=wild).run())
    assert caught.value.names == ("train.lr", "train.clip")


def test_a_separate_decay_step_needs_to_know_what_ran():
    with pytest.raises(ValueError, match="needs decay_on='ran'"):
        Plan(released=Released(decay_step="separate"))


def test_as_many_architectures_are_sampled_as_asked_for():
    """The default is 100; fewer are the first of them, and nothing else in the record changes."""
    few, many = (search_of(softmax(), draws=3).run_epoch(), search_of(softmax(), draws=100).run_epoch())
    assert len(many.draws) == 100
    assert few.draws == many.draws[:3]
    assert {**story(few), "draws": None} == {**story(many), "draws": None}
