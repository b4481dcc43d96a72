"""Every command on bad input: done or refused in a sentence, within 20 seconds, and no file of the user's is changed.

``GAPLESS_SEED`` chooses the inputs. ``GAPLESS_FUZZ=BATCH.NUMBER`` tries a single one of them, as a failure names it.
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback

import pytest
import torch
from faulty import SEARCH, command
from inputs import drawn, fresh, state

from gapless.commands import app

SEED = os.environ.get("GAPLESS_SEED", "0")
ONE = os.environ.get("GAPLESS_FUZZ", "")
BATCHES, SIZE, SECONDS, ROOM = 54, 50, 20, 10 * 2**30
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a finished search whose gap was measured."""
    where = tmp_path_factory.mktemp("template")
    assert command(*SEARCH, "--out", "run", where=where).status == 0
    words = ("gap", "run", "--archs", "2", "--images", "8", "--budgets", "1", "--threads", "1")
    assert command(*words, where=where).status == 0
    return where


def tried(cases, template, where, report):
    """Try cases one after the other in this process, and write a line of each."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    torch.set_num_threads(1)
    for number, case in cases:
        here = where / str(number)
        here.mkdir()
        os.chdir(here)
        fresh(template, here)
        case.prepare(here)
        before = state(here)
        print(json.dumps({"begun": number}), file=report, flush=True)
        with open(where / f"{number}.out", "w+", errors="backslashreplace") as out, open(where / f"{number}.err", "w+", errors="backslashreplace") as err:  # fmt: skip
            sys.stdout, sys.stderr = out, err
            began, status = time.monotonic(), 99
            signal.alarm(2 * SECONDS)
            try:
                status = app.run(list(case.words))
            except SystemExit as left:
                status = left.code
            except BaseException:
                traceback.print_exc()
            signal.alarm(0)
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            seconds = time.monotonic() - began
            err.seek(0)
            said = err.read()
        after = state(here)
        line = {
            "number": number, "status": status, "seconds": seconds, "err": said[-3000:], "lines": len(said.strip().splitlines()),
            "changed": [key for key in before if after.get(key) != before[key]], "new": [key for key in after if key not in before],
        }  # fmt: skip
        print(json.dumps(line), file=report, flush=True)


def bad(line):
    """Return what is wrong with the end of a command; "" where nothing is."""
    if line["status"] not in (0, 2):
        return f"status {line['status']}: {line['err'][-1500:]}"
    if "Traceback" in line["err"]:
        return f"traceback: {line['err'][-1500:]}"
    if line["seconds"] > SECONDS and "new" not in line["new"]:  # what had begun may take long
        return f"{line['seconds']:.0f} s"
    failed = "did not come to their end" in line["err"]  # of runs that a comparison had begun
    if line["status"] == 2 and (line["changed"] or line["new"]) and not failed:
        return f"refused, and changed {line['changed']}, left {line['new']}: {line['err'][-500:]}"
    if line["status"] == 2 and not 1 <= line["lines"] <= 4:
        return f"{line['lines']} lines: {line['err'][-1500:]}"
    return ""


def fuzz(batch, template, tmp_path, size=SIZE):
    """Return number -> (kind, words, what is wrong) of the cases of a batch that were answered badly."""
    cases = dict(enumerate(drawn(f"{SEED}-{batch}", size, template)))
    if ONE:
        cases = {int(ONE.rpartition(".")[2]): cases[int(ONE.rpartition(".")[2])]}
    left, path, wrong = list(cases.items()), tmp_path / "report", {}
    while left:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException), path.open("w") as report:
                tried(left, template, tmp_path, report)
                os._exit(0)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        wrong |= {line["number"]: why for line in lines if "status" in line and (why := bad(line))}
        if code == 0:
            break
        last = lines[-1].get("begun", lines[-1].get("number"))
        if (
            code != -signal.SIGALRM or not (tmp_path / str(last) / "new").exists()
        ):  # a long run that had begun hangs not
            wrong[last] = f"the process died or hung: {code}"
        left = [(number, case) for number, case in left if number > last]
    return {number: (cases[number].kind, [w[:200] for w in cases[number].words], why) for number, why in wrong.items()}


def check(batch, template, tmp_path, size=SIZE):
    wrong = fuzz(batch, template, tmp_path, size)
    assert not wrong, "\n".join(
        f"{batch}.{number}: {kind} {words!r}\n    {why}" for number, (kind, words, why) in wrong.items()
    )


def test_a_few(template, tmp_path):
    check("few", template, tmp_path, 25)


@pytest.mark.fuzz
@pytest.mark.parametrize("batch", range(BATCHES))
def test_many(template, tmp_path, batch):
    if ONE and ONE.rpartition(".")[0] != str(batch):
        pytest.skip("another batch")
    check(batch, template, tmp_path)
