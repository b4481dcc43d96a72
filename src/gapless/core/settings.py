"""Settings: the fields of spaces and the keyword parameters of methods and functions, with their types and ranges.

A numeric setting declares its range in its type, beside its default::

    def __init__(self, space: Space, *, arch_lr: NonNegative = 3e-4, samples: Natural = 20) -> None:

The range is checked when a value comes from a recipe or a command (:func:`convert`) and when it comes from Python
(:func:`check_ranges`, :func:`ranged`), and ``--help`` shows it.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

from gapless.core.errors import UserError, nearest
from gapless.core.files import place
from gapless.core.text import printable

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
LARGEST = 10**15
"""The largest whole number that a setting takes: whole numbers are exact as floats up to here."""


@dataclass(frozen=True)
class Range:
    """The legal numbers of a setting, as metadata of its type: ``Annotated[float, Range(0, 1)]``.

    Parameters
    ----------
    least, most
        Smallest and largest legal number.
    above, below
        The same, themselves not legal.

    >>> [str(Range(*ends)) for ends in ((0, 1), (1, 10**6))]
    ['from 0 to 1', 'from 1 to 1,000,000']
    >>> str(Range(above=0, most=1)), str(Range(0, below=1)), str(Range(1)), str(Range(above=0))
    ('more than 0 and at most 1', 'at least 0 and less than 1', 'at least 1', 'more than 0')
    >>> 0 in Range(0, 1), 0 in Range(above=0), 1 in Range(0, below=1), float("nan") in Range(0)
    (True, False, False, False)
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        return self.legal(None)

    def legal(self, number: float | None) -> str:
        """Return which numbers are legal, in words; only the end that ``number`` oversteps where the range is wide.

        >>> Range(1, 10**6).legal(0), Range(1, 10**6).legal(10**9), Range(0, 1).legal(2)
        ('at least 1', 'at most 1,000,000', 'from 0 to 1')
        """
        lower = f"at least {_number(self.least)}" if self.least > self.above else f"more than {_number(self.above)}"
        upper = f"at most {_number(self.most)}" if self.most < self.below else f"less than {_number(self.below)}"
        bounded = max(self.least, self.above) > -math.inf, min(self.most, self.below) < math.inf
        if number is not None and all(bounded) and min(self.most, self.below) > 1000:
            return lower if not (number >= self.least and number > self.above) else upper
        if all(bounded) and self.least > self.above and self.most < self.below:
            return f"from {_number(self.least)} to {_number(self.most)}"
        return " and ".join(end for end, there in zip((lower, upper), bounded, strict=True) if there)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < LARGEST else f"{value:g}"


Natural = Annotated[int, Range(1, 10**9)]
"""A number of things, at least one."""
Whole = Annotated[int, Range(0, 10**9)]
"""A number of things, or none."""
Sample = Annotated[int, Range(2, 10**9)]
"""A number of things that are compared with one another."""
Epochs = Annotated[int, Range(1, 10**6)]
"""Epochs of a search or a training."""
Seed = Annotated[int, Range(0, LARGEST)]
"""Seed of random streams."""
Threads = Annotated[int, Range(0, 1024)]
"""CPU threads; 0 leaves PyTorch's choice."""
Processes = Annotated[int, Range(1, 1024)]
"""Processes at a time."""
Repeats = Annotated[int, Range(1, 1000)]
"""Trainings of the same architecture."""
Side = Annotated[int, Range(1, 2**14)]
"""Side of an image, in pixels; or channels of a layer."""
Margin = Annotated[int, Range(0, 2**14)]
"""Pixels, or none."""
Depth = Annotated[int, Range(1, 1000)]
"""Cells or blocks in a row."""
Stride = Annotated[int, Range(1, 2)]
"""Stride of a block."""
NonNegative = Annotated[float, Range(0, 10**6)]
"""A rate, a weight or a bound, or 0."""
Positive = Annotated[float, Range(above=0, most=10**6)]
"""A temperature or a factor."""
Operations = Annotated[int, Range(0, 100)]
"""Number of operations of RandAugment (arXiv 1909.13719)."""
Magnitude = Annotated[int, Range(0, 29)]
"""Magnitude of RandAugment's operations (arXiv 1909.13719)."""
HueTurns = Annotated[float, Range(0, 0.5)]
"""Change of hue, in turns of the colour wheel."""
Share = Annotated[float, Range(0, 1)]
"""A share or a probability."""
Portion = Annotated[float, Range(0, below=1)]
"""A share that is never all."""


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
    own = {
        name: p
        for name, p in inspect.signature(call).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and not name.startswith("_")
    }
    try:
        hints = (
            typing.get_type_hints(definition, include_extras=True)
            if dataclasses.is_dataclass(definition)
            else _hints(inspect.unwrap(call), own)
        )
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise UserError(
            f"The type of a setting of {definition.__name__} cannot be told: {error}. What an annotation names must be "
            "imported when the file is read, not under `if TYPE_CHECKING`."
        ) from None
    text = _help(definition)
    return {name: Field(name, hints.get(name, Any), p.default, text.get(name, "")) for name, p in own.items()}


