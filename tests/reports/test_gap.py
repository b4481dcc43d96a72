"""The page of a gap from made-up numbers."""

import json
import re

import pytest
from hostile import HOSTILE

from gapless.reports.gap import figures, findings, page, read
from gapless.runs.run import Run
from gapless.runs.schema import Damaged
from gapless.studies.gap import ranked

TRUTH = [92.0, 90.0, 88.0, 91.0, 86.0, 89.0]


def made(*, table=True, decided=False, **changes):
    """Return what ``gap.json`` holds: of a search that had hardly decided, or had."""
    by = [70.0, 68.0, 66.0, 69.0, 64.0, 67.0] if decided else [40.0, 41.0, 46.0, 44.0, 45.0, 42.0]
    params = [100, 100, 100, 100, 100, 101] if decided else [9, 8, 6, 8, 5, 7]
    sample = [
        {
            "arch": f"a{i}",
            "notation": f"|a~{i}|",
            "scores": {"inherited": s - 10, "recalibrated": s, "params": p, "macs": 2 * p},
            "truth": t if table else None,
            "trainings": {},
        }
        for i, (s, p, t) in enumerate(zip(by, params, TRUTH, strict=True))
    ]
    chain = [("supernet", 71.0), ("discretised", by[0] - 10), ("recalibrated", by[0]), ("tuned", 72.0)]
    chain += [("alone", 92.0)] if table else []
    names = ["inherited", "recalibrated", "params", "macs"] if table else []
    return {
        "run": "runs/x",
        "notation": "|a~0|",
        "images": 2000,
        "tested": "the test split",
        "error": 1.118,
        "truth": "cifar10_test_200" if table else None,
        "chain": [
            {"name": n, "what": "as is", "accuracy": a, "seconds": None if n == "alone" else 1.0} for n, a in chain
        ],
        "statistics": {"running": 30.0, "batch": 40.0, "recalibrated": by[0]},
        "sample": sample,
        "measures": {name: ranked([j["scores"][name] for j in sample], TRUTH) for name in names},
        "ceiling": 0.9 if table else None,
        "small": None,
        "decisions": [
            {"name": "1<-0", "entropy": 0.1, "margin": 0.9, "kept": 0.95}
            if decided
            else {"name": "1<-0", "entropy": 0.98, "margin": 0.02, "kept": 0.22},
            {"name": "2<-0", "entropy": 0.9, "margin": 0.1, "kept": None},
        ],
        "fixing": [["1<-0", 69.0], ["2<-0", by[0]]],
        "seeds": None,
        "late": {"epochs": 10, "changes": 0 if decided else 4, "distinct": 1 if decided else 3},
        "seconds": 10.0,
        **changes,
    }


def test_a_search_that_had_decided_is_sound():
    found = findings(made(decided=True))
    assert [finding.sound for finding in found] == [True, None, True, True, True, True, True]
    assert "tau of 1.00" in found[3].text and "They know something" in found[3].text
    assert "beats 100 % of 5 random architectures, whose mean is 88.80 % and whose best is 91.00 %" in found[5].text


def test_a_search_that_had_not_is_told_so():
    found = findings(made())
    assert [finding.sound for finding in found] == [False, None, False, False, False, True, False]
    assert "31.0 points are lost" in found[0].text
    assert (
        "a probability of 22 % on average; the entropy was 94 % of the largest. It had hardly decided." in found[2].text
    )
    assert "cannot be told from chance" in found[3].text and "noise of trainings allows 0.90" in found[3].text
    assert "not worse than the supernet" in found[4].text
    assert "changed 4 times in the last 10 epochs (3 different ones)" in found[6].text


def test_the_largest_step_is_named_and_the_change_of_scale_is_none():
    (largest,) = [f for f in findings(made()) if f.sound is None]
    assert largest.text == "The largest step on the way is reading one architecture off the mix: -41.0 points."


def test_without_a_truth_nothing_is_said_of_ranks():
    found = findings(made(table=False))
    assert any("is unknown: there was no table" in finding.text for finding in found)
    assert set(figures(made(table=False))) == {"gap-chain", "gap-fixing"}
    text = page(made(table=False), {"gap-chain": "a.svg", "gap-fixing": "b.svg"})
    assert "tau" not in text and "random architectures" not in text


