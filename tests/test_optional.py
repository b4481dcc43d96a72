"""Without what is optional every module imports and every test is collected, in processes of their own."""

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
import pytest

def imported():
    import gapless
    for module in pkgutil.walk_packages(gapless.__path__, "gapless."):
        importlib.import_module(module.name)
    return 0

def collected():
    known = "-Wignore::pytest.PytestAssertRewriteWarning"  # plug-ins of pytest are imported already
    return pytest.main(["--collect-only", "-q", "-q", "-p", "no:cacheprovider", known])

failed = []
for hidden, work in [*(((name,), imported) for name in sys.argv[1:]), (sys.argv[1:], collected)]:
    child = os.fork()
    if child == 0:
        sys.modules |= dict.fromkeys(hidden)
        status = 1
        try:
            status = int(work())
        except BaseException as error:
            print(f"without {' '.join(hidden)}: {type(error).__name__}: {error}", flush=True)
        sys.stdout.flush()
        os._exit(status)
    if os.waitpid(child, 0)[1]:
        failed.append(hidden)
sys.exit(len(failed))
"""
"""Imports what is heavy once; then a fork of the process for each name, and one more that collects without any."""
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
def test_every_module_imports_without_each_and_every_test_is_collected_without_all():
    status, printed = run(EACH, *OPTIONAL)
    assert status == 0, printed[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONAL)
def test_every_test_is_collected_without_one_of_them(name):
    status, printed = run(COLLECT, name)
    assert status == 0, printed[-3000:]
