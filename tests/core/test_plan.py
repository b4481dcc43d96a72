"""Plans and stages."""

import pytest

from gapless.core.errors import UserError
from gapless.core.plan import Plan, Stage

HALVES = (Stage(0.5), Stage(0.5, keep=2))
THIRDS = (Stage(1 / 3), Stage(1 / 3), Stage(1 / 3))


@pytest.mark.parametrize(
    ("stages", "epochs", "lengths"),
    [
        ((Stage(),), 50, (50,)),
        (HALVES, 50, (25, 25)),
        (HALVES, 3, (2, 1)),
        (THIRDS, 10, (3, 4, 3)),
        (THIRDS, 3, (1, 1, 1)),
        ((Stage(0.9), Stage(0.1)), 10, (9, 1)),
    ],
)
def test_the_epochs_of_stages_sum_to_what_was_asked(stages, epochs, lengths):
    found = Plan(stages=stages).stage_epochs(epochs)
    assert found == lengths
    assert sum(found) == epochs


def test_too_few_epochs_are_refused():
    with pytest.raises(UserError, match="1 epochs are too few for 2 stages"):
        Plan(stages=HALVES).stage_epochs(1)


def test_a_warm_up_must_leave_an_epoch():
    assert Plan(stages=HALVES, warmup_epochs=4).stage_epochs(10) == (5, 5)
    with pytest.raises(UserError, match="warm-up of 5 epochs in each stage leaves no epoch of 5"):
        Plan(stages=HALVES, warmup_epochs=5).stage_epochs(10)
    assert Plan(coupling="weights_only", warmup_epochs=5).stage_epochs(5) == (5,)


def test_shares_must_sum_to_one():
    with pytest.raises(ValueError, match=r"sum to 0\.7"):
        Plan(stages=(Stage(0.5), Stage(0.2))).stage_epochs(10)
