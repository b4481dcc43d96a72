"""Text from outside (class names, names of files and runs, titles), made harmless where it is written."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def printable(text: str, *, keep: str = "") -> str:
    """Return text in which what cannot be printed, such as what moves a terminal's cursor, is escaped.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def quoted(text: object) -> str:
    """Return a text as a shell reads it: in quotes where it needs them.

    >>> quoted("run-0"), quoted("my run")
    ('run-0', "'my run'")
    """
    return shlex.quote(printable(str(text)))


def shown(path: str | Path) -> str:
    """Return a path for a message: what cannot be printed is escaped."""
    return printable(os.fsencode(os.fspath(path)).decode("utf-8", "backslashreplace"))


def cell(value: object) -> object:
    """Return what stands in a cell of a CSV file: a text that a spreadsheet would take for a formula begins with an
    apostrophe.

    >>> cell("=1+1"), cell("darts"), cell(-0.5)
    ("'=1+1", 'darts', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


SPECIAL_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def latex(text: str) -> str:
    """Return text as LaTeX shows it.

    >>> print(latex("pc_darts: 50 %"))
    pc\\_darts: 50 \\%
    """
    return "".join(SPECIAL_LATEX.get(c, c) for c in printable(text))


def markdown(text: str) -> str:
    """Return text as Markdown shows it, in a line or in a cell of a table.

    >>> print(markdown("a*b|<i>"))
    a\\*b\\|&lt;i>
    """
    return "".join({"<": "&lt;", "&": "&amp;"}.get(c, f"\\{c}" if c in "\\`*[]|" else c) for c in printable(text))


def code(text: str) -> str:
    """Return text as a code span of Markdown, also in a cell of a table.

    >>> print(code("|a~0|`"))
    `\\|a~0\\|'`
    """
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def sentence(text: str) -> str:
    """Return a sentence of ours, with names from outside in it, as Markdown shows it: its code spans stay.

    >>> print(sentence("a|b `c` <i>"))
    a\\|b `c` &lt;i>
    """
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("](", "\\](")
