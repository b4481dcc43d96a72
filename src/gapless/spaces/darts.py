"""The DARTS space: a normal and a reduction cell, each of four nodes fed by two earlier states (Liu et al., arXiv
1806.09055)."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, Self

from torch import Tensor, nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision, Keep
from gapless.core.errors import UserError, nearest
from gapless.core.op import Conv, Norm, NormRule, Op, Relu
from gapless.core.picture import Picture
from gapless.core.settings import Depth, Margin, Natural, Range, Side
from gapless.core.space import Space
from gapless.core.text import printable
from gapless.ops.cells import OPS, REDUCE, find

SEVEN = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
CONVS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
MAX, AVG, SKIP, SEP3, _, DIL3, DIL5 = SEVEN
S1: dict[str, tuple[tuple[str, str], ...]] = {
    "normal": (
        *((SKIP, DIL3), (SKIP, DIL5)),
        *((SKIP, DIL5), (SKIP, SEP3), (SKIP, DIL3)),
        *((MAX, SKIP), (SKIP, SEP3), (SKIP, SEP3), (SKIP, DIL3)),
        *((SKIP, SEP3), (MAX, SKIP), (SKIP, DIL3), (DIL3, DIL5), (DIL3, DIL5)),
    ),
    "reduce": (
        *((MAX, AVG), (MAX, DIL3)),
        *((MAX, AVG), (MAX, AVG), (SKIP, DIL5)),
        *((MAX, AVG), (MAX, SEP3), (SKIP, DIL3), (SKIP, DIL5)),
        *((MAX, AVG), (MAX, AVG), (SKIP, DIL5), (SKIP, DIL5), (SKIP, DIL5)),
    ),
}
"""The two options of each edge in S1, a line per node, ordered by source (RobustDARTS, arXiv 1909.09656, src/spaces.py
of the released code)."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "darts": ("none", *SEVEN),
    "drnas": SEVEN,
    "original": (*CONVS, "max_pool_3x3", "avg_pool_3x3", "skip_connect", "none"),
    "3-skip": (*CONVS, "skip_connect", "skip_connect#2", "skip_connect#3", "none"),
    "1-skip": (*CONVS, "skip_connect", "none"),
    "s1": (MAX, AVG, SKIP, SEP3, DIL3, DIL5),
    "s2": (SKIP, SEP3),
    "s3": ("none", SKIP, SEP3),
    "s4": ("noise", SEP3),
}
"""Option sets in column order: DARTS; DrNAS (no "none"); DropNAS's three (arXiv 2201.11679, released code); the four
spaces of RobustDARTS in which DARTS collapses (arXiv 1909.09656, released code). Those of s1 stand on some edge: each
edge has the two that :data:`S1` gives it."""
COLLAPSE = ("s1", "s2", "s3", "s4")
KINDS = ("normal", "reduce")
NODES = range(2, 6)


def cell(kind: str) -> Cell:
    """Return the graph of all 14 edges; in a reduction cell those that leave an input have stride 2."""
    edges = (
        Edge(source, target, f"{kind}:{target}<-{source}", stride=2 if kind == "reduce" and source < 2 else 1)
        for target in NODES
        for source in range(target)
    )
    return Cell(inputs=2, edges=tuple(edges), output=tuple(NODES))


CELLS = {kind: cell(kind) for kind in KINDS}
PAIRS = {e.ask: pair for kind in KINDS for e, pair in zip(CELLS[kind].edges, S1[kind], strict=True)}
POINT = Op((Relu(), Conv(1), Norm()))


