"""Python expressions as trees, and the lines that they are laid out in: those of ``ruff format`` at 120 columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gapless.core.errors import UserError

WIDTH = 120


class Unwritable(UserError):
    """Something that cannot stand in a file of its own."""


class Named(int):
    """A whole number that is written as the expression that it came from.

    >>> channels = Named(16, "channels")
    >>> literal((channels, channels // 4))
    '(channels, channels // 4)'
    """

    text: str

    def __new__(cls, value: int, text: str) -> Named:
        """Return the number with its text."""
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __floordiv__(self, other: int) -> Named:
        return Named(int(self) // other, f"{self.text} // {other}")


@dataclass(frozen=True)
class Call:
    """A call, or with an empty head a list, a tuple or a dictionary.

    Parameters
    ----------
    head
        What is called.
    items
        (keyword or empty, argument).
    brackets, equals
        As they are written.
    """

    head: str
    items: tuple[tuple[str, Node], ...]
    brackets: str = "()"
    equals: str = "="


Node = str | Call


def listing(items: Iterable[Node], brackets: str = "[]") -> Call:
    """Return a list or a tuple."""
    return Call("", tuple(("", item) for item in items), brackets)


def flat(node: Node) -> str:
    """Return an expression on one line."""
    if isinstance(node, str):
        return node
    inside = ", ".join(_item(node, name, flat(item)) for name, item in node.items)
    comma = "," if not node.head and node.brackets == "()" and len(node.items) == 1 else ""
    return f"{node.head}{node.brackets[0]}{inside}{comma}{node.brackets[1]}"


def lay_out(before: str, node: Node, after: str = "", indent: int = 0) -> list[str]:
    """Return the lines of ``before``, an expression and ``after``."""
    line = f"{' ' * indent}{before}{flat(node)}{after}"
    if len(line) <= WIDTH or isinstance(node, str) or not node.items:
        return [line]
    inner = ", ".join(_item(node, name, flat(item)) for name, item in node.items)
    opening = f"{' ' * indent}{before}{node.head}{node.brackets[0]}"
    closing = f"{' ' * indent}{node.brackets[1]}{after}"
    if node.head and indent + 4 + len(inner) <= WIDTH:
        return [opening, f"{' ' * (indent + 4)}{inner}", closing]
    comma = "," if len(node.items) > 1 or not node.head else ""
    body = [lay_out(_item(node, name, ""), item, comma, indent + 4) for name, item in node.items]
    return [opening, *(line for lines in body for line in lines), closing]


def _item(node: Call, name: str, text: str) -> str:
    return f"{name}{node.equals}{text}" if name else text


def literal(value: object) -> str:
    """Return a number, a text, a truth value, None, or a tuple or list of such, as it is written in Python.

    Raises
    ------
    Unwritable
        For anything else.

    >>> literal([1, 2.5, "a", None, (True,)])
    '[1, 2.5, "a", None, (True,)]'
    """
    if isinstance(value, Named):
        return value.text
    if value is None or type(value) in (bool, int, float):
        if isinstance(value, float) and value - value != 0:
            raise Unwritable(f"{value} cannot be written as a number")
        return repr(value)
    if type(value) is str:
        single = '"' in value and "'" not in value
        return repr(value) if single else json.dumps(value, ensure_ascii=not value.isprintable())
    if type(value) in (tuple, list):
        assert isinstance(value, Sequence)
        return flat(listing(map(literal, value), "()" if isinstance(value, tuple) else "[]"))
    raise Unwritable(f"a value of the type {type(value).__name__} cannot be written")
