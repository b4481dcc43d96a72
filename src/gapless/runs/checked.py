"""A recipe with its names found and its values of the right types: all that can be checked before any data is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from gapless.core import catalogue
from gapless.core.bound import EXAMPLES, STRENGTH, Bound
from gapless.core.errors import UserError, unknown
from gapless.core.judge import Judge, Settled
from gapless.core.method import Method, Setting
from gapless.core.plan import Train
from gapless.core.protocol import PROTOCOLS, Protocol
from gapless.core.searcher import Searcher
from gapless.core.settings import Natural, NonNegative, Seed, Threads, convert, defaults, fields_of, typed
from gapless.core.space import Space
from gapless.core.text import printable, shown
from gapless.data import load
from gapless.engine.precision import Precision
from gapless.engine.supernet import Execution
from gapless.runs.recipe import MEASURED, Recipe, resident

T = TypeVar("T")
Start = Literal["fresh", "inherited"]
Kind = Literal["supernet", "black-box", "draw", "training"]
"""What a recipe describes: a search that trains a supernet, a black-box search by a score, an architecture that a
black-box search draws without any score, or the training of one architecture."""
OF_SUPERNETS = ("execution", "recompute", "graphs", "watch")
"""Settings of a run that only a supernet has."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The table ``[run]`` of a recipe, with every default filled in.

    Parameters
    ----------
    seed
        Seed of every random stream.
    device
        auto, cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
    threads
        CPU threads of PyTorch; 0 leaves its choice. Small supernets are as fast on one.
    precision
        bfloat16 is autocast, tf32 a GPU's rounding of factors; parameters stay float32.
    execution
        fused runs a cell at once, reference edge by edge; the numbers agree.
    recompute
        Compute cells again in the backward pass: far less memory, a third more time.
    graphs
        On a GPU: record passes of all options as CUDA graphs and replay them.
    watch
        Record after each epoch which options receive the gradient, what each is worth alone, and the largest eigenvalue
        of the Hessian with respect to the architecture, for `gapless diagnose`; no other number changes.
    save_every
        Minutes between two checkpoints inside an epoch; 0 saves at the ends of epochs only.
    """

    label: ClassVar[str] = "[run]"
    seed: Seed = 0
    device: str = "auto"
    threads: Threads = 0
    precision: Precision = "float32"
    execution: Execution = "fused"
    recompute: bool = False
    graphs: bool = False
    watch: bool = False
    save_every: NonNegative = 10.0

    @classmethod
    def of(cls, recipe: Recipe) -> RunSettings:
        """Return the run settings of a recipe, checked."""
        return cls(**typed_table(recipe, "run", cls, skip=()))

    def table(self) -> dict[str, Any]:
        """Return the settings as a table of a recipe."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """The table ``[limit]`` of a recipe.

    Parameters
    ----------
    macs
        Largest number of MACs of the answer, as 50M.
    params
        Largest number of parameters of the answer, as 1M.
    latency
        Largest latency of the answer, as 5ms.
    strength
        Weight of the penalty on the expected cost beyond the limits.
    latency_file
        File of the latencies that an earlier run measured. By default they are measured.
    """

    label: ClassVar[str] = "[limit]"
    macs: str | None = None
    params: str | None = None
    latency: str | None = None
    strength: NonNegative = STRENGTH
    latency_file: Path | None = None


@dataclass(frozen=True)
class RetrainSettings:
    """The table ``[retrain]`` of a recipe.

    Attributes
    ----------
    protocol
        Name of a protocol; None where the recipe names none.
    settings
        Settings of the protocol that differ from it.
    start
        Whether training starts from fresh weights or from those of the supernet; None where the recipe does not say.
    weights
        Run whose weights are inherited.
    space
        Fields of the space that differ from its size alone, as written.
    """

    protocol: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: Start | None = None
    weights: str | None = None
    space: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe) -> RetrainSettings:
        """Return the retraining settings of a recipe, checked."""
        table = recipe.retrain
        name = table.get("protocol")
        if name is not None and (not isinstance(name, str) or name not in PROTOCOLS):
            raise unknown("protocol", str(name), PROTOCOLS).at(recipe.at("retrain", "protocol"))
        where = recipe.at("retrain", "start")
        start: Start | None = convert(table.get("start"), Start | None, "start", of="retrain", where=where)
        settings = typed_table(recipe, "retrain", Protocol, skip=("protocol", "space", "start", "weights"))
        return cls(name, settings, start, table.get("weights"), table.get("space", {}))

    def on(self, usual: str) -> Protocol:
        """Return the protocol with these settings; ``usual`` is the name of the protocol where the recipe has none."""
        return replace(PROTOCOLS[self.protocol or usual][1], **self.settings)


@dataclass(frozen=True, eq=False)
class Component(Generic[T]):
    """A class that a recipe names, and its settings.

    Attributes
    ----------
    name
        As the recipe has it: a name of the catalogue, or an outside file.
    cls
        The class.
    settings
        Those of the recipe, checked and of the right types; of a method all, with those of its paper.
    """

    name: str
    cls: type[T]
    settings: Mapping[str, Any]

    def make(self, *args: Any, **more: Any) -> T:
        """Return an instance with these settings."""
        return self.cls(*args, **{**self.settings, **more})

    def table(self, *, skip: Sequence[str] = ()) -> dict[str, Any]:
        """Return the table of a recipe with every setting written out."""
        settings = defaults(self.cls) | dict(self.settings)
        return {"name": resident(self.name), **{k: v for k, v in settings.items() if k not in skip}}


@dataclass(frozen=True, eq=False)
class CheckedRecipe:
    """A recipe whose names are found and whose values are of the right types.

    Attributes
    ----------
    recipe
        What was written, with the space that its score settles where it names none.
    space
        The space, with the fields that the method's paper uses on it.
    method
        The method or the black-box search; None where the recipe trains an architecture.
    score
        The judge of a black-box search; None where the recipe names none.
    setting
        What the method's paper uses on this space.
    train
        Training of the supernet: the paper's, changed by the recipe.
    retrain
        How the answer, or the architecture of the recipe, is trained alone.
    data
        Settings of :func:`gapless.data.load`.
    limit, bounds
        The limits on the answer, and the same as bounds.
    run
        Seed, device, precision.
    """

    recipe: Recipe
    space: Component[Space]
    method: Component[Any] | None
    score: Component[Judge] | None
    setting: Setting
    train: Train
    retrain: RetrainSettings
    data: Mapping[str, Any]
    limit: LimitSettings
    bounds: tuple[Bound, ...]
    run: RunSettings

    @property
    def kind(self) -> Kind:
        """What the recipe describes."""
        if self.method is None:
            return "training"
        if self.recipe.score or (issubclass(self.method.cls, Searcher) and self.method.cls.needs_score):
            return "black-box"
        return "supernet" if issubclass(self.method.cls, Method) else "draw"

    @cached_property
    def settled(self) -> Settled | None:
        """The space and the images that the score settles; None where it settles none."""
        return None if self.score is None else self.score.cls.settles(**self.score.settings)

    def judging(self) -> tuple[Component[Judge], int]:
        """Return the judge of a black-box search, and the number of evaluations.

        Raises
        ------
        UserError
            Where the method takes no score, or the recipe has none, or the score lacks a setting.
        """
        recipe, method = self.recipe, self.method
        assert method is not None
        if not issubclass(method.cls, Searcher):
            raise UserError(
                f"{method.name} trains a supernet and asks for no score: leave `score` out. "
                f"Searches by a score: {', '.join(catalogue.names('searchers'))}.",
                where=recipe.at("", "score"),
            )
        if self.score is None:
            raise UserError(
                f"{method.name} searches by a score, and none is given. Set `score` to table, with the `score.file` of "
                "a benchmark, or to inherited, with the `score.run` of a finished search that trained a supernet."
            )
        for setting in fields_of(self.score.cls).values():
            if setting.default is inspect.Parameter.empty and setting.name not in self.score.settings:
                raise UserError(
                    f"The score {self.score.name} needs `{setting.name}`. " + setting.help.replace("``", ""),
                    of="score",
                    where=recipe.at("", "score"),
                )
        where = recipe.at("score", "evaluations")
        count = convert(recipe.score.get("evaluations", method.cls.usual), Natural, "evaluations", where=where)
        return self.score, count


def check_recipe(recipe: Recipe) -> CheckedRecipe:
    """Return a recipe with its names found and its values checked, before any data is read.

    Raises
    ------
    UserError
        For an unknown name, or a value of a wrong type: what was given, what is legal, and the line of the file.
    """
    with recipe.located():
        return _check(recipe)


def _check(recipe: Recipe) -> CheckedRecipe:
    if recipe.arch:
        method = score = None
    else:
        _check_other_methods(recipe)
        score = component(recipe, "score", "scores") if "name" in recipe.score else None
        recipe = _completed(recipe, score)
    space: Component[Space] = component(recipe, "space", "spaces")
    setting, train = Setting(""), Train()
    if not recipe.arch:
        method = component(recipe, "method", "methods", "searchers")
        method = replace(method, settings=settings_of(method.cls, space.cls, method.settings))
        if space.cls.python_only:
            raise UserError(f"The space {space.name!r} is made in Python, for it needs {space.cls.python_only}.")
        setting = setting_of(method.cls, space.cls)
        space = replace(space, settings={**setting.space, **space.settings})
        train = replace(setting.train, **typed_table(recipe, "train", Train, skip=()))
    retrain, data = RetrainSettings.of(recipe), typed_table(recipe, "data", load)
    retrain = replace(retrain, space=_alone_fields(recipe, space.cls))
    for name in MEASURED:
        if name in recipe.space:
            raise UserError(
                f"`{name}` is read from the data and cannot be set.", of="space", where=recipe.at("space", name)
            )
    run = RunSettings.of(recipe)
    limit = LimitSettings(**typed_table(recipe, "limit", LimitSettings, skip=()))
    bounds = _bounds(recipe, limit)
    return CheckedRecipe(recipe, space, method, score, setting, train, retrain, data, limit, bounds, run)


def _alone_fields(recipe: Recipe, space: type[Space]) -> dict[str, Any]:
    """Return the table ``[retrain.space]``, checked."""
    given = recipe.retrain.get("space", {})
    if not isinstance(given, Mapping):
        raise UserError(
            f"[retrain.space] holds fields of the space; got {printable(repr(given)[:80])}.",
            where=recipe.at("retrain", "space"),
        )
    found: dict[str, Any] = {}
    for name, value in given.items():
        where = recipe.at("retrain.space", name) or recipe.at("retrain", "space")
        if name in MEASURED:
            raise UserError(f"`retrain.space.{name}` is read from the data and cannot be set.", where=where)
        found |= typed(space, {name: value}, of="retrain.space", where=where)
    return found


def setting_of(method: type[Method] | type[Searcher], space: type[Space]) -> Setting:
    """Return what the paper uses on a space."""
    return method.setting(space.label) if issubclass(method, Method) else Setting(method.source)


def settings_of(method: type[Method] | type[Searcher], space: type[Space], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a method on a space: what is given, else what the paper uses there, else the default."""
    return setting_of(method, space).resolve(**{**defaults(method), **given})


