"""The page of a comparison, as a file: what stands on it, and that it needs nothing else."""

import re
from dataclasses import replace

import lines
import pytest
from browsed import Tree, alone
from compared import COLUMN, CONV, POOL, SEARCHED, SKIP, searched

from gapless.core.errors import UserError
from gapless.reports.comparison import report
from gapless.reports.comparison_page import FEW, page
from gapless.runs.comparison import ComparisonCell, Folder
from gapless.runs.run import Run
from gapless.spaces.nasbench201 import NASBench201


def asked(folder, **changes):
    """Ask for something else in the folder, and return it."""
    folder.write(replace(folder.comparison(), **changes))
    return folder


def test_what_was_compared_and_what_came_of_it(folder):
    found = page(folder)
    tree = alone(found.html)
    assert found.sections == ("values", "missing", "limits", "answers", "repeat", "recipe", "machine")
    assert (found.arch, found.notes) == (None, report(folder).notes)
    assert "random, pc_darts on nasbench201 on digits" in tree.text
    assert "c: 2 methods, 3 seeds (0, 1, 2), 5 of 6 runs have ended" in tree.text
    assert f"Worth {COLUMN} of accuracy.parquet Baseline random" in tree.text
    assert "Time 45 s, all runs together" in tree.text
    for grid in ("seed 0 seed 1 seed 2 mean ± deviation percentile", "Difference from random", "parameters seconds"):
        assert grid in tree.text
    assert "14.0 ± 5.3 500" in tree.text  # seconds and memory of pc_darts


def test_what_failed_stands_with_its_error_and_what_few_seeds_show(folder):
    tree = alone(page(folder).html)
    assert "Failed random-digits-seed2: 100 % of_memory | gone" in tree.text
    assert "Not ended" not in tree.text
    assert tree.text.count("With 2 seeds against 2 an exact two-sided test cannot go below") == 1
    assert "gapless compare c mkdir c-again && cp c/comparison.toml c-again && gapless compare c-again" in tree.text


def test_every_answer_is_told_and_the_best_of_each_method_drawn(folder):
    tree = alone(page(folder).html)
    drawn = [svg["aria-label"] for svg in tree.named("svg")]
    best = {m: max(v for v in (row.value for row in rows) if v) for m, rows in report(folder).groups[0].rows.items()}
    assert len(drawn) == 3 and drawn[0].startswith("The value of every seed of every method. Means: random")
    assert [label for label in drawn if label.endswith((POOL, CONV, SKIP))] == drawn[1:]
    for text in (CONV, POOL, SKIP):
        assert text in tree.text
    for method, runs in SEARCHED.items():
        assert f"All {len(runs)} answers of {method}" in tree.text
        assert re.search(rf"{method} {method}-digits-seed\d: {best[method]:.2f} %, [\d,]+ parameters", tree.text)
        assert all(f"{method}-digits-seed{seed}: " in tree.text for seed in runs)


def test_more_cells_are_folded(folder, made_up):
    several = tuple(f"d{number}" for number in range(FEW))
    asked(folder, data=several, columns=(COLUMN,) * FEW, seeds=(0,), methods=("pc_darts", "random"))
    for data in several[:-1]:
        for method in ("pc_darts", "random"):
            run = Run.create(folder.run(ComparisonCell(method, data, 0)).path)
            searched(run, method, NASBench201(), *SEARCHED[method][0])
    tree = alone(page(folder).html)
    assert "2 of 12 runs are not in the means" in tree.text
    assert "Not ended pc_darts-d5-seed0, random-d5-seed0" in tree.text
    assert tree.text.count("The cell of pc_darts, d") == FEW - 1, "one method and set of images each"
    assert len(tree.named("svg")) == 1 + 2 * (FEW - 1)
    assert len(tree.named("details")) == 2 * (FEW - 1) + 1
    assert "d0: what the answers are worth" in tree.text


def test_gaps_that_were_measured(folder, gap_of):
    run = folder.run(ComparisonCell("pc_darts", "digits", 1))
    assert "gapless gap c/pc_darts-digits-seed0" in alone(page(folder).html).text
    run.write_listed("gap.json", gap_of(NASBench201()))
    tree = alone(page(folder).html)
    assert "trust" in page(folder).sections
    assert re.search(r"pc_darts-digits-seed1 -?0\.\d\d -?\d\.\d\d to -?\d\.\d\d 71\.00 40\.00 92\.00", tree.text)
    run.write_listed("gap.json", gap_of(NASBench201(), table=False))
    assert "pc_darts-digits-seed1 - - 71.00 40.00 -" in alone(page(folder).html).text
    run.write("gap.json", "{")
    with pytest.raises(UserError, match=r"gap.json was changed since .* gapless gap "):
        page(folder)


