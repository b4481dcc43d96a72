"""The written Python file: run where there is no Gapless, it is the network, bit for bit; and it is tidy."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gapless.core import catalogue
from gapless.core.cost import Undrawn, count_params
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.network import ChosenEdge
from gapless.core.progress import seeded, stream
from gapless.formats import program
from gapless.formats.layout import Call, Named, lay_out, listing, literal
from gapless.formats.model import Model
from gapless.formats.python import Writer, module_of, write
from gapless.spaces.darts import Darts
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet
from gapless.testing.examples import Ragged, patched

CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
SMALL = NASBench201(size=8, width=4, cells=1)
DARTS = Darts(size=8, width=4, cells=3, affine=True, pool_norm="none", auxiliary=True, drop_path=True)
SHUFFLE = ShuffleNet(
    size=9, stem_width=4, widths=(8, 12, 20), repeats=(2, 1, 1), strides=(1, 2, 2, 1), head_width=8, eps=1e-2
)
SHUFFLE = SHUFFLE.replace(affine=True, dropout=0.0)
MOBILE = Mobile(size=9, variant="proxyless", width=0.1, layers=(2, 1, 1, 1, 1, 1), strides=(1, 2, 1, 2, 1, 1, 1))
USER = '''
"""A space as somebody else writes it: nothing in it was written for an export."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from gapless.core.cell import Cell, CellSpec, Edge
from gapless.core.decision import Decision
from gapless.core.op import Conv, Norm, NormRule, Op, Relu
from gapless.core.space import Space

POOLED = (1, 1)
OPS = {"max": Op((Relu(), Conv(3), Norm())), "1x1": Op((Conv(1), Norm())), "max#2": Op((Relu(), Conv(3), Norm()))}
CELL = Cell(1, (Edge(0, 1, "a"), Edge(0, 2, "b"), Edge(1, 2, "c")), (1, 2))


def pooled(x, size):
    return F.adaptive_avg_pool2d(x, size).flatten(1)


class Shift(nn.Module):
    def forward(self, x):
        return x + 0.5


class Stage(nn.Module):
    def __init__(self, body, width):
        super().__init__()
        self.body = body
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        return self.project(self.body(x))

    def never_called(self):
        return self.other


class Net(nn.Module):
    """Stem, stages, classifier."""

    def __init__(self, stages, channels, width, classes):
        super().__init__()
        self.scale = 2 * width
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), Shift())
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(pooled(self.stages(self.stem(x)), POOLED)) / self.scale


@dataclass(frozen=True, kw_only=True)
class Mine(Space):
    """Two stages.

    Parameters
    ----------
    width
        Channels.
    """

    label = "mine"
    source = "me"
    size: int = 6
    width: int = 4

    @property
    def decisions(self):
        return tuple(Decision(name, tuple(OPS)) for name in "abc")

    def build(self, choose):
        norm = NormRule(eps=1e-3, momentum=0.2)
        stages = [Stage(choose.cell(CellSpec(CELL, OPS, self.width, norm)), self.width) for _ in range(2)]
        return Net(stages, self.channels, self.width, self.classes)


