"""``gapless report`` as a user sees it."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

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
    assert library.report("run", out="new/folder/page.html").path.read_bytes() == first

    status, out, _ = gapless("report", "run", "--out", "t.html", "--table", table_file, "--column", "cifar100_test_200")
    assert (status, "cifar100_test_200" in (tmp_path / "t.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--out", "page.pdf"), "must end in .html"),
        (("run", "--out", "run"), "must end in .html"),
        (("run", "--column", "cifar10_test_200"), "give the `--table`, too"),
        (("run", "--table", "none.parquet"), "none.parquet"),
        (("none",), "neither a run nor a comparison"),
        (("taken.html",), "neither a run nor a comparison"),
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
    assert status == 2 and "gap.json is damaged" in err
    assert (tmp_path / "run" / "report.html").read_bytes() == page


COMPARE = [
    "compare",
    *TINY,
    "--space",
    "nasbench201",
    "--data",
    "digits",
    "--epochs",
    "1",
    "--threads",
    "1",
    "--out",
    "c",
]
MINE = """
from gapless.searchers.random import Random

class Mine(Random):
    label = "mine"

METHOD = Mine
"""


def test_a_comparison_is_one_page(gapless, inside, tmp_path, made_up):
    gapless(*COMPARE, "--methods", "random,darts", "--seeds", "0,1", "--table", made_up)
    before = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    status, out, err = gapless("report", "c", "--json")
    assert (status, err) == (0, "")
    first, *notes, last = out.strip().splitlines()
    told = json.loads(last)
    written = tmp_path / "c" / "report.html"
    assert set(told) == {"comparison", "page", "bytes", "sections", "notes"}
    assert (told["comparison"], told["page"], told["notes"]) == ("c", "c/report.html", notes)
    assert told["bytes"] == written.stat().st_size and f"({told['bytes'] / 1000:,.0f} kB)" in first
    html = written.read_bytes()
    assert "With 2 seeds against 2" in notes[0]
    after = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert after.pop(written) == html and after == before, "nothing else in the folder changes"
    found = library.report("c", out="new/page.html")
    assert found.path.read_bytes() == html and (found.arch, found.space) == (None, None)
    assert found.sections == tuple(told["sections"])
    gapless("report", "c/darts-digits-seed0")
    assert (tmp_path / "c" / "darts-digits-seed0" / "report.html").is_file(), "its runs have pages of their own"

    for more in (("--table", made_up), ("--column", "cifar10_test_200"), ("--table", made_up, "--column", "x")):
        status, out, err = gapless("report", "c", *more)
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert "for the page of a run; c is a comparison" in err and "gapless compare c, with that `--table`" in err
    assert written.read_bytes() == html


def test_the_command_on_the_page_compares_again(gapless, inside, tmp_path, made_up):
    gapless(*COMPARE, "--methods", "random", "--seeds", "0,1", "--table", made_up)
    html = library.report("c").path.read_text()
    assert "mkdir c-again &amp;&amp; cp c/comparison.toml c-again &amp;&amp; gapless compare c-again" in html
    (tmp_path / "c-again").mkdir()
    shutil.copy("c/comparison.toml", "c-again")
    assert gapless("compare", "c-again")[0] == 0
    for seed in (0, 1):
        one, two = (library.Run.open(f"{name}/random-digits-seed{seed}") for name in ("c", "c-again"))
        assert one.found()[0] == two.found()[0]


def test_a_method_from_a_file_trained_alone_on_two_sets_of_images(gapless, inside, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    generator = np.random.default_rng(0)
    for number in range(120):
        place = tmp_path / "photos" / ("train" if number < 80 else "test") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    small = {"width": 4, "cells": 1}
    recipe = library.Recipe(
        space={"name": "nasbench201", **small},
        data={"train_images": 60, "test_images": 20},
        retrain={"epochs": 1, "batch": 16, "space": small},
        run={"threads": 1},
    )
    given = {"methods": ["mine.py", "random"], "seeds": [0], "data": ["digits", "photos"], "retrain": True}
    library.compare(recipe, **given, out="c")
    (tmp_path / "c" / "mine-photos-seed0-retrained" / "manifest.json").unlink()  # as if it had been killed
    (tmp_path / "c" / "mine-photos-seed0-retrained" / "result.json").unlink()
    status, out, err = gapless("report", "c")
    assert (status, err) == (0, "")
    assert "1 of 4 runs are not in the means. mine-photos-seed0: not ended" in out
    html = (tmp_path / "c" / "report.html").read_text()
    assert "<h1>mine, random on nasbench201 on digits, photos</h1>" in html
    for name in ("digits", "photos"):
        assert f"{name}: what the answers are worth, test accuracy in %" in html
        (accuracy,) = (library.Run.open(f"c/random-{name}-seed0-retrained").result()["test_accuracy"],)
        assert re.search(rf"random-{name}-seed0: {accuracy:.2f} %, [\d,]+ parameters", html)
    assert html.count("<svg") == 1 + 4
