"""Recipes: everything that determines a run, as TOML tables ``[space] [method] [score] [train] [data] [run]``.

A :class:`Recipe` holds what was written, and checks nothing beyond the names of its tables: that is done once, by
:func:`gapless.runs.checked.check_recipe`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from gapless.core import catalogue, files
from gapless.core.errors import TABLES, Untrusted, UserError, nearest, unknown
from gapless.core.text import printable, shown

TEXTS = ("title", "source", "arch")
OUTSIDE = "outside"
"""The table of outside files, in the recipe of a run."""
MEASURED = ("classes", "channels", "size")
"""Fields of a space that are read from the data."""
LARGEST = 2**20
"""The largest recipe that is read, in bytes."""
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
    outside
        Outside file that the recipe of a run names -> its SHA-256 when the run began.
    where
        File that it was read from, for messages.
    strangers
        Outside files that stand in the file which the recipe was read from: their code is run only where that is
        permitted (:func:`gapless.core.catalogue.trusting`).
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
    outside: Mapping[str, str] = field(default_factory=dict)
    where: Path | None = None
    strangers: frozenset[str] = frozenset()

    @classmethod
    def read(cls, given: str | Path) -> Recipe:
        """Read a TOML file, or a recipe that comes with the package by its name.

        Raises
        ------
        UserError
            Where there is no such file, it is not TOML, or it has an unknown table: file and line are named.
        """
        path = find(given)
        text = files.read_text(path, "The recipe", most=LARGEST)
        tables = parse_toml(text, path)
        for key, value in tables.items():
            legal = (*TABLES, *TEXTS, OUTSIDE)
            if key not in legal or isinstance(value, dict) != (key not in TEXTS):
                raise UserError(
                    f"A recipe has no {key!r}.{nearest(key, legal)} It has: {', '.join(legal)}.",
                    where=f"{path}, line {line_of(text, '', key)}: ",
                )
            name = value.get("name", "") if isinstance(value, dict) else value
            if not isinstance(name, str):
                raise UserError(
                    f"`{'name' if isinstance(value, dict) else key}` must be text; got {printable(repr(name)[:80])}.",
                    of=key if isinstance(value, dict) else "",
                    where=f"{path}, line {line_of(text, *((key, 'name') if isinstance(value, dict) else ('', key)))}: ",
                )
        return cls(**tables, where=path).foreign(path.parent)

    def foreign(self, folder: Path) -> Recipe:
        """Return the recipe as that of a stranger, whose outside files are named relative to a folder.

        Raises
        ------
        UserError
            Where one of them was changed since the run of this recipe began.
        """
        found = set(self.strangers)

        def full(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {full(key): full(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return [full(each) for each in value]
            path, rest = outside_file(value, folder)
            if path:
                found.add(path)
            return path + rest if path else value

        names = ("space", "method", "score", "methods")
        try:
            tables: dict[str, Any] = {name: full(getattr(self, name)) for name in names}
        except RecursionError:
            raise UserError(f"{shown(self.where or folder)} is nested too deeply.") from None
        catalogue.suspect(*found)
        return replace(self, **tables, strangers=frozenset(found))

    def permit(self, name: str) -> None:
        """Raise a :class:`UserError` where the code of an outside file is a stranger's and may not be run, or was
        changed since the run of this recipe began. ``name`` is what the recipe names: a plug-in, or ``mine.py:FILE``.
        """
        plugin, _ = catalogue.outside(name)
        if not plugin:
            return
        path, *_ = both = catalogue.paths(plugin)
        strange = not self.strangers.isdisjoint(both)
        if not strange and not files.is_file(Path(path)):
            return  # whoever looks for it says so
        now, before = catalogue.fingerprint(path), next((self.outside[p] for p in both if p in self.outside), None)
        whose = "The recipe" if self.where is None else shown(self.where)
        if before is not None and now != before:
            raise UserError(
                f"{shown(path)} was changed since the run of {whose} began: its SHA-256 was {before[:16]}... and "
                f"is {now[:16]}... A run goes on as it began: restore the file, or begin a new run."
            )
        if strange:
            catalogue.suspect(path)  # in a process of its own nobody has said so yet
        if strange and not catalogue.trusted():
            when = "is" if before is None else "is, as it was when the run began,"
            raise Untrusted(
                f"{whose} runs the code of {shown(path)}, whose SHA-256 {when} {now[:16]}... Read that file "
                f"first. {catalogue.TRUST}"
            )
        catalogue.permit(path, now)

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
        """Return "file, line n: " for messages about a key whose value stands in the file; empty for a value that was
        laid over it (:meth:`over`)."""
        if self.where is None:
            return ""
        text = files.read_text(self.where, "The recipe", most=LARGEST)
        written: Any = parse_toml(text, self.where)
        current: Any = vars(self)
        for part in filter(None, table.split(".")):
            written, current = (found.get(part) if isinstance(found, Mapping) else None for found in (written, current))
        if isinstance(written, Mapping) and isinstance(current, Mapping) and key in written and key in current:
            old, new = written[key], current[key]
            resolved = key in ("name", "file") and str(new).endswith(str(old).removeprefix("./"))  # by foreign()
            if old != new and not resolved:
                return ""
        line = line_of(text, table, key)
        return f"{self.where}, line {line}: " if line else ""

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add file and line to an error that names a parameter which the file of this recipe sets.

        Values that were laid over those of the file (:meth:`over`) stand nowhere.
        """
        try:
            yield
        except UserError as error:
            names = (name.rpartition(".") for name in error.names)
            place = "" if error.where else next(filter(None, (self.at(table, key) for table, _, key in names)), "")
            if not place:
                raise
            raise error.at(place) from None

    def toml(self) -> str:
        """Return the recipe as TOML."""
        import tomlkit

        texts = {name: getattr(self, name) for name in TEXTS}
        tables = {name: plain(getattr(self, name)) for name in (*TABLES, OUTSIDE)}
        return tomlkit.dumps({name: value for name, value in {**texts, **tables}.items() if value})


