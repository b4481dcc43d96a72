"""What a run keeps of a read-out that judges candidates."""

import json

from scored import searched

from gapless.studies.results import SearchResult


def test_a_run_keeps_what_its_read_out_judged(tmp_path):
    run = searched(tmp_path / "run", "rsps", archs=6, images=20, finalists=2)
    told = json.loads((run.path / "judged.json").read_text())
    assert [entry["images"] for entry in told["archs"]] == [20] * 6 + [150] * 2
    arch, _ = run.found()
    finals = {entry["arch"]: entry["accuracy"] for entry in told["archs"][6:]}
    assert finals[str(arch)] == max(finals.values())
    found = SearchResult.read(run)
    assert found.judged["archs"] == len({entry["arch"] for entry in told["archs"]})
    assert (found.judged["accuracy"], found.judged["images"]) == (finals[str(arch)], 150)
    assert found.seconds > sum(record["seconds"] for record in run.trace())
    assert found.summary()["judged"] == found.judged


def test_other_runs_keep_nothing(supernet):
    assert not (supernet.path / "judged.json").exists()
    assert SearchResult.read(supernet).judged is None
    assert "judged" not in SearchResult.read(supernet).summary()
