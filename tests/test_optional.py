"""Without what is optional every module imports and every test is collected, in processes of their own.

That tests are collected where Triton, Ray and NATS-Bench are missing is shown by the default tier itself, which `make`
runs without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("triton", "ray", "nats_bench", "tensorboard", "onnx", "onnxruntime", "onnxscript")
EACH = """
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
"""Imports what is heavy once; then a fork of the process for each name."""
COLLECT = """
import sys
sys.modules |= dict.fromkeys(sys.argv[1:])
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
    status, printed = run(EACH, *OPTIONAL)
    assert status == 0, printed[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("names", [OPTIONAL, *((name,) for name in OPTIONAL)], ids=["all", *OPTIONAL])
def test_every_test_is_collected_without_them(names):
    status, printed = run(COLLECT, *names)
    assert status == 0, printed[-3000:]
