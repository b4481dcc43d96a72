"""Adam on architecture parameters beside ``torch.optim.Adam``."""

import pytest
import torch
from torch import Tensor, nn

from gapless.core.plan import Adam
from gapless.engine.adam import ArchAdam


class Two(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.alpha = nn.Parameter(torch.randn(2, 3, dtype=dtype))
        self.beta = nn.Parameter(torch.randn(4, dtype=dtype))


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "alpha": torch.randn(2, 3, dtype=torch.float64, generator=generator),
        "beta": torch.randn(4, dtype=torch.float64, generator=generator),
    }


MASK = torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(
    "settings", [Adam(), Adam(lr=0.1, betas=(0.9, 0.99), decay=0.0), Adam(lr=6e-3, decay=0.5, eps=1e-3)]
)
def test_without_a_mask_it_is_adam(settings):
    ours, theirs = Two(), Two()
    adam = ArchAdam(ours, settings)
    reference = torch.optim.Adam(
        theirs.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=settings.decay, eps=settings.eps
    )
    for step in range(50):
        adam.step(gradients(step))
        for name, p in theirs.named_parameters():
            p.grad = gradients(step)[name]
        reference.step()
        for (_, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-12)


def test_a_mask_of_all_is_no_mask():
    one, other = Two(), Two()
    masked, plain = ArchAdam(one, Adam()), ArchAdam(other, Adam())
    for step in range(3):
        masked.step(gradients(step), mask={"alpha": torch.ones(2, 3, dtype=torch.bool)})
        plain.step(gradients(step))
    assert torch.equal(one.alpha, other.alpha)
    assert torch.equal(one.beta, other.beta)


def test_entries_outside_the_mask_keep_value_and_moments_bit_for_bit():
    module = Two()
    adam = ArchAdam(module, Adam(lr=0.1, decay=0.1))
    adam.step(gradients(0))
    before = [t.detach().clone() for t in (module.alpha, adam.mean["alpha"], adam.square["alpha"])]
    beta = module.beta.detach().clone()
    adam.step(gradients(1), mask={"alpha": MASK})
    after = (module.alpha.detach(), adam.mean["alpha"], adam.square["alpha"])
    for a, b in zip(after, before, strict=True):
        assert torch.equal(a[~MASK], b[~MASK])
        assert (a[MASK] != b[MASK]).all()
    assert (module.beta.detach() != beta).all()


def test_entries_inside_the_mask_move_as_without_one():
    one, other = Two(), Two()
    masked, plain = ArchAdam(one, Adam()), ArchAdam(other, Adam())
    masked.step(gradients(0), mask={"alpha": MASK})
    plain.step(gradients(0))
    assert torch.equal(one.alpha[MASK], other.alpha[MASK])


def test_bias_correction_counts_all_steps():
    """An entry that first takes part at the third step is corrected by 1 - beta ** 3."""
    module = Two()
    settings = Adam(lr=1.0, betas=(0.5, 0.9), decay=0.0, eps=0.0)
    adam = ArchAdam(module, settings)
    before = module.alpha.detach().clone()
    for step in range(3):
        adam.step(gradients(step), mask={"alpha": MASK if step < 2 else ~MASK})
    g = gradients(2)["alpha"]
    expected = before - (0.5 * g / (1 - 0.5**3)) / (0.1 * g * g / (1 - 0.9**3)).sqrt()
    torch.testing.assert_close(module.alpha.detach()[~MASK], expected[~MASK])


def test_a_parameter_without_a_gradient_rests():
    module = Two()
    beta = module.beta.detach().clone()
    ArchAdam(module, Adam(decay=1.0)).step({"alpha": gradients(0)["alpha"]})
    assert torch.equal(module.beta, beta)


def test_decay_can_be_given_for_a_step():
    one, other = Two(), Two()
    ArchAdam(one, Adam(decay=0.5)).step(gradients(0), decay=0.0)
    ArchAdam(other, Adam(decay=0.0)).step(gradients(0))
    assert torch.equal(one.alpha, other.alpha)


def test_the_first_step_by_hand():
    """The first step of Adam is lr * g / (|g| + eps), whatever the size of g."""
    module = Two()
    before = module.alpha.detach().clone()
    ArchAdam(module, Adam(lr=0.25, decay=0.0, eps=1e-30)).step(gradients(0))
    torch.testing.assert_close(module.alpha.detach(), before - 0.25 * gradients(0)["alpha"].sign())


def test_moments_move_to_a_device():
    adam = ArchAdam(Two(), Adam()).to("cpu")
    assert {t.device.type for t in (*adam.mean.values(), *adam.square.values())} == {"cpu"}
