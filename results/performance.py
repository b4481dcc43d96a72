"""Write ``results/performance.csv`` from the last lines of the benchmarks: ``python results/performance.py LOG ...``.

Rows of the same case, batch, device, precision and switches are replaced; all others stay.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

OUT = Path(__file__).with_suffix(".csv")
KEY = (
    "benchmark", "case", "batch", "device", "precision", "recompute", "graphs", "workers", "ready", "machine",
    "threads",
)  # fmt: skip
COLUMNS = (
    *KEY, "torch", "time_ratio", "time_ratio_low", "time_ratio_high", "reference_ratio", "fused_seconds",
    "reference_seconds", "official_seconds", "memory_ratio", "fused_peak_mb", "reference_peak_mb", "official_peak_mb",
    "speed_ratio", "ours_images_per_second", "official_images_per_second", "max_logit_difference",
    "mix_gradient_error", "official_mix_gradient_error", "official_commit",
)  # fmt: skip


def rows(path: str) -> list[dict[str, str]]:
    """Return the JSON lines of a log as rows."""
    found = []
    for line in Path(path).read_text().splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            row["benchmark"] = "supernet_step" if "case" in row else "search_epoch"
            row |= {"workers": None} if row.get("ready") else {}
            row = {"case": row.get("method", "darts"), "recompute": False} | row
            quartiles = row.get("time_ratio_quartiles")
            if quartiles:
                row["time_ratio_low"], row["time_ratio_high"] = quartiles[0], quartiles[2]
            found.append({name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS})
    return found


def main() -> None:
    """Merge the logs into the table."""
    table: dict[tuple[str, ...], dict[str, str]] = {}
    if OUT.is_file():
        with OUT.open(newline="") as file:
            table = {tuple(row[k] for k in KEY): row for row in csv.DictReader(file)}
    for row in [row for path in sys.argv[1:] for row in rows(path)]:
        table[tuple(row[k] for k in KEY)] = row
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table[key] for key in sorted(table))


if __name__ == "__main__":
    main()
