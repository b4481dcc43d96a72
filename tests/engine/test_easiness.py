"""Which classes are easy, and stages that use a share of them."""

import pytest
import torch

from gapless.core.plan import Plan, Stage, Train
from gapless.core.progress import Progress
from gapless.data.images import Augment, ImageData, Split, statistics
from gapless.engine.easiness import easiest_first
from gapless.engine.search import Search
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Softmax
from gapless.testing.methods import made

SPACE = NASBench201(size=8, width=4, cells=1, classes=4)
STAGES = (Stage(0.25, classes=0.25), Stage(0.25, classes=0.75), Stage(0.5))


def graded(images: int = 160) -> ImageData:
    """Images of four classes: those of 2 are bright, those of 0 dark; 1 and 3 are noise with labels at random."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for count in (images, 16):
        labels = torch.arange(count) % 4
        base = torch.tensor([20, 128, 235, 128])[labels].view(-1, 1, 1, 1)
        pixels = (base + torch.randint(-20, 21, (count, 3, 8, 8), generator=generator)).clamp(0, 255)
        swap = torch.rand(count, generator=generator) < 0.5
        labels = torch.where((labels % 2 == 1) & swap, 4 - labels, labels)
        splits.append(Split(pixels.to(torch.uint8), labels))
    mean, std = statistics(splits[0].pixels.numpy())
    return ImageData("graded", "made for tests", tuple("abcd"), splits[0], splits[1], mean, std, Augment())


def search_of(stages=STAGES, epochs: int = 4, **plan) -> Search:
    method = made(lambda s: Softmax(s, plan=Plan(stages=stages, **plan)), SPACE)
    return Search(SPACE, method, graded(), Train(epochs=epochs, batch=8, lr=0.05), draws=4)


def test_what_can_be_told_at_a_glance_is_easy():
    search = search_of()
    order = easiest_first(SPACE, search.feed, Train(epochs=4, batch=8, lr=0.05), 0, torch.device("cpu"))
    assert set(order[:2].tolist()) == {0, 2}
    assert sorted(order.tolist()) == [0, 1, 2, 3]


def test_the_order_is_a_function_of_the_seed_and_draws_on_nothing():
    search, state = search_of(), torch.get_rng_state()
    one, other = (
        easiest_first(SPACE, search.feed, Train(epochs=4, batch=8, lr=0.05), 1, torch.device("cpu")) for _ in range(2)
    )
    assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_order_sees_the_weights_images_only():
    search = search_of()
    seen: set[int] = set()
    batch = search.feed.data.batch

    def watch(split, index, **settings):
        assert split is search.feed.data.train
        seen.update(index.tolist())
        return batch(split, index, **settings)

    object.__setattr__(search.feed.data, "batch", watch)
    easiest_first(SPACE, search.feed, Train(epochs=4, batch=8, lr=0.05), 0, torch.device("cpu"))
    assert seen == set(search.feed.weights.tolist())


def test_classes_are_nested_and_of_the_declared_sizes():
    """A quarter of four classes would be one; two is the least."""
    search = search_of()
    search.feed.order = torch.tensor([2, 0, 3, 1])
    found = [search.feed.classes(stage) for stage in range(3)]
    assert [None if c is None else c.tolist() for c in found] == [[0, 2], [0, 2, 3], None]
    labels = search.feed.data.train.labels
    for stage, classes in enumerate(found[:2]):
        for index in (search.feed.training(stage), search.feed.judging(stage)):
            assert set(labels[index].tolist()) == set(classes.tolist())
        batches = torch.cat(search.feed.epoch(0, stage))
        assert set(labels[batches].tolist()) == set(classes.tolist())
        for _ in range(5):
            assert set(search.feed.arch_batch(stage)[1].tolist()) <= set(classes.tolist())


def test_absent_classes_are_no_part_of_the_loss():
    """The loss of a batch is the cross entropy over the present logits alone, and their rows of the classifier alone
    have a gradient."""
    search = search_of()
    search.feed.order = torch.tensor([2, 0, 3, 1])
    batch = search.feed.weight_batch(search.feed.training(0)[:8], 0)
    mix = search.method.mix(Progress()).detach()
    loss, accuracy = search.loss(batch, mix)
    logits = search.supernet(batch[0], mix)[:, [0, 2]]
    named = (batch[1] == 2).long()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, named))
    assert float(accuracy) == pytest.approx(float((logits.argmax(dim=1) == named).float().mean()))
    loss.backward()
    assert search.supernet.network.classifier.weight.grad.abs().sum(dim=1).gt(0).tolist() == [True, False, True, False]


def test_a_search_goes_through_the_classes_and_a_resumed_one_keeps_their_order():
    search = search_of()
    records = [search.run_epoch() for _ in range(2)]
    state = search.state_dict()
    other = search_of()
    other.load_state_dict(state)
    assert torch.equal(other.feed.order, search.feed.order)
    assert [r.stage for r in records] == [0, 1]
    assert records[0].images_per_second > 0
    one, two = search.run_epoch(), other.run_epoch()
    assert (one.train_loss, one.valid_loss) == (two.train_loss, two.valid_loss)


def test_without_shares_of_classes_nothing_is_put_in_order():
    search = search_of((Stage(),))
    search.run_epoch()
    assert search.feed.order is None
