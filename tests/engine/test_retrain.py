import io
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gapless.core.errors import UserError
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.data import Augment
from gapless.engine.retrain import Training
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise
from gapless.testing.methods import flat

PLAIN = Protocol(epochs=2, batch=4, lr=0.1, drop_path=0.0, aux_weight=0.0, clip=0.0, cutout=0.0, weight_decay=0.0)
DARTS = Darts(cells=3, width=4, size=8, classes=3, auxiliary=True, drop_path=True, affine=True, pool_norm="none")
DATA = noise(DARTS, 10)
MEASURED = ("images_per_second", "seconds", "peak_memory_mb")


def small(**changes):
    return Protocol(**{"epochs": 3, "batch": 4, "lr": 0.05, **changes})


def darts():
    return DARTS.network(DARTS.read("DARTS_V2"))


def dropout():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 64, 3))


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))


def story(record):
    return {k: v for k, v in record.line().items() if k not in MEASURED}


@pytest.mark.parametrize("make", [darts, dropout])
@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "label_smoothing": 0.1, "decay_norms": False, "nesterov": True}])
def test_resumed_equals_uninterrupted(make, changes):
    protocol = small(**changes)
    whole, saved = Training(make, DATA, protocol), []

    def save():
        saved.append(io.BytesIO())
        torch.save(whole.state_dict(), saved[-1])

    save()
    before = torch.get_rng_state()
    told = [story(r) for r in whole.run(save)]
    assert torch.equal(before, torch.get_rng_state())
    for place in (0, 1, 3, 5, len(saved) - 1):
        again = Training(make, DATA, protocol)
        saved[place].seek(0)
        again.load_state_dict(torch.load(saved[place], weights_only=True))
        begun = again.epoch
        assert [story(r) for r in again.run()] == told[begun:]
        one, other = flat(whole.state_dict()), flat(again.state_dict())
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def test_a_step_by_hand():
    protocol = Protocol(
        epochs=1, batch=4, lr=0.1, momentum=0.9, weight_decay=0.01, clip=0.5, label_smoothing=0.2, cutout=0.0
    )
    training = Training(linear, DATA, protocol, precision="float64")
    weight, bias = (p.detach().clone() for p in training.network.parameters())
    taken = []
    batch = training.data.batch

    def watch(split, index, **given):
        taken.append(batch(split, index, **given))
        return taken[-1]

    object.__setattr__(training.data, "batch", watch)
    training.update(torch.tensor([0, 3, 5]), 0.1)
    (x, y), x = taken[0], taken[0][0].flatten(1)
    target = torch.full((3, 3), 0.2 / 3, dtype=torch.float64)
    target[range(3), y] += 0.8
    slope = ((x @ weight.T + bias).softmax(1) - target) / 3
    gw, gb = slope.T @ x, slope.sum(0)
    norm = math.sqrt(float((gw**2).sum() + (gb**2).sum()))
    scale = min(1.0, 0.5 / (norm + 1e-6))
    new = dict(training.network.named_parameters())
    assert torch.allclose(new["1.weight"], weight - 0.1 * (gw * scale + 0.01 * weight), rtol=0, atol=1e-12)
    assert torch.allclose(new["1.bias"], bias - 0.1 * (gb * scale + 0.01 * bias), rtol=0, atol=1e-12)


def test_the_auxiliary_head_adds_its_share():
    def gradient(weight):
        training = Training(darts, DATA, small(aux_weight=weight, drop_path=0.0, clip=0.0), precision="float64")
        training.network.train()
        before = {n: p.detach().clone() for n, p in training.network.named_parameters()}
        training.update(torch.arange(4), 1.0)
        return {n: before[n] - p.detach() for n, p in training.network.named_parameters()}

    none, some, more = gradient(0.0), gradient(0.4), gradient(0.8)
    name = "stem.conv.weight"
    assert not torch.allclose(none[name], some[name])
    assert torch.allclose(some[name] - none[name], more[name] - some[name], atol=1e-10)


def test_drop_path_grows_from_nothing():
    training = Training(darts, DATA, small(epochs=4, drop_path=0.3))
    rates = []
    for _ in training.run():
        rates.append(float(training.network.drop_path.rate))
    assert rates == pytest.approx([0.0, 0.075, 0.15, 0.225])


