"""The table of the guide, read by a plug-in in a file outside the package."""

import re
from pathlib import Path

import pytest

import gapless
from gapless.core import catalogue
from gapless.core.errors import Untrusted, UserError
from gapless.tables import load, load_named
from gapless.testing import TABLE_LAWS, title

GUIDE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
(MINE,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if block.endswith("TABLE = Mine\n"))


@pytest.fixture
def mine(tmp_path):
    """``mine.py:times.csv``, the file beside the plug-in."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "times.csv").write_text("arch,accuracy,ms\n111,80,3\n234,90,5\n444,90,2.5\n")
    return f"{tmp_path}/mine.py:times.csv"


@pytest.mark.parametrize("law", TABLE_LAWS, ids=title)
def test_it_obeys_the_laws(law, mine):
    law(lambda: load(mine))


def test_it_is_read_wherever_a_table_is(mine, tmp_path):
    table = load(mine)
    assert (table.label, table.archs) == ("mine", ("111", "234", "444"))
    found = gapless.evaluate("444", table=mine, column="ms")["table"]
    assert found == {"accuracy": 90.0, "ms": 2.5, "column": "ms", "rank": 1, "percentile": 66.6667, "cells": 3}
    assert load(tmp_path / "mine.py:times.csv").archs == table.archs, "a path does as well as a text"


def test_a_score_goes_by_it(mine, tmp_path):
    recipe = gapless.Recipe(
        space={"name": "insights64"},
        method={"name": "random"},
        score={"name": "table", "file": mine, "evaluations": 200},
    )
    with pytest.raises(UserError, match="The table holds no architecture .*: it is a part of the benchmark"):
        gapless.search(recipe)


def test_what_is_wrong_with_it_is_told(mine, tmp_path):
    with pytest.raises(UserError, match=r"is a plug-in; name the file that it reads, too, as .*mine\.py:FILE"):
        load(tmp_path / "mine.py")
    with pytest.raises(UserError, match="There is no file"):
        load(tmp_path / "other.py:times.csv")
    (tmp_path / "mine.py").write_text("X = 1\n")
    for content, words in (
        ("X = 1", "defines no TABLE"),
        ("TABLE = None", r"TABLE of .*mine\.py must be a class that extends gapless.BenchmarkTable; it is a NoneType"),
        ("from pathlib import Path as TABLE", "it is the class Path"),
        (
            "from gapless.core.table import BenchmarkTable as TABLE",
            "The class BenchmarkTable .* does not define .*read",
        ),
    ):
        (tmp_path / "mine.py").write_text(f"{content}\n")
        with pytest.raises(UserError, match=words):
            load(mine)


def test_who_names_it_permits_it(mine, tmp_path):
    """Also where a run that was read names it, too; what the run names may then run as it was named."""
    catalogue.suspect(str(tmp_path / "mine.py"))
    with pytest.raises(Untrusted):
        load(mine)
    assert load_named(mine).label == "mine"
    (tmp_path / "mine.py").write_text(MINE + "X = 1\n")
    with pytest.raises(Untrusted, match="changed"):
        load(mine)
    assert load_named(mine).label == "mine"
