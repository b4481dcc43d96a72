"""How long commands take to start: whole processes, medians, interleaved with other checkouts.

    python benchmarks/start.py
    python benchmarks/start.py --times 9 --beside ../gapless-before

Each process runs with the package of one checkout first on PYTHONPATH. Wall time says what a user waits for on this
machine now; CPU time (user and system) is what to compare where other programs run, too. The first round, which warms
the disk's cache, is not counted. The line "torch" is Python with `import torch` alone: what no command that computes
can be faster than.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
COMMAND = "import sys; from gapless.commands.app import main; main(sys.argv[1:])"
PROCESSES = {
    "python": ("pass",),
    "torch": ("import torch",),
    "import gapless": ("import gapless",),
    "gapless --help": (COMMAND, "--help"),
    "gapless list": (COMMAND, "list"),
    "gapless list methods": (COMMAND, "list", "methods"),
    "gapless show --help": (COMMAND, "show", "--help"),
    "gapless search --help": (COMMAND, "search", "--help"),
    "gapless evaluate CELL": (COMMAND, "evaluate", CELL),
    "gapless evaluate DARTS_V2": (COMMAND, "evaluate", "DARTS_V2"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="Processes of each kind that are counted.")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="Other checkouts to interleave.")
    parser.add_argument("--only", nargs="*", default=list(PROCESSES), help="Lines to measure.")
    chosen = parser.parse_args()
    places = [HERE, *(path.resolve() for path in chosen.beside)]
    seen: dict[tuple[str, Path], list[tuple[float, float]]] = {}
    for turn in range(chosen.times + 1):
        for name in chosen.only:
            for place in places:
                took = run(PROCESSES[name], place / "src")
                if turn:
                    seen.setdefault((name, place), []).append(took)
    print(f"{'seconds, medians of ' + str(chosen.times):28}{'wall':>8}{'CPU':>8}  checkout")
    found = []
    for (name, place), values in seen.items():
        wall, cpu = (statistics.median(part) for part in zip(*values, strict=True))
        print(f"{name:28}{wall:8.2f}{cpu:8.2f}  {place}")
        found.append({"process": name, "checkout": str(place), "wall": round(wall, 3), "cpu": round(cpu, 3)})
    print(json.dumps(found))


def run(arguments: tuple[str, ...], source: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of one process."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{arguments} ended with status {child.returncode}.")
    return wall, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
