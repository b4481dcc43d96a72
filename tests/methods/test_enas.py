"""ENAS by hand: arXiv 1802.03268."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.core.plan import Train
from gapless.core.progress import Progress, seeded, stream
from gapless.engine.search import Search
from gapless.methods.enas import ENAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing.examples import Ragged, noise
from gapless.testing.spaces import belongs

SPACE = NASBench201(size=8, width=4, cells=1)
RESULTS = Path(__file__).parents[2] / "results"


def made(space=SPACE, spread: float = 0.0, seed: int = 0, **settings) -> ENAS:
    with seeded("enas", seed):
        method = ENAS(space, **settings)
        if spread:
            with torch.no_grad():
                for p in method.parameters():
                    p.normal_(std=spread)
    return method


def at(step: int = 0, phase: str = "arch", turn: int = 0, seed: int = 0) -> Progress:
    return Progress(epoch=0, epochs=10, step=step, phase=phase, turn=turn, seed=seed)


@pytest.mark.parametrize("space", [SPACE, Ragged(), Darts(options="drnas")], ids=lambda s: s.label)
def test_the_log_probability_is_that_of_the_tokens_by_teacher_forcing(space):
    """Read again token by token, the sum of the log-softmaxes of what was written is the same number."""
    method = made(space, spread=0.7)
    written: list[int] = []

    def remember(log_p: torch.Tensor) -> int:
        written.append(int(torch.multinomial(log_p.exp(), 1, generator=generator)))
        return written[-1]

    generator = stream("teacher")
    walk = method.walk(remember)
    forced, logs, entropies = iter(written), [], []

    def force(log_p: torch.Tensor) -> int:
        which = next(forced)
        logs.append(log_p[0, which])
        entropies.append(-(log_p.exp() * log_p).sum())
        return which

    again = method.walk(force)
    assert again.columns == walk.columns
    torch.testing.assert_close(walk.log_prob, torch.stack(logs).sum())
    torch.testing.assert_close(walk.entropy, torch.stack(entropies).sum())
    assert float(walk.log_prob.detach()) < 0


def test_a_sample_is_an_architecture_and_names_as_many_decisions_as_may_be_present():
    for space in (Ragged(), Darts(options="drnas")):
        method = made(space, spread=1.0)
        for i in range(20):
            columns = method.sample(stream("sample", i)).columns
            arch = space.decode(method.sample_scores(stream("sample", i)))
            belongs(space, arch)
            assert space.choice(arch) == columns


def test_the_controller_begins_nearly_uniform():
    """Its entropy per edge lies within 1 % of log 5."""
    walk = made().sample(stream("first"))
    assert float(walk.entropy.detach()) / 6 == pytest.approx(math.log(5), rel=0.01)


def test_what_is_sampled_follows_the_probabilities_of_the_first_token():
    method = made(spread=0.7)
    p, count = method.greedy().probabilities[0].detach(), 500
    found = torch.bincount(torch.tensor([method.sample(stream("f", i)).columns[0] for i in range(count)]), minlength=5)
    assert ((found / count - p).abs() <= 4 * (p * (1 - p) / count).sqrt() + 1e-9).all()


def test_a_regret_by_hand():
    """-log pi (r - b) / samples with b moved by this sample first."""
    method = made(samples=4, decay=0.9, entropy=0.5)
    method.level.fill_(0.2)
    log_prob, entropy = torch.tensor(-3.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    regret = method.regret(
        Mix(torch.zeros(6, 5), log_prob=log_prob, entropy=entropy), torch.tensor(1.0), torch.tensor(0.6)
    )
    reward = 0.6 + 0.5 * 2.0
    level = 0.2 - 0.1 * (0.2 - reward)
    assert float(regret.detach()) == pytest.approx(3.0 * (reward - level) / 4)
    assert float(method.level) == pytest.approx(level)
    regret.backward()
    assert float(log_prob.grad) == pytest.approx(-(reward - level) / 4)
    assert entropy.grad is None


def test_the_entropy_in_the_reward_has_a_gradient_only_where_asked():
    """With it, the gradient lowers the entropy where the log-probability is negative: the slip of released code."""
    method = made(samples=1, decay=0.9, entropy=0.5, entropy_grad=True)
    log_prob, entropy = torch.tensor(-3.0), torch.tensor(2.0, requires_grad=True)
    regret = method.regret(
        Mix(torch.zeros(6, 5), log_prob=log_prob, entropy=entropy), torch.tensor(1.0), torch.tensor(0.6)
    )
    regret.backward()
    assert float(entropy.grad) == pytest.approx(3.0 * 0.5 * 0.9)  # descended: the entropy falls


@pytest.mark.parametrize(("update", "carried"), [("per_epoch_last", 0.9), ("per_epoch_mean", 0.7)])
def test_a_baseline_that_moves_by_epochs_takes_the_accuracy_at_first_and_then_what_it_carries(update, carried):
    """D-X-Y/AutoDL-Projects: in the first epoch the advantage is the entropy's alone; later epochs move from what the
    last one left, each sample on its own."""
    method = made(samples=1, decay=0.9, entropy=0.0, baseline=update)
    log_prob = torch.tensor(-1.0)

    def advantage(accuracy: float) -> float:
        mix = Mix(torch.zeros(6, 5), log_prob=log_prob, entropy=torch.tensor(1.0))
        return float(method.regret(mix, torch.tensor(1.0), torch.tensor(accuracy)))

    method.begin(at())
    assert [advantage(a) for a in (0.5, 0.9)] == [0, 0]
    method.begin(at())
    assert float(method.level) == pytest.approx(carried)
    assert advantage(1.0) == pytest.approx(1.0 - (carried - 0.1 * (carried - 1.0)))
    assert advantage(0.4) == pytest.approx(0.4 - (carried - 0.1 * (carried - 0.4)))


@pytest.mark.recipe
def test_on_the_bandit_the_advantage_leans_to_nothing_per_sample_and_to_one_side_per_epoch():
    """The bandit of results/enas_bandit.py, with ten times the rate. As the rewards climb, a baseline that moves with
    every sample keeps up; one that an epoch moves by a hundredth of the way stays where the first epoch left it, and
    nearly all of what is sampled is reinforced: by what the rewards have gained, or, where the last sample of the epoch
    was a lucky one, held back."""
    spec = importlib.util.spec_from_file_location("enas_bandit", RESULTS / "enas_bandit.py")
    bandit = importlib.util.module_from_spec(spec)
    sys.modules["enas_bandit"] = bandit
    spec.loader.exec_module(bandit)
    lean: dict[str, list[float]] = {}
    for baseline in ("per_step", "per_epoch_last", "per_epoch_mean"):
        for seed in range(2):
            *_, first, last = bandit.run(baseline, seed, 150, every=50, arch_lr=1e-2, steps=25)
            assert last.expected_reward > 0.25  # 0.2 is chance
            assert first.updates == 100
            lean.setdefault(baseline, []).append(last.advantage)
    assert max(map(abs, lean["per_step"])) < 0.01
    assert min(lean["per_epoch_mean"]) > 0.05
    assert sum(map(abs, lean["per_epoch_last"])) / 2 > 0.05


def test_the_controller_moves_behind_the_epoch_only():
    search = Search(SPACE, made(steps=3, samples=2), noise(SPACE, 16), Train(epochs=2, batch=4))
    method, seen = search.method, []
    regret, update = method.regret, search.updater.step
    method.regret = lambda *a: seen.append(search.step) or regret(*a)

    def watch(*args, **kwargs):
        before = {n: p.detach().clone() for n, p in method.named_parameters()}
        answer = update(*args, **kwargs)
        assert all(torch.equal(before[n], p) for n, p in method.named_parameters())
        return answer

    search.updater.step = watch
    list(search.run())
    assert seen == [2] * 6 + [4] * 6  # two steps an epoch; three updates of two samples behind each


def test_rewards_leave_the_supernet_as_it_was():
    search = Search(SPACE, made(steps=2, samples=2), noise(SPACE, 16), Train(epochs=1, batch=4, validate_every=0))
    states = []
    step = search.updater.arch_step

    def watch(*args, **kwargs):
        states.append({k: v.clone() for k, v in search.supernet.state_dict().items()})
        return step(*args, **kwargs)

    search.updater.arch_step = watch
    list(search.run())
    final = search.supernet.state_dict()
    assert len(states) == 2
    assert all(torch.equal(value, final[name]) for state in states for name, value in state.items())


def test_all_candidates_are_judged_by_the_same_images():
    search = Search(SPACE, made(candidates=3, images=4, steps=1, samples=1), noise(SPACE, 16), Train(epochs=1, batch=4))
    bench, asked = search.bench(), []
    measure = bench.measure

    def watch(mix, batches):
        seen = list(batches)
        asked.append(torch.cat([x for x, _ in seen]))
        return measure(mix, seen)

    bench.measure = watch
    search.method.pick(bench)
    assert len(asked) == 3
    assert all(torch.equal(asked[0], other) for other in asked)


@pytest.mark.parametrize(("setting", "value"), [("steps", 0), ("samples", 0), ("candidates", 0), ("decay", 1.0)])
def test_a_setting_out_of_range_is_a_sentence(setting, value):
    with pytest.raises(UserError, match=f"`{setting}` must"):
        ENAS(SPACE, **{setting: value})
