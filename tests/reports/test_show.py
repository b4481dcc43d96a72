"""All figures of a run, from its folder."""

import pytest

from gapless.core.errors import UserError
from gapless.reports.show import draw_run, read, write
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201


def test_a_search(trace, run_of, tmp_path):
    records = trace(Darts(), 3)
    run = run_of(Darts(), records)
    drawn = draw_run(run)
    assert list(drawn.figures) == ["cell", "scores-normal", "scores-reduce", "training"]
    assert str(drawn.arch) == records[-1]["arch"] and drawn.range is None and drawn.notes == ()
    files = write(drawn.figures, tmp_path / "new" / "folder", "png")
    assert {name: path.name for name, path in files.items()} == {name: f"{name}.png" for name in drawn.figures}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files.values())


def test_a_search_under_way_shows_its_present_choice(trace, run_of):
    records = trace(NASBench201(), 3)
    drawn = draw_run(run_of(NASBench201(), records, ended=False))
    assert str(drawn.arch) == records[-1]["arch"]
    assert len(drawn.notes) == 1 and "has not ended: the cell is the choice after epoch 3" in drawn.notes[0]


def test_a_method_that_judges_candidates(trace, run_of):
    """Even scores are not drawn, what was judged is: the first judgement of each, and the best so far."""
    space = NASBench201()
    even = [1 / 5] * 5
    records = [{**record, "scores": [even] * 6} for record in trace(space, 3)]
    run = run_of(space, records)
    archs = [
        {"arch": records[0]["arch"], "images": images, "accuracy": accuracy}
        for images, accuracy in [(64, 20.0), (64, 40.0), (64, 30.0), (500, 90.0)]
    ]
    run.write_listed("judged.json", {"seconds": 1.0, "archs": archs})
    drawn = draw_run(run)
    assert list(drawn.figures) == ["cell", "training", "judged"]
    assert drawn.notes == ("No option of any decision ever scored above another: there are no scores to draw.",)
    judged, best = (line.get_ydata().tolist() for line in drawn.figures["judged"].axes[0].lines[:2])
    assert (judged, best) == ([20.0, 40.0, 30.0], [20.0, 40.0, 40.0])


def test_before_the_first_epoch_there_is_nothing(run_of):
    with pytest.raises(UserError, match="first epoch has not ended"):
        draw_run(run_of(NASBench201(), [], ended=False))


def test_a_network_trained_alone(trace, retrained, run_of, table_file):
    arch = trace(NASBench201(), 1)[0]["arch"]
    run = run_of(NASBench201(), retrained, ended=False, arch=arch)
    assert (str(read(run)[0]), read(run)[2]) == (arch, True)
    drawn = draw_run(run)
    assert list(drawn.figures) == ["cell", "training"] and drawn.notes == ()
    with pytest.raises(UserError, match="trained one architecture"):
        draw_run(run, table=table_file)


def test_range_needs_draws(trace, run_of, table_file):
    records = trace(NASBench201(), 3)
    for record in records:
        del record["draws"]
    drawn = draw_run(run_of(NASBench201(), records), table=table_file)
    assert "range" not in drawn.figures and drawn.range is None
    assert len(drawn.notes) == 1 and "holds no draws" in drawn.notes[0]


def test_range(trace, run_of, table_file):
    drawn = draw_run(run_of(NASBench201(), trace(NASBench201(), 3)), table=table_file, column="cifar100_valid_200")
    assert "range" in drawn.figures
    assert drawn.range["column"] == "cifar100_valid_200" and drawn.range["epoch"] == 3
    assert drawn.range["min"] <= drawn.range["median"] <= drawn.range["max"] <= drawn.range["optimum"]


def test_a_folder_that_cannot_be_written(trace, run_of, tmp_path):
    drawn = draw_run(run_of(NASBench201(), trace(NASBench201(), 2)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(drawn.figures, tmp_path / "file", "svg")
