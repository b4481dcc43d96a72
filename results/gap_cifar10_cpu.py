"""The gap of searches on NAS-Bench-201 and CIFAR-10 that a CPU can do: does grouped dropout shrink it?

    python results/gap_cifar10_cpu.py search --data CIFAR10_FOLDER --runs runs/gap_cifar10_cpu
    python results/gap_cifar10_cpu.py measure --table accuracy.parquet --runs runs/gap_cifar10_cpu
    python results/gap_cifar10_cpu.py table --runs runs/gap_cifar10_cpu

The first searches by the recipe ``nb201_cifar10_cpu`` with DARTS, DrNAS, DropNAS and, as ``one_level``, with DropNAS
that drops nothing: one-level DARTS. The second measures each gap (20 random cells, 2,000 test images), and looks at the
options of the last two side by side (``gapless diagnose``, seed 0). Both leave what is there. The third writes
``results/gap_cifar10_cpu.csv``, the pages of seed 0 under docs/results/gap_cifar10_cpu, and prints the summary of
docs/results/gap_cifar10_cpu.md.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gapless
from gapless.analysis.statistics import deviation, mean
from gapless.reports import gap as report
from gapless.studies import diagnose as diagnosis
from gapless.studies.gap import drawn

RUNS: dict[str, dict[str, Any]] = {
    "darts": {"name": "darts"},
    "drnas": {"name": "drnas"},
    "one_level": {"name": "dropnas", "rate_weights": 0.0, "rate_free": 0.0},
    "dropnas": {"name": "dropnas"},
}
SEEDS, SIDE_BY_SIDE = (0, 1, 2), ("one_level", "dropnas")
STEPS = ("supernet", "discretised", "recalibrated", "tuned", "alone")
SCORES = ("inherited", "recalibrated", "tuned 8", "tuned 64", "params")
OUT = Path(__file__).with_suffix(".csv")
PAGES = Path(__file__).parents[1] / "docs" / "results" / OUT.stem


def search(data: str, runs: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is missing."""
    for seed in seeds:
        for name in names:
            folder = runs / f"{name}-{seed}"
            if (folder / "recipe.toml").is_file():
                gapless.resume(folder)
            else:
                recipe = gapless.Recipe.read("nb201_cifar10_cpu")
                recipe = recipe.over(method=RUNS[name], data={"name": data}, run={"seed": seed})
                gapless.search(recipe, out=folder)


def measure(table: str, runs: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Measure the gaps that were not measured yet."""
    for seed in seeds:
        for name in names:
            folder = runs / f"{name}-{seed}"
            if (folder / "arch.json").is_file() and not (folder / report.NAME).is_file():
                gapless.gap(folder, table=table, archs=20, images=2000, budgets=(8, 64), threads=1, told=print)
                drawn(folder)
    one, other = (runs / f"{name}-0" for name in SIDE_BY_SIDE)
    if (one / "arch.json").is_file() and (other / "arch.json").is_file() and not (one / "diagnose.json").is_file():
        gapless.diagnose(one, beside=other, threads=1)
        diagnosis.drawn(one)


def rows(runs: Path) -> list[dict[str, object]]:
    """Return a row for each gap that was measured."""
    found = []
    for name in RUNS:
        for seed in SEEDS:
            if not (runs / f"{name}-{seed}" / report.NAME).is_file():
                continue
            run = gapless.Run.open(runs / f"{name}-{seed}")
            gap, machine = report.read(run), run.machine()
            chain = {step["name"]: step["accuracy"] for step in gap["chain"]}
            taus: dict[str, float | None] = {}
            for score in SCORES:
                told = gap["measures"][score]
                key = score.replace(" ", "_")
                taus |= {f"tau_{key}": told["tau"], f"low_{key}": told["interval"][0]}
                taus |= {f"high_{key}": told["interval"][1]}
            others = [judged["truth"] for judged in gap["sample"][1:]]
            kept = [d["kept"] for d in gap["decisions"]]
            found.append(
                {
                    "method": name,
                    "seed": seed,
                    **{step: chain[step] for step in STEPS},
                    **taus,
                    "ceiling": gap["ceiling"],
                    "architectures": len(gap["sample"]),
                    "random_mean": round(mean(others), 4),
                    "beaten": sum(other < chain["alone"] for other in others),
                    "kept": round(mean(kept), 4),
                    "images": gap["images"],
                    "seconds": gap["seconds"],
                    **{key: machine[key] for key in ("gapless", "torch", "threads", "processor")},
                    "cell": gap["notation"],
                }
            )
    return found


def summary(found: list[dict[str, object]]) -> str:
    """Return the table of the docs page: mean and deviation over the seeds."""
    heads = ("supernet", "recalibrated", "lost", "tuned", "alone", "tau recalibrated", "tau tuned 64", "tau params")
    lines = [f"| search | seeds | {' | '.join(heads)} |", "|" + "---|" * (2 + len(heads))]
    for name in RUNS:
        mine: list[dict[str, Any]] = [r for r in found if r["method"] == name]
        if not mine:
            continue
        values = [[r[key] for r in mine] for key in ("supernet", "recalibrated")]
        values.append([a - b for a, b in zip(*values, strict=True)])
        values += [[r[k] for r in mine] for k in ("tuned", "alone", "tau_recalibrated", "tau_tuned_64", "tau_params")]
        told = [f"{mean(v):.2f}" + (f" ± {deviation(v):.2f}" if len(v) > 1 else "") for v in values]
        lines.append(f"| {name} | {len(mine)} | {' | '.join(told)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "measure", "table"])
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--table", default="accuracy.parquet")
    parser.add_argument("--runs", type=Path, default=Path("runs/gap_cifar10_cpu"))
    parser.add_argument("--names", nargs="*", choices=list(RUNS), default=list(RUNS), help="which searches")
    parser.add_argument("--seeds", nargs="*", type=int, choices=SEEDS, default=list(SEEDS))
    given = parser.parse_args()
    if given.what == "search":
        search(given.data, given.runs, given.names, given.seeds)
        return
    if given.what == "measure":
        measure(given.table, given.runs, given.names, given.seeds)
        return
    found = rows(given.runs)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for name in RUNS:
        if (given.runs / f"{name}-0" / "gap.md").is_file():
            (PAGES / name).mkdir(parents=True, exist_ok=True)
            for path in (given.runs / f"{name}-0").iterdir():
                if path.name.startswith(("gap", "diagnose")) and path.suffix in (".md", ".svg"):
                    shutil.copy(path, PAGES / name / path.name)
    print(summary(found))


if __name__ == "__main__":
    main()
