"""What is printed while a search runs."""

from types import SimpleNamespace

import pytest

from gapless.commands.watch import Watch, WatchSearch
from gapless.engine.record import SearchRecord
from gapless.kernels import announce
from gapless.kernels.announce import Compilation
from gapless.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
NOTHING = "1<-0=skip_connect,2<-0=skip_connect,2<-1=none,3<-0=skip_connect,3<-1=none,3<-2=none"


def record(epoch: int) -> SearchRecord:
    scores = [[0.1, 0.3 + 0.01 * epoch, 0.2, 0.2, 0.2]] * 6
    told = dict.fromkeys(SearchRecord.__dataclass_fields__)
    return SearchRecord(
        **{
            **told,
            "epoch": epoch,
            "train_loss": 2.0,
            "train_accuracy": 10.0,
            "arch": NOTHING,
            "scores": scores,
            "arch_loss": 2.0,
            "images_per_second": 1.0,
        }
    )


@pytest.mark.parametrize("before", [0, 2])
def test_a_warning_is_printed_once_and_knows_what_was_before(capsys, before):
    """A search that goes on has epochs of its trace behind it."""
    watch = WatchSearch()
    run = SimpleNamespace(trace=lambda: (record(epoch).line() for epoch in range(before)))
    resolved = SimpleNamespace(
        space=SPACE, recipe=SimpleNamespace(space={"name": "nasbench201"}, method={"name": "darts"})
    )
    watch.on_start(resolved, run, "")
    for epoch in range(before, 6):
        watch.on_record(record(epoch))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert lines == [
        "Warning after epoch 3: The present choice has had no operation with weights for three epochs: it hardly computes anything."
    ]


def test_a_compilation_is_announced_where_a_command_prints(capsys):
    with Watch():
        for done in range(41):
            announce.report(Compilation(done, 40, 23.2))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "Compiling the CPU kernels for this processor, once; about 23 s.",
        *(f"compiled {done} of 40 functions" for done in (10, 20, 30, 40)),
    ]
    assert err == ""
    announce.report(Compilation(0, 40, 23.2))  # a command that has ended prints no more
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Compiling")


def test_a_compilation_has_a_bar_on_a_terminal(monkeypatch):
    watch = Watch()
    watch.live, watch.bar.disable = True, True
    with watch:
        announce.report(Compilation(0, 2, 23.2))
        (task,) = watch.bar.tasks
        announce.report(Compilation(1, 2, 23.2))
        assert (task.completed, task.total) == (1, 2)
        announce.report(Compilation(2, 2, 23.2))
        assert watch.bar.tasks == []
