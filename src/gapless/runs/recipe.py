"""Recipes: everything that determines a run, as TOML tables ``[space] [method] [train] [data] [run]``."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from gapless.core import catalogue
from gapless.core.errors import UserError, nearest, unknown
from gapless.core.method import Method, Setting
from gapless.core.plan import Train
from gapless.core.searcher import Searcher
from gapless.core.settings import convert, fields_of, make, typed
from gapless.core.space import Space
from gapless.data import ImageData, load

TABLES = ("space", "method", "train", "data", "run")
MEASURED = ("classes", "channels", "size")
"""Fields of a space that are read from the data."""
Precision = Literal["float32", "bfloat16", "float64"]
RUN: dict[str, tuple[Any, Any, str]] = {
    "seed": (int, 0, "Seed of every random stream."),
    "device": (str, "auto", "auto, cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."),
    "threads": (int, 0, "CPU threads of PyTorch; 0 leaves its choice. Small supernets are as fast on one."),
    "precision": (Precision, "float32", "bfloat16 runs the supernet under autocast; parameters stay float32."),
}
"""Settings of the table ``[run]``: name -> (type, default, help)."""


@dataclass(frozen=True)
class Recipe:
    """What a user asked for; ``resolve`` fills in the paper's settings.

    Parameters
    ----------
    space, method, data
        Tables with a key ``name``, and settings of what is named.
    train
        Training settings.
    run
        Seed, device, precision.
    title, source
        Of the recipe.
    where
        File that it was read from, for messages.
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    where: Path | None = None

    @classmethod
    def read(cls, given: str | Path) -> Recipe:
        """Read a TOML file, or a recipe that comes with the package by its name.

        Raises
        ------
        UserError
            Where there is no such file, it is no TOML, or it has an unknown table or key: file and line are named.
        """
        path = find(given)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path} is no TOML: {error}.") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is no text.") from None
        for key, value in tables.items():
            legal = (*TABLES, "title", "source")
            if key not in legal or isinstance(value, dict) != (key in TABLES):
                raise UserError(
                    f"{path}, line {line_of(path, '', key)}: a recipe has no {key!r}.{nearest(key, legal)} "
                    f"It has: {', '.join(legal)}."
                )
        recipe = cls(**tables, where=path)
        recipe.check()
        return recipe

    def over(self, **tables: Mapping[str, Any]) -> Recipe:
        """Return the recipe with keys of tables replaced. Another name in a table drops the settings of the one
        before."""
        changed: dict[str, Any] = {}
        for table, given in tables.items():
            old = dict(getattr(self, table))
            if "name" in given and given["name"] != old.get("name", given["name"]):
                old = {}
            changed[table] = {**old, **given}
        return replace(self, **changed)

    def check(self) -> None:
        """Raise a :class:`UserError` for an unknown name or a value of a wrong type, before any data is read."""
        self.definitions()

    def definitions(self) -> tuple[type[Space], type[Method] | type[Searcher], Setting]:
        """Return the space's and the method's class, and what the paper uses; all names and types are checked."""
        space = self._find("space", "spaces")
        method = self._find("method", "methods", "searchers")
        if space.python_only:
            raise UserError(f"The space {self.space['name']!r} is made in Python, for it needs {space.python_only}.")
        setting = method.setting(space.label) if issubclass(method, Method) else Setting(method.source)
        for table, definition in (("space", space), ("method", method), ("train", Train), ("data", load)):
            self._typed(table, definition)
        for name in MEASURED:
            if name in self.space:
                raise UserError(f"{self._at('space', name)}`space.{name}` is read from the data and cannot be set.")
        for name, value in self.run.items():
            if name not in RUN:
                raise UserError(
                    f"{self._at('run', name)}`run.{name}` is no setting.{nearest(name, RUN)} "
                    f"There are: {', '.join(RUN)}."
                )
            convert(value, RUN[name][0], f"{self._at('run', name)}`run.{name}`")
        return space, method, setting

    def resolve(self) -> Resolved:
        """Read the data and return the objects of a run."""
        space_class, method_class, setting = self.definitions()
        data_settings = self._typed("data", load)
        train = replace(setting.train, **self._typed("train", Train))
        fields = {**setting.space, **self._typed("space", space_class)}
        space_class(**fields)  # a bad size is found before the data is read
        data = load(self.data.get("name", "digits"), **data_settings)
        fields |= {"classes": len(data.classes), "channels": data.channels, "size": max(data.size)}
        run = {name: self.run.get(name, default) for name, (_, default, _) in RUN.items()}
        space = make(space_class, fields)
        return Resolved(self, space, method_class, self._typed("method", method_class), train, data, run)

    def _find(self, table: str, *kinds: str) -> Any:
        name = getattr(self, table).get("name")
        if not isinstance(name, str):
            raise UserError(f"{self._at(table, 'name')}the table [{table}] needs a name.")
        try:
            return catalogue.find(name, *kinds)
        except UserError as error:
            raise UserError(f"{self._at(table, 'name')}{error}") from None

    def _typed(self, table: str, definition: Any) -> dict[str, Any]:
        given = {k: v for k, v in getattr(self, table).items() if k != "name" or table == "train"}
        found: dict[str, Any] = {}
        for name, value in given.items():
            found |= typed(definition, {name: value}, prefix=f"{table}.", where=self._at(table, name))
        return found

    def _at(self, table: str, key: str) -> str:
        """Return "file, line n: " for messages about a key that the file holds."""
        if self.where is None:
            return ""
        line = line_of(self.where, table, key)
        return f"{self.where}, line {line}: " if line else ""

    def toml(self) -> str:
        """Return the recipe as TOML."""
        lines = [f"{name} = {json.dumps(getattr(self, name))}" for name in ("title", "source") if getattr(self, name)]
        for table in TABLES:
            entries = [f"{k} = {_value(v)}" for k, v in getattr(self, table).items()]
            if entries:
                lines += ["", f"[{table}]", *entries]
        return "\n".join(lines).strip() + "\n"


