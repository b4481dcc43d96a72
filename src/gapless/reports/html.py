"""Pages of HTML that need nothing but themselves: one template, one style sheet, no script, nothing from elsewhere.

Text becomes :data:`Html` by :func:`text` alone, which escapes it; everything else takes and returns :data:`Html`, so
that the type checker finds what was not escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NewType
from xml.etree import ElementTree

from matplotlib.figure import Figure

from gapless import __version__
from gapless.core.text import printable
from gapless.reports.draw import svg

Html = NewType("Html", str)
"""A piece of a page."""
NOTHING = Html("")
SCALE = 108.0
"""Pixels of the screen to an inch of a figure: its smallest text, of 7 points, has 10.5 pixels then."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for a page: nothing."""
VOID = ("meta", "link")
LINKS = re.compile(r"url\(#")
NUMBER = re.compile(r"-?\d+\.\d{3,}")


@dataclass(frozen=True)
class Section:
    """A part of a page, with a heading to which its list of contents leads.

    Attributes
    ----------
    name
        Letters and hyphens: what leads to it.
    title
        Plain text.
    body
        What stands below the heading.
    """

    name: str
    title: str
    body: Html


def text(value: object) -> Html:
    """Return plain text, escaped.

    >>> text("a < b & c")
    'a &lt; b &amp; c'
    """
    return Html(html.escape(printable(str(value), keep="\n\t")))


def tag(name: str, /, *inner: Html, **attributes: str) -> Html:
    """Return an element. Of attributes, ``class_`` is ``class`` and ``aria_label`` is ``aria-label``.

    >>> tag("p", text("<b>"), class_="x")
    '<p class="x">&lt;b&gt;</p>'
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(value))}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{told}>" if name in VOID else f"<{name}{told}>{''.join(inner)}</{name}>")


def join(parts: Iterable[Html]) -> Html:
    """Return pieces one after another."""
    return Html("\n".join(parts))


def prose(value: str) -> Html:
    """Return plain text in which what stands between backticks is code.

    >>> prose("see `a<b`")
    'see <code>a&lt;b</code>'
    """
    parts = value.split("`")
    return Html("".join(tag("code", text(part)) if i % 2 else text(part) for i, part in enumerate(parts)))


def paragraph(value: str, class_: str = "") -> Html:
    """Return a paragraph of :func:`prose`."""
    return tag("p", prose(value), class_=class_) if class_ else tag("p", prose(value))


def facts(pairs: Iterable[tuple[str, Html]]) -> Html:
    """Return what things are called, each with what is said of it."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    words: Collection[int] = (0,),
    code: Collection[int] = (),
) -> Html:
    """Return a table that scrolls in its box where it is too wide.

    Parameters
    ----------
    head, rows
        Plain text; the first cell of a row is its heading.
    caption
        What the table is of, for those who do not see it.
    words
        Columns of text, to the left; all others are numbers, to the right.
    code
        Columns of names.
    """

    def cell(kind: str, column: int, value: str, **more: str) -> Html:
        inner = tag("code", text(value)) if column in code and kind != "col" else text(value)
        where = {} if column in words else {"class_": "number"}
        return tag("td" if kind == "cell" else "th", inner, **where, **more)

    heads = tag("tr", *(cell("col", i, value, scope="col") for i, value in enumerate(head)))
    lines = [
        tag("tr", cell("row", 0, row[0], scope="row"), *(cell("cell", i, v) for i, v in enumerate(row[1:], start=1)))
        for row in rows
    ]
    inner = tag("table", tag("caption", text(caption)), tag("thead", heads), tag("tbody", join(lines)))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def drawing(figure: Figure, name: str, label: str, said: Html = NOTHING) -> Html:
    """Return a figure as SVG in the page; where it is too wide it scrolls in its box.

    Parameters
    ----------
    figure
        Any figure of :mod:`gapless.reports`.
    name
        Different for each figure of a page: what the figure names inside itself begins with it.
    label
        What it shows, for those who do not see it.
    said
        Below it.
    """
    wide = tag("div", inline(figure, name, label), class_="scroll")
    return tag("figure", wide, *([tag("figcaption", said)] if said else []))


def inline(figure: Figure, name: str, label: str) -> Html:
    """Return the SVG of a figure as an element of a page (see :func:`drawing`).

    Text stays text. Coordinates are rounded to a hundredth of a point, and what holds for a whole document (the style
    of all elements, metadata) is left out.
    """
    root = ElementTree.fromstring(svg(figure))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style", "title"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
        for key, value in element.attrib.items():
            element.attrib[key] = _value(key, value, name)
    width, height = (SCALE * float(inches) for inches in figure.get_size_inches())
    told = {"class": "drawn", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    root.attrib = {**told, "width": f"{width:.0f}", "height": f"{height:.0f}"}
    return Html(ElementTree.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "d":
        value = NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
        return " ".join(value.split())
    return LINKS.sub(f"url(#{name}-", value)


def document(title: str, lead: Html, sections: Sequence[Section]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title
        Plain text, for the browser's tab and for printers.
    lead
        What stands above all sections, with the page's heading.
    sections
        In their order.
    """
    style = resources.files("gapless").joinpath("reports/page.css").read_text(encoding="utf-8")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("link", rel="icon", href="data:,"),
        tag("title", text(title)),
        tag("style", Html(f"\n{style}")),
    ]
    links = [tag("li", tag("a", text(section.title), href=f"#{section.name}")) for section in sections]
    body = [
        tag("header", lead),
        tag("nav", tag("ul", *links), aria_label="Contents"),
        tag("main", join(_section(section) for section in sections)),
        tag("footer", tag("p", text(f"Written by Gapless {__version__}."))),
    ]
    page = tag("html", tag("head", join(head)), Html("\n"), tag("body", join(body)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _section(section: Section) -> Html:
    heading = f"{section.name}-heading"
    title = tag("h2", text(section.title), id=heading)
    return tag("section", title, section.body, id=section.name, aria_labelledby=heading)
