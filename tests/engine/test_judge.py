"""Judging: an explicit policy for normalisation, and no side effects."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.progress import seeded, stream
from gapless.engine.judge import judge, recalibrate, still, untouched
from gapless.spaces.darts import Darts
from gapless.testing.examples import Ragged
from gapless.testing.spaces import snapshot, supernet_of


class Net(nn.Module):
    """A normalisation on raw pixels and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(2, momentum=0.3)
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2, track_running_stats=False))
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean(dim=(2, 3)))


def batches(n: int = 3, key: str = "judge") -> list[tuple[Tensor, Tensor]]:
    generator = stream(key)
    return [
        (3 * torch.randn(4, 2, 3, 3, generator=generator) + 1, torch.randint(3, (4,), generator=generator))
        for _ in range(n)
    ]


def trained() -> Net:
    net = Net().train()
    for x, _ in batches(5, "training"):
        net(x)
    net.inner.eval()
    return net


@pytest.mark.parametrize("bn", ["batch", "running", "recalibrated"])
@pytest.mark.parametrize("training", [True, False])
def test_judging_leaves_buffers_and_modes_as_they_were(bn, training):
    net = trained()
    net.train(training)
    net.inner[1].train(not training)
    before, modes = snapshot(net), [m.training for m in net.modules()]
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    judge(net, net, batches(), bn=bn, calibration=[x for x, _ in batches(2, "calibration")])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert all(p.grad is None for p in net.parameters())


def test_judging_leaves_a_supernet_as_it_was():
    space = Ragged()
    supernet = supernet_of(space).train()
    mix = space.one_hot(space.sample(stream(0)), dtype=torch.float64)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    before = snapshot(supernet)
    results = {
        bn: judge(supernet, lambda x: supernet(x, mix), [(x, torch.tensor([0, 1, 2, 3]))], bn=bn, calibration=[x])
        for bn in ("batch", "running", "recalibrated")
    }
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())
    assert supernet.training
    assert results["batch"] != results["running"]


def normalised(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return (x - mean.view(1, 2, 1, 1)) / (var.view(1, 2, 1, 1) + 1e-5).sqrt()


def by_hand(net: Net, statistics) -> tuple[float, float]:
    loss, right, n = 0.0, 0, 0
    for x, y in batches():
        logits = net.linear(normalised(x, *statistics(x)).mean(dim=(2, 3))).detach()
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(dim=1) == y).sum())
        n += len(y)
    return loss / n, right / n


def test_batch_statistics_are_those_of_each_batch():
    net = trained()
    found = judge(net, net, batches(), bn="batch")
    assert found == pytest.approx(
        by_hand(net, lambda x: (x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False))), rel=1e-5
    )


def test_running_statistics_are_those_of_training():
    net = trained()
    found = judge(net, net, batches(), bn="running")
    assert found == pytest.approx(by_hand(net, lambda _: (net.norm.running_mean, net.norm.running_var)), rel=1e-5)


def test_recalibrated_statistics_are_the_plain_mean_over_the_batches():
    """Of the means, and of the unbiased variances, as PyTorch gathers them."""
    net = trained()
    given = [x for x, _ in batches(4, "calibration")]
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in given]).mean(dim=0)
    var = torch.stack([x.var(dim=(0, 2, 3)) for x in given]).mean(dim=0)
    found = judge(net, net, batches(), bn="recalibrated", calibration=given)
    assert found == pytest.approx(by_hand(net, lambda _: (mean, var)), rel=1e-5)
    recalibrate(net, net, given)
    torch.testing.assert_close(net.norm.running_mean, mean)
    torch.testing.assert_close(net.norm.running_var, var)
    assert net.norm.momentum == 0.3


def test_the_three_policies_say_different_things():
    net = trained()
    said = {
        judge(net, net, batches(), bn=bn, calibration=[batches(1, "c")[0][0]])
        for bn in ("batch", "running", "recalibrated")
    }
    assert len(said) == 3


def test_the_mean_is_over_images_not_batches():
    net = trained()
    (x, y), (v, w), _ = batches()
    uneven = [(x, y), (v[:1], w[:1])]
    one, other = (judge(net, net, [b], bn="running") for b in uneven)
    both = judge(net, net, uneven, bn="running")
    assert both == pytest.approx([(4 * a + b) / 5 for a, b in zip(one, other, strict=True)])
    assert 0 <= both[1] <= 1


def test_noise_in_a_network_is_the_same_at_every_judgement():
    space = Darts(size=8, width=4, cells=3, options="s4")
    arch = Arch({d.name: "noise" for d in space.decisions if int(d.name[-1]) < 2})
    with seeded("judge"):
        network = space.network(arch)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8)) for _ in range(2)]
    state = torch.get_rng_state()
    found = {judge(network, network, batches, bn="batch") for _ in range(3)}
    assert len(found) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_judged_is_refused():
    net = trained()
    before = snapshot(net)
    with pytest.raises(ValueError, match="`batches` must not be empty"):
        judge(net, net, [], bn="running")
    with pytest.raises(ValueError, match="needs at least one batch"):
        judge(net, net, batches(), bn="recalibrated")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.norm.momentum == 0.3


def test_a_failed_judgement_leaves_the_module_as_it_was():
    net = trained()
    before = snapshot(net)

    def fail(x: Tensor) -> Tensor:
        net(x)
        raise RuntimeError("no memory")

    for bn in ("batch", "running", "recalibrated"):
        with pytest.raises(RuntimeError, match="no memory"):
            judge(net, fail, batches(), bn=bn, calibration=[batches()[0][0]])
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        assert net.norm.momentum == 0.3
        assert net.training


def test_untouched_puts_buffers_and_modes_back():
    net = trained()
    before = snapshot(net)
    with untouched(net):
        net.train()
        net(batches()[0][0])
        assert not torch.equal(before["norm.running_mean"], net.norm.running_mean)
        net.eval()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert not net.inner.training


def test_still_passes_train_without_moving_statistics():
    """Outputs and gradients are those of training; the graph can be used after the block."""
    net, twin = trained(), trained()
    x, y = batches()[0]
    before = snapshot(net)
    with still(net):
        loss = F.cross_entropy(net(x), y)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.norm.momentum == 0.3
    loss.backward()
    F.cross_entropy(twin(x), y).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.norm.parameters(), twin.norm.parameters(), strict=True))
    assert math.isfinite(float(loss.detach()))
