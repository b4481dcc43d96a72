"""Black-box searches of NAS-Bench-201 by its table: the baselines that a search by weight sharing must beat.

    python results/nb201_black_box.py --table accuracy.parquet

Each search goes by the validation accuracy on CIFAR-10 after 12 epochs (``cifar10_valid_12``), as the baselines of the
benchmark's paper do; its answer after 25, 50, 100, 300 and 1,000 evaluations is looked up in the 200-epoch columns. 500
seeds each, ten minutes in all. Writes ``results/nb201_black_box.csv``, a row for each search and number of
evaluations, and prints the table of docs/results/nb201_black_box.md.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import torch

import gapless
from gapless.core import catalogue
from gapless.core.searcher import evaluations
from gapless.scores.table import TableAccuracy
from gapless.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
BY = "cifar10_valid_12"
BUDGETS = (25, 50, 100, 300, 1000)
SEEDS = 500
SEARCHERS = {
    "random": ("random", {}),
    "regularized_evolution": ("regularized_evolution", {}),
    "local_search": ("local_search", {}),
    "local_search, steepest from one start": ("local_search", {"steepest": True, "starts": 1}),
    "evolution": ("evolution", {}),
}
COLUMNS = (
    "cifar10_valid_12",
    "cifar10_valid_200",
    "cifar10_test_200",
    "cifar100_test_200",
    "imagenet16_test_200",
)
OUT = Path(__file__).with_suffix(".csv")


def answers(name: str, judge: TableAccuracy, seed: int) -> list[tuple[str, int]]:
    """Return (the answer, how many different cells were scored) at each budget, of one search."""
    kind, settings = SEARCHERS[name]
    searcher, known, found = catalogue.find(kind, "searchers")(SPACE, seed=seed, **settings), {}, []
    for number, _ in enumerate(evaluations(searcher, judge, known), start=1):
        if number in BUDGETS:
            found.append((SPACE.write(searcher.best()), len(known)))
        if number == BUDGETS[-1]:
            return found
    raise AssertionError


def rows(judge: TableAccuracy, seeds: int) -> list[dict[str, object]]:
    """Return a row for each search and budget: mean and standard deviation over seeds."""
    table, optimum = judge.table, float(judge.column.values.max())
    found = []
    for name in SEARCHERS:
        runs = [answers(name, judge, seed) for seed in range(seeds)]
        for place, budget in enumerate(BUDGETS):
            looked_up = [table.row(SPACE.read(run[place][0])) for run in runs]
            row: dict[str, object] = {"searcher": name, "by": BY, "evaluations": budget, "seeds": seeds}
            row["cells"] = round(statistics.mean(run[place][1] for run in runs), 1)
            for column in COLUMNS:
                values = [cell[column] for cell in looked_up]
                row[column] = round(statistics.mean(values), 3)
                row[f"{column}_sd"] = round(statistics.stdev(values), 3)
            row["optimum_found"] = round(statistics.mean(cell[BY] >= optimum - 1e-3 for cell in looked_up), 3)
            found.append({**row, "gapless": gapless.__version__, "torch": torch.__version__})
        print(name, flush=True)
    return found


def main() -> None:
    """Parse, run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="the NAS-Bench-201 table")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    judge = TableAccuracy(SPACE, torch.device("cpu"), file=given.table, column=BY)
    found = rows(judge, given.seeds)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for row in found:
        cells = [f"{row[c]:.2f} ± {row[f'{c}_sd']:.2f}" for c in COLUMNS if c != "cifar10_valid_200"]
        share = f"{100 * float(str(row['optimum_found'])):.0f} %"
        print("|", " | ".join([str(row["searcher"]), str(row["evaluations"]), str(row["cells"]), *cells, share]), "|")
    best = judge.table.row(judge.table.best(judge.column.name))
    print(f"the best cell by {BY}:", {column: best[column] for column in COLUMNS})
    for column in COLUMNS:
        print(column, "largest", round(float(judge.table.column(column).values.max()), 2))


if __name__ == "__main__":
    main()
