"""The comparison on NAS-Bench-201 and CIFAR-10 that a CPU can do: searches, look-ups, one CSV.

    python results/nb201_cifar10_cpu.py search --data CIFAR10_FOLDER --runs runs/nb201_cifar10_cpu
    python results/nb201_cifar10_cpu.py table --table accuracy.parquet --runs runs/nb201_cifar10_cpu

The first runs what is not there yet of the recipe ``nb201_cifar10_cpu`` (every method, three seeds) and goes on with
what was interrupted. The second looks every cell up and writes ``results/nb201_cifar10_cpu.csv``, with random cells
(three seeds, 20 draws each) beside them, and prints the summary of docs/results/nb201_cifar10_cpu.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import gapless
from gapless.core.size import size_of
from gapless.core.table import BenchmarkTable
from gapless.searchers.random import Random
from gapless.spaces.nasbench201 import NASBench201
from gapless.tables import load

METHODS = (
    "darts",
    "drnas",
    "dropnas",
    "pc_darts",
    "beta_darts",
    "gdas",
    "snas",
    "dsnas",
    "enas",
    "rsps",
    "spos",
    "fairnas",
    "da_nas",
)
SEEDS, DRAWS = (0, 1, 2), 20
COLUMNS = ("cifar10_test_200", "cifar100_test_200", "imagenet16_test_200")
ORDER = (
    *("method", "seed", "supernet_accuracy", "train_accuracy", "seconds", "peak_memory_mb"),
    *("gapless", "torch", "threads", "processor", "instructions"),
    *("cell", "params", "macs", *COLUMNS, "rank", "percentile", "draw"),
)
OUT = Path(__file__).with_suffix(".csv")
SPACE = NASBench201()


def search(data: str, runs: Path, methods: Sequence[str]) -> None:
    """Run what is missing."""
    for seed in SEEDS:
        for method in methods:
            folder = runs / f"{method}-{seed}"
            if (folder / "recipe.toml").is_file():
                found = gapless.resume(folder)
            else:
                recipe = gapless.Recipe.read("nb201_cifar10_cpu")
                recipe = recipe.over(method={"name": method}, data={"name": data}, run={"seed": seed})
                found = gapless.search(recipe, out=folder)
            print(method, seed, found.summary()["notation"], f"{found.seconds:.0f} s", flush=True)


def row(table: BenchmarkTable, text: str, **more: object) -> dict[str, object]:
    """Return what the table and the counters say of a cell."""
    arch = SPACE.read(text)
    sizes, looked_up = size_of(SPACE.alone(), arch), table.row(arch)
    values = {name: looked_up[name] for name in COLUMNS}
    percentile = round(table.percentile(arch, COLUMNS[0]), 2)
    return {**more, "cell": text, **sizes, **values, "rank": table.rank(arch, COLUMNS[0]), "percentile": percentile}


def rows(table: BenchmarkTable, runs: Path) -> list[dict[str, object]]:
    """Return a row for each search (of one that is not in the folder the row that is there) and each random cell."""
    found: list[dict[str, object]] = []
    before = {(r["method"], r["seed"]): dict(r) for r in csv.DictReader(OUT.open()) if not r["draw"]}
    for method in METHODS:
        for seed in SEEDS:
            if not (runs / f"{method}-{seed}" / "arch.json").is_file():
                if (method, str(seed)) in before:
                    found.append({k: v for k, v in before[method, str(seed)].items() if v})
                continue
            run = gapless.Run.open(runs / f"{method}-{seed}")
            arch, space = run.found()
            trace, machine = list(run.trace()), json.loads((run.path / "machine.json").read_text())
            found.append(
                row(
                    table,
                    space.write(arch),
                    method=method,
                    seed=seed,
                    supernet_accuracy=trace[-1]["valid_accuracy"] or "",
                    train_accuracy=round(trace[-1]["train_accuracy"], 2),
                    seconds=round(sum(r["seconds"] for r in trace) + run.judged()["seconds"]),
                    peak_memory_mb=round(trace[-1]["peak_memory_mb"]),
                    gapless=machine["gapless"],
                    torch=machine["torch"],
                    threads=machine["threads"],
                    processor=machine["processor"],
                    instructions=machine["instructions"],
                )
            )
    for seed in SEEDS:
        for n, arch in enumerate(Random(SPACE, seed=seed).ask(DRAWS)):
            found.append(row(table, SPACE.write(arch), method="random", seed=seed, draw=n))
    return found


def summary(table: BenchmarkTable, found: list[dict[str, object]]) -> str:
    """Return the table of the docs page: mean and deviation over the seeds, and what costs nothing."""
    lines = [
        "| method | seeds | CIFAR-10 test | CIFAR-100 test | ImageNet16-120 test | percentile |",
        "|---|---|---|---|---|---|",
    ]
    for method in (*METHODS, "random"):
        mine = [r for r in found if r["method"] == method]
        if not mine:
            continue
        values = [[float(str(r[c])) for r in mine] for c in (*COLUMNS, "percentile")]
        spread = [f" ± {statistics.stdev(v):.2f}" if len(v) > 1 else "" for v in values]
        told = [f"{statistics.mean(v):.2f}{s}" for v, s in zip(values, spread, strict=True)]
        lines.append(f"| {method} | {len(mine)} | {' | '.join(told)} |")
    every = [np.sort(table.column(c).values.numpy()) for c in COLUMNS]
    lines.append(
        "| one random cell (exact, over all cells) | | "
        + " | ".join(f"{v.mean():.2f} ± {v.std():.2f}" for v in every)
        + " | 50 |"
    )
    n, k = len(every[0]), 10
    # the chance that the i-th smallest of n is the largest of k draws without replacement: C(i-1, k-1) / C(n, k)
    chance = np.ones(n)
    for j in range(k):
        chance *= np.maximum(np.arange(n) - j, 0) / (n - j) if j < k - 1 else k / (n - j)
    chance /= chance.sum()
    lines.append(
        "| best of 10 random cells by that very accuracy (expected) | | "
        + " | ".join(f"{(v * chance).sum():.2f}" for v in every)
        + " | |"
    )
    largest = max(table.archs, key=lambda text: text.count("nor_conv_3x3"))
    told = row(table, largest)
    lines.append(
        f"| the cell with most parameters | | {' | '.join(f'{told[c]:.2f}' for c in COLUMNS)} "
        f"| {told['percentile']:.2f} |"
    )
    lines.append("| the best cell of each column | | " + " | ".join(f"{v[-1]:.2f}" for v in every) + " | |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "table"])
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--table", default="accuracy.parquet")
    parser.add_argument("--runs", type=Path, default=Path("runs/nb201_cifar10_cpu"))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="what to search with")
    given = parser.parse_args()
    if given.what == "search":
        search(given.data, given.runs, given.methods)
        return
    table = load(given.table)
    found = rows(table, given.runs)
    names = sorted({name: None for r in found for name in r}, key=ORDER.index)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(summary(table, found))


if __name__ == "__main__":
    main()
