"""A comparison folder: what was asked, and the runs in it. Commands and reports meet here.

``comparison.toml`` holds the table ``[comparison]`` (methods, seeds, ...) and the recipe that all runs share. Beside it
lie the runs, ``METHOD-DATA-seedN``, of their answers trained alone ``METHOD-DATA-seedN-retrained``, and their logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gapless.core import catalogue, files
from gapless.core.errors import TABLES, UserError, unknown
from gapless.core.method import Method
from gapless.runs.checked import component
from gapless.runs.log import last_failure
from gapless.runs.recipe import LARGEST, Recipe, absolute, outside, outside_file, parse_toml, plain, resident
from gapless.runs.run import Run

NAME = "comparison.toml"
LOGS = "logs"
FREE = ("seed", "save_every", "watch")
"""Settings of ``[run]`` that may differ between the runs of a comparison."""


@dataclass(frozen=True)
class ComparisonCell:
    """One run of a comparison: a method, a data set (empty where a score needs no images) and a seed."""

    method: str
    data: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        parts = (Path(self.method).stem, Path(self.data).name, f"seed{self.seed}")
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Parameters
    ----------
    methods, seeds, data
        Every method is run with every seed on every set of images, ``[""]`` where a score needs none.
    recipe
        What all runs share; ``methods`` in it holds settings of single methods. It names neither method nor images nor
        seed.
    baseline
        The method that the others are compared with.
    table, columns
        The benchmark table that says what answers are worth, "" without one, and the column for each set of images.
    retrain
        Whether every answer is trained alone, as the recipe's ``[retrain]`` says.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    data: tuple[str, ...]
    recipe: Recipe
    baseline: str
    table: str = ""
    columns: tuple[str, ...] = ()
    retrain: bool = False

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        methods: tuple[str, ...],
        seeds: tuple[int, ...],
        data: tuple[str, ...],
        *,
        baseline: str | None = None,
        table: str = "",
        columns: tuple[str, ...] = (),
        retrain: bool = False,
    ) -> Comparison:
        """Return the comparison of a recipe, which may still name a method, images and a seed.

        Raises
        ------
        UserError
            For something listed twice, a baseline that is not compared, two sets of images of one name, or columns that
            do not fit.
        """
        own = {k: v for k, v in recipe.method.items() if k != "name"}
        given = {**recipe.methods, **({recipe.method["name"]: own} if "name" in recipe.method else {})}
        methods = tuple(str(files.whole(m)) if m.endswith(".py") else m for m in methods)
        data = tuple(map(absolute, data)) or ("",)
        for what, listed in (("methods", methods), ("seeds", seeds), ("data", data)):
            if not listed:
                raise UserError(f"`{what}` lists nothing; give at least one.")
            twice = [str(x) for i, x in enumerate(listed) if x in listed[:i]]
            if twice:
                raise UserError(f"`{what}` lists {twice[0]} twice.")
        for what, names in (("methods", [Path(m).stem for m in methods]), ("data", [Path(d).name for d in data])):
            if len(set(names)) < len(names):
                raise UserError(
                    f"`{what}` lists two that are called {next(n for n in names if names.count(n) > 1)}: their runs "
                    "would share a folder. Rename one, or compare them in two folders."
                )
        labels = {Path(m).stem: m for m in methods} | {m: m for m in methods}
        chosen = baseline or methods[0]
        if chosen not in labels:
            raise unknown("method to be the baseline among those compared,", chosen, labels)
        if table and len(columns) not in (1, len(data)):
            raise UserError(
                f"`columns` lists {len(columns)} for {len(data)} sets of images; give one for all, or one for each."
            )
        shared = replace(
            recipe,
            method={},
            methods={m: dict(given[m]) for m in methods if given.get(m)},
            space={**recipe.space, **({"name": resident(recipe.space["name"])} if "name" in recipe.space else {})},
            score=_anywhere(recipe),
            data={k: v for k, v in recipe.data.items() if k != "name"},
            run={k: v for k, v in recipe.run.items() if k != "seed"},
            title="",
            source="",
            where=None,
            outside={
                path: recipe.outside.get(path, digest)  # as it was when the first of these runs began
                for path, digest in outside(
                    *methods, *filter(None, (recipe.space.get("name"), recipe.score.get("name")))
                ).items()
            },
        )
        columns = columns * len(data) if len(columns) == 1 else columns
        return cls(methods, seeds, data, shared, labels[chosen], table, columns if table else (), retrain)

    def permitting(self, asked: Comparison) -> Comparison:
        """Return this comparison, whose files that ``asked`` names, too, count as permitted: they were, when they were
        checked."""
        names = (*asked.methods, asked.table, asked.recipe.space.get("name"), asked.recipe.score.get("name"))
        typed = {path for name in names for path in outside_file(name, Path())[:1]}
        return replace(self, recipe=replace(self.recipe, strangers=self.recipe.strangers - typed))

    def cells(self) -> Iterator[ComparisonCell]:
        """Yield the runs, seed by seed, so that what is there early can be compared."""
        for seed in self.seeds:
            for data in self.data:
                for method in self.methods:
                    yield ComparisonCell(method, data, seed)

    def recipe_of(self, cell: ComparisonCell) -> Recipe:
        """Return the recipe of one run: a method that trains a supernet is given no score."""
        self.recipe.permit(cell.method)
        kind = catalogue.find(cell.method, "methods", "searchers")
        scored = not issubclass(kind, Method)
        return replace(
            self.recipe,
            method={"name": cell.method, **self.recipe.methods.get(cell.method, {})},
            methods={},
            score=self.recipe.score if scored else {},
            train={} if scored else self.recipe.train,
            data={**self.recipe.data, **({"name": cell.data} if cell.data else {})},
            run={**self.recipe.run, "seed": cell.seed},
        )

    def column(self, data: str) -> str:
        """Return the column of the table for a set of images; "" without a table."""
        return self.columns[self.data.index(data)] if self.table else ""

    def toml(self) -> str:
        """Return the content of ``comparison.toml``."""
        import tomlkit

        names = ("methods", "seeds", "data", "baseline", "table", "columns", "retrain")
        own = {"comparison": {name: plain(getattr(self, name)) for name in names}}
        return tomlkit.dumps(own) + "\n" + self.recipe.toml()

    def keeping(self, before: Comparison) -> Comparison:
        """Return this comparison with what an earlier one says of methods, and of a training, that this one leaves
        out: their runs stay in the folder, and a later call may list them again."""
        left = {name: given for name, given in before.recipe.methods.items() if name not in self.methods}
        retrain = self.recipe.retrain if self.retrain else before.recipe.retrain
        return replace(
            self,
            recipe=replace(
                self.recipe,
                methods={**left, **self.recipe.methods},
                retrain=dict(retrain),
                outside={**self.recipe.outside, **before.recipe.outside},
            ),
        )

    def unlike(self, other: Comparison, methods: Iterable[str], *, retrained: bool) -> str:
        """Return the first setting in which runs of these methods would differ, as ``train.epochs is 2, and was 1``
        (that of ``other`` last); "" where they are alike. How answers are trained counts where some were
        ``retrained``."""
        for method in methods:
            cell = ComparisonCell(method, "", 0)
            found = _unlike(self.recipe_of(cell), other.recipe_of(cell), () if retrained else ("retrain",))
            if found:
                return found
        return ""


def _anywhere(recipe: Recipe) -> dict[str, Any]:
    """Return the table ``[score]`` with full paths, so that it holds wherever it is read."""
    if "name" not in recipe.score:
        return dict(recipe.score)
    settings = component(recipe, "score", "scores").settings
    paths = {k: str(files.whole(v)) for k, v in settings.items() if isinstance(v, Path)}
    return {**recipe.score, **paths, "name": resident(recipe.score["name"])}


def _unlike(here: Recipe, there: Recipe, skip: tuple[str, ...]) -> str:
    for table in TABLES:
        if table in skip:
            continue
        one, two = (plain(getattr(r, table)) for r in (here, there))
        for key in sorted({*one, *two}):
            if one.get(key) != two.get(key) and not (table == "run" and key in FREE):
                name = f"{here.method['name']}: {key}" if table == "method" else f"{table}.{key}"
                values = [json.dumps(t[key], default=str) if key in t else "not set" for t in (one, two)]
                return f"{name} is {values[0]}, and was {values[1]}"
    return ""


@dataclass(frozen=True)
class Folder:
    """The folder of a comparison."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Folder:
        """Return the comparison in a folder.

        Raises
        ------
        UserError
            Where it holds none.
        """
        folder = cls(Path(path))
        if not folder.exists:
            raise UserError(f"{path} is no comparison: it has no {NAME}.")
        return folder

    @property
    def exists(self) -> bool:
        """Whether the folder holds a comparison."""
        return files.is_file(self.path / NAME)

    def comparison(self) -> Comparison:
        """Return the comparison as it was last asked for.

        Raises
        ------
        UserError
            Where ``comparison.toml`` cannot be read.
        """
        file = self.path / NAME
        try:
            tables = parse_toml(files.read_text(file, "The comparison", most=LARGEST), file)
            settings: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in tables.pop("comparison").items()
            }
            wrong = [name for name in TABLES if not isinstance(tables.get(name, {}), dict)]
            if wrong:
                raise TypeError(f"[{wrong[0]}] must be a table")
            named = [*settings["methods"], settings.get("table", ""), settings["baseline"]]
            places = {name: outside_file(name, self.path) for name in named}
            full = {name: path + rest if path else name for name, (path, rest) in places.items()}
            settings["methods"] = tuple(full[name] for name in settings["methods"])
            settings |= {key: full[settings[key]] for key in ("table", "baseline") if key in settings}
            recipe = Recipe(**tables, where=file, strangers=frozenset(path for path, _ in places.values() if path))
            return Comparison(recipe=recipe.foreign(self.path), **settings)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} cannot be read: {error}. Restore it, or give another `out`.") from None

    def write(self, comparison: Comparison) -> None:
        """Write ``comparison.toml``."""
        Run(self.path).write(NAME, comparison.toml())

    def runs(self) -> tuple[Run, ...]:
        """Return all runs that have started here, whether or not the last call listed them."""
        return tuple(run for path in sorted(self.path.iterdir()) if (run := Run(path)).started)

    def run(self, cell: ComparisonCell) -> Run:
        """Return the folder of a search, there or not."""
        return Run(self.path / cell.name)

    def retrained(self, cell: ComparisonCell) -> Run:
        """Return the folder in which the answer of a search is trained alone, there or not."""
        return Run(self.path / f"{cell.name}-retrained")

    def log(self, cell: ComparisonCell) -> Path:
        """Return the file of what a run printed."""
        return self.path / LOGS / f"{cell.name}.log"

    def failure(self, cell: ComparisonCell) -> str:
        """Return why a run could not be brought to its end the last time; "" where nothing is known to have failed."""
        return last_failure(self.log(cell))
