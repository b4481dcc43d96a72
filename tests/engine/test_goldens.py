"""Our engine beside the released code of DARTS, DrNAS, DropNAS and PC-DARTS: whole steps, in float64, to 1e-9 of the
largest entry.

``tests/golden/rule.py`` gives both sides the same weights and images; ``tests/golden/record_*.py`` say how the official
side was run.
"""

from functools import cache
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from compare import Step, agree, check_buffers, digest, golden, method_for, rows, search_for, take
from torch import Tensor
from torch.distributions import Dirichlet

from gapless.core.plan import Stage
from gapless.core.progress import Progress

DARTS_CASES = ("darts_first_order", "darts_second_order", "darts_second_order_step2", "darts_nb201")
DRNAS_CASES = (
    "drnas_darts_k1",
    "drnas_darts_k2",
    "drnas_darts_kl",
    "drnas_darts_pruned",
    "drnas_nb201_k1",
    "drnas_nb201_k4",
)
DROPNAS_CASES = ("dropnas", "dropnas_step2")
PC_DARTS_CASES = ("pc_darts",)


@cache
def steps(name: str) -> dict[str, Step]:
    """Run the recorded steps of a case, and of its second step where there is one."""
    first = golden(name)
    if "samples" in first:
        return {name: drnas_step(first)}
    if "drop_rate" in first["settings"]:
        return dropnas_steps(first, golden(f"{name}_step2"))
    search = search_for(first)
    found = {name: take(search, first)}
    if first["settings"].get("unrolled"):
        found[f"{name}_step2"] = take(search, golden(f"{name}_step2"), step=1)
    return found


def step_of(case: str) -> Step:
    return steps(case.removesuffix("_step2"))[case]


@pytest.fixture(scope="module", params=(*DARTS_CASES, *DRNAS_CASES, *DROPNAS_CASES, *PC_DARTS_CASES))
def step(request) -> Step:
    return step_of(request.param)


# ---------------------------------------------------------------------- what is put in place of randomness


def drnas_step(record: dict) -> Step:
    """Take the step with the recorded draws in place of ours.

    The official code draws over all columns, zeroes the pruned ones and renormalises. Our sampler divides gammas by the
    sum over what lives, so that a recorded draw in place of the gammas gives the very mix. Where options are pruned the
    two gradients at alpha differ draw by draw; Adam is given the official one, made from our gradient at the mix.
    """
    search = search_for(record)
    if "masks" in record:
        with torch.no_grad():
            search.method.alpha.copy_(rows(record["alphas_before_pruning"]))
        search.method.narrow(Stage(keep=record["settings"]["num_keep"]))
    with mock.patch.object(torch, "_standard_gamma", side_effect=[rows(sample) for sample in record["samples"]]):
        return take(search, record, amend=through_all_columns if "masks" in record else None)


def through_all_columns(step: Step) -> Tensor:
    """Return the gradient at alpha of the official draw: over all columns, then masked and renormalised, by PyTorch's
    own Dirichlet."""
    alpha = step.alpha_before.clone().requires_grad_()
    with mock.patch.object(torch, "_sample_dirichlet", return_value=rows(step.record["samples"][0])):
        kept = Dirichlet(F.elu(alpha) + 1).rsample() * rows(step.record["masks"])
    (kept / kept.sum(dim=-1, keepdim=True)).backward(step.passes[0].gradient)
    return alpha.grad


def dropnas_steps(first: dict, second: dict) -> dict[str, Step]:
    """Take both steps with the recorded masks; between them, undo the decay that the official code forgot (see
    ``forgotten``)."""
    search = search_for(first)
    found = {}
    for number, record in enumerate((first, second)):
        mask = rows(record["passes"][0]["mask"]).bool()
        with mock.patch.object(search.method, "draw", return_value=mask):
            found[record["case"]] = taken = take(search, record, step=number)
        weights = dict(search.supernet.network.named_parameters())
        with torch.no_grad():
            for name, pull in forgotten(taken).items():
                weights[name].add_(record["settings"]["lr"] * pull)
                search.updater.optimiser.state[weights[name]]["momentum_buffer"].sub_(pull)
    return found


def forgotten(step: Step) -> dict[str, Tensor]:
    """Return the decay gradient of the weights that took part but were not decayed by the official code.

    It decays a weight only if the *first entry* of its gradient is not zero. The corner taps of a dilated 5x5 kernel
    read nothing but padding on a small map, so that entry is exactly zero there. We decay what took part, as the paper
    says.
    """
    if "decay_terms" not in step.record:
        return {}
    ran = step.clips[1].gradients
    columns = step.record["weights"]["columns"]
    table = [dict(zip(columns, row, strict=True)) for row in step.record["weights"]["rows"]]
    return {name: ran[name] for row in table if not row["decayed"] and (name := step.ours(row["name"])) in ran}


