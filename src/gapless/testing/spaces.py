"""The laws of a space: ``law(space)`` raises ``AssertionError`` where the space breaks it. In float64, on a few random
images."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor, nn

from gapless.core import cost
from gapless.core.cost import Undrawn
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.network import ChosenEdge, ChosenSite
from gapless.core.progress import seeded, stream
from gapless.core.space import Space
from gapless.engine.sgd import SGD
from gapless.engine.supernet import Execution, MixedEdge, MixedSite, Supernet

SpaceLaw = Callable[[Space], None]
SMALL = 12_000
"""Spaces whose tables of candidates are no longer than this are enumerated."""

# ---------------------------------------------------------------------- what the laws are made of


def supernet_of(space: Space, execution: Execution = "reference") -> Supernet:
    """Return a supernet in float64, the same at every call."""
    with seeded("law", "weights"):
        return Supernet(space, execution).double()


def images(space: Space, n: int = 4) -> Tensor:
    """Return random images [n, C, H, W] in float64, the same at every call."""
    return torch.randn(n, *space.image_shape, dtype=torch.float64, generator=stream("law", "images"))


def run(module: nn.Module, *inputs: Tensor | Mix) -> Tensor:
    """Return what a module gives; numbers that it draws from PyTorch's global generator are the same at every call."""
    with seeded("law", "noise"):
        output: Tensor = module(*inputs)
    return output


def drawn(space: Space, n: int) -> list[Arch]:
    """Return ``n`` drawn architectures, the same at every call."""
    return [space.sample(stream("law", "arch", i)) for i in range(n)]


def options(supernet: Supernet) -> Iterator[tuple[str, int, int, nn.Module]]:
    """Yield (path, row, column, module) of every option at every place where a decision is taken."""
    for path, site in supernet.named_modules():
        if isinstance(site, MixedEdge | MixedSite):
            for column, (label, module) in enumerate(site.named_children()):
                yield f"{path}.{label}", site.row, column, module


def belongs(space: Space, arch: Arch) -> None:
    """Raise ``AssertionError`` where an architecture is not in the space."""
    try:
        space.check(arch)
    except UserError as error:
        raise AssertionError(f"{arch} is not in the space: {error}") from error


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


@lru_cache(maxsize=4)
def enumerate_space(space: Space) -> tuple[Arch, ...] | None:
    """Return all architectures by trying every answer and every absence; None where the space is too large for it."""
    limited = {name for limit in space.limits for name in limit.among}
    answers = [(*d.options, *([None] if d.name in limited else [])) for d in space.decisions]
    if math.prod(map(len, answers)) > SMALL:
        return None
    tried = (zip(space.decisions, given, strict=True) for given in itertools.product(*answers))
    archs = (Arch({d.name: option for d, option in pairs if option is not None}) for pairs in tried)
    return tuple(arch for arch in archs if _inside(space, arch))


def _inside(space: Space, arch: Arch) -> bool:
    try:
        space.check(arch)
    except UserError:
        return False
    return True


def _same_as_network(space: Space, supernet: Supernet, archs: list[Arch]) -> None:
    x = images(space)
    for arch in archs:
        child = supernet.inherit(arch)
        one, other = run(supernet, x, space.one_hot(arch, dtype=x.dtype)), run(child, x)
        assert one.shape == (len(x), space.classes), (
            f"logits are of shape {tuple(one.shape)}, not (N, classes) = ({len(x)}, {space.classes})"
        )
        assert torch.equal(one, other), f"logits differ by up to {(one - other).abs().max():.1e} for {arch}"
        shared = supernet.network.state_dict()
        for name, value in child.state_dict().items():
            assert torch.equal(value, shared[name]), (
                f"the forward pass moved {name} otherwise in the supernet than alone, for {arch}"
            )


def _train(space: Space, supernet: Supernet) -> None:
    """Take a few steps that move weights and running statistics, of some options more than of others."""
    x = images(space)
    optimiser = SGD(supernet.parameters(), lr=0.01, momentum=0.9)
    soft = torch.rand(space.shape, dtype=x.dtype, generator=stream("law", "soft")) * space.legal
    supernet.train()
    for mix in (Mix(soft), *(space.one_hot(arch, dtype=x.dtype) for arch in drawn(space, 2)), Mix(-soft)):
        optimiser.zero_grad()
        run(supernet, x + 0.3, mix).square().mean().backward()
        optimiser.step()


