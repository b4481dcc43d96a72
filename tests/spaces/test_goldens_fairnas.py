"""FairNAS-A in our mobile space beside the released network of xiaomi-automl/FairNAS, in float64, to 1e-9 of the largest
entry: as a network of its own, and as the one path through our supernet.

No supernet of FairNAS was released, and no training; how its paths are trained is compared with nothing.
"""

import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from compare import LAW, agree, check_statistics, digest, golden
from rule import fill, images, kind_of, train_labels
from torch import Tensor

from gapless.core.cost import Undrawn
from gapless.engine.supernet import Supernet
from gapless.spaces.mobile import Mobile

RECORD = golden("fairnas_a")
S = RECORD["settings"]
SPACE = Mobile(classes=S["classes"], size=S["image_size"], dropout=0.0)
ARCH = SPACE.parse(S["network"])
OUTSIDE = {"stem": "stem", "separable_conv": "first.body", "conv_before_pooling": "head", "classifier.1": "classifier"}
LAYERS = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
EXECUTIONS = pytest.mark.parametrize("execution", ["alone", "reference", "fused"])


def our_name(official: str) -> str:
    """Translate an official name; alone and in the supernet ours are the same."""
    found = re.fullmatch(r"mb_module\.(\d+)\.(\w+)(.*)", official)
    if found is not None:
        block, name, rest = found.groups()
        return f"blocks.{block}.{ARCH[SPACE.places[int(block)].name]}.body.{LAYERS[name]}{rest}"
    start = next(name for name in OUTSIDE if official.startswith(name))
    return OUTSIDE[start] + official.removeprefix(start)


@dataclass(repr=False)
class Pass:
    """What a pass showed, and the logits by the statistics behind it."""

    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    evaluated: Tensor


@cache
def run(execution: str) -> Pass:
    """Run the network alone, or its path in a supernet in one of the executions."""
    alone = execution == "alone"
    model = (SPACE.network(ARCH) if alone else Supernet(SPACE, execution)).double()
    network = model if alone else model.network
    mix = () if alone else (SPACE.one_hot(ARCH, dtype=torch.float64),)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for ordinal, official, shape, _ in RECORD["weights"]["rows"]:
            weights[our_name(official)].copy_(fill(ordinal, shape, kind_of(official, shape)))
    logits = model.train()(images(S["image_ordinal"], S["batch"], S["image_size"]), *mix)
    loss = F.cross_entropy(logits, train_labels(S["batch"]))
    loss.backward()
    with torch.no_grad():
        evaluated = model.eval()(images(S["evaluated_ordinal"], S["batch"], S["image_size"]), *mix)
    gradients = {name: p.grad for name, p in weights.items() if p.grad is not None}
    return Pass(logits.detach(), loss.detach(), gradients, dict(network.named_buffers()), evaluated)


def test_the_weights_are_the_official_ones():
    """None is missing on either side."""
    with Undrawn():
        ours = dict(SPACE.network(ARCH).named_parameters())
    rows = RECORD["weights"]["rows"]
    assert {our_name(name): shape for _, name, shape, _ in rows} == {n: list(p.shape) for n, p in ours.items()}


@EXECUTIONS
def test_logits_and_loss(execution):
    step = run(execution)
    agree(step.logits, RECORD["logits"], "logits")
    agree(step.loss, RECORD["loss"], "loss")


@EXECUTIONS
def test_gradients(execution):
    """Those that are nothing but rounding in the record are so in ours; in the supernet no other option has one."""
    found, rows = run(execution).gradients, RECORD["weights"]["rows"]
    assert found.keys() == {our_name(name) for _, name, *_ in rows}
    largest = max(float(g.norm()) for g in found.values())
    for _, name, _, told in rows:
        if told is None:
            assert float(found[our_name(name)].norm()) <= LAW * largest, name
        else:
            agree(digest(found[our_name(name)]), told, f"gradient of {name}")


@EXECUTIONS
def test_running_statistics(execution):
    check_statistics(run(execution).buffers, RECORD["buffers"]["rows"], our_name)


@EXECUTIONS
def test_logits_by_running_statistics(execution):
    agree(run(execution).evaluated, RECORD["evaluated"], "logits")
