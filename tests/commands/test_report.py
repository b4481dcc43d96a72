"""``gapless report`` as a user sees it."""

import json

import pytest

import gapless as library

TINY = ["--space.width", "4", "--space.cells", "1", "--data.train_images", "60", "--data.test_images", "20"]
SEARCH = ["search", *TINY, "--epochs", "1", "--train.batch", "16", "--threads", "1", "--out", "run"]


def test_a_run_is_one_page(gapless, tmp_path, table_file):
    gapless(*SEARCH)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    status, out, err = gapless("report", "run", "--json")
    assert (status, err) == (0, "")
    *lines, last = out.strip().splitlines()
    told = json.loads(last)
    written = tmp_path / "run" / "report.html"
    assert lines == [f"Written: run/report.html ({told['bytes'] / 1000:,.0f} kB)"]
    assert told["page"] == "run/report.html" and told["bytes"] == written.stat().st_size and told["notes"] == []
    assert told["notation"] in written.read_text() and {"answer", "trust", "cells", "recipe"} <= set(told["sections"])
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    first = after.pop("report.html")
    assert after == before, "nothing else in the folder changes"

    assert gapless("report", "run")[0] == 0
    assert written.read_bytes() == first
    assert library.page("run", out="new/folder/page.html").path.read_bytes() == first

    status, out, _ = gapless("report", "run", "--out", "t.html", "--table", table_file, "--column", "cifar100_test_200")
    assert (status, "cifar100_test_200" in (tmp_path / "t.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--out", "page.pdf"), "ends in .html"),
        (("run", "--out", "run"), "ends in .html"),
        (("run", "--column", "cifar10_test_200"), "give the table, too"),
        (("run", "--table", "none.parquet"), "none.parquet"),
        (("none",), "is no run"),
        (("taken.html",), "is no run"),
        (("run", "--out", "run/recipe.toml/page.html"), "cannot be written"),
        (("run", "--out", "folder.html"), "cannot be written"),
    ],
)
def test_wrong_input_is_one_sentence_and_changes_nothing(gapless, tmp_path, arguments, told):
    gapless(*SEARCH)
    (tmp_path / "taken.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    status, out, err = gapless("report", *arguments)
    assert (status, out) == (2, "")
    assert told in err and "Traceback" not in err and err.count("\n") == 1
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_an_earlier_page_is_whole_when_the_new_one_cannot_be_made(gapless, tmp_path):
    gapless(*SEARCH)
    gapless("report", "run")
    page = (tmp_path / "run" / "report.html").read_bytes()
    (tmp_path / "run" / "gap.json").write_text("{")
    status, _, err = gapless("report", "run")
    assert status == 2 and "gap.json is spoilt" in err
    assert (tmp_path / "run" / "report.html").read_bytes() == page