def test_only_costs(folder):
    found = page(asked(folder, table="", columns=()))
    tree = alone(found.html)
    assert "What it cost" in tree.text and "Worth not known, only costs are compared" in tree.text
    assert "Nothing here says what the architectures are worth" in tree.text
    assert "random 2 of 3" in tree.text
    assert [svg["aria-label"].split(" as a graph")[0] for svg in tree.named("svg")] == [
        "The first answer of random",
        "The first answer of pc_darts",
    ]


def test_answers_trained_alone(folder):
    asked(folder, table="", columns=(), retrain=True)
    for seed, accuracy in ((0, 81.5), (1, 80.0)):
        run = Run.create(folder.retrained(ComparisonCell("random", "digits", seed)).path)
        run.write("recipe.toml", replace(folder.run(ComparisonCell("random", "digits", 0)).recipe(), arch="any").toml())
        run.write_json("machine.json", {**lines.MACHINE, "processor": "another", "gapless": "0.1.0"})
        told = {
            **lines.RESULT,
            "test_accuracy": accuracy,
            "seconds": 3.0,
            "peak_memory_mb": 9.0,
            "params": 77,
            "macs": 5,
        }
        run.write_json("result.json", told)
        run.end()
    tree = alone(page(folder).html)
    assert "Worth test accuracy of the answer trained alone" in tree.text
    assert "random-digits-seed0: 81.50 %, 77 parameters" in tree.text
    assert re.search(r"pc_darts-digits-seed0: [\d,]+ parameters, not ended", tree.text) and CONV in tree.text
    assert "diamond" not in tree.text
    assert "different machines or versions" in tree.text
    assert "random-digits-seed0-retrained, random-digits-seed1-retrained Processor another" in tree.text
    assert tree.text.count("Processor a, b") == 1


def test_nothing_has_ended(folder):
    asked(folder, seeds=(7,))
    found = page(folder)
    tree = Tree(found.html)
    assert found.sections == ("values", "missing", "repeat", "recipe")
    assert "0 of 2 runs have ended" in tree.text and "Time 0.0 s" in tree.text
    assert tree.named("svg") == []


def test_a_table_that_is_gone_is_a_sentence(folder):
    with pytest.raises(UserError, match=r"There is no table nowhere.parquet"):
        page(asked(folder, table="nowhere.parquet"))


def test_what_comes_from_a_comparison_is_escaped(folder, gap_of, tmp_path):
    evil = "</pre></title><script>alert(1)</script>\"' onload=x `<b>`"
    run = folder.run(ComparisonCell("pc_darts", "digits", 0))
    run.write_listed("machine.json", {**lines.MACHINE, "processor": evil, "gapless": evil})
    folder.log(ComparisonCell("random", "digits", 2)).write_text(f"Failed: {evil}\n")
    recipe = replace(folder.comparison().recipe, space={"name": "nasbench201", "note": evil}, data={"note": evil})
    asked(folder, recipe=recipe)
    moved = folder.path.rename(tmp_path / "<script> `'\"&")
    tree = alone(page(Folder(moved)).html)
    assert tree.named("b") == []
    assert tree.text.count("<script>alert(1)</script>") >= 6
    assert "<script> `'\"&" in tree.text


def test_names_of_images_are_escaped(folder):
    evil = "<script>alert(1)<"
    for method in ("random", "pc_darts"):
        folder.run(ComparisonCell(method, "digits", 0)).path.rename(folder.run(ComparisonCell(method, evil, 0)).path)
    asked(folder, data=(evil, "digits"), columns=(COLUMN, COLUMN))
    tree = alone(page(folder).html)
    assert tree.text.count("<script>alert(1)<") >= 8


def test_the_same_comparison_gives_the_same_bytes(folder, monkeypatch):
    first = page(folder).html
    assert page(folder).html == first
    monkeypatch.chdir(folder.path)
    assert page(Folder.open(".")).html == first, "wherever it is called from"


def test_ids_of_figures_are_their_own(folder):
    html = page(folder).html
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    found = {name.partition("-")[0] for svg in svgs for name in re.findall(r' id="([^"]+)"', svg)}
    assert found == {"seeds", "cell0", "cell1"}
