"""A column of a benchmark table as a score."""

import pyarrow.parquet as pq
import pytest
import torch

from gapless.core.errors import UserError
from gapless.scores.table import TableAccuracy
from gapless.spaces.darts import Darts
from gapless.spaces.entangled_cells import EntangledCells
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.searchers import value

CPU, SPACE = torch.device("cpu"), NASBench201()


def test_it_is_the_number_in_the_table(made_up):
    judge = TableAccuracy(SPACE, CPU, file=made_up)
    arch = SPACE.sample(torch.Generator().manual_seed(1))
    assert judge(arch) == pytest.approx(10 * value(SPACE, arch))
    assert judge.title == "cifar10_valid_12 of accuracy.parquet"
    assert TableAccuracy(SPACE, CPU, file=made_up.parent)(arch) == judge(arch)


def test_the_real_table(table_file):
    judge = TableAccuracy(SPACE, CPU, file=table_file, column="cifar10_test_200")
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert round(judge(SPACE.read(cell)), 2) == 94.36


def test_a_test_column_is_called_an_oracle(made_up):
    assert TableAccuracy(SPACE, CPU, file=made_up).notice == ""
    assert "oracle" in TableAccuracy(SPACE, CPU, file=made_up, column="cifar10_test_200").notice


def test_columns_and_tables_have_fingerprints(made_up):
    one = TableAccuracy(SPACE, CPU, file=made_up)
    assert one.fingerprint != TableAccuracy(SPACE, CPU, file=made_up, column="cifar10_test_200").fingerprint


def test_what_does_not_fit_is_told(made_up, tmp_path):
    with pytest.raises(UserError, match="the `space` nasbench201"):
        TableAccuracy(Darts(), CPU, file=made_up)
    with pytest.raises(UserError, match="no column 'cifar10_valid_20'"):
        TableAccuracy(SPACE, CPU, file=made_up, column="cifar10_valid_20")
    with pytest.raises(UserError, match="There is no table"):
        TableAccuracy(SPACE, CPU, file=tmp_path / "no.parquet")
    part = tmp_path / "part.parquet"
    pq.write_table(pq.read_table(made_up).slice(0, 10), part)
    judge = TableAccuracy(SPACE, CPU, file=part)
    missing = SPACE.read(pq.read_table(made_up)["arch"][10].as_py())
    with pytest.raises(UserError, match="a part of the benchmark"):
        judge(missing)


def test_the_column_of_the_table_is_recorded(made_up, entangled):
    """What a run writes down names the column, also where the table chose it."""
    assert TableAccuracy.completed(file=made_up) == {"file": made_up, "column": "cifar10_valid_12"}
    assert TableAccuracy.completed(file=entangled, column=None)["column"] == "train_acc"
    assert TableAccuracy.completed(file=made_up, column="cifar10_test_200")["column"] == "cifar10_test_200"


def test_another_table_is_a_score_of_its_own_space(entangled):
    space = EntangledCells.usual(width=4)
    judge = TableAccuracy(space, CPU, file=entangled)
    best = judge.table.best("train_acc")
    assert (judge(best), judge.unit, judge.notice) == (97.0, "%", "")
    assert "oracle" in TableAccuracy(space, CPU, file=entangled, column="test_acc").notice
    with pytest.raises(
        UserError, match="The table holds architectures of entangled_cells, and this search is over nasb"
    ):
        TableAccuracy(SPACE, CPU, file=entangled)
    with pytest.raises(UserError, match=r"Of latency_cpu_mean the smallest value is the best.*: test_acc, train_acc\."):
        TableAccuracy(space, CPU, file=entangled, column="latency_cpu_mean")
