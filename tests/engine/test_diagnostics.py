"""Diagnostics at the end of an epoch: by hand where it can be, and without a trace in the search."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from gapless.core import catalogue
from gapless.core.mix import Mix
from gapless.core.objective import cross_entropy
from gapless.core.plan import Stage, Train
from gapless.core.progress import Progress, stream
from gapless.engine.diagnostics import DRAWS, IMAGES, Probe, edge_by_edge, largest_eigenvalue
from gapless.engine.judge import judge, untouched
from gapless.engine.search import Search
from gapless.engine.supernet import MixedEdge
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, noise
from gapless.testing.methods import flat, made, moved, story

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=2, batch=4, lr=0.05, lr_min=0.01, clip=1.0)
NOW = Progress(epoch=1, epochs=2, step=3, done=0.9)
WATCHED = {"gradient_share", "decision_gradient_share", "option_accuracy", "hessian"}


def search_of(method="darts", space=SPACE, watch=True, **settings):
    found = made(lambda s: catalogue.find(method, "methods")(s), space)
    return Search(space, found, noise(space, 16), TRAIN, precision="float64", watch=watch, draws=4, **settings)


def probe_of(method="darts", space=SPACE, **settings):
    search = search_of(method, space, **settings)
    moved(search.method, 0.5)
    return Probe(search.supernet, search.method, search.feed, search.objective)


def same(one, other):
    one, other = flat(one.state_dict()), flat(other.state_dict())
    assert one.keys() == other.keys()
    for name, value in one.items():
        equal = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert equal or name.endswith("seconds"), name


# ---------------------------------------------------------------------- no trace in the search


@pytest.mark.parametrize("execution", ["fused", pytest.param("reference", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("method", "space"), [("darts", SPACE), ("dropnas", Ragged()), ("gdas", SPACE), ("spos", SPACE)]
)
def test_a_watched_search_is_the_same_search(method, space, execution):
    watched, plain = (search_of(method, space, watch, execution=execution) for watch in (True, False))
    for one, other in zip(watched.run(), plain.run(), strict=True):
        told = story(one)
        assert {name: told.pop(name) for name in WATCHED}.keys() == WATCHED
        assert told == story(other)
    same(watched, plain)
    assert all(p.requires_grad for p in watched.supernet.parameters())


def test_what_is_not_watched_has_no_line_of_it():
    (record,) = islice(search_of(watch=False).run(), 1)
    assert not WATCHED & record.line().keys() and "diagnostics" not in record.line()


@pytest.mark.parametrize(
    ("stop", "left"), [pytest.param(1, 2, marks=pytest.mark.full), (2, 2), pytest.param(3, 1, marks=pytest.mark.full)]
)
def test_a_resumed_search_has_the_same_trace(stop, left):
    """Stopped in an epoch of two steps, and behind the last of them, where it is watched next."""
    whole = search_of("drnas")
    expected = [story(record) for record in whole.run()]
    first, states = search_of("drnas"), []

    class Stop(Exception):
        pass

    def count():
        states.append(first.state_dict())
        if len(states) == stop:
            raise Stop

    with pytest.raises(Stop):
        list(first.run(count))
    second = search_of("drnas")
    second.load_state_dict(states[-1])
    assert [story(record) for record in second.run()] == expected[-left:]
    same(second, whole)


def test_nothing_is_left_behind():
    probe = probe_of()
    probe.supernet.recompute = True
    before = {name: value.clone() for name, value in probe.supernet.state_dict().items()}
    state = torch.get_rng_state()
    first = probe.measure(NOW)
    assert probe.supernet.training and probe.supernet.recompute and probe.supernet.execution == "fused"
    assert all(torch.equal(value, before[name]) for name, value in probe.supernet.state_dict().items())
    assert all(p.grad is None for module in (probe.supernet, probe.method) for p in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert probe.measure(NOW) == first


# ---------------------------------------------------------------------- gradients


def by_hand(probe, mixes):
    """The squared norms of plain backward passes, summed over what bears a name."""
    order = torch.randperm(len(probe.feed.weights), generator=_stream())[:IMAGES]
    images, labels = next(probe.feed.plain(probe.feed.weights[order]))
    found = {}
    for mix in mixes:
        probe.supernet.zero_grad()
        with untouched(probe.supernet):
            F.cross_entropy(probe.supernet.train()(images, mix), labels).backward()
        for module in probe.supernet.modules():
            if isinstance(module, MixedEdge):
                for option, op in module.items():
                    for p in op.parameters():
                        if p.grad is not None:
                            at = module.row, option
                            found[at] = found.get(at, 0.0) + float(p.grad.square().sum())
    probe.supernet.zero_grad()
    return found


def _stream():
    return stream("watch")


@pytest.mark.parametrize("method", ["darts", "drnas", "spos"])
def test_the_share_of_the_gradient_by_hand(method):
    probe = probe_of(method)
    mixes = [probe.method.mix(NOW.at("weights", turn)).detach() for turn in range(1 if method == "darts" else DRAWS)]
    found, told = by_hand(probe, mixes), probe.measure(NOW)
    total = sum(found.values())
    for option in ("nor_conv_1x1", "nor_conv_3x3"):
        expected = sum(value for (_, name), value in found.items() if name == option) / total
        assert told.gradient_share[option] == pytest.approx(expected, rel=1e-9)
    assert set(told.gradient_share) == {"nor_conv_1x1", "nor_conv_3x3"}
    for row, decision in enumerate(SPACE.decisions):
        own = {name: value for (at, name), value in found.items() if at == row}
        for column, option in enumerate(decision.options):
            value = told.decision_gradient_share[row][column]
            if "conv" not in option:
                assert value is None
            elif sum(own.values()):
                assert value == pytest.approx(own.get(option, 0.0) / sum(own.values()), rel=1e-9)


def test_a_pruned_option_and_one_without_weights_have_no_share():
    space = Ragged()
    probe = probe_of("darts", space)
    probe.method.narrow(Stage(keep=1))
    told = probe.measure(NOW)
    alive = {(row, column) for row, columns in enumerate(probe.method.active) for column in columns}
    assert len(alive) == len(space.decisions)
    for row, decision in enumerate(space.decisions):
        for column in range(space.columns):
            weighty = column < len(decision.options) and decision.options[column] in ("conv", "sep", "dil", "point")
            value = told.decision_gradient_share[row][column]
            assert value is None or (weighty and (row, column) in alive)
    assert sum(told.gradient_share.values()) == pytest.approx(1)
    living = {space.decisions[row].options[column] for row, column in alive}
    assert set(told.option_accuracy) <= living and "none" not in told.option_accuracy


def test_no_gradient_is_no_share():
    probe = probe_of()
    none = torch.zeros(SPACE.shape, dtype=torch.float64)
    none[:, 0] = 1
    probe.method.mix = lambda now: Mix(none)
    told = probe.measure(NOW)
    assert told.gradient_share is None
    assert told.decision_gradient_share == [[None] * SPACE.columns] * len(SPACE.decisions)


# ---------------------------------------------------------------------- options alone


def test_an_option_alone_is_the_network_that_takes_it_everywhere():
    probe = probe_of()
    found = probe.accuracy()
    assert list(found) == ["skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    index = probe.feed.arch[torch.randperm(len(probe.feed.arch), generator=_stream())]
    for option, value in found.items():
        child = probe.supernet.inherit(SPACE.decode(_only(option)))
        _, share = judge(child, child, probe.feed.plain(index), bn="batch")
        assert value == pytest.approx(100 * share)


def _only(option):
    scores = torch.zeros(SPACE.shape)
    scores[:, SPACE.decisions[0].options.index(option)] = 1
    return scores


# ---------------------------------------------------------------------- curvature


@pytest.mark.parametrize(
    ("method", "space"),
    [("pc_darts", SPACE), ("dropnas", Ragged()), ("snas", SPACE)]
    + [pytest.param(name, SPACE, marks=pytest.mark.full) for name in ("drnas", "gdas", "darts")],
)
def test_the_eigenvalue_is_that_of_the_whole_matrix(method, space):
    """Against torch's own Hessian of the loss written out here, in float64, all parameters of a method in one."""
    probe = probe_of(method, space)
    names = [name for name, p in probe.method.named_parameters()]
    values = [p.detach().clone() for p in probe.method.parameters()]
    images = probe.feed.judging(0)
    index = images[torch.randperm(len(images), generator=_stream())][:IMAGES]
    x, y = next(probe.feed.plain(index))

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.method = probe.method

        def forward(self):
            return F.cross_entropy(probe.supernet(x, self.method.mix(NOW.at("judge"))), y)

    loss = Loss()

    def by_vector(vector):
        parts = torch.split(vector, [v.numel() for v in values])
        given = {f"method.{n}": p.view_as(v) for n, p, v in zip(names, parts, values, strict=True)}
        return torch.func.functional_call(loss, given, ())

    probe.supernet.execution = "reference"
    with untouched(probe.supernet):
        probe.supernet.train()
        matrix = torch.autograd.functional.hessian(by_vector, torch.cat([v.flatten() for v in values]))
    probe.supernet.execution = "fused"
    expected = float(torch.linalg.eigvalsh(matrix)[-1])
    assert expected > 1e-4
    assert probe.hessian(NOW, tolerance=1e-10) == pytest.approx(expected, rel=1e-7)
    assert probe.hessian(NOW) == pytest.approx(expected, rel=2e-3)


