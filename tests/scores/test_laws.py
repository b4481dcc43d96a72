"""The published suite on every score of the folder."""

import pytest
import torch

from gapless.core import catalogue
from gapless.core.settings import fields_of, make
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import SCORE_LAWS, title

CPU = torch.device("cpu")
SMALL = NASBench201(width=4, cells=1, channels=1, size=8)
VARIANTS = {
    "table": ("table", {}),
    "inherited": ("inherited", {"images": 60}),
    "inherited-batch": ("inherited", {"bn": "batch"}),
    "inherited-running": ("inherited", {"bn": "running"}),
}


@pytest.mark.parametrize("law", SCORE_LAWS, ids=title)
@pytest.mark.parametrize("variant", VARIANTS)
def test_law(law, variant, request):
    name, settings = VARIANTS[variant]
    needed = {"table": ("file", "made_up"), "inherited": ("run", "supernet")}[name]
    found = request.getfixturevalue(needed[1])
    settings = {**settings, needed[0]: getattr(found, "path", found)}
    law(lambda: make(catalogue.find(name, "scores"), settings, SMALL, CPU), SMALL)


@pytest.mark.parametrize("name", catalogue.names("scores"))
def test_a_file_is_named_as_its_score_and_explains_its_settings(name):
    kind = catalogue.find(name, "scores")
    assert kind.label == name
    assert all(setting.help for setting in fields_of(kind).values())


def test_every_score_is_under_the_laws():
    assert {name for name, _ in VARIANTS.values()} == set(catalogue.names("scores"))
