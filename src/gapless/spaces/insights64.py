"""The space of 64 networks whose ranking can be measured: three edges, four operations each ("Deeper Insights into
Weight Sharing in Neural Architecture Search", Zhang et al., arXiv 2001.01431)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError
from gapless.core.op import Norm, NormRule, Op
from gapless.core.picture import Picture
from gapless.core.settings import Depth, Range, Side
from gapless.core.space import Space
from gapless.ops.cells import dilated, find, normal

EDGES = (Edge(0, 1, "1<-0"), Edge(0, 2, "2<-0"), Edge(1, 2, "2<-1"))
POOL, FREE = "max_pool_3x3", "free"


@dataclass(frozen=True, kw_only=True)
class Insights64(Space):
    """64 networks, named by three digits: the operations 1 to 4 on the edges 1<-0, 2<-0, 2<-1.

    Where paper and released code differ, the defaults are those of the code, by which the published table of true
    accuracies was measured: a cell concatenates its nodes (paper: adds them), and the fourth operation is the dilated
    separable convolution of kernel 5 (paper: 3).

    Parameters
    ----------
    width
        Channels of each node of a cell; the stem has three times as many.
    cells
        Number of cells; none of them reduces the resolution.
    output
        Output of a cell: its two nodes concatenated (``concat``) or added (``sum``).
    dilated
        Kernel size of the dilated convolution.
    affine
        Whether the batch normalisation inside cells has a scale and a shift.
    momentum
        Momentum of the running statistics of batch normalisation.
    """

    source: ClassVar[str] = "Deeper Insights into Weight Sharing, Zhang et al., arXiv 2001.01431"
    label: ClassVar[str] = "insights64"
    scale: ClassVar[tuple[str, ...]] = ("width", "cells")
    width: Side = 16
    cells: Depth = 4
    output: Literal["concat", "sum"] = "concat"
    dilated: Literal[3, 5] = 5
    affine: bool = False
    momentum: Annotated[float, Range(above=0, most=1)] = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, legal in (("output", ("concat", "sum")), ("dilated", (3, 5))):
            value = getattr(self, name)
            if value not in legal:
                raise UserError(f"`{name}` must be one of {', '.join(map(str, legal))}; got {value!r}.", of="space")

    @property
    def options(self) -> tuple[str, ...]:
        """The operations 1 to 4."""
        return (POOL, "sep_conv_3x3", "sep_conv_5x5", f"dil_conv_{self.dilated}x{self.dilated}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The three edges ``target<-source``, sorted."""
        groups = {o: FREE if o == POOL else "weights" for o in self.options}
        return tuple(Decision(e.ask, self.options, into=str(e.target), groups=groups) for e in EDGES)

    def build(self, choose: Choose) -> nn.Module:
        """Return the stem of two convolutions, the cells, pooling, classifier."""
        norm = NormRule(affine=self.affine, momentum=self.momentum)
        ops: dict[str, Op] = {o: find(o) for o in self.options[1:3]}
        ops = {POOL: Op((*find(POOL).layers, Norm())), **ops, self.options[3]: dilated(self.dilated)}
        shape = Cell(inputs=1, edges=EDGES, output=(1, 2))
        before = 3 * self.width
        blocks = []
        for _ in range(self.cells):
            body = choose.cell(CellSpec(shape, ops, self.width, norm))
            point = normal(1).build(self.width, inputs=before, norm=norm)
            blocks.append(Insights64Cell(point, body, add=self.output == "sum"))
            before = self.width * (1 if self.output == "sum" else 2)
        layers: list[nn.Module] = []
        for inputs in (self.channels, 3 * self.width):
            layers.append(nn.Conv2d(inputs, 3 * self.width, 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(3 * self.width, momentum=self.momentum))
        last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return Insights64Network(nn.Sequential(*layers), nn.Sequential(*blocks), last, nn.Linear(before, self.classes))

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether the text is three digits."""
        return len(text.strip()) == 3 and text.strip().isdigit()

    def write(self, arch: Arch) -> str:
        """Return the three digits, such as ``434``."""
        return "".join(str(self.options.index(arch[e.ask]) + 1) for e in EDGES)

    def parse(self, text: str) -> Arch:
        """Read three digits from 1 to 4."""
        digits = text.strip()
        if len(digits) != 3 or not set(digits) <= set("1234"):
            raise UserError(f"{text!r} is no network of insights64, which are three digits from 1 to 4, such as 434.")
        return Arch({e.ask: self.options[int(d) - 1] for e, d in zip(EDGES, digits, strict=True)})

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the cell."""
        return (Picture("", ("input", "1", "2"), tuple((e.source, e.target, arch[e.ask]) for e in EDGES)),)

    def every(self) -> tuple[Arch, ...]:
        """Return all 64, in the order 111, 112, ..., 444 of the published table."""
        digits = [f"{a}{b}{c}" for a in range(1, 5) for b in range(1, 5) for c in range(1, 5)]
        return tuple(map(self.parse, digits))


class Insights64Cell(nn.Module):
    """A pointwise convolution in front of the graph."""

    def __init__(self, point: nn.Module, body: nn.Module, add: bool) -> None:
        super().__init__()
        self.point = point
        self.body = body
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 2 width, H, W], or to [N, width, H, W] where the nodes are added."""
        y: Tensor = self.body(self.point(x))
        if not self.add:
            return y
        first, second = torch.chunk(y, 2, dim=1)
        return first + second


class Insights64Network(nn.Module):
    """Stem, cells, pooling, classifier."""

    def __init__(self, stem: nn.Module, cells: nn.Module, last: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cells
        self.last = last
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        logits: Tensor = self.classifier(self.last(self.cells(self.stem(x))))
        return logits


SPACE = Insights64
