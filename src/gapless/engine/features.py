"""What the options of an edge make of the same images: are their feature maps alike?

DropNAS (arXiv 2201.11679, section 3) explains the failure of one-level search by co-adaptation: maps of operations with
weights gather in one cluster, apart from skip connections and pools, and compete instead of complementing each other.
The measurement is that of the released code of StacNAS, which that of DropNAS names: the supernet in evaluation mode,
and for every option of an edge its map over many images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import OpModule
from gapless.engine.judge import Batch, untouched
from gapless.engine.supernet import MixedEdge, Supernet


@dataclass(frozen=True, eq=False)
class Features:
    """The maps of one edge.

    Attributes
    ----------
    place, decision
        Of the edge: its name in the network, and its decision, which cells of one kind share.
    options
        The K options that compute something and are not pruned.
    means
        [K, C * H * W]: the mean map of each over the images.
    correlation
        [K, K]: covariance of two maps over the images, summed over channels and positions, over the root of the product
        of the two variances; NaN where a map is the same for all images.
    images
        Over how many.
    """

    place: str
    decision: str
    options: tuple[str, ...]
    means: Tensor
    correlation: Tensor
    images: int


class _Sums:
    """Sums over images of maps and of their products."""

    def __init__(self, options: tuple[str, ...]) -> None:
        self.options, self.maps = options, dict[str, Tensor]()
        self.total: Tensor | None = None
        self.products = torch.zeros(len(options), len(options), dtype=torch.float64)
        self.images = 0

    def keep(self, option: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.maps[option] = output.detach().double().flatten(1).cpu()

    def add(self) -> None:
        """Count the maps of a batch."""
        maps = torch.stack([self.maps.pop(option) for option in self.options])  # [K, N, C * H * W]
        flat = maps.flatten(1)
        self.products += flat @ flat.T
        summed = maps.sum(dim=1)
        self.total = summed if self.total is None else self.total + summed
        self.images += maps.shape[1]

    def result(self, place: str, decision: str) -> Features:
        assert self.total is not None
        covariance = self.products - self.total @ self.total.T / self.images
        deviation = covariance.diagonal().clamp_min(0).sqrt()
        # what is left of a map that does not vary is rounding
        varies = deviation > 1e-6 * self.products.diagonal().sqrt()
        deviation = torch.where(varies, deviation, torch.nan)
        correlation = covariance / (deviation[:, None] * deviation[None, :])
        return Features(place, decision, self.options, self.total / self.images, correlation, self.images)


@torch.no_grad()
def features(
    supernet: Supernet, mix: Mix, batches: Iterable[Batch], wanted: Callable[[str], bool] = lambda decision: True
) -> list[Features]:
    """Return the maps of edges under a mix, in the order of the network.

    Parameters
    ----------
    supernet
        Runs in evaluation mode, by its running statistics, and is left as it was.
    mix
        Soft: what it runs is looked at.
    batches
        Images with labels, which are not used.
    wanted
        Whether the edges of a decision are looked at.
    """
    space = supernet.space
    found: dict[str, tuple[MixedEdge, _Sums]] = {}
    for place, module in supernet.named_modules():
        if isinstance(module, MixedEdge) and wanted(space.decisions[module.row].name):
            runs = range(len(module)) if mix.active is None else mix.active[module.row]
            computes = [list(module)[column] for column in runs if not _empty(module, column)]
            if len(computes) > 1:
                found[place] = module, _Sums(tuple(computes))
    handles = [
        module[option].register_forward_hook(partial(sums.keep, option))
        for module, sums in found.values()
        for option in sums.options
    ]
    try:
        with untouched(supernet):
            supernet.eval()
            for images, _ in batches:
                supernet(images, mix)
                for _, sums in found.values():
                    sums.add()
    finally:
        for handle in handles:
            handle.remove()
    return [sums.result(place, space.decisions[module.row].name) for place, (module, sums) in found.items()]


def _empty(edge: MixedEdge, column: int) -> bool:
    op = list(edge.values())[column]
    return isinstance(op, OpModule) and op.zero


def alike(found: Features, groups: Mapping[str, str]) -> dict[str, float | None]:
    """Return the mean absolute correlation between options with weights (``weights``), between options without
    (``free``), and between one of each (``across``); None where there is no such pair.

    Parameters
    ----------
    found
        Of an edge.
    groups
        Option -> ``weights`` or ``free``.
    """
    values: dict[str, list[float]] = {"weights": [], "free": [], "across": []}
    for i, one in enumerate(found.options):
        for j, other in enumerate(found.options[:i]):
            value = abs(float(found.correlation[i, j]))
            if value == value:
                same = groups[one] == groups[other]
                values[groups[one] if same else "across"].append(value)
    return {name: sum(listed) / len(listed) if listed else None for name, listed in values.items()}
