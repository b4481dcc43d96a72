"""Time the first fused step on a CPU from an empty cache of compiled functions, and from the cache that it leaves.

Each measurement is a fresh process with a cache folder of its own. Give the ``src`` folders of several checkouts to
compare them: they run interleaved. The last line is one JSON object.

    python benchmarks/first_step.py
    python benchmarks/first_step.py --src ../before/src src --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP = """
import time
import torch
from gapless.core.mix import Mix
from gapless.engine.supernet import Supernet
from gapless.spaces.darts import Darts
torch.set_num_threads(1)
space = Darts(width=16, cells=3)
supernet = Supernet(space, "fused").train()
mix = Mix(torch.full(space.shape, 1 / space.shape[1], requires_grad=True))
images = torch.randn(4, 3, 16, 16)
begun = time.perf_counter()
supernet(images, mix).sum().backward()
print(time.perf_counter() - begun)
"""
"""One step of a small DARTS supernet, in float32, with numbers of channels that 16 divides."""


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", nargs="+", default=[str(Path(__file__).parents[1] / "src")])
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {src: {"empty": [], "cpu": [], "cached": []} for src in args.src}
    for _ in range(args.repeats):
        for src in args.src:
            with tempfile.TemporaryDirectory() as cache:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                found[src]["empty"].append(step(src, cache))
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                found[src]["cpu"].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                found[src]["cached"].append(step(src, cache))
            print(src, {kind: round(values[-1], 1) for kind, values in found[src].items()}, flush=True)
    medians = {src: {k: round(statistics.median(v), 2) for k, v in kinds.items()} for src, kinds in found.items()}
    print(json.dumps({"seconds": medians, "cores": os.cpu_count(), "when": time.strftime("%Y-%m-%d")}))


def step(src: str, cache: str) -> float:
    """Return the seconds of the first step of a process that imports the package from ``src``."""
    environment = os.environ | {"PYTHONPATH": str(Path(src).resolve()), "NUMBA_CACHE_DIR": cache}
    out = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return float(out.splitlines()[-1])


if __name__ == "__main__":
    main()