def test_the_moving_average_is_what_is_tested_and_kept():
    training = Training(linear, DATA, small(epochs=1, ema=0.5, batch=5))
    decay, expected = [min(0.5, (1 + t) / (10 + t)) for t in range(2)], None
    weights = [training.network[1].weight.detach().clone()]
    step = training.optimiser.step

    def watch(*given):
        step(*given)
        weights.append(training.network[1].weight.detach().clone())

    training.optimiser.step = watch
    (record,) = training.run()
    expected = weights[0]
    for d, w in zip(decay, weights[1:], strict=True):
        expected = expected + (1 - d) * (w - expected)
    assert torch.allclose(training.weights()["1.weight"], expected)
    assert torch.equal(training.network[1].weight, weights[-1])
    other = linear()
    other.load_state_dict(training.weights())
    x, y = DATA.batch(DATA.test, torch.arange(len(DATA.test)))
    assert record.test_loss == pytest.approx(float(F.cross_entropy(other(x), y).detach()), rel=1e-5)


def test_decay_spares_norms_and_biases_where_asked():
    groups = Training(darts, DATA, small(decay_norms=False)).optimiser.param_groups
    assert [g["weight_decay"] for g in groups] == [3e-4, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert len(Training(darts, DATA, small()).optimiser.param_groups) == 1


def test_testing_changes_nothing_and_the_last_epoch_is_always_tested():
    often, rarely = (Training(darts, DATA, small(test_every=n)) for n in (1, 0))
    one, other = list(often.run()), list(rarely.run())
    assert [r.test_accuracy is None for r in one] == [False] * 3
    assert [r.test_accuracy is None for r in other] == [True, True, False]
    assert story(one[-1]) == story(other[-1])


def test_every_image_is_seen_once_an_epoch_and_the_test_images_never():
    training = Training(linear, DATA, PLAIN)
    seen, batch = [], training.data.batch

    def watch(split, index, *, augment=False, **given):
        if augment:
            assert split is training.data.train
            seen.extend(index.tolist())
        return batch(split, index, augment=augment, **given)

    object.__setattr__(training.data, "batch", watch)
    training.run_epoch()
    assert sorted(seen) == list(range(10))


def test_it_learns():
    space = NASBench201(width=8, cells=1, size=8, classes=3, affine=True)
    data = replace(DATA, augment=Augment())
    arch = space.read("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
    records = list(Training(lambda: space.network(arch), data, small(epochs=30, batch=5)).run())
    assert records[-1].train_loss < 0.5 * records[0].train_loss


def test_a_loss_that_explodes_is_said_so():
    with pytest.raises(UserError, match="Try a smaller `lr`") as caught:
        list(Training(linear, DATA, small(lr=1e6, weight_decay=1e6, clip=0.0, epochs=5)).run())
    assert caught.value.names == ("retrain.lr", "retrain.clip")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "at least 1"),
        ({"drop_path": 1.0}, "at least 0 and less than 1; got 1.0"),
        ({"cutout": 16}, "from 0 to 1; got 16"),
        ({"lr": -1}, "at least 0; got -1"),
        ({"stored": 0.5}, "from 1 to 100; got 0.5"),
        ({"momentum": 1.0}, "at least 0 and less than 1; got 1.0"),
    ],
)
def test_wrong_settings(changes, said):
    (name,) = changes
    with pytest.raises(UserError, match=said) as caught:
        Protocol(**changes)
    assert caught.value.names == (f"retrain.{name}",)


def test_the_published_protocols():
    darts, imagenet = PROTOCOLS["cifar"][1], PROTOCOLS["imagenet"][1]
    assert (darts.epochs, darts.batch, darts.lr, darts.lr_min, darts.momentum, darts.weight_decay) == (
        600, 96, 0.025, 0.0, 0.9, 3e-4,
    )  # fmt: skip
    assert (darts.clip, darts.drop_path, darts.aux_weight, darts.cutout) == (5.0, 0.2, 0.4, 0.5)
    assert (imagenet.epochs, imagenet.lr, imagenet.weight_decay, imagenet.label_smoothing) == (250, 0.5, 3e-5, 0.1)
    assert (imagenet.drop_path, imagenet.aux_weight, imagenet.images(224)["stored"]) == (0.0, 0.4, 256)
    table = PROTOCOLS["nasbench201"][1]
    assert (table.epochs, table.batch, table.lr, table.weight_decay, table.nesterov) == (200, 256, 0.1, 5e-4, True)
    assert (table.cutout, table.aux_weight, table.drop_path) == (0.0, 0.0, 0.0)
