"""One update by numbers worked out by hand: a network of three weights, a method of one decision, and a bilinear loss.

The weights are w, alpha is the weight of each option in the mix, and the loss of a batch x under it is the sum of
``x * alpha_o * w_o`` over the options o that run: its gradient at w_o is ``x * alpha_o``, at alpha_o it is ``x * w_o``.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gapless.core.decision import Decision
from gapless.core.method import Method, Rewarded, Seen
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Released, Train
from gapless.core.progress import Progress
from gapless.engine.graphs import Update
from gapless.engine.step import Updater

PLAIN = Train(momentum=0.0, weight_decay=0.0, clip=0.0)
ADAM = Adam(lr=0.5, decay=0.0)
SEPARATE = Released(decay_step="separate")
LR = 0.1
NOW = Progress(step=3)


class Three(nn.Module):
    """Three weights, one per option."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.ParameterList(torch.tensor([value], dtype=torch.float64) for value in values)

    def values(self) -> list[float]:
        return [float(p.detach()) for p in self.w]


class One(Method):
    """One decision whose mix is alpha; ``columns`` run, or for each turn its own."""

    source = "made for this test"

    def __init__(self, plan: Plan, alpha: tuple[float, ...] = (1.0, 2.0, 3.0), turns: int = 1) -> None:
        decision = Decision("edge", ("a", "b", "c"))
        space = SimpleNamespace(label="", legal=torch.ones(1, 3, dtype=torch.bool), decisions=(decision,))
        super().__init__(space)  # type: ignore[arg-type]
        self.alpha = nn.Parameter(torch.tensor([alpha], dtype=torch.float64))
        self._plan, self.turns = plan, turns
        self.columns: Any = (0, 1, 2)
        self.asked: list[tuple[str, int]] = []
        self.shown: list[Seen] = []

    @property
    def plan(self) -> Plan:
        return self._plan

    def passes(self, now: Progress) -> int:
        return self.turns

    def mix(self, now: Progress) -> Mix:
        self.asked.append((now.phase, now.turn))
        columns = self.columns[now.turn] if isinstance(self.columns[0], tuple) else self.columns
        mask = torch.zeros(1, 3, dtype=torch.float64)
        mask[0, list(columns)] = 1
        return Mix(self.alpha * mask, (columns,))

    def scores(self) -> Tensor:
        return self.alpha

    def settle(self, seen: Seen) -> None:
        self.shown.append(seen)


