"""Fields of spaces and keyword settings of methods: read off their definitions, checked in the user's words."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from gapless.core.errors import UserError, nearest
from gapless.core.files import place
from gapless.core.text import printable

T = TypeVar("T")
LARGEST = 10**15
"""The largest whole number that a setting takes: they are exact as floats up to there, and no count is larger."""


@dataclass(frozen=True)
class Field:
    """One setting: its name, type, default (``inspect.Parameter.empty`` where there is none) and one paragraph of
    help."""

    name: str
    type: Any
    default: Any
    help: str = ""


def fields_of(definition: Callable[..., Any]) -> dict[str, Field]:
    """Return the keyword-only settings of a class (dataclass fields, arguments of ``__init__``) or of a function, in
    order."""
    return dict(_fields_of(definition))


@lru_cache(maxsize=512)
def _fields_of(definition: Callable[..., Any]) -> dict[str, Field]:
    call = getattr(definition, "__init__") if isinstance(definition, type) else definition  # noqa: B009 (unsound only on instances)
    hints = typing.get_type_hints(definition) if dataclasses.is_dataclass(definition) else _hints(call)
    text = _help(definition)
    return {
        name: Field(name, hints.get(name, Any), p.default, text.get(name, ""))
        for name, p in inspect.signature(call).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and not name.startswith("_")
    }


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a function's parameters; its result may be of a type that is not imported yet."""
    written = {name: hint for name, hint in call.__annotations__.items() if name != "return"}
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=written), getattr(call, "__globals__", {}))


def defaults(definition: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of each setting of a class or function, by name."""
    return {name: field.default for name, field in fields_of(definition).items()}


def _help(definition: Callable[..., Any]) -> dict[str, str]:
    """Read the ``Parameters`` sections (numpy style) of a function, or of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(definition.__mro__) if isinstance(definition, type) else (definition,):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "" if isinstance(base, type) else base.__doc__ or "")
        section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-{3,}\n|\Z)", doc, re.S | re.M)
        for names, body in (
            re.findall(r"^(\w[\w, ]*)\n((?:    .*\n?|\n)+)", section.group(1) + "\n", re.M) if section else ()
        ):
            for name in names.split(","):
                found[name.strip()] = " ".join(body.split())
    return found


def check_names(definition: Callable[..., Any], given: Mapping[str, Any], of: str, where: str = "") -> None:
    """Raise a :class:`UserError` for a name in ``given`` that is no setting of ``definition`` (table ``of``)."""
    legal = fields_of(definition)
    for name in given:
        if name not in legal:
            what = getattr(definition, "label", "") or definition.__name__
            raise UserError(
                f"`{name}` is no setting of {what}.{nearest(name, legal)} It has: {', '.join(legal) or 'none'}.",
                of=of,
                where=where,
            )


def typed(definition: Callable[..., Any], given: Mapping[str, Any], *, of: str = "", where: str = "") -> dict[str, Any]:
    """Return ``given`` with each name checked and each value of the annotated type; whole numbers may serve as floats.
    ``of`` and ``where`` are those of the :class:`UserError`.

    Raises
    ------
    UserError
        For an unknown name or a value of another type: what was given, what is legal.
    """
    check_names(definition, given, of, where)
    legal = fields_of(definition)
    return {name: convert(value, legal[name].type, name, of=of, where=where) for name, value in given.items()}


def at_least(least: float, of: str, **values: float) -> None:
    """Raise a :class:`UserError` for the first parameter below ``least``; ``of`` is its table.

    >>> at_least(1, "space", width=4, cells=0)
    Traceback (most recent call last):
    ...
    gapless.core.errors.UserError: `cells` must be at least 1; got 0.
    """
    for name, value in values.items():
        if not value >= least:
            raise UserError(f"`{name}` must be at least {least:g}; got {value}.", of=of)


def make(cls: type[T], given: Mapping[str, Any], *args: Any, of: str = "", where: str = "") -> T:
    """Return ``cls(*args, **given)`` after :func:`typed`."""
    return cls(*args, **typed(cls, given, of=of, where=where))


def convert(value: Any, kind: Any, name: str, *, of: str = "", where: str = "") -> Any:
    """Return ``value`` as the annotated type, or raise a :class:`UserError` for the parameter ``name``."""
    try:
        return _converted(value, kind)
    except _Wrong as wrong:
        raise UserError(f"`{name}` {wrong}", of=of, where=where) from None


class _Wrong(Exception):
    """What a value must be: the second half of a message."""


def _converted(value: Any, kind: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if value not in args:
            hint = nearest(str(value), map(str, args))
            raise _Wrong(f"must be one of {', '.join(map(str, args))}; got {value!r}.{hint}")
        return value
    if origin in (Union, types.UnionType):
        if value is None or (value == "none" and type(None) in args and str not in args):
            return None
        errors = []
        for arm in (a for a in args if a is not type(None)):
            try:
                return _converted(value, arm)
            except _Wrong as error:
                errors.append(error)
        raise errors[0]
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        inner = args[0] if len(args) == 2 and args[1] is Ellipsis else None
        if inner is None and len(items) != len(args):
            raise _Wrong(f"must be {len(args)} values; got {value!r}.")
        return tuple(_converted(v, inner or args[i]) for i, v in enumerate(items))
    if kind is bool:
        words = {"true": True, "false": False, "yes": True, "no": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise _Wrong(f"must be true or false; got {value!r}.")
    if kind in (int, float):
        try:
            if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
                raise ValueError
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            must = "a whole number" if kind is int else "a number"
            raise _Wrong(f"must be {must}; got {printable(str(value)[:80])!r}.") from None
        if kind is int and abs(number) > LARGEST:
            raise _Wrong(f"must be at most {LARGEST:.0e}; got {printable(str(value)[:80])}.")
        if not math.isfinite(number):
            raise _Wrong(f"must be a finite number; got {printable(str(value)[:80])}.")
        return number
    if kind is Path:
        if not isinstance(value, str | Path) or not str(value):
            raise _Wrong(f"must be a path; got {value!r}.")
        try:
            return place(value)
        except UserError as error:
            raise _Wrong(f"must be a path. {error}") from None
    if kind is str:
        if not isinstance(value, str):
            raise _Wrong(f"must be text; got {value!r}.")
        return value
    return value
