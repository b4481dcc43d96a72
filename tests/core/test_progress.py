"""The clock, and random numbers that need no checkpoint."""

import torch

from gapless.core.progress import Progress, derive_seed, seeded, stream


def test_seeds_are_a_pure_function_of_the_key():
    assert derive_seed(0, "mix", 3) == derive_seed(0, "mix", 3) == 5880175153763215734  # the same on every machine
    keys = [(0, "mix", 3), (0, "mix", 4), (1, "mix", 3), (0, "mask", 3), (0, "mix", 34), (0, "mix3")]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(i) < 2**63 for i in range(100))


def test_a_stream_starts_afresh():
    assert torch.equal(torch.rand(3, generator=stream(1, "x")), torch.rand(3, generator=stream(1, "x")))


def test_seeded_puts_the_generator_back():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded("anything"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded("anything"):
        assert torch.equal(torch.rand(2), inside)


def test_every_pass_of_a_moment_has_numbers_of_its_own():
    now = Progress(step=3, seed=5)
    moments = [
        now,
        now.at("arch"),
        now.at("judge"),
        now.at("weights", 1),
        Progress(step=4, seed=5),
        Progress(step=3, seed=6),
    ]
    drawn = [float(torch.rand((), generator=m.stream())) for m in moments]
    assert len(set(drawn)) == len(drawn)
    assert float(torch.rand((), generator=now.stream("mask"))) not in drawn
    assert float(torch.rand((), generator=now.at("arch").stream())) == drawn[1]