def batch(x: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(x, dtype=torch.float64), torch.tensor(0)


class Fake:
    """The bilinear loss, and whatever it was called with."""

    def __init__(self, network: Three) -> None:
        self.network = network
        self.calls: list[tuple[float, list[float]]] = []

    def __call__(self, batch: tuple[Tensor, Tensor], mix: Mix) -> tuple[Tensor, Tensor]:
        x, _ = batch
        self.calls.append((float(x), mix.weight.detach()[0].tolist()))
        assert mix.active is not None
        loss = torch.stack([x * mix.weight[0, o] * self.network.w[o] for o in mix.active[0]]).sum()
        return loss, x / 10


class Setup:
    """An updater, with the gradients that arrive at Adam."""

    def __init__(self, method: One, train: Train = PLAIN, w: tuple[float, ...] = (5.0, 6.0, 7.0), **more: Any) -> None:
        self.method, self.network = method, Three(*w)
        self.loss = Fake(self.network)
        self.updater = Updater(self.network, method, self.loss, train, **more)
        self.adam: list[tuple[list[float], Any, Any]] = []
        step = self.updater.arch_optimiser.step

        def watch(gradient: Mapping[str, Tensor], *, mask: Any = None, decay: Any = None) -> None:
            ran = (mask or {}).get("alpha")
            self.adam.append((gradient["alpha"][0].tolist(), None if ran is None else ran[0].tolist(), decay))
            step(gradient, mask=mask, decay=decay)

        self.updater.arch_optimiser.step = watch  # type: ignore[method-assign]

    def step(self, x: Any = 1.0, y: Any = None, *, train_arch: bool | None = None) -> tuple[float, float, float | None]:
        one, other = (self.of(x), None if y is None else self.of(y))
        wanted = y is not None if train_arch is None else train_arch
        loss, accuracy, arch_loss = self.updater.step(NOW, LR, one, other, train_arch=wanted)
        return float(loss), float(accuracy), None if arch_loss is None else float(arch_loss)

    @staticmethod
    def of(x: Any) -> Any:
        return [batch(value) for value in x] if isinstance(x, list) else batch(x)

    @property
    def w(self) -> list[float]:
        return self.network.values()

    @property
    def alpha(self) -> list[float]:
        return self.method.alpha.detach()[0].tolist()

    def momentum(self, option: int) -> float:
        return float(self.updater.optimiser.state[self.network.w[option]]["momentum_buffer"])


def setup(train: Train = PLAIN, turns: int = 1, updater: Mapping[str, Any] | None = None, **plan: Any) -> Setup:
    return Setup(One(Plan(**{"arch": ADAM, **plan}), turns=turns), train, **(updater or {}))


# ---------------------------------------------------------------------- coupling and order


def test_weights_only_descend_along_their_gradient():
    s = setup(coupling="weights_only")
    assert s.step(2.0) == (2 * (5 + 12 + 21), 0.2, None)
    assert s.w == pytest.approx([5 - 0.1 * 2, 6 - 0.1 * 4, 7 - 0.1 * 6], rel=1e-15)
    assert s.alpha == [1, 2, 3]
    assert s.adam == s.method.shown == []
    assert s.method.alpha.grad is None


def test_the_architecture_first():
    """Adam's first step is its rate against the sign of the gradient; the weights see the alpha that it has moved."""
    s = setup(order="arch_first")
    loss, _, arch_loss = s.step(2.0, 3.0)
    assert s.adam == [([15, 18, 21], [True] * 3, None)]  # 3 * w
    assert s.alpha == pytest.approx([0.5, 1.5, 2.5], rel=1e-7)
    assert s.w == pytest.approx([5 - 0.1 * 2 * 0.5, 6 - 0.1 * 2 * 1.5, 7 - 0.1 * 2 * 2.5], rel=1e-7)
    assert loss == pytest.approx(2 * (2.5 + 9 + 17.5), rel=1e-7)
    assert arch_loss == 3 * (5 + 12 + 21)


def test_the_weights_first():
    s = setup(order="weights_first")
    loss, _, arch_loss = s.step(2.0, 3.0)
    w = [4.8, 5.6, 6.4]
    assert s.w == pytest.approx(w, rel=1e-15)
    assert s.adam[0][0] == pytest.approx([3 * v for v in w], rel=1e-15)
    assert loss == 2 * (5 + 12 + 21)
    assert arch_loss == pytest.approx(3 * (4.8 + 11.2 + 19.2), rel=1e-15)
    assert [x for x, _ in s.loss.calls] == [2, 3]


def test_joint_takes_both_gradients_from_one_pass():
    s = setup(coupling="joint")
    assert s.step(2.0, train_arch=True) == (76, 0.2, 76)
    assert len(s.loss.calls) == 1
    assert s.w == pytest.approx([4.8, 5.6, 6.4], rel=1e-15)
    assert s.adam[0][0] == [10, 12, 14]
    assert s.step(2.0, train_arch=False)[2] is None
    assert len(s.adam) == 1


def test_unrolled_is_the_second_order_gradient():
    """After the virtual step w' = w - lr * x * alpha the direct gradient is y * w', and the implicit one
    -lr * x * y * alpha."""
    s = setup(coupling="unrolled", order="arch_first")
    s.step(2.0, 3.0)
    expected = [3 * (w - 0.1 * 2 * a) - 0.1 * 2 * 3 * a for w, a in ((5, 1), (6, 2), (7, 3))]
    assert s.adam[0][0] == pytest.approx(expected, rel=1e-9)
    s.updater.arch_step(NOW, LR, batch(2.0), batch(3.0))
    before = s.w
    s.updater.arch_step(NOW, LR, batch(2.0), batch(3.0))
    assert s.w == before  # bit for bit


@pytest.mark.parametrize("virtual", ["plain", "momentum"])
def test_the_virtual_step_has_momentum_and_decay_or_not(virtual):
    """After a step at x = 1 the first weight is 5 - 0.1 * (1 + 0.01 * 5) and its momentum 1.05."""
    train = replace(PLAIN, momentum=0.9, weight_decay=0.01)
    s = setup(train, coupling="unrolled", released=Released(virtual=virtual))
    s.step(1.0, train_arch=False)
    w, buffer = 5 - 0.1 * 1.05, 1.05
    assert s.w[0] == pytest.approx(w, rel=1e-15)
    assert s.momentum(0) == pytest.approx(buffer, rel=1e-15)
    s.updater.arch_step(NOW, LR, batch(2.0), batch(3.0))
    pull = 0.0 if virtual == "plain" else 0.01 * w + 0.9 * buffer
    assert s.adam[0][0][0] == pytest.approx(3 * (w - 0.1 * (2 * 1 + pull)) - 0.1 * 2 * 3 * 1, rel=1e-9)


def test_each_pass_asks_for_a_mix_of_its_own():
    s = setup(order="weights_first")
    s.step(2.0, 3.0)
    assert s.method.asked == [("weights", 0), ("arch", 0)]


# ---------------------------------------------------------------------- several passes


@pytest.mark.parametrize(("gradients", "factor"), [("sum", 4.0), ("mean", 2.0)])
def test_gradients_of_passes_are_summed_or_averaged_for_the_weights_and_summed_for_the_architecture(gradients, factor):
    s = setup(turns=2, batches="own", gradients=gradients, coupling="joint")
    assert s.step([1.0, 3.0], train_arch=True) == (pytest.approx(2 * 38), pytest.approx(0.2), pytest.approx(2 * 38))
    assert s.w == pytest.approx([5 - 0.1 * factor, 6 - 0.2 * factor, 7 - 0.3 * factor], rel=1e-15)
    assert s.adam[0][0] == [20, 24, 28]  # (1 + 3) * w
    assert s.method.asked == [("weights", 0), ("weights", 1)]


def test_passes_share_a_batch():
    s = setup(turns=2, order="weights_first")
    s.step(2.0, 3.0)
    assert [x for x, _ in s.loss.calls] == [2, 2, 3, 3]
    assert s.w == pytest.approx([5 - 0.4, 6 - 0.8, 7 - 1.2], rel=1e-15)


def test_turns_of_architecture_passes_are_counted_from_the_first():
    s = setup(turns=2, arch_block=2)
    s.updater.arch_step(NOW, LR, None, batch(1.0), first=4)
    assert s.method.asked == [("arch", 4), ("arch", 5)]
    assert (s.method.shown[0].now.phase, s.method.shown[0].now.turn) == ("arch", 4)


# ---------------------------------------------------------------------- clipping


def test_the_clip_bounds_the_norm_of_the_weights_gradient():
    """The gradient (2, 4, 6) has norm sqrt(56)."""
    s = setup(replace(PLAIN, clip=1.0), coupling="joint")
    s.step(2.0, train_arch=True)
    norm = 56**0.5
    assert s.w == pytest.approx([5 - 0.2 / norm, 6 - 0.4 / norm, 7 - 0.6 / norm], rel=1e-6)
    assert s.adam[0][0] == [10, 12, 14]


def test_the_clip_can_count_the_architecture_too():
    """With the gradient (10, 12, 14) at alpha the norm is sqrt(56 + 440), though this step does not move alpha."""
    s = setup(replace(PLAIN, clip=1.0), released=Released(clip_over="weights+arch"))
    s.step(2.0, train_arch=False)
    norm = 496**0.5
    assert s.w == pytest.approx([5 - 0.2 / norm, 6 - 0.4 / norm, 7 - 0.6 / norm], rel=1e-6)
    assert s.alpha == [1, 2, 3]


def test_the_clip_bounds_the_mean():
    s = setup(replace(PLAIN, clip=100.0), turns=2, gradients="mean", coupling="weights_only")
    s.step(2.0)
    assert s.w == pytest.approx([4.8, 5.6, 6.4], rel=1e-15)


def test_the_architecture_has_a_clip_of_its_own():
    s = setup(coupling="joint", arch_clip=1.0)
    s.step(2.0, train_arch=True)
    norm = 440**0.5
    assert s.adam[0][0] == pytest.approx([10 / norm, 12 / norm, 14 / norm], rel=1e-6)
    assert s.w == pytest.approx([4.8, 5.6, 6.4], rel=1e-15)


# ---------------------------------------------------------------------- options that did not run


@pytest.mark.parametrize(
    ("inactive", "decay_on", "pull"), [("skip", "all", None), ("coast", "all", 0.01), ("coast", "ran", 0.0)]
)
def test_a_weight_that_did_not_run_skips_or_coasts(inactive, decay_on, pull):
    """Coasting, its momentum goes on, with decay on all weights or on those that ran."""
    train = replace(PLAIN, momentum=0.9, weight_decay=0.01)
    s = setup(train, coupling="weights_only", inactive=inactive, decay_on=decay_on)
    s.step(1.0)
    w, buffer = 5 - 0.1 * 1.05, 1 + 0.01 * 5
    assert (s.w[0], s.momentum(0)) == (pytest.approx(w, rel=1e-15), pytest.approx(buffer, rel=1e-15))
    before = s.w[0], s.momentum(0)
    s.method.columns = (1, 2)
    s.step(1.0)
    if pull is None:
        assert (s.w[0], s.momentum(0)) == before
    else:
        buffer = 0.9 * buffer + pull * w
        assert s.momentum(0) == pytest.approx(buffer, rel=1e-14)
        assert s.w[0] == pytest.approx(w - 0.1 * buffer, rel=1e-14)


@pytest.mark.parametrize(
    ("inactive", "moves", "mask"),
    [("skip", "ran", [True, True, False]), ("skip", "all", None), ("coast", "ran", None)],
)
def test_adam_moves_the_options_that_ran_in_any_pass(inactive, moves, mask):
    s = setup(coupling="joint", turns=2, inactive=inactive, arch_moves=moves)
    s.method.columns = ((0,), (1,))
    s.step(1.0, train_arch=True)
    assert s.adam == [([5, 6, 0], mask, None)]
    assert s.alpha[2] == 3


def test_adam_moves_all_options_where_a_pass_ran_all(monkeypatch):
    s = setup(coupling="joint")
    mix = s.method.mix
    monkeypatch.setattr(s.method, "mix", lambda now: replace(mix(now), active=None))
    monkeypatch.setattr(s.updater, "loss", lambda batch, m: s.loss(batch, replace(m, active=((0, 1, 2),))))
    s.step(1.0, train_arch=True)
    assert s.adam == [([5, 6, 7], None, None)]


# ---------------------------------------------------------------------- decay


@pytest.mark.parametrize("decay_on", ["all", "ran"])
@pytest.mark.parametrize("inactive", ["skip", "coast"])
def test_coupled_decay_is_part_of_the_one_step(inactive, decay_on):
    train = replace(PLAIN, weight_decay=0.01)
    s = setup(train, coupling="joint", inactive=inactive, decay_on=decay_on, arch=Adam(lr=0.5, decay=0.1))
    s.method.columns = (1, 2)
    s.step(1.0, train_arch=True)
    assert s.w[1:] == pytest.approx([6 - 0.1 * (2 + 0.06), 7 - 0.1 * (3 + 0.07)], rel=1e-15)
    everywhere = inactive == "coast" and decay_on == "all"
    assert s.w[0] == pytest.approx(5 * (1 - 0.001) if everywhere else 5, rel=1e-15)
    ((gradient, _, decay),) = s.adam
    if (inactive, decay_on) == ("coast", "ran"):  # the gradient holds the decay of what ran
        assert gradient == pytest.approx([0, 6 + 0.2, 7 + 0.3], rel=1e-15)
        assert decay == 0.0
    else:
        assert (gradient, decay) == ([0, 6, 7], None)
    assert s.alpha[0] == (pytest.approx(0.5) if everywhere else 1)


@pytest.mark.parametrize("inactive", ["skip", "coast"])
def test_separate_decay_is_a_second_step_of_both_optimisers(inactive):
    """The first step is by the gradient alone, the second by 2 * decay * value over what ran: first the architecture,
    then the weights, then the decay of the architecture from where the first step has left it."""
    train = replace(PLAIN, weight_decay=0.01, momentum=0.9)
    plan = {"inactive": inactive, "decay_on": "ran", "released": SEPARATE, "arch": Adam(lr=0.5, decay=0.1)}
    s = setup(train, coupling="joint", **plan)
    s.method.columns = (1, 2)
    s.step(1.0, train_arch=True)
    moved = 6 - 0.1 * 2
    pull = 0.9 * 2 + 2 * 0.01 * moved  # momentum goes on in the second step
    assert s.momentum(1) == pytest.approx(pull, rel=1e-15)
    assert s.w[:2] == pytest.approx([5, moved - 0.1 * pull], rel=1e-15)
    (first, _, none), (second, _, nothing) = s.adam
    assert (none, nothing) == (0.0, 0.0)
    assert first == [0, 6, 7]
    assert second == pytest.approx([0, 0.2 * 1.5, 0.2 * 2.5], rel=1e-7)
    assert s.updater.arch_optimiser.steps == 2


def test_separate_decay_takes_the_weights_of_a_step_without_architecture():
    s = setup(replace(PLAIN, weight_decay=0.01), coupling="joint", decay_on="ran", released=SEPARATE)
    s.step(1.0, train_arch=False)
    assert s.w[0] == pytest.approx(4.9 * (1 - 0.1 * 0.02), rel=1e-15)
    assert s.adam == []


def test_both_steps_of_a_separate_decay_are_clipped():
    """The first gradient is 1, the second 2 * 0.01 * 4.995; both are bounded by 0.05."""
    s = setup(replace(PLAIN, weight_decay=0.01, clip=0.05), coupling="joint", decay_on="ran", released=SEPARATE)
    s.method.columns = (0,)
    s.step(1.0, train_arch=True)
    assert s.w[0] == pytest.approx(5 - 2 * 0.1 * 0.05, rel=1e-6)


# ---------------------------------------------------------------------- penalties, rewards, settling


@pytest.mark.parametrize("coupling", ["alternate", "joint"])
def test_penalties_are_added_to_the_architectures_gradient(coupling, monkeypatch):
    """Those of the method and of the cost; the weights see neither."""
    s = setup(coupling=coupling, order="weights_first", updater={"cost_penalty": lambda p: 100 * p[0, 0]})
    monkeypatch.setattr(s.method, "penalty", lambda now: 1000 * s.method.alpha[0, 1])
    monkeypatch.setattr(s.method, "probabilities", lambda: s.method.alpha)
    s.step(0.0, 0.0, train_arch=True)
    assert s.adam[0][0] == [100, 1000, 0]
    assert s.w == [5, 6, 7]


class Taught(One):
    """Learns from rewards."""

    def regret(self, mix: Mix, loss: Tensor, accuracy: Tensor) -> Tensor:
        assert mix.weight.requires_grad
        return -accuracy * self.alpha[0, 0] + loss * self.alpha[0, 1]


def test_a_rewarded_method_moves_by_its_regret_alone():
    method, measured = Taught(Plan(arch=ADAM)), []
    assert isinstance(method, Rewarded)

    def measure(mix: Mix, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
        assert not mix.weight.requires_grad
        measured.append(float(batch[0]))
        return 7.0, 0.25

    s = Setup(method, measure=measure)
    arch_loss = s.updater.arch_step(NOW, LR, None, batch(3.0))
    assert measured == [3.0]
    assert s.loss.calls == []
    assert float(arch_loss) == 7.0
    assert s.adam[0][0] == [-0.25, 7, 0]
    assert s.w == [5, 6, 7]
    (seen,) = method.shown
    assert (float(seen.loss), float(seen.accuracy), seen.gradient) == (7.0, 0.25, {})


def test_settle_is_called_with_the_last_pass_and_the_parameters_before_the_step():
    s = setup(coupling="joint", turns=2, batches="own")
    s.step([1.0, 3.0], train_arch=True)
    (seen,) = s.method.shown
    assert (seen.now, float(seen.loss), float(seen.accuracy)) == (NOW, 3 * 38, 0.3)
    assert seen.gradient["weight"][0].tolist() == [15, 18, 21]
    assert seen.before["alpha"][0].tolist() == [1, 2, 3]
    assert not seen.mix.weight.requires_grad
    assert s.method.alpha.grad is None


# ---------------------------------------------------------------------- what an updater is given


def test_the_rate_is_that_of_the_call():
    s = setup(coupling="weights_only")
    s.updater.step(NOW, 0.25, batch(1.0), None, train_arch=False)
    assert s.w == [5 - 0.25, 6 - 0.5, 7 - 0.75]


def test_the_backward_pass_of_the_weights_can_be_given():
    """It runs once per weight pass, and not for the architecture."""
    losses = []

    def backward(loss: Tensor) -> None:
        losses.append(float(loss.detach()))
        loss.backward()

    s = setup(turns=2, order="weights_first", updater={"backward": backward})
    s.step(2.0, 3.0)
    assert losses == [76, 76]


@pytest.mark.parametrize("clip_over", ["weights", "weights+arch"])
@pytest.mark.parametrize("replay", [True, False])
def test_the_move_of_the_weights_is_replayed_where_it_is_theirs_alone(replay, clip_over, monkeypatch):
    s = setup(coupling="weights_only", released=Released(clip_over=clip_over), updater={"replay": replay})
    assert s.updater._replayed is None  # in double precision
    assert isinstance(Updater(Three(1.0).float(), s.method, s.loss, PLAIN)._replayed, Update)
    moved = []
    monkeypatch.setattr(s.updater, "_replayed", lambda: moved.append(1))
    s.step(1.0)
    assert len(moved) == (replay and clip_over == "weights")
    assert (s.w == [5, 6, 7]) == bool(moved)


def test_another_network_starts_without_momentum_and_the_architecture_goes_on():
    s = setup(replace(PLAIN, momentum=0.9), order="weights_first")
    s.step(1.0, 1.0)
    other = Three(1.0, 1.0, 1.0)
    s.updater.use(other)
    s.loss.network = other
    s.step(1.0, 1.0)
    assert len(s.updater.optimiser.state) == 3
    alpha = [0.5, 1.5, 2.5]
    assert other.values() == pytest.approx([1 - 0.1 * a for a in alpha], rel=1e-7)
    assert s.updater.arch_optimiser.steps == 2
    s.updater.restart_arch()
    assert s.updater.arch_optimiser.steps == 0
