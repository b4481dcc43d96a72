"""Whatever ends a run, and whatever becomes of its files: it goes on to the same end, or one sentence says why not.

``GAPLESS_SEED`` chooses what is drawn; the few cases of the default tier are always the same.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
from faulty import MOMENTS, SEARCH, Fault, command, outcome
from killing import NAME

SEED = int(os.environ.get("GAPLESS_SEED", "0"))
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing disturbed, and the number of its writes."""
    where = tmp_path_factory.mktemp("whole")
    came = command(*SEARCH, "--out", "run", where=where)
    assert came.status == 0, came.err
    return where / "run", came.writes


def finished(where, *, out="run"):
    """Bring a run to its end, whatever is there of it."""
    came = command("resume", out, where=where).well()
    if came.status == 2 and "is no run" in came.err:  # nothing was begun
        came = command(*SEARCH, "--out", out, where=where).well()
    assert came.status == 0, came.err
    return outcome(where / out)


# ---------------------------------------------------------------------- kills, interrupts, room


def struck(whole, tmp_path, fault):
    run, _ = whole
    came = command(*SEARCH, "--out", "run", where=tmp_path, fault=fault).well()
    return came, finished(tmp_path), outcome(run)


FEW = [(0, "half"), (1, "created"), (3, "half"), (9, "written")]


@pytest.mark.parametrize(("nth", "moment"), FEW)
def test_killed_inside_a_write(whole, tmp_path, nth, moment):
    came, resumed, expected = struck(whole, tmp_path, Fault(nth, moment))
    assert came.status == -signal.SIGKILL
    assert resumed == expected


@pytest.mark.faults
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("nth", range(11))
def test_killed_inside_every_write(whole, tmp_path, nth, moment):
    if nth >= whole[1]:
        pytest.skip("there are not so many writes")
    came, resumed, expected = struck(whole, tmp_path, Fault(nth, moment))
    assert came.status == -signal.SIGKILL
    assert resumed == expected


def interrupted(whole, tmp_path, nth, what):
    came, resumed, expected = struck(whole, tmp_path, Fault(nth, "written", what))
    assert came.status == ({"interrupt": 130, "terminate": 143}[what] if nth < whole[1] else 0), came
    if came.status:
        assert came.err.strip() in ("Stopped. Go on with: gapless resume run", "Interrupted."), came.err
    assert resumed == expected


@pytest.mark.parametrize(("nth", "what"), [(3, "terminate"), (7, "interrupt")])
def test_interrupted_at_a_write(whole, tmp_path, nth, what):
    interrupted(whole, tmp_path, nth, what)


@pytest.mark.faults
@pytest.mark.parametrize("what", ["interrupt", "terminate"])
@pytest.mark.parametrize("nth", range(11))
def test_interrupted_at_every_write(whole, tmp_path, nth, what):
    interrupted(whole, tmp_path, nth, what)


def without_room(whole, tmp_path, nth, moment):
    came = command(*SEARCH, "--out", "run", where=tmp_path, fault=Fault(nth, moment, "room")).well()
    begun = (tmp_path / "run").exists()
    resumed, expected = finished(tmp_path), outcome(whole[0])
    if nth < whole[1]:
        assert came.status == 2
        assert "cannot be written" in came.err
        assert ("gapless resume" in came.err) == begun, came.err
    assert resumed == expected


@pytest.mark.parametrize(("nth", "moment"), [(0, "before"), (4, "half"), (8, "half")])
def test_no_room(whole, tmp_path, nth, moment):
    without_room(whole, tmp_path, nth, moment)


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["before", "half", "written"])
@pytest.mark.parametrize("nth", range(11))
def test_no_room_at_every_write(whole, tmp_path, nth, moment):
    without_room(whole, tmp_path, nth, moment)


# ---------------------------------------------------------------------- damage


