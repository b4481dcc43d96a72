"""A finished network with all that is to be told of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gapless import __version__
from gapless.core.cost import count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.op import NoiseModule
from gapless.core.progress import seeded, stream
from gapless.core.space import Space

Weights = Literal["trained", "inherited", "fresh"]
UNTRAINED: dict[Weights, str] = {
    "fresh": "UNTRAINED: the weights are random. Train the network before you use it.",
    "inherited": "NOT TRAINED ALONE: the weights are the supernet's. Train the network on, or judge it first.",
}
"""What must be said loudly of weights that no training of this very network made."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """What is exported.

    Parameters
    ----------
    arch, space
        The architecture, and the space at the size of the network, without what only training needs
        (:meth:`gapless.core.space.Space.deployed`).
    network
        ``space.network(arch)`` with its weights, in evaluation mode, on the CPU, in float32.
    weights
        ``trained`` alone, ``inherited`` from a supernet, or ``fresh``.
    origin
        Where it comes from, in words.
    mean, std
        By channel, of the images that it was trained on, in units of the largest pixel value; None where not known.
    names
        Of the classes; None where not known.
    accuracy
        Percent of the test images; None where it was not measured.
    tested
        What these images are; None where nothing was measured.
    """

    arch: Arch
    space: Space
    network: nn.Module
    weights: Weights
    origin: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None
    accuracy: float | None = None
    tested: str | None = None

    @property
    def warning(self) -> str:
        """What must be said loudly; empty for trained weights."""
        return UNTRAINED.get(self.weights, "")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The plain facts, as ``model.json`` tells them."""
        space = self.space
        return {
            "gapless": __version__,
            "arch": str(self.arch),
            "notation": space.write(self.arch),
            "space": space.label,
            "source": space.source,
            "origin": self.origin,
            "classes": space.classes,
            "names": None if self.names is None else list(self.names),
            "channels": space.channels,
            "size": space.size if isinstance(space.size, int) else list(space.size),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "params": count_params(self.network),
            "macs": count_macs(self.network, space.image_shape),
            "trained": self.weights == "trained",
            "weights": self.weights,
            "accuracy": self.accuracy,
            "tested_on": self.tested,
        }

    @property
    def noisy(self) -> bool:
        """Whether the network holds noise, so that each pass gives other logits."""
        return any(isinstance(m, NoiseModule) for m in self.network.modules())

    def logits(self, module: nn.Module, count: int) -> Tensor:
        """Return the logits of a module for ``images(count)``; noise is the same at every call."""
        with torch.no_grad(), seeded("export", "noise"):
            found: Tensor = module(self.images(count))
        return found

    def images(self, count: int) -> Tensor:
        """Return random images [count, C, H, W], the same at every call."""
        shape = (count, *self.space.image_shape)
        return torch.randn(shape, generator=stream("export", "images", count))
