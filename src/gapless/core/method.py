"""What a weight-sharing method is: architecture parameters, a mix per pass, scores to read the answer off. It sees no
network and no data."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gapless.core.mix import Active, Mix
from gapless.core.plan import Plan, Released, Stage, Train
from gapless.core.progress import Progress
from gapless.core.settings import Ranged
from gapless.core.space import Space


@dataclass(frozen=True)
class Setting:
    """What a paper's released code uses on one space.

    Parameters
    ----------
    source
        Where the numbers stand: repository and script.
    train
        Training settings.
    space
        Fields of the space.
    method
        Settings of the method whose value depends on the space: in its ``__init__`` their default is None.
    variants
        Name of a switch of the method -> settings that replace those of ``method`` while it is on.
    released
        What the code does and the paper does not, for a method's ``faithful``.
    """

    source: str
    train: Train = field(default_factory=Train)
    space: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    released: Released = field(default_factory=Released)

    def resolve(self, **settings: Any) -> dict[str, Any]:
        """Return settings of the method, with the value of the space for each that is None.

        >>> setting = Setting("somewhere", method={"warmup": 0}, variants={"progressive": {"warmup": 10}})
        >>> setting.resolve(progressive=False, warmup=None), setting.resolve(progressive=True, warmup=None)
        ({'progressive': False, 'warmup': 0}, {'progressive': True, 'warmup': 10})
        >>> setting.resolve(progressive=True, warmup=3)
        {'progressive': True, 'warmup': 3}
        """
        usual = dict(self.method)
        for switch, values in self.variants.items():
            if settings.get(switch):
                usual |= values
        return {name: usual.get(name) if value is None else value for name, value in settings.items()}


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


class Method(Ranged, nn.Module, abc.ABC):
    """The base of every method. Subclasses take the space and keyword settings, and register their parameters.

    Class attributes
    ----------------
    source
        Title, authors, arXiv id: one line.
    settings
        Label of a space -> what the paper uses there; ``""`` is every other space.
    """

    of: ClassVar[str] = "method"
    source: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, Setting]] = {"": Setting("DARTS, arXiv 1806.09055, released code")}

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.paper = self.setting(space.label)
        self.register_buffer("alive", space.legal.clone())
        self.active = host(self.alive)
        self.readable = tuple(frozenset(d.eligible) for d in space.decisions)
        self.register_load_state_dict_post_hook(_refresh)  # type: ignore[no-untyped-call]

    paper: Setting
    """What the paper uses on this space."""
    alive: Tensor
    """[D, O]: the options that exist and are not pruned."""
    active: Active
    """The same on the host."""
    readable: tuple[frozenset[int], ...]
    """For each decision the columns that an architecture may hold."""

    @classmethod
    def setting(cls, space: str) -> Setting:
        """Return what the paper uses on the space of this label."""
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

    def begin(self, now: Progress) -> None:
        """Amend the parameters and the state at the beginning of an epoch."""
        return

    def settle(self, seen: Seen) -> None:
        """Amend the parameters after an optimiser step."""
        return

    def narrow(self, stage: Stage) -> None:
        """Prune at the start of a stage: keep the ``stage.keep`` best living options by ``scores``, of each decision or
        of all.

        Of those kept of a decision at least one can be read off: where only others would be left, the best one that can
        takes the last place.
        """
        if stage.keep is None:
            return
        scores = self.scores().detach().masked_fill(~self.alive, -torch.inf)
        if stage.over == "all":
            self._narrow_all(scores, stage.keep)
        else:
            self._narrow_each(scores, stage.keep)
        self.active = host(self.alive)

    def _narrow_all(self, scores: Tensor, keep: int | float) -> None:
        """Drop the worst options, whichever decisions they answer, but the last of a decision that can be read off."""
        living = [(float(scores[row, column]), row, column) for row, column in self.alive.nonzero().tolist()]
        share = float(keep) if isinstance(keep, float) else keep * len(self.readable) / len(living)
        surplus = len(living) - round(share * len(living))
        for _, row, column in sorted(living):
            if surplus <= 0:
                return
            left = [c for c in self.alive[row].nonzero().flatten().tolist() if c != column]
            if self.readable[row].isdisjoint(left):
                continue
            self.alive[row, column] = False
            surplus -= 1

    def _narrow_each(self, scores: Tensor, keep: int | float) -> None:
        for row, readable in enumerate(self.readable):
            living = int(self.alive[row].sum())
            count = keep if isinstance(keep, int) else max(1, round(keep * living))
            order = scores[row].argsort(descending=True, stable=True)[:living].tolist()
            kept = order[:count]
            if readable.isdisjoint(kept):
                kept[-1] = next(column for column in order if column in readable)
            self.alive[row] = False
            self.alive[row, kept] = True

    def passes(self, now: Progress) -> int:
        """Return the forward passes per update (``Plan.gradients`` says what becomes of theirs); in the phase ``judge``
        those whose accuracies are averaged."""
        return 1


class OneShot(Method):
    """The base of methods that train weights only and prefer nothing: whoever judges by these weights chooses."""

    def passes(self, now: Progress) -> int:
        """Return one; evaluation averages over five draws."""
        return 5 if now.phase == "judge" else 1

    def scores(self) -> Tensor:
        """Return the probabilities: nothing is preferred."""
        return self.probabilities()

    def probabilities(self) -> Tensor:
        """Return the uniform distribution over living options."""
        return self.alive / self.alive.sum(dim=-1, keepdim=True)


@runtime_checkable
class Rewarded(Protocol):
    """A method that learns from how good its architectures are, and not from a gradient at the mix. The engine looks
    for it: architecture passes are then judged, not differentiated."""

    def regret(self, mix: Mix, loss: Tensor, accuracy: Tensor) -> Tensor:
        """Return a scalar whose gradient moves the parameters, for one pass.

        Parameters
        ----------
        mix
            That of the pass, with its graph (``log_prob``).
        loss, accuracy
            Of the supernet under it on a batch for the architecture, detached; accuracy as a share.
        """
        ...


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
