"""Cells as data, and partial channels (PC-DARTS, arXiv 1907.05737)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gapless.core.cell import Cell, CellModule, CellSpec, Edge, join, rejoin
from gapless.core.op import Conv, Norm, NormRule, Op


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Absent(nn.Module):
    def forward(self, x: torch.Tensor) -> None:
        return None


CHAIN = Cell(inputs=1, edges=(Edge(0, 1, "a", stride=2),), output=(1,))
OPS = {"conv": Op((Conv(3), Norm()))}
EDGES = (Edge(0, 2, "a"), Edge(1, 2, "b"), Edge(0, 3, "c"), Edge(2, 3, "d"))


def test_a_node_is_the_sum_of_what_arrives():
    cell = Cell(inputs=2, edges=EDGES, output=(2, 3))
    body = CellModule(cell, {"2<-0": Times(2), "2<-1": Times(3), "3<-0": Times(5), "3<-2": Times(7)})
    x, y = torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 10.0)
    out = body(x, y)
    assert out.shape == (1, 2, 2, 2)
    assert out[0, :, 0, 0].tolist() == [2 + 30, 5 + 7 * 32]


def test_what_is_left_out_and_what_returns_nothing_adds_nothing():
    cell = Cell(inputs=2, edges=EDGES, output=(3,))
    x = torch.ones(1, 1, 2, 2)
    assert torch.equal(CellModule(cell, {"3<-0": Times(5), "3<-2": Absent()})(x, x), 5 * x)


def test_a_node_that_nothing_reaches_is_zero_at_its_size():
    cell = Cell(inputs=1, edges=(Edge(0, 1, "a", stride=2), Edge(1, 2, "b")), output=(1, 2))
    out = CellModule(cell, {"1<-0": Absent()})(torch.ones(2, 3, 5, 7))
    assert torch.equal(out, torch.zeros(2, 6, 3, 4))


def test_one_output_is_not_concatenated():
    x = torch.ones(1, 1, 1, 1)
    assert join([x]) is x


@pytest.mark.parametrize("edge", [Edge(2, 2, "a"), Edge(3, 2, "a"), Edge(0, 1, "a")])
def test_edges_lead_forward_and_not_into_inputs(edge):
    with pytest.raises(ValueError, match="earlier state to a later one"):
        Cell(inputs=2, edges=(edge,), output=(2,))


def test_two_states_are_joined_by_one_edge():
    with pytest.raises(ValueError, match="two edges"):
        Cell(inputs=1, edges=(Edge(0, 1, "a"), Edge(0, 1, "b")), output=(1,))


def test_edges_by_node():
    cell = Cell(inputs=2, edges=EDGES, output=(3,))
    assert list(cell.nodes) == [2, 3]
    assert [e.key for e in cell.into(3)] == ["3<-0", "3<-2"]


# ---------------------------------------------------------------------- partial channels


@pytest.mark.parametrize("partial", [2, 3, 4, 6])
def test_the_bypass_is_bit_equal_to_the_input_at_shuffled_places(partial):
    """At stride 1 processed channel m stands at m * K, bypassed channel g * C/K + m at m * K + g."""
    channels, part = 24, 24 // partial
    x = torch.randn(2, channels, 4, 4)
    mixed = torch.randn(2, part, 4, 4)
    out = rejoin(mixed, x, partial, stride=1)
    for m in range(part):
        assert torch.equal(out[:, m * partial], mixed[:, m])
        for g in range(1, partial):
            assert torch.equal(out[:, m * partial + g], x[:, g * part + m])


@pytest.mark.parametrize("partial", [2, 3, 4, 6])
def test_shuffling_by_k_and_then_by_c_over_k_is_the_identity(partial):
    x = torch.randn(1, 24, 2, 2)

    def shuffle(y: torch.Tensor, groups: int) -> torch.Tensor:
        return rejoin(y[:, : 24 // groups], y, groups, stride=1)

    assert torch.equal(shuffle(shuffle(x, partial), 24 // partial), x)
    assert not torch.equal(shuffle(x, partial), x)


@pytest.mark.parametrize("size", [4, 5])
def test_at_stride_two_the_bypass_is_a_maximum(size):
    x = torch.randn(2, 4, size, size)
    half = -(-size // 2)
    out = rejoin(torch.zeros(2, 2, half, half), x, 2, stride=2)
    assert out.shape == (2, 4, half, half)
    assert torch.equal(out[:, 1::2], F.max_pool2d(x[:, 2:], 2, 2, ceil_mode=True))


def test_all_channels_pass_by_untouched():
    mixed = torch.ones(1, 4, 2, 2)
    assert rejoin(mixed, torch.zeros(1, 4, 2, 2), 1, 1) is mixed


def test_channels_that_cannot_be_split_are_refused():
    assert CellSpec(CHAIN, OPS, 36, NormRule(), partial=6).width == 6
    with pytest.raises(ValueError, match="16 channels cannot be split into 3 parts"):
        CellSpec(CHAIN, OPS, 16, NormRule(), partial=3)


def test_an_option_is_built_at_the_width_and_stride_of_its_edge():
    spec = CellSpec(CHAIN, OPS, 8, NormRule(eps=1e-3), partial=2)
    op = spec.build(CHAIN.edges[0], "conv")
    assert op(torch.zeros(1, 4, 6, 6)).shape == (1, 4, 3, 3)
    assert op[-1].eps == 1e-3
