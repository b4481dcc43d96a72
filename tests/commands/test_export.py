"""``gapless export`` as a user sees it."""

import json

import pytest

from gapless.formats.python import module_of

CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
SMALL = ["--space.width", "4", "--space.cells", "1", "--space.size", "8"]


@pytest.mark.parametrize("formats", [["--format", "py,torch"], ["--format", "py", "--format", "torch"]])
def test_it_writes_and_says_what_it_wrote(gapless, tmp_path, formats, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    status, out, err = gapless("export", CELL, *formats, *SMALL, "--out", "out", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out.splitlines()[-1])
    assert out.startswith("UNTRAINED")
    assert f"{told['params']:,} parameters" in out
    assert "torch: the same logits, bit for bit" in out
    assert sum(p.numel() for p in module_of(tmp_path / "out" / "model.py").load().parameters()) == told["params"]
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {*told["files"], "model.json"}, "also where Python caches what it imports"


def test_options_follow_the_space_of_the_architecture(gapless):
    status, out, _ = gapless("export", "DARTS_V2", "--help")
    assert status == 0
    assert "--space.auxiliary" in out
    assert "--inherit" in out


def test_wrong_input_is_answered_and_nothing_written(gapless, tmp_path):
    for arguments, said in (
        ((CELL, "--format", "onxx"), "Did you mean 'onnx'"),
        ((CELL, "--inherit"), "give its run folder"),
        (("rubbish",), "no run folder"),
        ((CELL, "--space.widht", "4"), "--space.width"),
    ):
        status, out, err = gapless("export", *arguments)
        assert (status, out) == (2, "")
        assert said in err
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
