"""One convention for parameters and multiply-adds."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gapless.core import catalogue
from gapless.core.cost import Undrawn, cost, count_macs, count_params
from gapless.core.progress import stream


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)
        self.auxiliary = nn.Linear(4, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def test_parameters_are_all_but_the_auxiliary_head():
    assert count_params(Net()) == (27 * 4 + 4) + 8 + (4 * 5 + 5)


def test_multiply_adds_are_convolutions_and_linear_layers_of_one_image_without_bias():
    assert count_macs(Net(), (3, 8, 8)) == 27 * 4 * 16 + 4 * 5
    assert count_macs(nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 5, 5)) == 9 * 4 * 25
    assert count_macs(nn.ReLU(), (4, 5, 5)) == 0
    assert count_macs(nn.Bilinear(2, 3, 1, bias=False), (2,), (3,)) >= 0


class Odd(nn.Module):
    """Everything that multiplies: transposed, grouped and dilated convolutions, matrix products, attention."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.wide = nn.Conv2d(6, 6, (3, 5), dilation=(2, 1), padding="same", padding_mode="circular", groups=3)
        self.norm, self.act = nn.GroupNorm(2, 6), nn.Hardswish()
        self.linear, self.pair = nn.Linear(6, 4), nn.Bilinear(4, 4, 2)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True) if attention else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.wide(self.up(x)))).flatten(2).transpose(1, 2)
        if self.attention is not None:
            x = self.attention(x, x, x)[0]
        y = self.linear(x)
        y = torch.einsum("bij,bkj->bik", y, y) @ torch.ones(y.shape[1], 4, device=y.device)
        return self.pair(y, y)


@pytest.mark.parametrize("attention", [False, True])
def test_multiply_adds_are_half_of_what_pytorch_counts(attention):
    net = Odd(attention).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as official:
        net.to("meta")(torch.zeros(1, 8, 5, 4, device="meta"))
    assert count_macs(net, (8, 5, 4)) == official.get_total_flops() / 2 > 0


@pytest.mark.parametrize("name", [n for n in catalogue.names("spaces") if not catalogue.find(n, "spaces").python_only])
def test_multiply_adds_of_the_spaces_are_half_of_what_pytorch_counts(name):
    space = catalogue.find(name, "spaces")().alone()
    network = space.network(space.sample(stream(0))).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as official:
        network(torch.zeros(1, space.channels, space.size, space.size))
    assert count_macs(network, (space.channels, space.size, space.size)) == official.get_total_flops() / 2 > 0


def test_a_module_without_values_has_the_shapes_of_one_with_values():
    def made():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        nn.init.normal_(net[0].weight)
        return net

    with Undrawn():
        ghost = made()
    assert all(t.is_meta for t in ghost.state_dict().values())
    assert {n: t.shape for n, t in ghost.state_dict().items()} == {n: t.shape for n, t in made().state_dict().items()}
    assert not torch.empty(1).is_meta


def test_counting_draws_no_random_number():
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    net = nn.Sequential(Noisy(), nn.Conv2d(3, 4, 1))
    before = torch.get_rng_state()
    assert count_macs(net, (3, 2, 2)) == 48
    assert torch.equal(torch.get_rng_state(), before)


def test_counting_leaves_the_module_alone():
    net = Net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert cost(net, "macs", (3, 8, 8)) == count_macs(net, (3, 8, 8))
    assert cost(net, "params") == count_params(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
