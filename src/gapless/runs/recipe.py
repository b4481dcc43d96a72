"""Recipes: everything that determines a run, as TOML tables ``[space] [method] [score] [train] [data] [run]``."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from gapless.core import catalogue
from gapless.core.bound import EXAMPLES, STRENGTH, Bound
from gapless.core.errors import TABLES, UserError, nearest, unknown
from gapless.core.judge import Judge
from gapless.core.method import Method, Setting
from gapless.core.plan import Train
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.core.searcher import Searcher
from gapless.core.settings import convert, defaults, fields_of, make, typed
from gapless.core.space import Space
from gapless.data import ImageData, load

TEXTS = ("title", "source", "arch")
MEASURED = ("classes", "channels", "size")
"""Fields of a space that are read from the data."""
COLUMNS = ("label", "image")
"""Settings of the data that hold for one set only."""
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
Execution = Literal["fused", "reference"]
Start = Literal["fresh", "inherited"]
RUN: dict[str, tuple[Any, Any, str]] = {
    "seed": (int, 0, "Seed of every random stream."),
    "device": (str, "auto", "auto, cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."),
    "threads": (int, 0, "CPU threads of PyTorch; 0 leaves its choice. Small supernets are as fast on one."),
    "precision": (
        Precision,
        "float32",
        "bfloat16 is autocast, tf32 a GPU's rounding of factors; parameters stay float32.",
    ),
    "execution": (Execution, "fused", "fused runs a cell at once, reference edge by edge; the numbers agree."),
    "recompute": (bool, False, "Compute cells again in the backward pass: far less memory, a third more time."),
    "graphs": (bool, False, "On a GPU: record passes of all options as CUDA graphs and replay them."),
    "watch": (
        bool,
        False,
        "Record after each epoch which options receive the gradient, what each is worth alone, and how sharply the "
        "loss bends in the architecture, for `gapless diagnose`; no other number changes.",
    ),
    "save_every": (float, 10.0, "Minutes between two checkpoints inside an epoch; 0 saves at the ends of epochs only."),
}
"""Settings of the table ``[run]``: name -> (type, default, help)."""
SUPERNET = ("execution", "recompute", "graphs", "watch")
"""Those that speak of supernets only."""
LIMIT: dict[str, tuple[Any, Any, str]] = {
    **{unit: (str, None, f"The most that the answer may cost, as {example}.") for unit, example in EXAMPLES.items()},
    "strength": (float, STRENGTH, "Weight of the penalty on what is expected beyond the limits."),
    "latency_file": (str, None, "Measured latencies of an earlier run; by default they are measured."),
}
"""Settings of the table ``[limit]``: name -> (type, default, help)."""


@dataclass(frozen=True)
class Recipe:
    """What a user asked for; ``resolve`` fills in the paper's settings.

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
            legal = (*TABLES, *TEXTS)
            if key not in legal or isinstance(value, dict) != (key in TABLES):
                raise UserError(
                    f"{path}, line {line_of(path, '', key)}: a recipe has no {key!r}.{nearest(key, legal)} "
                    f"It has: {', '.join(legal)}."
                )
        recipe = cls(**tables, where=path)
        recipe.check()
        return recipe

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

    def check(self) -> None:
        """Raise a :class:`UserError` for an unknown name or a value of a wrong type, before any data is read."""
        if self.arch:
            self.retraining()
        else:
            self.completed().definitions()

    def completed(self) -> Recipe:
        """Return the recipe with the space that its score settles, where it names none."""
        if "name" not in self.score or self.space:
            return self
        judge = self._find("score", "scores")
        settled = judge.settles(**self.typed("score", judge, skip=("name", "evaluations")))
        return self if settled is None else replace(self, space=settled.space)

    def definitions(self) -> tuple[type[Space], type[Method] | type[Searcher], Setting]:
        """Return the space's and the method's class, and what the paper uses; all names and types are checked."""
        for name, given in self.methods.items():
            table = f"methods.{name}"
            if not isinstance(given, Mapping):
                raise UserError(
                    f"{self._at('methods', name)}[methods] holds a table of settings for each method, as "
                    f"[methods.drnas], and `{name}` is {given!r}. Did you mean [method]?"
                )
            try:
                other = catalogue.find(name, "methods", "searchers")
            except UserError as error:
                raise error.at(self._at("", table)) from None
            for key, value in given.items():
                typed(other, {key: value}, of=table, where=self._at(table, key))
        space = self._find("space", "spaces")
        method = self._find("method", "methods", "searchers")
        if space.python_only:
            raise UserError(f"The space {self.space['name']!r} is made in Python, for it needs {space.python_only}.")
        setting = setting_of(method, space)
        self.typed("space", space)
        self.typed("method", method)
        self.typed("train", Train, skip=())
        if "name" in self.score:
            self.typed("score", self._find("score", "scores"), skip=("name", "evaluations"))
        self.protocol("cifar")
        self._check_common()
        return space, method, setting

    @property
    def scored(self) -> bool:
        """Whether this is a black-box search by a score."""
        method = self._find("method", "methods", "searchers")
        return bool(self.score) or (issubclass(method, Searcher) and method.needs_score)

    def judging(self) -> tuple[type[Judge], dict[str, Any], int]:
        """Return the class of the score, its settings, and the number of evaluations.

        Raises
        ------
        UserError
            Where the method asks for no score, or none is given, or it lacks a setting.
        """
        name, method = self.method["name"], self._find("method", "methods", "searchers")
        if not issubclass(method, Searcher):
            raise UserError(
                f"{self._at('', 'score')}{name} trains a supernet and asks for no score: leave --score out. "
                f"Searches that go by a score: {', '.join(catalogue.names('searchers'))}."
            )
        if "name" not in self.score:
            raise UserError(
                f"{name} goes by scores, and none is given. Type --score table --score.file FILE for a benchmark "
                "table, or --score inherited --score.run RUN for the supernet of a finished search."
            )
        judge = self._find("score", "scores")
        given = self.typed("score", judge, skip=("name", "evaluations"))
        for setting in fields_of(judge).values():
            if setting.default is inspect.Parameter.empty and setting.name not in given:
                raise UserError(
                    f"{self._at('', 'score')}The score {self.score['name']} needs --score.{setting.name}. "
                    + setting.help.replace("``", "`")
                )
        where = self._at("score", "evaluations")
        count = convert(self.score.get("evaluations", method.usual), int, "evaluations", where=where)
        if count < 1:
            raise UserError(f"`evaluations` must be at least 1; got {count}.", where=where)
        return judge, given, count

    def retraining(self) -> type[Space]:
        """Return the space's class of a recipe that trains an architecture; all names and types are checked."""
        space: type[Space] = self._find("space", "spaces")
        self.typed("space", space)
        self.protocol("cifar")
        self._check_common()
        return space

    def protocol(self, usual: str) -> Protocol:
        """Return the protocol of ``[retrain]``; ``usual`` is the one where it names none."""
        name = self.retrain.get("protocol", usual)
        if name not in PROTOCOLS:
            raise unknown("protocol", str(name), PROTOCOLS).at(self._at("retrain", "protocol"))
        self.start()
        given = self.typed("retrain", Protocol, skip=("protocol", "space", "start", "weights"))
        return replace(PROTOCOLS[name][1], **given)

    def start(self) -> Start | None:
        """Return where the weights of ``[retrain]`` start, None where the recipe does not say."""
        where = self._at("retrain", "start")
        found: Start | None = convert(self.retrain.get("start"), Start | None, "start", of="retrain", where=where)
        return found

    def _check_common(self) -> None:
        self.typed("data", load)
        for name in MEASURED:
            if name in self.space:
                raise UserError(
                    f"`{name}` is read from the data and cannot be set.", of="space", where=self._at("space", name)
                )
        for table, legal in (("run", RUN), ("limit", LIMIT)):
            for name, value in getattr(self, table).items():
                where = self._at(table, name)
                if name not in legal:
                    raise UserError(
                        f"`{name}` is no setting of [{table}].{nearest(name, legal)} There are: {', '.join(legal)}.",
                        of=table,
                        where=where,
                    )
                convert(value, legal[name][0], name, of=table, where=where)
        self.bounds()

    def bounds(self) -> tuple[Bound, ...]:
        """Return the bounds of ``[limit]``."""
        found = []
        for unit in EXAMPLES:
            if unit in self.limit:
                try:
                    found.append(Bound.parse(f"{unit}={self.limit[unit]}"))
                except UserError as error:
                    raise error.at(self._at("limit", unit)) from None
        return tuple(found)

    def resolve(self) -> Resolved:
        """Read the data and return the objects of a run."""
        space_class, method_class, setting = self.definitions()
        data_settings = self.typed("data", load)
        train = replace(setting.train, **self.typed("train", Train, skip=()))
        fields = {**setting.space, **self.typed("space", space_class)}
        space_class(**fields)  # a bad size is found before the data is read
        data = load(self.data.get("name", "digits"), **data_settings)
        fields |= {"classes": len(data.classes), "channels": data.channels, "size": max(data.size)}
        run = self.settings_of_run()
        space = make(space_class, fields)
        method = settings_of(method_class, space_class, self.typed("method", method_class))
        return Resolved(self, space, method_class, method, train, data, run)

    def settings_of_run(self) -> dict[str, Any]:
        """Return ``[run]`` with every default filled in."""
        return {name: self.run.get(name, default) for name, (_, default, _) in RUN.items()}

    def _find(self, table: str, *kinds: str) -> Any:
        name = getattr(self, table).get("name")
        if not isinstance(name, str):
            raise UserError(f"{self._at(table, 'name')}the table [{table}] needs a name.")
        try:
            return catalogue.find(name, *kinds)
        except UserError as error:
            raise error.at(self._at(table, "name")) from None

    def typed(self, table: str, definition: Any, skip: Sequence[str] = ("name",)) -> dict[str, Any]:
        """Return the settings of a table, checked and of the right types; errors name file and line."""
        given = {k: v for k, v in getattr(self, table).items() if k not in skip}
        found: dict[str, Any] = {}
        for name, value in given.items():
            found |= typed(definition, {name: value}, of=table, where=self._at(table, name))
        return found

    def _at(self, table: str, key: str) -> str:
        """Return "file, line n: " for messages about a key that the file holds."""
        if self.where is None:
            return ""
        line = line_of(self.where, table, key)
        return f"{self.where}, line {line}: " if line else ""

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
        method = {name: value for name, value in self.method.items() if name != "seed"}
        train = {f: getattr(self.train, f) for f in fields_of(Train)} if issubclass(self.method_class, Method) else {}
        return replace(
            self.recipe,
            space={"name": self.recipe.space["name"], **space},
            method={"name": self.recipe.method["name"], **method},
            methods={},
            train=train,
            data={**self.recipe.data, "name": absolute(self.recipe.data.get("name", "digits"))},
            run=self.run,
        )


def setting_of(method: type[Method] | type[Searcher], space: type[Space]) -> Setting:
    """Return what the paper uses on a space."""
    return method.setting(space.label) if issubclass(method, Method) else Setting(method.source)


def settings_of(method: type[Method] | type[Searcher], space: type[Space], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a method on a space: what is given, else what the paper uses there, else the default."""
    return setting_of(method, space).resolve(**{**defaults(method), **given})


def described(data: ImageData) -> dict[str, Any]:
    """Return what a network needs to know of its images: ``names`` of the classes, ``mean`` and ``std`` per channel."""
    return {"names": data.classes, "mean": data.mean, "std": data.std}


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
