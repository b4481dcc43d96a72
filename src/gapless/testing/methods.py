"""The laws of a method: ``law(make_method, space)`` raises ``AssertionError`` where the method breaks it on that
space.

The laws in :data:`RECORDED_LAWS` look at one and the same short search. Each runs it by itself, or takes it as a third
argument, so that a test file can run it once for all of them::

    recording = record(MyMethod, Ragged())
    for law in RECORDED_LAWS:
        law(MyMethod, Ragged(), recording)
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor

from gapless.core.bound import Bound, budget
from gapless.core.decision import Arch
from gapless.core.method import Method, Rewarded, host
from gapless.core.mix import GRADED, Mix, mask_of
from gapless.core.plan import Plan, Stage, Train
from gapless.core.progress import Phase, Progress, seeded, stream
from gapless.core.settings import fields_of
from gapless.core.space import Space
from gapless.engine.record import SearchRecord
from gapless.engine.search import Search
from gapless.testing.examples import noise
from gapless.testing.spaces import belongs, options, snapshot

MakeMethod = Callable[[Space], Method]
MethodLaw = Callable[[MakeMethod, Space], None]
CLIP = 0.1
"""Bound on the norm of the weight gradient in the laws' searches: low enough to be reached."""
DRAWS = 4
"""Architectures that the laws' searches draw at the end of an epoch."""
PHASES: tuple[Phase, ...] = ("weights", "arch", "judge")
MEASURED = ("images_per_second", "seconds", "peak_memory_mb")
"""Fields of a record that no two runs share."""

# ---------------------------------------------------------------------- what the laws are made of


def made(make_method: MakeMethod, space: Space, seed: int = 0) -> Method:
    """Return a method whose parameters are a function of the seed."""
    with seeded("law", "method", seed):
        return make_method(space)


def moved(method: Method, size: float = 1.0) -> Method:
    """Return the method with its parameters drawn from N(0, size ** 2): somewhere in the middle of a search."""
    with torch.no_grad(), seeded("law", "moved"):
        for p in method.parameters():
            p.normal_(std=size)
    return method


def searched(make_method: MakeMethod, space: Space, *, seed: int = 0, **options: Any) -> Search:
    """Return a search on eight random images, about to begin: two epochs, or as many as warm-up and stages need.
    ``options`` are further arguments of :class:`gapless.engine.search.Search`."""
    method = made(make_method, space, seed)
    plan = method.plan
    epochs = max(2, math.ceil((plan.warmup_epochs + 1) / min(stage.share for stage in plan.stages)))
    train = Train(epochs=epochs, batch=4, lr=0.05, clip=CLIP)
    return Search(space, method, noise(space, 8), train, seed=seed, draws=DRAWS, **options)


@dataclass(frozen=True)
class Recording:
    """A whole search of a method, and what was seen on the way.

    Attributes
    ----------
    search
        The search at its end.
    states
        Checkpoints, as bytes: before the first step, after each step, and at the end.
    records
        One record per epoch.
    archs
        The architecture that the search decoded at the end of each epoch.
    clips
        For each clipped gradient norm: (architecture parameters, all tensors) that it counted.
    drew_globally
        Whether the search drew from PyTorch's global generator.
    """

    search: Search
    states: list[bytes]
    records: list[SearchRecord]
    archs: list[Arch]
    clips: list[tuple[int, int]]
    drew_globally: bool

    def state(self, place: int) -> dict[str, Any]:
        """Return a checkpoint, read as a checkpoint is: nothing in it is executed."""
        state: dict[str, Any] = torch.load(io.BytesIO(self.states[place]), weights_only=True)
        return state


