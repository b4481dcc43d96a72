import json
import math

import pytest
import torch
from compared import folder
from scored import made_up

from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.studies.gap import ranked
from gapless.testing.examples import noise

__all__ = ["folder", "made_up"]


@pytest.fixture
def trace():
    """Return a function that makes the trace of a search up: random walks of the scores, and draws from them."""

    def make(space: Space, count: int, stages: int = 1, draws: int = 5) -> list[dict]:
        generator = torch.Generator().manual_seed(0)
        alpha, records = torch.zeros(space.shape), []
        for epoch in range(count):
            alpha = alpha + 0.3 * torch.randn(space.shape, generator=generator)
            scores = torch.where(space.legal, alpha, -math.inf).softmax(-1)
            records.append(
                {
                    "epoch": epoch,
                    "stage": epoch * stages // count,
                    "lr": 0.025 / (epoch + 1),
                    "train_loss": 2.3 / (epoch + 1),
                    "train_accuracy": 10.0 + epoch,
                    "arch_loss": None if epoch == 0 else 2.2,
                    "valid_loss": None,
                    "valid_accuracy": 9.0 if epoch % 2 else None,
                    "arch": str(space.decode(scores)),
                    "scores": scores.double().tolist(),
                    "cost": None,
                    "draws": [space.pack(space.sample(generator)) for _ in range(draws)],
                    "images_per_second": 700.0,
                    "seconds": 2.0,
                    "peak_memory_mb": 400.0,
                }
            )
        return records

    return make


@pytest.fixture
def retrained():
    """The trace of a network trained alone; it was tested after its last epoch only."""
    return [
        {
            "epoch": epoch,
            "lr": 0.1 - 0.02 * epoch,
            "train_loss": 2.0 - 0.3 * epoch,
            "train_accuracy": 20.0 + 10 * epoch,
            "test_loss": 1.5 if epoch == 3 else None,
            "test_accuracy": 42.0 if epoch == 3 else None,
            "images_per_second": 3000.0,
            "seconds": 0.5,
            "peak_memory_mb": 500.0,
        }
        for epoch in range(4)
    ]


@pytest.fixture
def run_of(tmp_path):
    """Return a function that writes a run folder around a trace; without ``ended`` it holds no answer yet."""

    def make(space: Space, records: list[dict], *, ended: bool = True, arch: str = "") -> Run:
        run = Run.create(tmp_path / "run")
        recipe = Recipe(
            space={"name": space.label},
            method={"name": "drnas"},
            data={"name": "digits"},
            train={} if arch else {"epochs": 2},
            arch=arch,
        )
        run.write("recipe.toml", recipe.toml())
        for record in records:
            run.append(json.dumps(record))
        if ended:
            run.write_arch(
                space.read(records[-1]["arch"]),
                space,
                space.label,
                noise(space, 4),
                {**size_of(space.alone(), space.read(records[-1]["arch"])), "start": "fresh"},
            )
            run.end()
        return run

    return make


@pytest.fixture
def gap_of():
    """Return a function that makes up what ``gap.json`` of a search holds; with ``table=False`` nothing is known of
    what architectures are worth alone."""

    def make(space: Space, *, table: bool = True, **changes) -> dict:
        archs = [space.sample(torch.Generator().manual_seed(seed)) for seed in range(6)]
        scores, truth = [40.0, 41.0, 46.0, 44.0, 45.0, 42.0], [92.0, 90.0, 88.0, 91.0, 86.0, 89.0]
        chain = [("supernet", 71.0), ("discretised", 30.0), ("recalibrated", 40.0), ("tuned", 50.0)]
        chain += [("alone", 92.0)] if table else []
        sample = [
            {
                "arch": str(arch),
                "notation": space.write(arch),
                "scores": {"inherited": s - 10, "recalibrated": s, "params": 1000 + n, "macs": 2000 + n},
                "truth": t if table else None,
                "trainings": {},
            }
            for n, (arch, s, t) in enumerate(zip(archs, scores, truth, strict=True))
        ]
        names = [d.name for d in space.decisions]
        return {
            "run": "run",
            "notation": space.write(archs[0]),
            "images": 2000,
            "error": 1.118,
            "truth": "cifar10_test_200" if table else None,
            "chain": [{"name": n, "what": "as is", "accuracy": a, "seconds": 1.0} for n, a in chain],
            "statistics": {"running": 30.0, "batch": 35.0, "recalibrated": 40.0},
            "sample": sample,
            "measures": {n: ranked([j["scores"][n] for j in sample], truth) for n in sample[0]["scores"]}
            if table
            else {},
            "ceiling": 0.9 if table else None,
            "small": None,
            "decisions": [{"name": n, "entropy": 0.9, "margin": 0.1, "kept": 0.3} for n in names],
            "fixing": [[n, 70.0 - i] for i, n in enumerate(names)],
            "seeds": None,
            "late": {"epochs": 10, "changes": 0, "distinct": 1},
            "seconds": 10.0,
            **changes,
        }

    return make
