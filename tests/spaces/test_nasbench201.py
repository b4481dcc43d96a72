"""NAS-Bench-201: its graph, its read-out, its strings."""

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.spaces.nasbench201 import CELL, NASBench201

SPACE = NASBench201(size=8, width=4, cells=1)
TEXT = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
CHOICE = {
    "1<-0": "nor_conv_3x3",
    "2<-0": "nor_conv_3x3",
    "2<-1": "avg_pool_3x3",
    "3<-0": "skip_connect",
    "3<-1": "none",
    "3<-2": "nor_conv_1x1",
}


def test_six_edges_in_sorted_rows():
    assert [d.name for d in SPACE.decisions] == ["1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2"]
    assert CELL.output == (3,)
    assert {e.stride for e in CELL.edges} == {1}
    assert SPACE.decisions[0].options == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def test_strings_both_ways():
    arch = SPACE.read(TEXT)
    assert dict(arch) == CHOICE
    assert SPACE.write(arch) == TEXT
    assert SPACE.read(f"  {TEXT}\n") == arch
    for i in range(50):
        drawn = SPACE.sample(stream(i))
        assert SPACE.parse(SPACE.write(drawn)) == drawn


def test_every_edge_is_the_argmax_and_none_may_win():
    scores = torch.tensor(
        [[5.0, 1, 2, 3, 4], [1, 5, 2, 3, 4], [1, 2, 5, 3, 4], [1, 2, 3, 5, 4], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]]
    )
    assert list(SPACE.decode(scores).values()) == [
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
        "none",
    ]


def test_a_cell_of_nones_is_zero_and_still_a_network():
    network = SPACE.network(SPACE.read("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")).eval()
    assert torch.isfinite(network(torch.randn(2, 3, 8, 8))).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no architecture of NAS-Bench-201"),
        ("rubbish", "no architecture of NAS-Bench-201"),
        (TEXT[1:], "no architecture"),
        (TEXT.replace("~1", "~x"), "no architecture"),
        (TEXT.replace("~1|", "|"), "no architecture"),
        (TEXT.replace("+", ""), "no architecture|twice|no decision"),
        (TEXT.replace("avg_pool_3x3", "avg_pol_3x3"), "no operation 'avg_pol_3x3'. Did you mean 'avg_pool_3x3'"),
        (TEXT.replace("avg_pool_3x3", "sep_conv_3x3"), "no operation 'sep_conv_3x3'"),
        ("+".join(TEXT.split("+")[:2]), "does not answer 3<-0, 3<-1, 3<-2"),
        (TEXT + "+|none~0|", "no decision '4<-0'"),
        (TEXT.replace("none~1|", ""), "does not answer 3<-1"),
        (TEXT.replace("none~1", "none~4"), "no decision '3<-4'"),
        (TEXT.replace("avg_pool_3x3~1", "avg_pool_3x3~0"), "twice"),
        (TEXT.replace("|none~1|", "|none~1|skip_connect~1|"), "twice"),
    ],
)
def test_strings_that_are_none_are_answered_in_words(text, said):
    with pytest.raises(UserError, match=said):
        SPACE.read(text)


def test_fields_out_of_range_are_named():
    with pytest.raises(UserError, match="`width` must be at least 1; got 0"):
        NASBench201(width=0)
    with pytest.raises(UserError, match="`width` cannot be split into `partial` parts; got 16 and 3"):
        NASBench201(partial=3)
