"""The published suite on the spaces that there are, and on a ragged, a partial and a patched one."""

import pytest

from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import SPACE_LAWS, title
from gapless.testing.examples import Ragged, patched

SPACES = {
    "nasbench201": NASBench201(size=8, width=4, cells=1),
    "nasbench201-partial": NASBench201(size=7, width=4, cells=1, partial=2, affine=True),
    "darts": Darts(size=8, width=4, cells=3),
    "darts-drnas-partial": Darts(size=8, width=4, cells=3, options="drnas", partial=2),
    "darts-3-skip-every-edge": Darts(size=8, width=4, cells=3, options="3-skip", inputs=None),
    "darts-alone": Darts(
        size=32,
        width=4,
        cells=3,
        options="1-skip",
        stem="imagenet",
        inputs=1,
        affine=True,
        auxiliary=True,
        drop_path=True,
        pool_norm="affine",
        channels=1,
        classes=3,
    ),
    "darts-s1": Darts(size=8, width=4, cells=3, options="s1"),
    "darts-s2-partial": Darts(size=8, width=4, cells=3, options="s2", partial=2),
    "darts-s3": Darts(size=8, width=4, cells=3, options="s3"),
    "darts-s4": Darts(size=7, width=4, cells=3, options="s4"),
    "darts-s4-partial-every-edge": Darts(size=7, width=4, cells=3, options="s4", partial=2, inputs=None),
    "ragged": Ragged(),
    "ragged-partial": Ragged(size=7, partial=2, affine=True),
    "patched": patched(),
}


@pytest.mark.parametrize("law", SPACE_LAWS, ids=title)
@pytest.mark.parametrize("name", SPACES)
def test_law(law, name):
    law(SPACES[name])
