"""Golden architecture steps of Sunshine-Ye/Beta-DARTS, on NAS-Bench-201: the value, the strength and the gradient of its
term, and whole steps of its architect at several epochs, each from the same start.

The weight step is DARTS's, which ``darts_nb201`` records. The code for the DARTS space cannot take an architecture step:
its script calls the architect without the epoch, and the loss gets the list of both cells' matrices.
"""

from types import SimpleNamespace

import torch
from observe import Criterion, Trace, around_step, batches, buffer_table, golden_environment, plain, provenance, write
from observe import weight_table as table_of
from official import load, replaced
from record_drnas import NB201, ordinary_weights
from rule import FIRST_ARCH_ORDINAL, fill, fill_weights

REPOSITORY = "Sunshine-Ye/Beta-DARTS"
CASES = ("beta_darts_nb201",)
EPOCHS = (0, 1, 20, 99)
"""Of the 100 that the code counts on: nothing of the term, a little, more, all."""
SETTINGS = {key: NB201[key] for key in ("C", "N", "max_nodes", "classes", "batch", "image_size", "alpha_lr")}
SETTINGS |= {"space": "201-space", "alpha_betas": [0.5, 0.999], "alpha_weight_decay": 1e-3, "epochs": 100}


def record(case, checkout, folder):
    """Record the case: a step from the same start for each epoch."""
    module, _ = load(checkout, ["nasbench201", "."], "model.py")
    architects, _ = load(checkout, ["optimizers/darts", "."], "architect.py")
    arguments = SimpleNamespace(
        momentum=0.9,
        weight_decay=3e-4,
        arch_learning_rate=SETTINGS["alpha_lr"],
        arch_weight_decay=SETTINGS["alpha_weight_decay"],
    )
    steps = []
    with golden_environment():
        for epoch in EPOCHS:
            trace = Trace()
            model = module.Network(
                SETTINGS["C"], SETTINGS["N"], SETTINGS["max_nodes"], SETTINGS["classes"], Criterion(trace)
            )
            fill_weights(ordinary_weights(model))
            (alpha,) = model.arch_parameters()
            alpha.data.copy_(fill(FIRST_ARCH_ORDINAL, alpha.shape, "arch"))
            before = plain({"cell": alpha.clone()})
            architect = architects.Architect(model, arguments)
            kept, official = {}, architects.Architect.mlc_loss

            def term(self, given, kept=kept, official=official):
                value = official(self, given)
                (gradient,) = torch.autograd.grad(value, given, retain_graph=True)
                kept.update(term=value.item(), term_grad=plain({"cell": gradient}))
                return value

            def keep(alpha=alpha, kept=kept):
                kept["alpha_grad"] = plain({"cell": alpha.grad.clone()})

            train, valid = batches(0, SETTINGS["batch"], SETTINGS["image_size"])
            with (
                trace.network(module.Network),
                replaced(architects.Architect, "mlc_loss", term),
                around_step(architect.optimizer, keep),
            ):
                architect.step(*train[0], *valid[0], 0.025, None, epoch, unrolled=False)
            (only,) = trace.passes
            steps.append(
                {
                    "epoch": epoch,
                    "loss": only["loss"],
                    "logits": only["logits"].tolist(),
                    **kept,
                    "alphas_after": plain({"cell": alpha}),
                }
            )
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_beta_darts.py")
            | {"functions": "nasbench201/model.py Network; optimizers/darts/architect.py Architect.step, mlc_loss"},
            "settings": {**SETTINGS, "image_ordinals": [2000, 2001]},
            "alphas_before": before,
            "steps": steps,
            "weights": table_of(ordinary_weights(model)),
            "buffers": buffer_table(model),
        }
    return [write(folder, case, content)]
