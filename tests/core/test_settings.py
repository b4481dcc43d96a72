"""Settings read off definitions, and errors in the user's words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from gapless.core import settings
from gapless.core.errors import UserError, unknown
from gapless.core.plan import Train
from gapless.core.settings import convert, fields_of, make


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base.

    Parameters
    ----------
    width
        Of everything.
    """

    width: int = 4


@dataclass(frozen=True, kw_only=True)
class Box(Base):
    """A box.

    Parameters
    ----------
    kind
        What it
        is.
    low, high
        Bounds.

    Raises
    ------
    ValueError
        Never.
    """

    label = "box"
    kind: Literal["open", "shut"] = "open"
    low: float = 0.0
    high: float | None = None
    flag: bool = False
    betas: tuple[float, float] = (0.5, 0.9)
    sizes: tuple[int, ...] = ()
    name: str = ""


class Plain:
    """Takes a first argument that is no setting."""

    def __init__(self, space: str, *, depth: int = 1, _hidden: int = 0) -> None:
        """Keep them."""
        self.space, self.depth = space, depth


def test_fields_have_types_defaults_and_help():
    fields = fields_of(Box)
    assert list(fields) == ["width", "kind", "low", "high", "flag", "betas", "sizes", "name"]
    assert fields["width"].help == "Of everything."
    assert fields["kind"].help == "What it is."
    assert fields["low"].help == fields["high"].help == "Bounds."
    assert fields["high"].default is None
    assert list(fields_of(Plain)) == ["depth"]


def test_text_becomes_the_annotated_type():
    box = make(
        Box,
        {
            "width": "8",
            "low": "1e-3",
            "high": 2,
            "flag": "yes",
            "betas": ["0.1", 0.2],
            "sizes": [1, "2"],
            "kind": "shut",
        },
    )
    assert box == Box(width=8, low=1e-3, high=2.0, flag=True, betas=(0.1, 0.2), sizes=(1, 2), kind="shut")
    assert isinstance(box.high, float)
    assert make(Box, {"high": "none"}).high is None
    assert make(Box, {"sizes": 3}).sizes == (3,)
    assert make(Box, {"width": 8.0}).width == 8
    assert make(Box, {"name": "none"}).name == "none"
    assert make(Plain, {"depth": 2}, "here").space == "here"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"widht": 8}, "`widht` is no setting of box. Did you mean 'width'"),
        ({"colour": 8}, "It has: width, kind, low"),
        ({"width": "wide"}, "`width` must be a whole number; got 'wide'"),
        ({"width": 1.5}, "whole number"),
        ({"width": True}, "whole number"),
        ({"width": None}, "whole number"),
        ({"width": float("inf")}, "whole number"),
        ({"low": "deep"}, "must be a number"),
        ({"flag": "maybe"}, "must be true or false"),
        ({"flag": 1}, "must be true or false"),
        ({"kind": "opne"}, "one of open, shut; got 'opne'. Did you mean 'open'"),
        ({"betas": [0.1]}, "must be 2 values"),
        ({"high": "x"}, "must be a number"),
        ({"name": 3}, "must be text"),
    ],
)
def test_errors_speak_of_what_was_given(given, said):
    (name,) = given
    with pytest.raises(UserError, match=said) as caught:
        make(Box, given, of="space")
    assert caught.value.names == (f"space.{name}",)


def test_an_error_says_where_it_was_written():
    with pytest.raises(UserError, match=r"recipe\.toml: `space\.width` must"):
        make(Box, {"width": "x"}, of="space", where="recipe.toml: ")


def test_an_unknown_name_is_answered_with_the_legal_ones():
    assert (
        str(unknown("method", "drna", ["darts", "drnas"]))
        == "There is no method 'drna'. Did you mean 'drnas'? Legal: darts, drnas."
    )
    assert "Legal: none." in str(unknown("run", "x", []))


def test_an_unknown_type_is_passed_through():
    value = object()
    assert convert(value, object, "it") is value


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 0},
        {"batch": 0},
        {"lr": -1.0},
        {"clip": -0.1},
        {"momentum": 1.0},
        {"arch_share": 1.0},
        {"arch_share": 0.0},
        {"lr_epochs": -1},
        {"weight_decay": float("nan")},
    ],
)
def test_training_settings_out_of_range_are_named(given):
    (name,) = given
    with pytest.raises(UserError, match=f"`{name}` must") as caught:
        make(Train, given, of="train")
    assert caught.value.names == (f"train.{name}",)


HUGE = (float("nan"), float("inf"), -float("inf"), 10**400, "nan", "inf", "1e400", "9" * 5000)


@pytest.mark.parametrize("value", HUGE, ids=lambda value: str(value)[:12] if isinstance(value, str) else "")
@pytest.mark.parametrize("kind", [int, float, int | None, tuple[float, ...]])
def test_no_setting_takes_what_is_no_finite_number(value, kind):
    with pytest.raises(UserError, match="`x` must be"):
        settings.convert(value, kind, "x")


@pytest.mark.parametrize("value", [10**19, -(10**18)])
def test_no_whole_number_is_endless(value):
    with pytest.raises(UserError, match=r"`x` must be at most 1e\+15"):
        settings.convert(value, int, "x")


@pytest.mark.parametrize("value", ["a\0b", "~nobody-of-that-name/x"])
def test_no_setting_takes_what_is_no_path(value):
    with pytest.raises(UserError, match="`x` must be a path"):
        settings.convert(value, Path, "x")


def test_a_type_that_is_not_imported_is_named():
    def build(space: "Unknown", *, width: int = 4) -> "Unknown": ...  # noqa: F821

    assert fields_of(build)["width"].type is int, "only settings are looked at"

    def wrong(*, width: "Unknown" = 4): ...  # noqa: F821

    with pytest.raises(UserError, match="type of a setting of wrong cannot be told: name 'Unknown' is not defined"):
        fields_of(wrong)


@pytest.mark.parametrize("kind", [str, Path, str | None, Path | None, tuple[str, ...]])
def test_bytes_that_are_no_characters_cannot_stand_in_a_recipe(kind):
    with pytest.raises(UserError, match="`file` must be text in UTF-8"):
        convert("a\udc80", kind, "file")
    assert convert("caf\xe9 \U0001f98a", kind, "file")