def flipped(content):
    at = random.Random(SEED).randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flipped": flipped,
    "list": lambda content: b"[]",
    "object": lambda content: b"{}\n",
    "number": lambda content: b"3\n",
    "bytes": lambda content: b"\xff\xfe\x00" * 20,
    "longer": lambda content: content + b"\n",
    "doubled": lambda content: content + content,
    "digit": lambda content: content.replace(b"1", b"2", 1) if b"1" in content else content + b" ",
    "gone": None,
    "folder": None,
}
FILES = ("recipe.toml", "trace.jsonl", "arch.json", "weights.safetensors", "checkpoint.pt", "machine.json", "manifest.json")  # fmt: skip
RETRAIN = ("--epochs", "1", "--data", "digits", "--data.train_images", "20", "--data.test_images", "10", "--start", "inherited")  # fmt: skip
READERS = {
    "show": ("show", "run", "--json"),
    "evaluate": ("evaluate", "run", "--json"),
    "report": ("report", "run"),
    "export": ("export", "run", "--format", "py", "--inherit", "--out", "out"),
    "gap": ("gap", "run", "--archs", "2", "--images", "10", "--budgets", "1", "--threads", "1"),
    "diagnose": ("diagnose", "run", "--images", "20", "--threads", "1"),
    "retrain": ("retrain", "run", *RETRAIN, "--out", "out", "--threads", "1"),
    "resume": ("resume", "run"),
}
MADE = {
    "show": ("run/cell.svg", "run/scores.svg", "run/training.svg"),
    "export": ("out/model.py", "out/weights.safetensors"),
    "gap": ("run/gap-fixing.svg", "run/gap-ranking.svg"),
    "diagnose": ("run/diagnose-alike.svg",),
    "retrain": ("out/arch.json", "out/weights.safetensors"),
    "resume": ("run/trace.jsonl", "run/arch.json", "run/weights.safetensors", "run/recipe.toml"),
}
"""Files that a command makes of a run, the same for the same run."""


def damage(run, name, how):
    path = run / name
    if how == "gone":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


def made(where, reader):
    return {name: (where / name).read_bytes() for name in MADE.get(reader, ()) if (where / name).is_file()}


@pytest.fixture(scope="module")
def right(whole, tmp_path_factory):
    """Return a function that tells what a command makes of the run that nothing damaged."""

    @cache
    def of(reader):
        where = tmp_path_factory.mktemp(reader)
        shutil.copytree(whole[0], where / "run")
        came = command(*READERS[reader], where=where).well()
        assert came.status == 0, came.err
        return made(where, reader)

    return of


def damaged(whole, right, tmp_path, name, how, reader):
    shutil.copytree(whole[0], tmp_path / "run")
    damage(tmp_path / "run", name, how)
    came = command(*READERS[reader], where=tmp_path).well()
    assert came.status in (0, 2)
    if came.status == 0:
        assert made(tmp_path, reader) == right(reader), "what is wrong was made of damaged files"
    else:
        assert name in came.err or "is no run" in came.err or "has not ended" in came.err, came.err
        assert not (tmp_path / "out").exists()


DAMAGED_FEW = [
    ("weights.safetensors", "flipped", "export"), ("weights.safetensors", "half", "gap"), ("trace.jsonl", "digit", "resume"),
    ("trace.jsonl", "empty", "report"), ("arch.json", "object", "show"), ("recipe.toml", "digit", "retrain"),
    ("machine.json", "number", "report"), ("manifest.json", "half", "evaluate"), ("arch.json", "folder", "evaluate"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "reader"), DAMAGED_FEW)
def test_a_damaged_file(whole, right, tmp_path, name, how, reader):
    damaged(whole, right, tmp_path, name, how, reader)


