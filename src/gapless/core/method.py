"""What a weight-sharing method is: architecture parameters, a mix per pass, scores to read the answer off. It sees no
network and no data."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gapless.core.mix import Active, Mix
from gapless.core.plan import Plan, Stage, Train
from gapless.core.progress import Progress
from gapless.core.space import Space


@dataclass(frozen=True)
class Setting:
    """What a paper's released code uses on one space: fields of the space, training settings, and where that is
    written."""

    source: str
    train: Train = field(default_factory=Train)
    space: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method is shown after a step, detached.

    Attributes
    ----------
    now
        The moment, with the phase of the pass.
    mix
        The mix that ran.
    loss, accuracy
        Of the batch; accuracy as a share.
    gradient
        The gradient at the mix: ``weight`` [D, O] and, where given, ``gain`` and ``offset`` [D].
    before
        The method's parameters before the step, by name.
    """

    now: Progress
    mix: Mix
    loss: Tensor
    accuracy: Tensor
    gradient: Mapping[str, Tensor]
    before: Mapping[str, Tensor]


class Method(nn.Module, abc.ABC):
    """The base of every method. Subclasses take the space and keyword settings, and register their parameters.

    Class attributes
    ----------------
    source
        Title, authors, arXiv id: one line.
    settings
        Space name -> what the paper uses there; ``""`` stands for every other space.
    """

    source: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, Setting]] = {"": Setting("DARTS, arXiv 1806.09055, released code")}

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.register_buffer("alive", space.legal.clone())
        self.active = host(self.alive)
        self.readable = tuple(frozenset(d.eligible) for d in space.decisions)
        self.register_load_state_dict_post_hook(_refresh)  # type: ignore[no-untyped-call]

    alive: Tensor
    """[D, O]: the options that exist and are not pruned."""
    active: Active
    """The same on the host."""
    readable: tuple[frozenset[int], ...]
    """For each decision the columns that an architecture may hold."""

    @classmethod
    def setting(cls, space: str) -> Setting:
        """Return what the paper uses on a space."""
        return cls.settings.get(space, cls.settings[""])

    @property
    @abc.abstractmethod
    def plan(self) -> Plan:
        """How the engine trains this method."""

    @abc.abstractmethod
    def mix(self, now: Progress) -> Mix:
        """Return how the next forward pass weighs the options; its graph leads to this module's parameters."""

    @abc.abstractmethod
    def scores(self) -> Tensor:
        """Return [D, O], finite: the better the option, the larger."""

    def probabilities(self) -> Tensor:
        """Return [D, O] with a graph to the parameters: how likely each option is the answer; living rows sum to 1.

        By default the weights of the mix that judges.
        """
        return self.mix(Progress(phase="judge")).weight

    def sample_scores(self, generator: torch.Generator) -> Tensor:
        """Return [D, O], the scores of one architecture drawn from the distribution that the search holds now.

        By default an independent draw for each decision: Gumbel noise on the logarithm of the probabilities.
        """
        p = self.probabilities().detach()
        tiny = torch.finfo(p.dtype).tiny
        uniform = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype).clamp_min(tiny)
        return p.clamp_min(tiny).log() - (-uniform.log()).clamp_min(tiny).log()

    def penalty(self, now: Progress) -> Tensor | None:
        """Return a scalar added to the architecture's loss, with a graph to this module's parameters."""
        return None

    def settle(self, seen: Seen) -> None:
        """Amend the parameters after an optimiser step."""
        return

    def narrow(self, stage: Stage) -> None:
        """Prune at the start of a stage: keep the ``stage.keep`` best living options of each decision by ``scores``.

        Of those kept at least one can be read off: where only others would be left, the best one that can takes the
        last place.
        """
        if stage.keep is None:
            return
        scores = self.scores().detach().masked_fill(~self.alive, -torch.inf)
        for row, readable in enumerate(self.readable):
            living = int(self.alive[row].sum())
            keep = stage.keep if isinstance(stage.keep, int) else max(1, round(stage.keep * living))
            order = scores[row].argsort(descending=True, stable=True)[:living].tolist()
            kept = order[:keep]
            if readable.isdisjoint(kept):
                kept[-1] = next(column for column in order if column in readable)
            self.alive[row] = False
            self.alive[row, kept] = True
        self.active = host(self.alive)

    def passes(self, now: Progress) -> int:
        """Return the forward passes per update; their gradients are summed."""
        return 1


def host(mask: Tensor) -> Active:
    """Return the columns that a [D, O] mask allows, row by row, as host integers."""
    return tuple(tuple(i for i, on in enumerate(row) if on) for row in mask.tolist())


def _refresh(method: nn.Module, _: object) -> None:
    assert isinstance(method, Method)
    method.active = host(method.alive)


def start(space: Space) -> nn.Parameter:
    """Return architecture parameters [D, O] drawn from 1e-3 * N(0, 1) on PyTorch's global generator (DARTS and all that
    follow it)."""
    return nn.Parameter(1e-3 * torch.randn(space.shape))


def living(scores: Tensor, alive: Tensor) -> Tensor:
    """Return scores with minus infinity where an option is pruned or does not exist, for a softmax over the rest."""
    return scores.masked_fill(~alive, -torch.inf)