def plain(value: Any) -> Any:
    """Return a value as TOML holds it: None is the text "none", a path a text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return "none" if value is None else value


def resident(name: str) -> str:
    """Return what names a plug-in so that it holds wherever it is read: the full path of an outside file."""
    return str(files.whole(name)) if name.endswith(".py") else name


def outside_file(name: Any, folder: Path) -> tuple[str, str]:
    """Return the full path of the outside file that a value of a recipe names, relative to a folder, and the rest of
    the value (:func:`gapless.core.catalogue.outside`); empty where it names none."""
    plugin, rest = catalogue.outside(name)
    return (str(files.whole(folder / files.place(plugin))), rest) if plugin else ("", "")


def outside(*names: str) -> dict[str, str]:
    """Return the SHA-256 of each outside file that one of these values names."""
    found = {path for path, _ in (outside_file(name, Path()) for name in names) if path}
    return {path: catalogue.fingerprint(path) for path in sorted(found) if files.is_file(Path(path))}


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    UserError
        Where it is no TOML: the line is named.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{shown(path)} is not TOML: {error}.") from None
    except RecursionError:
        raise UserError(f"{shown(path)} is not TOML that is read here: it is nested too deeply.") from None
    except ValueError as error:  # numbers of thousands of digits
        raise UserError(f"{shown(path)} is not TOML that is read here: {error}.") from None


def absolute(name: str) -> str:
    """Return the full path of a folder, so that a recipe holds wherever it is read; other names as they are."""
    path = files.place(name)
    return str(files.whole(path)) if name != "digits" and files.is_folder(path) else name


def find(given: str | Path) -> Path:
    """Return the file of a recipe: a path, or a name from the package's folder."""
    path = files.place(given)
    if files.is_file(path):
        return path
    shipped = {p.stem: p for p in folder()}
    if str(given) in shipped:
        return shipped[str(given)]
    if str(given).endswith(".toml") or "/" in str(given):
        if os.path.lexists(path):
            files.checked(path, "The recipe")  # says what is there instead
        raise UserError(f"There is no recipe file {shown(given)}.{nearest(path.stem, shipped)}")
    raise unknown("recipe", str(given), shipped)


def folder() -> list[Path]:
    """Return the recipes that come with the package."""
    return sorted(
        Path(str(p)) for p in resources.files("gapless").joinpath("recipes").iterdir() if p.name.endswith(".toml")
    )


def line_of(text: str, table: str, key: str) -> int:
    """Return the line, from 1, on which a key of a table (or the table itself) stands; 0 where it does not."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\]]+)\]", line):
            current = header.group(1).strip()
            if not table and current == key:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return 0
