import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for a GPU run on a CPU; before Triton is first imported
pytest.register_assert_rewrite(
    *(f"gapless.testing.{name}" for name in ("methods", "scores", "searchers", "spaces", "tables"))
)
COMPILE = Path(__file__).with_name("compile_kernels.py")
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_sessionstart(session):
    """Compile the CPU kernels before several processes of tests start."""
    config = session.config
    if getattr(config.option, "numprocesses", None) and not config.option.collectonly:
        subprocess.run([sys.executable, COMPILE], check=True)


@pytest.fixture(autouse=True, scope="session")
def short_vectors():
    """The kernels of a CPU are compiled for vectors of four numbers alone, which serve all networks of the tests; what
    a user's search has, longer ones, too, is returned."""
    from gapless.kernels.cpu import memory  # not where processes are only started: it imports PyTorch

    longest = memory.COUNTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "COUNTS", (4,))
        yield longest


@pytest.fixture(autouse=True)
def all_vectors(request, short_vectors):
    """Tests of the tier ``kernels`` compile them for the longest vectors that fit, as a user's search does."""
    if request.node.get_closest_marker("kernels") is None:
        yield
        return
    from gapless.kernels.cpu import memory

    memory.memory_of.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "COUNTS", short_vectors)
        yield
    memory.memory_of.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Networks are tiny: threads would only wait for one another."""
    import torch

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


@pytest.fixture
def entangled_file() -> Path:
    """The cell benchmark of TangleNAS, where there is one."""
    path = SHARED / "elastic" / "entangled_cells.parquet"
    if not path.is_file():
        pytest.skip("the cell benchmark of TangleNAS is not in ../shared/data/elastic")
    return path
