"""The record of DSNAS's code in SNAS-Series/SNAS-Series, by its formulas and by a step of our own search, in float64, to
1e-9 of the largest entry."""

from dataclasses import dataclass, field
from functools import cache
from unittest import mock

import pytest
import torch
from compare import Stored, agree, check_gradients, golden
from rule import FIRST_IMAGE_ORDINAL, fill, images, kind_of, train_labels
from shufflenet_names import official_order, our_name
from torch import Tensor, nn

from gapless.core.cost import Undrawn
from gapless.core.method import Seen
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.methods.dsnas import DSNAS
from gapless.spaces.shufflenet import ShuffleNet

RECORD = golden("dsnas_shufflenet")
S = RECORD["settings"]
PASSES = pytest.mark.parametrize("official", RECORD["passes"], ids=lambda p: p["name"])


def shares(official: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return alpha's probabilities [D, O] and one-hot minus probabilities, the gradient of the path's log-probability."""
    p = torch.tensor(RECORD["alphas"]["blocks"], dtype=torch.float64).softmax(dim=-1)
    return p, torch.zeros_like(p).scatter(1, torch.tensor(official["path"])[:, None], 1) - p


@PASSES
def test_probabilities(official):
    p, _ = shares(official)
    agree(p, official["probabilities"]["blocks"], "probabilities")
    chosen = p.gather(1, torch.tensor(official["path"])[:, None])
    agree(chosen.log().sum(), official["log_prob"], "log-probability of the path")


@PASSES
def test_the_gradient_at_alpha_is_the_score_times_the_credit(official):
    _, score = shares(official)
    credits = torch.tensor(official["credits"], dtype=torch.float64)
    agree(credits[:, None] * score, official["alpha_grad"]["blocks"], "gradient at alpha")
    assert credits.abs().min() > 1e-6 * credits.abs().max()


@PASSES
def test_flops_are_charged_to_heavy_paths_only(official):
    p, score = shares(official)
    costs = torch.tensor(RECORD["flops"], dtype=torch.float64)
    at = torch.tensor(official["path"])[:, None]
    paid = costs.gather(1, at)
    agree(paid.sum(), official["mflops"], "millions of multiply-adds of the path's blocks")
    charge = S["flops_loss_coef"] * paid * p.gather(1, at) * score
    if official["mflops"] < S["flops_threshold"]:
        charge = torch.zeros_like(charge)
    agree(charge, official["alpha_grad_of_flops"]["blocks"], "gradient of the FLOPs term")
    whole = torch.tensor(official["alpha_grad"]["blocks"], dtype=torch.float64) + charge
    agree(whole, official["alpha_grad_with_flops"]["blocks"], "whole gradient")


# ---------------------------------------------------------------------- our supernet, method and search

SPACE = ShuffleNet(classes=S["classes"], size=S["image_size"], affine=True, eps=S["bn_eps"], dropout=0.0)
TRAIN = Train(epochs=1, batch=S["batch"], clip=0.0, decay_norms=False, label_smoothing=S["smoothing"])
EXECUTIONS = pytest.mark.parametrize("execution", ["reference", "fused"])


@dataclass(repr=False)
class Step:
    """What a step of our search showed: logits, loss, the gradients at the gates, at alpha, and at the weights, the
    statistics behind it; and the gradient of the cost term alone."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    seen: Seen | None = None
    alpha: Tensor = field(default_factory=lambda: torch.empty(0))
    of_cost: Tensor = field(default_factory=lambda: torch.empty(0))
    weights: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, nn.BatchNorm2d] = field(default_factory=dict)


def method_for(charged: bool) -> DSNAS:
    """Return our method on the space of ImageNet, whose costs the official code charges whatever its images are."""
    cost = {"macs": S["flops_loss_coef"], "macs_from": S["flops_threshold"]} if charged else {}
    with seeded("golden"):
        method = DSNAS(ShuffleNet.usual(affine=True), **cost).double()
    with torch.no_grad():
        method.alpha.copy_(torch.tensor(RECORD["alphas"]["blocks"], dtype=torch.float64))
    return method


