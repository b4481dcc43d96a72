"""The published suite on the spaces that there are, and on a ragged, a partial and a patched one.

Laws that train a network are in the default tier for some variants of each space, and in the tier ``full`` for the
rest.
"""

import pytest

from gapless.spaces.darts import Darts
from gapless.spaces.entangled_cells import EntangledCells
from gapless.spaces.insights64 import Insights64
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet
from gapless.testing import SPACE_LAWS, title
from gapless.testing.examples import Ragged, patched
from gapless.testing.spaces import STILL_LAWS

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
    "shufflenet": ShuffleNet(
        size=16, stem_width=4, widths=(8, 12), repeats=(2, 2), strides=(1, 2, 1), head_width=8, dropout=0.3
    ),
    "shufflenet-odd": ShuffleNet(
        size=9,
        stem_width=4,
        widths=(4, 8, 10),
        repeats=(1, 1, 1),
        strides=(2, 1, 1, 2),
        head_width=6,
        affine=True,
        eps=1e-2,
        dropout=0.0,
        channels=1,
        classes=3,
    ),
    "mobile": Mobile(size=16, width=0.01, layers=(1, 2, 1, 1, 1, 1)),
    "mobile-depth-odd": Mobile(
        size=9,
        variant="proxyless-gpu",
        kernels=(3, 9),
        expansions=(1, 2),
        layers=(3, 1, 1, 1, 1, 1),
        strides=(1, 2, 1, 1, 1, 1, 1),
        width=0.01,
        channels=1,
        classes=3,
    ),
    "insights64": Insights64(size=8, width=4, cells=2),
    "insights64-sum-affine-odd": Insights64(
        size=7, width=3, cells=1, output="sum", dilated=3, affine=True, momentum=0.1, channels=1, classes=3
    ),
    "entangled-cells": EntangledCells(size=8, width=4),
    "entangled-cells-odd": EntangledCells(size=7, width=3, affine=True, dropout=0.0, channels=1, classes=3),
    "ragged": Ragged(),
    "ragged-partial": Ragged(size=7, partial=2, affine=True),
    "patched": patched(),
}
FULL = {
    "darts",
    "darts-s2-partial",
    "darts-drnas-partial",
    "darts-3-skip-every-edge",
    "darts-s1",
    "darts-s3",
    "darts-s4",
    "darts-s4-partial-every-edge",
    "shufflenet",
    "mobile",
    "insights64",
}
"""Variants of which another one is held to every law in the default tier."""
PLACES = [
    pytest.param(
        name, law, marks=pytest.mark.full if name in FULL and law not in STILL_LAWS else (), id=f"{name}-{title(law)}"
    )
    for name in SPACES
    for law in SPACE_LAWS
]


@pytest.mark.parametrize(("name", "law"), PLACES)
def test_law(name, law):
    law(SPACES[name])
