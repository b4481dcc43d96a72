"""ENAS beside the code of D-X-Y/AutoDL-Projects: its controller's log-probability, entropy and gradients for given cells, and
how its loop rewards samples, in float64, to 1e-9 of the largest entry."""

import pytest
import torch
from compare import agree, digest, golden
from rule import fill

from gapless.core.mix import Mix
from gapless.core.progress import Progress
from gapless.methods.enas import ENAS
from gapless.spaces.nasbench201 import OPTIONS, NASBench201

RECORD = golden("enas_nb201")
OURS = {
    "input_vars": "begin_token",
    "w_embd.weight": "embedding.weight",
    "w_pred.weight": "head.weight",
    "w_pred.bias": "head.bias",
}
SPACE = NASBench201()


def controller() -> ENAS:
    """Ours with the weights of the rule: its rows stand by token, the official ones by operation."""
    method = ENAS(SPACE).double()
    own = dict(method.named_parameters())
    with torch.no_grad():
        for ordinal, (name, shape, _) in enumerate(RECORD["controller"][0]["gradients"]):
            value = 2 * fill(ordinal, shape, "arch")
            ours = OURS.get(name, name.replace("w_lstm.", "lstm."))
            own[ours].copy_(value[order(method)] if name in by_operation else value.view(own[ours].shape))
    return method


by_operation = ("w_embd.weight", "w_pred.weight", "w_pred.bias")


def order(method: ENAS) -> list[int]:
    """Return the official operation of each of our tokens."""
    return [OPTIONS.index(token) for token in method.tokens]


@pytest.mark.parametrize("number", range(len(RECORD["controller"])))
def test_the_controller(number):
    official, method = RECORD["controller"][number], controller()
    given = iter(official["cell"])
    walk = method.walk(lambda log_p: next(given))
    assert list(walk.columns) == official["cell"]
    agree(walk.log_prob, official["log_prob"], "log-probability")
    agree(walk.entropy, official["entropy"], "entropy")
    walk.log_prob.backward()
    own = dict(method.named_parameters())
    back = [list(method.tokens).index(option) for option in OPTIONS]
    for name, _, gradient in official["gradients"]:
        g = own[OURS.get(name, name.replace("w_lstm.", "lstm."))].grad
        agree(digest(g[back] if name in by_operation else g), gradient, name)


def test_the_rewards():
    """``per_epoch_last`` with the entropy's graph is that loop: gradients at log-probabilities and entropies, and the
    baseline that is carried over."""
    s, samples = RECORD["settings"], RECORD["samples"]
    each = len(samples["right"]) // len(RECORD["epochs"])
    method = ENAS(
        SPACE,
        baseline="per_epoch_last",
        entropy_grad=True,
        samples=each,
        entropy=s["entropy_weight"],
        decay=s["decay"],
    ).double()
    for epoch, official in enumerate(RECORD["epochs"]):
        method.begin(Progress(epoch=epoch))
        log_prob, entropy = (
            torch.tensor(samples[name], dtype=torch.float64, requires_grad=True) for name in ("log_prob", "entropy")
        )
        for i in range(epoch * each, (epoch + 1) * each):
            mix = Mix(torch.zeros(6, 5), log_prob=log_prob[i], entropy=entropy[i])
            accuracy = torch.tensor(samples["right"][i] / s["batch"], dtype=torch.float64)
            method.regret(mix, torch.tensor(0.0), accuracy).backward()
        agree(log_prob.grad, official["gradients"]["log_prob"], "gradient at the log-probabilities")
        agree(entropy.grad, official["gradients"]["entropy"], "gradient at the entropies")
        agree(method.told[0], official["baseline"], "baseline")
