"""The command, in this process, its jobs too; tests/studies/test_compare.py has real ones."""

import json

import pytest

from gapless.studies import compare as study
from gapless.studies.jobs import Outcome

TINY = (
    "--space", "nasbench201", "--space.width", 4, "--space.cells", 1, "--data", "digits", "--data.train_images", 100,
    "--threads", 1,
)  # fmt: skip


def test_a_comparison_and_the_rest_of_it(gapless, inside, made_up, tmp_path):
    out = tmp_path / "out"
    status, said, err = gapless(
        "compare", *TINY, "--methods", "random", "--seeds", "0,1", "--table", made_up, "--column", "cifar10_test_200",
        "--jobs", 2, "--out", out, "--json",
    )  # fmt: skip
    assert status == 0, err
    assert "2 runs." in said
    assert "random-digits-seed0: begun" in said
    assert "What the answers are worth, cifar10_test_200 in %:" in said
    told = json.loads(said.splitlines()[-1])
    assert [run["seed"] for run in told["runs"]] == [0, 1]
    assert [r["name"] for r in told["references"]][1:] == ["the cell with most parameters", "the best cell"]
    assert set(told["files"]) == {"csv", "differences", "markdown", "latex"}
    (out / "random-digits-seed1" / "manifest.json").unlink()  # as if it had been killed
    (out / "random-digits-seed1" / "arch.json").unlink()
    status, said, err = gapless("compare", out)
    assert status == 0, err
    assert "2 runs. 1 of them had ended before." in said
    assert "cifar10_test_200" in said  # table and column are remembered


def test_a_folder_takes_more_methods_and_seeds(gapless, inside, made_up, tmp_path):
    score = ("--score", "table", "--score.file", made_up, "--evaluations", 4)
    given = ("--methods", "random,evolution", "--seeds", "0", "--table", made_up, "--out", "c")
    assert gapless("compare", "--space", "nasbench201", *score, *given)[0] == 0
    status, said, err = gapless("compare", "c", "--methods", "random,evolution,local_search", "--seeds", "0,1,2")
    assert status == 0, err
    assert "9 runs. 2 of them had ended before." in said
    assert "cannot go below p = 0.10 (2 of 20 divisions)" in said
    assert "compare them with 0.05 / 2 = 0.025 (Bonferroni)" in said
    status, _, err = gapless("compare", "c", "--evaluations", 5)
    assert status == 2
    assert "c holds runs with other settings: score.evaluations is 5, and was 4." in err


def test_settings_of_single_methods(gapless, inside, tmp_path):
    status, _, err = gapless(
        "compare", *TINY, "--methods", "darts,random", "--methods.darts.arch_lr", 0.5, "--seeds", 0, "--epochs", 1,
        "--train.batch", 32, "--execution", "reference", "--out", "c",
    )  # fmt: skip
    assert status == 0, err
    assert "arch_lr = 0.5" in (tmp_path / "c" / "darts-digits-seed0" / "recipe.toml").read_text()


def test_failed_runs_end_with_a_sentence(gapless, monkeypatch, tmp_path):
    def run(self, jobs, told):
        return {job.name: Outcome("ended" if job.name == "check" else "failed", "gone") for job in jobs}

    monkeypatch.setattr(study.Here, "run", run)
    status, said, err = gapless("compare", *TINY, "--methods", "random", "--seeds", "0", "--out", "c")
    assert status == 2
    assert "1 of 1 runs did not come to their end (random-digits-seed0); the logs are in c/logs." in err
    assert "Try them again with: gapless compare c" in err
    assert "only what it cost to find them" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Say which methods to compare, as in: --methods darts,drnas,random"),
        (("--methods", "random", "--seeds", "0,one"), "--seeds is '0,one'; it takes whole numbers with commas"),
        (("--methods", "random", "--column", "x"), "give the table, too: --table PATH"),
        (("--methods", "random,random"), "`--methods` lists random twice"),
        (("--methods", "rando"), "random"),
        (("--methods", "random", "demo"), "Put the recipe first"),
    ],
)
def test_what_is_wrong_is_said(gapless, tmp_path, given, said):
    status, _, err = gapless("compare", *given)
    assert status == 2
    assert said in err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_comparison(gapless, tmp_path):
    (tmp_path / "c").mkdir()
    status, _, err = gapless("compare", "c")
    assert status == 2
    assert "c is no comparison: it has no comparison.toml." in err


def test_help_names_every_methods_settings(gapless):
    status, said, _ = gapless("compare", "--methods", "darts,drnas", "--help")
    assert status == 0
    assert "--methods.drnas." in said and "--methods.darts." in said
    assert "--ray" in said