# ---------------------------------------------------------------------- one network in the supernet and alone


def one_hot_is_the_network_in_training(space: Space) -> None:
    """With the one-hot mix of an architecture the supernet is the network alone with the same weights, exactly: logits,
    statistics."""
    _same_as_network(space, supernet_of(space).train(), drawn(space, 2))


def one_hot_is_the_network_in_evaluation(space: Space) -> None:
    """The same with running statistics."""
    _same_as_network(space, supernet_of(space).eval(), drawn(space, 2))


def one_hot_is_the_network_after_training(space: Space) -> None:
    """The same after steps that moved weights and running statistics, in both modes."""
    supernet = supernet_of(space)
    _train(space, supernet)
    _same_as_network(space, supernet.eval(), drawn(space, 2))
    _same_as_network(space, supernet.train(), drawn(space, 2))


def one_hot_has_the_gradients_of_the_network(space: Space) -> None:
    """With the one-hot mix the weights of the network get the gradients that they get alone, exactly, and no other
    weight gets one.

    Alone, too, each option's output is multiplied by 1: without that a gradient may arrive in another memory layout,
    and a kernel that sums in another order differs in the last bit.
    """
    supernet, x = supernet_of(space).train(), images(space)
    for arch in drawn(space, 2):
        child = supernet.inherit(arch)
        supernet.zero_grad(set_to_none=True)
        run(supernet, x, space.one_hot(arch, dtype=x.dtype)).square().sum().backward()
        for site in child.modules():
            for option in site.values() if isinstance(site, ChosenEdge | ChosenSite) else ():
                option.register_forward_hook(_times_one)
        run(child, x).square().sum().backward()
        alone = dict(child.named_parameters())
        for name, p in supernet.network.named_parameters():
            if name not in alone:
                assert p.grad is None, f"{name} takes no part in {arch}, but has a gradient"
                continue
            other = alone[name].grad
            assert (p.grad is None) == (other is None), (
                f"{name} has a gradient only in the supernet or only alone, for {arch}"
            )
            assert p.grad is None or other is None or torch.equal(p.grad, other), (
                f"the gradients of {name} differ for {arch}"
            )


def _times_one(_: nn.Module, __: object, y: Tensor) -> Tensor:
    return 1.0 * y


def a_network_has_nothing_else(space: Space) -> None:
    """All that a stand-alone network holds, the supernet holds under the same name and in the same shape."""
    shared = supernet_of(space).network.state_dict()
    for arch in drawn(space, 2):
        for name, value in space.network(arch).state_dict().items():
            assert name in shared, f"{name} of the network is not in the supernet"
            assert value.shape == shared[name].shape, (
                f"{name} is of shape {tuple(value.shape)} alone and {tuple(shared[name].shape)} in the supernet"
            )


def a_build_is_a_function_of_the_seed(space: Space) -> None:
    """Two builds under one seed have the same weights, bit for bit, supernet and network alike."""
    (arch,) = drawn(space, 1)
    makers: tuple[Callable[[], nn.Module], ...] = (lambda: Supernet(space), lambda: space.network(arch))
    for make in makers:
        pair = []
        for _ in range(2):
            with seeded("law", "build"):
                pair.append(make().state_dict())
        assert list(pair[0]) == list(pair[1]), "two builds hold other tensors"
        for name, value in pair[0].items():
            assert torch.equal(value, pair[1][name]), f"two builds under one seed differ in {name}"


def what_is_not_active_does_not_run(space: Space) -> None:
    """Options outside ``active`` are not called, get no gradient, their statistics rest; those inside are called,
    ``none`` aside."""
    supernet, x = supernet_of(space).train(), images(space)
    calls: Counter[str] = Counter()
    places = list(options(supernet))
    for path, _, _, module in places:
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    for round_ in range(2):
        generator = stream("law", "active", round_)
        keep = torch.rand(space.shape, generator=generator) < 0.5
        for row, column in enumerate(space.choice(space.sample(generator))):
            keep[row, 0 if column is None else column] |= column is not None
            if column is None:
                keep[row] = False
        keep &= space.legal
        mix = Mix(keep.to(x.dtype), active=tuple(tuple(row.nonzero().flatten().tolist()) for row in keep))
        before = snapshot(supernet)
        calls.clear()
        supernet.zero_grad(set_to_none=True)
        supernet(x, mix).square().sum().backward()
        after = supernet.state_dict()
        for path, row, column, module in places:
            if keep[row, column]:
                assert calls[path] or getattr(module, "zero", False), f"{path} is active, but was not called"
                continue
            assert not calls[path], f"{path} is not active, but was called"
            for name, p in module.named_parameters():
                assert p.grad is None, f"{path} is not active, but {name} has a gradient"
            for name, _ in module.named_buffers():
                assert torch.equal(before[f"{path}.{name}"], after[f"{path}.{name}"]), (
                    f"{path} is not active, but {name} moved"
                )