# ---------------------------------------------------------------------- every case


def test_the_step_starts_where_the_official_one_starts(step):
    agree(step.alpha_before, rows(step.record["alphas_before"]), "alpha before the step")


def test_mixes(step):
    passes = step.record["passes"]
    assert len(step.passes) == len(passes)
    for ours, official in zip(step.passes, passes, strict=True):
        mix = official["mix"] if "mix" in official else passes[official["mix_same_as"]]["mix"]
        agree(ours.mix, rows(mix), f"mix of the pass {official['name']}")


def test_logits_and_losses(step):
    for ours, official in zip(step.passes, step.record["passes"], strict=True):
        agree(ours.logits, official["logits"], f"logits of the pass {official['name']}")
        agree(ours.loss, official["loss"], f"loss of the pass {official['name']}")


def test_gradient_at_the_mix(step):
    wanted = [
        (ours, official)
        for ours, official in zip(step.passes, step.record["passes"], strict=True)
        if "mix_grad" in official
    ]
    assert wanted
    for ours, official in wanted:
        agree(ours.gradient, rows(official["mix_grad"]), f"gradient at the mix of the pass {official['name']}")


def test_gradient_at_alpha(step):
    agree(step.arch_steps[0].given, rows(step.record["alpha_grad"]), "gradient at alpha")


def test_alpha_after_the_step(step):
    agree(step.alpha, rows(step.record["alphas_after"]), "alpha")


def test_gradient_at_every_weight_before_clipping(step):
    found = step.clips[0].gradients
    for _, name, _, gradient, *_ in step.record["weights"]["rows"]:
        ours = found.get(step.ours(name))
        if ours is None:  # dropped: no gradient, or the zeros that old PyTorch left in one of an earlier step
            assert gradient is None or not any(gradient), name
        else:
            agree(digest(ours), gradient, f"gradient at {name}")


def test_clipping(step):
    clip = step.record["clip"]
    assert step.search.train.clip == clip["max_norm"]
    agree(step.clips[0].total, clip["total_norm"], "norm that was clipped")
    if clip.get("includes_alphas"):
        alpha = step.clips[0].gradients["alpha"].norm()
        agree(alpha, clip["norm_of_alphas"], "share of alpha in the norm")
        agree(
            (step.clips[0].total ** 2 - alpha**2).sqrt(),
            clip["norm_without_alphas"],
            "share of the weights in the norm",
        )
    else:
        assert "alpha" not in step.clips[0].gradients


def test_every_weight_after_the_step(step):
    missing = forgotten(step)
    for _, name, _, _, after, *_ in step.record["weights"]["rows"]:
        ours = step.ours(name)
        weight = step.weights[ours]
        if ours in missing:  # official = ours + lr * the decay gradient
            weight = weight + step.settings["lr"] * missing[ours]
        agree(digest(weight), after, name)


def test_running_statistics_after_the_step(step):
    check_buffers(step.buffers, step.record["buffers"], step.search.space)


# ---------------------------------------------------------------------- PC-DARTS


@pytest.mark.parametrize("case", PC_DARTS_CASES)
def test_shares_of_edges(case):
    """Edge normalisation learns what the official one learns: its gradient, and where a step takes it."""
    step = step_of(case)
    agree(step.arch_steps[0].gradients["beta"], rows(step.record["beta_grad"]), "gradient at beta")
    agree(step.search.method.beta, rows(step.record["betas_after"]), "beta")
    assert step.arch_steps[0].gradients["beta"].abs().min() > 0


# ---------------------------------------------------------------------- DARTS, second order


@pytest.mark.parametrize("case", ["darts_second_order", "darts_second_order_step2"])
def test_terms_of_the_second_order_gradient(case):
    step = step_of(case)
    parts = step.record["second_order"]
    start, virtual, plus, minus, end = step.passes
    agree(start.weight_norm, parts["theta_norm"], "norm of the weights")
    agree(virtual.weight_norm, parts["unrolled_theta_norm"], "norm of the virtual weights")
    agree(end.weight_norm, parts["theta_norm"], "norm of the weights after they were put back")

    def at_alpha(gradient: Tensor) -> Tensor:
        alpha = step.alpha_before.clone().requires_grad_()
        alpha.softmax(dim=-1).backward(gradient)
        return alpha.grad

    radius = parts["r"] / parts["vector_norm"]
    agree(at_alpha(virtual.gradient), rows(parts["first_term"]), "first term")
    agree(at_alpha(plus.gradient - minus.gradient) / (2 * radius), rows(parts["implicit_term"]), "implicit term")


def test_the_virtual_step_sees_the_momentum_of_the_step_before():
    first, second = (step_of(case) for case in ("darts_second_order", "darts_second_order_step2"))
    assert first.record["second_order"]["momentum_buffer_norm"] == 0
    norm = torch.stack([m.norm() for m in first.momentum.values()]).norm()
    agree(norm, second.record["second_order"]["momentum_buffer_norm"], "norm of the momentum")


