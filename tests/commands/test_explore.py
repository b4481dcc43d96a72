"""``gapless search --score``."""

import json
import time
from pathlib import Path

import pytest
from killing import MEASURED, NAME, start


def last_json(out):
    return json.loads(out.splitlines()[-1])


def test_a_search_by_a_table_is_shown_resumed_and_evaluated(gapless, made_up, tmp_path):
    words = ("--method", "regularized_evolution", "--score", "table", "--score.file", made_up)
    status, out, err = gapless(
        "search", "--space", "nasbench201", *words, "--evaluations", 40, "--out", "run", "--json"
    )
    assert (status, err) == (0, "")
    told = last_json(out)
    assert told["score"]["evaluations"] == 40
    assert "Searching nasbench201 (15,625 architectures) with regularized_evolution." in out
    assert f"cifar10_valid_12 of accuracy.parquet: {told['score']['value']:.2f} %, the best of 40 evaluations" in out
    assert "Next: gapless retrain run --data IMAGES" in out
    assert "oracle" not in out
    status, out, err = gapless("show", "run", "--json")
    assert (status, err) == (0, "")
    assert set(last_json(out)["figures"]) == {"cell", "evaluations"}
    status, out, _ = gapless("resume", "run", "--json")
    assert status == 0
    assert "there is nothing to go on with" in out
    assert last_json(out)["score"] == told["score"]
    status, out, _ = gapless("evaluate", "run", "--table", made_up, "--column", "cifar10_valid_12", "--json")
    assert last_json(out)["table"]["cifar10_valid_12"] == pytest.approx(told["score"]["value"], abs=1e-3)
    assert gapless("export", "run", "--format", "py", "--out", "net")[0] == 0


def test_the_folder_is_named_after_the_score_and_the_recipe_repeats_the_run(gapless, made_up, tmp_path):
    words = ("--method", "local_search", "--score", "table", "--score.file", made_up, "--evaluations", 12)
    status, out, _ = gapless("search", *words, "--limit", "macs=100M", "--seed", 2, "--json")
    assert status == 0
    first = last_json(out)
    assert first["run"] == "runs/nasbench201-local_search-table-seed2"
    second = last_json(gapless("search", f"{first['run']}/recipe.toml", "--out", "again", "--json")[1])
    assert (second["arch"], second["score"]) == (first["arch"], first["score"])
    assert second["limits"][0]["cost"] <= 100e6


def test_a_search_by_a_test_column_is_called_an_oracle(gapless, made_up):
    words = ("--score", "table", "--score.file", made_up, "--score.column", "cifar10_test_200", "--evaluations", 5)
    status, out, _ = gapless("search", "--method", "random", *words)
    assert status == 0
    assert "a search by it is an oracle" in out


def test_the_space_of_an_inherited_score_need_not_be_named(gapless, supernet):
    words = ("--score", "inherited", "--score.run", supernet.path, "--score.images", 40, "--score.calibration", 1)
    status, out, err = gapless("search", "--method", "random", *words, "--evaluations", 3, "--out", "run", "--json")
    assert (status, err) == (0, "")
    assert "inherited accuracy on 40 held-out images, run darts" in out
    assert "width = 4" in Path("run/recipe.toml").read_text()
    assert "Next: gapless retrain run\n" in out
    status, _, err = gapless("search", "--method", "random", "--space", "darts", *words)
    assert status == 2
    assert "Leave the space out" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "evolution"), "Set `--score` to table, with the `--score.file` of"),
        (("--method", "evolution", "--evaluations", "5"), "Set `--score` to table, with the `--score.file` of"),
        (
            ("--method", "darts", "--score", "table", "--score.file", "x"),
            "darts trains a supernet and asks for no score",
        ),
        (("--method", "evolution", "--score", "table"), "needs `--score.file`"),
        (("--method", "evolution", "--score", "tabel"), "Did you mean 'table'"),
        (("--method", "evolution", "--score", "table", "--score.bn", "batch"), "It is a setting of inherited."),
        (("--method", "evolution", "--score", "table", "--score.file", "nowhere"), "There is no table nowhere"),
        (("--method", "evolution", "--score", "inherited", "--score.run", "nowhere"), "is no run"),
    ],
)
def test_wrong_input_is_two_sentences(gapless, words, said, tmp_path):
    status, _, err = gapless("search", *words, "--out", "run")
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_settings_of_the_search_and_of_the_score(gapless):
    status, out, _ = gapless("search", "--method", "evolution", "--score", "inherited", "--help")
    assert status == 0
    for word in ("--method.crossovers", "--score.calibration", "--evaluations", "1000"):
        assert word in out
    status, out, _ = gapless("list", "scores")
    assert status == 0
    assert out.startswith("inherited")


@pytest.mark.process
def test_a_killed_search_ends_as_an_uninterrupted_one(gapless, made_up, tmp_path):
    begin = ("search", "--method", "evolution", "--score", "table", "--score.file", made_up, "--evaluations", 1000)
    assert gapless(*begin, "--out", tmp_path / "whole")[0] == 0
    run, killed = tmp_path / "killed", 0
    process = start(*begin, "--out", run)
    for wait in (0.02, 0.3):
        while process.poll() is None and not (run / NAME).exists():
            time.sleep(0.001)
        time.sleep(wait)
        if process.poll() is None:
            process.kill()
            killed += 1
        process.communicate()
        process = start("resume", run)
    process.communicate(timeout=120)
    assert killed
    one, other = (
        [
            {k: v for k, v in json.loads(line).items() if k not in MEASURED}
            for line in (folder / "trace.jsonl").read_text().splitlines()
        ]
        for folder in (tmp_path / "whole", run)
    )
    assert one == other
    for name in ("arch.json", "recipe.toml", "cell.svg"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
