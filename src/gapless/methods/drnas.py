"""DrNAS: Dirichlet Neural Architecture Search. Chen, Wang, Cheng, Tang, Hsieh. ICLR 2021, arXiv 2006.10355.

The weights of an edge are a random point of the simplex, ``p ~ Dirichlet(c)`` with ``c = ELU(alpha) + 1``, drawn afresh
for every forward pass and differentiated through the sampler (section 3). ``alpha`` descends ``E[L_val] + lambda * d(c,
1)``: ``l2`` is Adam's coupled decay on alpha (what the code does), ``kl`` is ``lambda * sum over edges of KL(Dir(c) ||
Dir(1))``. Progressive learning (section 4) starts with few channels and all options; at a stage boundary it keeps the
best options and widens the network.

Where paper and released code differ (``faithful=True`` does what the code did):
* the code samples over all columns, zeroes the pruned ones and renormalises; by neutrality that is Dirichlet(c_M) on
  the kept ones, which we draw;
* the learning rate starts again at its initial value at a stage boundary (faithful: the recursive curve from there;
  clean: one curve);
* on NAS-Bench-201 the code clips weights and alpha by one common norm (faithful only);
* evaluation passes sample too (faithful); ours use the mean ``c / sum(c)``;
* both read off ``softmax(alpha)``; ``read="mean"`` ranks by the Dirichlet mean, the paper's words. The option per edge
  is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gapless.core.errors import UserError
from gapless.core.method import Method, Setting, living, start
from gapless.core.mix import Mix
from gapless.core.plan import Adam, Plan, Released, Stage, Train
from gapless.core.progress import Progress
from gapless.core.settings import Natural, NonNegative, Whole, fields_of
from gapless.core.space import Space

ONE_STAGE: dict[str, Any] = {"partials": (), "keep": (), "warmup": 0}
BENCH = Setting(
    "xiangning-chen/DrNAS, 201-space/train_search.py, and with progressive train_search_progressive.py",
    Train(epochs=100),
    method={**ONE_STAGE, "arch_lr": 3e-4},
    variants={"progressive": {"partials": (4, 2), "keep": (3,), "warmup": 10}},
    released=Released(lr_after_stage="restart"),
)


class DrNAS(Method):
    """DrNAS, plain or progressive.

    Parameters
    ----------
    regulariser
        Regulariser that pulls the concentration to 1: ``l2`` or ``kl``.
    anchor
        Strength of the regulariser (released code: 1e-3).
    progressive
        Whether the search has stages with pruning and widening.
    partials
        Parts of the channels, of which one goes through the operations, in each stage of progressive learning (released
        code in the DARTS space: 6 then 4, on ImageNet 6 then 3; on NAS-Bench-201 4 then 2).
    keep
        Options kept per decision at the start of each stage but the first (released code in the DARTS space: 4; on
        NAS-Bench-201: 3).
    warmup
        Epochs at the start of each stage in which only weights are trained (released code: 0, with progressive 10).
    arch_lr
        Learning rate of Adam on alpha (released code in the DARTS space: 6e-4, on ImageNet 6e-3; on NAS-Bench-201:
        3e-4).
    arch_clip
        Bound on the norm of alpha's gradient (released code: none, on ImageNet 5). 0: no bound.
    read
        Ranking of the options: by ``softmax`` of alpha (the code) or by the Dirichlet ``mean`` (the paper).
    faithful
        Whether to do as the released code did where paper and code differ: learning rate, clip and evaluation.
    """

    label: ClassVar[str] = "drnas"
    source: ClassVar[str] = "DrNAS, Chen, Wang, Cheng, Tang and Hsieh, arXiv 2006.10355"
    settings: ClassVar[Mapping[str, Setting]] = {
        "nasbench201": replace(BENCH, released=Released(lr_after_stage="restart", clip_over="weights+arch")),
        "darts": Setting(
            "xiangning-chen/DrNAS, DARTS-space/train_search.py",
            Train(epochs=50, lr=0.1, lr_min=0.0),
            {"options": "drnas"},
            method={**ONE_STAGE, "arch_lr": 6e-4},
            variants={"progressive": {"partials": (6, 4), "keep": (4,), "warmup": 10}},
            released=Released(lr_after_stage="restart"),
        ),
        "": BENCH,
    }

    def __init__(
        self,
        space: Space,
        *,
        regulariser: Literal["l2", "kl"] = "l2",
        anchor: NonNegative = 1e-3,
        progressive: bool = False,
        partials: tuple[Natural, ...] | None = None,
        keep: tuple[Natural, ...] | None = None,
        warmup: Whole | None = None,
        arch_lr: NonNegative | None = None,
        arch_clip: NonNegative = 0.0,
        read: Literal["softmax", "mean"] = "softmax",
        faithful: bool = False,
    ) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self.regulariser, self.anchor, self.read, self.faithful = regulariser, anchor, read, faithful
        if (partials or keep) and not progressive:
            raise UserError(
                "`partials` and `keep` describe the stages of progressive learning: set `progressive`, too.",
                of="method",
            )
        own = self.paper.resolve(progressive=progressive, partials=partials, keep=keep, warmup=warmup, arch_lr=arch_lr)
        self._plan = Plan(
            stages=learned_stages(space, own["partials"], own["keep"]) if progressive else (Stage(),),
            arch_clip=arch_clip or None,
            warmup_epochs=own["warmup"],
            released=self.paper.released if faithful else Released(),
            arch=Adam(lr=own["arch_lr"], decay=anchor if regulariser == "l2" else 0.0),
        )

    @property
    def plan(self) -> Plan:
        """Architecture first, then weights, every step; the stages of progressive learning."""
        return self._plan

    def concentration(self) -> Tensor:
        """Return [D, O] ``ELU(alpha) + 1``, at least the smallest normal number, and 1 where an option is pruned."""
        c = (F.elu(self.alpha) + 1).clamp_min(torch.finfo(self.alpha.dtype).tiny)
        return torch.where(self.alive, c, torch.ones_like(c))

    def mix(self, now: Progress) -> Mix:
        """Draw a point of the simplex per decision; evaluation uses the mean (faithful: draws too)."""
        if now.phase == "judge" and not self.faithful:
            return Mix(self.mean(), self.active)
        return Mix(dirichlet(self.concentration(), self.alive, now.stream("mix", self.alpha.device)), self.active)

    def mean(self) -> Tensor:
        """Return the Dirichlet mean over living options."""
        c = self.concentration() * self.alive
        return c / c.sum(dim=-1, keepdim=True)

    def probabilities(self) -> Tensor:
        """Return the Dirichlet mean."""
        return self.mean()

    def sample_scores(self, generator: torch.Generator) -> Tensor:
        """Draw a point of the simplex per decision."""
        return dirichlet(self.concentration(), self.alive, generator)

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)`` over living options, or the mean."""
        return self.mean() if self.read == "mean" else living(self.alpha, self.alive).softmax(dim=-1)

    def penalty(self, now: Progress) -> Tensor | None:
        """Return ``anchor * sum over decisions of KL(Dirichlet(c) || Dirichlet(1))`` over living options, or None for
        l2."""
        return self.anchor * divergence(self.concentration(), self.alive).sum() if self.regulariser == "kl" else None

    @torch.no_grad()
    def narrow(self, stage: Stage) -> None:
        """Keep the largest alphas of each decision; the others become 0, as in the released code."""
        super().narrow(stage)
        self.alpha.mul_(self.alive)