def test_scores_that_tell_nothing_apart():
    flat = made()
    for judged in flat["sample"]:
        judged["scores"]["recalibrated"] = 50.0
    flat["measures"]["recalibrated"] = ranked([50.0] * 6, TRUTH)
    assert flat["measures"]["recalibrated"]["tau"] is None
    assert any(f.text == "The supernet cannot tell 6 architectures apart." for f in findings(flat))
    assert "| recalibrated | - | - to - |" in page(flat, dict.fromkeys(figures(flat), "x"))


def test_seeds():
    told = {"runs": 3, "tau": 0.41, "largest": 0.6, "smallest": 0.2, "agreement": 0.5}
    (finding,) = [f for f in findings(made(seeds=told)) if "runs rank" in f.text]
    assert finding.sound is False
    assert "tau of 0.41 between each other (0.20 to 0.60); 50 % of the runs share" in finding.text


def test_an_answer_that_was_not_read_off_scores_has_no_late_changes():
    assert not any("last" in finding.text for finding in findings(made(late=None)))


def test_a_mix_without_scores_has_no_profile():
    gap = made(decisions=[], fixing=[])
    assert "gap-fixing" not in figures(gap)
    assert "Fixing" not in page(gap, dict.fromkeys(figures(gap), "x"))
    assert not any("probability" in finding.text for finding in findings(gap))


def test_the_changes_of_the_page_sum_to_the_whole():
    gap = made()
    text = page(gap, dict.fromkeys(figures(gap), "x"))
    table = text.split("| step |")[1].split("The answer with inherited")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:] if line]
    changes = [float(row[2]) for row in rows if row[2].strip()]
    assert len(changes) == 4
    assert sum(changes) == pytest.approx(92.0 - 71.0)
    assert "| `2<-0` | 40.00 | 0.90 | 0.10 | not kept |" in text


def test_figures_are_drawn_with_their_numbers():
    drawn = figures(made())
    assert set(drawn) == {"gap-chain", "gap-ranking", "gap-fixing"}
    told = [text.get_text() for text in drawn["gap-chain"].texts]
    assert {"supernet", "71.0", "30.0 (-41.0)", "92.0 (+20.0)"} <= set(told)
    assert len(drawn["gap-ranking"].axes) == 3  # multiply-adds say the same as parameters
    points = drawn["gap-ranking"].axes[1].lines
    assert [len(line.get_xdata()) for line in points] == [5, 1]
    assert drawn["gap-fixing"].axes[0].lines[-1].get_ydata().tolist() == [71.0, 69.0, 40.0]


@pytest.mark.parametrize("given", HOSTILE)
def test_the_page_keeps_its_lines_and_columns_whatever_stands_in_it(given):
    told = made()
    told |= {
        "notation": given,
        "tested": given,
        "truth": given,
        "decisions": [{**d, "name": given} for d in told["decisions"]],
    }
    told["fixing"] = [[given, value] for _, value in told["fixing"]]
    told["chain"] = [{**step, "what": given} for step in told["chain"]]
    drawn = {name: f"{name}.svg" for name in ("gap-chain", "gap-ranking", "gap-fixing")}
    columns = 0
    for line in page(told, drawn).splitlines():
        line = re.sub(r"`[^`]*`", "", line)  # a code span shows what it holds
        assert "<" not in line
        assert line.startswith("![") or "](" not in line.replace("\\]", "")
        bars = line.replace("\\|", "").count("|") if line.startswith("|") else 0
        assert not columns or bars in (0, columns), line
        columns = bars


@pytest.mark.parametrize(
    "changes",
    [
        {"sample": [{**made()["sample"][0], "truth": None}, *made()["sample"][1:]]},
        {"sample": made()["sample"][:1]},
        {"sample": [{**made()["sample"][0], "scores": {}}, *made()["sample"][1:]]},
        {"chain": made()["chain"][1:]},
        {"measures": {"inherited": {}}},
    ],
    ids=["no truth", "one architecture", "no scores", "no supernet", "no tau"],
)
def test_parts_that_do_not_fit_together_are_damage(tmp_path, changes):
    """Each of the right type, as a hand that edits would leave them."""
    (tmp_path / "gap.json").write_text(json.dumps({**made(), **changes}))
    with pytest.raises(
        Damaged, match=r"gap\.json is damaged: its parts do not fit together.*Measure it anew with: gapless gap"
    ):
        read(Run(tmp_path))
    (tmp_path / "gap.json").write_text(json.dumps(made()))
    assert read(Run(tmp_path))["images"] == 2000
