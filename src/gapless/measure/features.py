"""What the options of a decision make of the same images: are their feature maps alike?

DropNAS (arXiv 2201.11679) explains the failure of one-level search by co-adaptation: maps of operations with weights
gather in one cluster, apart from skip connections and pools, and compete instead of complementing each other. The
measurement is that of the released code of StacNAS, which that of DropNAS names: the supernet in evaluation mode, and
for every option of an edge its map over many images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.op import OpModule
from gapless.engine.diagnostics import has_weights
from gapless.engine.feed import Batch
from gapless.engine.judge import BatchNorm, batch_statistics, untouched
from gapless.engine.state import own_random_numbers, reseed
from gapless.engine.supernet import MixedEdge, MixedSite, Supernet

FLAT = 1e-6
"""Share of the root of the mean square of a map below which its deviation is rounding; ours."""


@dataclass(frozen=True, eq=False)
class Features:
    """The maps of one place in the network: of an edge, or of a free site.

    Attributes
    ----------
    place, decision
        Its name in the network, and its decision, which cells of one kind share.
    options
        The K options that compute something and run under the mix.
    groups
        Option -> ``weights`` or ``free``.
    means
        [K, C * H * W], float64: the mean map of each over the images.
    correlation
        [K, K]: covariance of two maps over the images, summed over channels and positions, over the root of the product
        of the two variances; NaN where a map is the same for all images.
    images
        Over how many.
    """

    place: str
    decision: str
    options: tuple[str, ...]
    groups: Mapping[str, str]
    means: Tensor
    correlation: Tensor
    images: int


class _Sums:
    """Sums over images of the maps of one place and of their products."""

    def __init__(self, groups: Mapping[str, str]) -> None:
        self.groups, self.options = groups, tuple(groups)
        self.maps: dict[str, Tensor] = {}
        self.total: Tensor | None = None
        self.products = torch.zeros(len(groups), len(groups), dtype=torch.float64)
        self.images = 0

    def keep(self, option: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Take the map of an option, and count those of the batch where it is the last: no more than one place's maps
        are held at a time."""
        self.maps[option] = output.detach().double().flatten(1).cpu()
        if len(self.maps) == len(self.options):
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
        varies = deviation > FLAT * self.products.diagonal().sqrt()
        deviation = torch.where(varies, deviation, torch.nan)
        correlation = covariance / (deviation[:, None] * deviation[None, :])
        return Features(place, decision, self.options, self.groups, self.total / self.images, correlation, self.images)


@torch.no_grad()
def features(
    supernet: Supernet,
    mix: Mix,
    batches: Iterable[Batch],
    wanted: Callable[[str], bool] = lambda decision: True,
    *,
    bn: BatchNorm = "running",
) -> list[Features]:
    """Return the maps of places under a mix, in the order of the network.

    Parameters
    ----------
    supernet
        Is left as it was.
    mix
        What it runs is looked at.
    batches
        Images with labels, which are not used.
    wanted
        Whether the places of a decision are looked at. Those where fewer than two options compute something are not.
    bn
        By which statistics it normalises: running ones, as the released code does, else those of each batch: a supernet
        of paths has no running statistics that fit a mix.
    """
    space = supernet.space
    found: dict[str, tuple[MixedEdge | MixedSite, _Sums]] = {}
    for place, module in supernet.named_modules():
        if isinstance(module, MixedEdge | MixedSite) and wanted(space.decisions[module.row].name):
            runs = range(len(module)) if mix.active is None else mix.active[module.row]
            groups = {}
            for column in runs:
                option, op = list(module.items())[column]
                if not (isinstance(op, OpModule) and op.zero):
                    weighty = has_weights(space.decisions[module.row], column, op)
                    groups[option] = "weights" if weighty else "free"
            if len(groups) > 1:
                found[place] = module, _Sums(groups)
    handles = [
        module[option].register_forward_hook(partial(sums.keep, option))
        for module, sums in found.values()
        for option in sums.options
    ]
    try:
        device = next(supernet.parameters()).device
        with own_random_numbers(device), untouched(supernet):
            reseed(device, "features")  # noise in a network
            if bn == "running":
                supernet.eval()
            else:
                batch_statistics(supernet)
            for images, _ in batches:
                supernet(images, mix)
    finally:
        for handle in handles:
            handle.remove()
    return [sums.result(place, space.decisions[module.row].name) for place, (module, sums) in found.items()]


def alike(found: Features) -> dict[str, float | None]:
    """Return the mean absolute correlation between options with weights (``weights``), between options without
    (``free``), and between one of each (``across``); None where there is no such pair."""
    values: dict[str, list[float]] = {"weights": [], "free": [], "across": []}
    for i, one in enumerate(found.options):
        for j, other in enumerate(found.options[:i]):
            value = abs(float(found.correlation[i, j]))
            if value == value:
                same = found.groups[one] == found.groups[other]
                values[found.groups[one] if same else "across"].append(value)
    return {name: sum(listed) / len(listed) if listed else None for name, listed in values.items()}