def learned_stages(space: Space, partials: tuple[int, ...], keep: tuple[int, ...]) -> tuple[Stage, ...]:
    """Return the stages of progressive learning, of equal length.

    Raises
    ------
    UserError
        Where the numbers do not fit together: a stage may widen and prune, not the reverse. Or the space has no partial
        channels.
    """
    if "partial" not in fields_of(type(space)):
        raise UserError(
            "`progressive` widens partial channels from stage to stage, and this space has none. Leave it out, or "
            "search a space of cells: nasbench201, darts.",
            of="method",
        )
    if not partials:
        raise UserError("`partials` must be at least one number, one for each stage; got none.", of="method")
    if len(keep) != len(partials) - 1:
        raise UserError(
            f"`keep` must be {len(partials) - 1} numbers, one for each stage of `partials` but the first; got "
            f"{len(keep)}.",
            of="method",
        )
    for name, numbers in (("partials", partials), ("keep", keep)):
        if min(numbers, default=1) < 1 or list(numbers) != sorted(numbers, reverse=True):
            raise UserError(
                f"`{name}` must be numbers from 1 on, none larger than the one before; got {list(numbers)}.",
                of="method",
            )
    stages = tuple(Stage(1 / len(partials), k, {"partial": p}) for p, k in zip(partials, (None, *keep), strict=True))
    for stage in stages:
        space.replace(**stage.space)  # a width that cannot be split is found now, not at the last boundary
    return stages


def divergence(c: Tensor, alive: Tensor) -> Tensor:
    """Return [D]: ``KL(Dirichlet(c) || Dirichlet(1, ..., 1))`` over the living options of each row.

    ``ln Gamma(c_0) - sum ln Gamma(c_o) - ln Gamma(K) + sum (c_o - 1) (psi(c_o) - psi(c_0))``. Pruned entries of ``c``
    must be 1: there both sums are zero.
    """
    total = (c * alive).sum(dim=-1, keepdim=True)
    count = alive.sum(dim=-1).to(c)
    terms = torch.where(alive, (c - 1) * (c.digamma() - total.digamma()), torch.zeros_like(c)).sum(dim=-1)
    return total.squeeze(-1).lgamma() - (c.lgamma() * alive).sum(dim=-1) - count.lgamma() + terms


def dirichlet(c: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
    """Draw [D, O] from ``Dirichlet(c)`` over the living options of each row, zeros elsewhere, with the pathwise
    gradient."""
    sample: Tensor = _Dirichlet.apply(c, alive, generator)  # type: ignore[no-untyped-call]
    return sample


class _Dirichlet(torch.autograd.Function):
    """The reparameterised Dirichlet (Figurnov et al., arXiv 1805.08498) on a stream of its own, as PyTorch's
    ``rsample`` differentiates it."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
        gamma = torch._standard_gamma(c, generator=generator).clamp_min(torch.finfo(c.dtype).tiny) * alive
        p = gamma / gamma.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(p, c, alive)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        p, c, alive = ctx.saved_tensors
        total = (c * alive).sum(dim=-1, keepdim=True).expand_as(c)
        inside = torch.where(
            alive, p, torch.full_like(p, 0.5)
        )  # a pruned entry has no derivative: any point inside will do
        slope = torch._dirichlet_grad(inside, c, total)
        found = slope * (grad - (p * grad).sum(dim=-1, keepdim=True))
        return torch.where(alive, found, torch.zeros_like(found)), None, None


METHOD = DrNAS