def completed(recipe: Recipe) -> Recipe:
    """Return the recipe with the space that its score settles, where it names none."""
    return _completed(recipe, component(recipe, "score", "scores") if "name" in recipe.score else None)


def component(recipe: Recipe, table: str, *kinds: str) -> Component[Any]:
    """Return the class that a table of a recipe names, from the first of the folders of the package that lists it, with
    its settings."""
    name = getattr(recipe, table).get("name")
    if not isinstance(name, str):
        whose = "" if recipe.where is None else f"{shown(recipe.where)}: "
        raise UserError(f"The table [{table}] needs a name.", where=recipe.at(table, "name") or whose)
    try:
        recipe.permit(name)
        cls = catalogue.find(name, *kinds)
    except UserError as error:
        raise error.at(recipe.at(table, "name")) from None
    settings = typed_table(recipe, table, cls, ("name", "evaluations") if table == "score" else ("name",))
    for value in settings.values():
        if isinstance(value, str | Path):
            recipe.permit(str(value))  # a file that a plug-in reads, as mine.py:FILE
    return Component(name, cls, settings)


def typed_table(recipe: Recipe, table: str, definition: Any, skip: Sequence[str] = ("name",)) -> dict[str, Any]:
    """Return the settings of a table, checked and of the right types; errors name file and line."""
    found: dict[str, Any] = {}
    for name, value in getattr(recipe, table).items():
        if name not in skip:
            try:
                found |= typed(definition, {name: value}, of=table)
            except UserError as error:
                raise error.at(recipe.at(table, name)) from None
    return found


