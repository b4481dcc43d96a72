"""Golden values of SNAS in SNAS-Series/SNAS-Series: the soft sample, the concrete log-density, the cross entropy and the
three estimators of the resource term, at two temperatures.

The official search network is run as it is, with uniform numbers, weights and images from closed forms. Its tables of
costs, which it fills from its operations at the first pass, are made up: ``cost`` says how. Its script divides the sum
over normal cells by 6 and that over reduction cells by 2 and multiplies both by a strength; strength and ratio are 1
here.
"""

from itertools import count
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
from observe import golden_environment, plain, provenance, write
from official import load
from rule import FIRST_ARCH_ORDINAL, FIRST_IMAGE_ORDINAL, fill, fill_weights, images, train_labels

REPOSITORY = "SNAS-Series/SNAS-Series"
CASES = ("snas_darts",)
KINDS = ("normal", "reduce")
TEMPERATURES = (1.0, 0.03)
"""The first and the last of the search."""
SETTINGS = {"C": 4, "layers": 8, "classes": 10, "batch": 4, "image_size": 16, "shares": [6, 2]}
RESOURCES = {"size": 1.0, "flops": 4000.0, "mac": 100.0}
FREE = (0, 3)
"""Columns that cost nothing: none and skip_connect."""
PENALTIES = {
    "reparametrization": ((26, 25), (37, 38)),
    "discrete": ((28, 27), (39, 40)),
    "policy_gradient": ((2, 7), (35, 36)),
}
"""Estimator -> places of (normal, reduction) in the list that the official forward pass returns: raw, logarithmic."""
ADAPTED = (('torch.device("cuda")', 'torch.device("cpu")'),)
ARGUMENTS = {
    "snas": True,
    "dsnas": False,
    "use_ckpt": False,
    "ckpt_false_list": "[]",
    "resample_layer": False,
    "resource_efficient": True,
    "resource_lambda": 1.0,
    "drop_path_prob": 0.0,
    "normalization": False,
    "running_mean_var": False,
    "separation": "all",
    "log_penalty": False,
    "loss": True,
    "bn_affine": False,
    "distributed": False,
    "minus_baseline": False,
    "loc_mean": 1.0,
    "loc_std": 0.01,
    "temp": 1.0,
    "nsample": 1,
    "init_channels": SETTINGS["C"],
    "auxiliary": False,
    "random_sample": False,
    "gen_max_child_flag": False,
}
"""The defaults of the official script, without drop path."""


def uniform(number, shape):
    """Numbers in (0, 1), used in place of random ones: the first draw is for normal cells, the second for reductions."""
    flat = torch.arange(shape[0] * shape[1], dtype=torch.float64)
    return ((1 + (37 * flat + 11 + 29 * number) % 97) / 99).reshape(shape)


def cost(resource, cell, shape):
    """A made-up table [edges, operations] of a resource in a cell of the network."""
    number = list(RESOURCES).index(resource)
    flat = torch.arange(shape[0] * shape[1], dtype=torch.float64).reshape(shape)
    table = RESOURCES[resource] * (1 + (7 * flat + 3 * number + cell) % 11)
    table[:, list(FREE)] = 0
    return table


def build(module, temperature, method):
    """The official network with closed-form weights and alphas, made-up costs, a temperature and an estimator."""
    arguments = SimpleNamespace(**ARGUMENTS | {"method": method})
    model = module.Network(
        SETTINGS["C"], SETTINGS["classes"], SETTINGS["layers"], torch.nn.CrossEntropyLoss(), arguments, 0, 1
    )
    fill_weights(model.named_parameters())
    for index, alpha in enumerate(model.arch_parameters()):
        alpha.data.copy_(fill(FIRST_ARCH_ORDINAL + index, alpha.shape, "arch"))
    for number, cell in enumerate(model.cells):
        for resource in RESOURCES:
            table = getattr(cell, f"op_{resource}")
            table.copy_(cost(resource, number, table.shape))
        for mixed in cell._ops:
            mixed.got_flops_mac = True
    model._temp = temperature
    return model.train()


def run(model):
    """One forward pass with the closed-form uniform numbers; the official outputs."""
    draws = count()
    x = images(FIRST_IMAGE_ORDINAL, SETTINGS["batch"], SETTINGS["image_size"])
    with mock.patch.object(torch.Tensor, "uniform_", lambda self: self.copy_(uniform(next(draws), self.shape))):
        return model(x)


def at_alpha(value, model):
    """The gradient of a number at the alphas."""
    found = torch.autograd.grad(value, model.arch_parameters(), retain_graph=True, allow_unused=True)
    return plain({kind: torch.zeros(()) if g is None else g for kind, g in zip(KINDS, found, strict=True)})


def estimators(module, temperature):
    """For each estimator and scaling: the sums over normal and over reduction cells, the term, its gradient."""
    found = []
    for method, places in PENALTIES.items():
        model = build(module, temperature, method)
        penalties = run(model)[2]
        for scaling, (normal, reduce) in zip(("raw", "log"), places, strict=True):
            sums = penalties[normal], penalties[reduce]
            term = sums[0] / SETTINGS["shares"][0] + sums[1] / SETTINGS["shares"][1]
            found.append(
                {
                    "estimator": method,
                    "scaling": scaling,
                    "sums": [value.item() for value in sums],
                    "term": term.item(),
                    "alpha_grad": at_alpha(term, model),
                }
            )
    return found


def record(case, checkout, folder):
    """Record the case."""
    module, _ = load(checkout, ["SNAS"], "model_search.py", replacements=ADAPTED)
    passes = []
    with golden_environment():
        for temperature in TEMPERATURES:
            model = build(module, temperature, "reparametrization")
            logits = run(model)[0]
            loss = F.cross_entropy(logits, train_labels(SETTINGS["batch"]))
            alphas, samples = model.arch_parameters(), (model.normal_weights, model.reduce_weights)
            densities = [model.logp(a, w) for a, w in zip(alphas, samples, strict=True)]
            fixed = [model.logp(a, w.detach()).sum() for a, w in zip(alphas, samples, strict=True)]
            passes.append(
                {
                    "temperature": temperature,
                    "samples": plain(dict(zip(KINDS, samples, strict=True))),
                    "log_density": plain(dict(zip(KINDS, densities, strict=True))),
                    "log_density_grad": at_alpha(sum(d.sum() for d in densities), model),
                    "log_density_grad_of_a_fixed_sample": at_alpha(sum(fixed), model),
                    "logits": logits.tolist(),
                    "loss": loss.item(),
                    "alpha_grad": at_alpha(loss, model),
                    "resources": estimators(module, temperature),
                }
            )
        shape = tuple(alphas[0].shape)
        weights = [[n, name, list(p.shape)] for n, (name, p) in enumerate(model.named_parameters())]
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_snas.py")
            | {"functions": "SNAS/model_search.py Network._get_categ_mask, logp, forward; sums as in train_search.py"},
            "settings": {**SETTINGS, "image_ordinals": [FIRST_IMAGE_ORDINAL]},
            "alphas": plain(dict(zip(KINDS, alphas, strict=True))),
            "uniform": plain({kind: uniform(number, shape) for number, kind in enumerate(KINDS)}),
            "costs": {
                "rule": "factor * (1 + (7*i + 3*resource + cell) % 11) at flat index i, zero in the free columns",
                "factors": RESOURCES,
                "free_columns": list(FREE),
            },
            "passes": passes,
            "weights": {"columns": ["ordinal", "name", "shape"], "rows": weights},
        }
    return [write(folder, case, content)]