def record(make_method: MakeMethod, space: Space) -> Recording:
    """Run the search of :func:`searched` to its end and record it."""
    search = searched(make_method, space)
    states: list[bytes] = []
    clips: list[tuple[int, int]] = []
    own = {id(p) for p in search.method.parameters()}
    clip = torch.nn.utils.clip_grad_norm_

    def save() -> None:
        file = io.BytesIO()
        torch.save(search.state_dict(), file)
        states.append(file.getvalue())

    def count(parameters: Any, *args: Any, **kwargs: Any) -> Tensor:
        tensors = list(parameters)
        clips.append((sum(id(p) in own for p in tensors), len(tensors)))
        return clip(tensors, *args, **kwargs)

    save()
    generator = torch.get_rng_state()
    records, archs = [], []
    with mock.patch.object(torch.nn.utils, "clip_grad_norm_", count):
        for line in search.run(save):
            records.append(line)
            archs.append(search.arch())
    drew_globally = not torch.equal(generator, torch.get_rng_state())
    save()
    return Recording(search, states, records, archs, clips, drew_globally)


def moments() -> Iterator[Progress]:
    """Yield the first steps of an epoch behind any warm-up."""
    for step in range(6):
        yield Progress(epoch=50, epochs=100, step=step, steps=6, done=0.5 + step / 600, stage_epoch=50, seed=1)


def answers(method: Method, now: Progress) -> Mix:
    """Return a mix without its graph."""
    with torch.no_grad():
        return method.mix(now).detach()


