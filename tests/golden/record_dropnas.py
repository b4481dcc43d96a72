"""Golden iterations of wiljohnhong/DropNAS: two iterations of the official ``train`` of search.py.

An iteration is a step on the loss, a step on the decay of what the loss pass used, and the adjustment of the alphas.
The masks come from Python's ``random``, seeded before each iteration; they are recorded as well.
"""

import contextlib
import random

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
from official import load, replaced
from record_darts import no_accuracy
from rule import FIRST_ARCH_ORDINAL, fill, fill_weights

REPOSITORY = "wiljohnhong/DropNAS"
CASES = ("dropnas",)
SETTINGS = {
    "C": 4,
    "n_layers": 5,
    "classes": 10,
    "batch": 4,
    "image_size": 16,
    "lr": 0.0375,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip": 3.0,
    "alpha_lr": 3e-4,
    "alpha_betas": [0.5, 0.999],
    "alpha_weight_decay": 1e-3,
    "drop_rate": 0.05,
    "drop_probability_of_an_op": 0.05 ** (1 / 4),
    "groups": "ops 0-3 (parameterised) and 4-7; a group is never dropped whole",
    "ops": "the order of PRIMITIVES in genotypes.py",
    "alphas": "the matrices of the nodes of one cell kind, joined along the rows",
}
SEEDS = (1, 2)


def script_arguments(settings):
    """The official command line for our settings."""
    options = {
        "--name": "golden",
        "--dataset": "cifar10",
        "--w_lr": settings["lr"],
        "--w_momentum": settings["momentum"],
        "--w_weight_decay": settings["weight_decay"],
        "--w_grad_clip": settings["clip"],
        "--alpha_lr": settings["alpha_lr"],
        "--alpha_weight_decay": settings["alpha_weight_decay"],
        "--drop_rate": settings["drop_rate"],
        "--gpus": "0",
    }
    return [str(word) for pair in options.items() for word in pair]


def kinds_of(model):
    """The alpha lists by kind."""
    return {"normal": model.alpha_normal, "reduce": model.alpha_reduce}


@contextlib.contextmanager
def watched_model(cls, trace, decay):
    """See the mixes of the official forward pass and the decay terms."""
    generate = cls.generate_weights
    decays = {name: getattr(cls, name) for name in ("weight_decay_loss", "alpha_decay_loss")}

    def generate_weights(model, alphas, masks):
        weights, ratios = generate(model, alphas, masks)
        for weight, mask in zip(weights, masks, strict=True):
            trace.saw_mix("normal" if alphas is model.alpha_normal else "reduce", weight)
            trace.inside.setdefault("masks", []).append(mask)
        return weights, ratios

    def watched(name):
        def term(model, rate):
            value = decays[name](model, rate)
            decay[name] = float(value)
            return value

        return term

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(cls, "generate_weights", generate_weights))
        for name in decays:
            stack.enter_context(replaced(cls, name, watched(name)))
        yield


def record(case, checkout, folder):
    """Record both iterations, one file each."""
    script, loaded = load(checkout, ["."], "search.py", script_arguments(SETTINGS))
    script.device = torch.device("cpu")
    loaded["utils"].accuracy = no_accuracy
    cls = loaded["models.search_cnn"].SearchCNNController
    files = []
    with golden_environment():
        criterion = Criterion(None)
        sizes = (SETTINGS["image_size"], 3, SETTINGS["C"], SETTINGS["classes"], SETTINGS["n_layers"])
        model = cls(*sizes, criterion, device_ids=[0])
        fill_weights(ordinary_weights(model))
        for index, matrices in enumerate(kinds_of(model).values()):
            rows = [len(matrix) for matrix in matrices]
            joined = fill(FIRST_ARCH_ORDINAL + index, (sum(rows), matrices[0].shape[1]), "arch")
            for matrix, part in zip(matrices, joined.split(rows), strict=True):
                matrix.data.copy_(part)
        config = script.config
        w_optim = torch.optim.SGD(model.weights(), config.w_lr, momentum=config.w_momentum, weight_decay=0.0)
        alpha_optim = torch.optim.Adam(model.alphas(), config.alpha_lr, betas=(0.5, 0.999), weight_decay=0.0)
        for step, seed in enumerate(SEEDS):
            content = one_iteration(script, cls, model, criterion, w_optim, alpha_optim, step, seed)
            head = {"provenance": provenance(REPOSITORY, checkout, "tests/golden/record_dropnas.py")}
            name = case if step == 0 else f"{case}_step{step + 1}"
            files.append(write(folder, name, {**head, **content}))
    return files


