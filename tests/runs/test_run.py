import json

import lines
import pytest
import torch

from gapless.core.errors import UserError
from gapless.runs import manifest
from gapless.runs.run import Run, machine
from gapless.spaces.darts import Darts
from gapless.testing.examples import noise


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        Run.create(tmp_path)
    with pytest.raises(UserError, match="not empty"):
        Run.create(tmp_path / "x")
    with pytest.raises(UserError, match="no run"):
        Run.open(tmp_path)


def test_what_is_written_reads_back(tmp_path):
    run = Run.create(tmp_path / "a" / "run")
    run.write("recipe.toml", '[space]\nname = "darts"\noptions = "drnas"\n[method]\nname = "drnas"\n')
    with pytest.raises(UserError, match="has not ended"):
        run.found()
    space = Darts(options="drnas", channels=1, size=8)
    arch = space.sample(torch.Generator().manual_seed(0))
    data = noise(space, 4)
    run.write_arch(arch, space, "darts", data, lines.ALONE)
    assert run.images() == {"names": data.classes, "mean": data.mean, "std": data.std}
    assert Run.open(run.path).found() == (arch, space)
    run.append(lines.line(epoch=0))
    run.append(lines.line(epoch=1))
    assert [r["epoch"] for r in run.trace()] == [0, 1]
    weights = {"a": torch.randn(3, 2), "b": torch.tensor(4)}
    run.write_weights(weights)
    assert all(run.weights()[k].equal(v) for k, v in weights.items())
    assert not [p.name for p in run.path.iterdir() if p.name.startswith(".")]


def test_machine_is_plain_json():
    told = json.loads(json.dumps(machine()))
    assert told["torch"] == torch.__version__
    assert told["threads"] == torch.get_num_threads()


def test_a_measurement_that_is_cut_off_spoils_no_finished_run(tmp_path, monkeypatch):
    """Whichever of its writes is the last that happens."""
    run = Run.create(tmp_path / "run")
    run.write("recipe.toml", '[space]\nname = "darts"\n')
    run.write_json("gap.json", {"images": 1})
    run.end()
    for cut in range(4):
        left, write = [cut], Run.write_bytes

        def limited(self, name, content, left=left, write=write):
            if not left[0]:
                raise UserError("cut off")
            left[0] -= 1
            write(self, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "write_bytes", limited)
            if cut < 3:
                with pytest.raises(UserError, match="cut off"):
                    run.write_listed("gap.json", {"images": 10 + cut})
            else:
                run.write_listed("gap.json", {"images": 10 + cut})
        run.check_all()
        assert run.ended and json.loads(run.checked("gap.json").read_text())["images"] in (1, 9 + cut, 10 + cut)
    assert manifest.read(run.path).keys() == {"recipe.toml", "gap.json"}
