"""The published suite on every table of the folder: on the real files where they are, and on small stand-ins."""

import pyarrow.parquet as pq
import pytest

from gapless.core import catalogue
from gapless.tables import load
from gapless.testing import TABLE_LAWS, title

PARTS = {"nasbench201": ("made_up", 97), "entangled_cells": ("entangled", 9)}
"""Name of a plug-in -> the fixture of a stand-in, and of how many of its rows one is taken: a part of a benchmark."""
FILES = {"nasbench201": "table_file", "entangled_cells": "entangled_file"}


@pytest.mark.parametrize("law", TABLE_LAWS, ids=title)
@pytest.mark.parametrize("name", PARTS)
def test_law_of_a_stand_in(law, name, request, tmp_path):
    fixture, step = PARTS[name]
    data = pq.read_table(request.getfixturevalue(fixture))
    pq.write_table(data.take(list(range(0, len(data), step))), tmp_path / "part.parquet")
    law(lambda: load(tmp_path / "part.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("law", TABLE_LAWS, ids=title)
@pytest.mark.parametrize("name", FILES)
def test_law_of_the_real_file(law, name, request):
    path = request.getfixturevalue(FILES[name])
    law(lambda: load(path))


@pytest.mark.parametrize("name", catalogue.names("tables"))
def test_a_file_is_named_as_its_table_and_reads_its_own_files_only(name, request):
    kind = catalogue.find(name, "tables")
    assert kind.label == name
    for other, (fixture, _) in PARTS.items():
        assert kind.recognizes(pq.read_schema(request.getfixturevalue(fixture)).names, {}) == (other == name)


def test_every_table_is_under_the_laws():
    assert set(PARTS) == set(FILES) == set(catalogue.names("tables"))