@dataclass(frozen=True, eq=False)
class Resolved:
    """A recipe with every default filled in, and the objects that it describes."""

    recipe: Recipe
    space: Space
    method_class: type[Method] | type[Searcher]
    method: dict[str, Any]
    train: Train
    data: ImageData
    run: dict[str, Any]

    def full(self) -> Recipe:
        """Return the recipe with every setting written out."""
        space = {f: getattr(self.space, f) for f in fields_of(type(self.space)) if f not in MEASURED}
        method = {name: f.default for name, f in fields_of(self.method_class).items()} | self.method
        method.pop("seed", None)
        train = {f: getattr(self.train, f) for f in fields_of(Train)} if issubclass(self.method_class, Method) else {}
        return replace(
            self.recipe,
            space={"name": self.recipe.space["name"], **space},
            method={"name": self.recipe.method["name"], **method},
            train=train,
            data={**self.recipe.data, "name": _absolute(self.recipe.data.get("name", "digits"))},
            run=self.run,
        )


def _absolute(name: str) -> str:
    """Return the full path of a folder, so that a recipe holds wherever it is read; other names as they are."""
    return str(Path(name).expanduser().resolve()) if name != "digits" and Path(name).expanduser().is_dir() else name


def find(given: str | Path) -> Path:
    """Return the file of a recipe: a path, or a name from the package's folder."""
    if Path(given).is_file():
        return Path(given)
    shipped = {p.stem: p for p in folder()}
    if str(given) in shipped:
        return shipped[str(given)]
    if str(given).endswith(".toml") or "/" in str(given):
        raise UserError(f"There is no recipe file {given}.{nearest(Path(given).stem, shipped)}")
    raise unknown("recipe", str(given), shipped)


def folder() -> list[Path]:
    """Return the recipes that come with the package."""
    return sorted(
        Path(str(p)) for p in resources.files("gapless").joinpath("recipes").iterdir() if p.name.endswith(".toml")
    )


def line_of(path: Path, table: str, key: str) -> int:
    """Return the line, from 1, on which a key of a table (or the table itself) stands; 0 where it does not."""
    current = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            current = header.group(1).strip()
            if not table and current == key:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return 0


def _value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(value)
