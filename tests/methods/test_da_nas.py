"""DA-NAS-style pruning, after arXiv 2003.12563."""

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded, stream
from gapless.engine.search import Search
from gapless.methods.da_nas import DANAS
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, noise
from gapless.testing.methods import flat, story

SPACE = NASBench201(size=8, width=4, cells=1)
TRAIN = Train(epochs=6, batch=4, lr=0.05)


def made(space=SPACE, **settings) -> DANAS:
    with seeded("da_nas"):
        return DANAS(space, **settings)


def search_of(space=SPACE, images: int = 40, **settings) -> Search:
    return Search(space, made(space, **settings), noise(space, images), TRAIN, draws=4)


def test_its_stages_use_3_6_and_10_classes_of_ten():
    search = search_of()
    search.feed.order = torch.arange(10)
    found = [search.feed.classes(stage) for stage in range(3)]
    assert [10 if c is None else len(c) for c in found] == [3, 6, 10]


@pytest.mark.parametrize("space", [SPACE, Ragged()], ids=lambda s: s.label)
def test_survivors_never_grow_never_vanish_and_are_the_declared_share(space):
    """The total behind each pruning is 0.6 of the one before, up to rounding, where every decision keeps one."""
    search = search_of(space)
    method, before = search.method, search.method.alive.clone()
    for epoch in range(6):
        search.run_epoch()
        assert (before | ~method.alive).all()
        assert (method.alive & space.eligible).any(dim=-1).all()
        if epoch in (2, 4):
            wanted = max(space.shape[0], round(0.6 * int(before.sum())))
            assert int(method.alive.sum()) == wanted
        before = method.alive.clone()


def test_what_is_pruned_is_never_drawn_and_has_no_probability_and_no_gradient():
    search = search_of()
    for _ in range(5):
        search.run_epoch()
    method, gone = search.method, SPACE.legal & ~search.method.alive
    assert gone.any()
    alpha = method.alpha.detach().clone()
    for step in range(60):
        mix = method.mix(Progress(step=step).at("arch"))
        assert not mix.weight[gone].any()
        mix.backward({"gain": torch.randn(6, generator=stream("g", step))})
    assert not method.scores()[gone].any()
    torch.testing.assert_close(method.scores().sum(dim=-1), torch.ones(6))
    assert not method.alpha.grad[gone].any()
    search.run_epoch()
    assert torch.equal(method.alpha.detach()[gone], alpha[gone])


def test_without_pruning_and_with_all_classes_the_stages_change_nothing():
    """Bit for bit the run of one stage: the same records but for the stage's number, the same weights and alpha."""
    staged = search_of(classes=(1.0, 1.0, 1.0), prune=0.0, warmup_share=0.0)
    plain = search_of(classes=(1.0,), prune=0.0, warmup_share=0.0)
    tales = [[{**story(r), "stage": 0} for r in search.run()] for search in (staged, plain)]
    assert tales[0] == tales[1]
    one, other = flat(staged.state_dict()), flat(plain.state_dict())
    assert all(
        torch.equal(one[k], other[k]) if isinstance(one[k], torch.Tensor) else one[k] == other[k]
        for k in one
        if k != "stage"
    )


def test_a_pruning_drops_the_moments_of_alphas_optimiser():
    search = search_of(warmup_share=0.0)
    for _ in range(2):
        search.run_epoch()
    assert any(m.any() for m in search.updater.arch_optimiser.square.values())
    search.enter(1)
    assert search.updater.arch_optimiser.steps == 0
    assert not any(m.any() for m in search.updater.arch_optimiser.square.values())


def test_each_stage_begins_with_the_weights_alone():
    search = search_of(warmup_share=0.5)
    moved = []
    for _ in range(6):
        before = search.method.alpha.detach().clone()
        search.run_epoch()
        moved.append(not torch.equal(before, search.method.alpha.detach()))
    assert moved == [False, True] * 3


def test_the_gradient_of_alpha_by_hand():
    """R_d (onehot(z_d) - p_d), as in DSNAS."""
    method = made()
    with torch.no_grad():
        method.alpha.normal_(generator=torch.Generator().manual_seed(1))
    mix = method.mix(Progress(step=4).at("arch"))
    credit = torch.linspace(-1, 1, 6)
    mix.backward({"gain": credit})
    torch.testing.assert_close(method.alpha.grad, credit[:, None] * (mix.weight - method.scores().detach()))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("classes", (0.5, 0.4, 1.0)),
        ("classes", (0.5,)),
        ("classes", ()),
        ("classes", (0.0, 1.0)),
        ("prune", 1.0),
        ("warmup_share", 1.0),
    ],
)
def test_a_setting_out_of_range_is_a_sentence(setting, value):
    with pytest.raises(UserError, match=f"`{setting}` must"):
        DANAS(SPACE, **{setting: value})
