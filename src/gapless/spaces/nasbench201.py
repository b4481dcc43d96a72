"""NAS-Bench-201: a cell of four nodes and six edges, five operations on each: 15,625 cells (Dong and Yang, arXiv
2001.00326)."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

from torch import Tensor, nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError, nearest
from gapless.core.op import Conv, Norm, NormRule, Op, Relu
from gapless.core.picture import Picture
from gapless.core.settings import Depth, Natural, Side
from gapless.core.space import Space
from gapless.ops.cells import find

OPTIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple(Edge(source, target, f"{target}<-{source}") for target in range(1, 4) for source in range(target))
CELL = Cell(inputs=1, edges=EDGES, output=(3,))
GROUPS = {o: "weights" if "conv" in o else "free" for o in OPTIONS}


STRING = re.compile(r"(?<![\w~+|])\|[^|~\s]+~\d+\|(?:\+\|[^+\s]+\|)+")
"""The benchmark's string inside of other text."""


@dataclass(frozen=True, kw_only=True)
class NASBench201(Space):
    """The topology space of NAS-Bench-201.

    Parameters
    ----------
    width
        Channels of the first stage; the second and third have two and four times as many.
    cells
        Cells per stage.
    affine
        Whether the normalisation inside cells has a scale and a shift (while searching: no; alone: yes).
    partial
        Number of equal parts of the channels, of which one goes through the operations (PC-DARTS, DrNAS). 1: all go.
    """

    source: ClassVar[str] = "NAS-Bench-201, Dong and Yang, arXiv 2001.00326"
    label: ClassVar[str] = "nasbench201"
    scale: ClassVar[tuple[str, ...]] = ("width", "cells")
    width: Side = 16
    cells: Depth = 5
    affine: bool = False
    partial: Natural = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.partial:
            raise UserError(
                f"`width` cannot be split into `partial` parts; got {self.width} and {self.partial}.", of="space"
            )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The six edges ``target<-source``, sorted."""
        return tuple(Decision(e.ask, OPTIONS, into=str(e.target), groups=GROUPS) for e in EDGES)

    def build(self, choose: Choose) -> nn.Module:
        """Return three stages of cells with a residual reduction between them."""
        blocks: list[nn.Module] = []
        ops = {o: find(o) for o in OPTIONS}
        norm = NormRule(affine=self.affine)
        width = self.width
        for stage in range(3):
            if stage:
                blocks.append(Reduction(width, 2 * width))
                width *= 2
            for _ in range(self.cells):
                blocks.append(choose.cell(CellSpec(CELL, ops, width, norm, self.partial)))
        stem = nn.Sequential(nn.Conv2d(self.channels, self.width, 3, padding=1, bias=False), nn.BatchNorm2d(self.width))
        last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return NASBench201Network(stem, nn.Sequential(*blocks), last, nn.Linear(width, self.classes))

    @property
    def protocol(self) -> str:
        """That of the benchmark."""
        return "nasbench201"

    def alone(self) -> Self:
        """Return the size that the benchmark trained: five cells per stage, 16 channels, affine normalisation."""
        return replace(self, width=16, cells=5, affine=True, partial=1)

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether the text has the benchmark's bars."""
        return "|" in text

    def write(self, arch: Arch) -> str:
        """Return the benchmark's string, as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
        nodes = itertools.groupby(EDGES, key=lambda e: e.target)
        return "+".join("|" + "".join(f"{arch[e.ask]}~{e.source}|" for e in edges) for _, edges in nodes)

    def parse(self, text: str) -> Arch:
        """Read the benchmark's string, which may stand in other text, as in a line of a log."""
        choice: dict[str, str] = {}
        inside = dict.fromkeys(STRING.findall(text))
        if len(inside) > 1:
            raise UserError(f"The text holds {len(inside)} different architectures of NAS-Bench-201; give one.")
        nodes = next(iter(inside), text.strip()).split("+")
        for target, node in enumerate(nodes, start=1):
            if not re.fullmatch(r"\|([^|~]+~\d+\|)+", node):
                raise UserError(
                    f"{text[:80]!r} is no architecture of NAS-Bench-201, which reads "
                    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|."
                )
            for part in node.strip("|").split("|"):
                option, _, source = part.partition("~")
                if option not in OPTIONS:
                    raise UserError(
                        f"NAS-Bench-201 has no operation {option!r}.{nearest(option, OPTIONS)} "
                        f"It has: {', '.join(OPTIONS)}."
                    )
                if f"{target}<-{source}" in choice:
                    raise UserError(f"{text!r} feeds node {target} from {source} twice.")
                choice[f"{target}<-{source}"] = option
        return Arch(choice)

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the cell, with the edges that are "none" marked so."""
        return (Picture("", ("input", "1", "2", "output"), tuple((e.source, e.target, arch[e.ask]) for e in EDGES)),)


class Reduction(nn.Module):
    """The residual block between stages: two ReLU-conv3x3-BN, the first at stride 2; a pooled pointwise shortcut."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.inputs, self.channels = inputs, channels
        conv = Op((Relu(), Conv(3), Norm()))
        self.first = conv.build(channels, inputs=inputs, stride=2)
        self.second = conv.build(channels)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(inputs, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 2C, ceil(H / 2), ceil(W / 2)]."""
        y: Tensor = self.shortcut(x) + self.second(self.first(x))
        return y


class NASBench201Network(nn.Module):
    """Stem, blocks, normalisation with pooling, classifier."""

    def __init__(self, stem: nn.Module, blocks: nn.Module, last: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.last = last
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        logits: Tensor = self.classifier(self.last(self.blocks(self.stem(x))))
        return logits


SPACE = NASBench201
