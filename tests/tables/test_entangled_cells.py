"""The cell benchmark of TangleNAS: its published values, and the number of parameters of every network."""

import pyarrow.parquet as pq
import pytest
import torch

import gapless
from gapless.core.decision import Arch
from gapless.core.errors import UserError
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
