"""The table of NAS-Bench-201: published values, and files that hold something else."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapless.core.errors import UserError
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.tables import load
from gapless.tables.nasbench201 import CELLS

A = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
BEST_IN16 = "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
LARGEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SPACE = NASBench201()


def test_reference_values(table_file):
    table = load(table_file)
    assert len(table.archs) == len(set(table.archs)) == CELLS
    names = ("cifar10_test_200", "cifar100_test_200", "imagenet16_test_200")
    for text, values in ((A, (94.36, 73.51, 46.34)), (SKIP, (54.30, 15.61, 16.32)), (BEST_IN16, (93.99, 72.88, 47.31))):
        assert [round(table.row(SPACE.read(text))[n], 2) for n in names] == list(values)
    assert table.rank(SPACE.read(A), "cifar100_test_200") == 1
    assert table.best("imagenet16_test_200") == SPACE.read(BEST_IN16)
    assert table.percentile(SPACE.read(SKIP), table.default_column) == pytest.approx(2.5, abs=0.1)


def test_the_largest_cell_has_a_convolution_on_every_edge(table_file):
    table = load(table_file)
    assert table.archs[int(table.params.argmax())] == LARGEST


def test_every_cell_of_the_space_is_in_the_table(table_file):
    assert len(load(table_file).archs) == SPACE.count


def test_columns_say_what_they_measure(table_file):
    table = load(table_file)
    columns = table.columns.values()
    assert all(column.unit == "%" and column.higher_is_better for column in columns)
    assert {c.name for c in columns if c.test} == {c.name for c in columns if "_test_" in c.name}
    assert table.column("cifar100_test_12").repeated_by == "cifar100_valid_12"
    assert table.column("cifar100_valid_12").repeated_by == ""
    assert table.column("cifar10_valid_200").group == "trained 200 epochs"


def test_another_depth_is_the_same_space_and_another_space_is_not(made_up):
    table = load(made_up)
    table.check(NASBench201(width=4, cells=1), "this run searched")
    with pytest.raises(UserError, match="The table holds cells of nasbench201; this run searched darts"):
        table.check(Darts(), "this run searched")


def test_a_part_of_the_columns_is_a_table(made_up):
    """Without the column that repeats it, a column is repeated by none."""
    assert load(made_up).column("cifar10_test_200").repeated_by == ""


def test_errors(tmp_path):
    with pytest.raises(UserError, match="There is no table .*Tables that Gapless reads: .*cifar10_test_200"):
        load(tmp_path / "nothing.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="Parquet"):
        load(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"columns x\. Tables that Gapless reads: entangled_cells, .*; nasbench201, "):
        load(tmp_path / "other.parquet")
    pq.write_table(pa.table({"arch": [A, A], "cifar10_test_200": [1.0, 2.0]}), tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="holds the cell .* twice"):
        load(tmp_path / "twice.parquet")
    pq.write_table(pa.table({"arch": [A, SKIP], "cifar10_test_200": [1.0, None]}), tmp_path / "hole.parquet")
    with pytest.raises(UserError, match="no cifar10_test_200 of 1 of its 2 rows"):
        load(tmp_path / "hole.parquet")
    pq.write_table(pa.table({"arch": [A], "cifar10_test_200": ["much"]}), tmp_path / "text.parquet")
    with pytest.raises(UserError, match="cifar10_test_200 of the table holds no numbers"):
        load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"arch": pa.array([], pa.string()), "cifar10_test_200": []}), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="holds no cell"):
        load(tmp_path / "empty.parquet")
