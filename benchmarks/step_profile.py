"""Where the time of a fused step on a CPU goes, and how near the loops come to what the processor can do.

Shares of the median step: the compiled walks (each ends when its slowest thread does), what else is done inside of fans
(moments joined, Python), and what is outside of fans. Then GFLOP/s of one thread in a large matrix product of the math
library and in the loops. The last line is one JSON object.

    python benchmarks/step_profile.py --case darts
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from opponents import SPACES
from supernet_step import Ours, batch_of

from gapless.core.machine import processor
from gapless.engine.memory import keep_memory
from gapless.kernels.cpu import backend as compiled
from gapless.kernels.cpu import loops, walks
from gapless.kernels.cpu.declare import Image, from_python
from gapless.kernels.cpu.memory import COUNTS, vector_of

WALKS = {
    "forward": "forward",
    "backward": "backward",
    "sums at nodes": "node_sum",
    "sums of gradients": "end_grad_sums",
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=[c for c in SPACES if c != "single_path"], default="darts")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    found = shares(args) | {"gflops_one_thread": {k: round(v) for k, v in rates().items()}}
    for name, value in found.items():
        print(f"{name}: {value}")
    print(json.dumps(found | {"case": args.case, "batch": args.batch, "machine": processor()}))


def shares(args: argparse.Namespace) -> dict[str, Any]:
    """Return the median seconds of a step, the MiB that its graph keeps, and the share of each part."""
    ours = Ours(args.case, "fused", torch.device("cpu"))
    images, labels = batch_of(args, torch.device("cpu"))
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours.step(images, labels)
    spent: Counter[str] = Counter()

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            begun = time.perf_counter()
            answer = call(*given)
            spent[name] += time.perf_counter() - begun
            return answer

        return run

    plain, function = compiled.walks, compiled._Fan
    watched = {walk: timed(name, getattr(walks, walk)) for name, walk in WALKS.items()}
    compiled.walks = SimpleNamespace(**{**vars(walks), **watched})
    ends = function.forward, function.backward
    function.forward, function.backward = (staticmethod(timed("fans", end)) for end in ends)
    rows: list[dict[str, float]] = []
    try:
        for _ in range(args.repeats):
            spent.clear()
            begun = time.perf_counter()
            ours.step(images, labels)
            step = time.perf_counter() - begun
            row = {name: spent[name] / step for name in WALKS}
            row["else inside of fans"] = spent["fans"] / step - sum(row.values())
            rows.append(row | {"outside of fans": 1 - spent["fans"] / step, "step": step})
    finally:
        compiled.walks = plain
        function.forward, function.backward = (staticmethod(end) for end in ends)
    middle = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    return {"seconds": middle.pop("step"), "kept_mib": round(sum(kept.values()) / 2**20), "shares": middle}


def rates() -> dict[str, float]:
    """Return GFLOP/s of one thread: a matrix product, and the loops on images of 16 channels and 32 pixels a side (the
    best of some rounds)."""
    torch.set_num_threads(1)
    C, H = 16, 32
    v = vector_of(np.dtype(np.float32), max(COUNTS))
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    x, y = np.random.default_rng(0).standard_normal((2, (H + 4) ** 2 * C), dtype=np.float32)
    w, found = np.ones(25 * C * C, np.float32), np.zeros(25 * C * C)
    image, out = Image(x, 0, (H + 4) * C), Image(y, 0, H * C)
    depthwise, conv, conv_weight_grad = map(from_python, (loops.depthwise, loops.conv, loops.conv_weight_grad))
    works: dict[str, tuple[float, Callable[[], Any]]] = {
        "matrix product": (2 * 1024**3, lambda: torch.mm(a, b)),
        "depthwise 5x5": (
            2 * 25 * C * H * H,
            lambda: depthwise(image, w, out, H, H, C, 5, 1, 1, False, v),
        ),
        "convolution 3x3": (
            2 * 9 * C * C * H * H,
            lambda: conv(image, w, out, H, H, C, C, 3, 1, 1, False, v),
        ),
        "weights of a 3x3": (
            2 * 9 * C * C * H * H,
            lambda: conv_weight_grad(image, out, C, found, H, H, C, C, 3, 1, 1, v),
        ),
    }
    best: dict[str, float] = {}
    for name, (operations, work) in works.items():
        work()
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(10):
                work()
            times.append((time.perf_counter() - begun) / 10)
        best[name] = operations / min(times) / 1e9
    return best


if __name__ == "__main__":
    main()
