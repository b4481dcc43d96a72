"""The protocol of 64 networks (arXiv 2001.01431), reduced to what a CPU can do.

    python results/sharing64_cpu.py run --data CIFAR10_FOLDER --runs runs/sharing64_cpu [--only truth-0 seed-0 ...]
    python results/sharing64_cpu.py table --runs runs/sharing64_cpu

The first runs what is not there yet, a file of accuracies for each. The second writes ``results/sharing64_cpu.csv``, a
line for each of them with the accuracy of each network, and prints the summary of docs/results/sharing64_cpu.md.

* ``truth-S``: each network alone, seed S.
* ``seed-S``: a supernet, one child a batch in one and the same order, seed S of the weights and images.
* ``order-S``: the same weights at the start, children in another order.
* ``similar-M``, ``random-M``: M groups (slices of the list of names, or drawn) with weights of their own, each trained
  as long as a network alone; ``similar-1`` is a supernet trained that long.
* ``prefix-K``: the stem and the first K of four cells are shared, trained as long as a supernet.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import gapless
from gapless.analysis.ranking import best_rank, kendall, stability
from gapless.core.plan import Train
from gapless.core.progress import stream
from gapless.data import load
from gapless.measure.sharing import Sharing, prefix
from gapless.spaces.insights64 import Insights64

WIDTH, SIZE, TRAIN_IMAGES, TEST_IMAGES, CALIBRATION = 8, 8, 5000, 5000, 640
SPACE = Insights64(width=WIDTH, size=SIZE)
ALL = SPACE.every()
NAMES = tuple(map(SPACE.write, ALL))
ALONE, SUPERNET = 8, 60
"""Epochs of a network alone, or a group, and of a supernet."""
TRAIN = Train(batch=64, lr=0.025, lr_min=0.001, momentum=0.9, weight_decay=1e-3, clip=0.0)
"""Those of the released code, but for the batch (256)."""
TRUTHS, SEEDS, ORDERS, GROUPS, PREFIXES = (0, 1), (0, 1, 2, 3, 4), (1, 2, 3), (1, 4, 16), (2, 4)
JOBS = (
    *(f"truth-{s}" for s in TRUTHS),
    *(f"seed-{s}" for s in SEEDS),
    *(f"order-{s}" for s in ORDERS),
    *(f"similar-{m}" for m in GROUPS),
    *(f"random-{m}" for m in GROUPS if m > 1),
    *(f"prefix-{k}" for k in PREFIXES),
)
OUT = Path(__file__).with_suffix(".csv")
PUBLISHED = Path(__file__).with_name("insights64_published.csv")
"""Mean accuracy of ten trainings of each network alone, of 200 epochs (the paper's repository)."""


def slices(count: int, drawn: bool) -> list[list[int]]:
    """Return the numbers of the networks of each of so many groups."""
    order = torch.randperm(len(ALL), generator=stream("groups")).tolist() if drawn else list(range(len(ALL)))
    many = len(ALL) // count
    return [sorted(order[i * many : (i + 1) * many]) for i in range(count)]


def run(job: str, data: Any) -> dict[str, Any]:
    """Run a job and return its accuracies: those by running statistics, and those by statistics gathered anew."""
    kind, number = job.rsplit("-", 1)
    n = int(number)
    found: dict[str, list[float]] = {"running": [0.0] * len(ALL), "recalibrated": [0.0] * len(ALL)}

    def judged(one: Sharing, numbers: Sequence[int]) -> None:
        for bn, calibration in (("running", 0), ("recalibrated", CALIBRATION)):
            accuracies = one.accuracies(TEST_IMAGES, bn, calibration=calibration)  # type: ignore[arg-type]
            for place, accuracy in zip(numbers, accuracies, strict=True):
                found[bn][place] = round(accuracy, 3)

    every = list(range(len(ALL)))
    if kind in ("truth", "similar", "random"):
        seed = n if kind == "truth" else 7
        for numbers in slices(64 if kind == "truth" else n, kind == "random"):
            one = Sharing(SPACE, [ALL[i] for i in numbers], data, replace(TRAIN, epochs=ALONE), seed=seed)
            for _ in one.run():
                pass
            judged(one, numbers)
    else:
        settings: dict[str, Any] = {"seed": n, "order": "cyclic"} if kind == "seed" else {"seed": 0}
        if kind == "order":
            settings |= {"order": "fixed", "order_seed": n}
        if kind == "prefix":
            settings |= {"shares": prefix(n)}
        one = Sharing(SPACE, ALL, data, replace(TRAIN, epochs=SUPERNET), **settings)
        for epoch in one.run():
            if kind == "seed" and n == 0 and epoch > SUPERNET - 10:  # how much the last epochs swing
                found[f"epoch {epoch}"] = one.accuracies(TEST_IMAGES)
        judged(one, every)
    return found


def gathered(runs: Path) -> list[dict[str, Any]]:
    """Return a row for each job and kind of statistics."""
    rows: list[dict[str, Any]] = []
    for job in JOBS:
        path = runs / f"{job}.json"
        if path.is_file():
            told = json.loads(path.read_text())
            for bn, accuracies in told["accuracies"].items():
                facts = {"job": job, "statistics": bn, **{k: v for k, v in told.items() if k != "accuracies"}}
                rows.append({**facts, **dict(zip(NAMES, accuracies, strict=True))})
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Return what the docs page tells."""
    table = {(r["job"], r["statistics"]): [float(r[name]) for name in NAMES] for r in rows}
    truths = [table[f"truth-{s}", "running"] for s in TRUTHS if (f"truth-{s}", "running") in table]
    if not truths:
        return "no truth yet"
    truth = [statistics.mean(values) for values in zip(*truths, strict=True)]
    lines = [f"truth: {min(truth):.2f} to {max(truth):.2f} %, best {NAMES[truth.index(max(truth))]}"]
    if len(truths) > 1:
        lines.append(f"tau between two trainings {kendall(*truths):.3f}")
        noise = statistics.mean((a - b) ** 2 for a, b in zip(*truths, strict=True)) ** 0.5 / 2**0.5
        lines.append(f"deviation of a training {noise:.2f}, over networks {statistics.stdev(truth):.2f}")
    with PUBLISHED.open(newline="") as file:
        published = [float(row["accuracy"]) for row in csv.DictReader(file)]
    lines.append(f"tau with the published accuracies {kendall(truth, published):.3f}")
    lines.append(
        "tau of the supernets with the published accuracies "
        + ", ".join(
            f"{job} {kendall(table[job, 'running'], published):.3f}" for job in JOBS if (job, "running") in table
        )
    )
    for kind in ("seed", "order", "similar", "random", "prefix"):
        for bn in ("running", "recalibrated"):
            jobs = [job for job in JOBS if job.startswith(kind) and (job, bn) in table]
            taus = {job: kendall(table[job, bn], truth) for job in jobs}
            told = ", ".join(f"{job} {tau:.3f}" for job, tau in taus.items())
            lines.append(f"{bn}: {told}")
            if kind in ("seed", "order") and len(jobs) > 1:
                mean, largest, smallest = stability([table[job, bn] for job in jobs])
                values = list(taus.values())
                ranks = [statistics.mean(best_rank(table[job, bn], truth, k) for job in jobs) for k in (1, 3)]
                lines.append(
                    f"  GT-Tau {statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}; S-Tau {mean:.3f} "
                    f"({largest:.3f} / {smallest:.3f}); T1R {ranks[0]:.1f}, T3R {ranks[1]:.1f}"
                )
    late = [values for (job, bn), values in table.items() if bn.startswith("epoch")]
    if late:
        taus_late = [kendall(values, truth) for values in late]
        mean, largest, smallest = stability(late)
        lines.append(
            f"last {len(late)} epochs of seed-0: GT-Tau {statistics.mean(taus_late):.3f} +- "
            f"{statistics.stdev(taus_late):.3f}; S-Tau {mean:.3f} ({largest:.3f} / {smallest:.3f})"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/sharing64_cpu"))
    parser.add_argument("--only", nargs="*", choices=JOBS, default=JOBS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "table":
        rows = gathered(given.runs)
        with OUT.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(summary(rows))
        return
    given.runs.mkdir(parents=True, exist_ok=True)
    data = load(given.data, size=SIZE, train_images=TRAIN_IMAGES)
    for job in given.only:
        path = given.runs / f"{job}.json"
        if path.is_file():
            continue
        begun = time.perf_counter()
        found = run(job, data)
        seconds = round(time.perf_counter() - begun, 1)
        facts = {"seconds": seconds, "gapless": gapless.__version__, "torch": torch.__version__}
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps({**facts, "accuracies": found}))
        draft.replace(path)
        print(job, f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
