"""The block space of MobileNetV2 networks: inverted residuals of several kernels and expansions, in the tables of
FairNAS (Chu et al., arXiv 1907.01845) and of ProxylessNAS (Cai et al., arXiv 1812.00332).

A block is expand, depthwise, project (Sandler et al., arXiv 1801.04381), with a shortcut where it keeps size and width.
ProxylessNAS searches the depth, too: such a block may be skipped. There the shortcut stands outside of what is weighed;
here it stands inside each option, and skipping is the identity. Where the weights of a row sum to one that is the same
sum, and a softmax does not see the difference between the gradients, which is one number for the whole row.

Followed is the released code, xiaomi-automl/FairNAS (networks only) and mit-han-lab/proxylessnas, whose normalisations,
dropout and classifiers differ. The table ``proxyless-mobile`` is that of microsoft/nni and ``proxyless-gpu`` that of
open-mmlab/mmrazor, where the latter lists a skip for strided blocks, too, which ours leaves out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from gapless.core.choose import Choose
from gapless.core.decision import Arch, Decision
from gapless.core.errors import UserError, nearest
from gapless.core.picture import Picture
from gapless.core.settings import Depth, Portion, Positive, Side, Stride
from gapless.core.size import area, halved
from gapless.core.space import Space

Variant = Literal["fairnas", "proxyless", "proxyless-mobile", "proxyless-gpu"]
SKIP = "skip"
STEPS = 8
"""Numbers of channels are multiples of it (MobileNetV2, released code)."""


class Stage(NamedTuple):
    """Channels, number of blocks, stride of the first."""

    channels: int
    blocks: int
    stride: int


@dataclass(frozen=True)
class Table:
    """A network without its choices.

    Parameters
    ----------
    stages
        Of blocks to choose.
    stem, first, last
        Channels of the first convolution, of the fixed block behind it, of the last convolution.
    depth
        Whether blocks with a shortcut may be skipped.
    eps
        Of the normalisation.
    dropout
        Before the classifier.
    classifier
        The classifier's weights start uniform within one over the root of its ``inputs`` or of its ``outputs``.
    """

    stages: tuple[Stage, ...]
    stem: int = 32
    first: int = 16
    last: int = 1280
    depth: bool = True
    eps: float = 1e-3
    dropout: float = 0.0
    classifier: Literal["inputs", "outputs"] = "inputs"


def _stages(channels: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[Stage, ...]:
    return tuple(map(Stage, channels, blocks, (2, 2, 2, 1, 2, 1)))


DEEP = (4, 4, 4, 4, 4, 1)
TABLES: Mapping[str, Table] = {
    "fairnas": Table(
        _stages((32, 40, 80, 96, 192, 320), (2, 4, 4, 4, 4, 1)),
        depth=False,
        eps=1e-5,
        dropout=0.2,
        classifier="outputs",
    ),
    "proxyless": Table(_stages((24, 40, 80, 96, 192, 320), DEEP)),
    "proxyless-mobile": Table(_stages((32, 40, 80, 96, 192, 320), DEEP)),
    "proxyless-gpu": Table(_stages((32, 56, 112, 128, 256, 432), DEEP), stem=40, first=24, last=1728),
}
PUBLISHED: Mapping[str, tuple[str, str]] = {
    "FairNAS-A": (
        "(3,7)(3,3) (3,7)(6,3)(6,7)(3,3) (3,3)(6,7)(6,7)(3,5) (6,3)(3,5)(3,5)(6,3) (6,3)(6,7)(6,3)(6,7) (6,5)",
        "xiaomi-automl/FairNAS, models/FairNAS_A.py; the paper says 388M",
    ),
    "FairNAS-B": (
        "(3,5)(3,3) (3,5)(3,3)(6,3)(3,5) (3,7)(3,3)(6,3)(3,5) (3,3)(6,3)(3,7)(3,3) (6,7)(6,5)(6,7)(6,3) (6,5)",
        "xiaomi-automl/FairNAS, models/FairNAS_B.py; the paper says 345M",
    ),
    "FairNAS-C": (
        "(3,5)(3,3) (3,7)(3,3)(3,3)(3,3) (3,3)(3,3)(3,3)(6,3) (3,3)(3,3)(3,3)(3,3) (6,7)(6,7)(6,3)(6,3) (6,5)",
        "xiaomi-automl/FairNAS, models/FairNAS_C.py; the paper says 321M",
    ),
}
"""Published architectures of the table ``fairnas`` by name: (expansion, kernel) of each block, and the source."""
EXAMPLE = f"[(3, 7), (6, 3), {SKIP}, ...]"


class Place(NamedTuple):
    """Where a block stands: its decision, channels before and behind it, stride, whether it has a shortcut."""

    name: str
    inputs: int
    channels: int
    stride: int
    shortcut: bool


@dataclass(frozen=True, kw_only=True)
class Mobile(Space):
    """Inverted residual blocks. The defaults are FairNAS's space; the other tables are ProxylessNAS's.

    Parameters
    ----------
    variant
        The table: fairnas (19 blocks, no depth), proxyless (21, search script of the released code), proxyless-mobile
        (as in microsoft/nni) or proxyless-gpu (as in open-mmlab/mmrazor).
    kernels
        Kernel sizes of the depthwise convolutions to choose from, odd (FairNAS and ProxylessNAS: 3, 5, 7).
    expansions
        Expansion factors to choose from (FairNAS and ProxylessNAS: 3, 6).
    depth
        Whether blocks with a shortcut may be skipped. ``none``: as in the table, FairNAS no, ProxylessNAS yes.
    layers
        Blocks of each of the six stages. Empty: as in the table.
    strides
        Strides of the stem and of the first block of each stage, 1 or 2; 32-pixel images want something like 1 1 2 2 1
        2 1. Empty: as in the table, 2 2 2 2 1 2 1.
    width
        Factor of all numbers of channels, rounded to multiples of 8: below 1 for a smaller supernet. Alone it is 1.
    eps
        Epsilon of batch normalisation. ``none``: as in the table, FairNAS 1e-5, ProxylessNAS 1e-3.
    dropout
        Dropout rate before the classifier, in training. ``none``: as in the table, FairNAS 0.2, ProxylessNAS 0.
    """

    source: ClassVar[str] = (
        "FairNAS, Chu, Zhang and Xu, arXiv 1907.01845; ProxylessNAS, Cai, Zhu and Han, arXiv 1812.00332"
    )
    label: ClassVar[str] = "mobile"
    scale: ClassVar[tuple[str, ...]] = ("width",)
    readings: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"variant": "proxyless"})
    variant: Variant = "fairnas"
    kernels: tuple[Side, ...] = (3, 5, 7)
    expansions: tuple[Depth, ...] = (3, 6)
    depth: bool | None = None
    layers: tuple[Depth, ...] = ()
    strides: tuple[Stride, ...] = ()
    width: Positive = 1.0
    eps: Positive | None = None
    dropout: Portion | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in TABLES:
            raise UserError(
                f"`variant` must be one of {', '.join(TABLES)}; got {self.variant!r}.{nearest(self.variant, TABLES)}",
                of="space",
            )
        for name, given in (("kernels", self.kernels), ("expansions", self.expansions)):
            if not given or len(set(given)) < len(given):
                raise UserError(f"`{name}` must be different numbers; got {_words(given)}.", of="space")
        if not all(kernel % 2 for kernel in self.kernels):
            raise UserError(f"`kernels` must be odd; got {_words(self.kernels)}.", of="space")
        stages = len(TABLES[self.variant].stages)
        for name, given, wanted in (("layers", self.layers, stages), ("strides", self.strides, stages + 1)):
            if given and len(given) != wanted:
                raise UserError(f"`{name}` must be {wanted} numbers; got {len(given)}: {_words(given)}.", of="space")

    @property
    def table(self) -> Table:
        """The network of the variant, with the fields that say otherwise."""
        table = TABLES[self.variant]
        layers = self.layers or tuple(stage.blocks for stage in table.stages)
        strides = self.strides[1:] or tuple(stage.stride for stage in table.stages)
        stages = zip(table.stages, layers, strides, strict=True)
        return replace(
            table,
            stages=tuple(Stage(stage.channels, blocks, stride) for stage, blocks, stride in stages),
            depth=table.depth if self.depth is None else self.depth,
            eps=table.eps if self.eps is None else self.eps,
            dropout=table.dropout if self.dropout is None else self.dropout,
        )

    def channels_of(self, nominal: int) -> int:
        """Return a number of channels times ``width``: a multiple of 8, never below 90 % of the product (MobileNetV2,
        released code, which leaves the last convolution at 1280 where the factor is below 1; here it shrinks, too).
        At a factor of 1 the table's numbers stay as they are."""
        return nominal if self.width == 1 else rounded(nominal * self.width)

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Label -> (kernel, expansion), in column order: that of ProxylessNAS, expansions within kernels."""
        return {f"k{k}e{e}": (k, e) for k in self.kernels for e in self.expansions}

    @property
    def places(self) -> tuple[Place, ...]:
        """The blocks to choose, in order; ``1.0`` is the first of the first stage.

        A block has a shortcut where its stride is 1 and the table gives it as many channels as it reads. That
        ``width`` rounds two numbers to one does not count, so that decisions are the same at each width.
        """
        found: list[Place] = []
        before = self.table.first
        for stage, (channels, blocks, stride) in enumerate(self.table.stages, start=1):
            for block in range(blocks):
                at = 1 if block else stride
                sizes = (self.channels_of(before), self.channels_of(channels))
                found.append(Place(f"{stage}.{block}", *sizes, at, at == 1 and before == channels))
                before = channels
        return tuple(found)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """A block each, ``stage.block``."""
        labels = tuple(self.blocks)
        groups = dict.fromkeys(labels, "weights") | {SKIP: "free"}
        return tuple(
            Decision(place.name, options, groups={o: groups[o] for o in options})
            for place in self.places
            for options in [(*labels, SKIP) if place.shortcut and self.table.depth else labels]
        )

    def build(self, choose: Choose) -> nn.Module:
        """Return stem, fixed block, blocks, a last convolution with pooling, classifier."""
        table = self.table
        stem, first, last = (self.channels_of(n) for n in (table.stem, table.first, table.last))

        def site(place: Place) -> nn.Module:
            def make(label: str) -> nn.Module:
                if label == SKIP:
                    return nn.Identity()
                return InvertedResidual(
                    place.inputs, place.channels, *self.blocks[label], place.stride, place.shortcut, table.eps
                )

            return choose.op(place.name, make)

        stride = self.strides[0] if self.strides else 2
        head = [
            *conv_norm_relu6(self.places[-1].channels, last, 1, 1, 1, table.eps),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        if table.dropout:
            head.append(nn.Dropout(table.dropout))
        network = MobileNetwork(
            nn.Sequential(*conv_norm_relu6(self.channels, stem, 3, stride, 1, table.eps)),
            InvertedResidual(stem, first, 3, 1, eps=table.eps),
            nn.Sequential(*(site(place) for place in self.places)),
            nn.Sequential(*head),
            nn.Linear(last, self.classes),
        )
        initialise(network, table.classifier)
        return network

    @property
    def protocol(self) -> str:
        """That of ProxylessNAS; for networks that halve the resolution less often, so for small images, that of DARTS
        on CIFAR. (What FairNAS trained with is not released.)"""
        return "proxyless" if not self.strides or math.prod(self.strides) == 32 else "cifar"

    def alone(self) -> Self:
        """Return the network at its full width, at the strides of this one."""
        return replace(self, width=1.0)

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
        """Return whether the text begins like a list of pairs, or names an option that only this space has."""
        begins = re.match(rf"[\s\[(]*(\(\s*\d+\s*,\s*\d+\s*\)|{SKIP}\b)", text)
        return bool(begins or re.search(r"=k\d+e\d", text))

    def write(self, arch: Arch) -> str:
        """Return the list of pairs (expansion, kernel): ``[(3, 7), (6, 3), skip, ...]``."""
        told = {label: f"({expansion}, {kernel})" for label, (kernel, expansion) in self.blocks.items()} | {SKIP: SKIP}
        return f"[{', '.join(told[arch[d.name]] for d in self.decisions)}]"

    def parse(self, text: str) -> Arch:
        """Read a list of pairs (expansion, kernel) and ``skip``, or the name of a released architecture. Commas,
        bars and brackets around and between the pairs say nothing."""
        name, pair = text.strip(), r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
        given = PUBLISHED[name][0] if name in PUBLISHED else name
        words = [m.groups() for m in re.finditer(rf"{pair}|\b{SKIP}\b", given)]
        if not words or re.sub(rf"{pair}|\b{SKIP}\b|[\s,|\[\]]", "", given):
            raise UserError(
                f"{name[:80]!r} is no architecture of mobile, which reads {EXAMPLE}: (expansion, kernel) of each "
                f"block, or {SKIP}; nor a published one: {', '.join(PUBLISHED)}."
            )
        labels = [SKIP if kernel is None else f"k{kernel}e{expansion}" for expansion, kernel in words]
        for label, (expansion, kernel) in zip(labels, words, strict=True):
            if label != SKIP and label not in self.blocks:
                raise UserError(
                    f"The space has no block ({expansion}, {kernel}): its expansions are {_words(self.expansions)} and "
                    f"its kernels {_words(self.kernels)}. A pair is (expansion, kernel)."
                )
        if len(labels) != len(self.places):
            fits = [v for v, t in TABLES.items() if sum(stage.blocks for stage in t.stages) == len(labels)]
            hint = f" Set `variant` to {fits[0]!r}." if fits and not self.layers else ""
            raise UserError(
                f"{name[:80]!r} names {len(labels)} blocks; {self.variant} has {len(self.places)}.{hint}", of="space"
            )
        for place, decision, label in zip(self.places, self.decisions, labels, strict=True):
            if label not in decision.options:
                why = "" if place.shortcut else ": it changes the size or the width"
                hint = " Set `depth`, with which blocks may be skipped." if place.shortcut else ""
                raise UserError(f"Block {place.name} cannot be skipped in {self.variant}{why}.{hint}", of="space")
        return Arch({place.name: label for place, label in zip(self.places, labels, strict=True)})

    def pictures(self, arch: Arch) -> tuple[Picture, ...]:
        """Return the chain of blocks; a node says the channels, and where it changes the side of the image."""
        sides = halved(self.image_shape[1:], self.strides[0] if self.strides else 2)
        nodes, edges = [f"{self.channels_of(self.table.first)} · {area(sides)}"], []
        for number, place in enumerate(self.places):
            sides = halved(sides, place.stride)
            nodes.append(f"{place.channels}" if place.shortcut else f"{place.channels} · {area(sides)}")
            edges.append((number, number + 1, arch[place.name]))
        return (Picture("", tuple(nodes), tuple(edges)),)


def rounded(channels: float) -> int:
    """Return the multiple of 8 nearest to a number of channels, at least 8, and not below 90 % of it.

    >>> rounded(40 * 0.5), rounded(24 * 0.75), rounded(1.0)
    (24, 24, 8)
    """
    found = max(STEPS, int(channels + STEPS / 2) // STEPS * STEPS)
    return found + STEPS if found < 0.9 * channels else found


def conv_norm(inputs: int, channels: int, kernel: int, stride: int, groups: int, eps: float) -> list[nn.Module]:
    """Return a convolution that keeps the size, normalisation."""
    conv = nn.Conv2d(inputs, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels, eps)]


def conv_norm_relu6(inputs: int, channels: int, kernel: int, stride: int, groups: int, eps: float) -> list[nn.Module]:
    """Return a convolution, normalisation, min(max(x, 0), 6)."""
    return [*conv_norm(inputs, channels, kernel, stride, groups, eps), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """Expand (left out at a factor of 1), depthwise, project, and a shortcut.

    Parameters
    ----------
    inputs, channels
        Before and behind the block.
    kernel
        Of the depthwise convolution.
    expansion
        Factor of the channels in between.
    stride
        Of the depthwise convolution.
    shortcut
        Whether the input is added.
    eps
        Of the normalisation.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: int,
        expansion: int,
        stride: int = 1,
        shortcut: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.inputs, self.channels, self.kernel, self.expansion = inputs, channels, kernel, expansion
        self.stride, self.shortcut, self.eps = stride, shortcut, eps
        middle = inputs * expansion
        self.body = nn.Sequential(
            *(conv_norm_relu6(inputs, middle, 1, 1, 1, eps) if expansion > 1 else ()),
            *conv_norm_relu6(middle, middle, kernel, stride, middle, eps),
            *conv_norm(middle, channels, 1, 1, 1, eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, channels, ceil(H / stride), ceil(W / stride)]."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class MobileNetwork(nn.Module):
    """Stem, fixed block, blocks, head, classifier."""

    def __init__(
        self, stem: nn.Module, first: nn.Module, blocks: nn.Module, head: nn.Module, classifier: nn.Module
    ) -> None:
        super().__init__()
        self.stem = stem
        self.first = first
        self.blocks = blocks
        self.head = head
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, channels, H, W] to logits [N, classes]."""
        logits: Tensor = self.classifier(self.head(self.blocks(self.first(self.stem(x)))))
        return logits


def initialise(network: nn.Module, classifier: Literal["inputs", "outputs"]) -> None:
    """Draw weights as both released codes do: convolutions from a normal distribution of variance 2 / (kernel area *
    output channels), for depthwise ones, too; the classifier's uniform within one over the root of its inputs
    (ProxylessNAS) or outputs (FairNAS), its bias zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan))
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features if classifier == "inputs" else module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def _words(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers)) or "empty"


SPACE = Mobile
