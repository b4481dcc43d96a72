"""The record of DSNAS's code in SNAS-Series/SNAS-Series by its formulas, in float64, to 1e-9 of the largest entry."""

import pytest
import torch
from compare import agree, golden

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
