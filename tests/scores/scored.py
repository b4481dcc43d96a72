"""A table and finished searches to be judged by; a folder of tests takes the fixtures over in its conftest."""

from itertools import islice, product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gapless
from gapless.core.decision import Arch
from gapless.spaces.entangled_cells import EntangledCells
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.searchers import value


def searched(out, method="darts", space=None, run=None, data=None, retrain=None, **method_settings):
    recipe = gapless.Recipe(
        space=space or {"name": "nasbench201", "width": 4, "cells": 1},
        method={"name": method, **method_settings},
        train={"epochs": 2, "batch": 32},
        data=data or {"name": "digits", "train_images": 300, "test_images": 40},
        run=run or {"threads": 1},
        retrain=retrain or {},
    )
    return gapless.search(recipe, out=out).run


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """A table of 15,625 cells whose accuracies are made up: what the suites' score says of them."""
    space = NASBench201()
    cells = [
        Arch(dict(zip(space.rows, options, strict=True))) for options in product(*(d.options for d in space.decisions))
    ]
    values = np.array([value(space, arch) for arch in cells])
    path = tmp_path_factory.mktemp("table") / "accuracy.parquet"
    columns = {"cifar10_valid_12": 10 * values, "cifar10_test_200": 10 * values + 1}
    pq.write_table(pa.table({"arch": [space.write(arch) for arch in cells], **columns}), path)
    return path


@pytest.fixture(scope="session")
def entangled(tmp_path_factory):
    """A table of some cells of TangleNAS, in the schema of the released one, with values that are made up."""
    space = EntangledCells.usual()
    every = product(*(d.options for d in space.decisions))
    cells = [Arch(dict(zip(space.rows, options, strict=True))) for options in islice(every, 0, None, 5)]
    values = np.array([value(space, arch) for arch in cells])
    values = (values - values.min()) / (values.max() - values.min())
    columns = {
        **{"test_acc": 86 + 5 * values, "train_acc": 91 + 6 * values.round(2), "num_params": 2e5 * (values + 1)},
        **{"latency_gpu_mean": 600 - 200 * values, "latency_gpu_std": values, "latency_cpu_mean": 10 + values},
    }
    path = tmp_path_factory.mktemp("entangled") / "entangled_cells.parquet"
    pq.write_table(pa.table({"genotype": [space.write(arch) for arch in cells], **columns}), path)
    return path


@pytest.fixture(scope="session")
def searched_cells(tmp_path_factory):
    """The folder of a finished search in the cell space of TangleNAS, tiny."""
    space = {"name": "entangled_cells", "width": 4}
    return searched(tmp_path_factory.mktemp("runs") / "cells", space=space).path


@pytest.fixture(scope="session")
def supernet(tmp_path_factory):
    """A finished search by DARTS, tiny."""
    return searched(tmp_path_factory.mktemp("runs") / "darts")