def test_with_little_memory_the_images_are_taken_in_parts(monkeypatch):
    """The Hessian of the mean loss over the parts: here two of four images, each by its own statistics."""
    probe = probe_of()
    monkeypatch.setattr("gapless.engine.diagnostics.PART", 4)
    images = probe._fixed(probe.feed.judging(0), IMAGES)
    whole = probe.hessian(NOW, tolerance=1e-10)
    matrices = []
    for part in images.split(4):
        with probe._measuring(), edge_by_edge(probe.supernet):
            slope = probe._arch_gradient(NOW, part)
            rows = [torch.autograd.grad(g, probe.method.alpha, retain_graph=True)[0].flatten() for g in slope]
        matrices.append(torch.stack(rows))
    assert len(matrices) == 2
    probe.supernet.recompute = True
    expected = float(torch.linalg.eigvalsh(sum(matrices) / 2)[-1])
    assert probe.hessian(NOW, tolerance=1e-10) == pytest.approx(expected, rel=1e-7) != whole
    assert probe.supernet.recompute and probe.supernet.execution == "fused"


@pytest.mark.parametrize("method", ["spos", "rsps", "fairnas", "dsnas", "enas"])
def test_a_method_without_a_differentiable_loss_has_none(method):
    probe = probe_of(method)
    assert probe.hessian(NOW) is None
    assert all(0 <= value <= 100 for value in probe.accuracy().values())


