"""Beside the released code of DARTS, DrNAS and DropNAS: the architectures that are read off, and the networks that are
retrained."""

import pytest
import torch
from compare import agree, check_buffers, golden, pairs_of, rows, set_weights
from rule import images

from gapless.core.plan import Stage
from gapless.methods.darts import DARTS
from gapless.methods.drnas import DrNAS
from gapless.methods.dropnas import DropNAS
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

READOUTS = {
    "darts": (Darts(options="darts"), DARTS, {}),
    "drnas_darts": (Darts(options="drnas"), DrNAS, {}),
    "drnas_darts_pruned": (Darts(options="drnas"), DrNAS, {}),
    "drnas_nb201": (NASBench201(), DrNAS, {}),
    "drnas_nb201_pruned": (NASBench201(), DrNAS, {}),
    "dropnas": (Darts(options="original"), DropNAS, {"faithful": True}),
}


@pytest.mark.parametrize("case", READOUTS)
def test_readout(case):
    space, kind, settings = READOUTS[case]
    found = golden("readout")[case]["rows"]
    assert found
    for row in found:
        method = kind(space, **settings).double()
        with torch.no_grad():
            method.alpha.copy_(rows(row["alphas"]))
        for keep in row.get("num_keep", ()):
            method.narrow(Stage(keep=keep))
            assert torch.equal(method.alive, rows(row["masks"]).bool())
            assert torch.equal(method.alpha, rows(row["alphas_after_pruning"]))
        assert space.decode(method.scores()) == space.read(row["genotype"])


@pytest.mark.parametrize(("case", "stem"), [("retrain_cifar", "cifar"), ("retrain_imagenet", "imagenet")])
def test_network_on_its_own(case, stem):
    record = golden(case)
    s = record["settings"]
    space = (
        Darts(stem=stem, classes=s["classes"], size=s["image_size"]).alone().replace(cells=s["layers"], width=s["C"])
    )
    genotype = pairs_of(s["genotype"])
    network = space.network(space.read(s["genotype"])).double()
    set_weights(network, record, space, genotype)
    batch = images(s["image_ordinals"][0], s["batch"], s["image_size"])
    with torch.no_grad():
        agree(network.eval()(batch), record["eval"]["logits"], "logits in evaluation")
        logits, auxiliary = network.train().forward_with_aux(batch)
    agree(logits, record["train"]["logits"], "logits in training")
    agree(auxiliary, record["train"]["logits_aux"], "logits of the auxiliary head")
    check_buffers(dict(network.named_buffers()), record["buffers_after_train"], space, genotype)
