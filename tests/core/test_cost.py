"""One convention for parameters and multiply-adds."""

import torch
from torch import nn

from gapless.core.cost import cost, count_macs, count_params


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


def test_counting_leaves_the_module_alone():
    net = Net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert cost(net, "macs", (3, 8, 8)) == count_macs(net, (3, 8, 8))
    assert cost(net, "params") == count_params(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
