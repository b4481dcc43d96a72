"""The cell benchmark of TangleNAS: its published values, and the number of parameters of every network."""

import shutil

import in_turn
import pyarrow.parquet as pq
import pytest
import torch

import gapless
from gapless import Recipe
from gapless.commands.app import run
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.studies.compare import Here
from gapless.tables import load

BEST = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=range(1, 3), "
    "reduce=[('sep_conv_3x3', 0), ('dil_conv_3x3', 0), ('sep_conv_3x3', 1)], reduce_concat=range(1, 3))"
)


def exchanged(arch):
    """Return the architecture whose normal cell is the reduction cell of this one, and the other way round."""
    other = {"normal": "reduce", "reduce": "normal"}
    return Arch({f"{other[edge.partition(':')[0]]}:{edge.partition(':')[2]}": option for edge, option in arch.items()})


def test_reference_values(entangled_file):
    table = load(entangled_file)
    best = table.best("test_acc")
    assert len(table.archs) == table.space.count == 4096
    assert table.space.write(best) == BEST
    assert (table.row(best)["test_acc"], table.rank(best, "test_acc")) == (91.63, 1)
    assert table.value(table.best("latency_gpu_mean"), "latency_gpu_mean") == pytest.approx(394.44)


def test_parameters_are_those_of_the_released_code_with_the_cells_exchanged(entangled_file):
    """For all 4,096 networks: its count gives the operations of the normal cell to the reduction cells."""
    table, published = load(entangled_file), pq.read_table(entangled_file)["num_params"].to_pylist()
    places = [table.place(exchanged(table.parse(key))) for key in table.archs]
    torch.testing.assert_close(
        table.params[places].double(), torch.tensor(published, dtype=torch.float64), rtol=0, atol=0
    )


def test_the_columns(entangled):
    columns = load(entangled).columns
    assert {name: (c.unit, c.higher_is_better, c.test) for name, c in columns.items()} == {
        "test_acc": ("%", True, True),
        "train_acc": ("%", True, False),
        "latency_gpu_mean": ("us", False, False),
        "latency_cpu_mean": ("ms", False, False),
    }


@pytest.mark.parametrize("file", ["entangled", "entangled_file"])
def test_evaluate(file, request):
    path = request.getfixturevalue(file)
    table = load(path)
    best = table.space.write(table.best("latency_gpu_mean"))
    found = gapless.evaluate(best, table=path, column="latency_gpu_mean")
    assert found["space"] == "entangled_cells"
    assert found["params"] == int(table.params[table.archs.index(best)])
    assert found["table"]["rank"] == 1, "the smallest latency is the best"
    assert gapless.evaluate(best, table=table)["table"]["column"] == "test_acc"


def test_the_command_says_units(entangled, capsys):
    table = load(entangled)
    best = table.space.write(table.best("latency_gpu_mean"))
    assert run(["evaluate", best, "--table", str(entangled), "--column", "latency_gpu_mean"]) == 0
    said = capsys.readouterr().out
    count = len(table.archs)
    assert (
        f"latency_gpu_mean: 400.00 us, rank 1 of {count}; better than {100 - 100 / count:.2f} % of all architectures"
        in said
    )
    assert "  trained once: test_acc 91.00, train_acc 97.00\n" in said
    assert "  measured: latency_gpu_mean 400.00 us, latency_cpu_mean 11.00 ms\n" in said
    assert run(["table", "show", str(entangled)]) == 0
    assert f"{count} architectures" in (said := capsys.readouterr().out)
    assert "latency_gpu_mean (us)" in said


def test_a_comparison_is_judged_by_it(entangled_file, monkeypatch, tmp_path):
    """Two black-box searches of the space: what they are worth, and the references, come from the table."""
    monkeypatch.setattr(Here, "run", in_turn.run)
    space = {"name": "entangled_cells"}
    recipe = Recipe(space=space, score={"name": "table", "file": str(entangled_file), "evaluations": 10})
    found = gapless.compare(
        recipe, methods=["random", "local_search"], seeds=[0], table=entangled_file, out=tmp_path / "c"
    ).report
    (group,) = found.groups
    table = load(entangled_file)
    for (row,) in group.rows.values():
        arch = table.parse(row.facts["architecture"])
        assert (row.value, row.facts["rank"]) == (table.row(arch)["test_acc"], table.rank(arch, "test_acc"))
    assert [r.name for r in group.references[1:]] == ["the architecture with most parameters", "the best architecture"]
    assert group.references[2].value == 91.63


def test_the_gap_takes_it_as_the_truth(entangled_file, searched_cells, tmp_path):
    shutil.copytree(searched_cells, tmp_path / "run")
    found = gapless.gap(tmp_path / "run", table=entangled_file, archs=2, images=20, budgets=(), threads=1)
    table = load(entangled_file)
    assert found.truth == "test_acc"
    assert found.ceiling is None, "no column measures the same trainings again"
    for judged in found.sample:
        assert judged.truth == table.row(table.parse(judged.notation))["test_acc"]


@pytest.mark.parametrize("file", ["entangled", "entangled_file"])
def test_show_draws_what_a_search_draws(file, request, tmp_path):
    """The whole way: a search in the space, and its figures with the table; a part of the table lacks what was drawn."""
    run = request.getfixturevalue("searched_cells")
    if file == "entangled":
        with pytest.raises(UserError, match="The table holds no architecture Genotype"):
            gapless.figures(run, out=tmp_path, table=request.getfixturevalue(file))
        return
    found = gapless.figures(run, out=tmp_path, table=request.getfixturevalue(file))
    assert found.range["column"] == "test_acc"
    assert found.range["optimum"] == 91.63
    assert (tmp_path / "range.svg").is_file()
    with pytest.raises(UserError, match="holds no accuracies but us; columns of accuracies: test_acc, train_acc"):
        gapless.figures(run, out=tmp_path, table=request.getfixturevalue(file), column="latency_gpu_mean")
