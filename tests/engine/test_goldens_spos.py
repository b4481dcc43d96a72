"""Two consecutive steps of our search by SPOS beside those of megvii-model/SinglePathOneShot, in float64, to 1e-9 of the
largest entry.

Weights that did not run rest in both: the official code drops every gradient that sums to 0 before its step, we go by
the path. So all weights are compared. (Its rule could also hit a weight that ran; in the record it does not. The
gradient of the classifier sums to 0 but for rounding.)
"""

from dataclasses import dataclass, field
from functools import cache
from unittest import mock

import pytest
import torch
from compare import LAW, Stored, agree, check_statistics, digest, golden
from rule import fill, images, kind_of, train_labels
from shufflenet_names import official_order, our_name
from torch import Tensor

from gapless.core.decision import Arch
from gapless.core.plan import Train
from gapless.core.progress import Progress
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.methods.spos import SPOS
from gapless.spaces.shufflenet import OPTIONS, ShuffleNet

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


@dataclass(repr=False)
class Step:
    """What a step of our search showed: logits, loss, gradients, the weights that it moved, the statistics behind it."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    gradients: dict[str, Tensor] = field(default_factory=dict)
    moved: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)


def arch(path: list[int]) -> Arch:
    """Return the architecture of a path, a column for each block."""
    return Arch({d.name: OPTIONS[column] for d, column in zip(SPACE.decisions, path, strict=True)})


def taken(search: Search, number: int) -> Step:
    """Take a recorded step, with its path in place of a drawn one."""
    official, step, network = RECORD["steps"][number], Step(), search.supernet.network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    batch = images(S["image_ordinals"][number], S["batch"], S["image_size"]), train_labels(S["batch"])
    handle = search.supernet.register_forward_hook(lambda *args: setattr(step, "logits", args[-1].detach().clone()))
    with mock.patch.object(search.method, "_path", return_value=arch(official["path"])):
        step.loss, *_ = search.update(Progress(step=number), S["lr"], batch, None, train_arch=False)
    handle.remove()
    weights = dict(network.named_parameters())
    step.gradients = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
    step.moved = {name: p.detach().clone() for name, p in weights.items() if not torch.equal(p, before[name])}
    step.buffers = {name: b.clone() for name, b in network.named_buffers()}
    return step


@cache
def run(execution: str) -> tuple[list[Step], list[Tensor]]:
    """Take both steps, and judge both paths behind them; return the steps and the logits of each path."""
    search = Search(SPACE, SPOS(SPACE), Stored(), TRAIN, precision="float64", execution=execution)
    weights = dict(search.supernet.network.named_parameters())
    with torch.no_grad():
        for ordinal, name in enumerate(sorted(weights, key=official_order)):
            weights[name].copy_(fill(ordinal, weights[name].shape, kind_of(name, weights[name].shape)))
    search.supernet.train()
    steps = [taken(search, number) for number in range(len(RECORD["steps"]))]
    search.supernet.eval()
    x = images(S["evaluated_ordinal"], S["batch"], S["image_size"])
    with torch.no_grad():
        judged = [search.supernet(x, SPACE.one_hot(arch(s["path"]), dtype=torch.float64)) for s in RECORD["steps"]]
    return steps, judged


def test_the_ordinals_are_those_of_the_official_weights():
    with torch.device("meta"):
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
    found, rows = run(execution)[0][number].gradients, official["weights"]["rows"]
    assert sorted(found) == sorted(our_name(name) for _, name, *_ in rows)
    largest = max(float(g.norm()) for g in found.values())
    for _, name, shape, told, _ in rows:
        ours = found[our_name(name)]
        assert list(ours.shape) == shape
        if told is None:
            assert float(ours.norm()) <= LAW * largest, name
        else:
            agree(digest(ours), told, f"gradient of {name}")


@EXECUTIONS
@STEPS
def test_weights_after_the_step(number, official, execution):
    """The same weights move to the same values; all others rest, bit for bit, though they moved in the step before."""
    moved, rows = run(execution)[0][number].moved, official["weights"]["rows"]
    assert sorted(moved) == sorted(our_name(name) for _, name, *_ in rows)
    for _, name, _, _, after in rows:
        agree(digest(moved[our_name(name)]), after, name)


@EXECUTIONS
@STEPS
def test_running_statistics(number, official, execution):
    check_statistics(run(execution)[0][number].buffers, official["buffers"]["rows"], our_name)


@EXECUTIONS
def test_logits_by_running_statistics(execution):
    for ours, official in zip(run(execution)[1], RECORD["evaluated"], strict=True):
        agree(ours, official, "logits")
