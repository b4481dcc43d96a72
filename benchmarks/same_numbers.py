"""Record the numbers of a fixed list of small runs, and compare two records bit for bit.

To check a change that must not alter any number: record before it and after it on one machine, then compare.
Records of different processors, thread counts or PyTorch versions differ in their last bits and must not be compared.

    python benchmarks/same_numbers.py record before.json
    python benchmarks/same_numbers.py record after.json
    python benchmarks/same_numbers.py compare before.json after.json

Every method runs in both executions and in float32 and float64 on NAS-Bench-201, and methods with a plan of their own
run on the DARTS space and on spaces of blocks as well; a few answers are trained alone and judged by the gap. A record
holds, for each run, SHA-256 of its trace (wall time and memory aside), of its weights and of its answer.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import gapless
from gapless import Recipe

METHODS: dict[str, dict[str, Any]] = {
    "beta_darts": {},
    "da_nas": {"classes": (0.5, 1.0)},
    "darts": {},
    "darts-unrolled": {"unrolled": True},
    "darts-unrolled-faithful": {"unrolled": True, "faithful": True},
    "drnas": {},
    "drnas-faithful": {"faithful": True},
    "drnas-progressive": {"progressive": True, "warmup": 0},
    "dropnas": {"rate_weights": 0.2, "rate_free": 0.2, "warmup": 1},
    "dropnas-faithful": {"rate_weights": 0.2, "rate_free": 0.1, "faithful": True},
    "dsnas": {},
    "dsnas-coast": {"macs": 1e-3, "macs_from": 0.0, "freeze": 0.02, "inactive": "coast"},
    "enas": {"steps": 3, "samples": 3, "candidates": 5},
    "fairnas": {"evaluations": 12, "images": 100, "calibration": 200},
    "fairnas-own": {"batches": "own", "gradients": "mean", "evaluations": 8, "calibration": 200},
    "gdas": {},
    "gdas-scalar": {"estimator": "scalar_fill"},
    "pc_darts": {},
    "rsps": {"archs": 12, "images": 100, "finalists": 3},
    "snas": {},
    "snas-bilevel": {"bilevel": True, "resource": 1e-3},
    "spos": {"evaluations": 12, "images": 100, "calibration": 200},
    "random": {},
}
"""Variants: a method's name, a dash, what is set; few candidates, for time."""
EVERYWHERE = ("nasbench201", {"width": 8, "cells": 1})
BATCH = {"fairnas-own": 8, "da_nas": 16}
"""Smaller batches where 32 leaves too few updates: seven are one, or some epochs see half of the images."""
MORE: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "darts": (
        "darts",
        {"width": 4, "cells": 3},
        ("darts", "darts-unrolled", "dropnas", "pc_darts", "gdas", "enas"),
    ),
    "darts-partial": ("darts", {"width": 12, "cells": 3}, ("drnas-progressive",)),
    "darts-odd": ("darts", {"width": 3, "cells": 3}, ("darts", "gdas")),
    "shufflenet": (
        "shufflenet",
        {"stem_width": 8, "widths": (16, 32), "repeats": (2, 2), "strides": (1, 2, 2), "head_width": 32},
        ("spos", "dsnas"),
    ),
    "mobile": (
        "mobile",
        {"width": 0.25, "layers": (1, 2, 1, 1, 1, 1), "strides": (1, 1, 2, 2, 1, 2, 1)},
        ("fairnas", "da_nas", "darts"),
    ),
}
SMALL = {
    "regularized_evolution": {"population": 4},
    "evolution": {"population": 6, "parents": 3, "mutations": 3, "crossovers": 3},
}
"""Black-box searches that go on beyond their first population within a dozen evaluations."""
MOVING = ("seconds", "images_per_second", "peak_memory_mb")
"""What a trace says of time and memory."""