# ---------------------------------------------------------------------- DrNAS


def test_kl_term():
    record = golden("drnas_darts_kl")
    step = step_of("drnas_darts_kl")
    method = method_for(record["settings"], step.search.space).double()
    with torch.no_grad():
        method.alpha.copy_(rows(record["alphas_before"]))
    agree(method.penalty(Progress()), record["passes"][0]["kl_term"], "KL to the anchor")


def test_pruning_keeps_what_the_official_code_keeps():
    step = step_of("drnas_darts_pruned")
    assert torch.equal(step.search.method.alive, rows(step.record["masks"]).bool())


def test_gradient_of_a_pruned_draw():
    """Ours is that of a Dirichlet over the kept columns alone. The official one goes through all columns and equals it
    only on average."""
    step = step_of("drnas_darts_pruned")
    kept = rows(step.record["masks"]).bool().nonzero()[:, 1].view(-1, step.settings["num_keep"])
    alpha = step.alpha_before.gather(1, kept).requires_grad_()
    with mock.patch.object(torch, "_sample_dirichlet", return_value=step.passes[0].mix.gather(1, kept)):
        Dirichlet(F.elu(alpha) + 1).rsample().backward(step.passes[0].gradient.gather(1, kept))
    ours = step.arch_steps[0].ours
    agree(ours, torch.zeros_like(ours).scatter(1, kept, alpha.grad), "gradient at alpha of the kept columns")
    official = rows(step.record["alpha_grad"])
    assert (ours - official).abs().max() > 1e-3 * official.abs().max()


# ---------------------------------------------------------------------- DropNAS


@pytest.fixture(params=DROPNAS_CASES)
def dropnas(request) -> Step:
    return step_of(request.param)


def test_both_adam_steps(dropnas):
    loss, decay = dropnas.arch_steps
    agree(loss.alpha, rows(dropnas.record["alphas_after_loss_step"]), "alpha after the step on the loss")
    agree(decay.given, rows(dropnas.record["alpha_grad_of_decay"]), "gradient of the decay at alpha")
    agree(decay.alpha, rows(dropnas.record["alphas_after_decay_step"]), "alpha after the step on the decay")


def test_partial_decay_of_weights(dropnas):
    """What the official code decays we decay, by the same amount; it forgets only weights whose first gradient entry is
    exactly zero."""
    lr, strength = dropnas.settings["lr"], dropnas.settings["weight_decay"]
    missing, pulls = forgotten(dropnas), dropnas.clips[1].gradients
    assert missing
    decayed = set()
    for row in dropnas.record["weights"]["rows"]:
        values = dict(zip(dropnas.record["weights"]["columns"], row, strict=True))
        name = dropnas.ours(values["name"])
        if values["decayed"]:
            decayed.add(name)
        if name in missing:
            assert values["grad"][2] == 0
            assert name.endswith("dil_conv_5x5.1.weight")
            assert digest(dropnas.clips[0].gradients[name])[2] == 0
    assert decayed | set(missing) == set(pulls)
    assert not decayed & set(missing)
    for name, pull in pulls.items():
        agree(pull, 2 * strength * (dropnas.weights[name] + lr * dropnas.momentum[name]), f"decay of {name}")
    clip = dropnas.record["clip_of_decay"]
    assert not clip["active"]
    agree(torch.stack([pulls[name].norm() for name in decayed]).norm(), clip["total_norm"], "norm of the decay")
    agree(dropnas.clips[1].total, torch.stack([p.norm() for p in pulls.values()]).norm(), "norm of our decay")
    terms = dropnas.record["decay_terms"]
    agree(
        sum(pulls[name].square().sum() for name in decayed) / (4 * strength),
        terms["weights"],
        "decay term of the weights",
    )
    alpha = dropnas.arch_steps[1].given.square().sum() / (4 * dropnas.settings["alpha_weight_decay"])
    agree(alpha, terms["alphas"], "decay term of alpha")


def test_dropped_options_coast_on_their_momentum():
    first, second = (step_of(case) for case in DROPNAS_CASES)
    lr, momentum = second.settings["lr"], second.settings["momentum"]
    coasting = [name for name in first.clips[0].gradients if name not in second.clips[0].gradients]
    resting = [
        name
        for name in second.weights
        if name not in first.clips[0].gradients and name not in second.clips[0].gradients
    ]
    assert coasting
    assert resting
    missing = forgotten(first)
    for name in coasting:
        buffer, start = first.momentum[name], first.weights[name]
        if name in missing:  # the decay that was undone between the steps
            buffer, start = buffer - missing[name], start + lr * missing[name]
        agree(second.weights[name], start - lr * (momentum + momentum**2) * buffer, name)
    for name in resting:
        assert torch.equal(first.weights[name], second.weights[name])
