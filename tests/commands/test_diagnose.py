"""``gapless diagnose`` as a user sees it."""

import json

import pytest

import gapless as package
from gapless.commands.app import run

TINY = ["--space.width", "4", "--space.cells", "1", "--data.train_images", "60", "--data.test_images", "20"]
FEW = ["--images", "20", "--threads", "1"]


@pytest.fixture
def searched(gapless):
    def search(method, *more):
        given = ["--epochs", "1", "--train.batch", "16", "--threads", "1", "--out", method]
        assert gapless("search", "--method", method, *TINY, *given, *more)[0] == 0

    return search


def test_two_runs_side_by_side(gapless, searched, tmp_path):
    searched("darts", "--watch")
    searched("dropnas", "--watch")
    assert "watch = true" in (tmp_path / "darts" / "recipe.toml").read_text()
    status, out, err = gapless("diagnose", "darts", "--beside", "dropnas", *FEW, "--json")
    assert (status, err) == (0, "")
    lines = out.strip().splitlines()
    told = json.loads(lines[-1])
    assert told == {**json.loads((tmp_path / "darts" / "diagnose.json").read_text()), "page": "darts/diagnose.md"}
    assert [one["method"] for one in told["runs"]] == ["darts", "dropnas"]
    assert lines[0].startswith("darts: The mean absolute correlation") and any(
        line.startswith("dropnas: ") for line in lines
    )
    assert (tmp_path / "darts" / "diagnose.md").is_file() and (tmp_path / "darts" / "diagnose-course.svg").is_file()


def test_what_was_not_watched_is_said(gapless, searched):
    searched("darts")
    status, out, _ = gapless("diagnose", "darts", *FEW)
    assert status == 0 and "switch `watch` on in the search" in out


def test_what_is_no_search_is_a_sentence(gapless, searched):
    for given in (["none"], ["random"]):
        if given == ["random"]:
            assert gapless("search", "--method", "random", *TINY, "--out", "random")[0] == 0
        status, _, err = gapless("diagnose", *given)
        assert status == 2 and err.count("\n") == 1


def test_the_function_and_the_command_are_public():
    assert "diagnose" in package.__all__
    assert run(["diagnose", "--help"]) == 0
