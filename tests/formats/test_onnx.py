"""The ONNX file: parity in onnxruntime, what stands in it, and silence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.progress import seeded, stream
from gapless.formats import onnx as onnx_format
from gapless.formats import program
from gapless.formats.model import Model
from gapless.spaces.darts import Darts
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet
from gapless.studies.export import write

CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
SPACES = {
    "nasbench201-partial": (NASBench201(size=7, width=4, cells=1, partial=2), CELL),
    "darts": (Darts(size=8, width=4, cells=2, affine=True), "DARTS_V2"),
    "shufflenet": (
        ShuffleNet(size=9, stem_width=4, widths=(8, 12), repeats=(2, 2), strides=(2, 1, 2), head_width=8).deployed(),
        "[2, 3, 1, 3]",
    ),
    "mobile": (
        Mobile(size=9, variant="proxyless", width=0.1, layers=(2, 1, 1, 1, 1, 1)),
        "[(3, 7), skip, (6, 5), (6, 3), (3, 3), (3, 5), (6, 7)]",
    ),
}


def model_of(space, text, **told):
    arch = space.read(text)
    with seeded("onnx"):
        network = space.network(arch).eval()
    return Model(arch=arch, space=space, network=network, weights="trained", origin="a test", **told)


TOLD = {"mean": (0.5, 0.25, 0.125), "std": (1.0, 2.0, 4.0), "names": tuple("abcdefghij")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and the folder that it is exported to in all formats: an ONNX file takes seconds."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model, folder = model_of(*SPACES["nasbench201-partial"], **TOLD), tmp_path_factory.mktemp("exported") / "out"
    write(model, ("py", "onnx", "torch"), folder)
    return model, folder


def test_noise_is_refused_in_words(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    space = Darts(size=8, width=4, cells=2, affine=True, options="s4")
    arch = Arch({d.name: "noise" for d in space.decisions if int(d.name[-1]) < 2})
    with pytest.raises(UserError, match="holds noise.*Try the `format` torch or py"):
        onnx_format.write(model_of(space, str(arch)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_logits_are_those_of_the_network_at_any_batch(exported):
    compare(*exported)


@pytest.mark.full
@pytest.mark.parametrize("name", SPACES)
def test_logits_of_further_spaces(name, tmp_path, capfd):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model = model_of(*SPACES[name], **TOLD)
    found = onnx_format.write(model, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert 0 <= found["difference"] < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    compare(model, tmp_path)


def compare(model, folder):
    """Compare the file in a folder with the network."""
    import onnx
    import onnxruntime as runtime

    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["images"]
    assert [o.name for o in session.get_outputs()] == ["logits"]
    images = torch.randn(5, 3, model.space.size, model.space.size)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model.network(images), rtol=1e-4, atol=1e-5)
    told = {p.key: p.value for p in onnx.load(folder / "model.onnx").metadata_props}
    assert json.loads(told["mean"]) == [0.5, 0.25, 0.125]
    assert json.loads(told["std"]) == [1.0, 2.0, 4.0]
    assert json.loads(told["names"]) == list("abcdefghij")
    assert (json.loads(told["classes"]), json.loads(told["size"])) == (10, model.space.size)
    assert told["notation"] == model.space.write(model.arch)
    last = next(m for m in model.network.modules() if isinstance(m, nn.Linear)).weight.detach()
    last.mul_(2.0)
    with pytest.raises(UserError, match="gives other logits"):
        onnx_format.difference(model, folder / "model.onnx", runtime)
    last.div_(2.0)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*pip install 'gapless\[onnx\]'"):
        onnx_format.write(model_of(*SPACES["darts"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


class Awkward(nn.Module):
    """A network whose course depends on what it sees."""

    def forward(self, x):
        return x.flatten(1)[:, :10] if x.sum() > 0 else x.flatten(1)[:, 10:20]


def test_a_network_that_cannot_be_traced_is_answered_in_words(tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = model_of(*SPACES["darts"])
    model = Model(arch=model.arch, space=model.space, network=Awkward(), weights="trained", origin="a test")
    with pytest.raises(UserError, match="cannot export this network"):
        program.write(model, tmp_path)
    with pytest.raises(UserError, match="cannot export this network to ONNX"):
        onnx_format.write(model, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_the_documented_examples_run(exported):
    """All three of docs/export.md, on one photo: they agree."""
    model, folder = exported
    size = model.space.size
    pixels = torch.randint(256, (size, size, 3), generator=stream("photo"), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save(folder / "photo.png")
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 3
    code = "import sys\nfor example in sys.argv[1:]: exec(example, {'__name__': '__main__'}); print('|')"
    command = [sys.executable, "-c", code, *examples]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    said = [[float(word) for word in part.split()] for part in done.stdout.split("|")[:-1]]
    assert len(said) == 3
    assert {best for best, _ in said} == {said[0][0]}
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - torch.tensor(model.mean).view(1, -1, 1, 1)
    with torch.no_grad():
        shares = model.network(images / torch.tensor(model.std).view(1, -1, 1, 1)).softmax(dim=1)
    for best, share in said:
        assert best == int(shares.argmax())
        assert share == pytest.approx(float(shares.max()), rel=1e-5)
