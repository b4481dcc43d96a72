"""A user's own model as a space."""

import pytest
import torch
from torch import nn

from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.engine.supernet import Supernet
from gapless.spaces.patched import Patched
from gapless.testing.examples import patched


def test_pretrained_weights_are_kept_and_the_model_is_not_touched():
    space = patched()
    before = {name: value.clone() for name, value in space.model.state_dict().items()}
    arch = space.read("body.2=same,tail=same")
    x = torch.randn(2, 3, 8, 8)
    network = space.network(arch).eval()
    assert torch.equal(network(x), space.model.eval()(x))
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    Supernet(space).train()(x, space.one_hot(arch))
    space.model.train()
    assert all(torch.equal(before[name], value) for name, value in space.model.state_dict().items())


def test_each_build_has_weights_of_its_own():
    space = patched()
    arch = space.read("body.2=point,tail=smooth")
    one, other = space.network(arch), space.network(arch)
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    assert pairs
    assert all(a.data_ptr() != b.data_ptr() for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_network_has_the_children_of_the_model():
    space = patched()
    network = space.network(space.sample(stream(0)))
    assert [name for name, _ in network.named_children()] == [name for name, _ in space.model.named_children()]


def test_costs_of_a_model_that_lies_in_memory():
    space = patched()
    table, constant = space.cost_table("params")
    assert table.tolist() == [[148, 20, 72], [8, 8, 0]]
    assert constant == 108 + 8 + 50
    macs, _ = space.cost_table("macs")
    assert macs.tolist() == [[144 * 64, 16 * 64, 72 * 64], [0, 0, 0]]


def test_what_the_model_has_not_is_named():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="no submodule 'O'"):
        Patched(model=model, swaps={"O": {"same": None}})
    with pytest.raises(UserError, match="needs at least one submodule"):
        Patched(model=model)


def tied():
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)
    )
    model[1].weight = model[0].weight
    return model


def twice():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    model.append(model[0])
    return model


@pytest.mark.parametrize(
    ("model", "swaps", "said"),
    [
        (tied(), ("1",), "'1' shares its 'weight' with '0'"),
        (twice(), ("0",), "'0' is also '5'"),
        (nn.Sequential(nn.Sequential(nn.ReLU()), nn.Flatten()), ("0", "0.0"), "'0.0' lies inside '0'"),
    ],
)
def test_parts_that_cannot_be_swapped_alone_are_named(model, swaps, said):
    with pytest.raises(UserError, match=said):
        Patched(model=model, swaps={path: {"same": None, "none": nn.Identity()} for path in swaps})


def test_what_is_tied_elsewhere_stays_tied():
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)
    )
    model[1].weight = model[0].weight
    space = Patched(model=model, swaps={"2": {"same": None, "gelu": nn.GELU()}})
    network = space.network(space.sample(torch.Generator().manual_seed(0)))
    assert network.get_submodule("0").weight is network.get_submodule("1").weight


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 10)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.head(self.inner(query=x, key=x, value=x)[0].mean(1))


class Item(nn.Module):
    """A model whose forward asks a number of a tensor: it runs."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 10)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)) + max(0.0, x.sum().item()))


def plain(channels=3, classes=10):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


@pytest.mark.parametrize(
    ("model", "path", "option", "said"),
    [
        (Keyword(), "inner", nn.Identity(), "'inner' takes 3 values and gives 2 values"),
        (plain(channels=1), "0", nn.Identity(), r"cannot run on images of 3 x 8 x 8: RuntimeError"),
        (plain(classes=4), "0", nn.Conv2d(3, 4, 1), r"gives a tensor \[2, 4\] for two images; .* \[2, 10\]"),
        (plain(), "0", nn.Conv2d(3, 5, 1), r"'other' of '0' gives a tensor \[2, 5, 8, 8\]"),
        (plain(), "0", nn.Linear(7, 4), "'other' of '0' cannot run: RuntimeError"),
        (plain().half(), "0", nn.Identity(), r"weights in float16.*model.float\(\)"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), "3", nn.Linear(4, 10), "lazy modules"),
    ],
)  # fmt: skip
def test_a_model_or_an_option_that_does_not_fit_is_named(model, path, option, said):
    space = Patched(model=model, swaps={path: {"same": None, "other": option}}, size=8)
    with pytest.raises(UserError, match=said):
        Supernet(space)


def test_what_runs_is_searched():
    model = Item()
    space = Patched(model=model, swaps={"conv": {"same": None, "wide": nn.Conv2d(3, 3, 3, padding=1)}}, size=8)
    x = torch.randn(2, 3, 8, 8)
    network = space.network(space.read("conv=same")).eval()
    assert torch.equal(network(x), model.eval()(x))
    assert Supernet(space)(x, space.one_hot(space.read("conv=wide"))).shape == (2, 10)


class Direct(nn.Module):
    """A model that calls the forward of a part itself, and runs another in training alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.extra, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 10)

    def forward(self, x):
        x = self.conv.forward(x)
        return self.head((self.extra(x) if self.training else x).mean((2, 3)))


@pytest.mark.parametrize("path", ["conv", "extra"])
def test_parts_that_run_by_their_forward_or_in_training_alone(path):
    space = Patched(model=Direct(), swaps={path: {"same": None, "wide": nn.Conv2d(3, 3, 3, padding=1)}}, size=8)
    assert Supernet(space)(torch.randn(2, 3, 8, 8), space.one_hot(space.read(f"{path}=wide"))).shape == (2, 10)
    space = Patched(model=Direct(), swaps={path: {"same": None, "more": nn.Conv2d(3, 4, 1)}}, size=8)
    with pytest.raises(UserError, match="'more' of .* gives a tensor"):
        Supernet(space)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_part_is_refused():
    model = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    space = Patched(model=model, swaps={"0": {"same": None, "wide": nn.Conv2d(3, 4, 3, padding=1)}}, size=8)
    with pytest.raises(UserError, match="TorchScript"):
        Supernet(space)
