"""Real processes, interrupted."""

import json
import os
import signal
import time

import pytest
from killing import NAME, finish, killed_and_resumed, outcome, start

from gapless.runs.checkpoint import held
from gapless.runs.run import Run

SEARCH = (
    "search", "--space", "nasbench201", "--space.width", 4, "--space.cells", 1, "--method", "dropnas", "--train.epochs", 3,
    "--train.batch", 32, "--data", "digits", "--data.train_images", 200, "--threads", 1, "--save_every", 1e-9,
    "--execution", "reference",  # another process compiles the fused kernels for the longest vectors, from an empty cache
)  # fmt: skip


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("execution", "kills"),
    [pytest.param("reference", 1, marks=pytest.mark.process), pytest.param("fused", 2, marks=pytest.mark.process)],
)
def test_a_killed_search_ends_as_an_uninterrupted_one(gapless, tmp_path, execution, kills):
    search = (*SEARCH[:-1], execution)
    assert gapless(*search, "--out", tmp_path / "whole")[0] == 0
    assert killed_and_resumed(search, tmp_path / "killed", seed=1, kills=kills, at="write")
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    for name, value in one.items():
        assert other[name] == value, name


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.process)])
def test_an_interrupt_saves_and_says_how_to_go_on(gapless, tmp_path, number):
    run = tmp_path / "run"
    process = start(*SEARCH, "--epochs", 1000, "--out", run)
    wait_for(run / NAME, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Go on with: gapless resume {run}" in err
    assert "Traceback" not in err
    assert not (run / "arch.json").exists()
    with held(Run.open(run)):
        status, _, err = gapless("resume", run)
    assert status == 2
    assert "Another process is running" in err


def limited():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


@pytest.mark.process
def test_a_full_disk_ends_a_run_with_a_sentence_and_it_goes_on_later(tmp_path):
    run = tmp_path / "run"
    process = start(
        *SEARCH, "--out", run, preexec_fn=limited
    )  # no file may grow beyond 30 kB: the checkpoint is larger
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "cannot be written" in err
    assert f"gapless resume {run}" in err
    assert "Traceback" not in err
    finish("resume", run)
    finish(*SEARCH, "--out", tmp_path / "whole")
    assert outcome(run) == outcome(tmp_path / "whole")


def test_what_cannot_be_resumed(gapless, tmp_path):
    status, _, err = gapless("resume", "nowhere")
    assert status == 2
    assert "is no run" in err
    status, _, _ = gapless(*map(str, SEARCH), "--out", "run", "--json")
    assert status == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    status, out, _ = gapless("resume", "run", "--json")
    assert status == 0
    assert "has ended; there is nothing to go on with" in out
    assert json.loads(out.splitlines()[-1])["run"] == "run"
    assert {p: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_a_damaged_checkpoint_is_left_alone(gapless, tmp_path):
    gapless(*map(str, SEARCH), "--out", "run")
    run = tmp_path / "run"
    (run / "manifest.json").unlink()
    (run / "arch.json").unlink()
    os.truncate(run / NAME, 1000)
    before = {p: p.read_bytes() for p in run.iterdir()}
    status, _, err = gapless("resume", "run")
    assert status == 2
    assert "checkpoint.pt is damaged" in err
    assert {p: p.read_bytes() for p in run.iterdir()} == before
    (run / NAME).unlink()
    status, _, _ = gapless("resume", "run")
    assert status == 0
    assert len((run / "trace.jsonl").read_text().splitlines()) == 3


def test_a_recipe_that_changed_is_named(gapless, tmp_path):
    gapless(*map(str, SEARCH), "--out", "run")
    run = tmp_path / "run"
    (run / "manifest.json").unlink()
    (run / "arch.json").unlink()
    (run / "recipe.toml").write_text((run / "recipe.toml").read_text().replace("epochs = 3", "epochs = 4"))
    status, _, err = gapless("resume", "run")
    assert status == 2
    assert "was changed since" in err
