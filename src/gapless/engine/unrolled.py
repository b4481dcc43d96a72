"""The second-order architecture gradient of DARTS (arXiv 1806.09055, equations 5 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Closure = Callable[[], Tensor]
"""Computes a loss at the present values of the leaves."""


def hypergradient(
    weights: Sequence[Tensor],
    arch: Sequence[Tensor],
    train_loss: Closure,
    valid_loss: Closure,
    *,
    xi: float,
    drift: Callable[[], Sequence[Tensor]] | None = None,
    epsilon: float = 0.01,
) -> tuple[list[Tensor], Tensor]:
    """Return (gradient with respect to the architecture, validation loss) after one virtual training step.

    ``w' = w - xi * (dL_train/dw + drift)``; the gradient is ``d_arch L_valid(w', arch) - xi * H v`` with ``v = d_w'
    L_valid(w', arch)`` and ``H v ~ (d_arch L_train(w + r v) - d_arch L_train(w - r v)) / 2r``, ``r = epsilon / |v|``.
    The weights are restored bit for bit.

    Parameters
    ----------
    weights, arch
        Leaf tensors that the losses depend on.
    train_loss, valid_loss
        Closures that compute the training and the validation loss.
    xi
        Learning rate of the virtual step. 0: the result is the first-order gradient.
    drift
        Returns the terms that the virtual step adds to the gradient (momentum and weight decay in the released code).
    epsilon
        Norm of the finite difference; 0.01 in the paper and its code.
    """
    start = [w.detach().clone() for w in weights]
    if xi == 0:
        loss = valid_loss()
        return _grad(loss, arch), loss.detach()
    step = _grad(train_loss(), weights)
    if drift is not None:
        step = [g + d for g, d in zip(step, drift(), strict=True)]
    try:
        with torch.no_grad():
            for w, g in zip(weights, step, strict=True):
                w.sub_(g, alpha=xi)
        loss = valid_loss()
        both = _grad(loss, [*arch, *weights])
        direct, v = both[: len(arch)], both[len(arch) :]
        norm = torch.stack([t.norm() for t in v]).norm()  # stays on the device: no synchronisation
        radius = epsilon / norm.clamp_min(1e-12)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for w, s, t in zip(weights, start, v, strict=True):
                    w.copy_(s).add_(t * radius, alpha=sign)
            sides.append(_grad(train_loss(), arch))
    finally:
        with torch.no_grad():
            for w, s in zip(weights, start, strict=True):
                w.copy_(s)
    return [d - xi * (p - n) / (2 * radius) for d, p, n in zip(direct, *sides, strict=True)], loss.detach()


def _grad(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, gradients, strict=True)]
