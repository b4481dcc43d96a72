"""What there is, by name: the listing of a folder. An outside file works too, as ``./mine.py``."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from gapless.core import files
from gapless.core.errors import Untrusted, UserError, unknown
from gapless.core.text import shown

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)
_suspects: dict[str, str] = {}
"""Full path of each outside file that a recipe or a run folder named -> SHA-256 of the content that may run; empty
where none may."""
TRUST = "Where you trust it, give `trust`; in Python, do it inside of gapless.trusting()."
KINDS = {"methods": "METHOD", "searchers": "METHOD", "spaces": "SPACE", "scores": "SCORE", "tables": "TABLE"}
"""Folder of the package -> the name that its modules give to what they define."""
BASES = {
    "methods": ("method", "Method"),
    "searchers": ("searcher", "Searcher"),
    "spaces": ("space", "Space"),
    "scores": ("judge", "Judge"),
    "tables": ("table", "BenchmarkTable"),
}
"""Folder of the package -> the class of this layer that what it defines extends, behind its module."""


def names(kind: str) -> list[str]:
    """Return the plug-ins that a folder of the package lists, sorted; subfolders hold none."""
    package = importlib.import_module(f"gapless.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)


def find(name: str, *kinds: str) -> Any:
    """Return the class of that name from the first of the folders that lists it, or from an outside ``.py`` file.

    Raises
    ------
    UserError
        Where neither is there, or the file does not define what it must.
    Untrusted
        Where a recipe or a run folder named the file, and nobody has permitted to run it.
    """
    attribute = KINDS[kinds[0]]
    what = attribute.lower()
    if name.endswith(".py"):
        path = files.place(name)
        if not files.is_file(path):
            raise UserError(f"There is no file {shown(name)}.")
        return _defined(_load(path), attribute, name, kinds)
    for kind in kinds:
        if name in names(kind):
            return getattr(importlib.import_module(f"gapless.{kind}.{name}"), attribute)
    raise unknown(what, name, [n for kind in kinds for n in names(kind)])


@contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Let a block run the code of outside files that a recipe or a run folder names.

    What a user names in a call or on the command line needs no such permission. ::

        with gapless.trusting():
            gapless.resume("runs/mine")
    """
    token = _trusting.set(trust)
    try:
        yield
    finally:
        _trusting.reset(token)


def trusted() -> bool:
    """Return whether outside files that a recipe or a run folder names may be run."""
    return _trusting.get()


def outside(name: Any) -> tuple[str, str]:
    """Return the outside file that a value names, and the rest of it, as ``:FILE`` of ``mine.py:FILE``; empty where it
    names none. What ends in ``.py`` is a file as a whole.

    >>> outside("a/mine.py"), outside("mine.py:x.parquet"), outside("x.py.py:y")
    (('a/mine.py', ''), ('mine.py', ':x.parquet'), ('x.py.py', ':y'))
    >>> outside("darts"), outside(3), outside("a.pyx")
    (('', ''), ('', ''), ('', ''))
    """
    if not isinstance(name, str):
        return "", ""
    if name.endswith(".py"):
        return name, ""
    plugin, found, rest = name.partition(".py:")
    return (f"{plugin}.py", f":{rest}") if found else ("", "")


def paths(path: str | Path) -> tuple[str, str]:
    """Return the full path of a file as it is written, and with its links followed, which may change."""
    return os.path.abspath(files.place(path)), str(files.whole(path))


def suspect(*names: str) -> None:
    """Let none of these outside files run before it is permitted (:func:`permit`): a recipe or a run folder names
    them."""
    for name in names:
        for path in paths(name):
            _suspects.setdefault(path, "")


def permit(name: str, digest: str) -> None:
    """Let a suspect file run for as long as its content has this SHA-256."""
    for path in paths(name):
        if path in _suspects:
            _suspects[path] = digest


def fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of an outside file."""
    return hashlib.sha256(files.read_bytes(path, "The plug-in")).hexdigest()


def source(kind: str, name: str) -> str:
    """Return where an entry comes from: the text that its class has as ``source``. Where the file writes it out, it is
    read without importing the file, which would import PyTorch."""
    package = importlib.import_module(f"gapless.{kind}")
    for node in ast.walk(ast.parse(Path(package.__path__[0], f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            text = constant(node.body, "source")
            if text is not None and constant(node.body, "label") == name:
                return text
    return str(find(name, kind).source)


def constant(body: Sequence[ast.stmt], name: str) -> str | None:
    """Return the text that is assigned to a name in a list of statements; None where none is, or it is computed."""
    for node in body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id == name:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            return value if isinstance(value, str) else None
    return None


def _defined(module: ModuleType, attribute: str, name: str, kinds: Sequence[str]) -> Any:
    """Return the class that an outside file defines, which must be whole and extend the class of one of the kinds."""
    if not hasattr(module, attribute):
        raise UserError(f"{shown(name)} defines no {attribute}; its last line should read: {attribute} = YourClass.")
    found = getattr(module, attribute)
    bases = [
        getattr(importlib.import_module(f"gapless.core.{file}"), base) for file, base in (BASES[kind] for kind in kinds)
    ]
    if not (isinstance(found, type) and issubclass(found, tuple(bases))):
        legal = " or ".join(f"gapless.{base.__name__}" for base in bases)
        got = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise UserError(f"{attribute} of {shown(name)} must be a class that extends {legal}; it is {got}.")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"The class {found.__name__} of {shown(name)} does not define {', '.join(missing)}.")
    return found


def _load(path: Path) -> ModuleType:
    """Run an outside file: exactly the content that was compared, never what Python has cached beside it."""
    content = files.read_bytes(path, "The plug-in")
    digest = hashlib.sha256(content).hexdigest()
    odd = [_suspects[each] for each in paths(path) if _suspects.get(each, digest) != digest]
    permitted = next(filter(None, odd), "")
    if odd and (permitted or not trusted()):
        raise Untrusted(
            f"A file that was read names {shown(path)}, whose code "
            + ("was changed since it was permitted to run. Begin anew." if permitted else f"may not run. {TRUST}")
        )
    key = f"gapless_outside_{path.stem}"
    try:
        return executed(content, path, key)
    except Exception as error:
        raise UserError(f"{shown(path)} cannot be imported: {type(error).__name__}: {error}") from error


def executed(content: bytes, path: Path, key: str) -> ModuleType:
    """Run the content of a file as a module of the name ``key``: Python neither reads nor writes a cache beside it."""
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    exec(compile(content, path, "exec", dont_inherit=True), module.__dict__)
    return module
