"""Small spaces, methods and images to test with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.choose import Choose
from gapless.core.decision import Decision, Keep
from gapless.core.method import Method, living, start
from gapless.core.mix import Mix
from gapless.core.op import AvgPool, Conv, Depthwise, Halves, MaxPool, Norm, NormRule, Op, Relu, Zero
from gapless.core.plan import Plan
from gapless.core.progress import Progress, seeded, stream
from gapless.core.space import Space
from gapless.data.images import Augment, ImageData, Split, statistics
from gapless.spaces.patched import Patched

OPS: dict[str, Op] = {
    "conv": Op((Relu(), Conv(3), Norm())),
    "sep": Op((Relu(), Depthwise(3), Conv(1), Norm())),
    "dil": Op((Relu(), Depthwise(5, dilation=2), Conv(1), Norm())),
    "max": Op((MaxPool(3), Norm(affine=False))),
    "avg": Op((AvgPool(3),)),
    "skip": Op((), strided=(Relu(), Halves(), Norm())),
    "skip#2": Op((), strided=(Relu(), Halves(), Norm())),
    "none": Op((Zero(),)),
}
CELL = Cell(
    inputs=2,
    edges=(
        Edge(0, 2, "2<-0", stride=2),
        Edge(0, 3, "3<-0", stride=2),
        Edge(1, 3, "3<-1", stride=2),
        Edge(2, 4, "4<-2"),
        Edge(3, 4, "4<-3"),
        Edge(0, 4, "4<-0", stride=2),
    ),
    output=(3, 4),
)
GROUPS = {
    "conv": "weights",
    "sep": "weights",
    "dil": "weights",
    "max": "free",
    "avg": "free",
    "skip": "free",
    "skip#2": "free",
    "none": "free",
}


@dataclass(frozen=True, kw_only=True)
class Ragged(Space):
    """A chain of free sites and a strided cell: one to four options a decision, edges kept, an option that may not be
    read off.

    Parameters
    ----------
    width
        Channels; even, and twice ``partial`` divides it.
    affine
        Whether normalisation in the cells has a scale and a shift.
    partial
        One of so many channels of the cells goes through the operations.
    """

    source: ClassVar[str] = "made for tests"
    label: ClassVar[str] = "ragged"
    size: int = 8
    width: int = 8
    affine: bool = False
    partial: int = 1

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Three blocks of a chain, then the six edges of the cell."""

        def edge(name: str, *options: str, never: tuple[str, ...] = ()) -> Decision:
            return Decision(name, options, into=name[0], groups={o: GROUPS[o] for o in options}, never=never)

        return (
            Decision("first", ("point", "pool"), groups={"point": "weights", "pool": "free"}),
            Decision("second", ("conv", "skip")),
            Decision("third", ("point",), groups={"point": "weights"}),
            edge("2<-0", "sep", "skip"),
            edge("3<-0", "none", "max", "conv", never=("none",)),
            edge("3<-1", "avg", "skip"),
            edge("4<-2", "skip", "skip#2", "dil"),
            edge("4<-3", "conv", "none"),
            edge("4<-0", "sep", "none", "max", "avg", never=("none",)),
        )

    @property
    def limits(self) -> tuple[Keep, ...]:
        """One edge into node 3 and two of three into node 4."""
        return Keep(("3<-0", "3<-1"), 1), Keep(("4<-2", "4<-3", "4<-0"), 2)

    def build(self, choose: Choose) -> nn.Module:
        """Return stem, chain, two cells, classifier."""
        norm, width = NormRule(affine=self.affine), self.width

        def block(label: str) -> nn.Module:
            match label:
                case "conv":
                    return nn.Sequential(
                        nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
                    )
                case "point":
                    return nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1))
                case "pool":
                    return nn.AvgPool2d(3, stride=1, padding=1)
                case _:
                    return nn.Identity()

        stem = nn.Sequential(nn.Conv2d(self.channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        chain = nn.Sequential(*(choose.op(name, block) for name in ("first", "second", "third")))
        cells = [choose.cell(CellSpec(CELL, OPS, width, norm, self.partial, drop_path=True)) for _ in range(2)]
        return RaggedNetwork(stem, chain, cells, nn.Conv2d(2 * width, width, 1), nn.Linear(2 * width, self.classes))


class RaggedNetwork(nn.Module):
    """The network of :class:`Ragged`."""

    def __init__(
        self, stem: nn.Module, chain: nn.Module, cells: list[nn.Module], between: nn.Module, classifier: nn.Module
    ) -> None:
        super().__init__()
        self.stem, self.chain, self.cells, self.between, self.classifier = (
            stem,
            chain,
            nn.ModuleList(cells),
            between,
            classifier,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = self.stem(x)
        first, second = self.cells
        y = self.between(first(x, self.chain(x)))
        logits: Tensor = self.classifier(second(y, y).mean(dim=(2, 3)))
        return logits


def patched() -> Patched:
    """Return a small model as a space: swaps by module, by function, and the original itself."""
    with seeded("patched model"):
        model = nn.Sequential()
        model.add_module("stem", nn.Conv2d(3, 4, 3, padding=1, bias=False))
        model.add_module("body", nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)))
        model.add_module("tail", nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
        model.add_module("head", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)))
        point = nn.Conv2d(4, 4, 1)
    return Patched(
        model=model,
        swaps={
            "body.2": {"same": None, "point": point, "grouped": grouped},
            "tail": {"same": None, "smooth": nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), nn.BatchNorm2d(4))},
        },
        size=8,
    )


