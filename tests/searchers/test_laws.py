"""The published suite on every black-box search of the folder."""

import pytest

from gapless.core import catalogue
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import SEARCHER_LAWS, title
from gapless.testing.examples import Ragged, patched

SPACES = {"ragged": Ragged(), "nasbench201": NASBench201(), "darts": Darts(), "patched": patched()}


@pytest.mark.parametrize("law", SEARCHER_LAWS, ids=title)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", catalogue.names("searchers"))
def test_law(law, space, name):
    law(catalogue.find(name, "searchers"), SPACES[space])


@pytest.mark.parametrize("name", catalogue.names("searchers"))
def test_a_file_is_named_as_its_search(name):
    assert catalogue.find(name, "searchers").label == name