@cache
def step_of(number: int, execution: str, charged: bool) -> Step:
    """Take the recorded step."""
    path, method, step = tuple(RECORD["passes"][number]["path"]), method_for(charged), Step()
    search = Search(SPACE, method, Stored(), TRAIN, precision="float64", execution=execution)
    network = search.supernet.network
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for ordinal, name in enumerate(sorted(weights, key=official_order)):
            weights[name].copy_(fill(ordinal, weights[name].shape, kind_of(name, weights[name].shape)))
    adam = search.updater.arch_optimiser.step

    def watch(gradient: dict[str, Tensor], **options: object) -> None:
        step.alpha = gradient["alpha"].detach().clone()
        adam(gradient, **options)

    batch = images(FIRST_IMAGE_ORDINAL, S["batch"], S["image_size"]), train_labels(S["batch"])
    handle = search.supernet.register_forward_hook(lambda *args: setattr(step, "logits", args[-1].detach().clone()))
    search.supernet.train()
    with mock.patch.object(method, "drawn", return_value=path):
        if charged:
            method.penalty(Progress()).backward()
            step.of_cost = method.alpha.grad.clone()
        with (
            mock.patch.object(search.updater.arch_optimiser, "step", watch),
            mock.patch.object(method, "settle", lambda seen: setattr(step, "seen", seen)),
        ):
            step.loss, *_ = search.updater.step(Progress(), 0.1, batch, None, train_arch=True)
    handle.remove()
    step.weights = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    step.norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    return step


NUMBERS = pytest.mark.parametrize(
    ("number", "official"), list(enumerate(RECORD["passes"])), ids=[p["name"] for p in RECORD["passes"]]
)


def test_the_ordinals_are_those_of_the_official_weights():
    with Undrawn():
        names = sorted(dict(Supernet(SPACE).network.named_parameters()), key=official_order)
    for official in RECORD["passes"]:
        for ordinal, name, *_ in official["weights"]["rows"]:
            assert names[ordinal] == our_name(name)


@EXECUTIONS
@NUMBERS
def test_our_forward_pass(number, official, execution):
    step = step_of(number, execution, False)
    agree(step.logits, official["logits"], "logits")
    agree(step.loss, official["loss"], "loss")
    agree(step.seen.mix.log_prob, official["log_prob"], "log-probability of the path")


@EXECUTIONS
@NUMBERS
def test_our_credits_and_the_gradient_at_alpha(number, official, execution):
    step = step_of(number, execution, False)
    agree(step.seen.gradient["gain"], official["credits"], "credits")
    agree(step.alpha, official["alpha_grad"]["blocks"], "gradient at alpha")


@NUMBERS
def test_our_cost_term(number, official):
    step = step_of(number, "fused", True)
    agree(step.of_cost, official["alpha_grad_of_flops"]["blocks"], "gradient of the cost term")
    agree(step.alpha, official["alpha_grad_with_flops"]["blocks"], "whole gradient")
    assert bool(step.of_cost.any()) == (official["name"] == "heavy")


def test_our_costs_are_the_table_of_the_official_code():
    agree(method_for(True).millions, RECORD["flops"], "millions of multiply-adds")


@EXECUTIONS
@NUMBERS
def test_our_weight_gradients(number, official, execution):
    """Those that are nothing but rounding in the record are so in ours; what did not run has none in both."""
    check_gradients(step_of(number, execution, False).weights, official["weights"]["rows"], our_name)


@EXECUTIONS
@NUMBERS
def test_our_running_statistics(number, official, execution):
    step = step_of(number, execution, False)
    rows = official["buffers"]["rows"]
    assert {n for n, m in step.norms.items() if int(m.num_batches_tracked)} == {our_name(name) for name, *_ in rows}
    for name, mean, variance in rows:
        norm = step.norms[our_name(name)]
        for told, ours in ((mean, norm.running_mean), (variance, norm.running_var)):
            agree([ours.sum(), ours.norm()], told, f"statistics of {name}")
