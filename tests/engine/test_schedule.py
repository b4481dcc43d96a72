"""Learning rates against closed forms, and against PyTorch's scheduler where released code depends on it."""

import math
from itertools import pairwise

import pytest
import torch

from gapless.core.plan import Plan, Released, Stage, Train
from gapless.core.progress import Progress
from gapless.core.protocol import Protocol
from gapless.engine.schedule import curve, learning_rate, locate, rate

ONE = Plan()
HALVES = (Stage(0.5), Stage(0.5))


def rates(train: Train, plan: Plan = ONE, steps: int = 1) -> list[float]:
    """Return the rate of every step."""
    found = []
    for epoch in range(train.epochs):
        stage, stage_epoch = locate(plan, train.epochs, epoch)
        for i in range(steps):
            done = (epoch + i / steps) / train.epochs
            found.append(
                learning_rate(
                    train, plan, Progress(epoch, train.epochs, epoch * steps + i, steps, done, stage, stage_epoch)
                )
            )
    return found


def test_cosine_by_hand():
    train = Train(epochs=4, lr=1.0, lr_min=0.2)
    r = math.sqrt(0.5)
    assert rates(train) == pytest.approx([1.0, 0.6 + 0.4 * r, 0.6, 0.6 - 0.4 * r])
    assert curve(train, 4) == pytest.approx(0.2)


def test_a_search_may_end_before_its_schedule():
    """DSNAS: 80 epochs of a cosine over 240 end at the 80th rate of it; a shorter number than the search's has no
    effect."""
    whole = Train(epochs=240, lr=0.5, lr_min=0.0, lr_warmup=5, lr_per="step")
    assert rates(Train(**{**vars(whole), "epochs": 80, "lr_epochs": 240})) == pytest.approx(rates(whole)[:80])
    assert rates(Train(epochs=80, lr=0.5, lr_min=0.0, lr_per="step", lr_epochs=240))[40] == pytest.approx(
        0.25 * (1 + math.cos(math.pi / 6))
    )
    assert rates(Train(epochs=8, lr_epochs=4)) == rates(Train(epochs=8))


def test_darts_on_cifar():
    found = rates(Train())
    assert found[0] == 0.025
    assert found[25] == pytest.approx(0.013)
    assert found == pytest.approx([0.001 + 0.012 * (1 + math.cos(math.pi * e / 50)) for e in range(50)])
    assert all(a > b for a, b in pairwise(found))


def test_per_step_the_curve_is_finer_and_goes_through_the_same_points():
    train = Train(epochs=5, lr=0.1, lr_min=0.0)
    fine = rates(Train(epochs=5, lr=0.1, lr_min=0.0, lr_per="step"), steps=4)
    assert fine[::4] == pytest.approx(rates(train))
    assert fine == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 20)) for i in range(20)])
    assert len(set(fine)) == 20
    coarse = rates(train, steps=4)
    assert all(len(set(coarse[i : i + 4])) == 1 for i in range(0, 20, 4))


