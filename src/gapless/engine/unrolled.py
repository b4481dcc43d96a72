"""The second-order architecture gradient of DARTS (arXiv 1806.09055, equations 5 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[], Tensor]


def hypergradient(
    weights: Sequence[Tensor],
    arch: Sequence[Tensor],
    train_loss: Loss,
    valid_loss: Loss,
    *,
    xi: float,
    drift: Callable[[], Sequence[Tensor]] | None = None,
    epsilon: float = 0.01,
) -> tuple[list[Tensor], Tensor]:
    """Return (the gradient of the architecture, the validation loss) at the weights one virtual training step ahead.

    ``w' = w - xi * (dL_train/dw + drift)``; the gradient is ``d_arch L_valid(w', arch) - xi * H v`` with ``v = d_w'
    L_valid(w', arch)`` and ``H v ~ (d_arch L_train(w + r v) - d_arch L_train(w - r v)) / 2r``, ``r = epsilon / |v|``.
    The weights are put back bit for bit.

    Parameters
    ----------
    weights, arch
        Leaves that the losses depend on.
    train_loss, valid_loss
        Compute the losses at the present values of the leaves.
    xi
        Learning rate of the virtual step; at 0 the result is the first-order gradient.
    drift
        What the virtual step adds to the gradient (momentum and weight decay in the released code).
    epsilon
        0.01 in the paper and its code.
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
        radius = epsilon / torch.stack([t.norm() for t in v]).norm().clamp_min(1e-12)  # stays on the device: no waiting
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
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
