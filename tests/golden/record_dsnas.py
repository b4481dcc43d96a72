"""Golden passes of DSNAS in SNAS-Series/SNAS-Series: the ShuffleNet supernet, two given paths, the credit of each block.

The official forward pass does all of it: the loss, the backward pass, the scaling of the gradient at alpha by the
credits, and, where the path is heavy enough, the FLOPs term. Its random path is replaced by a given one. Its last
pooling is 7x7, for images of 224 pixels; for ours of 64 it is replaced by 2x2, as wide as the map. One process: the
world size by which the code divides is 1.
"""

from types import SimpleNamespace
from unittest import mock

import torch
from observe import digest, golden_environment, plain, provenance, rounded, write
from official import load
from rule import FIRST_ARCH_ORDINAL, FIRST_IMAGE_ORDINAL, fill, fill_weights, images, train_labels
from torch import nn

REPOSITORY = "SNAS-Series/SNAS-Series"
CASES = ("dsnas_shufflenet",)
SETTINGS = {
    "classes": 10,
    "batch": 4,
    "image_size": 64,
    "bn_eps": 1e-2,
    "smoothing": 0.1,
    "flops_loss_coef": 1e-6,
    "flops_threshold": 290,
    "blocks": "shuffle 3x3, shuffle 5x5, shuffle 7x7, xception",
    "stage_repeats": [4, 4, 8, 4],
}
PATHS = {
    "light": [(3 * d + d // 4) % 3 for d in range(20)],
    "heavy": [(2 * d + 3 * (d // 3) + 3) % 4 for d in range(20)],
}
"""Columns of the blocks of a path; the FLOPs term is on for the heavy one."""
ADAPTED = (('torch.device("cuda")', 'torch.device("cpu")'),)
ROUNDING = 1e-12
"""Gradients this much smaller than the largest are nothing but rounding (a shift before a convolution and a
normalisation has none) and are not recorded."""
ARGUMENTS = {
    "bn_affine": True,
    "bn_eps": SETTINGS["bn_eps"],
    "loc_mean": 1.0,
    "loc_std": 0.01,
    "early_fix_arch": False,
    "gen_max_child_flag": False,
    "random_sample": False,
    "world_size": 1,
    "use_dropout": False,
    "SinglePath": True,
    "flops_loss_coef": SETTINGS["flops_loss_coef"],
}
"""Those of the official README, without dropout."""


def ordinary_weights(model):
    """Named weights without alpha."""
    return [(name, weight) for name, weight in model.named_parameters() if weight is not model.log_alpha]


def build(module, flops):
    """The official network with closed-form weights and alpha."""
    arguments = SimpleNamespace(**ARGUMENTS, flops_loss=flops)
    model = module.ShuffleNetV2_OneShot(
        n_class=SETTINGS["classes"], args=arguments, architecture=20 * [0], channels_scales=20 * [1.0]
    )
    fill_weights(ordinary_weights(model))
    model.log_alpha.data.copy_(fill(FIRST_ARCH_ORDINAL, model.log_alpha.shape, "arch"))
    model.log_alpha.grad = torch.zeros_like(model.log_alpha)
    model.globalpool = nn.AvgPool2d(SETTINGS["image_size"] // 32)
    return model.train()


def run(module, criterion, path, flops):
    """The network after an official pass, the logits, the loss."""
    model = build(module, flops)
    one_hot = torch.zeros_like(model.log_alpha.detach()).scatter_(1, torch.tensor(path)[:, None], 1)
    x = images(FIRST_IMAGE_ORDINAL, SETTINGS["batch"], SETTINGS["image_size"])
    with mock.patch.object(model, "_get_weights", return_value=one_hot):
        logits, loss, log_prob = model(x, train_labels(SETTINGS["batch"]), criterion)
    return model, logits, loss, log_prob


def record(case, checkout, folder):
    """Record the case."""
    module, _ = load(checkout, ["DSNAS"], "network.py", replacements=ADAPTED)
    losses, _ = load(checkout, ["DSNAS/devkit/core"], "criterions.py", replacements=((" .misc ", " misc "),))
    passes = []
    with golden_environment():
        even = torch.full((SETTINGS["classes"],), 1 / SETTINGS["classes"])
        criterion = losses.CrossEntropyLoss(smooth_eps=SETTINGS["smoothing"], smooth_dist=even)
        for name, path in PATHS.items():
            model, logits, loss, log_prob = run(module, criterion, path, flops=False)
            alpha = model.log_alpha
            with_flops, *_ = run(module, criterion, path, flops=True)
            only_flops, *_ = run(module, lambda x, target: 0 * x.sum(), path, flops=True)
            largest = max(p.grad.norm() for _, p in ordinary_weights(model) if p.grad is not None)
            flops = with_flops.flops[torch.arange(20), torch.tensor(path)]
            passes.append(
                {
                    "name": name,
                    "path": path,
                    "probabilities": plain({"blocks": model.cate_prob}),
                    "log_prob": log_prob.item(),
                    "logits": logits.tolist(),
                    "loss": loss.item(),
                    "credits": model.block_reward.tolist(),
                    "alpha_grad": plain({"blocks": alpha.grad}),
                    "mflops": flops.sum().item(),
                    "alpha_grad_with_flops": plain({"blocks": with_flops.log_alpha.grad}),
                    "alpha_grad_of_flops": plain({"blocks": only_flops.log_alpha.grad}),
                    "weights": {
                        "columns": ["ordinal", "name", "shape", "grad"],
                        "rows": [
                            [n, w, list(p.shape), digest(p.grad) if p.grad.norm() > ROUNDING * largest else None]
                            for n, (w, p) in enumerate(ordinary_weights(model))
                            if p.grad is not None
                        ],
                    },
                    "buffers": {
                        "columns": ["batch norm", "running_mean [sum, norm]", "running_var [sum, norm]"],
                        "rows": [
                            [
                                n,
                                *([rounded(s.sum()), rounded(s.norm())] for s in (norm.running_mean, norm.running_var)),
                            ]
                            for n, norm in model.named_modules()
                            if isinstance(norm, nn.BatchNorm2d) and norm.num_batches_tracked
                        ],
                    },
                }
            )
        content = {
            "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_dsnas.py")
            | {
                "functions": "DSNAS/network.py ShuffleNetV2_OneShot.forward, blocks.py; devkit/core/criterions.py",
                "digest": "[sum, norm, entry at 0, entry at n//2, entry at n-1]",
            },
            "settings": {**SETTINGS, "image_ordinals": [FIRST_IMAGE_ORDINAL]},
            "alphas": plain({"blocks": alpha}),
            "flops": with_flops.flops.tolist(),
            "passes": passes,
        }
    return [write(folder, case, content)]
