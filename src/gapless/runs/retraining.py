"""From a recipe that names an architecture to the objects of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from gapless.core.decision import Arch
from gapless.core.protocol import Protocol
from gapless.core.settings import fields_of, make
from gapless.core.space import Space
from gapless.data import ImageData, load
from gapless.runs.recipe import MEASURED, Recipe, absolute
from gapless.runs.run import Run
from gapless.runs.searched import inherited


@dataclass(frozen=True, eq=False)
class Retraining:
    """A training with every setting filled in."""

    recipe: Recipe
    arch: Arch
    space: Space
    protocol: Protocol
    data: ImageData
    run: dict[str, Any]

    def network(self) -> nn.Module:
        """Return the network, freshly initialised or with the weights of a search's supernet."""
        if self.recipe.start() != "inherited":
            return self.space.network(self.arch)
        return inherited(Run.open(self.recipe.retrain["weights"]), self.arch, self.space)

    def full(self) -> Recipe:
        """Return the recipe with every setting written out."""
        space = {f: getattr(self.space, f) for f in fields_of(type(self.space)) if f not in MEASURED}
        settings = {f: getattr(self.protocol, f) for f in fields_of(Protocol)}
        name = self.recipe.retrain.get("protocol", self.space.protocol)
        augment = self.data.augment
        return replace(
            self.recipe,
            arch=str(self.arch),
            space={"name": self.recipe.space["name"], **space},
            retrain={
                "protocol": name,
                **settings,
                **{key: self.recipe.retrain[key] for key in ("start", "weights") if key in self.recipe.retrain},
            },
            data={
                **self.recipe.data,
                **self.protocol.images(self.recipe.data.get("size")),
                "name": absolute(self.recipe.data["name"]),
                "cutout": augment.cutout,
            },
            run=self.run,
        )


def resolve(recipe: Recipe) -> Retraining:
    """Read the data and return the objects of a training.

    The settings of ``[data]`` win over what the protocol brings.
    """
    space_class = recipe.retraining()
    fields = recipe.typed("space", space_class)
    protocol = recipe.protocol(space_class(**fields).protocol)
    settings = recipe.typed("data", load)
    data = load(recipe.data["name"], **{**protocol.images(settings.get("size")), **settings})
    if "cutout" not in settings:
        side = round(protocol.cutout * min(data.size))
        data = replace(data, augment=replace(data.augment, cutout=side))
    fields |= {"classes": len(data.classes), "channels": data.channels, "size": max(data.size)}
    space = make(space_class, fields)
    return Retraining(recipe, space.read(recipe.arch), space, protocol, data, recipe.settings_of_run())
