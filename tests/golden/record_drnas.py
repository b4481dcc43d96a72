"""Golden steps of xiangning-chen/DrNAS: the DARTS space (k = 1, 2, kl, pruned) and the NAS-Bench-201 space.

The step is the body of the official ``train`` loops, run on one batch (in the DARTS space at epoch 10, from which on
the official loop trains the alphas).  Random Dirichlet draws are replaced by ``rule.fixed_sample``; the official
backward pass through the draw stays.
"""

import contextlib

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
from rule import FIRST_ARCH_ORDINAL, fill, fill_weights, fixed_sample

REPOSITORY = "xiangning-chen/DrNAS"
COMMON = {
    "classes": 10,
    "batch": 4,
    "image_size": 16,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "alpha_betas": [0.5, 0.999],
    "reg_type": "l2",
    "reg_scale": 1e-3,
}
DARTS = {
    **COMMON,
    "space": "DARTS-space",
    "C": 8,
    "layers": 5,
    "species": "dirichlet",
    "lr": 0.1,
    "alpha_lr": 6e-4,
    "ops": "the order of PRIMITIVES in DARTS-space/genotypes.py",
}
NB201 = {
    **COMMON,
    "space": "201-space",
    "C": 8,
    "N": 1,
    "max_nodes": 4,
    "lr": 0.025,
    "alpha_lr": 3e-4,
    "ops": "the order of NAS_BENCH_201 in 201-space/cell_operations.py",
    "edges": "sorted 'i<-j' names: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2",
}
CASES = {
    "drnas_darts_k1": {**DARTS, "k": 1},
    "drnas_darts_k2": {**DARTS, "k": 2},
    "drnas_darts_kl": {**DARTS, "k": 1, "reg_type": "kl"},
    "drnas_darts_pruned": {**DARTS, "k": 2, "num_keep": 4},
    "drnas_nb201_k1": {**NB201, "species": "dirichlet", "k": 1},
    "drnas_nb201_k4": {**NB201, "species": "dirichlet", "k": 4},
    "darts_nb201": {**NB201, "species": "softmax", "k": 1},
}


def script_arguments(settings):
    """The official command line for our settings."""
    options = {
        "--learning_rate": settings["lr"],
        "--momentum": settings["momentum"],
        "--weight_decay": settings["weight_decay"],
        "--grad_clip": settings["clip"],
        "--arch_learning_rate": settings["alpha_lr"],
        "--reg_type": settings["reg_type"],
        "--reg_scale": settings["reg_scale"],
    }
    return [str(word) for pair in options.items() for word in pair]


class Draws:
    """Replaces the Dirichlet sampler, row by row."""

    def __init__(self):
        self.pass_index = self.row = 0

    def start(self, pass_index):
        """Begin the draws of a forward pass."""
        self.pass_index, self.row = pass_index, 0

    def sample(self, concentration, generator=None):
        """One row of the current pass, in the official order of draws."""
        point = fixed_sample(self.row, concentration.shape[-1], self.pass_index)
        self.row += 1
        return point.reshape(concentration.shape)


@contextlib.contextmanager
def watched_mix(module, trace, network, kinds):
    """See the mixes that ``process_step_matrix`` hands to the official forward passes."""
    official = module.process_step_matrix

    def process_step_matrix(values, *args):
        mix = official(values, *args)
        index = next(i for i, alpha in enumerate(network.arch_parameters()) if alpha is values)
        trace.saw_mix(kinds[index], mix)
        return mix

    with replaced(module, "process_step_matrix", process_step_matrix):
        yield


@contextlib.contextmanager
def watched_regulariser(cls, trace):
    """Keep the value of the kl term of a pass."""
    official = cls._get_kl_reg

    def _get_kl_reg(network):
        value = official(network)
        trace.passes[-1]["extra"] = {"kl_term": value.item()}
        return value

    with replaced(cls, "_get_kl_reg", _get_kl_reg):
        yield


def build(settings, loaded, criterion):
    """The official network with closed-form weights and alphas, its network module, class, and alpha kinds."""
    if settings["space"] == "DARTS-space":
        module = loaded["model_search"]
        cls, kinds = module.Network, ("normal", "reduce")
        model = cls(
            settings["C"],
            settings["classes"],
            settings["layers"],
            criterion,
            k=settings["k"],
            reg_type=settings["reg_type"],
            reg_scale=settings["reg_scale"],
        )
    else:
        module = loaded["search_model"]
        cls, kinds = module.TinyNetwork, ("cell",)
        model = cls(
            C=settings["C"],
            N=settings["N"],
            max_nodes=settings["max_nodes"],
            num_classes=settings["classes"],
            criterion=criterion,
            search_space=loaded["cell_operations"].NAS_BENCH_201,
            k=settings["k"],
            species=settings["species"],
            reg_type=settings["reg_type"],
            reg_scale=settings["reg_scale"],
        )
    fill_weights(ordinary_weights(model))
    for index, alpha in enumerate(model.arch_parameters()):
        alpha.data.copy_(fill(FIRST_ARCH_ORDINAL + index, alpha.shape, "arch"))
    return model, module, cls, kinds