def ordinary_weights(model):
    """Named weights without the alphas, under their full names."""
    return [(name, weight) for name, weight in model.named_parameters() if name.startswith("net.")]


def one_iteration(script, cls, model, criterion, w_optim, alpha_optim, step, seed):
    """Run one official iteration and describe it."""
    trace, decay, alpha_grads, alpha_stages = Trace(), {}, [], []
    criterion.trace = [trace]
    before = plain(kinds_of(model))

    def keep_grad():
        alpha_grads.append(plain({kind: [a.grad for a in matrices] for kind, matrices in kinds_of(model).items()}))

    def keep_alphas():
        alpha_stages.append(plain(kinds_of(model)))

    random.seed(seed)
    train_queue, _ = batches(step, SETTINGS["batch"], SETTINGS["image_size"])
    with (
        trace.network(cls),
        trace.clipping(),
        watched_model(cls, trace, decay),
        around_step(alpha_optim, keep_grad, keep_alphas),
    ):
        script.train(train_queue, model, w_optim, alpha_optim, SETTINGS["lr"], 0, SETTINGS["drop_rate"])
    loss_clip, decay_clip = trace.clips
    decayed = {key: int(grad is not None and bool(grad.any())) for key, grad in decay_clip["grads"].items()}
    return {
        "settings": {**SETTINGS, "step": step + 1, "seed": seed, "image_ordinals": [2000 + 2 * step]},
        "alphas_before": before,
        "passes": [described_pass(trace)],
        "decay_terms": {"weights": decay["weight_decay_loss"], "alphas": decay["alpha_decay_loss"]},
        "alpha_grad": alpha_grads[0],
        "alphas_after_loss_step": alpha_stages[0],
        "alpha_grad_of_decay": alpha_grads[1],
        "alphas_after_decay_step": alpha_stages[1],
        "alphas_after": plain(kinds_of(model)),
        "clip": described_clip(loss_clip),
        "clip_of_decay": described_clip(decay_clip),
        "weights": weight_table(
            ordinary_weights(model), loss_clip["grads"], ("decayed", lambda weight: decayed[id(weight)])
        ),
        "buffers": buffer_table(model),
    }


def described_pass(trace):
    """The one forward pass: a mix is written as the network uses it, zero where an op is dropped."""
    (seen,) = trace.passes
    masks = dict(zip(seen["mix"], split_by_kind(seen), strict=True))
    mix, grad, mask = {}, {}, {}
    for kind, nodes in seen["mix"].items():
        mask[kind] = torch.cat(masks[kind])
        mix[kind] = (torch.cat(nodes) * mask[kind]).tolist()
        grad[kind] = torch.cat([node.grad for node in nodes]).tolist()
    return {
        "name": "train (alphas and weights)",
        "loss": seen["loss"],
        "logits": seen["logits"].tolist(),
        "mask": {kind: m.int().tolist() for kind, m in mask.items()},
        "mix": mix,
        "mix_grad": grad,
    }


def split_by_kind(seen):
    """The masks of the pass, in the order of its mixes."""
    masks = iter(seen["masks"])
    return [[next(masks) for _ in nodes] for nodes in seen["mix"].values()]


def described_clip(clip):
    """One clipping call as plain values."""
    total, limit = clip["total_norm"], clip["max_norm"]
    return {"max_norm": limit, "total_norm": total, "active": total > limit}
