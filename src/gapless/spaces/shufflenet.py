"""The block space of Single Path One-Shot and DSNAS: twenty blocks after ShuffleNetV2, four kinds of each (Guo et al.,
arXiv 1904.00420; Hu et al., arXiv 2002.09128).

A block has two branches side by side. Where it keeps size and width, the even channels pass and the odd ones go through
its main branch, which is a channel split and a channel shuffle in one. Where it changes either, both branches read the
whole input, and a projection takes the place of what passes.

Followed is the released code, megvii-model/SinglePathOneShot and SNAS-Series/SNAS-Series, which agree but for the
normalisation: the first searches without scale and shift, the second with both and an epsilon of 0.01. What the papers
do not say and the code does: the classifier has no bias, and weights start from rules of their own
(:func:`initialise`). The search for numbers of channels, which the first paper describes and neither code holds, is
left out. Widths must be even here; the code asks for multiples of four without need.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError
from gapless.core.picture import Picture
from gapless.core.settings import Depth, Portion, Positive, Side, Stride
from gapless.core.size import area, halved
from gapless.core.space import Space

KERNELS = {"k3": 3, "k5": 5, "k7": 7}
OPTIONS = (*KERNELS, "xception")
GROUPS = dict.fromkeys(OPTIONS, "weights")
PUBLISHED: Mapping[str, tuple[tuple[int, ...], str]] = {
    "SPOS": (
        (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3),
        "megvii-model/SinglePathOneShot, README.md: 323M, 3.5M parameters, top-1 error 25.6 %",
    ),
    "DSNAS": (
        (0, 0, 3, 0, 3, 2, 0, 0, 3, 3, 2, 3, 3, 3, 2, 0, 0, 3, 3, 0),
        "SNAS-Series/SNAS-Series, DSNAS/configs/DSNASsearch240.yaml",
    ),
}
"""Published architectures by name: an option's number for each block, and the source."""
EXAMPLE = "[2, 1, 0, 3, ...]"
MEANING = ", ".join(f"{number} is {option}" for number, option in enumerate(OPTIONS))


