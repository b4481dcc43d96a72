"""The optimiser of weights."""

import torch
from torch import nn

from gapless.engine.sgd import SGD, start_momentum


def test_the_numbers_are_those_of_pytorch():
    """Bit for bit: steps, what is saved, and steps after it is read again."""
    found = []
    for kind in (SGD, torch.optim.SGD):
        weight = nn.Parameter(torch.linspace(-1, 1, 5))
        optimiser = kind([weight], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
        for step in range(4):
            if step == 2:
                saved = optimiser.state_dict()
                optimiser = kind([weight], lr=1.0, momentum=0.5)
                optimiser.load_state_dict(saved)
            optimiser.zero_grad()
            weight.sin().sum().backward()
            optimiser.step()
        optimiser.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
        found.append((weight.detach(), optimiser.state[weight]["momentum_buffer"], len(optimiser.param_groups)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2] == 2


def test_a_weight_that_first_moves_later():
    """Masks: the fused optimiser takes the steps of the plain one, also where some weights have moved and others not."""
    found = []
    for fused in (False, True):
        weights = [nn.Parameter(torch.full((3,), float(i))) for i in range(3)]
        optimiser = SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)
        if fused:
            optimiser.register_step_pre_hook(start_momentum)
        for moving in ((0,), (0, 1), (1,), (0, 1, 2)):
            optimiser.zero_grad()
            for i in moving:
                weights[i].grad = torch.randn(3, generator=torch.Generator().manual_seed(10 * i + len(moving)))
            optimiser.step()
        found.append(torch.stack([w.detach() for w in weights]))
    torch.testing.assert_close(found[0], found[1])