def same(one: Mix, other: Mix) -> bool:
    """Return whether two mixes are equal, bit for bit."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in GRADED]
    alike = all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
    return alike and one.active == other.active


def ran(space: Space, mix: Mix) -> Tensor:
    """Return [D, O] bool: the options that a mix runs."""
    return space.legal.clone() if mix.active is None else mask_of(mix.active, space.columns)


def narrowed(make_method: MakeMethod, keep: float = 0.5) -> MakeMethod:
    """Return a maker of the same method after pruning: by default half of the options of each decision."""

    def make(space: Space) -> Method:
        method = make_method(space)
        method.narrow(Stage(keep=keep))
        return method

    return make


@contextmanager
def watched(method: Method) -> Iterator[list[tuple[Phase, Mix]]]:
    """Collect (phase, mix) of every pass."""
    seen: list[tuple[Phase, Mix]] = []
    ask = method.mix

    def mix(now: Progress) -> Mix:
        answer = ask(now)
        seen.append((now.phase, answer.detach()))
        return answer

    with mock.patch.object(method, "mix", mix):
        yield seen


def story(line: SearchRecord) -> dict[str, Any]:
    """Return a record without what no two runs share."""
    return {name: value for name, value in line.line().items() if name not in MEASURED}


# ---------------------------------------------------------------------- mix and scores


def a_mix_fits_the_space(make_method: MakeMethod, space: Space) -> None:
    """The mix is [D, O] or [N, D, O], finite, zero outside ``active``; ``active`` holds living options only; gain and
    offset are [D]."""
    pruned = [moved(made(narrowed(make_method, keep), space)) for keep in (0.5, 1)]
    for method in (made(make_method, space), moved(made(make_method, space)), *pruned):
        for now in moments():
            for phase in PHASES:
                mix = answers(method, now.at(phase))
                assert tuple(mix.weight.shape[-2:]) == space.shape, (
                    f"the mix is of shape {tuple(mix.weight.shape)}; (D, O) is {space.shape}"
                )
                assert mix.weight.dim() in (2, 3), f"the mix has {mix.weight.dim()} dimensions"
                for name in GRADED:
                    value = getattr(mix, name)
                    assert value is None or bool(torch.isfinite(value).all()), f"{name} is not finite in a {phase} pass"
                    assert name == "weight" or value is None or tuple(value.shape) == space.shape[:1], (
                        f"{name} is not of shape [D]"
                    )
                mask = ran(space, mix)
                assert not bool(mix.weight[..., ~mask].any()), (
                    f"an option outside active has a weight in a {phase} pass"
                )
                assert bool((space.legal | ~mask).all()), "active holds a column that the decision does not have"
                assert bool((method.alive | ~mask).all()), "active holds a pruned option"
                rows = space.legal.shape[0] if mix.active is None else len(mix.active)
                assert rows == space.shape[0], f"active has {rows} rows; there are {space.shape[0]} decisions"


def scores_can_be_read_off(make_method: MakeMethod, space: Space) -> None:
    """Scores are [D, O] and finite, and what they say is in the space: at the start, in the middle, after pruning."""
    for method in (
        made(make_method, space),
        moved(made(make_method, space), 3.0),
        moved(made(narrowed(make_method), space)),
    ):
        scores = method.scores()
        assert tuple(scores.shape) == space.shape, f"scores are of shape {tuple(scores.shape)}; (D, O) is {space.shape}"
        assert bool(torch.isfinite(scores).all()), "scores are not finite"
        belongs(space, space.decode(scores))


def large_parameters_do_no_harm(make_method: MakeMethod, space: Space) -> None:
    """With parameters between -30 and 30, and with a single option left everywhere, mix, scores and gradients are
    finite."""
    for maker in (make_method, narrowed(make_method, 1)):
        _harmless(made(maker, space))


def _harmless(method: Method) -> None:
    with torch.no_grad(), seeded("law", "large"):
        for p in method.parameters():
            p.copy_(60 * torch.rand_like(p) - 30)
    assert bool(torch.isfinite(method.scores()).all()), "scores are not finite"
    for now in moments():
        for phase in ("weights", "arch"):
            mix = method.mix(now.at(phase))
            assert bool(torch.isfinite(mix.weight).all()), "the mix is not finite"
            mix.backward({"weight": torch.randn(mix.weight.shape)})
    for name, p in method.named_parameters():
        assert p.grad is None or bool(torch.isfinite(p.grad).all()), f"the gradient of {name} is not finite"


def a_mix_is_a_function_of_the_moment(make_method: MakeMethod, space: Space) -> None:
    """The same (seed, step, phase, turn) gives the same mix, in any order of asking, and PyTorch's own generator is
    left alone."""
    method, twin = moved(made(make_method, space)), moved(made(make_method, space))
    asked = [now.at(phase, turn) for now in moments() for phase in PHASES for turn in range(2)]
    state = torch.get_rng_state()
    first = [answers(method, now) for now in asked]
    assert torch.equal(state, torch.get_rng_state()), (
        "a mix draws from PyTorch's global generator; draw from now.stream()"
    )
    torch.rand(7)
    for now, mix in zip(reversed(asked), reversed(first), strict=True):
        assert same(mix, answers(twin, now)), f"the mix is another one when it is asked again: {now}"


def chance_is_fresh(make_method: MakeMethod, space: Space) -> None:
    """A mix that is drawn is another one at another step, under another seed, and for the architecture than for the
    weights."""
    method = moved(made(make_method, space))
    now = list(moments())

    def drawn(phase: Phase, seed: int) -> list[Mix]:
        return [answers(method, replace(n, seed=seed).at(phase)) for n in now]

    base = drawn("weights", 1)
    other = [replace(n, seed=seed).at("weights") for n in now[:1] for seed in range(2, 12)]
    chance = not all(same(base[0], answers(method, n)) for n in other)
    if not chance:
        return
    assert not all(same(base[0], mix) for mix in base[1:]), "all steps have one mix"
    assert not all(same(a, b) for a, b in zip(base, drawn("weights", 99), strict=True)), "two seeds have the same mixes"
    if method.plan.coupling not in ("joint", "weights_only"):
        assert not all(same(a, b) for a, b in zip(base, drawn("arch", 1), strict=True)), (
            "the two passes of a step have the same mix"
        )
    turns = [answers(method, n.at("weights", 1)) for n in now]
    if method.passes(now[0]) > 1:
        assert not all(same(a, b) for a, b in zip(base, turns, strict=True)), "the turns of a step have the same mix"


def the_state_is_everything(make_method: MakeMethod, space: Space) -> None:
    """``state_dict`` holds all that is learnt: another instance that loads it has equal mixes, scores and ``active``,
    after pruning too."""
    method, other = moved(made(make_method, space)), made(make_method, space, seed=1)
    method.narrow(Stage(keep=0.5))
    hidden = [name for name, value in vars(method).items() if isinstance(value, Tensor)]
    assert not hidden, f"{hidden} are tensors that are neither parameters nor buffers: state_dict misses them"
    other.load_state_dict(method.state_dict())
    assert other.active == method.active, "active is another one after load_state_dict"
    assert torch.equal(other.scores(), method.scores()), "scores are others after load_state_dict"
    for now in moments():
        for phase in PHASES:
            assert same(answers(method, now.at(phase)), answers(other, now.at(phase))), (
                "mixes are others after load_state_dict"
            )


def pruning_over_all_decisions_keeps_the_best(make_method: MakeMethod, space: Space) -> None:
    """``narrow`` over all decisions keeps so many options in all as asked, where every decision keeps one that can be
    read off; what it drops scores no better than what it keeps, the last one of a decision aside."""
    for keep in (0.75, 0.5, 0.1, 1):
        method = moved(made(make_method, space))
        before, scores = method.alive.clone(), method.scores().detach()
        method.narrow(Stage(keep=keep, over="all"))
        alive, rows = method.alive, space.shape[0]
        assert method.active == host(alive), "active is not what is alive"
        assert bool((before | ~alive).all()), "a pruned option came back"
        assert bool((alive & space.eligible).any(dim=-1).all()), "nothing that is left of a decision can be read off"
        wanted = round(keep * int(before.sum())) if isinstance(keep, float) else keep * rows
        least = rows if wanted < rows else wanted
        assert int(alive.sum()) >= least, f"{int(alive.sum())} options are left; {wanted} were asked for"
        gone = before & ~alive
        alone = (alive & space.eligible).sum(dim=-1, keepdim=True) == 1
        free = alive & ~(alone & space.eligible)
        if int(alive.sum()) > wanted:
            assert not bool(free.any()), "more is left than was asked for, though it could go"
        elif bool(gone.any()) and bool(free.any()):
            assert float(scores[free].min()) >= float(scores[gone].max()), "a better option was pruned than one kept"


def pruning_keeps_the_best(make_method: MakeMethod, space: Space) -> None:
    """``narrow`` keeps the options with the best scores, so many as asked, never none; what is pruned stays so and is
    not read off."""
    for keep in (3, 2, 0.5, 1):
        method = moved(made(make_method, space))
        before, scores = method.alive.clone(), method.scores().detach()
        method.narrow(Stage(keep=keep))
        alive = method.alive
        assert method.active == host(alive), "active is not what is alive"
        assert bool((before | ~alive).all()), "a pruned option came back"
        chosen = space.choice(space.decode(method.scores()))
        for row, d in enumerate(space.decisions):
            had = int(before[row].sum())
            wanted = min(had, keep if isinstance(keep, int) else max(1, round(keep * had)))
            assert int(alive[row].sum()) == wanted, (
                f"{d.name} keeps {int(alive[row].sum())} options; {wanted} were asked for"
            )
            readable = alive[row] & space.eligible[row]
            assert bool(readable.any()), f"nothing that is left of {d.name} can be read off"
            gone = before[row] & ~alive[row] & space.eligible[row]
            if bool(gone.any()):
                assert float(scores[row][readable].max()) >= float(scores[row][gone].max()), (
                    f"the best option of {d.name} was pruned"
                )
            column = chosen[row]
            assert column is None or bool(alive[row, column]), f"a pruned option of {d.name} is read off"
        again = alive.clone()
        method.narrow(Stage())
        assert torch.equal(again, method.alive), "a stage that prunes nothing changed what is alive"


def the_gradient_at_the_mix_arrives(make_method: MakeMethod, space: Space) -> None:
    """What the engine sends back, through the mix or as a reward, reaches the parameters, finite, wherever the engine
    trains them."""
    method = moved(made(make_method, space))
    if method.plan.coupling == "weights_only":
        return
    phase: Phase = "weights" if method.plan.coupling == "joint" else "arch"
    assert list(method.parameters()), "there is no parameter to train"
    with seeded("law", "gradient"):
        for now in moments():
            mix = method.mix(now.at(phase))
            if isinstance(method, Rewarded):
                method.regret(mix, torch.tensor(1.0), torch.rand(())).backward()
                continue
            leaves = mix.leaves()
            mix.backward({name: torch.randn_like(getattr(leaves, name)) for name in leaves.gradient()})
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in grads), "a gradient is not finite"
    assert any(bool(g.any()) for g in grads), "no gradient reaches the parameters"


# ---------------------------------------------------------------------- in a search


class RecordedLaw(Protocol):
    """A law that looks at one whole search: at the one that it is given, or at one that it runs itself."""

    def __call__(self, make_method: MakeMethod, space: Space, recording: Recording | None = None) -> None:
        """Raise ``AssertionError`` where the law is broken."""
        ...


def a_search_trains_it(make_method: MakeMethod, space: Space, recording: Recording | None = None) -> None:
    """A short search has finite losses, moves the weights, and moves the parameters unless the plan trains weights
    only."""
    seen = recording or record(make_method, space)
    search, before, after = seen.search, seen.state(0), seen.state(-1)
    for line, arch in zip(seen.records, seen.archs, strict=True):
        losses = (line.train_loss, line.arch_loss, line.valid_loss)
        assert all(value is None or math.isfinite(value) for value in losses), f"a loss is not finite: {losses}"
        assert search.space.read(line.arch) == arch, "the record's architecture is not the scores' one"
    names = [name for name, _ in search.method.named_parameters()]
    changed = any(not torch.equal(before["method"][name], after["method"][name]) for name in names)
    if search.plan.coupling == "weights_only":
        assert not changed, "the plan trains weights only, yet a parameter moved"
    else:
        assert changed, "no parameter moved"
    weights, final = before["supernet"], after["supernet"]
    changed = any(name not in final or not torch.equal(value, final[name]) for name, value in weights.items())
    assert changed, "no weight moved"


def a_search_is_a_function_of_the_seed(
    make_method: MakeMethod, space: Space, recording: Recording | None = None
) -> None:
    """Two searches under one seed are bit-identical: records, weights, parameters; another seed is another search."""
    seen = recording or record(make_method, space)
    assert not seen.drew_globally, "the search drew from PyTorch's global generator"
    stories = [story(line) for line in seen.records]
    twin = searched(make_method, space)
    assert [story(line) for line in twin.run()] == stories, "two runs under one seed tell different stories"
    end = seen.state(-1)
    for part, module in (("supernet", twin.supernet), ("method", twin.method)):
        for name, value in module.state_dict().items():
            assert torch.equal(value, end[part][name]), f"two runs under one seed differ in {part}.{name}"
    other = searched(make_method, space, seed=1)
    assert story(other.run_epoch()) != stories[0], "two seeds give one run"


def a_resumed_search_ends_as_an_uninterrupted_one(
    make_method: MakeMethod, space: Space, recording: Recording | None = None
) -> None:
    """Stopped after any step and begun anew from its saved state, a search ends bit for bit as it would have ended:
    records, weights, parameters, optimisers. The state is read as a checkpoint is: nothing in it is executed."""
    seen = recording or record(make_method, space)
    stories, end = [story(line) for line in seen.records], flat(seen.state(-1))
    steps = len(seen.states) - 2
    for place in sorted({0, 1, (steps + 1) // 2, steps}):
        again = searched(make_method, space)
        again.load_state_dict(seen.state(place))
        first = again.epoch
        where = f"resumed after step {place} of {steps}, the search"
        assert [story(line) for line in again.run()] == stories[first:], f"{where} tells another story"
        state = flat(again.state_dict())
        assert end.keys() == state.keys(), f"{where} ends with another state: {end.keys() ^ state.keys()}"
        for name, value in end.items():
            same = torch.equal(value, state[name]) if isinstance(value, Tensor) else value == state[name]
            assert same, f"{where} ends with another {name}"


def flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a state by path."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        path = f"{prefix}{name}"
        found |= flat(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return found


def both_executions_train_alike(make_method: MakeMethod, space: Space) -> None:
    """In float64 the fused and the reference execution come to the same weights, parameters and architecture after a
    search's first epoch, up to rounding: 1e-10 of the largest entry of each tensor, and 1e-14 for what is zero but for
    rounding."""
    states = []
    for execution in ("fused", "reference"):
        search = searched(make_method, space, precision="float64", execution=execution)
        line = search.run_epoch()
        states.append((flat(search.state_dict()), line.arch))
    (one, arch), (other, same_arch) = states
    for name, value in one.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            off, largest = (float(v.abs().max()) for v in (value - other[name], value))
            assert off <= 1e-10 * largest + 1e-14, f"{name} is {off:.1e} of {largest:.1e} apart"
    assert arch == same_arch, "the executions say different architectures"


def its_answer_holds_the_limits(make_method: MakeMethod, space: Space, recording: Recording | None = None) -> None:
    """The answer of a search is in the space, the same when it is asked again, leaves the supernet as it was, and holds
    a limit on multiply-adds that half of all random architectures break."""
    search = (recording or record(make_method, space)).search
    before = snapshot(search.supernet)
    answer = search.answer()
    belongs(space, answer)
    assert search.answer() == answer, "the answer is another one when it is asked again"
    for name, value in search.supernet.state_dict().items():
        assert torch.equal(before[name], value), f"reading the answer off has changed {name}"
    free = budget(space, ["macs=1G"])
    drawn = sorted(free.costs(space.sample(stream("law", "limit", i)))["macs"] for i in range(11))
    bounded = budget(space, [Bound("macs", drawn[5])])
    with mock.patch.object(search, "budget", bounded):
        held = search.answer()
    belongs(space, held)
    assert bounded.respects(held), "the answer breaks a limit that many architectures hold"


def options_that_rest_are_untouched(make_method: MakeMethod, space: Space) -> None:
    """With ``inactive="skip"``, what does not run in a step keeps weights, statistics and momentum bit for bit, and its
    entries of the method's parameters unless the plan says that all of them move."""
    search = searched(narrowed(make_method), space)
    if search.plan.inactive != "skip":
        return
    method, update, rested = search.method, search.updater.step, 0

    def watch(*args: Any, **kwargs: Any) -> Any:
        nonlocal rested
        supernet, optimiser = search.supernet, search.updater.optimiser
        before, weights = snapshot(method), snapshot(supernet)
        momentum = {
            name: {k: copy(v) for k, v in optimiser.state.get(p, {}).items()} for name, p in supernet.named_parameters()
        }
        with watched(method) as seen:
            answer = update(*args, **kwargs)
        by_weights, at_all = torch.zeros(2, *space.shape, dtype=torch.bool)
        for phase, mix in seen:
            at_all |= ran(space, mix)
            by_weights |= ran(space, mix) & torch.tensor(phase == "weights")
        after = supernet.state_dict()
        for path, row, column, module in options(supernet):
            for name, p in module.named_parameters():
                if not by_weights[row, column]:
                    rested += 1
                    assert torch.equal(weights[f"{path}.{name}"], p.detach()), f"{path} did not run, yet {name} moved"
                    for key, value in momentum[f"{path}.{name}"].items():
                        assert value is None or torch.equal(value, optimiser.state[p][key]), (
                            f"{path} did not run, yet the momentum of {name} moved"
                        )
            for name, _ in module.named_buffers():
                if not at_all[row, column]:
                    assert torch.equal(weights[f"{path}.{name}"], after[f"{path}.{name}"]), (
                        f"{path} did not run, yet {name} moved"
                    )
        for name, p in method.named_parameters():
            if tuple(p.shape) == space.shape and search.plan.arch_moves == "ran":
                idle = space.legal & ~at_all
                assert torch.equal(p.detach()[idle], before[name][idle]), (
                    f"an entry of {name} moved whose option did not run"
                )
        return answer

    with mock.patch.object(search.updater, "step", watch):
        for _ in search.run():
            pass
    assert rested, "every option ran at every step: this space is too small for this law"


