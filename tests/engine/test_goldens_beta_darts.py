"""beta-DARTS beside the code of Sunshine-Ye/Beta-DARTS: its term, its ramp and steps of the architecture at four epochs, in
float64, to 1e-9 of the largest entry."""

from unittest import mock

import pytest
import torch
from compare import Stored, agree, batches, check_buffers, golden, rows, set_weights

from gapless.core.plan import Train
from gapless.core.progress import Progress
from gapless.engine.search import Search
from gapless.methods.beta_darts import BetaDARTS
from gapless.spaces.nasbench201 import NASBench201

RECORD = golden("beta_darts_nb201")
S = RECORD["settings"]
STEPS = pytest.mark.parametrize("step", RECORD["steps"], ids=lambda step: f"epoch {step['epoch']}")


def search(execution: str = "fused") -> Search:
    space = NASBench201(width=S["C"], cells=S["N"], size=S["image_size"])
    method = BetaDARTS(space, arch_lr=S["alpha_lr"], arch_decay=S["alpha_weight_decay"])
    found = Search(space, method, Stored(), Train(batch=S["batch"]), precision="float64", execution=execution)
    set_weights(found.supernet.network, RECORD, space)
    with torch.no_grad():
        method.alpha.copy_(rows(RECORD["alphas_before"]))
    found.supernet.train()
    return found


def at(step: dict) -> Progress:
    return Progress(epoch=step["epoch"], epochs=S["epochs"], phase="arch")


@STEPS
def test_the_term_and_its_strength(step):
    """The strength that the official architect gives the term is in what its gradient adds; see also the whole step."""
    method = search().method
    term = method.penalty(at(step))
    strength = 50 * step["epoch"] / 100
    if not strength:
        assert term is None
        return
    agree(term / strength, step["term"], "term")
    term.backward()
    agree(method.alpha.grad / strength, rows(step["term_grad"]), "gradient of the term")
    without = next(s for s in RECORD["steps"] if s["epoch"] == 0)
    added = rows(step["alpha_grad"]) - rows(without["alpha_grad"])
    agree(method.alpha.grad, added, "what the term adds to the gradient at alpha")


@STEPS
@pytest.mark.parametrize("execution", ["fused", "reference"])
def test_a_step_of_the_architecture(step, execution):
    found, seen = search(execution), {}
    updater = found.updater
    adam, loss = updater.arch_optimiser.step, updater.loss

    def watched_loss(batch, mix):
        value, accuracy = loss(batch, mix)
        seen["loss"] = value.detach()
        return value, accuracy

    def watched_adam(gradient, **options):
        seen["gradient"] = gradient["alpha"].clone()
        adam(gradient, **options)

    handle = found.supernet.register_forward_hook(lambda _, __, y: seen.update(logits=y.detach()))
    (train, valid) = batches(S)
    with (
        mock.patch.object(updater, "loss", watched_loss),
        mock.patch.object(updater.arch_optimiser, "step", watched_adam),
    ):
        updater.arch_step(at(step), 0.025, train, valid)
    handle.remove()
    agree(seen["logits"], step["logits"], "logits")
    agree(seen["loss"], step["loss"], "loss")
    agree(seen["gradient"], rows(step["alpha_grad"]), "gradient at alpha")
    agree(found.method.alpha, rows(step["alphas_after"]), "alpha after the step")
    buffers = dict(found.supernet.network.named_buffers())
    check_buffers(buffers, RECORD["buffers"], found.space)
