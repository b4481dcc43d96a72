"""The space of 64 networks: its names, and the released code of arXiv 2001.01431 in float64, to 1e-9 of the largest
entry."""

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from compare import LAW, agree, check_statistics, digest, golden
from rule import fill, images, kind_of, train_labels

from gapless.core.cost import Undrawn
from gapless.core.errors import UserError
from gapless.core.mix import Mix
from gapless.engine.supernet import Supernet
from gapless.spaces.insights64 import Insights64

RECORD = golden("insights64")
S = RECORD["settings"]
SPACE = Insights64(width=S["width"], cells=S["cells"], size=S["image_size"], momentum=S["momentum"])
EXECUTIONS = pytest.mark.parametrize("execution", ["reference", "fused"])


def our_name(official):
    """Translate the name of a parameter, or of a normalisation."""
    name = official.replace("linear", "classifier").replace("preproc.net", "point")
    found = re.fullmatch(r"cells\.(\d+)\.dag\.(\d)\.(\d)\._ops\.(\d)\.(.*)", name)
    if found is None:
        return name
    cell, node, source, option, rest = found.groups()
    if rest.startswith("bn"):  # behind a pool
        rest = "1" + rest.removeprefix("bn")
    else:
        half, layer, tail = re.fullmatch(r"net\.(?:(\d)\.net\.)?(\d)(.*)", rest).groups()
        rest = f"{4 * int(half or 0) + int(layer)}{tail}"
    return f"cells.{cell}.body.edges.{int(node) + 1}<-{source}.{SPACE.options[int(option)]}.{rest}"


@cache
def run(execution):
    """Return (logits, loss, gradients, buffers, logits of the path) of the recorded passes."""
    supernet = Supernet(SPACE, execution).double()
    weights = dict(supernet.network.named_parameters())
    with torch.no_grad():
        for ordinal, official, shape, _ in RECORD["weights"]["rows"]:
            weights[our_name(official)].copy_(fill(ordinal, shape, kind_of(official, shape)))
    mix = Mix(torch.tensor(S["mix"], dtype=torch.float64))
    logits = supernet.train()(images(S["image_ordinal"], S["batch"], S["image_size"]), mix)
    loss = F.cross_entropy(logits, train_labels(S["batch"]))
    loss.backward()
    path = SPACE.one_hot(SPACE.parse(S["path"]), dtype=torch.float64)
    with torch.no_grad():
        evaluated = supernet.eval()(images(S["evaluated_ordinal"], S["batch"], S["image_size"]), path)
    gradients = {name: p.grad for name, p in weights.items()}
    return logits.detach(), loss.detach(), gradients, dict(supernet.network.named_buffers()), evaluated


def test_the_weights_are_the_official_ones():
    """None is missing on either side."""
    with Undrawn():
        ours = {name: list(p.shape) for name, p in Supernet(SPACE).network.named_parameters()}
    assert {our_name(name): shape for _, name, shape, _ in RECORD["weights"]["rows"]} == ours


@EXECUTIONS
def test_a_soft_pass(execution):
    logits, loss, gradients, buffers, _ = run(execution)
    agree(logits, RECORD["logits"], "logits")
    agree(loss, RECORD["loss"], "loss")
    largest = max(float(g.norm()) for g in gradients.values())
    for _, name, _, told in RECORD["weights"]["rows"]:
        if told is None:
            assert float(gradients[our_name(name)].norm()) <= LAW * largest, name
        else:
            agree(digest(gradients[our_name(name)]), told, f"gradient of {name}")
    check_statistics(buffers, RECORD["buffers"]["rows"], our_name)


@EXECUTIONS
def test_a_path_by_running_statistics(execution):
    agree(run(execution)[-1], RECORD["evaluated"], "logits")


def test_64_networks_in_the_order_of_the_published_table():
    every = SPACE.every()
    assert len(set(every)) == 64
    assert [SPACE.write(arch) for arch in (every[0], every[1], every[-1])] == ["111", "112", "444"]
    assert dict(SPACE.parse("214")) == {"1<-0": "sep_conv_3x3", "2<-0": "max_pool_3x3", "2<-1": "dil_conv_5x5"}
    assert all(SPACE.read(SPACE.write(arch)) == arch for arch in every)


def test_the_cell_of_the_paper_adds_its_nodes():
    code, paper = Insights64(width=4, cells=1), Insights64(width=4, cells=1, output="sum", dilated=3)
    arch = code.parse("111")
    network = paper.network(arch).eval()
    cell, x = network.cells[0], torch.randn(2, 12, 8, 8)
    body = cell.body(cell.point(x))
    assert torch.equal(cell(x), body[:, :4] + body[:, 4:])
    assert code.network(arch).classifier.in_features == 8 and network.classifier.in_features == 4
    assert paper.options[3] == "dil_conv_3x3"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "`width` must be at least 1; got 0"),
        ({"output": "mean"}, "`output` must be one of concat, sum; got 'mean'"),
        ({"dilated": 7}, "`dilated` must be one of 3, 5; got 7"),
        ({"momentum": 0.0}, r"`momentum` must be more than 0 and at most 1; got 0.0"),
    ],
)
def test_what_cannot_be_is_a_sentence(fields, message):
    with pytest.raises(UserError, match=message):
        Insights64(**fields)
    with pytest.raises(UserError, match="three digits from 1 to 4"):
        SPACE.parse("515")