SPACE = Mine
'''
CHECK = """
import json, sys
from pathlib import Path

sys.modules["gapless"] = None
try:
    import gapless
except ImportError:
    pass
else:
    sys.exit("gapless can be imported")
import importlib.util
import torch
from torch.nn.functional import cross_entropy

torch.set_num_threads(1)
found = {}
for number, folder in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    for name in [n for n in sys.modules if n.partition(".")[0] == "safetensors"]:
        del sys.modules[name]
    if number % 2:
        sys.modules["safetensors"] = None
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    told = model.read_safetensors(folder / "expected.safetensors")
    network = model.load()
    torch.manual_seed(7)  # for noise
    with torch.no_grad():
        logits = network(told["images"])
    equal = {"logits": torch.equal(logits, told["logits"]), "training": network.training}
    network.train()
    torch.manual_seed(8)
    cross_entropy(network(told["images"]), told["labels"]).backward()
    with torch.no_grad():  # a step of SGD
        for p in network.parameters():
            if p.grad is not None:
                p.add_(p.grad, alpha=-0.1)
    after = network.state_dict()
    wanted = {n.removeprefix("after."): t for n, t in told.items() if n.startswith("after.")}
    equal["names"] = set(after) == set(wanted)
    equal["moved"] = [n for n in wanted if n in after and not torch.equal(after[n], wanted[n])]
    equal["params"] = sum(p.numel() for p in network.parameters())
    equal["constants"] = [model.CLASSES, model.CHANNELS, model.SIZE, list(model.MEAN), list(model.STD)]
    if (folder / "model.pt2").exists():
        torch.manual_seed(7)
        with torch.no_grad():
            equal["pt2"] = torch.equal(torch.export.load(folder / "model.pt2").module()(told["images"]), told["logits"])
    found[folder.name] = equal
print(json.dumps(found))
"""
IMAGES = {"mean": (0.25, 0.5, 0.125), "std": (0.5, 0.25, 2.0)}


def model_of(space, arch, **told):
    """Return a model whose statistics and scales are not those of a fresh network."""
    size = space.deployed()
    with seeded("a model"):
        network = size.network(arch)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.data.uniform_(0.5, 2)
                    module.bias.data.normal_()
    return Model(arch=arch, space=size, network=network.eval(), weights="trained", origin="a test", **told)


def every_edge(space):
    """Return the architecture that keeps all edges, each with another operation."""
    options = [o for o in space.decisions[0].options if o != "none"]
    return space.read(",".join(f"{d.name}={options[i % len(options)]}" for i, d in enumerate(space.decisions)))


def genotype(normal, reduce):
    """Return a genotype whose nodes all have the two given operations on their inputs."""
    cells = [[(option, source) for _ in range(4) for source, option in enumerate(pair)] for pair in (normal, reduce)]
    return f"Genotype(normal={cells[0]}, normal_concat=range(2, 6), reduce={cells[1]}, reduce_concat=range(2, 6))"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "mine.py"
    path.write_text(USER, encoding="utf-8")
    return catalogue.find(str(path), "spaces")()


@pytest.fixture(scope="module")
def models(mine):
    return dict(built(mine, lambda name: name not in MORE))


@pytest.fixture(scope="module")
def more_models(mine):
    return dict(built(mine, MORE.__contains__))


def built(mine, wanted):
    drnas = Darts(size=7, width=4, cells=3, options="drnas", partial=2)
    skips = Darts(size=8, width=4, cells=3, options="3-skip", affine=True)
    known = skips.read(genotype(("skip_connect", "sep_conv_3x3"), ("skip_connect", "dil_conv_5x5")))
    wide = Darts(size=33, width=4, cells=3, stem="imagenet", classes=5, affine=True)
    every = Darts(size=8, width=4, cells=3, inputs=None, channels=1, classes=3, pool_norm="affine")
    noisy = Darts(size=7, width=4, cells=3, options="s4", affine=True)
    spaces = {
        "nasbench201": (SMALL.replace(affine=True), CELL),
        "all-none": (SMALL, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        "all-skip": (
            SMALL,
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
        ),
        "dead-end": (SMALL, "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"),
        "only-nothing-arrives": (SMALL, "|none~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"),
        "partial": (SMALL.replace(size=7, width=8, partial=4), CELL),
        "partial-none": (SMALL.replace(partial=2), "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
        "DARTS_V2": (DARTS, "DARTS_V2"),
        "DARTS_V1-odd": (DARTS.replace(size=9), "DARTS_V1"),
        "drnas-partial": (drnas, "DrNAS_cifar10"),
        "skip#2": (skips, Arch({n: f"{o}#2" if o == "skip_connect" and n[0] == "r" else o for n, o in known.items()})),
        "imagenet-stem": (wide, "PC_DARTS_image"),
        "every-edge": (every, every_edge(every)),
        "one-cell": (DARTS.replace(cells=1), "DARTS_V2"),
        "noise": (noisy, noisy.read(genotype(("noise", "sep_conv_3x3"), ("noise", "sep_conv_3x3")))),
        "noise-partial": (noisy.replace(partial=2), noisy.sample(stream(3))),
        "shufflenet": (SHUFFLE, "[2, 0, 3, 3]"),
        "mobile": (MOBILE, "[(3, 7), skip, (6, 5), (6, 3), (3, 3), (3, 5), (6, 7)]"),
        "ragged": (Ragged(), Ragged().sample(stream(1))),
        "ragged-partial": (Ragged(size=7, partial=2, affine=True), Ragged().sample(stream(2))),
        "of-a-user": (mine, "a=max,b=1x1,c=max#2"),
    }
    for name, (space, arch) in spaces.items():
        if wanted(name):
            arch = space.read(arch) if isinstance(arch, str) else arch
            told = IMAGES if space.channels == 3 else {}
            yield name, model_of(space, arch, **told)


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    return written(models, tmp_path_factory)


def written(models, tmp_path_factory):
    """Write models, with what each must give; return the folder of folders."""
    top = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        path = top / name
        path.mkdir()
        write(model, path)
        images = torch.randn(4, model.space.channels, model.space.size, model.space.size, generator=stream("test"))
        labels = torch.arange(4) % model.space.classes
        torch.manual_seed(7)
        with torch.no_grad():
            logits = model.network(images)
        twin = model.space.network(model.arch)
        twin.load_state_dict(model.network.state_dict())
        for edge in twin.modules():
            if isinstance(edge, ChosenEdge):  # at rate 0 drop path multiplies by 1, and so alters how gradients lie
                edge.drops = ()
        optimiser = torch.optim.SGD(twin.train().parameters(), lr=0.1)
        torch.manual_seed(8)
        nn.functional.cross_entropy(twin(images), labels).backward()
        optimiser.step()
        writer = Writer(model)
        writer.text()
        after = {f"after.{writer.names[n]}": t for n, t in twin.state_dict().items()}
        save_file({"images": images, "labels": labels, "logits": logits, **after}, path / "expected.safetensors")
    if "noise" in models:
        program.write(models["noise"], top / "noise")
    return top


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    return checked(folder, tmp_path_factory)


@pytest.fixture(scope="module")
def more_found(more_models, tmp_path_factory):
    return checked(written(more_models, tmp_path_factory), tmp_path_factory)


def checked(folder, tmp_path_factory):
    """What a process that cannot import Gapless finds of all models."""
    script = tmp_path_factory.mktemp("check") / "check.py"
    script.write_text(CHECK, encoding="utf-8")
    command = [sys.executable, "-I", str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MORE = {"all-none", "all-skip", "only-nothing-arrives", "partial-none", "drnas-partial", "every-edge", "one-cell"}
MORE |= {"noise-partial", "ragged"}
"""Models of the tier ``full``."""
NAMES = [
    "nasbench201",
    "all-none",
    "all-skip",
    "dead-end",
    "only-nothing-arrives",
    "partial",
    "partial-none",
    "DARTS_V2",
    "DARTS_V1-odd",
    "drnas-partial",
    "skip#2",
    "imagenet-stem",
    "every-edge",
    "one-cell",
    "noise",
    "noise-partial",
    "shufflenet",
    "mobile",
    "ragged",
    "ragged-partial",
    "of-a-user",
]


@pytest.mark.parametrize("name", [n for n in NAMES if n not in MORE])
def test_without_gapless_the_file_is_the_network(found, models, name):
    model, told = models[name], found[name]
    assert told["logits"], "logits in evaluation differ"
    assert not told["training"]
    assert told["names"]
    assert told["moved"] == [], "a training step moves these otherwise"
    assert told["params"] == count_params(model.network)
    mean, std = model.mean or [0.0], model.std or [1.0]
    assert told["constants"] == [model.space.classes, model.space.channels, model.space.size, list(mean), list(std)]


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(MORE))
def test_without_gapless_further_files_are_the_network(more_found, more_models, name):
    test_without_gapless_the_file_is_the_network(more_found, more_models, name)


def test_a_program_draws_the_noise_of_the_network(found):
    assert found["noise"]["pt2"]


def test_files_are_tidy(folder):
    tidy([str(folder / name / "model.py") for name in NAMES if name not in MORE | {"of-a-user"}])
    assert_runs("check", str(folder / "of-a-user" / "model.py"))


@pytest.mark.full
def test_further_files_are_tidy(more_models, tmp_path_factory):
    top = written(more_models, tmp_path_factory)
    tidy([str(top / name / "model.py") for name in MORE])


COMMON = ["--isolated", "--no-cache", "--line-length", "120", "--target-version", "py311"]


def assert_runs(command, *words):
    """Run ruff by the rules of this project."""
    pytest.importorskip("ruff", reason="ruff is not installed")
    words = [sys.executable, "-m", "ruff", command, *COMMON, *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tidy(files):
    rules = ["E", "F", "W", "I", "UP", "B", "C4", "SIM", "RET", "D1", "PT", "RUF"]
    ignore = ["D105", "D107", "RUF001", "RUF002", "RUF003", "RUF012", "RUF022", "SIM108"]
    assert_runs("check", "--select", ",".join(rules), "--ignore", ",".join(ignore), *files)
    assert_runs("format", "--check", *files)


def test_imports_are_of_torch_and_the_standard_library(folder):
    for path in folder.glob("*/model.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                package = line.split()[1].partition(".")[0]
                assert package == "torch" or package in sys.stdlib_module_names, f"{path}: {line}"


def test_a_file_says_what_it_is(folder, models):
    text = (folder / "nasbench201" / "model.py").read_text()
    assert CELL in text
    assert f"{count_params(models['nasbench201'].network):,} parameters" in text
    assert "without restriction" in text
    assert "MEAN = (0.25, 0.5, 0.125)" in text
    assert "self.nor_conv_3x3_1_0(s0)" in text
    assert "auxiliary" not in (folder / "DARTS_V2" / "model.py").read_text()
    assert "drop" not in (folder / "DARTS_V2" / "model.py").read_text()
    assert "torch.cat([s2, s3, s4, s5], 1)" in (folder / "DARTS_V2" / "model.py").read_text()
    text = (folder / "shufflenet" / "model.py").read_text()
    assert "ShuffleBlock(inputs=4, channels=8, kernel=7, stride=2, eps=0.01)," in text
    assert "XceptionBlock(inputs=12, channels=20, eps=0.01)," in text
    text = (folder / "mobile" / "model.py").read_text()
    assert "InvertedResidual(inputs=8, channels=8, kernel=7, expansion=3, stride=2, eps=0.001)," in text
    assert "nn.Identity()," in text
    assert "gapless" not in text.partition('"""\n\n')[2]
    assert "never_called" not in (folder / "of-a-user" / "model.py").read_text()


def test_untrained_weights_are_said_so_loudly(tmp_path):
    arch = SMALL.read(CELL)
    fresh = Model(arch=arch, space=SMALL, network=SMALL.network(arch).eval(), weights="fresh", origin="a test")
    write(fresh, tmp_path)
    assert "UNTRAINED" in module_of(tmp_path / "model.py").__doc__
    assert "# not known" in (tmp_path / "model.py").read_text()


def test_a_text_with_quotes_and_backslashes_stays_a_text(tmp_path):
    model = model_of(SMALL, SMALL.read(CELL), names=('a"b', "c'd", "e\\f", '"""', "ü", "\n", "'\"", *"xyz"))
    write(model, tmp_path)
    assert model.names == module_of(tmp_path / "model.py").NAMES


# ---------------------------------------------------------------------- what cannot be written


def test_a_patched_model_is_refused_in_words(tmp_path):
    space = patched()
    arch = space.sample(stream(0))
    model = Model(arch=arch, space=space, network=space.network(arch).eval(), weights="fresh", origin="a test")
    with pytest.raises(UserError, match="patched model.*Try the `format` onnx or torch"):
        write(model, tmp_path)
    assert program.write(model, tmp_path) == {"difference": 0.0}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("self.scale = 2 * width", "self.scale = print", "Net keeps the attribute 'scale'"),
        ("self.scale = 2 * width", "self.scale = nn.Parameter(self_ones(1))", "Net holds parameters"),
        ("/ self.scale", "/ len(safetensors.__name__)", "needs the package safetensors"),
        ("nn.Linear(width, classes)", "self.stages[0].project", "one and the same parameter"),
    ],
)
def test_what_cannot_stand_alone_is_told_with_what_works(tmp_path, before, after, said):
    assert before in USER
    text = USER.replace(before, after).replace("from torch import nn", "import safetensors\nfrom torch import nn", 1)
    path = tmp_path / "mine.py"
    path.write_text(text.replace("self_ones", "__import__('torch').ones"), encoding="utf-8")
    space = catalogue.find(str(path), "spaces")()
    arch = space.read("a=max,b=1x1,c=max")
    with Undrawn():
        network = space.network(arch).eval()
    model = Model(arch=arch, space=space, network=network, weights="fresh", origin="a test")
    with pytest.raises(UserError, match=said) as error:
        Writer(model, spell_out=True).text()
    model.__dict__["facts"] = {}
    with pytest.raises(UserError, match=said) as error:
        write(model, tmp_path)
    assert "The `format` onnx and torch have no such limits" in str(error.value)


# ---------------------------------------------------------------------- the lines of an expression


def test_lines_break_where_ruff_breaks_them():
    inner = Call("nn.Conv2d", (("", "64"), ("", "64"), ("padding", "1")))
    assert lay_out("return ", Call("f", (("", inner), ("b", "2"))), indent=4) == [
        "    return f(nn.Conv2d(64, 64, padding=1), b=2)"
    ]
    one = lay_out("x = ", Call("f", (("", "a" * 60), ("", "b" * 53))))
    assert one == ["x = f(", f"    {'a' * 60}, {'b' * 53}", ")"]
    two = lay_out("x = ", Call("f", (("", "a" * 60), ("", "b" * 60))))
    assert two == ["x = f(", f"    {'a' * 60},", f"    {'b' * 60},", ")"]
    three = lay_out("x = ", Call("f", (("", listing(["a" * 60, "b" * 60])),)))
    assert three == ["x = f(", "    [", f"        {'a' * 60},", f"        {'b' * 60},", "    ]", ")"]
    assert lay_out("x = ", listing(["1"], "()")) == ["x = (1,)"]


def test_a_named_number_is_written_as_its_name():
    channels = Named(12, "channels")
    assert literal(channels) == "channels"
    assert literal(channels // 4) == "channels // 4"
    assert channels // 4 == 3
    with Undrawn():
        layer = nn.Conv2d(channels, channels, 3, groups=channels)
    assert literal(layer.groups) == "channels"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1}, torch.ones(1)])
def test_what_has_no_literal_is_refused(value):
    with pytest.raises(UserError):
        literal(value)
