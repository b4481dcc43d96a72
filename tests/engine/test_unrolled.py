"""The second-order gradient of DARTS, on the toy of its paper and on a supernet."""

import pytest
import torch
from torch import Tensor

from gapless.engine.unrolled import hypergradient
from gapless.methods.darts import DARTS
from gapless.testing.examples import Ragged
from gapless.testing.methods import made
from gapless.testing.spaces import images, supernet_of


class Toy:
    """L_train = (w - alpha) ** 2, L_valid = alpha * w - 2 * alpha + 1, from alpha = 2, w = -2."""

    def __init__(self, alpha: float = 2.0, w: float = -2.0) -> None:
        self.alpha = torch.tensor([alpha], dtype=torch.float64, requires_grad=True)
        self.w = torch.tensor([w], dtype=torch.float64, requires_grad=True)

    def train_loss(self) -> Tensor:
        return (self.w - self.alpha).square().sum()

    def valid_loss(self) -> Tensor:
        return (self.alpha * self.w - 2 * self.alpha + 1).sum()

    def gradient(self, xi: float, **more) -> Tensor:
        (found,), _ = hypergradient([self.w], [self.alpha], self.train_loss, self.valid_loss, xi=xi, **more)
        return found


@pytest.mark.parametrize("xi", [0.0, 0.1, 0.5, 0.7])
@pytest.mark.parametrize(("alpha", "w"), [(2.0, -2.0), (0.3, 1.7), (-1.0, 0.5)])
def test_the_hypergradient_is_exact_where_the_loss_is_quadratic(alpha, w, xi):
    """It is (w' - 2) + 2 * xi * alpha with w' = w - 2 * xi * (w - alpha)."""
    ahead = w - 2 * xi * (w - alpha)
    assert float(Toy(alpha, w).gradient(xi)) == pytest.approx((ahead - 2) + 2 * xi * alpha, abs=1e-11)


@pytest.mark.parametrize(("xi", "limit"), [(0.0, 2.0), (0.5, 1.0), (0.7, 1 / 1.2)])
def test_alternating_descent_converges_to_what_the_horizon_says(xi, limit):
    """alpha = w = 2 / (1 + 2 * xi): 2, 1 and .8333."""
    toy = Toy()
    for _ in range(700):
        g = toy.gradient(xi)
        with torch.no_grad():
            toy.alpha -= 0.05 * g
        (d,) = torch.autograd.grad(toy.train_loss(), [toy.w])
        with torch.no_grad():
            toy.w -= 0.1 * d
    assert float(toy.alpha.detach()) == pytest.approx(limit, abs=1e-9)
    assert float(toy.w.detach()) == pytest.approx(limit, abs=1e-9)
    assert limit == pytest.approx(2 / (1 + 2 * xi))


def test_without_a_virtual_step_it_is_the_first_order_gradient():
    """Bit for bit, on a network."""
    space = Ragged()
    supernet, x = supernet_of(space).train(), images(space)
    mix = made(DARTS, space).double().mix(None).leaves()

    def loss() -> Tensor:
        return supernet(x, mix).square().mean()

    weights = list(supernet.parameters())
    (found,), value = hypergradient(weights, [mix.weight], loss, loss, xi=0.0)
    (plain,) = torch.autograd.grad(loss(), [mix.weight])
    assert torch.equal(found, plain)
    assert torch.equal(value, loss().detach())


def test_weights_are_put_back_bit_for_bit():
    space = Ragged()
    supernet, x = supernet_of(space).train(), images(space)
    mix = made(DARTS, space).double().mix(None).leaves()
    before = [p.detach().clone() for p in supernet.parameters()]
    (found,), _ = hypergradient(
        list(supernet.parameters()),
        [mix.weight],
        lambda: supernet(x, mix).square().mean(),
        lambda: supernet(x + 1, mix).square().mean(),
        xi=0.1,
    )
    assert torch.isfinite(found).all()
    assert all(torch.equal(p.detach(), b) for p, b in zip(supernet.parameters(), before, strict=True))
    assert all(p.grad is None for p in supernet.parameters())


@pytest.mark.parametrize("failing", ["valid", "train"])
def test_weights_are_put_back_when_a_loss_fails(failing):
    toy, calls = Toy(), []

    def fail(loss, at: int):
        def wrapped() -> Tensor:
            calls.append(0)
            if len(calls) == at:
                raise RuntimeError("no memory")
            return loss()

        return wrapped

    train = fail(toy.train_loss, 2 if failing == "train" else 0)
    valid = fail(toy.valid_loss, 2) if failing == "valid" else toy.valid_loss
    with pytest.raises(RuntimeError, match="no memory"):
        hypergradient([toy.w], [toy.alpha], train, valid, xi=0.5)
    assert float(toy.w.detach()) == -2.0


def test_a_drift_is_part_of_the_virtual_step():
    """w' = w - xi * (dL_train/dw + drift)."""
    xi, drift = 0.5, 3.0
    ahead = -2 - xi * (2 * (-2 - 2) + drift)
    found = Toy().gradient(xi, drift=lambda: [torch.tensor([drift], dtype=torch.float64)])
    assert float(found) == pytest.approx((ahead - 2) + 2 * xi * 2, abs=1e-11)


def test_a_validation_loss_without_weights_has_no_second_term():
    toy = Toy()
    (found,), loss = hypergradient([toy.w], [toy.alpha], toy.train_loss, lambda: (3 * toy.alpha).sum(), xi=0.5)
    assert found.tolist() == [3.0]
    assert not loss.requires_grad


def test_the_finite_difference_is_close_to_the_exact_second_derivative():
    """On a smooth network of two layers, against differentiation through the virtual step."""
    torch.manual_seed(0)
    w = [
        torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(1, 3, dtype=torch.float64, requires_grad=True),
    ]
    alpha = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x, y = torch.randn(2, 4, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)

    def loss(weights: list[Tensor], side: int) -> Tensor:
        return (
            ((weights[1] @ (alpha.softmax(0)[:, None] * (weights[0] @ x[side]).tanh())).squeeze(0) - y[side])
            .square()
            .mean()
        )

    xi = 0.1
    step = torch.autograd.grad(loss(w, 0), w, create_graph=True)
    (exact,) = torch.autograd.grad(loss([a - xi * g for a, g in zip(w, step, strict=True)], 1), [alpha])
    (found,), _ = hypergradient(w, [alpha], lambda: loss(w, 0), lambda: loss(w, 1), xi=xi)
    (first,), _ = hypergradient(w, [alpha], lambda: loss(w, 0), lambda: loss(w, 1), xi=0.0)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)
    assert float((first - exact).abs().max()) > 100 * float((found - exact).abs().max())
