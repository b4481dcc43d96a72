"""The laws of a judge: ``law(make_judge, space)``, where ``make_judge()`` returns it fresh, for architectures of that
space."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from gapless.core.judge import Judge
from gapless.core.progress import stream
from gapless.core.space import Space

MakeJudge = Callable[[], Judge]
ScoreLaw = Callable[[MakeJudge, Space], None]


def a_score_is_a_function_of_the_architecture(make_judge: MakeJudge, space: Space) -> None:
    """Two evaluations of one architecture give the identical number, whatever was judged before and between them, also
    by another judge made alike."""
    one, other = make_judge(), make_judge()
    archs = [space.sample(stream("law", i)) for i in range(3)]
    first = [one(arch) for arch in archs]
    assert [one(arch) for arch in reversed(archs)] == first[::-1], "the same architecture is judged otherwise again"
    assert [other(arch) for arch in reversed(archs)] == first[::-1], "two judges made alike judge otherwise"
    assert one.fingerprint == other.fingerprint, "two judges made alike have different fingerprints"


def a_score_can_be_compared(make_judge: MakeJudge, space: Space) -> None:
    """Scores are finite numbers, and not all the same."""
    judge = make_judge()
    scores = {judge(space.sample(stream("law", i))) for i in range(12)}
    assert all(isinstance(score, float) and math.isfinite(score) for score in scores), f"scores are {scores}"
    assert len(scores) > 1, f"twelve architectures are all judged {scores}"


def it_draws_on_no_global_generator(make_judge: MakeJudge, space: Space) -> None:
    """PyTorch's global generator stands where it stood."""
    judge = make_judge()
    state = torch.get_rng_state()
    judge(space.sample(stream("law", 0)))
    assert torch.equal(state, torch.get_rng_state()), "it draws from PyTorch's global generator"


def it_says_what_it_is(make_judge: MakeJudge, space: Space) -> None:
    """The class names its source, and the judge has a title."""
    judge = make_judge()
    assert type(judge).source, f"{type(judge).__name__}.source is empty: say where such scores are from"
    assert judge.title, "it has no title"


SCORE_LAWS: tuple[ScoreLaw, ...] = (
    a_score_is_a_function_of_the_architecture,
    a_score_can_be_compared,
    it_draws_on_no_global_generator,
    it_says_what_it_is,
)
