"""Options whose set depends on the chosen space and method: read off their definitions, bound in two passes.

The first pass only looks for ``--space``, ``--method`` and a recipe; the second binds one flat signature with all
settings of what they name.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from gapless.core.settings import Field, bare, fields_of, range_of

UNSET = inspect.Parameter.empty
TRUSTED = "Run the code of outside files that a recipe or a run folder names."
Trust = Annotated[bool, Parameter(help=TRUSTED, negative="", show_default=False)]
"""The type of the option ``--trust``, which :func:`gapless.commands.app.run` has heeded before a command is bound."""


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Parameters
    ----------
    name
        As typed, without dashes: ``space.width``.
    kind
        Its type.
    help
        One sentence.
    group
        Title of the panel under which ``--help`` lists it; empty for the general one.
    default
        Shown in the help; what was not typed is not passed on.
    """

    name: str
    kind: Any
    help: str
    group: str = ""
    default: Any = None

    @property
    def several(self) -> bool:
        """Whether it takes any number of numbers or paths: they are typed one after the other, as ``1 1 2 2``."""
        inner = typing.get_args(self.plain)
        return typing.get_origin(self.plain) is tuple and inner[1:] == (Ellipsis,) and inner[0] in (int, float, Path)

    @property
    def plain(self) -> Any:
        """Its type without ranges, and without None where that is a tuple or None: what is not typed is not passed
        on."""
        kind = bare(self.kind)
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
        return arms[0] if len(arms) == 1 and typing.get_origin(arms[0]) is tuple else kind

    def parameter(self) -> inspect.Parameter:
        """Return the parameter that cyclopts binds."""
        legal = range_of(self.kind)
        each = "each " if legal and typing.get_origin(self.plain) is tuple else ""
        notes = [] if legal is None else [f"{each}{legal}"]
        notes += [] if self.default is None or self.default is UNSET else [f"default: {_plain(self.default)}"]
        shown = f" [{'; '.join(notes)}]" if notes else ""
        extra: dict[str, Any] = {"group": Group(self.group)} if self.group else {}
        if self.name in ("json", "trust") or typing.get_origin(self.plain) in (tuple, list):
            extra["negative"] = ""
        if self.several:
            extra["consume_multiple"] = True
        text = self.help.replace("``", "`") + shown
        annotation = Parameter(name=f"--{self.name}", help=text, show_default=False, **extra)
        return inspect.Parameter(
            self.name.replace(".", "__"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[self.plain | None, annotation],
        )


TRUST = Option("trust", bool, TRUSTED)
"""The option ``--trust``; see :data:`Trust`."""


def settings(
    prefix: str,
    definition: Callable[..., Any],
    group: str,
    shown: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
) -> list[Option]:
    """Return the options ``--prefix.name`` for the settings of a class or function; ``shown`` overrides defaults in the
    help."""
    fields: list[Field] = [f for f in fields_of(definition).values() if f.name not in skip]
    return [Option(f"{prefix}.{f.name}", f.type, f.help, group, (shown or {}).get(f.name, f.default)) for f in fields]


def run_settings(shown: Mapping[str, Any] | None = None, skip: Sequence[str] = ()) -> list[Option]:
    """Return the options for the table ``[run]`` of a recipe, which have no prefix; ``shown`` overrides defaults in the
    help."""
    from gapless.runs.checked import RunSettings

    fields = [f for f in fields_of(RunSettings).values() if f.name not in skip]
    return [Option(f.name, f.type, f.help, default=(shown or {}).get(f.name, f.default)) for f in fields]


def given_run(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table ``[run]`` of what was typed."""
    from gapless.runs.checked import RunSettings

    return {name: typed[name] for name in fields_of(RunSettings) if name in typed}


def bind(
    body: Callable[..., None], positional: Sequence[tuple[str, Any, str, bool]], options: Sequence[Option]
) -> Callable[..., None]:
    """Return a function that cyclopts can bind, which calls ``body(*positional, typed)`` with what was typed: option
    name -> value.

    ``positional`` holds (name, type, help, whether it is required).
    """
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_ONLY,
            default=UNSET if required else None,
            annotation=Annotated[kind if required else kind | None, Parameter(help=text)],
        )
        for name, kind, text, required in positional
    ] + [option.parameter() for option in options]

    def call(*args: Any, **given: Any) -> None:
        args = (*args, *[None] * (len(positional) - len(args)))
        body(*args, {name.replace("__", "."): value for name, value in given.items()})

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def table(typed: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the typed settings of one prefix, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in typed.items() if name.startswith(f"{prefix}.")}


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Return the value typed for ``--name``, before anything is bound."""
    found = None
    for i, word in enumerate(arguments):
        if word == f"--{name}" and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def flag(name: str, options: Collection[str]) -> str | None:
    """Return the option that sets a parameter of an error, with its dashes; None where the command has none for it.

    Parameters
    ----------
    name
        As :meth:`gapless.core.errors.UserError.spelled` passes it: ``space.width``, or ``jobs``.
    options
        Names of the command's options, without dashes.

    >>> flag("space.widht", ["space", "space.width"]), flag("run.seed", ["seed"]), flag("jobs", ["out"])
    ('--space.widht', '--seed', None)
    """
    table, _, last = name.rpartition(".")
    bare = {"run": (last,), "retrain": (last,), "limit": (f"limit_{last}", last, "limit")}.get(table, ())
    found = next((option for option in (name, *bare) if option in options), None)
    if found is None and any(table and f"{option}.".startswith(f"{table}.") for option in options):
        found = name
    return None if found is None else f"--{found}"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own: the last line of standard output."""
    print(json.dumps(value), flush=True)


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_plain, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
