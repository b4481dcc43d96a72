"""What every file of the folder says of itself."""

import pytest

from gapless.core import catalogue
from gapless.core.method import Method
from gapless.core.settings import fields_of, make
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

NAMES = catalogue.names("methods")
SPACES = {"darts": Darts, "nasbench201": NASBench201}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_named_as_its_method(name):
    method = catalogue.find(name, "methods")
    assert issubclass(method, Method)
    assert method.label == name
    assert "arXiv" in method.source


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", NAMES)
def test_what_the_paper_uses_can_be_made(name, space):
    """The setting's fields are fields of the space, and every default of the method is of its annotated type."""
    method = catalogue.find(name, "methods")
    setting = method.setting(space)
    made = make(SPACES[space], setting.space)
    given = {field: f.default for field, f in fields_of(method).items()}
    assert make(method, given, made).plan.stage_epochs(setting.train.epochs)


@pytest.mark.parametrize("name", NAMES)
def test_another_space_gets_the_common_setting(name):
    method = catalogue.find(name, "methods")
    assert method.setting("no such space") == method.settings[""]
