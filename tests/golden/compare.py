"""Running our engine on what a golden file records, and the law by which the two are compared.

Everything that is watched is passed on unchanged: the wrappers call what they wrap with the same numbers and keep a
copy.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch
from rule import fill, images, kind_of, train_labels, valid_labels
from torch import Tensor, nn

from gapless.core.decision import Arch
from gapless.core.method import Method
from gapless.core.plan import Train
from gapless.core.progress import Progress
from gapless.core.space import Space
from gapless.engine.search import Search
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS
from gapless.methods.dropnas import DropNAS
from gapless.methods.pc_darts import PCDARTS
from gapless.spaces.darts import CELLS, Darts
from gapless.spaces.nasbench201 import OPTIONS as NB201_OPTIONS
from gapless.spaces.nasbench201 import NASBench201

LAW = 1e-9
"""Ours agree with the official numbers to this share of the largest entry of what is compared."""


def golden(case: str) -> dict:
    """Return the record of a case."""
    return json.loads((Path(__file__).parent / f"{case}.json").read_text(encoding="utf-8"))


def agree(ours, official, what: str) -> None:
    """Assert that every entry agrees to ``LAW`` of the largest official entry."""
    ours, official = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (ours, official))
    assert ours.shape == official.shape, f"{what}: {tuple(ours.shape)} is not {tuple(official.shape)}"
    off, scale = (ours - official).abs().max().item(), official.abs().max().item()
    assert off <= LAW * scale, f"{what}: {off:.3e} apart where the largest entry is {scale:.3e}"


def digest(tensor: Tensor) -> Tensor:
    """Return what the goldens keep of a tensor: sum, norm, entries at 0, n // 2, n - 1."""
    flat = tensor.detach().reshape(-1)
    return torch.stack([flat.sum(), flat.norm(), flat[0], flat[flat.numel() // 2], flat[-1]])


def rows(matrices: dict) -> Tensor:
    """Join matrices by kind into our [D, O]: normal rows, then those of the reduction cell."""
    return torch.cat([torch.tensor(m, dtype=torch.float64) for m in matrices.values()])


# ---------------------------------------------------------------------- names

REDUCTION = {"conv_1": "1.first", "conv_2": "1.second", "conv1": "1.first", "conv2": "1.second", "bn": "2"}
DARTS_MACRO = {"stem.0": "stem.conv", "stem.1": "stem.norm", "stem0": "stem.first", "stem1": "stem.second"}
DARTS_MACRO |= {"linear": "classifier", "classifier": "classifier", "auxiliary_head": "auxiliary"}
NB201_BLOCK = {"conv_a": "first", "conv_b": "second", "downsample": "shortcut"}


def layer(path: str, option: str = "") -> str:
    """Translate the path of a layer inside an official operation, weight or statistic, into ours."""
    found = re.fullmatch(r"(.+?)((?:\.(?:weight|bias))?)", path)
    words = [w for w in found[1].split(".") if w not in ("op", "net")]
    if "pool" in option:
        where = "1"
    elif words[0] in REDUCTION:
        where = REDUCTION[words[0]]
    elif len(words) == 2:  # DropNAS nests the halves of a separable convolution
        where = str(4 * int(words[0]) + int(words[1]))
    else:
        where = words[0]
    return where + found[2]


def darts_name(name: str, space: Darts, genotype: dict | None = None) -> str:
    """Translate a name of the official DARTS-space networks; ``genotype`` (kind -> pairs) stands for a network of its
    own."""
    name = name.removeprefix("net.")
    found = re.fullmatch(r"cells\.(\d+)\.(\w+)\.(.+)", name)
    if found is None:
        start = max((m for m in DARTS_MACRO if name.startswith(m)), key=len)
        return DARTS_MACRO[start] + name[len(start) :]
    cell, part, rest = found.groups()
    if part.startswith("preproc"):
        return f"cells.{cell}.preprocess{part[-1]}.{layer(rest)}"
    kind = "reduce" if int(cell) in space.reductions else "normal"
    first, rest = rest.split(".", 1)
    if genotype is not None:
        option, source = genotype[kind][int(first)]
        key = f"{2 + int(first) // 2}<-{source}"
    elif part == "dag":
        source, rest = rest.split(".", 1)
        key = f"{2 + int(first)}<-{source}"
    else:
        key = CELLS[kind].edges[int(first)].key
    if genotype is None:
        column, rest = re.fullmatch(r"_ops\.(\d+)\.(.+)", rest).groups()
        option = space.decisions[0].options[int(column)]
    return f"cells.{cell}.body.edges.{key}.{option}.{layer(rest, option)}"


def nb201_name(name: str) -> str:
    """Translate a name of the official NAS-Bench-201 search network."""
    found = re.fullmatch(r"cells\.(\d+)\.(\w+)\.(.+)", name)
    if found is None:
        return name.replace("lastact", "last")
    block, part, rest = found.groups()
    if part != "edges":
        return f"blocks.{block}.{NB201_BLOCK[part]}.{layer(rest)}"
    key, column, rest = rest.split(".", 2)
    return f"blocks.{block}.edges.{key}.{NB201_OPTIONS[int(column)]}.{layer(rest)}"


def our_name(name: str, space: Space, genotype: dict | None = None) -> str:
    """Translate an official name into the name inside ``supernet.network`` or ``space.network(arch)``."""
    return nb201_name(name) if isinstance(space, NASBench201) else darts_name(name, space, genotype)


def pairs_of(text: str) -> dict:
    """Return kind -> [(operation, source)] of a flat genotype text, in its own order."""
    normal, reduce = text.split("reduce=")
    return {kind: re.findall(r"\('(\w+)', (\d)\)", part) for kind, part in (("normal", normal), ("reduce", reduce))}


def set_weights(network: nn.Module, record: dict, space: Space, genotype: dict | None = None) -> None:
    """Give every weight the value that the rule gives the official one; neither side may have a weight that the other
    lacks."""
    weights = dict(network.named_parameters())
    names = [our_name(row[1], space, genotype) for row in record["weights"]["rows"]]
    assert sorted(names) == sorted(weights)
    with torch.no_grad():
        for name, (ordinal, official, shape, *_) in zip(names, record["weights"]["rows"], strict=True):
            assert list(weights[name].shape) == shape, name
            weights[name].copy_(fill(ordinal, shape, kind_of(official, shape)))


def check_buffers(buffers: dict, table: dict, space: Space, genotype: dict | None = None) -> None:
    """Compare the running statistics of every normalisation, given ours by name."""
    found = {our_name(name, space, genotype): statistics for name, *statistics in table["rows"]}
    assert sorted(found) == sorted(
        name.removesuffix(".running_var") for name in buffers if name.endswith(".running_var")
    )
    agree_on_statistics(buffers, found)


def check_statistics(buffers: dict, rows: list, translate: Callable[[str], str]) -> None:
    """Compare the running statistics of every normalisation that ran; neither side may have one that rested in the
    other. A mean that is nothing but rounding in the record is so in ours."""
    found = {translate(name): statistics for name, *statistics in rows}
    ran = {name.removesuffix(".num_batches_tracked") for name, b in buffers.items() if b.dim() == 0 and int(b)}
    assert sorted(found) == sorted(ran)
    agree_on_statistics(buffers, found)


def agree_on_statistics(buffers: dict, found: dict[str, list]) -> None:
    """Assert that running means and variances agree with the official ones, given by our names."""
    largest = max(float(buffers[f"{name}.running_mean"].norm()) for name in found)
    for name, statistics in found.items():
        for kind, official in zip(("running_mean", "running_var"), statistics, strict=True):
            ours = buffers[f"{name}.{kind}"]
            if official is None:
                assert float(ours.norm()) <= LAW * largest, f"{kind} of {name}"
            else:
                agree([ours.sum(), ours.norm()], official, f"{kind} of {name}")


# ---------------------------------------------------------------------- running


class Stored:
    """Images that a search is made with; the steps bring batches of their own."""

    def __init__(self, count: int = 8) -> None:
        self.labels = torch.zeros(count, dtype=torch.long)
        self.train = self.test = self

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Stored":
        return self


@dataclass
class Pass:
    """A forward pass: its mix, the norm of all weights, logits, loss, and the gradient that arrived at the mix, where
    one was asked for."""

    mix: Tensor
    weight_norm: float = 0.0
    logits: Tensor | None = None
    loss: float = 0.0
    gradient: Tensor | None = None


@dataclass
class Clip:
    """A clipping call: the norm that it found, and the gradients that it was given, by name."""

    total: float
    gradients: dict[str, Tensor]


@dataclass
class ArchStep:
    """A step of the architecture's Adam: our gradient at alpha without decay, the one that Adam was given, and alpha
    after it; our gradients at all parameters by name."""

    ours: Tensor
    given: Tensor
    alpha: Tensor
    gradients: dict[str, Tensor]


@dataclass(repr=False)
class Step:
    """All that a step showed, and where it left the network. It is large: a failing test must not spell it out."""

    record: dict
    search: Search
    alpha_before: Tensor
    passes: list[Pass] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    arch_steps: list[ArchStep] = field(default_factory=list)
    alpha: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    momentum: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)

    @property
    def settings(self) -> dict:
        """The settings of the record."""
        return self.record["settings"]

    def ours(self, official: str) -> str:
        """Translate a name."""
        return our_name(official, self.search.space)


def space_for(settings: dict) -> Space:
    """Return our space at the recorded size."""
    size = {
        "classes": settings["classes"],
        "size": settings["image_size"],
        "width": settings["C"],
        "partial": settings.get("k", 1),
    }
    if settings.get("space") == "201-space":
        return NASBench201(cells=settings["N"], **size)
    options = "original" if "drop_rate" in settings else "drnas" if "species" in settings else "darts"
    return Darts(cells=settings.get("layers", settings.get("n_layers")), options=options, **size)


def method_for(settings: dict, space: Space) -> Method:
    """Return our method in its faithful form with the recorded settings."""
    lr, decay = settings["alpha_lr"], settings["alpha_weight_decay"]
    if "drop_rate" in settings:
        rate = settings["drop_rate"]
        return DropNAS(space, rate_weights=rate, rate_free=rate, arch_lr=lr, arch_decay=decay, faithful=True)
    if settings.get("species") == "dirichlet":
        return DrNAS(space, regulariser=settings["reg_type"], anchor=settings["reg_scale"], arch_lr=lr, faithful=True)
    if settings.get("edge_normalisation"):
        return PCDARTS(space, warmup_share=0.0, arch_lr=lr, arch_decay=decay)
    return DARTS(space, unrolled=settings.get("unrolled", False), faithful=True, arch_lr=lr, arch_decay=decay)


def search_for(record: dict) -> Search:
    """Return a search that stands where the recorded case began."""
    s = record["settings"]
    space = space_for(s)
    method = method_for(s, space)
    train = Train(
        epochs=1, batch=s["batch"], lr=s["lr"], momentum=s["momentum"], weight_decay=s["weight_decay"], clip=s["clip"]
    )
    search = Search(space, method, Stored(), train, precision="float64")
    set_weights(search.supernet.network, record, space)
    with torch.no_grad():
        method.alpha.copy_(rows(record["alphas_before"]))
        if isinstance(method, PCDARTS):
            method.beta.copy_(rows(record["betas_before"]))
    search.supernet.train()
    return search


def batches(settings: dict) -> tuple:
    """Return the recorded batches: of the weights, and of the architecture where it has its own."""
    count, size = settings["batch"], settings["image_size"]
    first, *second = settings["image_ordinals"]
    own = (images(second[0], count, size), valid_labels(count)) if second else None
    return (images(first, count, size), train_labels(count)), own


def take(search: Search, record: dict, *, step: int = 0, amend: Callable[[Step], Tensor] | None = None) -> Step:
    """Take one full step of our engine on the recorded batches, and tell what happened.

    ``amend`` computes the gradient that Adam is given in place of ours, from what the step has shown so far.
    """
    method = search.method
    seen = Step(record, search, method.alpha.detach().clone())
    names = {id(p): name for name, p in search.supernet.network.named_parameters()}
    names |= {id(p): name for name, p in method.named_parameters()}
    real_loss, real_adam, real_clip = search.loss, search.updater.arch_optimiser.step, nn.utils.clip_grad_norm_

    def loss(batch, mix):
        leaf = mix.weight if mix.weight.requires_grad else mix.weight.detach().requires_grad_()
        now = Pass(mix.weight.detach().clone())
        seen.passes.append(now)
        alias = leaf.view_as(leaf)
        alias.register_hook(lambda g: setattr(now, "gradient", g.detach().clone()))
        value, accuracy = real_loss(batch, replace(mix, weight=alias))
        now.loss = value.item()
        return value, accuracy

    def logits(module, inputs, output):
        seen.passes[-1].logits = output.detach().clone()
        seen.passes[-1].weight_norm = torch.stack([p.detach().norm() for p in module.parameters()]).norm().item()

    def adam(gradient, **options):
        ours = gradient["alpha"].detach().clone()
        given = ours if amend is None else amend(seen)
        real_adam({**gradient, "alpha": given}, **options)
        all_of_them = {name: g.detach().clone() for name, g in gradient.items()}
        seen.arch_steps.append(ArchStep(ours, given, method.alpha.detach().clone(), all_of_them))

    def clip(parameters, bound):
        parameters = list(parameters)
        kept = {names[id(p)]: p.grad.detach().clone() for p in parameters if p.grad is not None}
        total = real_clip(parameters, bound)
        seen.clips.append(Clip(float(total), kept))
        return total

    handle = search.supernet.register_forward_hook(logits)
    try:
        with (
            mock.patch.object(search.updater, "loss", loss),
            mock.patch.object(search.updater.arch_optimiser, "step", adam),
            mock.patch.object(nn.utils, "clip_grad_norm_", clip),
        ):
            search.updater.step(
                Progress(step=step), record["settings"]["lr"], *batches(record["settings"]), train_arch=True
            )
    finally:
        handle.remove()
    network = search.supernet.network
    seen.alpha = method.alpha.detach().clone()
    seen.weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    states = {name: search.updater.optimiser.state.get(p, {}) for name, p in network.named_parameters()}
    seen.momentum = {
        name: state["momentum_buffer"].clone() for name, state in states.items() if "momentum_buffer" in state
    }
    seen.buffers = {name: b.clone() for name, b in network.named_buffers()}
    return seen


# ---------------------------------------------------------------------- one path at a time


def check_gradients(found: dict[str, Tensor], rows: list, translate: Callable[[str], str]) -> None:
    """Compare the gradients of what ran: neither side has one that the other lacks. One that is nothing but rounding in
    the record is so in ours. Rows are (ordinal, name, shape, digest, ...)."""
    assert sorted(found) == sorted(translate(name) for _, name, *_ in rows)
    largest = max(float(g.norm()) for g in found.values())
    for _, name, shape, told, *_ in rows:
        ours = found[translate(name)]
        assert list(ours.shape) == shape
        if told is None:
            assert float(ours.norm()) <= LAW * largest, name
        else:
            agree(digest(ours), told, f"gradient of {name}")


@dataclass(repr=False)
class PathStep:
    """What a step on one path showed: logits, loss, the gradients of what ran before any clip, the weights that it
    moved, all weights, momentum and running statistics behind it."""

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    gradients: dict[str, Tensor] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    weights: dict[str, Tensor] = field(default_factory=dict)
    momentum: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)


def arch_of(space: Space, path: list[int]) -> Arch:
    """Return the architecture of a path, a column for each decision."""
    return Arch({d.name: d.options[column] for d, column in zip(space.decisions, path, strict=True)})


def take_path(search: Search, path: list[int], lr: float, ordinal: int) -> PathStep:
    """Take a step of a method that draws uniformly, with a given path in place of the drawn one, on the images of an
    ordinal."""
    network, step = search.supernet.network, PathStep()
    weights, clip = dict(network.named_parameters()), search.updater._clip
    before = {name: p.detach().clone() for name, p in weights.items()}

    def watch(parameters: Sequence[Tensor]) -> None:
        step.gradients = {name: p.grad.clone() for name, p in weights.items() if p.grad is not None}
        clip(parameters)

    batch = images(ordinal, search.train.batch, search.space.size), train_labels(search.train.batch)
    handle = search.supernet.register_forward_hook(lambda *args: setattr(step, "logits", args[-1].detach().clone()))
    try:
        with (
            mock.patch(f"{type(search.method).__module__}.uniform", return_value=arch_of(search.space, path)),
            mock.patch.object(search.updater, "_clip", watch),
        ):
            step.loss, *_ = search.updater.step(Progress(), lr, batch, None, train_arch=False)
    finally:
        handle.remove()
    step.weights = {name: p.detach().clone() for name, p in weights.items()}
    step.moved = {name for name, p in step.weights.items() if not torch.equal(p, before[name])}
    states = {name: search.updater.optimiser.state.get(p, {}) for name, p in weights.items()}
    step.momentum = {name: s["momentum_buffer"].clone() for name, s in states.items() if "momentum_buffer" in s}
    step.buffers = {name: b.clone() for name, b in network.named_buffers()}
    return step


def judge_path(search: Search, path: list[int], ordinal: int) -> Tensor:
    """Return the logits of a path by running statistics, on the images of an ordinal."""
    mix = search.space.one_hot(arch_of(search.space, path), dtype=torch.float64)
    search.supernet.eval()
    with torch.no_grad():
        logits: Tensor = search.supernet(images(ordinal, search.train.batch, search.space.size), mix)
    return logits
