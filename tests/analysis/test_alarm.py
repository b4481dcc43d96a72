"""Signs that a search goes wrong, in made-up records."""

import pytest

from gapless.analysis.alarm import alarms, bends
from gapless.core.decision import Arch
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet

CELL, S2 = NASBench201(), Darts(options="s2")


def record(arch, scores=None, trained=True):
    return {
        "arch": str(arch),
        "scores": scores or [[0.1, 0.3, 0.2, 0.2, 0.2]] * 6,
        "arch_loss": 1.0 if trained else None,
    }


def names(space, *records, times=3):
    return [alarm.name for alarm in alarms(space, list(records) * (times if len(records) == 1 else 1))]


def cell(*options):
    return Arch(dict(zip((d.name for d in CELL.decisions), options, strict=True)))


def s2(normal, reduce):
    """An architecture with so many skip connections in each cell."""
    found = {}
    for kind, count in (("normal", normal), ("reduce", reduce)):
        for number, (target, source) in enumerate((t, s) for t in (2, 3, 4, 5) for s in (0, 1)):
            found[f"{kind}:{target}<-{source}"] = "skip_connect" if number < count else "sep_conv_3x3"
    S2.check(Arch(found))
    return Arch(found)


def test_a_search_under_way_is_quiet():
    assert alarms(CELL, []) == []
    assert names(CELL, record(cell(*["nor_conv_3x3"] * 3, *["skip_connect"] * 3))) == []
    assert names(S2, record(s2(4, 4))) == []


def test_no_operation_with_weights():
    assert names(CELL, record(cell(*["skip_connect"] * 5, "none"))) == ["no weights"]
    assert names(S2, record(s2(8, 8))) == ["no weights"]


@pytest.mark.parametrize(
    ("normal", "reduce", "raised"),
    [
        (6, 6, []),  # 37 of 256 random ones have six or more
        (7, 0, ["few weights normal"]),  # 9 of 256
        (1, 8, ["few weights reduce"]),  # 1 of 256
        (7, 7, ["few weights normal", "few weights reduce"]),
    ],
)
def test_few_weights_are_told_where_chance_seldom_leaves_so_few(normal, reduce, raised):
    found = alarms(S2, [record(s2(normal, reduce))] * 3)
    assert [alarm.name for alarm in found] == raised
    if raised == ["few weights reduce"]:
        assert found[0].text.startswith("In the reduce cell the present choice has 8 of 8 operations without weights")


def test_five_of_six_edges_are_no_sign_in_a_space_where_they_are_common():
    """Three of five options have no weights: 23 % of random cells have five or six such edges."""
    assert names(CELL, record(cell(*["none"] * 5, "nor_conv_1x1"))) == []


def test_a_sign_has_to_last():
    bad, good = record(s2(8, 1)), record(s2(4, 1))
    assert names(S2, bad, times=2) == []
    assert names(S2, bad, good, bad, bad) == []
    assert names(S2, good, bad, bad, bad) == ["few weights normal"]


def test_even_scores_say_nothing():
    arch = cell(*["none"] * 6)
    assert names(CELL, record(arch, [[0.2] * 5] * 6)) == []
    assert names(CELL, record(arch, [[0.0, 0.5, 0.5, 0.0, None]] * 6)) == []  # pruned options
    assert names(CELL, record(arch)) == ["no weights"]


def test_scores_that_rest():
    arch = cell(*["nor_conv_3x3"] * 6)
    rests = [record(arch, [[0.2 + 1e-4 * epoch, 0.2, None, 0.2, 0.2]] * 6) for epoch in range(6)]
    assert names(CELL, *rests) == ["still"]
    assert names(CELL, *rests[1:]) == []  # five epochs, four moves
    assert names(CELL, *rests[:-1], record(arch, [[0.3, 0.2, None, 0.2, 0.2]] * 6)) == []
    assert names(CELL, *[{**r, "arch_loss": None} for r in rests]) == []  # nobody trained it
    assert names(CELL, rests[0], {**rests[1], "arch_loss": None}, *rests[2:]) == []


def test_a_space_whose_options_all_have_weights_never_collapses():
    space = ShuffleNet()
    arch = Arch({d.name: "k3" for d in space.decisions})
    assert names(space, {"arch": str(arch), "scores": [[0.4, 0.2, 0.2, 0.2]] * 20, "arch_loss": None}) == []


def bent(*values):
    arch = cell(*["nor_conv_3x3"] * 6)
    return names(CELL, *[{**record(arch, trained=False), "hessian": v} for v in values], times=1)


def test_a_loss_that_bends_ever_more_sharply():
    flat = [1.0] * 16
    assert bent(*flat, 1.0, 1.0) == []
    assert bent(*flat, 2.6) == []  # the mean of five grows by 0.32
    assert bent(*flat, 2.7) == ["sharp"]  # by 0.34
    assert bent(*flat, 2.7, 2.0, 1.0, 1.0, 1.0, 1.0) == []  # it is over
    assert bent(*flat[:15], 2.7) == []  # the earlier five lie around the ninth epoch
    assert bent(*flat, None) == bent(*flat[:-1], None, 9.0) == []


def test_what_is_not_convex_is_compared_from_the_first_positive_mean():
    assert bends([-1.0] * 20) is None
    assert bends([-1.0] * 15 + [1.0] * 10) == 22
    assert bends([1.0] * 16 + [-20.0]) is None
