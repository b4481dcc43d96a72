"""Every numeric setting has a range, which holds wherever a value comes from and which the help shows."""

import dataclasses
import math
import typing
from typing import Annotated

import pytest

from gapless.core import catalogue
from gapless.core.errors import UserError
from gapless.core.judge import Judge
from gapless.core.plan import Plan, Train
from gapless.core.protocol import Protocol
from gapless.core.settings import Natural, Range, bare, convert, fields_of, range_of
from gapless.data import Augment, load
from gapless.runs.checked import LimitSettings, RunSettings
from gapless.spaces.patched import Patched
from gapless.studies.alone import Trainings
from gapless.studies.compare import compare
from gapless.studies.diagnose import diagnose
from gapless.studies.gap import gap
from gapless.testing.examples import Ragged, patched

FOLDERS = ("methods", "searchers", "spaces", "scores")
NAMED = [catalogue.find(name, folder) for folder in FOLDERS for name in catalogue.names(folder)]
DEFINITIONS = [Train, Protocol, Plan, Augment, load, RunSettings, LimitSettings, compare, diagnose, gap, *NAMED]
TEXTS = ["nan", "inf", "-inf", "1e400", "-1e400", "10000000000000000000", "9" * 5000, "-0.1", "-1", "0x", "", "one"]
HOSTILE = [math.nan, math.inf, -math.inf, 10**19, -(10**19), -1, -1e-9, *TEXTS]


def numbers_of(kind) -> list[tuple[type, Range | None]]:
    """Return each number inside a type, with its range."""
    if typing.get_origin(kind) is Annotated:
        ranges = [part for part in kind.__metadata__ if isinstance(part, Range)]
        return [(number, ranges[0] if ranges else old) for number, old in numbers_of(kind.__origin__)]
    if kind in (int, float):
        return [(kind, None)]
    if typing.get_origin(kind) is typing.Literal:
        return []
    return [found for arm in typing.get_args(kind) for found in numbers_of(arm)]


def numeric(definition):
    """Return the numeric settings but for lists that are checked as a whole."""
    return [f for f in fields_of(definition).values() if numbers_of(f.type) and f.name not in ("seeds", "budgets")]


def values_of(field, value):
    """Return a value for a setting that holds ``value`` at each of its numbers."""
    plain = [arm for arm in typing.get_args(bare(field.type)) if typing.get_origin(arm) is tuple]
    kind = plain[0] if plain else bare(field.type)
    if typing.get_origin(kind) is not tuple:
        return value
    args = typing.get_args(kind)
    return [value] * (1 if args[1:] == (Ellipsis,) else len(args))


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.__name__)
def test_every_number_has_a_range_with_two_ends(definition):
    for field in numeric(definition):
        for _, legal in numbers_of(field.type):
            assert legal is not None, field.name
            assert max(legal.least, legal.above) > -math.inf, field.name
            assert min(legal.most, legal.below) < math.inf, field.name
        if field.default is not None:
            assert convert(field.default, field.type, field.name) == field.default


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.__name__)
def test_a_hostile_value_is_refused_by_name_or_within_the_range(definition):
    for field in numeric(definition):
        for value in HOSTILE:
            given = values_of(field, value)
            found, refusal = None, ""
            try:
                found = convert(given, field.type, field.name)
            except UserError as error:
                refusal = str(error)
            if refusal:
                assert refusal.startswith(f"`{field.name}` ")
                assert len(refusal) < 300
            else:
                flat = [v for v in (found if isinstance(found, tuple) else [found]) if not isinstance(v, str)]
                assert all(any(v in legal for _, legal in numbers_of(field.type)) for v in flat), (field.name, value)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d.__name__)
def test_the_ends_of_a_range_are_legal_and_what_is_beyond_is_not(definition):
    for field in numeric(definition):
        legal = range_of(field.type)
        if legal is None:
            continue
        whole = numbers_of(field.type)[0][0] is int
        step = 1 if whole else 1e-3
        for end in (legal.least, legal.most):
            if math.isfinite(end):
                beyond = end - step if end == legal.least else end + step
                convert(values_of(field, end), field.type, field.name)
                with pytest.raises(UserError, match=f"`{field.name}` must (each )?be"):
                    convert(values_of(field, beyond), field.type, field.name)
        for end in (legal.above, legal.below):
            if math.isfinite(end):
                with pytest.raises(UserError, match=f"`{field.name}` must (each )?be"):
                    convert(values_of(field, end), field.type, field.name)


def out_of_range(definition):
    for field in numeric(definition):
        legal = range_of(field.type)
        if legal is not None:
            value = next(v for v in (-1, 0, 10**16) if v not in legal)
            found = values_of(field, value)
            yield field.name, tuple(found) if isinstance(found, list) else found


def made(definition, **settings):
    """Make an instance from Python."""
    if definition is Patched:
        return patched().replace(**settings)
    if dataclasses.is_dataclass(definition):
        return definition(**settings)
    if issubclass(definition, Judge):
        return definition(Ragged(), "cpu", run="nowhere", **settings)
    return definition(Ragged(), **settings)


@pytest.mark.parametrize(
    "definition", [Train, Protocol, Plan, Augment, *NAMED], ids=lambda d: f"{d.__module__.split('.')[1]}-{d.__name__}"
)
def test_python_is_refused_the_same(definition):
    of = getattr(definition, "of", "")
    for name, value in out_of_range(definition):
        with pytest.raises(UserError, match=f"`{name}` must (each )?be") as caught:
            made(definition, **{name: value})
        assert not of or caught.value.names[0] == f"{of}.{name}"


@pytest.mark.parametrize("definition", NAMED, ids=lambda d: f"{d.__module__.split('.')[1]}-{d.__name__}")
def test_python_is_refused_other_words_than_the_choices(definition):
    for field in fields_of(definition).values():
        if typing.get_origin(field.type) is typing.Literal:
            with pytest.raises(UserError, match=f"`{field.name}` must be one of"):
                made(definition, **{field.name: "no such choice"})


@pytest.mark.parametrize(
    ("function", "given"),
    [(gap, ("nowhere",)), (diagnose, ("nowhere",)), (load, ("digits",))],
    ids=["gap", "diagnose", "load"],
)
def test_functions_refuse_before_they_begin(function, given):
    for name, value in out_of_range(function):
        with pytest.raises(UserError, match=f"`{name}` must be"):
            function(*given, **{name: value})


def test_comparisons_and_trainings_refuse(tmp_path):
    for name, value in (("jobs", 0), ("gpus", -1.0), ("gpus", math.nan)):
        with pytest.raises(UserError, match=f"`{name}` must be"):
            compare(methods=["random"], out=tmp_path / "c", **{name: value})
    for name, value in (("count", 0), ("jobs", 0), ("threads", -1)):
        with pytest.raises(UserError, match=f"`{name.replace('count', 'trainings')}` must be"):
            Trainings(**{"count": 1, name: value})
    assert not list(tmp_path.iterdir())


def test_numbers_of_a_list_are_each_checked():
    kind = tuple[Natural, ...]
    assert convert([1, 2], kind, "widths") == (1, 2)
    with pytest.raises(UserError, match="`widths` must each be at least 1; got 0 in 4 0"):
        convert([4, 0], kind, "widths")
