"""A golden step of yuhuixu1993/PC-DARTS: the CIFAR search network with partial channels and edge normalisation.

The step is the body of the official ``train`` loop of train_search.py at epoch 15, the first that trains the
architecture. Width 8, so that two channels go through an operation: with one alone a pointwise convolution before a
normalisation has no gradient but rounding. What is adapted in memory, and how a step is watched, is as for
quark0/darts, which this code grew from.
"""

import torch
from observe import (
    Criterion,
    Trace,
    around_step,
    batches,
    buffer_table,
    golden_environment,
    plain,
    provenance,
    weight_table,
    write,
)
from official import load
from record_darts import ADAPTED, SETTINGS, no_accuracy, script_arguments, watched_softmax
from rule import FIRST_ARCH_ORDINAL, fill, fill_weights

REPOSITORY = "yuhuixu1993/PC-DARTS"
CASES = ("pc_darts",)
FIRST_TRAINED = 15
PC_SETTINGS = {**SETTINGS, "C": 8, "k": 4, "lr": 0.1, "alpha_lr": 6e-4, "edge_normalisation": True}
KINDS = ("normal", "reduce")


def record(case, checkout, folder):
    """Record the case."""
    script, loaded = load(checkout, ["."], "train_search.py", script_arguments(PC_SETTINGS, False), ADAPTED)
    model_search = loaded["model_search"]
    loaded["utils"].accuracy = no_accuracy
    with golden_environment():
        trace, kept = Trace(), {}
        criterion = Criterion(trace)
        size = (PC_SETTINGS["C"], PC_SETTINGS["classes"], PC_SETTINGS["layers"])
        model = model_search.Network(*size, criterion)
        fill_weights(model.named_parameters())
        for index, values in enumerate(model.arch_parameters()):
            values.data.copy_(fill(FIRST_ARCH_ORDINAL + index, values.shape, "arch"))
        architect = loaded["architect"].Architect(model, script.args)
        optimizer = torch.optim.SGD(
            model.parameters(), script.args.learning_rate, script.args.momentum, weight_decay=script.args.weight_decay
        )

        def arch(read):
            values = [read(p) for p in model.arch_parameters()]
            return {
                "alphas": plain(dict(zip(KINDS, values[:2], strict=True))),
                "betas": plain(dict(zip(KINDS, values[2:], strict=True))),
            }

        before = arch(lambda p: p.detach().clone())
        train_queue, valid_queue = batches(0, PC_SETTINGS["batch"], PC_SETTINGS["image_size"])
        with (
            trace.network(model_search.Network),
            trace.clipping(),
            watched_softmax(model_search, trace),
            around_step(architect.optimizer, lambda: kept.update(arch(lambda p: p.grad.clone()))),
        ):
            script.train(
                train_queue, valid_queue, model, architect, criterion, optimizer, PC_SETTINGS["lr"], FIRST_TRAINED
            )
        after, (clip,) = arch(lambda p: p.detach()), trace.clips
        names = ["valid (alphas)", "train (weights)"]
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_pc_darts.py"),
            "settings": {**PC_SETTINGS, "unrolled": False, "step": 1, "image_ordinals": [2000, 2001]},
            "alphas_before": before["alphas"],
            "betas_before": before["betas"],
            "passes": trace.described_passes(names, names),
            "alpha_grad": kept["alphas"],
            "beta_grad": kept["betas"],
            "alphas_after": after["alphas"],
            "betas_after": after["betas"],
            "clip": {
                "max_norm": clip["max_norm"],
                "total_norm": clip["total_norm"],
                "active": clip["total_norm"] > clip["max_norm"],
            },
            "weights": weight_table(model.named_parameters(), clip["grads"]),
            "buffers": buffer_table(model),
        }
        return [write(folder, case, content)]
