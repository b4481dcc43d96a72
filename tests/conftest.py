"""One thread for all tests: networks are tiny, and threads would only wait for one another. The suites' asserts explain themselves."""

import gc

import pytest
import torch

pytest.register_assert_rewrite("gapless.testing.methods", "gapless.testing.searchers", "gapless.testing.spaces")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _seldom_collected() -> None:
    """Tests build thousands of modules; by default Python looks at all of them, and at all of torch, every few hundred."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
