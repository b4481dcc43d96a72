"""Two consecutive steps of our search by SPOS beside those of megvii-model/SinglePathOneShot, in float64, to 1e-9 of the
largest entry.

Weights that did not run rest in both: the official code drops every gradient that sums to 0 before its step, we go by
the path. So all weights are compared. (Its rule could also hit a weight that ran; in the record it does not. The
gradient of the classifier sums to 0 but for rounding.)
"""

from functools import cache

import pytest
import torch
from compare import PathStep, Stored, agree, check_gradients, check_statistics, digest, golden, judge_path, take_path
from rule import fill, kind_of
from shufflenet_names import official_order, our_name
from torch import Tensor

from gapless.core.cost import Undrawn
from gapless.core.plan import Train
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.methods.spos import SPOS
from gapless.spaces.shufflenet import ShuffleNet

RECORD = golden("spos_shufflenet")
S = RECORD["settings"]
SPACE = ShuffleNet(classes=S["classes"], size=S["image_size"], dropout=0.0)
TRAIN = Train(
    epochs=1,
    batch=S["batch"],
    momentum=S["momentum"],
    weight_decay=S["weight_decay"],
    decay_norms=False,
    clip=0.0,
    label_smoothing=S["smoothing"],
)
EXECUTIONS = pytest.mark.parametrize("execution", ["reference", "fused"])
STEPS = pytest.mark.parametrize(("number", "official"), list(enumerate(RECORD["steps"])), ids=["first", "second"])


@cache
def run(execution: str) -> tuple[list[PathStep], list[Tensor]]:
    """Take both steps, and judge both paths behind them; return the steps and the logits of each path."""
    search = Search(SPACE, SPOS(SPACE), Stored(), TRAIN, precision="float64", execution=execution)
    weights = dict(search.supernet.network.named_parameters())
    with torch.no_grad():
        for ordinal, name in enumerate(sorted(weights, key=official_order)):
            weights[name].copy_(fill(ordinal, weights[name].shape, kind_of(name, weights[name].shape)))
    search.supernet.train()
    paths = [official["path"] for official in RECORD["steps"]]
    steps = [take_path(search, path, S["lr"], at) for path, at in zip(paths, S["image_ordinals"], strict=True)]
    return steps, [judge_path(search, path, S["evaluated_ordinal"]) for path in paths]


def test_the_ordinals_are_those_of_the_official_weights():
    with Undrawn():
        names = sorted(dict(Supernet(SPACE).network.named_parameters()), key=official_order)
    for official in RECORD["steps"]:
        for ordinal, name, *_ in official["weights"]["rows"]:
            assert names[ordinal] == our_name(name)


def test_the_settings_are_those_of_the_released_code():
    """But for the rate, which is fixed here, and the number of images."""
    ours = SPOS.settings[""].train
    assert (ours.momentum, ours.weight_decay, ours.decay_norms, ours.clip, ours.label_smoothing) == (
        TRAIN.momentum,
        TRAIN.weight_decay,
        TRAIN.decay_norms,
        TRAIN.clip,
        TRAIN.label_smoothing,
    )


def test_the_paths_hold_every_block_in_both_strides():
    first = RECORD["steps"][0]["path"]
    halving = {number for number, place in enumerate(SPACE.places) if place.stride == 2}
    assert {column for number, column in enumerate(first) if number in halving} == set(range(4))
    assert {column for number, column in enumerate(first) if number not in halving} == set(range(4))


@EXECUTIONS
@STEPS
def test_logits_and_losses(number, official, execution):
    step = run(execution)[0][number]
    agree(step.logits, official["logits"], "logits")
    agree(step.loss, official["loss"], "loss")


@EXECUTIONS
@STEPS
def test_gradients(number, official, execution):
    """What did not run has none in ours, and lost it in theirs."""
    check_gradients(run(execution)[0][number].gradients, official["weights"]["rows"], our_name)


@EXECUTIONS
@STEPS
def test_weights_after_the_step(number, official, execution):
    """The same weights move to the same values; all others rest, bit for bit, though they moved in the step before."""
    step, rows = run(execution)[0][number], official["weights"]["rows"]
    assert step.moved == {our_name(name) for _, name, *_ in rows}
    for _, name, _, _, after in rows:
        agree(digest(step.weights[our_name(name)]), after, name)


@EXECUTIONS
@STEPS
def test_running_statistics(number, official, execution):
    check_statistics(run(execution)[0][number].buffers, official["buffers"]["rows"], our_name)


@EXECUTIONS
def test_logits_by_running_statistics(execution):
    for ours, official in zip(run(execution)[1], RECORD["evaluated"], strict=True):
        agree(ours, official, "logits")
