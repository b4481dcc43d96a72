import importlib.util
import os
import secrets
import subprocess
import sys

import pytest
from scored import made_up, supernet

__all__ = ["cluster", "made_up", "supernet"]

CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, logging_level=40, object_store_memory=80_000_000)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="session")
def cluster():
    """The address of a real Ray cluster with two CPUs on this machine, which is stopped behind the tests; it asks for a
    token that is made up here."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'gapless[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=dict(os.environ), start_new_session=True,
        )  # fmt: skip
        with head:
            address = head.stdout.readline().strip()
            assert address, "no cluster could be started"
            yield address
            head.stdin.close()
            head.wait(timeout=60)