@pytest.mark.faults
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_every_damage_of_every_file(whole, right, tmp_path, name, how, reader):
    damaged(whole, right, tmp_path, name, how, reader)


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A search that was killed in its second epoch."""
    where = tmp_path_factory.mktemp("cut")
    came = command(*SEARCH, "--out", "run", where=where, fault=Fault(4, "after"))
    assert came.status == -signal.SIGKILL
    return where / "run"


def cut_and_damaged(whole, cut, tmp_path, name, how):
    shutil.copytree(cut, tmp_path / "run")
    damage(tmp_path / "run", name, how)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file() and p.name != ".lock"}
    came = command("resume", "run", where=tmp_path).well()
    if came.status == 0:
        assert outcome(tmp_path / "run") == outcome(whole[0])
    else:
        after = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file() and p.name != ".lock"}
        assert after == before, "what cannot go on is left as it was"
        assert name in came.err, came.err


@pytest.mark.parametrize(
    ("name", "how"), [("trace.jsonl", "half"), ("checkpoint.pt", "flipped"), ("trace.jsonl", "folder")]
)
def test_a_damaged_file_of_an_interrupted_run(whole, cut, tmp_path, name, how):
    cut_and_damaged(whole, cut, tmp_path, name, how)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["recipe.toml", "trace.jsonl", "checkpoint.pt", "machine.json"])
@pytest.mark.parametrize("how", DAMAGES)
def test_every_damage_of_an_interrupted_run(whole, cut, tmp_path, name, how):
    cut_and_damaged(whole, cut, tmp_path, name, how)


def test_a_folder_in_the_place_of_the_lock_is_refused_at_the_start(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "run")
    (tmp_path / "run" / ".lock").unlink(missing_ok=True)
    (tmp_path / "run" / ".lock").mkdir()
    came = command("resume", "run", where=tmp_path).well()
    assert came.status == 2
    assert ".lock is a folder" in came.err


# ---------------------------------------------------------------------- other commands that are killed while they write

RETRAINED = ("retrain", "run", *RETRAIN, "--threads", "1", "--out", "alone")
COMPARED = (
    "compare", "--methods", "darts,random", "--seeds", "0", "--epochs", "1", *SEARCH[1:7], "--train.batch", "16", *SEARCH[-10:],
    "--out", "all",
)  # fmt: skip


def came_to(words, where):
    """Return what a training, or all runs of a comparison, came to."""
    runs = [where / "alone"] if words[0] == "retrain" else sorted((where / "all").glob("*-seed*"))
    found = {run.name: outcome(run) if (run / NAME).exists() else {} for run in runs}
    for run in runs:  # the recipe names the run whose weights are inherited
        found[run.name]["recipe.toml"] = (run / "recipe.toml").read_text().replace(str(where), "")
    names = ("comparison.toml", "differences.csv") if words[0] == "compare" else ()
    return found | {name: (where / "all" / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def undisturbed(whole, tmp_path_factory):
    """Return a function that tells what a command comes to, and the number of its writes."""

    @cache
    def of(words):
        where = tmp_path_factory.mktemp(words[0])
        shutil.copytree(whole[0], where / "run")
        came = command(*words, where=where).well()
        assert came.status == 0, came.err
        return came_to(words, where), came.writes

    return of


def killed_and_repeated(whole, undisturbed, tmp_path, words, fault):
    expected, writes = undisturbed(words)
    if fault.nth >= writes:
        pytest.skip("there are not so many writes")
    shutil.copytree(whole[0], tmp_path / "run")
    came = command(*words, where=tmp_path, fault=fault).well()
    assert came.status == -signal.SIGKILL
    again = words if words[0] == "compare" else ("resume", "alone")
    came = command(*again, where=tmp_path).well()
    if came.status == 2 and "is no run" in came.err:  # nothing was begun
        came = command(*words, where=tmp_path).well()
    assert came.status == 0, came.err
    assert came_to(words, tmp_path) == expected


@pytest.mark.parametrize(("words", "nth"), [(RETRAINED, 5), (COMPARED, 9)], ids=["retrain", "compare"])
def test_killed_and_repeated(whole, undisturbed, tmp_path, words, nth):
    killed_and_repeated(whole, undisturbed, tmp_path, words, Fault(nth, "half"))


@pytest.mark.faults
@pytest.mark.parametrize("moment", ["created", "half", "after"])
@pytest.mark.parametrize("nth", range(12))
def test_a_training_that_is_killed_goes_on(whole, undisturbed, tmp_path, nth, moment):
    killed_and_repeated(whole, undisturbed, tmp_path, RETRAINED, Fault(nth, moment))


@pytest.mark.faults
@pytest.mark.parametrize("part", range(25))
def test_a_comparison_that_is_killed_goes_on(whole, undisturbed, tmp_path, part):
    drawn = random.Random(f"{SEED}-compare-{part}")
    nth = drawn.randrange(undisturbed(COMPARED)[1])
    killed_and_repeated(whole, undisturbed, tmp_path, COMPARED, Fault(nth, drawn.choice(MOMENTS)))


def measured_again(whole, right, tmp_path, reader, fault):
    """What only reads a run leaves it whole wherever it is killed, and comes to the same the next time."""
    shutil.copytree(whole[0], tmp_path / "run")
    came = command(*READERS[reader], where=tmp_path, fault=fault).well()
    assert came.status in (0, -signal.SIGKILL)
    assert outcome(tmp_path / "run") | {"leavings": []} == outcome(whole[0])
    for words in (("show", "run"), ("report", "run"), ("resume", "run"), READERS[reader]):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert command(*words, where=tmp_path).well().status == 0, words
    assert made(tmp_path, reader) == right(reader)


@pytest.mark.parametrize(("reader", "nth"), [("report", 0)])
def test_a_measurement_that_is_killed(whole, right, tmp_path, reader, nth):
    measured_again(whole, right, tmp_path, reader, Fault(nth, "half"))


@pytest.mark.faults
@pytest.mark.parametrize("reader", ["gap", "diagnose", "report", "show", "export"])
@pytest.mark.parametrize("nth", range(8))
@pytest.mark.parametrize("moment", ["half", "after"])
def test_every_measurement_that_is_killed(whole, right, tmp_path, reader, nth, moment):
    measured_again(whole, right, tmp_path, reader, Fault(nth, moment))


# ---------------------------------------------------------------------- races


def race(tmp_path, racers):
    """Start commands at the same moment, by name; return name -> (status, message)."""
    go, children = tmp_path / "go", []
    for name, words in racers.items():
        child = os.fork()
        if child == 0:
            while not go.exists():
                time.sleep(0.0005)
            came = command(*words, where=tmp_path)
            (tmp_path / f"came-{name}").write_text(json.dumps([came.status, came.err]))
            os._exit(0)
        children.append(child)
    go.touch()
    for child in children:
        os.waitpid(child, 0)
    return {name: tuple(json.loads((tmp_path / f"came-{name}").read_text())) for name in racers}


def one_wins(tmp_path):
    came = race(tmp_path, {seed: (*SEARCH, "--seed", seed, "--out", "run") for seed in range(3)})
    (winner,) = [seed for seed, (status, _) in came.items() if status == 0]
    for seed, (status, err) in came.items():
        assert seed == winner or (status == 2 and ("Another process" in err or "already there" in err)), came
        assert "Traceback" not in err
    recipe = (tmp_path / "run" / "recipe.toml").read_text()
    assert f"seed = {winner}\n" in recipe
    alone = tmp_path / "alone"
    alone.mkdir()
    assert command(*SEARCH, "--seed", winner, "--out", "run", where=alone).status == 0
    assert outcome(tmp_path / "run") == outcome(alone / "run")


def test_of_three_searches_into_one_folder_one_gets_it(tmp_path):
    one_wins(tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("trial", range(8))
def test_again_and_again(tmp_path, trial):
    one_wins(tmp_path)


@pytest.mark.parametrize("trial", [0, *(pytest.param(i, marks=pytest.mark.faults) for i in range(1, 5))])
def test_of_two_comparisons_in_one_folder_one_begins(tmp_path, trial):
    """The other one is refused, or finds what the first has done and goes on with its own methods."""
    came = race(
        tmp_path,
        {name: [name if word == "darts,random" else word for word in COMPARED] for name in ("darts", "random")},
    )
    assert any(status == 0 for status, _ in came.values()), came
    said = ("Another process", "already there", "was changed by another process")
    for method, (status, err) in came.items():
        assert "Traceback" not in err, err
        assert status == 0 or (status == 2 and any(text in err for text in said)), came
        assert status == 2 or (tmp_path / "all" / f"{method}-digits-seed0" / "manifest.json").exists()
    asked = (tmp_path / "all" / "comparison.toml").read_text()
    assert any(f'methods = ["{method}"]' in asked for method, (status, _) in came.items() if status == 0)


# ---------------------------------------------------------------------- the folder goes while the run is under way


@pytest.mark.parametrize("what", ["deleted", "renamed", pytest.param("a file", marks=pytest.mark.faults)])
def test_the_folder_goes(tmp_path, what):
    child = os.fork()
    if child == 0:
        came = command(*(500 if word == "2" else word for word in SEARCH), "--out", "run", where=tmp_path)
        (tmp_path / "came").write_text(json.dumps([came.status, came.err]))
        os._exit(0)
    run = tmp_path / "run"
    end = time.monotonic() + 60
    while not (run / "checkpoint.pt").exists():
        assert time.monotonic() < end, "no checkpoint comes"
        time.sleep(0.005)
    run.rename(tmp_path / "other")
    if what == "deleted":
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
    if what == "a file":
        run.write_text("mine")
    os.waitpid(child, 0)
    status, err = json.loads((tmp_path / "came").read_text())
    assert status == 2
    assert "Traceback" not in err and "run" in err, err
    assert what != "a file" or run.read_text() == "mine"


# ---------------------------------------------------------------------- signals to real processes


def signalled(tmp_path, number, delay, words=SEARCH):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = "from gapless.commands.entry import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    time.sleep(delay)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, (delay, err)
    return process.returncode, err.strip()


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGINT, 1.0)])
def test_a_signal_while_modules_are_imported(tmp_path, number, delay):
    status, err = signalled(tmp_path, number, delay)
    assert (status, err) == (128 + number, "Interrupted.")
    assert not (tmp_path / "run").exists()


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("part", range(20))
def test_a_signal_at_any_time(whole, tmp_path, number, part):
    delay = random.Random(f"{SEED}-{number}-{part}").uniform(0.3, 7.0)
    status, err = signalled(tmp_path, number, delay)
    if status == 0:
        assert err == ""
    elif status == 128 + number:
        assert err in ("Interrupted.", f"Stopped. Go on with: gapless resume {tmp_path / 'run'}"), (delay, err)
    else:
        pytest.fail(f"after {delay} s: status {status}, {err}")
    assert finished(tmp_path) == outcome(whole[0])
