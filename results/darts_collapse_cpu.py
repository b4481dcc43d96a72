"""The collapse test that a CPU can do: every method on S2 and S4 of RobustDARTS, and what it answers.

    python results/darts_collapse_cpu.py search --data CIFAR10_FOLDER --runs runs/darts_collapse_cpu
    python results/darts_collapse_cpu.py table --runs runs/darts_collapse_cpu

The first runs what is not there yet of the recipe ``darts_collapse_cpu`` and goes on with what was interrupted. The
second counts, of the eight edges that an answer keeps in each cell, those that took the operation without weights (a
skip connection on S2, noise on S4), at the end and after some epochs before it, and writes
``results/darts_collapse_cpu.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import gapless

METHODS = ("darts", "drnas", "dropnas", "pc_darts", "beta_darts", "gdas", "snas", "dsnas")
SPACES = {"s2": "skip_connect", "s4": "noise"}
SEEDS, EPOCHS = (0, 1, 2), (10, 20, 50, 75)
OUT = Path(__file__).with_suffix(".csv")


def search(data: str, runs: Path, spaces: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is missing."""
    for seed in seeds:
        for options in spaces:
            for method in methods:
                folder = runs / f"{options}-{method}-{seed}"
                if (folder / "recipe.toml").is_file():
                    found = gapless.resume(folder)
                else:
                    recipe = gapless.Recipe.read("darts_collapse_cpu").over(
                        space={"options": options, **({"partial": 4} if method == "pc_darts" else {})},
                        method={"name": method},
                        data={"name": data},
                        run={"seed": seed},
                    )
                    found = gapless.search(recipe, out=folder)
                print(options, method, seed, counted(str(found.arch), options), f"{found.seconds:.0f} s", flush=True)


def counted(arch: str, options: str) -> tuple[int, int]:
    """Return how many edges of the normal and of the reduction cell took the operation without weights."""
    found = [edge.split(":")[0] for edge in arch.split(",") if edge.endswith(f"={SPACES[options]}")]
    return found.count("normal"), found.count("reduce")


def rows(runs: Path) -> list[dict[str, object]]:
    """Return a row for each finished search."""
    found = []
    for options in SPACES:
        for method in METHODS:
            for seed in SEEDS:
                folder = runs / f"{options}-{method}-{seed}"
                if not (folder / "arch.json").is_file():
                    continue
                run = gapless.Run.open(folder)
                arch, space = run.found()
                trace, machine = list(run.trace()), json.loads((run.path / "machine.json").read_text())
                normal, reduce = counted(str(arch), options)
                then = {f"epoch_{n}": "+".join(map(str, counted(trace[n - 1]["arch"], options))) for n in EPOCHS}
                found.append(
                    {
                        "space": options,
                        "method": method,
                        "seed": seed,
                        "without_weights_normal": normal,
                        "without_weights_reduce": reduce,
                        **then,
                        "train_accuracy": round(trace[-1]["train_accuracy"], 2),
                        "seconds": round(sum(r["seconds"] for r in trace)),
                        "peak_memory_mb": round(trace[-1]["peak_memory_mb"]),
                        **{key: machine[key] for key in ("gapless", "torch", "threads", "processor")},
                        "genotype": space.write(arch),
                    }
                )
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "table"])
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/darts_collapse_cpu"))
    parser.add_argument("--spaces", nargs="*", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    given = parser.parse_args()
    if given.what == "search":
        search(given.data, given.runs, given.spaces, given.methods, given.seeds)
        return
    found = rows(given.runs)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for options in SPACES:
        print(f"{options}: edges of 8 and 8 with {SPACES[options]}, seed by seed")
        for method in METHODS:
            mine = [r for r in found if (r["space"], r["method"]) == (options, method)]
            print(
                f"  {method}: "
                + ", ".join(f"{r['without_weights_normal']}+{r['without_weights_reduce']}" for r in mine)
            )


if __name__ == "__main__":
    main()