def test_a_stage_with_some_of_the_classes_is_watched_by_these():
    space = NASBench201(size=8, width=4, cells=1, classes=4)
    method = made(lambda s: catalogue.find("da_nas", "methods")(s), space)
    search = Search(space, method, noise(space, 48), replace(TRAIN, epochs=6), precision="float64", watch=True)
    told = next(search.run()).diagnostics
    assert search.feed.classes(0) is not None and told.hessian is None
    assert sum(told.gradient_share.values()) == pytest.approx(1) and len(told.option_accuracy) == 4


def test_a_loss_that_is_no_number_has_no_curvature():
    probe = probe_of()
    next(probe.supernet.parameters()).data.fill_(math.nan)
    told = probe.measure(NOW)
    assert told.hessian is None and told.gradient_share is None


@pytest.mark.parametrize("size", [1, 2, 30])
def test_lanczos(size):
    g = torch.Generator().manual_seed(1)
    matrix = torch.randn(size, size, dtype=torch.float64, generator=g)
    matrix = matrix + matrix.T
    top = float(torch.linalg.eigvalsh(matrix)[-1])
    assert largest_eigenvalue(lambda v: matrix @ v, size, g, tolerance=1e-12) == pytest.approx(top, rel=1e-9)
    assert largest_eigenvalue(lambda v: 0 * v, size, g) == 0
    calls = []

    def counted(vector):
        calls.append(1)
        return matrix @ vector

    largest_eigenvalue(counted, size, g, steps=5, tolerance=0.0)
    assert len(calls) == min(5, size)


def test_a_custom_objective_is_the_one_that_bends():
    probe = probe_of()
    once = probe.hessian(NOW)

    def double(run, images, labels, mix):
        loss, logits = cross_entropy(run, images, labels, mix)
        return 2 * loss, logits

    assert replace(probe, objective=double).hessian(NOW) == pytest.approx(2 * once, rel=1e-6)
