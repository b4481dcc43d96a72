"""A comparison that is made up; the folder takes the fixture over in its conftest."""

import lines
import pytest

from gapless.core.size import size_of
from gapless.core.space import Space
from gapless.runs.comparison import Comparison, ComparisonCell, Folder
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import noise

SPACE = NASBench201()
COLUMN = "cifar10_test_200"
CONV, POOL = (f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|" for op in ("nor_conv_3x3", "avg_pool_3x3"))
SKIP = CONV.replace("nor_conv_3x3", "skip_connect")
SEARCHED = {
    "pc_darts": {0: (CONV, 10.0, 400.0), 1: (POOL, 12.0, 500.0), 2: (CONV, 20.0, 450.0)},
    "random": {0: (POOL, 1.0, 100.0), 1: (SKIP, 2.0, 100.0)},
}


def searched(run: Run, method: str, space: Space, text: str, seconds: float, memory: float) -> None:
    """Write what a search leaves of one epoch."""
    run.write(
        "recipe.toml",
        Recipe(
            space={"name": "nasbench201"}, method={"name": method}, train={"epochs": 2} if method != "random" else {}
        ).toml(),
    )
    run.write_json("machine.json", {**lines.MACHINE, "processor": "a, b"})
    for part in range(2):
        run.append(lines.line(epoch=part, seconds=seconds / 2, peak_memory_mb=memory / (2 - part), valid_accuracy=50.0))
    alone = {**size_of(space.alone(), space.read(text)), "start": "fresh"}
    run.write_arch(space.read(text), space, "nasbench201", noise(space, 4), alone)
    run.end()


@pytest.fixture
def folder(made_up, tmp_path):
    """Two methods, three seeds; the last of random has failed."""
    asked = Comparison.of(
        Recipe(space={"name": "nasbench201"}), ("random", "pc_darts"), (0, 1, 2), ("digits",), table=str(made_up), columns=(COLUMN,)
    )  # fmt: skip
    found = Folder(Run.create(tmp_path / "c").path)
    found.write(asked)
    for method, runs in SEARCHED.items():
        for seed, (text, seconds, memory) in runs.items():
            searched(
                Run.create(found.run(ComparisonCell(method, "digits", seed)).path), method, SPACE, text, seconds, memory
            )
    log = found.log(ComparisonCell("random", "digits", 2))
    log.parent.mkdir()
    log.write_text("Failed: 100 % of_memory | gone\n")
    return found