def runs() -> dict[str, dict[str, Any]]:
    """Return the tables of each run's recipe by a name."""
    found = {}

    def add(label: str, space: str, fields: dict[str, Any], variant: str, **run: Any) -> None:
        found["-".join((label, variant, *map(str, run.values())))] = {
            "space": {"name": space, **fields},
            "method": {"name": variant.partition("-")[0], **METHODS[variant]},
            "train": {"epochs": 4, "batch": BATCH.get(variant, 32), "lr": 0.025, "lr_warmup": 0, "arch_share": 0.5},
            "data": {"name": "digits", "train_images": 300},
            "run": {"threads": 1, **run},
        }

    name, fields = EVERYWHERE
    for variant in METHODS:
        for precision in ("float32", "float64"):
            for execution in ("fused", "reference"):
                add(name, name, fields, variant, precision=precision, execution=execution)
    for label, (name, fields, variants) in MORE.items():
        for variant in variants:
            for execution in ("fused", "reference"):
                add(label, name, fields, variant, precision="float32", execution=execution)
    add("nasbench201-watched", *EVERYWHERE, "drnas", watch=True)
    add("nasbench201-recomputed", *EVERYWHERE, "drnas", recompute=True)
    return found


def digest(*parts: bytes) -> str:
    """Return a short SHA-256."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def of_tensors(path: Path) -> str:
    """Return the digest of a file of weights by name and bits, whatever its layout on disk."""
    from safetensors.torch import load_file

    held = load_file(path)
    return digest(
        *(part for k in sorted(held) for part in (k.encode(), held[k].reshape(-1).view(torch.uint8).numpy().tobytes()))
    )


def of_run(folder: Path) -> dict[str, str]:
    """Return the digests of a run's folder."""
    found = {}
    trace = folder / "trace.jsonl"
    if trace.is_file():
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        kept = [{k: v for k, v in line.items() if k not in MOVING} for line in lines]
        found["trace"] = digest(json.dumps(kept, sort_keys=True).encode())
    for path in sorted(folder.glob("*.safetensors")):
        found[path.name] = of_tensors(path)
    arch = json.loads((folder / "arch.json").read_text())
    found["arch"] = str(arch["arch"])
    if (folder / "judged.json").is_file():
        found["judged"] = digest(json.dumps(json.loads((folder / "judged.json").read_text())["archs"]).encode())
    return found


def record(file: Path) -> None:
    """Run everything and write the digests, after each run so that an interrupted record can be read."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}

    def note(folder: Path) -> None:
        found[folder.name] = of_run(folder)
        file.write_text(json.dumps(found, indent=1) + "\n")
        print(folder.name, found[folder.name].get("weights.safetensors", ""), flush=True)

    with tempfile.TemporaryDirectory() as where:
        root = Path(where)
        for name, tables in runs().items():
            gapless.search(Recipe(**tables), out=root / name)
            note(root / name)
        for name in ("nasbench201-drnas-float32-fused", "darts-pc_darts-float32-fused"):
            fields = {"width": 4, "cells": 3 if name.startswith("darts") else 1}
            protocol = {"protocol": "nasbench201", "epochs": 2, "batch": 64}
            out = root / f"{name}-alone"
            gapless.retrain(root / name, out=out, fields=fields, protocol=protocol, run={"threads": 1})
            note(out)
        scored = {
            "space": {"name": "nasbench201", "width": 8, "cells": 1},
            "score": {"name": "inherited", "run": str(root / "nasbench201-spos-float32-fused"), "evaluations": 12},
            "data": {"name": "digits", "train_images": 300},
            "run": {"threads": 1},
        }
        for method in ("random", "regularized_evolution", "local_search", "evolution"):
            out = root / f"scored-{method}"
            gapless.search(Recipe(**scored, method={"name": method, **SMALL.get(method, {})}), out=out)
            note(out)


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print what differs and return the number of runs that do."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in changed:
        old, new = before.get(name, {}), after.get(name, {})
        print(name, "differs in", ", ".join(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)))
    print(f"{len(before.keys() | after.keys()) - len(changed)} of {len(before.keys() | after.keys())} runs are equal")
    return len(changed)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", file]:
            record(Path(file))
        case ["compare", one, other]:
            sys.exit(bool(compare(json.loads(Path(one).read_text()), json.loads(Path(other).read_text()))))
        case _:
            sys.exit(__doc__)
