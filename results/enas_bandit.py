"""ENAS's controller on a bandit, under its three baselines: does the baseline decide what is learnt?

    python results/enas_bandit.py                        # writes results/enas_bandit.csv

No network takes part. A cell of NAS-Bench-201 is rewarded by the share of its six edges that hold the operation of a
target; a uniform cell gets 0.2. The controller is the method itself with its own settings: 20 samples an update, 50
updates an epoch, Adam, clip and entropy as in a search. Every 100 updates a row says the mean reward and the mean
advantage (reward minus baseline, entropy included) of the samples of these updates, and the expected reward: of 200
fresh samples.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from gapless.core.progress import Progress, seeded, stream
from gapless.engine.adam import ArchAdam
from gapless.methods.enas import ENAS
from gapless.spaces.nasbench201 import NASBench201

Baseline = Literal["per_step", "per_epoch_last", "per_epoch_mean"]
SPACE = NASBench201()
TARGET = (3, 0, 1, 4, 2, 3)
FRESH = 200
EVERY = 100
OUT = Path(__file__).with_suffix(".csv")


class Row(NamedTuple):
    """Where a run stands."""

    baseline: str
    seed: int
    updates: int
    expected_reward: float
    reward: float
    advantage: float


def hits(columns: tuple[int | None, ...]) -> float:
    """Return the reward of a cell."""
    return sum(c == t for c, t in zip(columns, TARGET, strict=True)) / len(TARGET)


def run(baseline: Baseline, seed: int, updates: int, every: int = EVERY, **settings: Any) -> Iterator[Row]:
    """Train a controller, of other settings where they are given, and yield a row every so many updates."""
    with seeded("bandit", seed):
        method = ENAS(SPACE, baseline=baseline, **settings)
    adam, plan = ArchAdam(method, method.plan.arch), method.plan
    rewards: list[float] = []
    advantages: list[float] = []
    for update in range(updates):
        now = Progress(step=update, phase="arch", seed=seed)
        if update % plan.arch_block == 0:
            with torch.no_grad():
                method.begin(now)
        method.zero_grad()
        for turn in range(method.samples):
            mix = method.mix(now.at("arch", turn))
            assert mix.active is not None
            assert mix.log_prob is not None
            reward = hits(tuple(row[0] for row in mix.active))
            regret = method.regret(mix, torch.tensor(0.0), torch.tensor(reward))
            regret.backward()
            rewards.append(reward)
            advantages.append(float((regret / -mix.log_prob).detach()) * method.samples)
        torch.nn.utils.clip_grad_norm_(method.parameters(), plan.arch_clip or torch.inf)
        adam.step({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
        if (update + 1) % every == 0:
            with torch.no_grad():
                fresh = [hits(method.sample(stream("fresh", seed, update, i)).columns) for i in range(FRESH)]
            means = (statistics.fmean(values) for values in (fresh, rewards, advantages))
            yield Row(baseline, seed, update + 1, *(round(value, 5) for value in means))
            rewards.clear()
            advantages.clear()


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--baselines", nargs="+", choices=get_args(Baseline), default=list(get_args(Baseline)))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    extra = (version("gapless"), torch.__version__, 1, platform.machine())
    with given.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*Row._fields, "seconds", "gapless", "torch", "threads", "machine"])
        for baseline in given.baselines:
            for seed in given.seeds:
                begun = time.perf_counter()
                for row in run(baseline, seed, given.updates):
                    table.writerow([*row, round(time.perf_counter() - begun, 1), *extra])
                    file.flush()
                print(*row, flush=True)


if __name__ == "__main__":
    main()
