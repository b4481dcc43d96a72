"""Golden architecture passes of GDAS in xiangning-chen/DrNAS, on NAS-Bench-201: forward and backward at three
temperatures, with exponential numbers from a rule in place of random ones."""

from unittest import mock

import torch
import torch.nn.functional as F
from observe import buffer_table, golden_environment, plain, provenance, weight_table, write
from official import load
from record_drnas import NB201, ordinary_weights
from rule import FIRST_ARCH_ORDINAL, FIRST_IMAGE_ORDINAL, exponentials, fill, fill_weights, images, valid_labels

REPOSITORY = "xiangning-chen/DrNAS"
CASES = ("gdas_nb201",)
TEMPERATURES = {1: 10.0, 3: 1.0, 5: 0.1}
"""Number of the draw -> temperature. These draws have a pool on the way to the last node: without one its channels have
mean zero, and the running mean behind it is nothing but rounding."""


def record(case, checkout, folder):
    """Record the case: a pass from the same start for each temperature."""
    module, loaded = load(checkout, ["201-space", "."], "search_model_gdas.py")
    options = next(m for name, m in loaded.items() if name.endswith("cell_operations")).NAS_BENCH_201
    settings = {key: NB201[key] for key in ("space", "C", "N", "max_nodes", "classes", "batch", "image_size")}
    passes = []
    with golden_environment():
        for number, tau in TEMPERATURES.items():
            size = (settings["C"], settings["N"], settings["max_nodes"], settings["classes"])
            model = module.TinyNetworkGDAS(*size, None, options)
            fill_weights(ordinary_weights(model))
            (alpha,) = model.arch_parameters()
            alpha.data.copy_(fill(FIRST_ARCH_ORDINAL, alpha.shape, "arch"))
            model.set_tau(tau)
            drawn = exponentials(number, alpha.shape)
            with mock.patch.object(torch.Tensor, "exponential_", lambda self, drawn=drawn: self.copy_(drawn)):
                logits = model(images(FIRST_IMAGE_ORDINAL, settings["batch"], settings["image_size"]))
            loss = F.cross_entropy(logits, valid_labels(settings["batch"]))
            loss.backward()
            gradients = {id(p): p.grad for p in model.parameters()}
            passes.append(
                {
                    "tau": tau,
                    "draw": number,
                    "logits": logits.tolist(),
                    "loss": loss.item(),
                    "alpha_grad": plain({"cell": alpha.grad}),
                    "weights": weight_table(ordinary_weights(model), gradients),
                    "buffers": buffer_table(model),
                }
            )
    content = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_gdas.py"),
        "settings": settings,
        "alphas": plain({"cell": fill(FIRST_ARCH_ORDINAL, alpha.shape, "arch")}),
        "passes": passes,
    }
    return [write(folder, case, content)]