def copy(value: Tensor | None) -> Tensor | None:
    """Return a copy of a tensor, where there is one."""
    return None if value is None else value.clone()


def the_weight_clip_is_the_weights_own(
    make_method: MakeMethod, space: Space, recording: Recording | None = None
) -> None:
    """The norm that bounds the weight gradient does not count architecture parameters unless the plan says so."""
    seen = recording or record(make_method, space)
    plan = seen.search.plan
    mixed = any(0 < own < every for own, every in seen.clips)
    if plan.released.clip_over == "weights":
        assert not mixed, "a clip counts weights and architecture parameters by one norm"
        assert any(own == 0 for own, _ in seen.clips), "the weights are never clipped"
    else:
        assert mixed, "the plan clips both by one norm; no clip did"
    alone = any(0 < own == every for own, every in seen.clips)
    assert plan.arch_clip is not None or not alone, "the plan does not clip the architecture; a clip did"


def a_warm_up_leaves_the_architecture_alone(make_method: MakeMethod, space: Space) -> None:
    """In the warm-up epochs of every stage no parameter moves, pruning at a boundary aside; behind them one does, while
    something is left to choose."""
    search = searched(make_method, space)
    method = search.method
    warm = max(1, search.plan.warmup_epochs)
    stages = len(search.plan.stages)
    search.plan = replace(search.plan, warmup_epochs=warm)
    search.train = replace(search.train, epochs=(warm + 1) * stages)
    before = snapshot(method)
    narrow = method.narrow

    def prune(stage: Stage) -> None:
        narrow(stage)
        before.update(snapshot(method))

    with mock.patch.object(method, "narrow", prune):
        for epoch in range(search.train.epochs):
            search.run_epoch()
            rests = epoch % (warm + 1) < warm or search.plan.coupling == "weights_only"
            still = all(torch.equal(before[name], p.detach()) for name, p in method.named_parameters())
            chosen = not bool((method.alive.sum(dim=-1) > 1).any())
            assert still == rests or (chosen and not rests), f"epoch {epoch}: " + (
                "a parameter moved in a warm-up" if rests else "no parameter moved after the warm-up"
            )
            before.update(snapshot(method))


