"""Three consecutive steps of our search by RSPS on NAS-Bench-201 beside those of D-X-Y/AutoDL-Projects, in float64, to
1e-9 of the largest entry.

What did not run differs, and is not compared but for what the difference is. The optimiser of that code's time gave
weights that rest a zero gradient from their first run on: they decay, and coast on their momentum. Ours stay bit for
bit. The recorded cells are such that what ran again had not rested in between. What ran into a node that nothing
reads has a zero gradient there, too, and none in ours.

Convolutions have biases in that code, which change no logits; they are left out. How both answer is not compared: that
code judges each architecture on another batch, ours all on the same images.
"""

from collections import Counter
from functools import cache

import pytest
import torch
from compare import PathStep, Stored, agree, check_statistics, digest, golden, judge_path, nb201_name, take_path
from rule import fill, kind_of
from torch import Tensor

from gapless.core.cost import Undrawn
from gapless.core.plan import Train
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.methods.rsps import RSPS
from gapless.spaces.nasbench201 import NASBench201

RECORD = golden("rsps_nb201")
S = RECORD["settings"]
SPACE = NASBench201(classes=S["classes"], size=S["image_size"], width=S["C"], cells=S["N"])
TRAIN = Train(
    epochs=1,
    batch=S["batch"],
    momentum=S["momentum"],
    nesterov=S["nesterov"],
    weight_decay=S["weight_decay"],
    clip=RECORD["steps"][0]["clip"]["max_norm"],
)
EXECUTIONS = pytest.mark.parametrize("execution", ["reference", "fused"])
STEPS = pytest.mark.parametrize(("number", "official"), list(enumerate(RECORD["steps"])), ids=["1st", "2nd", "3rd"])


def ran(official: dict) -> dict[str, list]:
    """Return the rows of the weights that ran with an effect, by our names."""
    return {nb201_name(row[1]): row for row in official["weights"]["rows"] if row[-1]}


@cache
def run(execution: str) -> tuple[list[PathStep], Tensor]:
    """Take the steps, and judge the last cell behind them."""
    search = Search(SPACE, RSPS(SPACE), Stored(), TRAIN, precision="float64", execution=execution)
    with torch.no_grad():
        for ordinal, (name, p) in enumerate(search.supernet.network.named_parameters()):
            p.copy_(fill(ordinal, p.shape, kind_of(name, p.shape)))
    search.supernet.train()
    cells = [official["cell"] for official in RECORD["steps"]]
    steps = [take_path(search, cell, S["lr"], at) for cell, at in zip(cells, S["image_ordinals"], strict=True)]
    return steps, judge_path(search, cells[-1], S["evaluated_ordinal"])


def test_the_ordinals_are_those_of_the_official_weights():
    with Undrawn():
        names = list(dict(Supernet(SPACE).network.named_parameters()))
    for official in RECORD["steps"]:
        for ordinal, name, *_ in official["weights"]["rows"]:
            assert names[ordinal] == nb201_name(name)


def test_the_settings_are_those_of_the_released_code():
    """But for the rate, which is fixed here, and the number of images."""
    ours = RSPS.settings["nasbench201"].train
    for name in ("momentum", "nesterov", "weight_decay", "decay_norms", "clip", "label_smoothing"):
        assert getattr(ours, name) == getattr(TRAIN, name)


@EXECUTIONS
@STEPS
def test_logits_and_losses(number, official, execution):
    step = run(execution)[0][number]
    agree(step.logits, official["logits"], "logits")
    agree(step.loss, official["loss"], "loss")


@EXECUTIONS
@STEPS
def test_gradients_before_the_clip(number, official, execution):
    found, rows = run(execution)[0][number].gradients, ran(official)
    assert found.keys() == rows.keys()
    for name, (_, _, shape, told, *_) in rows.items():
        assert list(found[name].shape) == shape
        agree(digest(found[name]), told, f"gradient of {name}")
    total = torch.stack([g.norm() for g in found.values()]).norm()
    agree(total, official["clip"]["total_norm"], "norm that is clipped")


def test_one_step_is_clipped_and_another_is_not():
    norms = [official["clip"]["total_norm"] for official in RECORD["steps"]]
    assert min(norms) < TRAIN.clip < max(norms)


@EXECUTIONS
@STEPS
def test_weights_of_what_ran(number, official, execution):
    """They end at the same values, and ours move no others."""
    step, rows = run(execution)[0][number], ran(official)
    assert step.moved == rows.keys()
    for name, (*_, after, _) in rows.items():
        agree(digest(step.weights[name]), after, name)


@EXECUTIONS
def test_weights_that_rest_decay_and_coast_in_the_official_code(execution):
    """By nothing else do its weights differ from ours. One that has run into a node that nothing reads counts as
    resting."""
    times: Counter[str] = Counter()
    for step, official in zip(run(execution)[0], RECORD["steps"], strict=True):
        for _, official_name, _, gradient, after, effect in official["weights"]["rows"]:
            name = nb201_name(official_name)
            times[name] = 0 if effect else times[name] + 1
            if not effect:
                assert gradient is None
                weight = step.weights[name]
                agree(digest(coasted(weight, step.momentum.get(name), times[name])), after, name)
                assert abs(digest(weight)[1] - after[1]) > 1e-6 * after[1]
    assert sorted(set(times.values())) == [0, 1, 2]


def coasted(weight: Tensor, momentum: Tensor | None, steps: int) -> Tensor:
    """Return a weight behind steps of Nesterov's momentum without a gradient."""
    buffer = torch.zeros_like(weight) if momentum is None else momentum
    for _ in range(steps):
        pull = S["weight_decay"] * weight
        buffer = S["momentum"] * buffer + pull
        weight = weight - S["lr"] * (pull + S["momentum"] * buffer)
    return weight


@EXECUTIONS
@STEPS
def test_running_statistics(number, official, execution):
    """Of what ran into a node that nothing reads, too."""
    check_statistics(run(execution)[0][number].buffers, official["buffers"]["rows"], nb201_name)


@EXECUTIONS
def test_logits_by_running_statistics(execution):
    """Of the last cell, in which nothing counts that has rested."""
    agree(run(execution)[1], RECORD["evaluated"], "logits")
