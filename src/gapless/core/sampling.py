"""What samplers draw with: Gumbel noise, one option per decision, uniform architectures. Every draw is from a given
generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gapless.core.decision import Arch
from gapless.core.mix import Active, Mix, one_hot
from gapless.core.space import Space

FROM, TO = 1e-10, 1 - 1e-7
"""What uniform numbers are clamped to, so that noise is finite in float32."""


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return Gumbel(0, 1) noise ``-log(-log U)`` of the shape, type and device of ``like``; at least float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=dtype)
    return -(-uniform.clamp(FROM, TO).log()).log()


def concrete(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Return a concrete (Gumbel softmax) sample per row, ``softmax((logits + G) / temperature)``, with a graph to
    ``logits`` [D, O] (arXiv 1611.00712, 1611.01144).

    Options at minus infinity have zero. The largest entry is distributed as ``softmax(logits)`` at any temperature.
    """
    return ((logits + gumbel(logits, generator)) / temperature).softmax(dim=-1)


def pick(probabilities: Tensor, generator: torch.Generator) -> tuple[int, ...]:
    """Return a column per row, drawn from the probabilities [D, O], as host integers.

    >>> pick(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.Generator())
    (1, 0)
    """
    scores = probabilities.detach().log() + gumbel(probabilities, generator)
    return tuple(scores.argmax(dim=-1).tolist())


def path(columns: Sequence[int | None], like: Tensor) -> Mix:
    """Return the mix of one option per decision (None: absent), in the type and on the device of ``like``."""
    return one_hot(columns, like.shape[-1], dtype=like.dtype, device=like.device)


def gated(log_p: Tensor, columns: Sequence[int]) -> Mix:
    """Return the path of one option per decision, with gates ``exp(log p(z) - stopgrad(log p(z)))``: their value is 1,
    and the gradient that arrives at them is the credit of the decision, ``<dL/d(output), output>`` (DSNAS, arXiv
    2002.09128, section 3.2).

    Parameters
    ----------
    log_p
        [D, O], with a graph.
    columns
        The option of each decision.
    """
    index = torch.tensor(columns, device=log_p.device).unsqueeze(-1)
    drawn = log_p.gather(-1, index).squeeze(-1)
    mix = path(columns, log_p)
    return Mix(mix.weight, mix.active, gain=(drawn - drawn.detach()).exp(), log_prob=drawn.sum())


def uniform(space: Space, active: Active, generator: torch.Generator) -> Arch:
    """Draw an architecture: which decisions are present, then for each a living option that can be read off, all
    uniformly and independently.

    Parameters
    ----------
    space
        Whose decisions these are.
    active
        For each decision the columns that are alive.
    generator
        On the host.
    """
    absent: set[str] = set()
    for limit in space.limits:
        order = torch.randperm(len(limit.among), generator=generator).tolist()
        absent |= {limit.among[i] for i in order[limit.count :]}
    choice = {}
    for d, living in zip(space.decisions, active, strict=True):
        if d.name not in absent:
            free = [column for column in living if d.options[column] not in d.never]
            choice[d.name] = d.options[free[int(torch.randint(len(free), (), generator=generator))]]
    return Arch(choice)
