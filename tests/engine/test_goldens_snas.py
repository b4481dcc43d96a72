"""Our engine beside the code of SNAS-Series/SNAS-Series (folder SNAS): soft samples, the cross entropy and its gradient at
alpha, and the resource terms by their formulas, in float64, to 1e-9 of the largest entry."""

import math

import pytest
import torch
import torch.nn.functional as F
from compare import agree, golden, rows, set_weights
from rule import FIRST_IMAGE_ORDINAL, images, train_labels

from gapless.core.mix import Mix
from gapless.engine.supernet import Supernet
from gapless.spaces.darts import Darts

RECORD = golden("snas_darts")
S = RECORD["settings"]
SPACE = Darts(width=S["C"], cells=S["layers"], size=S["image_size"], options="darts")
PASSES = pytest.mark.parametrize("official", RECORD["passes"], ids=lambda p: f"temperature {p['temperature']:g}")


def start() -> torch.Tensor:
    return rows(RECORD["alphas"]).requires_grad_()


def sample(alpha: torch.Tensor, temperature: float) -> torch.Tensor:
    gumbel = -(-rows(RECORD["uniform"]).log()).log()
    return ((alpha + gumbel) / temperature).softmax(dim=-1)


def costs() -> dict[str, torch.Tensor]:
    """Return [cells, D / 2, O] for each resource, made up by the recorded rule."""
    flat = torch.arange(14 * 8, dtype=torch.float64).reshape(14, 8)
    found = {}
    for number, (name, factor) in enumerate(RECORD["costs"]["factors"].items()):
        tables = [factor * (1 + (7 * flat + 3 * number + cell) % 11) for cell in range(S["layers"])]
        found[name] = torch.stack(tables)
        found[name][..., RECORD["costs"]["free_columns"]] = 0
    return found


def density(alpha: torch.Tensor, w: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the log-density of the released code: of the concrete distribution, but for two clamps at 1e-4."""
    w, count = w.clamp_min(1e-4), alpha.shape[-1]
    last = (w**-temperature * alpha.exp()).clamp_min(1e-4).sum(-1).log()
    start = math.lgamma(count) + (count - 1) * math.log(temperature)
    return start + alpha.sum(-1) - (temperature + 1) * w.log().sum(-1) - count * last


def by_edge(weight: torch.Tensor, scaling: str) -> dict[str, torch.Tensor]:
    """Return the cost of each edge in each cell of a kind: kind -> [cells of the kind, D / 2]."""
    found = {}
    for kind, half in zip(("normal", "reduce"), weight.split(14), strict=True):
        cells = [c for c in range(S["layers"]) if (c in SPACE.reductions) == (kind == "reduce")]
        per = {name: (table[cells] * half).sum(-1) for name, table in costs().items()}
        if scaling == "raw":
            found[kind] = 0.43 * (2 * per["size"] + per["flops"] / 4000 + per["mac"] / 100)
        else:
            found[kind] = sum(torch.where(p.abs() < 1, torch.ones_like(p), p).log() for p in per.values()) / 3
    return found


@PASSES
def test_the_soft_sample(official):
    agree(sample(start(), official["temperature"]), rows(official["samples"]), "soft sample")


@PASSES
@pytest.mark.parametrize("execution", ["fused", "reference"])
def test_the_cross_entropy(official, execution):
    supernet, alpha = Supernet(SPACE, execution).double().train(), start()
    set_weights(supernet.network, RECORD, SPACE)
    logits = supernet(
        images(FIRST_IMAGE_ORDINAL, S["batch"], S["image_size"]), Mix(sample(alpha, official["temperature"]))
    )
    loss = F.cross_entropy(logits, train_labels(S["batch"]))
    loss.backward()
    agree(logits, official["logits"], "logits")
    agree(loss, official["loss"], "loss")
    agree(alpha.grad, rows(official["alpha_grad"]), "gradient at alpha")


@PASSES
def test_the_log_density(official):
    alpha, tau = start(), official["temperature"]
    w = sample(alpha, tau)
    agree(density(alpha, w, tau), rows(official["log_density"]), "density")
    (through,) = torch.autograd.grad(density(alpha, w, tau).sum(), alpha)
    (score,) = torch.autograd.grad(density(alpha, w.detach(), tau).sum(), alpha)
    agree(through, rows(official["log_density_grad"]), "gradient through the sample")
    agree(score, rows(official["log_density_grad_of_a_fixed_sample"]), "gradient of a fixed sample")


def test_at_temperature_one_the_density_is_the_concrete_one():
    """No weight of this sample is below the clamps."""
    (official,) = (p for p in RECORD["passes"] if p["temperature"] == 1)
    concrete = torch.distributions.RelaxedOneHotCategorical(torch.tensor(1.0).double(), logits=start())
    found = concrete.log_prob(rows(official["samples"]))
    agree(found, rows(official["log_density"]), "density")


@PASSES
@pytest.mark.parametrize(
    "number", range(6), ids=[f"{r['estimator']} {r['scaling']}" for r in RECORD["passes"][0]["resources"]]
)
def test_the_resource_term(official, number):
    told, tau, alpha = official["resources"][number], official["temperature"], start()
    w = sample(alpha, tau)
    if told["estimator"] == "discrete":
        costs = by_edge(alpha.softmax(dim=-1), told["scaling"])
    elif told["estimator"] == "reparametrization":
        costs = by_edge(w, told["scaling"])
    else:
        density_of = dict(zip(("normal", "reduce"), density(alpha, w, tau).split(14), strict=True))
        costs = {kind: density_of[kind] * c.detach() for kind, c in by_edge(w, told["scaling"]).items()}
    agree([c.sum().item() for c in costs.values()], told["sums"], "sums")
    term = sum(c.sum() / share for c, share in zip(costs.values(), S["shares"], strict=True))
    term.backward()
    agree(term, told["term"], "term")
    agree(alpha.grad, rows(told["alpha_grad"]), "gradient at alpha")
