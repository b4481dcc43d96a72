"""Text from a stranger is inert wherever it is written: one list for all writers."""

import ast
import csv
import io
from xml.etree import ElementTree

import pytest
from hostile import HOSTILE

from gapless.core import text
from gapless.core.picture import Picture
from gapless.formats.layout import literal
from gapless.reports import draw, html
from gapless.reports.comparison import Grid, _aligned, _csv

ONE_LINE = [h for h in HOSTILE if "\n" not in h and "\r" not in h]


@pytest.mark.parametrize("given", HOSTILE)
def test_a_terminal_gets_what_can_be_printed(given):
    said = text.printable(given)
    assert said.isprintable()
    said.encode("utf-8")
    assert text.printable(given, keep="\n").replace("\n", "").isprintable()


@pytest.mark.parametrize("given", HOSTILE)
def test_a_cell_is_no_formula_and_one_cell(given):
    (row,) = csv.DictReader(io.StringIO(_csv(["a", "b"], iter([{"a": given, "b": -1.5}]))))
    assert row["b"] == "-1.5"
    assert row["a"][:1] not in "=+-@\t\r" and "\n" not in row["a"]


@pytest.mark.parametrize("given", HOSTILE)
def test_latex_and_markdown_hold_no_command_and_keep_their_columns(given):
    said = text.latex(given)
    for command in ("\\textbackslash{}", "\\textasciitilde{}", "\\textasciicircum{}", *(f"\\{c}" for c in "&%$#_{}")):
        said = said.replace(command, "")
    assert not set(said) & set("\\&%$#_{}~^")
    table = _aligned(Grid("t", (given, "x"), ((given, "1"),)))
    assert table.count("\n") == 2
    for line in table.splitlines():
        assert line.replace("\\|", "").count("|") == 3
        assert "<" not in line
        assert "](" not in line.replace("\\]", "")


@pytest.mark.parametrize("given", HOSTILE)
def test_a_page_has_no_element_of_it(given):
    tree = ElementTree.fromstring(html.tag("p", html.text(given), title=given))
    assert list(tree) == [] and set(tree.attrib) == {"title"}
    assert (tree.text, tree.get("title")) == (text.printable(given, keep="\n\t"), text.printable(given))


@pytest.mark.parametrize("given", ONE_LINE)
def test_a_drawing_has_no_element_of_it(given):
    drawn = draw.svg(draw.draw((Picture(given, ("a", given), ((0, 1, given),)),)))
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter()}
    assert not names & {"script", "a", "image", "foreignObject", "iframe"}


@pytest.mark.parametrize("given", HOSTILE)
def test_a_literal_of_python_is_the_text_and_nothing_else(given):
    assert ast.literal_eval(literal(given)) == given
