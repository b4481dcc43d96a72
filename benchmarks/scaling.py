"""How time and memory of a relaxed step grow: with cells, width, batch, options and resolution.

One axis at a time, from a base of the DARTS space: seconds of forward and backward (median; both executions
interleaved), and the memory that the graph keeps for the backward pass. The growth is the exponent b of a fitted
a n^b: 1 is linear. The last line is one JSON object.

    python benchmarks/scaling.py --repeats 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.machine import device_name, processor
from gapless.core.mix import Mix
from gapless.core.progress import seeded, stream
from gapless.engine.memory import keep_memory
from gapless.engine.supernet import Execution, Supernet
from gapless.spaces.darts import Darts

BASE = {"cells": 6, "width": 16, "batch": 16, "options": 8, "size": 32}
AXES = {
    "cells": (3, 6, 12),
    "width": (8, 16, 32),
    "batch": (8, 16, 32),
    "options": (1, 2, 4, 8),
    "size": (16, 32, 48),
}
"""The DARTS space of 6 cells at width 16, batch 16, all 8 options and 32 pixels; what is varied."""


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="*", choices=tuple(AXES), default=tuple(AXES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_memory()
    found: dict[str, Any] = {}
    for axis in args.axes:
        rows = [measure(BASE | {axis: value}, args.repeats, device) for value in AXES[axis]]
        for value, row in zip(AXES[axis], rows, strict=True):
            print(f"{axis} {value}: " + ", ".join(f"{name} {number:.4g}" for name, number in row.items()))
        growth = {name: exponent(AXES[axis], [row[name] for row in rows]) for name in rows[0]}
        print(f"{axis}: growth " + ", ".join(f"{name} {b:.2f}" for name, b in growth.items()))
        found[axis] = {"at": AXES[axis], **{name: [round(row[name], 4) for row in rows] for name in rows[0]}}
        found[axis]["growth"] = {name: round(b, 3) for name, b in growth.items()}
    machine = device_name(device) if device.type != "cpu" else processor()
    print(json.dumps(found | {"base": BASE, "device": args.device, "threads": args.threads, "machine": machine}))


def measure(at: dict[str, int], repeats: int, device: torch.device) -> dict[str, float]:
    """Return seconds of a step and MiB kept for the backward pass, of both executions."""
    space = Darts(cells=at["cells"], width=at["width"], size=at["size"])
    generator = stream("scaling")
    images = torch.randn(at["batch"], 3, at["size"], at["size"], generator=generator).to(device)
    labels = torch.randint(10, (at["batch"],), generator=generator).to(device)
    columns = tuple(range(len(space.decisions[0].options)))[-at["options"] :]
    weight = torch.rand(space.shape, generator=generator).to(device)
    mix = Mix(weight, None if at["options"] == len(space.decisions[0].options) else (columns,) * len(space.decisions))
    with seeded(0, "benchmark"):
        supernet = Supernet(space).to(device).train()
    times: dict[Execution, list[float]] = {e: [] for e in get_args(Execution)}
    kept: dict[Execution, float] = {}
    for turn in range(repeats + 1):
        for execution in times:
            supernet.execution = execution
            supernet.zero_grad(set_to_none=True)
            sizes: dict[int, int] = {}

            def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
                return tensor

            begun = time.perf_counter()
            if turn:
                F.cross_entropy(supernet(images, mix.leaves()), labels).backward()
            else:  # not timed: what the graph keeps
                with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    loss = F.cross_entropy(supernet(images, mix.leaves()), labels)
                kept[execution] = sum(sizes.values()) / 2**20
                loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[execution].append(time.perf_counter() - begun)
    return {f"{e} s": statistics.median(t) for e, t in times.items()} | {f"{e} MiB": m for e, m in kept.items()}


def exponent(at: tuple[int, ...], values: list[float]) -> float:
    """Return b of the least-squares fit of a n^b."""
    return float(np.polyfit(np.log(at), np.log(values), 1)[0])


if __name__ == "__main__":
    main()
