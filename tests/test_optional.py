"""Without what is optional every module imports and every test is collected, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("triton", "ray", "nats_bench", "tensorboard", "onnx", "onnxruntime", "onnxscript")
FORKS = """
import importlib, os, pkgutil, sys
import datasets, kornia, matplotlib.pyplot, numba, numpy, pandas, pyarrow, rich, safetensors.torch, scipy, sklearn, torch

failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.modules[name] = None
        status = 1
        try:
            import gapless
            for module in pkgutil.walk_packages(gapless.__path__, "gapless."):
                importlib.import_module(module.name)
            status = 0
        except BaseException as error:
            print(f"without {name}: {type(error).__name__}: {error}", flush=True)
        os._exit(status)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(len(failed))
"""
COLLECT = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-q", "-p", "no:cacheprovider"]))
"""


def run(code, *words):
    """Run Python in a process that knows nothing of this one and return (status, all that it printed)."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment, text=True, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return found.returncode, found.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_every_module_imports_without_each_of_them():
    status, printed = run(FORKS, *OPTIONAL)
    assert status == 0, printed


def test_every_test_is_collected_without_all_of_them():
    status, printed = run(COLLECT, *OPTIONAL)
    assert status == 0, printed[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONAL)
def test_every_test_is_collected_without_one_of_them(name):
    status, printed = run(COLLECT, name)
    assert status == 0, printed[-3000:]
