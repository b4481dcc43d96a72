"""The examples of the guides obey the published suites."""

import re
from pathlib import Path
from typing import Any

import pytest

from gapless.core import catalogue
from gapless.spaces.nasbench201 import NASBench201
from gapless.testing import METHOD_LAWS, SPACE_LAWS, title
from gapless.testing.methods import RECORDED_LAWS, record

DOCS = Path(__file__).parents[2] / "docs"


def example(guide: str, last: str, folder: Path) -> Any:
    """Write the block of a guide that ends in ``last`` to a file, and return what the catalogue finds there."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (b for b in blocks if b.rstrip().endswith(last))
    last, _, name = last.partition(" = ")
    file = folder / f"example_{name.lower()}.py"
    file.write_text(block, encoding="utf-8")
    return catalogue.find(str(file), "methods" if last == "METHOD" else "spaces")


@pytest.fixture(scope="module", params=["Annealed", "OneShot"])
def method(request, tmp_path_factory):
    return example("add-a-method.md", f"METHOD = {request.param}", tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="module", params=["Chain", "Triangles"])
def space(request, tmp_path_factory):
    return example("add-a-space.md", f"SPACE = {request.param}", tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="module")
def recording(method):
    return record(method, NASBench201(size=8, width=4, cells=1))


@pytest.mark.parametrize("law", METHOD_LAWS, ids=title)
def test_the_method_of_the_guide(law, method, recording):
    law(method, NASBench201(size=8, width=4, cells=1), *([recording] if law in RECORDED_LAWS else []))


@pytest.mark.parametrize("law", SPACE_LAWS, ids=title)
def test_the_space_of_the_guide(law, space):
    law(space(size=8))