@dataclass(frozen=True, kw_only=True)
class Darts(Space):
    """The DARTS space. The defaults are the search network of DARTS on CIFAR-10; ``alone()`` is the network that it
    retrains.

    Parameters
    ----------
    options
        The candidate operations: darts (8), drnas (7, no none), original, 3-skip, 1-skip (DropNAS), s1 to s4
        (RobustDARTS: two on each edge; skip and sep; those and none; noise and sep).
    cells
        Number of cells; those at one and two thirds are reduction cells.
    width
        Channels of the first cells; each reduction cell doubles them.
    stem
        First layers: one convolution to three times the width (``cifar``) or three strided ones (``imagenet``).
    stem_width
        Channels of the ImageNet stem (PC-DARTS and DrNAS search with three times the width). 0: as many as ``width``.
    inputs
        Edges kept into each node. ``none``: all, where an architecture may hold the operation "none".
    affine
        Whether the batch normalisation in cells has a scale and a shift (while searching: no; alone: yes).
    pool_norm
        Batch normalisation after pools: ``none``, ``plain`` (not affine) or ``affine``.
    partial
        Number of equal parts of the channels, of which one goes through the operations (PC-DARTS, DrNAS). 1: all go.
    auxiliary
        Whether there is an auxiliary head on the second reduction cell; ``forward_with_aux`` gives its logits.
    drop_path
        Whether the outputs of edges that are no identity can be dropped in training.
    """

    source: ClassVar[str] = "DARTS, Liu, Simonyan and Yang, arXiv 1806.09055"
    label: ClassVar[str] = "darts"
    scale: ClassVar[tuple[str, ...]] = ("cells", "width", "stem_width")
    readings: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"inputs": None}, {"options": "s4"})
    options: Literal["darts", "drnas", "original", "3-skip", "1-skip", "s1", "s2", "s3", "s4"] = "darts"
    cells: Depth = 8
    width: Side = 16
    stem: Literal["cifar", "imagenet"] = "cifar"
    stem_width: Margin = 0
    inputs: Annotated[int, Range(1, 2)] | None = 2
    affine: bool = False
    pool_norm: Literal["none", "plain", "affine"] = "plain"
    partial: Natural = 1
    auxiliary: bool = False
    drop_path: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.options not in OPTIONS:
            raise UserError(
                f"`options` must be one of {', '.join(OPTIONS)}; got {self.options!r}.{nearest(self.options, OPTIONS)}",
                of="space",
            )
        if self.width % self.partial:
            raise UserError(
                f"`width` cannot be split into `partial` parts; got {self.width} and {self.partial}.", of="space"
            )
        if self.stem == "imagenet" and self.width % 2:
            raise UserError(f"`width` must be even with the ImageNet stem; got {self.width}.", of="space")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The 14 edges of the normal cell, then those of the reduction cell; rows inside a node ordered by source."""
        found = []
        for kind in KINDS:
            for e in CELLS[kind].edges:
                options = self.options_of(e.ask)
                groups = {o: "weights" if "conv" in o else "free" for o in options}
                never = ("none",) if self.inputs is not None and "none" in options else ()
                found.append(Decision(e.ask, options, into=f"{kind}:{e.target}", groups=groups, never=never))
        return tuple(found)

    def options_of(self, edge: str) -> tuple[str, ...]:
        """Return the options of an edge such as ``normal:2<-0``, in column order."""
        return PAIRS[edge] if self.options == "s1" else OPTIONS[self.options]

    @property
    def limits(self) -> tuple[Keep, ...]:
        """``inputs`` edges into each node."""
        if self.inputs is None:
            return ()
        return tuple(
            Keep(tuple(e.ask for e in CELLS[kind].into(node)), self.inputs) for kind in KINDS for node in NODES
        )

    def ops(self) -> dict[str, Op]:
        """Return option label -> operation, pools with the normalisation that the space asks for."""
        behind = {"none": (), "plain": (Norm(affine=False),), "affine": (Norm(affine=True),)}[self.pool_norm]
        return {o: Op(find(o).layers + behind) if "pool" in o else find(o) for o in OPTIONS[self.options]}

    def build(self, choose: Choose) -> nn.Module:
        """Return stem, cells with their preprocessing, pooling, classifier."""
        norm = NormRule(affine=self.affine)
        ops, width = self.ops(), self.width
        stem: nn.Module = (
            CifarStem(self.channels, 3 * width)
            if self.stem == "cifar"
            else ImageNetStem(self.channels, self.stem_width or width)
        )
        before, last = (3 * width,) * 2 if self.stem == "cifar" else (self.stem_width or width,) * 2
        halved = self.stem == "imagenet"
        cells: list[DartsCell] = []
        for i in range(self.cells):
            reduce = i in self.reductions
            width *= 2 if reduce else 1
            kind = "reduce" if reduce else "normal"
            body = choose.cell(CellSpec(CELLS[kind], ops, width, norm, self.partial, self.drop_path))
            first = (REDUCE if halved else POINT).build(width, inputs=before, stride=2 if halved else 1, norm=norm)
            second = POINT.build(width, inputs=last, norm=norm)
            cells.append(DartsCell(first, second, body))
            before, last, halved = last, len(NODES) * width, reduce
        if not self.auxiliary:
            return DartsNetwork(stem, nn.ModuleList(cells), nn.Linear(last, self.classes))
        at = 2 * self.cells // 3
        read = len(NODES) * self.width * 2 ** sum(r <= at for r in self.reductions)
        head = AuxiliaryHead(read, self.classes, self.stem == "imagenet")
        return DartsNetworkWithHead(stem, nn.ModuleList(cells), nn.Linear(last, self.classes), head, at)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Where the reduction cells stand."""
        return tuple(sorted({self.cells // 3, 2 * self.cells // 3}))

    @property
    def protocol(self) -> str:
        """That of DARTS on CIFAR, or with the ImageNet stem the mobile one."""
        return "cifar" if self.stem == "cifar" else "imagenet"

    def alone(self) -> Self:
        """Return the network that DARTS retrains: 20 cells of width 36, or with the ImageNet stem 14 of width 48.

        For s1 to s4 it is the one that RobustDARTS retrains: 8 cells of width 16 (the defaults of its released
        src/evaluation/args.py, which the released scripts leave).
        """
        cells, width = (20, 36) if self.stem == "cifar" else (14, 48)
        if self.options in COLLAPSE and self.stem == "cifar":
            cells, width = 8, 16
        return replace(
            self,
            cells=cells,
            width=width,
            stem_width=0,
            affine=True,
            pool_norm="none",
            partial=1,
            auxiliary=True,
            drop_path=True,
        )

    def deployed(self) -> Self:
        """Return the space without auxiliary head and drop path."""
        return replace(self, auxiliary=False, drop_path=False)

    @classmethod
    def usual(cls, **fields: Any) -> Self:
        """Return the space on CIFAR-10, or with the ImageNet stem on ImageNet."""
        imagenet = {"classes": 1000, "size": 224} if fields.get("stem") == "imagenet" else {}
        return super().usual(**{**imagenet, **fields})

    @classmethod
    def published(cls) -> tuple[str, ...]:
        """Return the names in ``genotypes.toml``."""
        return tuple(GENOTYPES)

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether the text speaks of a genotype or of an edge of a normal or reduction cell."""
        return "Genotype" in text or "normal:" in text or "reduce:" in text

    def write(self, arch: Arch) -> str:
        """Return the ``Genotype(...)`` text; pairs (operation, source) by node, sources ascending."""
        lists = {}
        for kind in KINDS:
            kept = [e for e in CELLS[kind].edges if e.ask in arch]
            lists[kind] = [(arch[e.ask].partition("#")[0], e.source) for e in kept]
        span = f"range({NODES.start}, {NODES.stop})"
        return (
            f"Genotype(normal={lists['normal']}, normal_concat={span}, reduce={lists['reduce']}, reduce_concat={span})"
        )

    def parse(self, text: str) -> Arch:
        """Read a ``Genotype(...)`` text with flat or nested pairs, or the name of a published genotype. Nothing is
        evaluated."""
        if text.strip() in GENOTYPES:
            text = GENOTYPES[text.strip()]["genotype"]
        fields = _fields(text)
        choice: dict[str, str] = {}
        for kind in KINDS:
            for option, node, source in _pairs(fields, kind, self.inputs):
                if option not in OPS:
                    raise UserError(
                        f"The genotype names the operation {option!r}.{nearest(option, OPS)} Known: {', '.join(OPS)}."
                    )
                if option not in OPTIONS[self.options]:
                    have = [n for n, o in OPTIONS.items() if option in o]
                    hint = f" Set `options` to {have[0]!r}." if have else ""
                    raise UserError(
                        f"{option!r} is not among the options {self.options!r} of this space.{hint}", of="space"
                    )
                if not 0 <= source < node:
                    raise UserError(
                        f"The genotype feeds node {node} from state {source}; it can only be fed from 0 to {node - 1}."
                    )
                name = f"{kind}:{node}<-{source}"
                if option not in self.options_of(name):
                    raise UserError(
                        f"{option!r} is no option of the edge {name}; the options {self.options!r} have there: "
                        f"{', '.join(self.options_of(name))}."
                    )
                if name in choice:
                    raise UserError(f"The genotype has two edges {name}.")
                choice[name] = option
        return Arch(choice)

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the normal and the reduction cell."""
        nodes = ("c[k-2]", "c[k-1]", *(str(n - 2) for n in NODES), "c[k]")
        found = []
        for kind in KINDS:
            kept = [(e.source, e.target, arch[e.ask]) for e in CELLS[kind].edges if e.ask in arch]
            found.append(Picture(kind, nodes, (*kept, *((n, NODES.stop, "") for n in NODES))))
        return tuple(found)


class CifarStem(nn.Module):
    """A 3x3 convolution; both inputs of the first cell are its output."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, channels, H, W] to two states of the same size."""
        y = self.norm(self.conv(x))
        return y, y


class ImageNetStem(nn.Module):
    """Strided convolutions: the first state is at a quarter of the resolution, the second at an eighth."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        half = width // 2
        self.first = nn.Sequential(
            nn.Conv2d(channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.second = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, channels, H, W] to states of H / 4 and H / 8."""
        y = self.first(x)
        return y, self.second(y)


class DartsCell(nn.Module):
    """A cell with its two preprocessing operations."""

    def __init__(self, preprocess0: nn.Module, preprocess1: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.preprocess0 = preprocess0
        self.preprocess1 = preprocess1
        self.body = body

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """Map the outputs of the two cells before to this cell's."""
        y: Tensor = self.body(self.preprocess0(s0), self.preprocess1(s1))
        return y


class AuxiliaryHead(nn.Module):
    """The auxiliary head of DARTS on 8x8 (CIFAR) or 7x7 (ImageNet) states; other sizes are averaged to 8x8 or 7x7
    first.

    The ImageNet head has no last normalisation: the released code leaves it out to match the published runs.
    """

    def __init__(self, channels: int, classes: int, imagenet: bool) -> None:
        super().__init__()
        self.side = 7 if imagenet else 8
        norm: list[nn.Module] = [] if imagenet else [nn.BatchNorm2d(768)]
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=self.side - 5, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *norm,
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a state [N, C, H, W] to logits."""
        if x.shape[-2:] != (self.side, self.side):
            x = nn.functional.adaptive_avg_pool2d(x, self.side)
        y: Tensor = self.classifier(self.features(x).flatten(1))
        return y


class DartsNetwork(nn.Module):
    """Stem, cells that each read the two outputs before them, pooling, classifier."""

    def __init__(self, stem: nn.Module, cells: nn.ModuleList, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cells
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        s0, s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        logits: Tensor = self.classifier(self.pool(s1).flatten(1))
        return logits

    def forward_with_aux(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and those of the auxiliary head, or None where there is no head."""
        return self(x), None


class DartsNetworkWithHead(DartsNetwork):
    """The same with an auxiliary head on the output of the cell ``head_at``."""

    def __init__(
        self, stem: nn.Module, cells: nn.ModuleList, classifier: nn.Module, auxiliary: nn.Module, head_at: int
    ) -> None:
        super().__init__(stem, cells, classifier)
        self.auxiliary = auxiliary
        self.head_at = head_at

    def forward_with_aux(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and those of the auxiliary head."""
        s0, s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if i == self.head_at:
                read = s1
        return self.classifier(self.pool(s1).flatten(1)), self.auxiliary(read)


def _fields(text: str) -> dict[str, Any]:
    wrong = UserError(
        f"{text.strip()[:80]!r} is no genotype, which reads Genotype(normal=[('sep_conv_3x3', 1), ...], "
        "normal_concat=range(2, 6), "
        f"reduce=[...], reduce_concat=range(2, 6)), nor a published one: {', '.join(GENOTYPES)}."
    )
    try:
        tree = ast.parse(_call(text) if "Genotype" in text else text, mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.func.id != "Genotype":
            raise wrong
        named = dict(zip(("normal", "normal_concat", "reduce", "reduce_concat"), tree.args, strict=False))
        named |= {k.arg: k.value for k in tree.keywords if k.arg}
        read = {name: ast.literal_eval(node) for name, node in named.items() if name in KINDS}
        concat = {name: _concat(node) for name, node in named.items() if name not in KINDS}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    for name, nodes in concat.items():
        if name not in ("normal_concat", "reduce_concat"):
            raise UserError(f"The genotype says {printable(name[:80])!r}, which is not known here: it was not read.")
        if sorted(nodes) != list(NODES):
            raise UserError(
                f"The genotype says {name}={nodes}: its cell gives only these nodes on. Networks of this space "
                f"concatenate all of {list(NODES)}, so it was not read."
            )
    return read


def _call(text: str) -> str:
    """Return the first ``Genotype(...)`` in a text, as a line of a log holds it, up to the bracket that closes it."""
    start, depth, quote = text.index("Genotype"), 0, ""
    for at in range(start, len(text)):
        c = text[at]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
            if depth == 0:
                return text[start : at + 1]
    return text[start:]


def _concat(node: ast.expr) -> list[int]:
    """Return the nodes that a genotype concatenates: a list, or ``range(2, 6)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        ends = [ast.literal_eval(end) for end in node.args]
        if 1 <= len(ends) <= 2 and all(isinstance(end, int) and 0 <= end < 100 for end in ends):
            return list(range(*ends))
    found = ast.literal_eval(node)
    if not isinstance(found, list | tuple) or not all(isinstance(item, int) for item in found):
        raise ValueError
    return list(found)


def _pairs(fields: dict[str, Any], kind: str, inputs: int | None) -> list[tuple[str, int, int]]:
    if kind not in fields:
        raise UserError(f"The genotype has no {kind!r} cell.")
    if not isinstance(fields[kind], list | tuple):
        raise UserError(
            f"The {kind} cell of the genotype is {fields[kind]!r}; it must be a list of pairs ('operation', source)."
        )
    given = _as_pairs(list(fields[kind]))
    flat = all(isinstance(p, tuple | list) and len(p) == 2 and isinstance(p[0], str) for p in given)
    if flat:
        per = inputs or 2
        if inputs is None and len(given) == len(CELLS[kind].edges):
            nodes = [list(given[sum(range(2, n)) : sum(range(2, n + 1))]) for n in NODES]
        else:
            nodes = [given[i : i + per] for i in range(0, len(given), per)]
    else:
        nodes = given
    if len(nodes) != len(NODES):
        raise UserError(f"The {kind} cell of the genotype feeds {len(nodes)} nodes; it must feed {len(NODES)}.")
    found = []
    for node, pairs in zip(NODES, nodes, strict=True):
        for pair in pairs if isinstance(pairs, list | tuple) else (pairs,):
            if not (
                isinstance(pair, tuple | list)
                and len(pair) == 2
                and isinstance(pair[0], str)
                and isinstance(pair[1], int)
            ):
                raise UserError(f"The {kind} cell of the genotype holds {pair!r}; each pair is ('operation', source).")
            found.append((pair[0], node, pair[1]))
    return found


def _as_pairs(given: list[Any]) -> list[Any]:
    """Return the triples of released codes as pairs: (operation, source, weight) of GDAS, and (operation, node, source)
    of FairDARTS, by node. The weight says nothing of the network."""

    def triple(item: Any, last: type) -> bool:
        return (
            isinstance(item, tuple | list)
            and len(item) == 3
            and (isinstance(item[0], str), type(item[1]), type(item[2])) == (True, int, last)
        )

    if given and all(triple(item, int) for item in given):
        nodes = [[(op, source) for op, node, source in given if node == wanted] for wanted in NODES]
        return nodes if sum(map(len, nodes)) == len(given) else given
    return [
        tuple(item[:2])
        if triple(item, float)
        else type(item)(tuple(one[:2]) if triple(one, float) else one for one in item)
        if isinstance(item, tuple | list)
        else item
        for item in given
    ]


def _published() -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("gapless.spaces").joinpath("genotypes.toml").read_text(encoding="utf-8"))


GENOTYPES = _published()
"""Published genotypes by name: ``genotype`` (text), ``source``."""

SPACE = Darts
