"""The cell space of TangleNAS: two cells of two nodes, four separable convolutions on each edge: 4,096 networks
("Weight-Entanglement Meets Gradient-Based Neural Architecture Search", arXiv 2312.10440).

The network is that of the released code (automl/TangleNAS, toy_search_spaces/cell_topology), which trained all of them
on Fashion-MNIST: a reduction, a normal and a reduction cell, dropout behind each, two linear layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError, nearest
from gapless.core.op import NormRule
from gapless.core.picture import Picture
from gapless.core.settings import Portion, Side
from gapless.core.size import halved
from gapless.core.space import Space
from gapless.ops.cells import find, normal

OPTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
GROUPS = dict.fromkeys(OPTIONS, "weights")
KINDS = ("normal", "reduce")
PAIRS = ((0, 1), (0, 2), (1, 2))
"""(source, target) of each edge, in the order of the notation."""
CELLS = {
    kind: Cell(
        inputs=1,
        edges=tuple(
            Edge(source, target, f"{kind}:{target}<-{source}", stride=2 if kind == "reduce" and source == 0 else 1)
            for source, target in PAIRS
        ),
        output=(1, 2),
    )
    for kind in KINDS
}
ORDER = ("reduce", "normal", "reduce")
EXAMPLE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], normal_concat=range(1, 3), "
    "reduce=[('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], reduce_concat=range(1, 3))"
)
TEXT = re.compile(
    r"Genotype\(normal=(\[.*?\]), normal_concat=range\(1, 3\), reduce=(\[.*?\]), reduce_concat=range\(1, 3\)\)"
)
PAIR = re.compile(r"\('(\w+)', (\d+)\)")


@dataclass(frozen=True, kw_only=True)
class EntangledCells(Space):
    """The cell space of TangleNAS.

    Parameters
    ----------
    width
        Channels of each node in the first two cells; the third has twice as many.
    affine
        Whether normalisation in the cells has a scale and a shift.
    dropout
        Probability of dropout behind each cell and in front of the classifier.
    """

    source: ClassVar[str] = "Weight-Entanglement Meets Gradient-Based NAS, Sukthanker et al., arXiv 2312.10440"
    label: ClassVar[str] = "entangled_cells"
    scale: ClassVar[tuple[str, ...]] = ("width",)
    width: Side = 32
    affine: bool = False
    dropout: Portion = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.image_shape[1:]) < 5:
            raise UserError(
                f"`size` must be at least 5, for images are halved three times; got {self.size}.", of="space"
            )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The three edges of the normal cell, then those of the reduction cell."""
        return tuple(
            Decision(e.ask, OPTIONS, into=f"{kind}:{e.target}", groups=GROUPS)
            for kind in KINDS
            for e in CELLS[kind].edges
        )

    def build(self, choose: Choose) -> nn.Module:
        """Return three cells with their preprocessing, a pool, two linear layers."""
        norm = NormRule(affine=self.affine)
        ops = {o: find(o) for o in OPTIONS}
        before, width, sides = self.channels, self.width, self.image_shape[1:]
        blocks: list[nn.Module] = []
        for number, kind in enumerate(ORDER):
            width *= 2 if number == 2 else 1
            point = normal(1).build(width, inputs=before, norm=norm)
            blocks.append(EntangledCell(point, choose.cell(CellSpec(CELLS[kind], ops, width, norm))))
            before, sides = 2 * width, halved(sides, 2) if kind == "reduce" else sides
        return EntangledNetwork(
            nn.ModuleList(blocks),
            nn.Linear(before * (sides[0] // 2) * (sides[1] // 2), before),
            nn.Linear(before, self.classes),
            nn.Dropout(self.dropout),
        )

    @classmethod
    def usual(cls, **fields: Any) -> Self:
        """Return the space on Fashion-MNIST: grey images of 28 pixels."""
        return super().usual(**{"channels": 1, "size": 28, **fields})

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether the text is a genotype of two nodes."""
        return "Genotype" in text and "range(1, 3)" in text

    def write(self, arch: Arch) -> str:
        """Return the ``Genotype(...)`` text of the released code."""
        lists = {kind: [(arch[e.ask], e.source) for e in CELLS[kind].edges] for kind in KINDS}
        return "Genotype(" + ", ".join(f"{k}={lists[k]}, {k}_concat=range(1, 3)" for k in KINDS) + ")"

    def parse(self, text: str) -> Arch:
        """Read a ``Genotype(...)`` text. Nothing is evaluated."""
        found = TEXT.fullmatch(text.strip())
        if found is None:
            raise UserError(f"{text.strip()[:80]!r} is no architecture of {self.label}, which reads {EXAMPLE}.")
        choice: dict[str, str] = {}
        for kind, listed in zip(KINDS, found.groups(), strict=True):
            pairs, sources = PAIR.findall(listed), [str(source) for source, _ in PAIRS]
            if [source for _, source in pairs] != sources:
                raise UserError(
                    f"The {kind} cell of the genotype is {listed}; it must be three pairs ('operation', source) with "
                    f"the sources {', '.join(sources)}."
                )
            for edge, (option, _) in zip(CELLS[kind].edges, pairs, strict=True):
                if option not in OPTIONS:
                    raise UserError(
                        f"{self.label} has no operation {option!r}.{nearest(option, OPTIONS)} "
                        f"It has: {', '.join(OPTIONS)}."
                    )
                choice[edge.ask] = option
        return Arch(choice)

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the normal and the reduction cell."""
        nodes = ("input", "1", "2", "output")
        joined = ((1, 3, ""), (2, 3, ""))
        return tuple(
            Picture(kind, nodes, (*((e.source, e.target, arch[e.ask]) for e in CELLS[kind].edges), *joined))
            for kind in KINDS
        )


class EntangledCell(nn.Module):
    """A cell with a pointwise convolution in front of it."""

    def __init__(self, preprocess: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 2 width, H, W]; a reduction cell halves the sides."""
        y: Tensor = self.body(self.preprocess(x))
        return y


class EntangledNetwork(nn.Module):
    """Cells with dropout behind each, a maximum pool, two linear layers."""

    def __init__(self, cells: nn.ModuleList, projection: nn.Module, classifier: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        self.cells = cells
        self.projection = projection
        self.classifier = classifier
        self.dropout = dropout
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        for cell in self.cells:
            x = self.dropout(cell(x).contiguous())  # it draws in memory order, which depends on the execution
        x = self.relu(self.projection(self.pool(x).flatten(1)))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


SPACE = EntangledCells