# ---------------------------------------------------------------------- the method itself


def the_plan_is_fixed(make_method: MakeMethod, space: Space) -> None:
    """``plan`` is a :class:`Plan` that does not change while the method learns, with stages that the space has."""
    method = made(make_method, space)
    plan = method.plan
    assert isinstance(plan, Plan), f"plan is {type(plan).__name__}"
    assert math.isclose(sum(stage.share for stage in plan.stages), 1.0), "the shares of the stages do not sum to 1"
    for stage in plan.stages:
        space.replace(**stage.space)
    moved(method).narrow(Stage(keep=2))
    assert method.plan == plan, "the plan changes while the method learns"


def a_penalty_is_a_number(make_method: MakeMethod, space: Space) -> None:
    """``penalty`` is None, or a finite scalar whose gradient reaches a parameter; ``passes`` is at least one."""
    method = moved(made(make_method, space))
    for now in moments():
        assert method.passes(now) >= 1, "there is no pass"
        penalty = method.penalty(now.at("arch"))
        if penalty is None:
            continue
        assert penalty.dim() == 0, f"the penalty is of shape {tuple(penalty.shape)}, not a scalar"
        assert bool(torch.isfinite(penalty)), "the penalty is not finite"
        torch.autograd.backward(penalty)
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        assert grads, "the penalty has no gradient"
        assert all(bool(torch.isfinite(g).all()) for g in grads), "the gradient of the penalty is not finite"


