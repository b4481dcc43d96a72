"""``gapless show`` as a user sees it."""

import json

import pytest

from gapless.commands.app import run
from gapless.runs.run import Run

TINY = ["--space.width", "4", "--space.cells", "1", "--data.train_images", "60", "--data.test_images", "20"]
SEARCH = ["search", *TINY, "--epochs", "2", "--train.batch", "16", "--threads", "1", "--out", "run"]


@pytest.fixture
def gapless(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder and return (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        status = run([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return call


def last_json(out):
    return json.loads(out.strip().splitlines()[-1])


def test_a_run_is_drawn_into_its_folder(gapless, tmp_path, table_file):
    found = last_json(gapless(*SEARCH, "--json")[1])
    status, out, err = gapless("show", "run", "--table", table_file, "--column", "cifar100_test_200", "--json")
    assert (status, err) == (0, "")
    names = ["cell", "scores", "training", "range"]
    assert out.splitlines()[:-1] == [f"Drawn: run/{name}.svg" for name in names]
    told = last_json(out)
    assert {k: told[k] for k in ("run", "arch", "notation")} == {k: found[k] for k in ("run", "arch", "notation")}
    assert told["picture"] == "run/cell.svg"
    assert told["figures"] == {name: f"run/{name}.svg" for name in names}
    assert all((tmp_path / path).is_file() for path in told["figures"].values())
    assert told["range"]["column"] == "cifar100_test_200"
    assert {"min", "lower_quartile", "median", "upper_quartile", "max", "choice", "optimum"} <= set(told["range"])
    assert (told["tensorboard"], told["notes"]) == (None, [])

    status, out, _ = gapless("show", "run", "--format", "png", "--out", "paper", "--tensorboard")
    assert status == 0
    assert {p.name for p in (tmp_path / "paper").iterdir()} == {"cell.png", "scores.png", "training.png"}
    assert "tensorboard --logdir run/tensorboard" in out
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))) == 1

    status, out, _ = gapless("show", "run", "--out", "only.pdf")
    assert (status, out) == (0, "Drawn: only.pdf\n"), "a single file is the cell alone"


def test_a_run_without_draws_says_so(gapless, tmp_path, table_file):
    gapless(*SEARCH)
    trace = tmp_path / "run" / "trace.jsonl"
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    trace.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "draws"}) + "\n" for r in records))
    Run(tmp_path / "run").end()
    status, out, _ = gapless("show", "run", "--table", table_file, "--json")
    assert status == 0
    assert "The trace of run holds no draws" in out.splitlines()[-2]
    assert last_json(out)["range"] is None


def test_an_architecture_is_drawn_here(gapless, tmp_path):
    status, out, _ = gapless("show", "DARTS_V2")
    assert (status, out) == (0, "Drawn: cell.svg\n")
    assert (tmp_path / "cell.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("DARTS_V2", "--table", "t.parquet"), "--table is for all figures of a run"),
        (("DARTS_V2", "--tensorboard", "--format", "png"), "--tensorboard and --format are for all figures"),
        (("DARTS_V2", "--out", "cell.gif"), ".svg, .png, .pdf"),
        ((".", "--column", "x"), "give the table, too"),
        (("."), "is no run"),
        ((".", "--format", "gif"), "--format"),
    ],
)
def test_wrong_input_is_one_sentence(gapless, arguments, told):
    status, out, err = gapless("show", *([arguments] if isinstance(arguments, str) else arguments))
    assert (status, out) == (2, "")
    assert told in err and "Traceback" not in err


def test_the_space_of_a_run_is_checked(gapless):
    gapless(*SEARCH)
    status, _, err = gapless("show", "run", "--space", "darts")
    assert status == 2 and "nasbench201" in err