def grouped(original: nn.Module) -> nn.Module:
    """Return a convolution like the original in two groups."""
    assert isinstance(original, nn.Conv2d)
    return nn.Conv2d(original.in_channels, original.out_channels, 3, padding=1, groups=2, bias=False)


PLAN = Plan()


class Softmax(Method):
    """``softmax(alpha)`` per decision, trained by whatever plan it is given.

    Parameters
    ----------
    plan
        How the engine trains it.
    turns
        Forward passes per update.
    """

    label = "softmax"
    source = "made for tests"

    def __init__(self, space: Space, *, plan: Plan = PLAN, turns: int = 1) -> None:
        super().__init__(space)
        self.alpha = start(space)
        self._plan, self.turns = plan, turns

    @property
    def plan(self) -> Plan:
        """As given."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Return ``softmax(alpha)``."""
        return Mix(self.scores(), self.active)

    def scores(self) -> Tensor:
        """Return ``softmax(alpha)``."""
        return living(self.alpha, self.alive).softmax(dim=-1)

    def passes(self, now: Progress) -> int:
        """Return ``turns``."""
        return self.turns


class Paths(Method):
    """One uniform architecture per pass; nothing but weights is trained.

    Parameters
    ----------
    inactive
        As in :class:`gapless.core.plan.Plan`.
    """

    label = "paths"
    source = "made for tests, after Guo et al., arXiv 1904.00420"

    def __init__(self, space: Space, *, inactive: Literal["skip", "coast"] = "skip") -> None:
        super().__init__(space)
        self.space = space
        self._plan = Plan(coupling="weights_only", inactive=inactive)

    @property
    def plan(self) -> Plan:
        """Weights only."""
        return self._plan

    def mix(self, now: Progress) -> Mix:
        """Draw living options, and which decisions are present."""
        generator = now.stream("path")
        drawn = self.space.decode(torch.rand(self.space.shape, generator=generator) + self.alive.cpu())
        return self.space.one_hot(drawn, dtype=torch.get_default_dtype(), device=self.alive.device)

    def scores(self) -> Tensor:
        """Return 1 for living options: they are all alike."""
        return self.alive.float()

    def probabilities(self) -> Tensor:
        """Return the uniform distribution over living options."""
        return self.alive / self.alive.sum(dim=-1, keepdim=True)


def noise(space: Space, images: int = 16, *, seed: int = 0) -> ImageData:
    """Return random images of the size that a space wants, in memory, with a crop and a flip as augmentation."""
    generator = stream(seed, "noise")
    splits = []
    for count in (images, max(4, images // 4)):
        pixels = torch.randint(256, (count, *space.image_shape), generator=generator, dtype=torch.uint8)
        splits.append(Split(pixels, torch.randint(space.classes, (count,), generator=generator)))
    mean, std = statistics(splits[0].pixels.numpy())
    names = tuple(map(str, range(space.classes)))
    return ImageData("noise", "made for tests", names, splits[0], splits[1], mean, std, Augment(pad=1, flip=True))
