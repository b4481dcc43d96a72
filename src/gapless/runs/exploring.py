"""From a recipe that searches by a score to the objects of its search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gapless.core.errors import UserError
from gapless.core.judge import Judge
from gapless.core.searcher import Searcher
from gapless.core.settings import defaults, fields_of, make
from gapless.core.space import Space
from gapless.data import load
from gapless.runs.recipe import MEASURED, Recipe, absolute, described


@dataclass(frozen=True, eq=False)
class Exploring:
    """A black-box search with every setting filled in.

    ``images`` says what a network of the space sees (``names``, ``mean``, ``std``); None where nobody said which.
    """

    recipe: Recipe
    space: Space
    searcher_class: type[Searcher]
    method: dict[str, Any]
    judge_class: type[Judge]
    score: dict[str, Any]
    evaluations: int
    images: Mapping[str, Any] | None
    run: dict[str, Any]

    def searcher(self) -> Searcher:
        """Return the search, fresh."""
        return make(self.searcher_class, {**self.method, "seed": self.run["seed"]}, self.space)

    def judge(self, device: torch.device) -> Judge:
        """Return what gives the scores, read in."""
        return make(self.judge_class, self.score, self.space, device)

    def full(self) -> Recipe:
        """Return the recipe with every setting written out."""
        space = {f: getattr(self.space, f) for f in fields_of(type(self.space)) if f not in MEASURED}
        method = defaults(self.searcher_class) | self.method
        method.pop("seed", None)
        score = defaults(self.judge_class) | self.score
        score = {k: str(v.expanduser().resolve()) if isinstance(v, Path) else v for k, v in score.items()}
        data = dict(self.recipe.data)
        if "name" in data:
            data["name"] = absolute(data["name"])
        return replace(
            self.recipe,
            space={"name": self.recipe.space["name"], **space},
            method={"name": self.recipe.method["name"], **method},
            methods={},
            score={"name": self.recipe.score["name"], "evaluations": self.evaluations, **score},
            train={},
            data=data,
            run=self.run,
        )


def resolve(recipe: Recipe) -> Exploring:
    """Return the objects of a black-box search. Images are read only where the recipe names some and the score does not
    settle them; where nothing does, the space is that of its paper's data."""
    space_class, method_class, _ = recipe.definitions()
    judge_class, score, count = recipe.judging()
    assert issubclass(method_class, Searcher)
    given, settled = recipe.typed("space", space_class), judge_class.settles(**score)
    images: Mapping[str, Any] | None = None
    if settled is not None:
        if recipe.space["name"] != settled.space["name"]:
            raise UserError(
                f"The score is of the space {settled.space['name']}, and this search is over {recipe.space['name']}. "
                "Leave the space out; it is then that of the score."
            )
        if "name" in recipe.data and absolute(recipe.data["name"]) != absolute(settled.data["name"]):
            raise UserError(
                f"The score is of the images {settled.data['name']}; given: {recipe.data['name']}. Leave them out."
            )
        recipe = replace(recipe, data=settled.data)
        own = {k: v for k, v in settled.space.items() if k != "name"}
        space, images = make(space_class, {**own, **given, **settled.measured}), settled.images
    elif "name" in recipe.data:
        space_class(**given)  # a bad size is found before the data is read
        data = load(recipe.data["name"], **recipe.typed("data", load))
        measured = {"classes": len(data.classes), "channels": data.channels, "size": max(data.size)}
        space, images = make(space_class, {**given, **measured}), described(data)
    else:
        space = space_class.usual(**given)
    method = recipe.typed("method", method_class)
    return Exploring(recipe, space, method_class, method, judge_class, score, count, images, recipe.settings_of_run())
