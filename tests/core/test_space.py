"""What every space derives: reading off, reading in, counting."""

import json
import math

import pytest
import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import stream
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged

RAGGED = Ragged()


def scores(**rows: list[float]) -> torch.Tensor:
    table = torch.zeros(RAGGED.shape)
    for name, row in rows.items():
        table[RAGGED.rows[name.replace("_from_", "<-").lstrip("n")], : len(row)] = torch.tensor(row)
    return table


def test_shapes_and_masks():
    assert RAGGED.shape == (9, 4)
    assert RAGGED.legal.sum(dim=1).tolist() == [2, 2, 1, 2, 3, 2, 3, 2, 4]
    assert RAGGED.eligible.sum(dim=1).tolist() == [2, 2, 1, 2, 2, 2, 3, 2, 3]
    assert RAGGED.rows["4<-3"] == 7


def test_counts_in_closed_form():
    assert RAGGED.count == (2 * 2 * 1 * 2) * (2 + 2) * (3 * 2 + 3 * 3 + 2 * 3)
    assert NASBench201().count == 15_625
    pairs = math.prod(math.comb(n, 2) for n in range(2, 6))
    assert Darts().count == Darts(options="drnas").count == (pairs * 7**8) ** 2
    assert Darts(options="1-skip").count == (pairs * 5**8) ** 2
    assert Darts(inputs=1).count == (math.prod(range(2, 6)) * 7**4) ** 2
    assert Darts(inputs=None).count == 8**28


# ---------------------------------------------------------------------- decode


def test_the_best_eligible_option_wins():
    arch = RAGGED.decode(
        scores(
            first=[1, 3],
            n3_from_0=[9, 1, 2],
            n3_from_1=[0.5, 0],
            n4_from_2=[0, 0, 5],
            n4_from_3=[4, 0],
            n4_from_0=[1, 9, 3, 2],
        )
    )
    assert arch["first"] == "pool"
    assert arch["3<-0"] == "conv"  # "none" scores 9, but may not be read off, and does not count as strength
    assert "3<-1" not in arch
    assert {name for name in arch if name.startswith("4")} == {"4<-2", "4<-3"}


def test_ties_go_to_the_lower_column_and_the_earlier_decision():
    arch = RAGGED.decode(torch.zeros(RAGGED.shape))
    assert arch == Arch(
        {
            "first": "point",
            "second": "conv",
            "third": "point",
            "2<-0": "sep",
            "3<-0": "max",
            "4<-2": "skip",
            "4<-3": "conv",
        }
    )


def test_columns_that_do_not_exist_are_not_read():
    table = torch.zeros(RAGGED.shape)
    table[~RAGGED.legal] = 100
    assert RAGGED.decode(table) == RAGGED.decode(torch.zeros(RAGGED.shape))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_scores_must_be_finite(wrong):
    table = torch.zeros(RAGGED.shape)
    table[0, 1] = wrong
    with pytest.raises(ValueError, match="not finite"):
        RAGGED.decode(table)


def test_scores_must_have_the_shape():
    with pytest.raises(ValueError, match="9 decisions and 4 columns"):
        RAGGED.decode(torch.zeros(4, 9))


def test_scores_differ_by_less_than_float32_can_tell():
    table = torch.zeros(RAGGED.shape, dtype=torch.float64)
    table[0, 1] = 1e-12
    assert RAGGED.decode(table)["first"] == "pool"


# ---------------------------------------------------------------------- read


def test_an_arch_is_read_from_files(tmp_path):
    arch = RAGGED.sample(stream(0))
    (tmp_path / "arch.txt").write_text(f"{arch}\n")
    (tmp_path / "arch.json").write_text(json.dumps({"arch": str(arch), "note": 1}))
    assert RAGGED.read(tmp_path / "arch.txt") == arch
    assert RAGGED.read(str(tmp_path / "arch.json")) == arch


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"{}"), ("a.json", b"[1]"), ("a.json", b"{"), ("a.bin", b"\xff\xfe\x00")]
)
def test_a_file_without_an_arch_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no architecture|is no text in UTF-8"):
        RAGGED.read(path)


def test_what_is_read_is_checked():
    with pytest.raises(UserError, match="Exactly 1 of 3<-0, 3<-1 must be present; given: none"):
        RAGGED.read("first=point")


def test_fields_are_checked_when_replaced():
    assert RAGGED.replace(width=16).width == 16
    with pytest.raises(UserError, match="Did you mean 'width'"):
        RAGGED.replace(widht=16)
    with pytest.raises(UserError, match="`classes` must be at least 1; got 0"):
        RAGGED.replace(classes=0)


def test_a_space_is_a_value():
    assert Ragged() == RAGGED
    assert hash(Ragged()) == hash(RAGGED)
    assert RAGGED.replace(width=16) != RAGGED
    with pytest.raises(AttributeError):
        RAGGED.width = 3


def test_every_option_is_drawn_alike():
    """Kept decisions first, then options, each uniformly."""
    counts: dict[str, int] = {}
    kept: dict[str, int] = {}
    for i in range(3000):
        arch = RAGGED.sample(stream("draw", i))
        counts[arch["first"]] = counts.get(arch["first"], 0) + 1
        for name in arch:
            kept[name] = kept.get(name, 0) + 1
    assert all(abs(n / 3000 - 1 / 2) < 0.03 for n in counts.values())
    assert all(abs(kept[name] / 3000 - 1 / 2) < 0.03 for name in ("3<-0", "3<-1"))
    assert all(abs(kept[name] / 3000 - 2 / 3) < 0.03 for name in ("4<-2", "4<-3", "4<-0"))