class Place(NamedTuple):
    """Where a block stands: its decision, channels before and behind it, stride."""

    name: str
    inputs: int
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class ShuffleNet(Space):
    """The block space of SPOS and DSNAS. The defaults are the supernet of SPOS on ImageNet; ``alone()`` is the network
    that it retrains. Defaults without another source are those of megvii-model/SinglePathOneShot, src/Supernet.

    Parameters
    ----------
    stem_width
        Channels of the first convolution.
    widths
        Channels of the stages.
    repeats
        Blocks of each stage; each is a decision.
    strides
        Strides of the stem and of the first block of each stage, 1 or 2. 32-pixel images want something like 1 1 2 2 2.
    head_width
        Channels of the last convolution.
    width
        Factor of all numbers of channels, rounded to even ones: below 1 for a smaller supernet. Alone it is 1.
    affine
        Whether batch normalisation has a scale and a shift (SPOS searches without; alone, and in DSNAS: with).
    eps
        Epsilon of batch normalisation (DSNAS searches with 0.01; alone: 1e-5).
    dropout
        Dropout rate before the classifier, in training.
    """

    source: ClassVar[str] = "Single Path One-Shot, Guo et al., arXiv 1904.00420; DSNAS, Hu et al., arXiv 2002.09128"
    label: ClassVar[str] = "shufflenet"
    scale: ClassVar[tuple[str, ...]] = ("width",)
    stem_width: Side = 16
    widths: tuple[Side, ...] = (64, 160, 320, 640)
    repeats: tuple[Depth, ...] = (4, 4, 8, 4)
    strides: tuple[Stride, ...] = (2, 2, 2, 2, 2)
    head_width: Side = 1024
    width: Positive = 1.0
    affine: bool = False
    eps: Positive = 1e-5
    dropout: Portion = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = len(self.widths)
        if not stages or len(self.repeats) != stages or len(self.strides) != stages + 1:
            raise UserError(
                f"`repeats` must be as many numbers as `widths`, and `strides` one more: the stem's, first; got "
                f"{len(self.repeats)}, {stages} and {len(self.strides)}.",
                of="space",
            )
        for place in self.places:
            if place.channels < place.inputs or (place.stride == 2 and place.channels == place.inputs):
                raise UserError(
                    f"Block {place.name} reads {place.inputs} channels and gives {place.channels}; a block at stride 2 "
                    "adds channels to those that it reads, and none can have fewer. Try wider stages (`widths`) or a "
                    f"larger `width` than {self.width:g}.",
                    of="space",
                )

    def channels_of(self, nominal: int) -> int:
        """Return a number of channels times ``width``, even, at least 2."""
        return max(2, 2 * round(nominal * self.width / 2))

    @property
    def places(self) -> tuple[Place, ...]:
        """The blocks, in order; ``1.0`` is the first of the first stage."""
        found: list[Place] = []
        inputs = self.channels_of(self.stem_width)
        for stage, (nominal, blocks) in enumerate(zip(self.widths, self.repeats, strict=True), start=1):
            for block in range(blocks):
                channels = self.channels_of(nominal)
                found.append(Place(f"{stage}.{block}", inputs, channels, 1 if block else self.strides[stage]))
                inputs = channels
        return tuple(found)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """A block each, ``stage.block``."""
        return tuple(Decision(place.name, OPTIONS, groups=GROUPS) for place in self.places)

    def build(self, choose: Choose) -> nn.Module:
        """Return stem, blocks, a last convolution with pooling, classifier."""
        first, last = self.channels_of(self.stem_width), self.channels_of(self.head_width)

        def site(place: Place) -> nn.Module:
            def make(label: str) -> nn.Module:
                size = (place.inputs, place.channels)
                if label in KERNELS:
                    return ShuffleBlock(*size, KERNELS[label], place.stride, self.affine, self.eps)
                return XceptionBlock(*size, place.stride, self.affine, self.eps)

            return choose.op(place.name, make)

        stem = nn.Sequential(
            nn.Conv2d(self.channels, first, 3, stride=self.strides[0], padding=1, bias=False),
            nn.BatchNorm2d(first, self.eps, affine=self.affine),
            nn.ReLU(),
        )
        blocks = nn.Sequential(*(site(place) for place in self.places))
        head = [
            *pointwise(self.places[-1].channels, last, self.affine, self.eps),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        if self.dropout:
            head.append(nn.Dropout(self.dropout))
        network = ShuffleNetwork(stem, blocks, nn.Sequential(*head), nn.Linear(last, self.classes, bias=False))
        initialise(network)
        return network

    @property
    def protocol(self) -> str:
        """That of SPOS; for networks that halve the resolution less often, so for small images, that of DARTS on
        CIFAR."""
        return "shufflenet" if math.prod(self.strides) == 32 else "cifar"

    def alone(self) -> Self:
        """Return the network that SPOS and DSNAS retrain, at the strides of this one."""
        return replace(self, width=1.0, affine=True, eps=1e-5)

    def deployed(self) -> Self:
        """Return the space without dropout."""
        return replace(self, dropout=0.0)

    @classmethod
    def usual(cls, **fields: Any) -> Self:
        """Return the space on ImageNet."""
        return super().usual(**{"classes": 1000, "size": 224, **fields})

    @classmethod
    def published(cls) -> tuple[str, ...]:
        """Return the names of released architectures."""
        return tuple(PUBLISHED)

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether the text begins like a list of numbers, or names an option that only this space has."""
        return bool(re.match(r"\s*[\[(]?\s*-?\d+\s*,\s*(?!\d+\s*\))", text) or re.search(r"=(xception|k\d)\b", text))

    def write(self, arch: Arch) -> str:
        """Return the list of numbers: ``[2, 1, 0, ...]``."""
        return str([OPTIONS.index(arch[d.name]) for d in self.decisions])

    def parse(self, text: str) -> Arch:
        """Read a list of numbers, with or without brackets, or the name of a released architecture."""
        name, names = text.strip(), [d.name for d in self.decisions]
        if name in PUBLISHED:
            numbers = list(PUBLISHED[name][0])
        elif re.fullmatch(r"\[[^\[\]()]*\]|\([^\[\]()]*\)|[^\[\]()]*", name) and re.fullmatch(
            r"\s*\d+(\s*,\s*\d+)*\s*,?\s*", name.strip("[]()")
        ):
            numbers = [int(n) for n in re.findall(r"\d+", name)]
        else:
            raise UserError(
                f"{name[:80]!r} is no architecture of shufflenet, which reads {EXAMPLE}: a number per block, of which "
                f"{MEANING}; nor a published one: {', '.join(PUBLISHED)}."
            )
        for number in numbers:
            if number >= len(OPTIONS):
                raise UserError(f"{number} stands for no block of shufflenet: {MEANING}.")
        if len(numbers) != len(names):
            raise UserError(
                f"{name[:80]!r} names {len(numbers)} blocks; this space has {len(names)} "
                f"(`repeats` {' '.join(map(str, self.repeats))}).",
                of="space",
            )
        return Arch({name: OPTIONS[number] for name, number in zip(names, numbers, strict=True)})

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the chain of blocks; a node says the channels, and where it changes the side of the image."""
        sides = halved(self.image_shape[1:], self.strides[0])
        nodes, edges = [f"{self.channels_of(self.stem_width)} · {area(sides)}"], []
        for number, place in enumerate(self.places):
            sides = halved(sides, place.stride)
            changed = place.stride == 2 or place.inputs != place.channels
            nodes.append(f"{place.channels} · {area(sides)}" if changed else f"{place.channels}")
            edges.append((number, number + 1, arch[place.name]))
        return (Picture("", tuple(nodes), tuple(edges)),)


def pointwise(inputs: int, channels: int, affine: bool, eps: float) -> list[nn.Module]:
    """Return convolution 1x1, normalisation, ReLU."""
    return [nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels, eps, affine=affine), nn.ReLU()]