# ---------------------------------------------------------------------- the two executions

FUSED = 1e-10
"""The executions agree to this share of the largest entry, in float64."""


@dataclass(frozen=True)
class Pass:
    """What forward and backward passes gave: name -> tensor."""

    logits: dict[str, Tensor]
    weights: dict[str, Tensor]
    mix: dict[str, Tensor]
    statistics: dict[str, Tensor]


def observe(space: Space, execution: Execution, mixes: Sequence[Mix]) -> Pass:
    """Run one supernet under each mix in training, on other images each time, and return logits, gradients, and the
    statistics in the end. The weights stay, for steps of training would amplify the smallest difference."""
    supernet, x = supernet_of(space, execution).train(), images(space)
    towards = torch.randn(len(x), space.classes, dtype=x.dtype, generator=stream("law", "towards"))
    logits: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    mix_gradients: dict[str, Tensor] = {}
    for step, mix in enumerate(mixes):
        supernet.zero_grad(set_to_none=True)
        leaves = mix.leaves()
        y = run(supernet, x.roll(step, dims=-1) + step, leaves)
        (y * towards).sum().backward()
        logits[f"step {step}"] = y.detach()
        for name, p in supernet.named_parameters():
            if p.grad is not None:
                weights[f"step {step}, {name}"] = p.grad
        mix_gradients |= {f"step {step}, {name}": g for name, g in leaves.gradient().items()}
    return Pass(logits, weights, mix_gradients, {name: b.clone() for name, b in supernet.named_buffers()})