def test_a_warm_up_grows_linearly_and_does_not_shift_the_rest():
    """Released code overwrote a recursive scheduler: its epoch 5 runs at .4955 instead of .4878."""
    found = rates(Train(epochs=50, lr=0.5, lr_min=0.0, lr_warmup=5))
    assert found[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found[5] == pytest.approx(0.4878, abs=5e-5)
    assert found[5:] == rates(Train(epochs=50, lr=0.5, lr_min=0.0))[5:]


def test_constant():
    assert rates(Train(epochs=3, lr=0.3, schedule="constant")) == [0.3] * 3


# ---------------------------------------------------------------------- stages


def test_a_stage_does_not_shift_the_curve():
    train = Train(epochs=50, lr=0.1, lr_min=0.0)
    assert rates(train, Plan(stages=HALVES)) == rates(train)


def test_restarted_the_second_half_runs_at_twice_the_rate():
    """The released DrNAS on current PyTorch: .1 at epoch 25 instead of .05, and so on to the end."""
    train = Train(epochs=50, lr=0.1, lr_min=0.0)
    plain, restarted = rates(train), rates(train, Plan(stages=HALVES, released=Released(lr_after_stage="restart")))
    assert restarted[25] == pytest.approx(0.1)
    assert restarted[:25] == plain[:25]
    assert restarted[25:] == pytest.approx([2 * rate for rate in plain[25:]])


@pytest.mark.parametrize("lr_min", [0.0, 0.001])
def test_restarting_is_what_pytorchs_recursive_scheduler_does(lr_min):
    """A new optimiser at the initial rate under the old scheduler's counter."""
    train = Train(epochs=20, lr=0.1, lr_min=lr_min)

    def scheduler(optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.CosineAnnealingLR:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20, eta_min=lr_min)

    def sgd() -> torch.optim.SGD:
        return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)

    optimiser = sgd()
    schedule = scheduler(optimiser)
    seen = []
    for epoch in range(20):
        if epoch == 10:
            state = schedule.state_dict()
            optimiser = sgd()
            schedule = scheduler(optimiser)
            schedule.load_state_dict(state)
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates(train, Plan(stages=HALVES, released=Released(lr_after_stage="restart"))) == pytest.approx(
        seen, rel=1e-9
    )


def test_restarting_a_constant_rate_changes_nothing():
    train = Train(epochs=4, lr=0.3, schedule="constant")
    assert rates(train, Plan(stages=HALVES, released=Released(lr_after_stage="restart"))) == [0.3] * 4


def test_locating_an_epoch():
    plan = Plan(stages=(Stage(0.5), Stage(0.25), Stage(0.25)))
    assert [locate(plan, 8, epoch) for epoch in range(8)] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    with pytest.raises(ValueError, match="must be less than 8"):
        locate(plan, 8, 8)


def test_the_linear_rate_of_imagenet_ends_slowly():
    protocol = Protocol(epochs=250, lr=0.5, schedule="linear", lr_warmup=5)
    found = [rate(protocol, e, float(e)) for e in range(250)]
    assert found[:6] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5 * 240 / 245])
    assert found[244] == pytest.approx(0.5 * 1 / 245)
    assert found[245] == pytest.approx(0.5 * 5 / (5 * 245))
    assert found[249] == pytest.approx(0.5 * 1 / (5 * 245))
    assert [rate(Protocol(epochs=4, lr=1.0, schedule="linear"), e, 0.0) for e in range(4)] == [1, 0.75, 0.5, 0.25]


def test_the_exponential_rate_of_imagenet():
    protocol = Protocol(epochs=250, lr=0.1, schedule="exponential")
    assert [rate(protocol, e, 0.0) for e in (0, 1, 249)] == pytest.approx([0.1, 0.097, 0.1 * 0.97**249])


def test_straight_down_to_zero_by_hand():
    """Per epoch, per step, and for a network alone."""
    train = Train(epochs=4, lr=0.8, lr_min=0.1, schedule="straight")
    assert rates(train) == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert rates(Train(epochs=2, lr=0.8, schedule="straight", lr_per="step"), steps=4) == pytest.approx(
        [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    )
    assert curve(train, 4) == 0
    protocol = Protocol(epochs=4, lr=0.8, schedule="straight", lr_per="step")
    found = [rate(protocol, e, e + i / 2) for e in range(4) for i in range(2)]
    assert found == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert [rate(Protocol(epochs=4, lr=0.8, schedule="straight"), e, e + 0.5) for e in range(4)] == pytest.approx(
        [0.8, 0.6, 0.4, 0.2]
    )


def test_straight_with_a_warm_up_and_stages_goes_on_where_the_line_is():
    train = Train(epochs=8, lr=0.8, schedule="straight", lr_warmup=2)
    expected = [0.4, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates(train) == pytest.approx(expected)
    for after in ("continue", "restart"):  # a restart is of the cosine
        assert rates(train, Plan(stages=HALVES, released=Released(lr_after_stage=after))) == pytest.approx(expected)
