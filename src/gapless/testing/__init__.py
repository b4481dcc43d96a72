"""Published conformance suites: what a new space, method, searcher, score or
benchmark table must obey, as plain functions, a law each.

In a test file of your own::

    import pytest

    from gapless.testing import METHOD_LAWS, SPACE_LAWS, title
    from gapless.testing.examples import Ragged

    @pytest.mark.parametrize("law", SPACE_LAWS, ids=title)
    def test_my_space(law):
        law(MySpace(size=8, width=4))

    @pytest.mark.parametrize("law", METHOD_LAWS, ids=title)
    def test_my_method(law):
        law(MyMethod, Ragged())

A law raises ``AssertionError`` where it is broken. Give the smallest space that has all that yours can do: the laws
train it.
"""

from __future__ import annotations

from gapless.testing.methods import METHOD_LAWS
from gapless.testing.scores import SCORE_LAWS
from gapless.testing.searchers import SEARCHER_LAWS
from gapless.testing.spaces import SPACE_LAWS
from gapless.testing.tables import TABLE_LAWS

__all__ = ["METHOD_LAWS", "SCORE_LAWS", "SEARCHER_LAWS", "SPACE_LAWS", "TABLE_LAWS", "title"]


def title(law: object) -> str:
    """Return the name of a law, or of whatever else a test is parametrised with.

    >>> title(SPACE_LAWS[0])
    'one_hot_is_the_network_in_training'
    """
    return str(getattr(law, "__name__", law))