def ordinary_weights(model):
    """Named weights without the architecture parameters, which the NAS-Bench-201 network registers as a parameter."""
    architecture = {id(alpha) for alpha in model.arch_parameters()}
    return [(name, weight) for name, weight in model.named_parameters() if id(weight) not in architecture]


def masks_of(model, kinds):
    """The official pruning masks by kind."""
    masks = (model.mask_normal, model.mask_reduce) if len(kinds) == 2 else (model._mask,)
    return {kind: mask.int().tolist() for kind, mask in zip(kinds, masks, strict=True)}


def norm_of(grads):
    """The joint norm of the gradients that exist."""
    return torch.stack([grad.norm() for grad in grads if grad is not None]).norm().item()


def described_clip(clip, model):
    """The clipping call, with the norm that the alphas have no part in where they were clipped along."""
    row = {
        "max_norm": clip["max_norm"],
        "total_norm": clip["total_norm"],
        "active": clip["total_norm"] > clip["max_norm"],
    }
    arch = {id(alpha) for alpha in model.arch_parameters()} & set(clip["grads"])
    row["includes_alphas"] = bool(arch)
    if arch:
        row["norm_without_alphas"] = norm_of(grad for key, grad in clip["grads"].items() if key not in arch)
        row["norm_of_alphas"] = norm_of(clip["grads"][key] for key in arch)
    return row


def record(case, checkout, folder):
    """Record one case."""
    settings = CASES[case]
    script, loaded = load(checkout, [settings["space"], "."], "train_search.py", script_arguments(settings))
    loaded["utils"].accuracy = no_accuracy
    trace, draws, alpha, content = Trace(), Draws(), {}, {}
    with golden_environment():
        criterion = Criterion(trace)
        model, module, cls, kinds = build(settings, loaded, criterion)

        def by_kind(tensors):
            return plain(dict(zip(kinds, tensors, strict=True)))

        def keep_grad():
            alpha["grad"] = by_kind([a.grad.clone() for a in model.arch_parameters()])

        if "num_keep" in settings:
            content["alphas_before_pruning"] = by_kind(model.arch_parameters())
            model.pruning(settings["num_keep"])
            content["masks"] = masks_of(model, kinds)
        content["alphas_before"] = by_kind(model.arch_parameters())
        weights = model.get_weights() if hasattr(model, "get_weights") else model.parameters()
        architect = loaded["architect"].Architect(model, script.args)
        options = script.args
        optimizer = torch.optim.SGD(weights, options.learning_rate, options.momentum, weight_decay=options.weight_decay)
        train_queue, valid_queue = batches(0, settings["batch"], settings["image_size"])
        with (
            trace.network(cls, draws.start),
            trace.clipping(),
            watched_mix(module, trace, model, kinds),
            watched_regulariser(cls, trace),
            around_step(architect.optimizer, keep_grad),
            replaced(torch, "_sample_dirichlet", draws.sample),
        ):
            script.train(train_queue, valid_queue, model, architect, criterion, optimizer, settings["lr"], 10)
        names = ["valid (alphas)", "train (weights)"]
        (clip,) = trace.clips
        content |= {
            "passes": trace.described_passes(names, names),
            "alpha_grad": alpha["grad"],
            "alphas_after": by_kind(model.arch_parameters()),
            "clip": described_clip(clip, model),
            "weights": weight_table(ordinary_weights(model), clip["grads"]),
            "buffers": buffer_table(model),
        }
    if settings["species"] == "dirichlet":
        content["samples"] = samples_of(content["alphas_before"])
    described = {
        **settings,
        "alpha_weight_decay": settings["reg_scale"] if settings["reg_type"] == "l2" else 0.0,
        "image_ordinals": [2000, 2001],
    }
    head = {
        "provenance": provenance(REPOSITORY, checkout, "tests/golden/record_drnas.py"),
        "settings": described,
    }
    return [write(folder, case, {**head, **content})]


def samples_of(alphas):
    """The draws of both passes, before any mask is applied."""
    passes = []
    for pass_index in range(2):
        row, sample = 0, {}
        for kind, matrix in alphas.items():
            points = [fixed_sample(row + i, len(line), pass_index) for i, line in enumerate(matrix)]
            row += len(matrix)
            sample[kind] = torch.stack(points).tolist()
        passes.append(sample)
    return passes
