"""GDAS beside the code of xiangning-chen/DrNAS: forward and backward of the architecture's pass at three temperatures, in
float64, to 1e-9 of the largest entry."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from compare import agree, check_buffers, digest, golden, our_name, rows, set_weights
from rule import FIRST_IMAGE_ORDINAL, exponentials, images, valid_labels

from gapless.core.progress import Progress
from gapless.engine.supernet import Supernet
from gapless.methods.gdas import GDAS
from gapless.spaces.nasbench201 import NASBench201

RECORD = golden("gdas_nb201")


@pytest.mark.parametrize("execution", ["fused", "reference"])
@pytest.mark.parametrize("number", range(len(RECORD["passes"])), ids=lambda n: f"tau {RECORD['passes'][n]['tau']:g}")
def test_a_pass(number, execution):
    s, official = RECORD["settings"], RECORD["passes"][number]
    space = NASBench201(width=s["C"], cells=s["N"], size=s["image_size"], affine=False)
    supernet = Supernet(space, execution).double().train()
    set_weights(supernet.network, official, space)
    method = GDAS(space, estimator="scalar_fill", tau=official["tau"], tau_end=official["tau"]).double()
    with torch.no_grad():
        method.alpha.copy_(rows(RECORD["alphas"]))
    uniform = (-exponentials(official["draw"], space.shape)).exp()  # ours takes its noise from uniform numbers
    with mock.patch("torch.rand", return_value=uniform):
        mix = method.mix(Progress(phase="arch"))
    logits = supernet(images(FIRST_IMAGE_ORDINAL, s["batch"], s["image_size"]), mix)
    loss = F.cross_entropy(logits, valid_labels(s["batch"]))
    loss.backward()
    agree(logits, official["logits"], "logits")
    agree(loss, official["loss"], "loss")
    agree(method.alpha.grad, rows(official["alpha_grad"]), "gradient at alpha")
    weights = dict(supernet.network.named_parameters())
    for _, name, _, gradient, _ in official["weights"]["rows"]:
        ours = weights[our_name(name, space)].grad
        if ours is None:  # not drawn; or only "none" behind it, which multiplies by zero there
            assert gradient is None or not any(gradient), name
        else:
            agree(digest(ours), gradient, f"gradient at {name}")
    check_buffers(dict(supernet.network.named_buffers()), official["buffers"], space)


def test_the_estimators_differ():
    """The record can tell them apart: with the other one the gradient at alpha is another."""
    s, official = RECORD["settings"], RECORD["passes"][1]
    space = NASBench201(width=s["C"], cells=s["N"], size=s["image_size"], affine=False)
    supernet = Supernet(space).double().train()
    set_weights(supernet.network, official, space)
    method = GDAS(space, estimator="selected", tau=1.0, tau_end=1.0).double()
    with torch.no_grad():
        method.alpha.copy_(rows(RECORD["alphas"]))
    with mock.patch("torch.rand", return_value=(-exponentials(official["draw"], space.shape)).exp()):
        mix = method.mix(Progress(phase="arch"))
    x = images(FIRST_IMAGE_ORDINAL, s["batch"], s["image_size"])
    F.cross_entropy(supernet(x, mix), valid_labels(s["batch"])).backward()
    with pytest.raises(AssertionError):
        agree(method.alpha.grad, rows(official["alpha_grad"]), "gradient at alpha")
