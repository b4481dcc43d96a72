"""``gapless gap`` as a user sees it."""

import json

from gapless.commands.app import run

TINY = ["--space.width", "4", "--space.cells", "1", "--data.train_images", "60", "--data.test_images", "20"]


def test_a_run_is_measured_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["search", *TINY, "--epochs", "1", "--train.batch", "16", "--threads", "1", "--out", "run"]) == 0
    capsys.readouterr()
    few = ["--archs", "2", "--images", "10", "--budgets", "1", "2", "--threads", "1"]
    assert run(["gap", "run", *few, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.strip().splitlines()
    told = json.loads(lines[-1])
    assert told == {**json.loads((tmp_path / "run" / "gap.json").read_text()), "page": "run/gap.md"}
    assert lines[0].startswith("supernet: ") and any(line.startswith("architecture 3/3: ") for line in lines)
    assert any(line.strip().startswith("not sound: ") or line.strip().startswith("sound: ") for line in lines)
    assert (tmp_path / "run" / "gap.md").is_file() and (tmp_path / "run" / "gap-chain.svg").is_file()
    assert run(["gap", "run", *few[:4], "--budgets", "0", "--threads", "1"]) == 0
    assert "tuned" not in capsys.readouterr().out


def test_what_is_no_search_is_a_sentence(tmp_path, capsys):
    assert run(["gap", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
