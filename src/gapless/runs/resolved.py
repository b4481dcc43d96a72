"""From a recipe to the objects of its run: data read, space built, every default filled in."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.files import whole
from gapless.core.judge import Judge
from gapless.core.method import Method
from gapless.core.plan import Train
from gapless.core.protocol import Protocol
from gapless.core.searcher import Searcher
from gapless.core.settings import fields_of, make
from gapless.core.space import Space
from gapless.data import ImageData, load
from gapless.runs.checked import CheckedRecipe, Component, RunSettings, check_recipe
from gapless.runs.recipe import MEASURED, Recipe, absolute, outside, resident
from gapless.runs.run import described


@dataclass(frozen=True, eq=False)
class Resolved(abc.ABC):
    """What every run has.

    Attributes
    ----------
    checked
        The recipe, checked.
    space
        At the size of the run, with the classes, channels and image size of its data.
    """

    checked: CheckedRecipe
    space: Space

    @property
    def recipe(self) -> Recipe:
        """The recipe, as written."""
        return self.checked.recipe

    @property
    def run(self) -> RunSettings:
        """Seed, device, precision."""
        return self.checked.run

    @abc.abstractmethod
    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""

    def full(self) -> Recipe:
        """Return the recipe with every setting written out, and what identifies the outside files that it names: what
        ``recipe.toml`` holds."""
        parts = (self.checked.space, self.checked.method, self.checked.score)
        there = [part for part in parts if part is not None]
        named = [str(value) for part in there for value in part.settings.values() if isinstance(value, str | Path)]
        return replace(self.settings(), outside=outside(*(part.name for part in there), *named))

    def _space(self) -> dict[str, Any]:
        fields = {f: getattr(self.space, f) for f in fields_of(type(self.space)) if f not in MEASURED}
        return {"name": resident(self.checked.space.name), **fields}


@dataclass(frozen=True, eq=False)
class ResolvedSearch(Resolved):
    """A search that trains a supernet."""

    method: Component[Method]
    data: ImageData

    @property
    def train(self) -> Train:
        """Training of the supernet."""
        return self.checked.train

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        return replace(
            self.recipe,
            space=self._space(),
            method=self.method.table(skip=("seed",)),
            methods={},
            train={f: getattr(self.train, f) for f in fields_of(Train)},
            data=_named(self.recipe, "digits"),
            run=self.run.table(),
        )


@dataclass(frozen=True, eq=False)
class ResolvedDraw(Resolved):
    """One architecture that a black-box search proposes without any score."""

    searcher: Component[Searcher]
    data: ImageData

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        return replace(
            self.recipe,
            space=self._space(),
            method=self.searcher.table(skip=("seed",)),
            methods={},
            train={},
            data=_named(self.recipe, "digits"),
            run=self.run.table(),
        )


@dataclass(frozen=True, eq=False)
class ResolvedBlackBox(Resolved):
    """A black-box search by a score.

    ``images`` holds ``names`` of the classes, ``mean`` and ``std`` of the images that a network of the space sees; None
    where the recipe names no images and the score settles none.
    """

    searcher: Component[Searcher]
    score: Component[Judge]
    evaluations: int
    images: Mapping[str, Any] | None

    def judge(self, device: torch.device) -> Judge:
        """Return the judge, with its table or its supernet read."""
        return self.score.make(self.space, device)

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        score = {k: str(whole(v)) if isinstance(v, Path) else v for k, v in self.score.table().items()}
        return replace(
            self.recipe,
            space=self._space(),
            method=self.searcher.table(skip=("seed",)),
            methods={},
            score={"name": score.pop("name"), "evaluations": self.evaluations, **score},
            train={},
            data=_named(self.recipe),
            run=self.run.table(),
        )


@dataclass(frozen=True, eq=False)
class ResolvedTraining(Resolved):
    """The training of one architecture alone."""

    arch: Arch
    protocol: Protocol
    data: ImageData

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        retrain = self.recipe.retrain
        settings = {f: getattr(self.protocol, f) for f in fields_of(Protocol)}
        start = {key: retrain[key] for key in ("start", "weights") if key in retrain}
        return replace(
            self.recipe,
            arch=str(self.arch),
            space=self._space(),
            retrain={"protocol": self.checked.retrain.protocol or self.space.protocol, **settings, **start},
            data={
                **self.recipe.data,
                **self.protocol.images(self.recipe.data.get("size")),
                "name": absolute(self.recipe.data["name"]),
                "cutout": self.data.augment.cutout,
            },
            run=self.run.table(),
        )


def resolve(recipe: Recipe | CheckedRecipe) -> Resolved:
    """Check a recipe, read its data, and return the objects of its run.

    Raises
    ------
    UserError
        For anything wrong with the recipe or its data.
    """
    checked = recipe if isinstance(recipe, CheckedRecipe) else check_recipe(recipe)
    with checked.recipe.located():
        return _resolved(checked)


def _resolved(checked: CheckedRecipe) -> Resolved:
    match checked.kind:
        case "training":
            return _training(checked)
        case "black-box":
            return _black_box(checked)
    assert checked.method is not None
    checked.space.make()  # a wrong size is found before the data is read
    data = load(checked.recipe.data.get("name", "digits"), **checked.data)
    space = checked.space.make(**measured(data))
    if checked.kind == "supernet":
        return ResolvedSearch(checked, space, checked.method, data)
    return ResolvedDraw(checked, space, checked.method, data)


def measured(data: ImageData) -> dict[str, Any]:
    """Return the fields of a space that are read from its data."""
    return {"classes": len(data.classes), "channels": data.channels, "size": data.size}


def _black_box(checked: CheckedRecipe) -> ResolvedBlackBox:
    """Images are read only where the recipe names some and the score does not settle them; where nothing does, the
    space is that of its paper's data."""
    recipe, (score, count) = checked.recipe, checked.judging()
    score = replace(score, settings=score.cls.completed(**score.settings))
    settled, given = checked.settled, checked.space
    images: Mapping[str, Any] | None = None
    if settled is not None:
        if given.name != settled.space["name"]:
            raise UserError(
                f"The score is of the space {settled.space['name']}, and this search is over {given.name}. "
                "Leave the space out; it is then that of the score."
            )
        if "name" in recipe.data and absolute(recipe.data["name"]) != absolute(settled.data["name"]):
            raise UserError(
                f"The score is of the images {settled.data['name']}; given: {recipe.data['name']}. Leave them out."
            )
        checked = replace(checked, recipe=replace(recipe, data=settled.data))
        own = {k: v for k, v in settled.space.items() if k != "name"}
        space, images = make(given.cls, {**own, **given.settings, **settled.measured}), settled.images
    elif "name" in recipe.data:
        given.make()  # a wrong size is found before the data is read
        data = load(recipe.data["name"], **checked.data)
        space, images = given.make(**measured(data)), described(data)
    else:
        space = given.cls.usual(**given.settings)
    assert checked.method is not None
    return ResolvedBlackBox(checked, space, checked.method, score, count, images)


def _training(checked: CheckedRecipe) -> ResolvedTraining:
    """The settings of ``[data]`` win over what the protocol brings."""
    recipe, settings = checked.recipe, checked.data
    protocol = checked.retrain.on(checked.space.make().protocol)
    data = load(recipe.data["name"], **{**protocol.images(settings.get("size")), **settings})
    if "cutout" not in settings:
        side = round(protocol.cutout * min(data.size))
        data = replace(data, augment=replace(data.augment, cutout=side))
    space = checked.space.make(**measured(data))
    return ResolvedTraining(checked, space, space.read(recipe.arch), protocol, data)


def _named(recipe: Recipe, usual: str | None = None) -> dict[str, Any]:
    """Return the table ``[data]`` with the full path of a folder."""
    name = recipe.data.get("name", usual)
    return dict(recipe.data) if name is None else {**recipe.data, "name": absolute(name)}
