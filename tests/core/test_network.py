"""The stand-alone network: drop path."""

import pytest
import torch
from torch import nn

from gapless.core.network import DropPath
from gapless.core.progress import seeded, stream
from gapless.spaces.darts import Darts
from gapless.spaces.patched import Patched
from gapless.testing.examples import Ragged

SPACE = Darts(size=8, width=4, cells=3, options="drnas", drop_path=True, affine=True)


def drops_of(network: nn.Module) -> list[DropPath]:
    return [m for m in network.modules() if isinstance(m, DropPath)]


def test_whole_samples_are_dropped_and_the_mean_is_kept():
    drop = DropPath().train()
    drop.rate.fill_(0.25)
    x = torch.ones(20_000, 2, 1, 1)
    with seeded("drop path"):
        y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y[:, 0], y[:, 1])
    assert float(y.mean()) == pytest.approx(1, abs=0.02)


def test_evaluation_drops_nothing():
    drop = DropPath().eval()
    drop.rate.fill_(0.9)
    x = torch.randn(4, 3)
    assert drop(x) is x


def test_at_rate_zero_training_changes_nothing():
    x = torch.randn(4, 3)
    assert torch.equal(DropPath().train()(x), x)


def test_one_rate_serves_the_whole_network_and_is_no_weight():
    network = SPACE.network(SPACE.sample(stream(0)))
    (drop,) = drops_of(network)
    assert network.drop_path is drop
    assert not any("drop_path" in name for name in network.state_dict())
    assert not drops_of(SPACE.replace(drop_path=False).network(SPACE.sample(stream(0))))


def test_identities_are_exempt():
    """Skips of the normal cell are identities; those of stride 2 are factorised reductions and are dropped."""
    skips = [(f"normal:{node}<-{source}", "skip_connect") for node in range(2, 6) for source in (0, 1)]
    normal = SPACE.parse("DARTS_V2")
    arch = type(normal)({**{k: v for k, v in normal.items() if k.startswith("reduce")}, **dict(skips)})
    network = SPACE.network(arch)
    for path, edge in network.named_modules():
        if type(edge).__name__ == "ChosenEdge":
            assert bool(edge.drops) == (not edge[edge.label].identity), path


def test_dropping_everything_leaves_the_classifier():
    space = Ragged()
    network = space.network(space.sample(stream(3))).train()
    (drop,) = drops_of(network)
    drop.rate.fill_(0.5)
    x = torch.randn(64, 3, 8, 8)
    with seeded("a"):
        one = network(x)
    with seeded("b"):
        other = network(x)
    assert not torch.equal(one, other)
    assert torch.equal(network.eval()(x), network(x))


def test_a_sequential_model_does_not_run_its_drop_path():
    """A network of free sites has no edges to drop: its logits are whole at any rate."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    space = Patched(model=model, swaps={"1": {"same": None, "other": nn.Linear(12, 4)}}, size=2, classes=4)
    network = space.network(space.read("1=same")).train()
    assert [name for name, _ in network.named_children()] == ["0", "1"]
    network.drop_path.rate.fill_(0.9)
    x = torch.randn(8, 3, 2, 2)
    assert torch.equal(network(x), model(x))
