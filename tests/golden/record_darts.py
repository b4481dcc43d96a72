"""Golden steps of quark0/darts: the CIFAR search network, first and second order.

The step is the body of the official ``train`` loop of cnn/train_search.py, run on one batch.  That script is not valid
Python any more (``async`` as a keyword argument) and reads losses by ``.data[0]``; both are adapted in memory.
"""

import contextlib
import types

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
from rule import FIRST_ARCH_ORDINAL, fill, fill_weights

REPOSITORY = "quark0/darts"
CASES = ("darts_first_order", "darts_second_order")
SETTINGS = {
    "C": 4,
    "layers": 5,
    "classes": 10,
    "batch": 4,
    "image_size": 16,
    "lr": 0.025,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "alpha_lr": 3e-4,
    "alpha_betas": [0.5, 0.999],
    "alpha_weight_decay": 1e-3,
    "ops": "the order of PRIMITIVES in cnn/genotypes.py",
}
ADAPTED = (("async=True", "non_blocking=True"), (".data[0]", ".data"))


def script_arguments(settings, unrolled):
    """The official command line for our settings."""
    options = {
        "--learning_rate": settings["lr"],
        "--momentum": settings["momentum"],
        "--weight_decay": settings["weight_decay"],
        "--grad_clip": settings["clip"],
        "--arch_learning_rate": settings["alpha_lr"],
        "--arch_weight_decay": settings["alpha_weight_decay"],
    }
    words = [str(word) for pair in options.items() for word in pair]
    return words + (["--unrolled"] if unrolled else [])


def no_accuracy(output, target, topk):
    """Stands for the official accuracy, which is only logged and does not run under a newer PyTorch."""
    return [torch.zeros(()) for _ in topk]


@contextlib.contextmanager
def watched_softmax(model_search, trace):
    """See the mixes that the official forward passes compute by ``F.softmax``; of one axis are softmaxes over edges."""
    functional = types.SimpleNamespace(**vars(model_search.F))

    def softmax(values, **options):
        mix = torch.nn.functional.softmax(values, **options)
        if trace.inside is not None and values.dim() == 2:
            network = trace.inside["module"]
            trace.saw_mix("normal" if values is network.alphas_normal else "reduce", mix)
        return mix

    functional.softmax = softmax
    with replaced(model_search, "F", functional):
        yield


@contextlib.contextmanager
def watched_second_order(architect_module, architect, notes):
    """Keep the parts of the official second-order gradient."""
    concat = architect_module._concat
    compute, product = architect._compute_unrolled_model, architect._hessian_vector_product

    def _concat(tensors):
        joined = concat(tensors)
        notes.setdefault("norms", []).append(joined.norm().item())
        return joined

    def _compute_unrolled_model(*args):
        notes["unrolled"] = compute(*args)
        return notes["unrolled"]

    def _hessian_vector_product(vector, *args):
        notes["vector_norm"] = torch.cat([v.reshape(-1) for v in vector]).norm().item()
        notes["dalpha"] = [v.grad.clone() for v in notes["unrolled"].arch_parameters()]
        notes["implicit"] = product(vector, *args)
        return notes["implicit"]

    architect._compute_unrolled_model = _compute_unrolled_model
    architect._hessian_vector_product = _hessian_vector_product
    try:
        with replaced(architect_module, "_concat", _concat):
            yield
    finally:
        del architect._compute_unrolled_model, architect._hessian_vector_product


def described_second_order(notes):
    """The parts of a second-order gradient as plain values."""
    norms = notes["norms"]
    # One step joins theta, the momentum buffers where there are any, the gradient, and the finite-difference vector.
    momentum = norms[1] if len(norms) == 4 else 0.0
    kinds = ("normal", "reduce")
    unrolled = torch.cat([weight.detach().reshape(-1) for weight in notes["unrolled"].parameters()])
    return {
        "r": 0.01,
        "theta_norm": norms[0],
        "momentum_buffer_norm": momentum,
        "train_grad_norm": norms[-2],
        "vector_norm": notes["vector_norm"],
        "unrolled_theta_norm": unrolled.norm().item(),
        "first_term": plain(dict(zip(kinds, notes["dalpha"], strict=True))),
        "implicit_term": plain(dict(zip(kinds, notes["implicit"], strict=True))),
    }


def record(case, checkout, folder):
    """Record one case; a second-order case takes two steps and writes a file for each."""
    unrolled = case == "darts_second_order"
    settings = {**SETTINGS, "unrolled": unrolled}
    script, loaded = load(checkout, ["cnn"], "train_search.py", script_arguments(settings, unrolled), ADAPTED)
    model_search, architect_module = loaded["model_search"], loaded["architect"]
    loaded["utils"].accuracy = no_accuracy
    with golden_environment():
        criterion = Criterion(None)
        model = model_search.Network(settings["C"], settings["classes"], settings["layers"], criterion)
        fill_weights(model.named_parameters())
        for index, alpha in enumerate(model.arch_parameters()):
            alpha.data.copy_(fill(FIRST_ARCH_ORDINAL + index, alpha.shape, "arch"))
        architect = architect_module.Architect(model, script.args)
        optimizer = torch.optim.SGD(
            model.parameters(), script.args.learning_rate, script.args.momentum, weight_decay=script.args.weight_decay
        )
        files = []
        for step in range(2 if unrolled else 1):
            content = one_step(script, model_search, architect_module, architect, criterion, optimizer, settings, step)
            name = case if step == 0 else f"{case}_step{step + 1}"
            head = {"provenance": provenance(REPOSITORY, checkout, "tests/golden/record_darts.py")}
            files.append(write(folder, name, {**head, **content}))
    return files


def one_step(script, model_search, architect_module, architect, criterion, optimizer, settings, step):
    """Run one official step and describe it."""
    trace, notes, alpha = Trace(), {}, {}
    model = architect.model
    criterion.trace = [trace]
    kinds = ("normal", "reduce")

    def alphas():
        return plain(dict(zip(kinds, model.arch_parameters(), strict=True)))

    def keep_grad():
        alpha["grad"] = plain({k: a.grad for k, a in zip(kinds, model.arch_parameters(), strict=True)})

    before = alphas()
    train_queue, valid_queue = batches(step, settings["batch"], settings["image_size"])
    with (
        trace.network(model_search.Network),
        trace.clipping(),
        watched_softmax(model_search, trace),
        watched_second_order(architect_module, architect, notes),
        around_step(architect.optimizer, keep_grad),
    ):
        script.train(train_queue, valid_queue, model, architect, criterion, optimizer, settings["lr"])
    if settings["unrolled"]:
        names = ["train (for the unrolled weights)", "valid (unrolled)", "train (w+)", "train (w-)", "train (weights)"]
        with_grad = names[1::3]
    else:
        names = with_grad = ["valid (alphas)", "train (weights)"]
    (clip,) = trace.clips
    content = {
        "settings": {**settings, "step": step + 1, "image_ordinals": [2000 + 2 * step, 2001 + 2 * step]},
        "alphas_before": before,
        "passes": trace.described_passes(names, with_grad),
    }
    if settings["unrolled"]:
        content["second_order"] = described_second_order(notes)
    return content | {
        "alpha_grad": alpha["grad"],
        "alphas_after": alphas(),
        "clip": {
            "max_norm": clip["max_norm"],
            "total_norm": clip["total_norm"],
            "active": clip["total_norm"] > clip["max_norm"],
        },
        "weights": weight_table(model.named_parameters(), clip["grads"]),
        "buffers": buffer_table(model),
    }
