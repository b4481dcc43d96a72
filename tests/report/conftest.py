import math

import pytest
import torch

from gapless.core.space import Space
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.testing.examples import noise


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
        recipe = Recipe(space={"name": space.label}, method={"name": "drnas"}, data={"name": "digits"}, arch=arch)
        run.write("recipe.toml", recipe.toml())
        for record in records:
            run.append(record)
        if ended:
            run.write_arch(space.read(records[-1]["arch"]), space, space.label, noise(space, 4))
        return run

    return make
