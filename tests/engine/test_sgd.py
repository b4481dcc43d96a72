"""The optimiser of weights."""

import torch
from torch import nn

from gapless.engine.sgd import start_momentum


def test_a_weight_that_first_moves_later():
    """Masks: the fused optimiser takes the steps of the plain one, also where some weights have moved and others not."""
    found = []
    for fused in (False, True):
        weights = [nn.Parameter(torch.full((3,), float(i))) for i in range(3)]
        optimiser = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)
        if fused:
            optimiser.register_step_pre_hook(start_momentum)
        for moving in ((0,), (0, 1), (1,), (0, 1, 2)):
            optimiser.zero_grad()
            for i in moving:
                weights[i].grad = torch.randn(3, generator=torch.Generator().manual_seed(10 * i + len(moving)))
            optimiser.step()
        found.append(torch.stack([w.detach() for w in weights]))
    torch.testing.assert_close(found[0], found[1])
