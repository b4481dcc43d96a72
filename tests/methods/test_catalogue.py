"""What every file of the folder says of itself."""

from pathlib import Path

import pytest

import gapless.methods
from gapless.core import catalogue
from gapless.core.method import Method
from gapless.core.settings import defaults, make
from gapless.runs.checked import settings_of
from gapless.spaces.darts import Darts
from gapless.spaces.insights64 import Insights64
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet

NAMES = catalogue.names("methods")
SPACES = {"darts": Darts, "nasbench201": NASBench201}
SIZED = (
    Darts(width=12, cells=3),
    NASBench201(width=8, cells=1),
    Insights64(),
    Mobile(width=0.25),
    ShuffleNet(width=0.25),
)
OF_SPACES = {
    ("drnas", "darts"): {"arch_lr": 6e-4, "partials": (), "keep": (), "warmup": 0},
    ("drnas", "darts", "progressive"): {"arch_lr": 6e-4, "partials": (6, 4), "keep": (4,), "warmup": 10},
    ("drnas", "nasbench201"): {"arch_lr": 3e-4, "partials": (), "keep": (), "warmup": 0},
    ("drnas", "nasbench201", "progressive"): {"arch_lr": 3e-4, "partials": (4, 2), "keep": (3,), "warmup": 10},
    ("drnas", "mobile"): {"arch_lr": 3e-4, "partials": (), "keep": (), "warmup": 0},
    ("dsnas", "darts"): {"freeze": 1.0, "arch_lr": 3e-4, "arch_decay": 1e-3},
    ("dsnas", "nasbench201"): {"freeze": 0.3, "arch_lr": 1e-3, "arch_decay": 0.0},
    ("dsnas", "shufflenet"): {"freeze": 0.3, "arch_lr": 1e-3, "arch_decay": 0.0},
}
"""Method, space, what is switched on -> settings whose default depends on the space (released codes)."""


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
    assert make(method, defaults(method), made).plan.stage_epochs(setting.train.epochs)


@pytest.mark.parametrize("name", NAMES)
def test_another_space_gets_the_common_setting(name):
    method = catalogue.find(name, "methods")
    assert method.setting("no such space") == method.settings[""]


def test_no_method_asks_for_a_space_by_its_name():
    (folder,) = gapless.methods.__path__
    files = sorted(Path(folder).glob("*.py"))
    assert len(files) > len(NAMES)
    assert [f.name for f in files if ".label" in f.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("space", SIZED, ids=lambda space: space.label)
@pytest.mark.parametrize("name", NAMES)
def test_defaults_written_out_make_the_same_method(name, space):
    """A setting has a value on every space, in every variant, and given by hand it is the same."""
    method = catalogue.find(name, "methods")
    setting = method.setting(space.label)
    for switch in (None, *setting.variants):
        on = {} if switch is None else {switch: True}
        if "progressive" in on and not hasattr(space, "partial"):
            continue
        given = settings_of(method, type(space), on)
        assert None not in given.values()
        assert make(method, given, space).plan == method(space, **on).plan


@pytest.mark.parametrize("key", OF_SPACES, ids=" ".join)
def test_the_defaults_of_a_space_are_the_released_ones(key):
    name, label, *on = key
    method, (space,) = catalogue.find(name, "methods"), (type(s) for s in SIZED if s.label == label)
    assert settings_of(method, space, dict.fromkeys(on, True)).items() >= OF_SPACES[key].items()
