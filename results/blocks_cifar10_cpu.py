"""Small real searches of the block spaces on CIFAR-10 images under a limit on multiply-adds.

    python results/blocks_cifar10_cpu.py search --data CIFAR10_FOLDER --runs runs/blocks_cifar10_cpu
    python results/blocks_cifar10_cpu.py table --runs runs/blocks_cifar10_cpu

The first runs what is not there yet of the recipes ``shufflenet_cifar10_cpu`` and ``mobile_cifar10_cpu``, and goes on
with what was interrupted. The second checks that every answer holds its limit, and judges it beside 20 random
architectures within the limit by the supernet of the same search: ``results/blocks_cifar10_cpu.csv``. A search that
trained on all images is judged by images that its weights have seen, and so are the random ones beside it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from pathlib import Path

import torch

import gapless
from gapless.core.bound import budget
from gapless.core.progress import stream
from gapless.core.size import size_of
from gapless.runs.searched import Reopened

METHODS, SPACES, RANDOM = ("spos", "dsnas", "fairnas", "da_nas"), ("shufflenet", "mobile"), 20
OUT = Path(__file__).with_suffix(".csv")


def search(data: str, runs: Path) -> None:
    """Run what is missing."""
    for space in SPACES:
        for method in METHODS:
            folder = runs / f"{space}-{method}"
            if (folder / "recipe.toml").is_file():
                found = gapless.resume(folder)
            else:
                recipe = gapless.Recipe.read(f"{space}_cifar10_cpu")
                found = gapless.search(recipe.over(method={"name": method}, data={"name": data}), out=folder)
            print(space, method, found.summary()["notation"], f"{found.seconds:.0f} s", flush=True)


def row(run: gapless.Run) -> dict[str, object]:
    """Return what is to be told of a search."""
    arch, space = run.found()
    recipe = run.recipe()
    trace, machine = list(run.trace()), json.loads((run.path / "machine.json").read_text())
    alone = space.alone()
    limit = budget(space, list(recipe.bounds()), alone=alone)
    opened = Reopened.of(run, torch.device("cpu"), "float32")
    drawn = (space.sample(stream("blocks", space.label, i)) for i in itertools.count())
    within = list(itertools.islice(filter(limit.respects, drawn), RANDOM))
    bench = opened.bench
    own, others = bench.inherited(arch), sorted(bench.inherited(other) for other in within)
    size = size_of(alone, arch)
    return {
        "space": space.label,
        "method": recipe.method["name"],
        "limit_macs": int(limit.bounds[0].most),
        **size,
        "holds": size["macs"] <= limit.bounds[0].most,
        "judged_on": "held out" if len(bench.feed.arch) else "seen",
        "inherited": round(100 * own, 2),
        "random_mean": round(100 * sum(others) / RANDOM, 2),
        "random_best": round(100 * others[-1], 2),
        "random_below": sum(other < own for other in others),
        "seconds": round(sum(r["seconds"] for r in trace) + run.judged()["seconds"]),
        "peak_memory_mb": round(trace[-1]["peak_memory_mb"]),
        **{key: machine[key] for key in ("gapless", "torch", "threads", "processor")},
        "architecture": space.write(arch),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "table"])
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/blocks_cifar10_cpu"))
    given = parser.parse_args()
    if given.what == "search":
        search(given.data, given.runs)
        return
    found = [row(gapless.Run.open(given.runs / f"{s}-{m}")) for s in SPACES for m in METHODS]
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for r in found:
        print({key: r[key] for key in ("space", "method", "macs", "holds", "inherited", "random_mean", "random_below")})


if __name__ == "__main__":
    main()