def agree(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """Raise ``AssertionError`` where tensors differ by more than ``FUSED`` of their largest entry (at least a
    thousandth of the largest entry of all: what is zero but for rounding has no scale of its own)."""
    assert one.keys() == other.keys(), f"{what}: one execution has {sorted(one.keys() ^ other.keys())[:3]}"
    largest = max((float(t.abs().max()) for t in one.values() if t.numel()), default=0.0)
    for name, t in one.items():
        scale = max(float(t.abs().max()) if t.numel() else 0.0, 1e-3 * largest)
        off = float((t.double() - other[name].double()).abs().max()) if t.numel() else 0.0
        assert off <= FUSED * scale, f"{what}: {name} differs by {off:.1e} where the largest entry is {scale:.1e}"


def some_mixes(space: Space) -> list[Mix]:
    """Return a soft mix with gains and offsets, a signed one, an architecture, and five mixes of random masks."""

    def random(name: str) -> Tensor:
        return torch.rand(space.shape, dtype=torch.float64, generator=stream("law", "fused", name)) * space.legal

    absent = {name for limit in space.limits for name in limit.among}
    gain, offset = random("gain").sum(dim=1), random("offset").sum(dim=1)
    mixes = [Mix(random("soft"), gain=gain, offset=offset), Mix(random("one") - random("two"))]
    mixes.append(space.one_hot(*drawn(space, 1), dtype=torch.float64))
    for i in range(5):
        keep = (random(f"mask {i}") > 0.5).tolist()
        for d, row in zip(space.decisions, keep, strict=True):
            if not any(row) and d.name not in absent:
                row[0] = True
        active = tuple(tuple(c for c, kept in enumerate(row) if kept) for row in keep)
        mixes.append(Mix(random(f"masked {i}"), active))
    return mixes


def fused_is_the_reference(space: Space) -> None:
    """Cells run at once give what they give edge by edge: logits, gradients of weights and mix, running statistics;
    for soft, signed, one-hot and masked mixes, the statistics after all these steps."""
    mixes = some_mixes(space)
    one, other = (observe(space, execution, mixes) for execution in get_args(Execution))
    for what in ("logits", "weights", "mix", "statistics"):
        agree(getattr(other, what), getattr(one, what), what)


# ---------------------------------------------------------------------- architectures


def notations_can_be_read_back(space: Space) -> None:
    """``Arch.parse(str(a)) == a``, and ``read(write(a))`` is an architecture of the space with the same network."""
    for arch in drawn(space, 5):
        assert Arch.parse(str(arch)) == arch, f"Arch.parse(str(a)) is not a for {arch}"
        assert space.read(str(arch)) == arch, f"read(str(a)) is not a for {arch}"
        assert space.unpack(space.pack(arch)) == arch, f"unpack(pack(a)) is not a for {arch}"
        back = space.read(space.write(arch))
        assert set(back) == set(arch), f"read(write(a)) answers other decisions than {arch}: {back}"
        assert space.write(back) == space.write(arch), f"write(read(write(a))) is not write(a) for {arch}"
        networks = []
        for given in (arch, back):
            with seeded("law", "read"):
                networks.append(space.network(given).double().eval())
        x = images(space, 2)
        assert torch.equal(run(networks[0], x), run(networks[1], x)), f"read(write(a)) is another network than {arch}"


def samples_are_in_the_space(space: Space) -> None:
    """What ``sample`` draws passes ``check``, depends on the generator alone, and is not always the same."""
    for i in range(50):
        arch = space.sample(stream("law", i))
        belongs(space, arch)
        assert arch == space.sample(stream("law", i)), "two draws from one stream differ"
    if space.count > 1:
        assert len({space.sample(stream("law", i)) for i in range(50)}) > 1, "fifty draws are all the same"


def neighbours_are_one_change_away(space: Space) -> None:
    """Neighbours are in the space, distinct, others, and symmetric; in a small space they are all that is one change
    away."""
    everything = enumerate_space(space)
    names = [d.name for d in space.decisions]
    for arch in drawn(space, 2):
        found = space.neighbours(arch)
        assert len(set(found)) == len(found), f"{arch} has a neighbour twice"
        assert arch not in found, f"{arch} is its own neighbour"
        for other in found:
            belongs(space, other)
        for other in found[:: max(1, len(found) // 24)]:
            assert arch in space.neighbours(other), f"{other} is a neighbour of {arch}, but not the other way round"
        if everything is not None:
            near = {other for other in everything if _one_change(names, arch, other)}
            assert set(found) == near, f"the neighbours of {arch} are not those one change away"


def _one_change(names: list[str], a: Arch, b: Arch) -> bool:
    """Return whether one option differs, or one decision stands in for another and all other options agree."""
    changed = [(a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)]
    if len(changed) == 1:
        return None not in changed[0]
    return len(changed) == 2 and all(None in pair for pair in changed)


def decode_inverts_encode(space: Space) -> None:
    """``decode(encode(a)) == a``, and every read-out of finite scores is in the space."""
    for arch in drawn(space, 10):
        code = space.encode(arch)
        assert tuple(code.shape) == space.shape, f"the code is of shape {tuple(code.shape)}, not (D, O) = {space.shape}"
        assert space.decode(code) == arch, f"decode(encode(a)) is not a for {arch}"
    for i in range(10):
        belongs(space, space.decode(torch.randn(space.shape, generator=stream("law", "scores", i))))
    belongs(space, space.decode(torch.zeros(space.shape)))


def the_count_is_true(space: Space) -> None:
    """``count`` is what trying every answer finds, where the space is small."""
    everything = enumerate_space(space)
    if everything is not None:
        assert space.count == len(everything), f"count is {space.count}; there are {len(everything)}"


def the_cost_table_is_true(space: Space) -> None:
    """Constant plus entries of the chosen options is the count of the network, in parameters and in multiply-adds; no
    entry is negative."""
    archs = drawn(space, 2)
    with Undrawn():
        networks = [space.network(arch) for arch in archs]
    for unit in get_args(cost.Unit):
        table, constant = space.cost_table(unit)
        assert tuple(table.shape) == space.shape, (
            f"the table of {unit} is of shape {tuple(table.shape)}, not (D, O) = {space.shape}"
        )
        assert bool((table >= 0).all()), f"the table of {unit} has a negative entry"
        assert not bool(table[~space.legal].any()), f"the table of {unit} has an entry where there is no option"
        for arch, network in zip(archs, networks, strict=True):
            counted = cost.cost(network, unit, space.image_shape)
            told = constant + int((table * space.encode(arch)).sum())
            assert told == counted, f"the table says {told} {unit}; the network has {counted}: {arch}"


# ---------------------------------------------------------------------- the space itself


def decisions_are_well_formed(space: Space) -> None:
    """Names are unique, limits speak of decisions that there are and do not overlap, each decision has an answer, masks
    agree."""
    names = [d.name for d in space.decisions]
    assert len(set(names)) == len(names), "two decisions have one name"
    limited = [name for limit in space.limits for name in limit.among]
    assert set(limited) <= set(names), "a limit speaks of a decision that there is not"
    assert len(set(limited)) == len(limited), "a decision falls under two limits"
    assert space.shape == (len(names), max(len(d.options) for d in space.decisions)), (
        "the shape is not (decisions, most options)"
    )
    for row, d in enumerate(space.decisions):
        assert space.rows[d.name] == row, f"{d.name} is not in its row"
        assert d.eligible, f"no architecture can answer {d.name}"
        assert set(d.groups) <= set(d.options), f"the groups of {d.name} name an option that it does not have"
        assert d.values is None or len(d.values) == len(d.options), f"{d.name} has not one value per option"
        assert int(space.legal[row].sum()) == len(d.options), f"the mask of {d.name} is not its options"
    assert bool((space.legal | ~space.eligible).all()), "an option is eligible that does not exist"


def strangers_are_refused(space: Space) -> None:
    """An unknown decision, an unknown option, a missing answer, an unknown field: each is a :class:`UserError`."""
    (arch,) = drawn(space, 1)
    name = next(iter(arch))
    wrong = (
        {**arch, "no such decision": "x"},
        {**arch, name: "no_such_option"},
        {k: v for k, v in arch.items() if k != name},
    )
    for choice in wrong:
        assert not _inside(space, Arch(choice)), f"check accepts {choice}"
    for d in space.decisions:
        for option in d.never:
            assert not _inside(space, Arch({**arch, d.name: option})), f"check accepts {option!r} for {d.name}"
    said = ""
    try:
        space.replace(no_such_field=1)
    except UserError as error:
        said = str(error)
    assert "no_such_field" in said, "replace accepts a field that there is not, or its error does not name it"


def alone_answers_the_same_decisions(space: Space) -> None:
    """The space at the size for training alone has the same decisions and limits; a network of it can be built."""
    alone = space.alone()
    assert alone.decisions == space.decisions, "alone() asks other questions"
    assert alone.limits == space.limits, "alone() has other limits"
    (arch,) = drawn(space, 1)
    with Undrawn():
        network = alone.network(arch)
    assert cost.count_params(network) > 0, "the network has no parameter"


def pictures_show_the_architecture(space: Space) -> None:
    """Pictures have edges that lead forward, and label them with options that are in the architecture, none oftener
    than it is chosen."""
    for arch in drawn(space, 2):
        pictures = space.pictures(arch)
        assert pictures, "there is nothing to draw"
        shown = Counter(label for picture in pictures for _, _, label in picture.edges if label)
        assert shown <= Counter(arch.values()), f"the pictures show {dict(shown)}, which is not in {arch}"
        for picture in pictures:
            for source, target, _ in picture.edges:
                assert 0 <= source < target < len(picture.nodes), (
                    f"an edge of the picture leads from {source} to {target}"
                )


NETWORK_LAWS: tuple[SpaceLaw, ...] = (
    one_hot_is_the_network_in_training,
    one_hot_is_the_network_in_evaluation,
    one_hot_is_the_network_after_training,
    one_hot_has_the_gradients_of_the_network,
    a_network_has_nothing_else,
    a_build_is_a_function_of_the_seed,
    what_is_not_active_does_not_run,
    fused_is_the_reference,
    the_cost_table_is_true,
)
"""Laws that build or run supernets."""
STILL_LAWS: tuple[SpaceLaw, ...] = (
    notations_can_be_read_back,
    samples_are_in_the_space,
    neighbours_are_one_change_away,
    decode_inverts_encode,
    the_count_is_true,
    decisions_are_well_formed,
    strangers_are_refused,
    alone_answers_the_same_decisions,
    pictures_show_the_architecture,
)
"""Laws that build single networks at most."""
SPACE_LAWS = (*NETWORK_LAWS, *STILL_LAWS)
