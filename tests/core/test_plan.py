"""Plans and stages."""

import pytest

from gapless.core.errors import UserError
from gapless.core.plan import Plan, Released, Stage, Train

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


@pytest.mark.parametrize("coupling", ["joint", "unrolled", "weights_only"])
def test_a_block_needs_turns_and_images_of_its_own(coupling):
    with pytest.raises(ValueError, match="needs coupling='alternate'"):
        Plan(arch_block=1, coupling=coupling)
    assert Plan(arch_block=0, coupling=coupling).arch_block == 0
    assert Plan(arch_block=1).coupling == "alternate"


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_warm_up_is_a_share_below_one(share):
    with pytest.raises(UserError, match=f"`warmup_share` must be at least 0 and less than 1; got {share}") as caught:
        Plan(warmup_share=share)
    assert caught.value.names == ("method.warmup_share",)


def test_a_warm_up_by_share_is_rounded_down_and_yields_to_epochs():
    third = Plan(warmup_share=1 / 3)
    assert [third.warmup(epochs) for epochs in (1, 2, 3, 8, 30)] == [0, 0, 1, 2, 10]
    assert Plan(warmup_share=0.99).warmup(10) == 9  # always one left
    assert Plan(warmup_share=0.5, warmup_epochs=2).warmup(10) == 2
    assert Plan().warmup(10) == 0


def test_a_warm_up_has_no_negative_number_of_epochs():
    with pytest.raises(UserError, match="`warmup_epochs` must be at least 0; got -1") as caught:
        Plan(warmup_epochs=-1)
    assert caught.value.names == ("method.warmup_epochs",)


def test_by_default_nothing_that_samplers_brought_is_on():
    plan, stage, train = Plan(), Stage(), Train()
    assert (plan.arch_block, plan.batches, plan.gradients, plan.held_out) == (0, "share", "sum", False)
    assert (plan.arch_after_stage, plan.bn, plan.after, plan.warmup_share) == ("continue", "running", "retrain", 0.0)
    assert plan.released == Released("weights", "plain", "coupled", "continue")
    assert (stage.over, stage.classes) == ("each", 1.0)
    assert (train.decay_norms, train.label_smoothing, train.schedule) == (True, 0.0, "cosine")


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_label_smoothing_is_a_share(value):
    with pytest.raises(UserError, match="`label_smoothing` must"):
        Train(label_smoothing=value)
