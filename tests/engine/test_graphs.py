"""Recorded passes, with a stand-in for CUDA graphs: what is replayed when, and that a search comes to the same numbers."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gapless.core.errors import UserError
from gapless.core.method import host
from gapless.core.mix import Mix
from gapless.core.plan import Train
from gapless.core.progress import seeded
from gapless.data import load
from gapless.engine.graphs import PATIENCE, Graphs, Update, _like
from gapless.engine.judge import still
from gapless.engine.search import Search
from gapless.engine.sgd import sgd, start_momentum
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS
from gapless.methods.dropnas import DropNAS
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.spaces import images, some_mixes, supernet_of

SPACE = NASBench201(size=8, width=4, cells=1)


@pytest.fixture
def recorder(monkeypatch):
    """A stand-in for CUDA graphs: recording changes nothing, replaying does the work and writes its results where those
    of the recording are. The list of what was recorded."""
    done: list[object] = []

    def recorded(work, pool):
        found = work()

        def replay() -> None:
            with torch.enable_grad():
                again = work()
            single = isinstance(found, torch.Tensor)
            for to, value in [(found, again)] if single else zip(found, again, strict=True):
                assert (to is None) == (value is None)
                if to is not None:
                    to.copy_(value)

        done.append(work)
        return found, replay

    def record(self, *given):
        before = [b.clone() for b in self.network.buffers()]
        found = real(self, *given)
        for buffer, value in zip(self.network.buffers(), before, strict=True):
            buffer.copy_(value)
        return found

    def update(self):
        def replay() -> None:
            with self._rated():
                self.run()

        done.append(self)
        return replay

    real = Graphs._record
    monkeypatch.setattr(Graphs, "_record", record)
    monkeypatch.setattr(Update, "_record", update)
    monkeypatch.setattr("gapless.engine.graphs.recorded", recorded)
    return done


def passes(run, x, mix, times: int = PATIENCE + 2) -> None:
    for _ in range(times):
        run(x, mix)


def test_static_passes_are_recorded_once(recorder):
    supernet = supernet_of(SPACE, "fused").train()
    run, x = Graphs(supernet, supernet), images(SPACE)
    soft = Mix(some_mixes(SPACE)[0].weight)
    passes(run, x, soft, PATIENCE)
    assert not recorder
    passes(run, x, soft)
    assert len(recorder) == 2  # forward and backward
    passes(run, x, soft.leaves())  # the mix wants a gradient now
    passes(run, x[:2], soft)  # another batch
    assert len(recorder) == 6
    with still(supernet):  # and without statistics
        passes(run, x, soft)
    assert len(recorder) == 8
    passes(run, x, soft)
    assert len(recorder) == 8


def test_masks_are_recorded_where_they_stay(recorder):
    """A pruned space runs the same options in every step; masks that are drawn anew are launched."""
    supernet = supernet_of(SPACE, "fused").train()
    run, x = Graphs(supernet, supernet), images(SPACE)
    masked = [m for m in some_mixes(SPACE) if m.active is not None]
    for mix in [*masked, *masked]:
        run(x, mix)
    assert not recorder
    passes(run, x, masked[0])
    assert len(recorder) == 2
    run(x, masked[1])
    assert all(kind.record is None for kind in run.kinds.values())  # its memory is free again


def test_masks_of_most_options_hide_the_others(recorder):
    """A pass of all options is replayed; those that rest have the statistics of before, and no gradients."""
    supernet, other = supernet_of(SPACE, "fused").train(), supernet_of(SPACE, "fused").train()
    run, x, weight = Graphs(supernet, supernet), images(SPACE), some_mixes(SPACE)[0].weight
    generator = torch.Generator().manual_seed(0)
    for turn in range(3 * PATIENCE):
        mask = torch.rand(weight.shape, generator=generator) < 0.8
        mask[:, 1] = True
        mix = Mix(weight * mask, host(mask))
        found = []
        for each in (supernet, other):
            each.zero_grad(set_to_none=True)
            leaves = mix.leaves()
            logits = run(x, leaves) if each is supernet else each(x, leaves)
            logits.square().sum().backward()
            run.rest()
            grads = [p.grad for p in each.parameters()]
            found.append([logits, leaves.weight.grad, *grads, *each.buffers()])
        assert bool(recorder) == (turn >= 2 * PATIENCE)
        for one, two in zip(*found, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                assert (one - two).abs().max() <= 1e-10 * one.abs().max()
    assert len(recorder) == 2


def test_masks_of_few_options_are_launched(recorder):
    """Single paths, and masks that take an edge away, run nothing else."""
    supernet = supernet_of(SPACE, "fused").train()
    run, x = Graphs(supernet, supernet), images(SPACE)
    generator = torch.Generator().manual_seed(0)
    for turn in range(6 * PATIENCE):
        mask = torch.rand(6, 5, generator=generator) < 0.8
        mask[turn % 6] = False
        if turn % 2:
            mask = F.one_hot(torch.randint(5, (6,), generator=generator), 5).bool()
        run(x, Mix(some_mixes(SPACE)[0].weight * mask, host(mask)))
        assert not run.rested
    assert not recorder


@pytest.mark.parametrize("why", ["per image", "evaluation", "counted", "gradients are there"])
def test_other_passes_are_run(recorder, why):
    supernet = supernet_of(SPACE, "fused").train(why != "evaluation")
    run, x = Graphs(supernet, supernet), images(SPACE)
    mix = Mix(some_mixes(SPACE)[0].weight)
    if why == "per image":
        mix = Mix(mix.weight.expand(len(x), -1, -1))
    if why == "gradients are there":
        supernet(x, mix).sum().backward()
    if why == "counted":
        for norm in run.norms:
            norm.momentum = None
    passes(run, x, mix)
    assert not recorder


@pytest.mark.parametrize("training", [True, False], ids=["batch", "running"])
def test_judging_is_recorded_too(recorder, training):
    """Forward only, with a mix that changes from pass to pass."""
    supernet, other = supernet_of(SPACE, "fused").train(training), supernet_of(SPACE, "fused").train(training)
    run, x = Graphs(supernet, supernet), images(SPACE)
    mix = some_mixes(SPACE)[0]
    with torch.no_grad():
        for turn in range(PATIENCE + 2):
            soft = Mix(mix.weight * (1 + turn))
            assert torch.equal(run(x, soft), other(x, soft))
    assert len(recorder) == 1


def test_recording_leaves_statistics_as_they_are(recorder):
    supernet, other = supernet_of(SPACE, "fused").train(), supernet_of(SPACE, "fused").train()
    mix, x = some_mixes(SPACE)[0], images(SPACE)
    run = Graphs(supernet, supernet)
    for _ in range(PATIENCE + 2):
        assert torch.equal(run(x, mix), other(x, mix))
    assert recorder
    for one, two in zip(supernet.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "method", [DARTS, pytest.param(DrNAS, marks=pytest.mark.full), partial(DropNAS, rate_weights=0.05, rate_free=0.05)]
)
def test_a_recorded_search_is_the_same_search(recorder, method, monkeypatch):
    """Weights, architecture and statistics after an epoch are those of a search that launches everything; the rate is
    another one in every step."""
    data, train, found = load("digits"), Train(epochs=1, batch=96, lr_per="step"), []
    monkeypatch.setattr("gapless.engine.step.sgd", fused_sgd)
    for record in (False, True):
        space = SPACE.replace(channels=1, classes=10)
        with seeded("method"):
            made = method(space)
        search = Search(space, made, data, train, seed=3)
        search.loss.record = search.updater.replay = record
        list(search.run())
        found.append([*search.supernet.state_dict().values(), *search.method.state_dict().values()])
    masked = method not in (DARTS, DrNAS)  # then options that rest are summed with weights of zero
    assert recorder and sum(isinstance(done, Update) for done in recorder) == (not masked)
    for one, other in zip(*found, strict=True):
        off, scale = (one.double() - other.double()).abs().max(), one.double().abs().max()
        assert off <= (1e-6 if masked else 0) * scale


def fused_sgd(*given, **named):
    """As on a GPU."""
    optimiser = sgd(*given, **named)
    for group in optimiser.param_groups:
        group["fused"] = True
    optimiser.register_step_pre_hook(start_momentum)
    return optimiser


def test_an_update_is_recorded_where_gradients_stay(recorder):
    """Other places, or other weights that have a gradient, are other updates: they are launched."""
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimiser = fused_sgd(weights, Train(momentum=0.5, weight_decay=0.0))
    update, gradients = Update(optimiser, optimiser.step), [torch.ones(3), torch.ones(2)]
    moved: list[float] = []
    for turn in range(2 * PATIENCE + 3):
        for w, gradient in zip(weights, gradients, strict=True):
            w.grad = gradient
        if turn > PATIENCE:
            weights[1].grad = None
        optimiser.param_groups[0]["lr"] = 0.1 * turn
        before = weights[0].detach().clone()
        update()
        moved.append(float((before - weights[0].detach())[0]))
        assert len(recorder) == (turn >= PATIENCE) + (turn >= 2 * PATIENCE + 1)
    momentum = [2 - 0.5**turn for turn in range(2 * PATIENCE + 3)]
    torch.testing.assert_close(moved, [0.1 * turn * m for turn, m in enumerate(momentum)], atol=1e-5, rtol=1e-5)
    weights[0].grad = torch.ones(3)
    update()
    assert len(recorder) == 2 and update.replay is None


def test_gradients_lie_in_memory_as_their_leaves():
    """Fused optimisers refuse others, such as those of channels-last convolutions."""
    leaf = torch.randn(4, 3, 5, 5)
    turned = leaf.contiguous(memory_format=torch.channels_last)
    assert _like(leaf, turned).stride() == leaf.stride()
    assert torch.equal(_like(leaf, turned), turned)
    assert _like(leaf, leaf) is leaf


def test_only_a_gpu_has_graphs():
    with pytest.raises(UserError, match="the device is cpu") as caught:
        Search(SPACE, DARTS(SPACE), load("digits"), Train(epochs=1), graphs=True)
    assert caught.value.names == ("run.graphs",)


# ---------------------------------------------------------------------- the waiting law


class Watch(TorchDispatchMode):
    """Notes operations that wait for the device, or bring numbers of the host to it."""

    WAIT = ("_local_scalar_dense", "nonzero", "lift_fresh", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.WAIT:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("execution", ["fused", "reference"])
@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_step_waits_for_nothing(execution, number, monkeypatch):
    """With the kernels that run on a GPU no step of the supernet, soft, single or masked, waits for the device."""
    monkeypatch.setattr("gapless.kernels.cpu.backend.serves", lambda *_: False)
    supernet, x, mix = supernet_of(SPACE, execution).train(), images(SPACE), some_mixes(SPACE)[number]
    leaves = mix.leaves()
    supernet(x, leaves).square().sum().backward()  # the first makes what is kept on the device
    with Watch() as watch:
        supernet(x, leaves).square().sum().backward()
    assert not watch.seen
