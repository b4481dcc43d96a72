import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.plan import Plan, Train
from gapless.data import load
from gapless.engine.feed import Feed


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def feed(data, plan=Plan(), seed=0, **train):  # noqa: B008
    return Feed(data, plan, Train(**train), seed, torch.float32)


def test_weights_and_architecture_share_no_image_and_leave_none_out(digits):
    f = feed(digits, arch_share=0.25)
    both = torch.cat([f.weights, f.arch]).sort().values
    assert both.equal(torch.arange(len(digits.train)))
    assert len(f.arch) == round(0.25 * len(digits.train))
    assert feed(digits, seed=5, arch_share=0.25).arch.equal(f.arch), "the division must not depend on the seed"


def test_one_level_methods_train_on_everything(digits):
    f = feed(digits, Plan(coupling="joint"))
    assert f.weights.equal(torch.arange(len(digits.train)))
    assert len(f.arch) == 0


def test_an_epoch_sees_each_image_once_in_an_order_of_its_own(digits):
    f = feed(digits, batch=64)
    first, second = torch.cat(f.epoch(0, 0)), torch.cat(f.epoch(1, 0))
    assert first.sort().values.equal(f.weights)
    assert second.sort().values.equal(f.weights)
    assert not first.equal(second)
    assert torch.cat(feed(digits, batch=64).epoch(1, 0)).equal(second), (
        "the order must be a pure function of seed and epoch"
    )
    assert not torch.cat(feed(digits, seed=1, batch=64).epoch(1, 0)).equal(second)


def test_a_last_batch_of_one_image_is_left_out(digits):
    n = len(feed(digits).weights)
    assert [len(p) for p in feed(digits, batch=n - 1).epoch(0, 0)] == [n - 1]
    assert [len(p) for p in feed(digits, batch=n - 2).epoch(0, 0)] == [n - 2, 2]


def test_architecture_batches_go_round(digits):
    f = feed(digits, batch=100)
    rounds = len(f.arch) // 100
    seen = []
    original = f._batch
    f._batch = lambda index, name, step: seen.append(index) or original(index, name, step)
    for _ in range(2 * rounds):
        f.arch_batch()
    first, second = torch.cat(seen[:rounds]), torch.cat(seen[rounds:])
    assert len(first.unique()) == len(first) == 100 * rounds
    assert set(first.tolist()) <= set(f.arch.tolist())
    assert not first.equal(second)


def test_too_few_images():
    ten = load("digits", train_images=10)
    with pytest.raises(UserError, match="At least 2 training images"):
        feed(ten, arch_share=0.001)
