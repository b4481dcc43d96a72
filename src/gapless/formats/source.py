"""The source of classes and functions that Gapless runs, with all that it needs, for a file that imports only torch."""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from gapless.formats.layout import Unwritable, lay_out, listing, literal

Definition = type | Callable[..., Any]


def text_of(thing: Definition) -> str:
    """Return the source of a class or function.

    Raises
    ------
    Unwritable
        Where it has none that could stand alone.
    """
    if "<" in thing.__qualname__ or "." in thing.__qualname__:
        raise Unwritable(f"{thing.__qualname__} is defined inside something else; it must stand by itself in its file")
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        raise Unwritable(f"the source of {thing.__name__} cannot be found; it must be defined in a file") from None


def is_own(thing: object) -> bool:
    """Return whether a class or function belongs neither to PyTorch nor to the standard library."""
    return _root(getattr(thing, "__module__", None) or "") not in ("torch", *sys.stdlib_module_names)


def methods(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the methods of the class that a text holds."""
    (body,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    yield from (node for node in body.body if isinstance(node, ast.FunctionDef))


def reachable(classes: Iterable[type]) -> set[str]:
    """Return the names of all methods that a forward pass may come to."""
    trees = [ast.parse(text_of(c)) for c in classes]
    mentioned: dict[str, set[str]] = {}
    for method in (m for tree in trees for m in methods(tree)):
        names = {node.attr for node in ast.walk(method) if isinstance(node, ast.Attribute)}
        mentioned[method.name] = mentioned.get(method.name, set()) | names
    found, new = set[str](), {n for n in mentioned if n == "forward" or n.startswith("__")}
    while new:
        found |= new
        new = {n for name in new for n in mentioned[name] if n in mentioned} - found
    return found


def keep_methods(text: str, names: set[str], init: str = "") -> str:
    """Return the text of a class with these methods only; with ``init``, that one takes the place of its own."""
    lines = text.splitlines()
    (body,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    at = next((m for m in methods(ast.parse(text)) if m.name == "__init__"), None)
    for method in reversed(list(methods(ast.parse(text)))):
        if method.name in names and not (init and method.name == "__init__"):
            continue
        first = min([method.lineno, *(d.lineno for d in method.decorator_list)]) - 1
        last = method.end_lineno or method.lineno
        if init and method.name == "__init__":
            lines[first:last] = init.splitlines()
            continue
        while not lines[first - 1].strip():
            first -= 1
        del lines[first:last]
    if init and at is None:
        doc = body.body[0]
        place = (doc.end_lineno or 1) if ast.get_docstring(body) is not None else body.body[0].lineno - 1
        lines[place:place] = ["", *init.splitlines()]
    return "\n".join(lines) + "\n"


class Sources:
    """The definitions that a file needs, in an order in which they can stand in it, and its imports.

    Attributes
    ----------
    parts
        Name -> text.
    imports
        (module, name in it or empty, name here).

    Parameters
    ----------
    reserved
        Names that the file gives to things of its own.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.parts: dict[str, str] = {}
        self.imports: set[tuple[str, str, str]] = set()
        self._things: dict[str, object] = dict.fromkeys(reserved, self)

    def add(self, thing: Definition) -> None:
        """Take a class or function with all that it refers to.

        Raises
        ------
        Unwritable
            Where something of it cannot stand in a file of its own.
        """
        self.put(thing.__name__, text_of(thing), thing)

    def put(self, name: str, text: str, thing: Definition) -> None:
        """Take a text in place of the source of ``thing``, with all that it refers to."""
        if self._new(name, thing):
            self.follow(text, thing, {name})
            self.parts[name] = text

    def follow(self, text: str, thing: Definition, besides: set[str]) -> None:
        """Take all that a text, written in the file of ``thing``, refers to, besides these names."""
        known = vars(sys.modules[thing.__module__])
        for name in sorted(_free_names(text) - besides):
            if name in known:
                self._refer(name, known[name])
            elif not hasattr(builtins, name):
                raise Unwritable(f"{thing.__name__} refers to {name}, which its file does not define")

    def _new(self, name: str, thing: object) -> bool:
        """Return whether a name is new here; another thing of that name is an error."""
        if name not in self._things:
            self._things[name] = thing
            return True
        if self._things[name] is not thing and (isinstance(thing, type | FunctionType) or self._things[name] != thing):
            raise Unwritable(f"two different things are named {name}; give one of them another name")
        return False

    def _refer(self, name: str, thing: Any) -> None:
        if isinstance(thing, ModuleType):
            if _root(thing.__name__) not in ("torch", *sys.stdlib_module_names):
                raise Unwritable(f"it needs the package {_root(thing.__name__)}")
            parent, _, last = thing.__name__.rpartition(".")
            self.imports.add((parent, last, name) if last == name and parent else (thing.__name__, "", name))
        elif not is_own(thing) and getattr(sys.modules.get(thing.__module__), name, None) is thing:
            self.imports.add((thing.__module__, name, name))
        elif isinstance(thing, type | FunctionType):
            if thing.__name__ != name:
                raise Unwritable(f"it calls {thing.__name__} by another name, {name}")
            self.add(thing)
        elif self._new(name, thing):
            node = listing(map(literal, thing), "()") if isinstance(thing, tuple) else literal(thing)
            self.parts[name] = "\n".join(lay_out(f"{name} = ", node)) + "\n"

    def header(self, text: str) -> list[str]:
        """Return the import lines of those names that ``text`` uses, as ruff sorts them."""
        used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        wanted = [entry for entry in self.imports if entry[2] in used]
        blocks = []
        for ours in (False, True):
            part = [e for e in wanted if (_root(e[0]) == "torch") == ours]
            plain = sorted(f"import {m}" if m == here else f"import {m} as {here}" for m, n, here in part if not n)
            froms = []
            for module in sorted({m for m, n, _ in part if n}):
                names = sorted({n for m, n, _ in part if m == module and n}, key=lambda n: (n[0].islower(), n))
                froms.append(f"from {module} import {', '.join(names)}")
            if part:
                blocks.append("\n".join([*plain, *froms]))
        return blocks


def _root(name: str) -> str:
    return name.partition(".")[0]


def _free_names(text: str) -> set[str]:
    """Return the names that a text takes from its file: what its scopes do not bind, and what annotations say."""
    found: set[str] = set()
    tables = [symtable.symtable(text, "source", "exec")]
    while tables:
        table = tables.pop()
        outermost = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if s.is_global() or (outermost and s.is_referenced())}
        tables += table.get_children()
    for node in ast.walk(ast.parse(text)):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if annotation is not None:
                found |= {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    return found