def _completed(recipe: Recipe, score: Component[Judge] | None) -> Recipe:
    if score is None or recipe.space:
        return recipe
    settled = score.cls.settles(**score.settings)
    return recipe if settled is None else replace(recipe, space=settled.space)


def _check_other_methods(recipe: Recipe) -> None:
    for name, settings in recipe.methods.items():
        table = f"methods.{name}"
        if not isinstance(settings, Mapping):
            raise UserError(
                f"[methods] holds a table of settings for each method, as [methods.drnas]; got {name} = {settings!r}. "
                "Did you mean [method]?",
                where=recipe.at("methods", name),
            )
        try:
            recipe.permit(name)
            cls = catalogue.find(name, "methods", "searchers")
        except UserError as error:
            raise error.at(recipe.at("", table)) from None
        for key, value in settings.items():
            typed(cls, {key: value}, of=table, where=recipe.at(table, key))


def _bounds(recipe: Recipe, limit: LimitSettings) -> tuple[Bound, ...]:
    bounds = []
    for unit in EXAMPLES:
        most = getattr(limit, unit)
        if most is not None:
            try:
                bounds.append(Bound.parse(f"{unit}={most}"))
            except UserError as error:
                raise error.at(recipe.at("limit", unit)) from None
    return tuple(bounds)
