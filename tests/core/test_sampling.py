"""What samplers draw with."""

import math

import pytest
import torch

from gapless.core.method import host
from gapless.core.progress import stream
from gapless.core.sampling import concrete, gumbel, path, pick, uniform
from gapless.testing.examples import Ragged
from gapless.testing.spaces import belongs

CHI2 = {1: 15.1, 2: 18.4, 3: 21.1, 4: 23.5}
"""Degrees of freedom -> what chi-squared exceeds once in ten thousand times."""


def test_gumbel_noise_has_its_mean_and_variance():
    g = gumbel(torch.zeros(200_000, dtype=torch.float64), stream("gumbel"))
    assert float(g.mean()) == pytest.approx(0.5772, abs=0.015)
    assert float(g.var()) == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_gumbel_noise_is_finite_and_at_least_float32():
    """Uniform numbers of 0 and 1 would give infinities; half precision is too coarse to draw in."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value in (0.0, 1.0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "rand", lambda *a, value=value, **k: torch.full((4,), value, dtype=k["dtype"]))
                g = gumbel(torch.zeros(4, dtype=dtype), stream("edge"))
            assert torch.isfinite(g).all()
            assert g.dtype == torch.promote_types(dtype, torch.float32)


def test_a_cold_concrete_sample_is_nearly_one_hot_and_sums_to_one():
    logits = torch.randn(4000, 5, generator=stream("logits"))
    w = concrete(logits, 1e-3, stream("cold"))
    assert torch.allclose(w.sum(dim=-1), torch.ones(4000))
    assert float((w.amax(dim=-1) >= 0.99).float().mean()) > 0.95


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.03])
def test_the_largest_entry_follows_the_softmax_at_any_temperature(temperature):
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    w = concrete(p.log().expand(20_000, 4), temperature, stream("argmax"))
    found = torch.bincount(w.argmax(dim=-1), minlength=4) / 20_000
    assert ((found - p).abs() < 3 * (p * (1 - p) / 20_000).sqrt()).all()


def test_pick_draws_by_probability_and_never_what_has_none():
    p = torch.tensor([0.0, 0.25, 0.75]).expand(20_000, 3)
    found = torch.bincount(torch.tensor(pick(p, stream("pick"))), minlength=3) / 20_000
    assert found[0] == 0
    assert float(found[1]) == pytest.approx(0.25, abs=0.01)


def test_uniform_architectures_are_uniform_in_decisions_and_options():
    """A chi-squared test per decision that is always present, and for which decisions are, on a ragged space."""
    space = Ragged()
    active, count = host(space.legal), 20_000
    drawn = [uniform(space, active, stream("uniform", i)) for i in range(count)]
    belongs(space, drawn[0])
    limited = {name for limit in space.limits for name in limit.among}
    for d in space.decisions:
        here = [arch[d.name] for arch in drawn if d.name in arch]
        options = [d.options[i] for i in d.eligible]
        if len(options) > 1:
            expected = len(here) / len(options)
            chi2 = sum((here.count(o) - expected) ** 2 / expected for o in options)
            assert chi2 < CHI2[len(options) - 1], d.name
        share = next((limit.count / len(limit.among) for limit in space.limits if d.name in limit.among), 1.0)
        assert (d.name in limited) or len(here) == count
        assert abs(len(here) / count - share) <= 4 * math.sqrt(share * (1 - share) / count)


def test_uniform_architectures_hold_living_options_only():
    space = Ragged()
    alive = space.legal.clone()
    row = space.rows["4<-0"]
    alive[row, space.decisions[row].options.index("sep")] = False
    found = {uniform(space, host(alive), stream("alive", i)).get("4<-0") for i in range(300)}
    assert found == {None, "max", "avg"}


def test_a_path_has_the_type_of_its_example():
    mix = path((1, None), torch.zeros(2, 3, dtype=torch.float64))
    assert mix.weight.dtype == torch.float64
    assert mix.weight.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert mix.active == ((1,), ())