def depthwise(channels: int, kernel: int, stride: int, affine: bool, eps: float) -> list[nn.Module]:
    """Return a convolution of each channel on its own, normalisation."""
    conv = nn.Conv2d(channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels, eps, affine=affine)]


class TwoBranches(nn.Module):
    """A block whose output is what passes, or a projection, and beside it the output of the main branch.

    Parameters
    ----------
    inputs, channels
        Before and behind the block.
    kernel
        Of the projection.
    stride
        1 or 2.
    affine, eps
        Of the normalisation.
    """

    main: nn.Module

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int, affine: bool, eps: float) -> None:
        super().__init__()
        self.inputs, self.channels, self.kernel = inputs, channels, kernel
        self.stride, self.affine, self.eps = stride, affine, eps
        self.splits = stride == 1 and inputs == channels
        self.reads = inputs // 2 if self.splits else inputs
        if not self.splits:
            self.projection = nn.Sequential(
                *depthwise(inputs, kernel, stride, affine, eps), *pointwise(inputs, inputs, affine, eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, channels, ceil(H / stride), ceil(W / stride)]."""
        if self.splits:
            return torch.cat([x[:, ::2], self.main(x[:, 1::2])], dim=1)
        return torch.cat([self.projection(x), self.main(x)], dim=1)


class ShuffleBlock(TwoBranches):
    """Its main branch: pointwise, depthwise, pointwise."""

    def __init__(
        self, inputs: int, channels: int, kernel: int, stride: int = 1, affine: bool = True, eps: float = 1e-5
    ) -> None:
        super().__init__(inputs, channels, kernel, stride, affine, eps)
        middle = channels // 2
        self.main = nn.Sequential(
            *pointwise(self.reads, middle, affine, eps),
            *depthwise(middle, kernel, stride, affine, eps),
            *pointwise(middle, channels - self.reads, affine, eps),
        )


class XceptionBlock(TwoBranches):
    """Its main branch: three times depthwise 3x3, pointwise."""

    def __init__(self, inputs: int, channels: int, stride: int = 1, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__(inputs, channels, 3, stride, affine, eps)
        middle = channels // 2
        self.main = nn.Sequential(
            *depthwise(self.reads, 3, stride, affine, eps),
            *pointwise(self.reads, middle, affine, eps),
            *depthwise(middle, 3, 1, affine, eps),
            *pointwise(middle, middle, affine, eps),
            *depthwise(middle, 3, 1, affine, eps),
            *pointwise(middle, channels - self.reads, affine, eps),
        )


class ShuffleNetwork(nn.Module):
    """Stem, blocks, head, classifier."""

    def __init__(self, stem: nn.Sequential, blocks: nn.Module, head: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = blocks
        self.head = head
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        logits: Tensor = self.classifier(self.head(self.blocks(self.stem(x))))
        return logits


def initialise(network: ShuffleNetwork) -> None:
    """Draw weights as the released code does: convolutions from a normal distribution of deviation one over the inputs
    of an output (for depthwise ones that is 1), the stem's and the classifier's of deviation 0.01; shifts start at
    1e-4."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.01 if module is network.stem[0] else 1 / module.weight.shape[1])
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.bias, 1e-4)


SPACE = ShuffleNet