def _hints(call: Callable[..., Any], names: Collection[str]) -> dict[str, Any]:
    """Return the types of some parameters of a function; others may be of types that are not imported yet."""
    written = {name: hint for name, hint in call.__annotations__.items() if name in names}
    home = getattr(call, "__globals__", {})
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=written), home, include_extras=True)


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


def check_ranges(definition: Callable[..., Any], values: Mapping[str, Any], of: str = "") -> None:
    """Raise a :class:`UserError` for the first number in ``values`` that is outside of its range, or word that is none
    of its choices.

    ``of`` is the table of a recipe that holds these settings.

    >>> def train(*, epochs: Natural = 50) -> None: ...
    >>> check_ranges(train, {"epochs": 0})
    Traceback (most recent call last):
    ...
    gapless.core.errors.UserError: `epochs` must be at least 1; got 0.
    """
    for name, field in fields_of(definition).items():
        if name in values:
            try:
                _in_range(values[name], field.type)
            except _Wrong as wrong:
                raise UserError(f"`{name}` {wrong}", of=of) from None


def ranged(call: F, of: str = "") -> F:
    """Return a function that checks the ranges of its settings before it runs."""

    @wraps(call)
    def checked(*args: Any, **given: Any) -> Any:
        check_ranges(checked, given, of)
        return call(*args, **given)

    return typing.cast(F, checked)


class Ranged:
    """Base of classes whose settings are parameters of ``__init__``: their ranges are checked wherever they come from.

    Attributes
    ----------
    of
        Table of a recipe that holds the settings.
    """

    of: ClassVar[str] = ""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__init__" in cls.__dict__:
            cls.__init__ = ranged(cls.__init__, of=cls.of)  # type: ignore[method-assign]


def make(cls: type[T], given: Mapping[str, Any], *args: Any, of: str = "", where: str = "") -> T:
    """Return ``cls(*args, **given)`` after :func:`typed`."""
    return cls(*args, **typed(cls, given, of=of, where=where))


def convert(value: Any, kind: Any, name: str, *, of: str = "", where: str = "") -> Any:
    """Return ``value`` as the annotated type, or raise a :class:`UserError` for the parameter ``name``."""
    try:
        found = _converted(value, kind)
        _in_range(found, kind)
    except _Wrong as wrong:
        raise UserError(f"`{name}` {wrong}", of=of, where=where) from None
    return found


class _Wrong(Exception):
    """What a value must be: the second half of a message."""


def _converted(value: Any, kind: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _converted(value, args[0])
    if origin is Literal:
        return _chosen(value, args)
    if origin in (Union, types.UnionType):
        if type(None) in args and (value is None or (value == "none" and str not in args)):
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
    if kind in (Path, str) and not _encodes(str(value)):
        raise _Wrong(f"must be text in UTF-8, for recipes are; got {printable(str(value)[:80])!r}.")
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


def _encodes(text: str) -> bool:
    """Return whether a text can be written: arguments and names of files may hold bytes that are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chosen(value: Any, legal: Collection[Any]) -> Any:
    if value not in legal:
        names = [str(each) for each in legal]
        raise _Wrong(f"must be one of {', '.join(names)}; got {value!r}.{nearest(str(value), names)}")
    return value


def _in_range(value: Any, kind: Any) -> None:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        _chosen(value, args)
    elif origin is Annotated:
        for legal in args[1:]:
            if isinstance(legal, Range) and isinstance(value, numbers.Real) and float(value) not in legal:
                raise _Wrong(f"must be {legal.legal(float(value))}; got {printable(str(value)[:80])}.")
    elif origin in (Union, types.UnionType):
        arms = [arm for arm in args if arm is not type(None)]
        for arm in arms if value is not None else ():
            if len(arms) == 1 or typing.get_origin(arm) is not Literal:
                _in_range(value, arm)
    elif origin is tuple and isinstance(value, list | tuple):
        each = [args[0]] * len(value) if args[1:] == (Ellipsis,) else args
        for item, arm in zip(value, each, strict=False):
            try:
                _in_range(item, arm)
            except _Wrong as wrong:
                every = "each " if len({*each}) == 1 else ""
                must = str(wrong).removeprefix("must ").partition(";")[0]
                raise _Wrong(f"must {every}{must}; got {item} in {' '.join(map(str, value))}.") from None


def bare(kind: Any) -> Any:
    """Return a type without the ranges inside it."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return bare(args[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(bare(arm) for arm in args)]  # noqa: UP007 (types known at run time only)
    if origin is tuple:
        return tuple.__class_getitem__(tuple(arm if arm is Ellipsis else bare(arm) for arm in args))
    return kind


def range_of(kind: Any) -> Range | None:
    """Return the one range inside a type; None where it has none, or several."""
    found = set(_ranges(kind))
    return found.pop() if len(found) == 1 else None


def _ranges(kind: Any) -> Iterator[Range]:
    if typing.get_origin(kind) is Annotated:
        yield from (part for part in kind.__metadata__ if isinstance(part, Range))
    for arm in typing.get_args(kind):
        yield from _ranges(arm)
