"""Recipes: everything that determines a run, as TOML tables ``[space] [method] [score] [train] [data] [run]``.

A :class:`Recipe` holds what was written, and checks nothing beyond the names of its tables: that is done once, by
:func:`gapless.runs.checked.check_recipe`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from gapless.core.errors import TABLES, UserError, nearest, unknown

TEXTS = ("title", "source", "arch")
MEASURED = ("classes", "channels", "size")
"""Fields of a space that are read from the data."""
COLUMNS = ("label", "image")
"""Settings of the data that hold for one set only."""


@dataclass(frozen=True)
class Recipe:
    """What a user asked for, as written; :func:`gapless.runs.resolved.resolve` checks it and fills in the paper's
    settings.

    Parameters
    ----------
    space, method, data
        Tables with a key ``name``, and settings of what is named.
    methods
        Name of a method -> its settings in this recipe, where another than that of ``method`` is chosen: so one recipe
        holds the protocol of a comparison.
    score
        What a black-box search goes by: a table with a key ``name``, ``evaluations``, and settings of what is named.
    train
        Training settings.
    limit
        The most that the answer may cost, as ``macs = "50M"`` (see :data:`LIMIT`).
    retrain
        How the architecture is trained alone: the name of a ``protocol``, settings that differ from it, and a table
        ``space`` of fields that differ from the space's own stand-alone size; ``start``: ``fresh`` or ``inherited``
        weights (by default what the method's plan says), the latter from the run ``weights``.
    run
        Seed, device, precision.
    title, source
        Of the recipe.
    arch
        The architecture, where the recipe trains one; empty where it searches.
    where
        File that it was read from, for messages.
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    limit: Mapping[str, Any] = field(default_factory=dict)
    retrain: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    arch: str = ""
    where: Path | None = None

    @classmethod
    def read(cls, given: str | Path) -> Recipe:
        """Read a TOML file, or a recipe that comes with the package by its name.

        Raises
        ------
        UserError
            Where there is no such file, it is not TOML, or it has an unknown table: file and line are named.
        """
        path = find(given)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path} is not TOML: {error}.") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is not text.") from None
        for key, value in tables.items():
            legal = (*TABLES, *TEXTS)
            if key not in legal or isinstance(value, dict) != (key in TABLES):
                raise UserError(
                    f"A recipe has no {key!r}.{nearest(key, legal)} It has: {', '.join(legal)}.",
                    where=f"{path}, line {line_of(path, '', key)}: ",
                )
        return cls(**tables, where=path)

    def over(self, **tables: Mapping[str, Any]) -> Recipe:
        """Return the recipe with keys of tables replaced.

        Another name in a table drops the settings of the one before. Another method takes its settings from
        ``methods``; other data keep what holds for any images (sizes, subsets, augmentation), another score the number
        of evaluations.
        """
        changed: dict[str, Any] = {}
        for table, given in tables.items():
            old = dict(getattr(self, table))
            if "name" in given and given["name"] != old.get("name", given["name"]):
                if table == "data":
                    old = {k: v for k, v in old.items() if k not in COLUMNS}
                elif table == "score":
                    old = {k: v for k, v in old.items() if k == "evaluations"}
                else:
                    old = dict(self.methods.get(given["name"], {})) if table == "method" else {}
            changed[table] = {**old, **given}
        return replace(self, **changed)

    def at(self, table: str, key: str) -> str:
        """Return "file, line n: " for messages about a key that the file holds."""
        if self.where is None:
            return ""
        line = line_of(self.where, table, key)
        return f"{self.where}, line {line}: " if line else ""

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add file and line to an error that names a parameter which the file of this recipe sets.

        Values that were laid over those of the file (:meth:`over`) stand nowhere.
        """
        try:
            yield
        except UserError as error:
            place = "" if error.where else next(filter(None, map(self._place, error.names)), "")
            if not place:
                raise
            raise error.at(place) from None

    def _place(self, name: str) -> str:
        """Return the place of a setting such as ``space.width``; empty where its value is not that of the file."""
        if self.where is None:
            return ""
        table, _, key = name.rpartition(".")
        written: Any = tomllib.loads(self.where.read_text(encoding="utf-8"))
        current: Any = vars(self)
        for part in filter(None, table.split(".")):
            written, current = written.get(part, {}), current.get(part, {})
        return self.at(table, key) if key in written and written[key] == current.get(key) else ""

    def toml(self) -> str:
        """Return the recipe as TOML."""
        lines = [f"{name} = {json.dumps(getattr(self, name))}" for name in TEXTS if getattr(self, name)]
        for table in TABLES:
            entries = {table: getattr(self, table)}
            if table == "methods":
                entries = {f"methods.{name}": given for name, given in self.methods.items()}
            for header, settings in entries.items():
                if settings:
                    lines += ["", f"[{header}]", *(f"{k} = {_value(v)}" for k, v in settings.items())]
        return "\n".join(lines).strip() + "\n"


def absolute(name: str) -> str:
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
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(value)
