import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapless.core.errors import UserError
from gapless.spaces.nasbench201 import NASBench201
from gapless.tables.nasbench201 import CELLS, load

A = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
BEST_IN16 = "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def test_reference_values(table_file):
    table = load(table_file)
    assert len(table.archs) == len(set(table.archs)) == CELLS
    names = ("cifar10_test_200", "cifar100_test_200", "imagenet16_test_200")
    for arch, values in ((A, (94.36, 73.51, 46.34)), (SKIP, (54.30, 15.61, 16.32)), (BEST_IN16, (93.99, 72.88, 47.31))):
        assert [round(table.row(arch)[n], 2) for n in names] == list(values)
    assert table.rank(A, "cifar100_test_200") == 1
    assert table.rank(BEST_IN16, "imagenet16_test_200") == 1
    assert table.percentile(SKIP) == pytest.approx(2.5, abs=0.1)


def test_every_cell_is_an_architecture_of_the_space(table_file):
    space = NASBench201()
    archs = load(table_file).archs
    assert all(space.write(space.read(a)) == a for a in archs[:: CELLS // 200])
    assert len(archs) == space.count


def test_errors(tmp_path):
    with pytest.raises(UserError, match="no table"):
        load(tmp_path / "nothing.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="Parquet"):
        load(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="columns x"):
        load(tmp_path / "other.parquet")