def its_settings_are_documented(make_method: MakeMethod, space: Space) -> None:
    """The class names its paper and a default setting, and every keyword has a default and a paragraph in the
    docstring."""
    kind = type(made(make_method, space))
    assert kind.source, f"{kind.__name__}.source is empty: name the paper"
    assert "" in kind.settings, f"{kind.__name__}.settings has no entry '' for other spaces"
    assert all(setting.source for setting in kind.settings.values()), "a setting does not say where it is from"
    for setting in kind.settings.values():
        named = {*setting.method, *setting.variants, *(name for values in setting.variants.values() for name in values)}
        unknown = named - fields_of(kind).keys()
        assert not unknown, f"{kind.__name__}.settings names {', '.join(sorted(unknown))}, which it does not have"
    for name, field in fields_of(kind).items():
        assert field.help, f"the docstring of {kind.__name__} does not explain {name}"
        assert field.default is not field.default.__class__ or field.default is None, f"{name} has no default"


def probabilities_are_a_distribution(make_method: MakeMethod, space: Space) -> None:
    """``probabilities`` are [D, O], not negative, zero outside the living options, each row sums to 1; unless the plan
    trains weights only they have a gradient. What ``sample_scores`` draws can be read off, is a function of the
    generator, and is not always the same."""
    for method in (moved(made(make_method, space)), moved(made(narrowed(make_method), space))):
        with mock.patch.object(Progress, "stream", side_effect=AssertionError("probabilities are drawn")):
            p = method.probabilities()
        assert tuple(p.shape) == space.shape, f"probabilities are of shape {tuple(p.shape)}; (D, O) is {space.shape}"
        assert bool((p >= 0).all()), "a probability is negative"
        assert not bool(p[~method.alive].any()), "an option that is pruned or does not exist has a probability"
        assert torch.allclose(p.sum(dim=-1), torch.ones(space.shape[0]), atol=1e-5), "a row does not sum to 1"
        if method.plan.coupling != "weights_only":
            assert p.requires_grad, "probabilities have no graph"
            ramp = torch.arange(1.0, space.columns + 1)
            method.zero_grad()
            torch.autograd.backward((p * ramp).sum())
            grads = [q.grad for q in method.parameters() if q.grad is not None]
            several = bool((method.alive.sum(dim=-1) > 1).any())
            assert not several or any(bool(g.any()) for g in grads), "probabilities have no gradient at the parameters"
            method.zero_grad()
    method, drawn = moved(made(make_method, space)), set()
    for i in range(20):
        with torch.no_grad():
            one, other = (method.sample_scores(stream("law", "draw", i)) for _ in range(2))
        assert torch.equal(one, other), "two draws from one generator differ"
        arch = space.decode(one)
        belongs(space, arch)
        drawn.add(arch)
    choices = (method.alive & space.eligible).sum(dim=-1)
    assert len(drawn) > 1 or not bool((choices > 1).any()), "twenty draws are one and the same architecture"


STILL_LAWS: tuple[MethodLaw, ...] = (
    a_mix_fits_the_space,
    scores_can_be_read_off,
    large_parameters_do_no_harm,
    a_mix_is_a_function_of_the_moment,
    chance_is_fresh,
    the_state_is_everything,
    pruning_keeps_the_best,
    pruning_over_all_decisions_keeps_the_best,
    the_gradient_at_the_mix_arrives,
    the_plan_is_fixed,
    a_penalty_is_a_number,
    probabilities_are_a_distribution,
    its_settings_are_documented,
)
"""Those that run no network."""
RECORDED_LAWS: tuple[RecordedLaw, ...] = (
    a_search_trains_it,
    a_search_is_a_function_of_the_seed,
    a_resumed_search_ends_as_an_uninterrupted_one,
    its_answer_holds_the_limits,
    the_weight_clip_is_the_weights_own,
)
"""Those that look at a whole search, which they can share."""
SEARCH_LAWS: tuple[MethodLaw, ...] = (
    *RECORDED_LAWS,
    both_executions_train_alike,
    options_that_rest_are_untouched,
    a_warm_up_leaves_the_architecture_alone,
)
"""Those that run short searches."""
METHOD_LAWS = (*STILL_LAWS, *SEARCH_LAWS)
