"""The tables of a comparison, from a folder that is made up."""

import csv
import io
import json
import math

import pytest
from compared import COLUMN, CONV, POOL, SKIP

from gapless.core import text
from gapless.reports.comparison import COLUMNS, DIFFERENCES, latex, markdown, report, write
from gapless.runs.comparison import Comparison
from gapless.tables import load


@pytest.fixture
def values(made_up):
    table = load(made_up)
    return {text: table.row(table.parse(text))[COLUMN] for text in (CONV, POOL, SKIP)}


def test_the_numbers(folder, values):
    (group,) = report(folder).groups
    own = [values[CONV], values[POOL], values[CONV]]
    assert [row.value for row in group.rows["pc_darts"]] == own
    failed = group.rows["random"][2]
    assert (failed.state, failed.value, failed.error) == ("failed", None, "100 % of_memory | gone")
    d = group.differences["pc_darts"]
    assert list(group.differences) == ["pc_darts"]
    assert d.differences == pytest.approx((values[CONV] - values[POOL], values[POOL] - values[SKIP]))
    assert (d.least_paired, d.least_unpaired) == (0.5, 0.1)
    told = report(folder).summary()
    (random, darts) = told["methods"]
    assert darts["mean"] == pytest.approx(sum(own) / 3)
    assert darts["deviation"] == pytest.approx(abs(values[CONV] - values[POOL]) / math.sqrt(3))
    assert (darts["seconds"], darts["runs"], random["runs"]) == (14.0, 3, 2)
    assert told["baseline"] == "random"
    json.dumps(told, allow_nan=False)


def test_what_needs_no_search_stands_beside(folder, values, made_up):
    (group,) = report(folder).groups
    mean, largest, best = group.references
    table = load(made_up)
    assert mean.name == "one random cell (mean of all 15,625)"
    assert mean.value == pytest.approx(table.columns[COLUMN].values.numpy().mean())
    assert mean.spread == pytest.approx(table.columns[COLUMN].values.numpy().std())
    assert (largest.architecture, largest.value) == (CONV, values[CONV])
    assert best.value == table.columns[COLUMN].values.numpy().max()
    assert best.percentile == pytest.approx(100 * 15_624 / 15_625, abs=1e-4)  # the share of cells that are worse


def test_csv(folder, values):
    files = write(report(folder), folder.path)
    lines = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == 6 + 3
    first = lines[3]
    assert (first["method"], first["seed"], first["state"], first["measure"]) == ("pc_darts", "0", "ended", COLUMN)
    assert float(first["value"]) == pytest.approx(values[CONV], abs=1e-6)
    assert (first["seconds"], first["peak_memory_mb"], first["supernet_accuracy"]) == ("10.0", "400.0", "50.0")
    assert (first["architecture"], first["processor"], first["test_accuracy"]) == (CONV, "a, b", "")
    assert first["params"].isdigit() and first["macs"].isdigit()
    failed = lines[2]
    assert (failed["value"], failed["state"], failed["error"]) == ("", "failed", "100 % of_memory | gone")
    assert [line["state"] for line in lines[6:]] == ["reference"] * 3
    (difference,) = csv.DictReader(io.StringIO(files["differences"].read_text()))
    assert tuple(difference) == DIFFERENCES
    assert (difference["method"], difference["baseline"], difference["pairs"]) == ("pc_darts", "random", "2")
    assert (difference["least_paired"], difference["least_unpaired"]) == ("0.5", "0.1")


def test_markdown(folder, values):
    text = markdown(report(folder))
    lines = text.splitlines()
    assert lines[0] == "# random, pc_darts on nasbench201"
    (header,) = (line for line in lines if line.startswith("| method") and "seed 0" in line)
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert names == [
        "method", "seed 0", "seed 1", "seed 2", "mean ± deviation", "percentile", "parameters", "seconds", "memory in MiB",
    ]  # fmt: skip
    (own,) = (line for line in lines if line.startswith("| pc_darts") and "±" in line)
    cells = [cell.strip() for cell in own.strip("|").split("|")]
    assert cells[1:4] == [f"{values[t]:.2f}" for t in (CONV, POOL, CONV)]
    assert cells[7:] == ["14.0 ± 5.3", "500"]
    (random,) = (line for line in lines if line.startswith("| random"))
    assert "failed" in random and "(of 2)" in random
    assert "(least 0.500)" in text and "(least 0.100)" in text
    assert "* 1 of 6 runs are not in the means. random-digits-seed2: 100 % of_memory \\| gone" in text
    assert "With 2 seeds against 2" in text
    tables = [line for line in lines if line.startswith("|")]
    assert {len(line) for line in tables[:7]} == {len(header)}


def test_latex(folder):
    text = latex(report(folder))
    assert text.count(r"\begin{tabular}{lrrrrrrrr}") == 1
    assert text.count(r"\toprule") == text.count(r"\end{table}") == 2
    assert r"pc\_darts &" in text and "pc_darts &" not in text
    assert r"mean $\pm$ deviation" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows[:6]} == {8}
    assert all(line.startswith("%") for line in text.splitlines() if "of_memory" in line)


def test_latex_is_escaped():
    assert text.latex("a_b & 5 % ~ {x}^2 \\ $#") == (
        r"a\_b \& 5 \% \textasciitilde{} \{x\}\textasciicircum{}2 \textbackslash{} \$\#"
    )


def test_two_sets_of_images_have_a_table_each(folder, made_up):
    asked = folder.comparison()
    two = Comparison.of(
        asked.recipe, asked.methods, (0,), ("digits", "other"), table=str(made_up), columns=("cifar10_valid_12", COLUMN)
    )
    folder.write(two)
    found = report(folder)
    assert [g.measure for g in found.groups] == ["cifar10_valid_12", COLUMN]
    text = markdown(found)
    assert "digits: what the answers are worth, cifar10_valid_12 in %:" in text
    assert "other: what the answers are worth, cifar10_test_200 in %:" in text
    assert "not ended" in text


def test_a_run_that_ended_but_is_not_trained_yet_is_in_no_mean(folder, made_up):
    asked = folder.comparison()
    folder.write(
        Comparison.of(
            asked.recipe, asked.methods, (0, 1), ("digits",), table=str(made_up), columns=(COLUMN,), retrain=True
        )
    )
    (group,) = report(folder).groups
    assert {row.value for rows in group.rows.values() for row in rows} == {None}
    assert group.differences == {}
    assert "architecture" in group.rows["random"][0].facts
    assert "4 of 4 runs are not in the means" in markdown(report(folder))
