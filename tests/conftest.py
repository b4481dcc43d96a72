import gc
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for a GPU run on a CPU; before Triton is first imported
pytest.register_assert_rewrite(*(f"gapless.testing.{name}" for name in ("methods", "scores", "searchers", "spaces")))
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Networks are tiny: threads would only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def seldom_collected():
    """Tests build thousands of modules; by default Python goes through all of them, and all of torch, every few hundred."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture
def cifar10() -> Path:
    """The folder of the real CIFAR-10, where there is one."""
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not in ../shared/data/cifar10")
    return SHARED / "cifar10"


@pytest.fixture
def table_file() -> Path:
    """The NAS-Bench-201 table, where there is one."""
    path = SHARED / "nasbench201" / "accuracy.parquet"
    if not path.is_file():
        pytest.skip("the NAS-Bench-201 table is not in ../shared/data/nasbench201")
    return path
