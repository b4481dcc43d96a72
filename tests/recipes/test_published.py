"""The shipped recipes: each against the published numbers, which stand here a second time, written out by hand."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
import torch

from gapless.core.cost import Undrawn, count_params
from gapless.core.method import Method
from gapless.core.plan import Adam, Plan, Stage, Train
from gapless.core.progress import seeded
from gapless.core.settings import fields_of
from gapless.core.space import Space
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.runs import resolved as resolving
from gapless.runs.checked import check_recipe
from gapless.runs.recipe import Recipe, folder
from gapless.runs.resolved import ResolvedSearch
from gapless.spaces.darts import Darts
from gapless.spaces.mobile import Mobile
from gapless.spaces.nasbench201 import NASBench201
from gapless.spaces.shufflenet import ShuffleNet

OURS = {
    "demo",
    "nb201_cifar10_cpu",
    "darts_cifar10_cpu",
    "darts_collapse_cpu",
    "shufflenet_cifar10_cpu",
    "mobile_cifar10_cpu",
    "da_nas_cifar10",
}
"""Recipes of our own choice, which stand for no paper."""
TRAIN = {"momentum": 0.9, "schedule": "cosine", "lr_warmup": 0, "arch_share": 0.5, "validate_every": 1}
AUTODL = Train(
    epochs=50, batch=64, lr=0.025, lr_min=0.001, lr_per="epoch", nesterov=True, weight_decay=5e-4, clip=5.0, **TRAIN
)
DRNAS_201 = Train(
    epochs=100, batch=64, lr=0.025, lr_min=0.001, lr_per="epoch", nesterov=False, weight_decay=3e-4, clip=5.0, **TRAIN
)
DARTS = Train(
    epochs=50, batch=64, lr=0.025, lr_min=0.001, lr_per="epoch", nesterov=False, weight_decay=3e-4, clip=5.0, **TRAIN
)
DRNAS = Train(
    epochs=50, batch=64, lr=0.1, lr_min=0.0, lr_per="epoch", nesterov=False, weight_decay=3e-4, clip=5.0, **TRAIN
)
IMAGENET = Train(
    epochs=50,
    batch=512,
    lr=0.5,
    lr_min=0.0,
    lr_per="epoch",
    nesterov=False,
    weight_decay=3e-4,
    clip=5.0,
    **{**TRAIN, "lr_warmup": 5, "arch_share": 0.2},
)
PC_DARTS = Train(
    epochs=50, batch=256, lr=0.1, lr_min=0.0, lr_per="epoch", nesterov=False, weight_decay=3e-4, clip=5.0, **TRAIN
)
DROPNAS = Train(
    epochs=76, batch=96, lr=0.0375, lr_min=0.0015, lr_per="epoch", nesterov=False, weight_decay=3e-4, clip=3.0, **TRAIN
)
SNAS = dataclasses.replace(DARTS, epochs=150)
RSPS = dataclasses.replace(DARTS, epochs=150, clip=1.0)
HELD_OUT = {**TRAIN, "arch_share": 0.039027, "validate_every": 0}
SPOS = Train(
    epochs=120,
    batch=1024,
    lr=0.5,
    lr_min=0.0,
    lr_per="step",
    nesterov=False,
    weight_decay=4e-5,
    decay_norms=False,
    clip=0.0,
    label_smoothing=0.1,
    **{**HELD_OUT, "schedule": "straight"},
)
DSNAS = dataclasses.replace(
    SPOS, epochs=80, schedule="cosine", lr_warmup=5, lr_epochs=240, arch_share=0.5, validate_every=1
)
FAIRNAS = Train(
    epochs=150,
    batch=256,
    lr=0.045,
    lr_min=0.0,
    lr_per="epoch",
    nesterov=False,
    weight_decay=4e-5,
    decay_norms=True,
    clip=0.0,
    label_smoothing=0.0,
    **HELD_OUT,
)
CELLS = {"affine": False, "pool_norm": "plain", "inputs": 2, "channels": 3}
BENCH = NASBench201(width=16, cells=5, affine=False, partial=1, classes=10, channels=3, size=32)
DARTS_SPACE = Darts(options="darts", cells=8, width=16, stem="cifar", partial=1, classes=10, size=32, **CELLS)
DRNAS_SPACE = Darts(options="drnas", cells=20, width=36, stem="cifar", partial=1, classes=10, size=32, **CELLS)
IMAGENET_SPACE = Darts(
    options="drnas", cells=14, width=48, stem="imagenet", stem_width=144, partial=1, classes=1000, size=224, **CELLS
)
DROPNAS_SPACE = Darts(options="original", cells=14, width=16, stem="cifar", partial=1, classes=10, size=32, **CELLS)
SHUFFLE_SPACE = ShuffleNet(
    stem_width=16,
    widths=(64, 160, 320, 640),
    repeats=(4, 4, 8, 4),
    strides=(2, 2, 2, 2, 2),
    head_width=1024,
    width=1.0,
    affine=False,
    eps=1e-5,
    dropout=0.1,
    classes=1000,
    size=224,
)
FAIRNAS_SPACE = Mobile(
    variant="fairnas",
    kernels=(3, 5, 7),
    expansions=(3, 6),
    depth=False,
    layers=(2, 4, 4, 4, 4, 1),
    strides=(2, 2, 2, 2, 1, 2, 1),
    width=1.0,
    eps=1e-5,
    dropout=0.2,
    classes=1000,
    size=224,
)


def adam(lr: float) -> Adam:
    return Adam(lr=lr, betas=(0.5, 0.999), decay=1e-3)


def progressive(partials: tuple[int, int], keep: int, **more) -> Plan:
    first, second = partials
    stages = (Stage(0.5, None, {"partial": first}), Stage(0.5, keep, {"partial": second}))
    return Plan(coupling="alternate", order="arch_first", stages=stages, warmup_epochs=10, **more)


FIRST = Plan(coupling="alternate", order="arch_first", warmup_epochs=0, arch=adam(3e-4))
SECOND = Plan(coupling="unrolled", order="arch_first", warmup_epochs=0, arch=adam(3e-4))
UNIFORM = Plan(coupling="weights_only", held_out=True, bn="batch")
ONE_SHOT = Plan(
    coupling="weights_only", held_out=True, bn="recalibrated", calibration=20_000, batches="share", gradients="sum"
)
JOINT = Plan(coupling="joint", decay_on="ran", inactive="skip", warmup_epochs=0, arch=adam(3e-4))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a recipe must come to."""

    space: Space
    train: Train
    plan: Plan
    weights: tuple[int, ...]
    """Of the supernet in each stage."""
    images: int
    """Training images."""
    steps: tuple[int, int]
    """Of the weights and of the architecture, in all."""


# 391 = ceil(25000 / 64), 98 = ceil(25000 / 256), 521 = ceil(50000 / 96), 251 = ceil(128117 / 512), 782 = ceil(50000 / 64)
# 1252 = ceil(1281167 / 1024), 1203 = ceil(1231167 / 1024), 4810 = ceil(1231167 / 256)
SETTINGS = {
    "nb201_darts1": Setting(BENCH, AUTODL, FIRST, (1_686_106,), 50_000, (50 * 391, 50 * 391)),
    "nb201_darts2": Setting(BENCH, AUTODL, SECOND, (1_686_106,), 50_000, (50 * 391, 50 * 391)),
    "nb201_drnas": Setting(BENCH, DRNAS_201, FIRST, (1_686_106,), 50_000, (100 * 391, 100 * 391)),
    "nb201_drnas_progressive": Setting(
        BENCH,
        DRNAS_201,
        progressive((4, 2), 3, arch=adam(3e-4)),
        (174_106, 476_506),
        50_000,
        (100 * 391, 80 * 391),
    ),
    "nb201_gdas": Setting(
        BENCH,
        dataclasses.replace(AUTODL, epochs=250),
        Plan(order="weights_first", arch_moves="all", arch=adam(3e-4)),
        (1_686_106,),
        50_000,
        (250 * 391, 250 * 391),
    ),
    "nb201_beta_darts": Setting(BENCH, DRNAS_201, FIRST, (1_686_106,), 50_000, (100 * 391, 100 * 391)),
    "pc_darts_cifar10": Setting(
        DARTS_SPACE.replace(partial=4),
        PC_DARTS,
        Plan(coupling="alternate", order="arch_first", warmup_share=15 / 50, arch=adam(6e-4)),
        (299_578,),
        50_000,
        (50 * 98, 35 * 98),
    ),
    "darts_cifar10_first": Setting(DARTS_SPACE, DARTS, FIRST, (1_930_618,), 50_000, (50 * 391, 50 * 391)),
    "darts_cifar10_second": Setting(DARTS_SPACE, DARTS, SECOND, (1_930_618,), 50_000, (50 * 391, 50 * 391)),
    "drnas_cifar10": Setting(
        DRNAS_SPACE,
        DRNAS,
        progressive((6, 4), 4, arch=adam(6e-4)),
        (2_221_750, 2_986_462),
        50_000,
        (50 * 391, 30 * 391),
    ),
    "drnas_cifar100": Setting(
        DRNAS_SPACE.replace(classes=100),
        DRNAS,
        progressive((6, 4), 4, arch=adam(6e-4)),
        (2_221_750 + 90 * (16 * 36 + 1), 2_986_462 + 90 * (16 * 36 + 1)),  # a larger classifier
        50_000,
        (50 * 391, 30 * 391),
    ),
    "dropnas_cifar10": Setting(DROPNAS_SPACE, DROPNAS, JOINT, (3_239_674,), 50_000, (76 * 521, 76 * 521)),
    "dropnas_cifar10_1skip": Setting(
        DROPNAS_SPACE.replace(options="1-skip"),
        DROPNAS,
        JOINT,
        (3_239_674,),  # pools have no weights
        50_000,
        (76 * 521, 76 * 521),
    ),
    "dropnas_cifar10_3skip": Setting(
        DROPNAS_SPACE.replace(options="3-skip"),
        DROPNAS,
        JOINT,
        (3_239_674 + 2 * 8 * (32**2 + 64**2),),  # two more skips on the eight strided edges of two reduction cells
        50_000,
        (76 * 521, 76 * 521),
    ),
    "dropnas_cifar100": Setting(
        DROPNAS_SPACE.replace(classes=100),
        DROPNAS,
        JOINT,
        (3_239_674 + 90 * (16 * 16 + 1),),
        50_000,
        (76 * 521, 76 * 521),
    ),
    "drnas_imagenet": Setting(
        IMAGENET_SPACE,
        IMAGENET,
        progressive((6, 3), 4, arch=adam(6e-3), arch_clip=5.0),
        (3_642_896, 5_739_344),
        160_146,
        (50 * 251, 30 * 251),
    ),
    "nb201_snas": Setting(
        BENCH, DRNAS_201, Plan(arch_moves="all", arch=adam(3e-4)), (1_686_106,), 50_000, (100 * 391, 100 * 391)
    ),
    "snas_cifar10": Setting(
        DARTS_SPACE.replace(inputs=None),
        SNAS,
        Plan(coupling="joint", arch_moves="all", arch_clip=10.0, after="retrain", arch=adam(3e-4)),
        (1_930_618,),  # as for DARTS: how many edges an answer keeps changes no weight
        50_000,
        (150 * 782, 150 * 782),
    ),
    "nb201_enas": Setting(
        BENCH,
        dataclasses.replace(AUTODL, epochs=100, clip=0.0),
        Plan(
            arch_block=50,
            batches="own",
            arch_moves="all",
            bn="batch",
            arch_clip=5.0,
            arch=Adam(lr=1e-3, betas=(0.0, 0.999), decay=0.0, eps=1e-3),
        ),
        (1_686_106,),
        50_000,
        (100 * 391, 100 * 50),
    ),
    "nb201_rsps": Setting(
        BENCH, dataclasses.replace(AUTODL, epochs=250), UNIFORM, (1_686_106,), 50_000, (250 * 391, 0)
    ),
    "rsps_cifar10": Setting(DARTS_SPACE.replace(width=24), RSPS, UNIFORM, (3_998_194,), 50_000, (150 * 391, 0)),
    "spos_imagenet": Setting(SHUFFLE_SPACE, SPOS, ONE_SHOT, (8_388_176,), 1_281_167, (120 * 1203, 0)),
    "dsnas_imagenet": Setting(
        SHUFFLE_SPACE.replace(affine=True, eps=1e-2),
        DSNAS,
        Plan(
            coupling="joint",
            arch_moves="all",
            inactive="skip",
            warmup_epochs=0,
            bn="recalibrated",
            after="continue",
            arch=Adam(lr=1e-3, betas=(0.5, 0.999), decay=0.0),
        ),
        (8_489_648,),
        1_281_167,
        (80 * 1252, 80 * 1252),
    ),
    "fairnas_imagenet": Setting(FAIRNAS_SPACE, FAIRNAS, ONE_SHOT, (15_992_600,), 1_281_167, (150 * 4810, 0)),
}
WHOLE = {
    "name": "ILSVRC/imagenet-1k",
    "size": 224,
    "stored": 256,
    "crop_scale": 0.08,
    "jitter": [0.0, 0.0, 0.0, 0.0],
    "pad": 0,
    "flip": True,
    "cutout": 0,
}
CIFAR = {"pad": 4, "flip": True, "cutout": 0}
IMAGES = {
    **{name: {"name": "uoft-cs/cifar10", **CIFAR} for name in SETTINGS},
    "drnas_cifar100": {"name": "uoft-cs/cifar100", "label": "fine_label", **CIFAR},
    "dropnas_cifar100": {"name": "uoft-cs/cifar100", "label": "fine_label", **CIFAR},
    "drnas_imagenet": {**WHOLE, "train_images": 160_146},
    "dsnas_imagenet": WHOLE,
    "fairnas_imagenet": WHOLE,
    "spos_imagenet": {**WHOLE, "jitter": [0.4, 0.4, 0.4, 0.0]},
}
METHODS = {
    "nb201_gdas": {"estimator": "scalar_fill", "tau": 10.0, "tau_end": 0.1},
    "nb201_beta_darts": {"lambda_max": 50.0},
    "pc_darts_cifar10": {"warmup_share": 15 / 50},
    "nb201_snas": {"bilevel": True, "tau": 10.0, "tau_end": 1.0, "resource": 0.0},
    "snas_cifar10": {
        "bilevel": False,
        "tau": 1.0,
        "tau_end": 0.03,
        "resource": 1.5e-3,
        "resource_scale": "log",
        "resource_estimator": "reparametrization",
    },
    "nb201_enas": {
        "steps": 50,
        "samples": 20,
        "baseline": "per_step",
        "decay": 0.99,
        "entropy": 1e-4,
        "entropy_grad": False,
        "temperature": 5.0,
        "squash": 2.5,
        "candidates": 100,
        "images": 512,
    },
    "nb201_rsps": {"archs": 100, "images": 512, "finalists": 0},
    "rsps_cifar10": {"archs": 5 * 1000, "images": 10 * 64, "finalists": 5 * 10},
    "spos_imagenet": {
        "searcher": "evolution",
        "evaluations": 20 * 50,
        "images": 40 * 200,
        "macs_bins": tuple(float(m) for m in range(290, 361, 10)),
    },
    "dsnas_imagenet": {"freeze": 0.3, "macs": 1e-6, "macs_from": 290.0},
    "fairnas_imagenet": {"accumulate": True, "batches": "share", "gradients": "sum", "images": 0},
    **{name: {"unrolled": False} for name in ("nb201_darts1", "darts_cifar10_first")},
    **{name: {"unrolled": True} for name in ("nb201_darts2", "darts_cifar10_second")},
    **{name: {"regulariser": "l2", "read": "softmax"} for name in SETTINGS if "drnas" in name},
    **{name: {"rate_weights": 3e-5, "rate_free": 3e-5, "adjust": True} for name in SETTINGS if "dropnas" in name},
}
LIMITS = {"spos_imagenet": {"macs": "330M"}, "fairnas_imagenet": {"macs": "390M"}}
FEW = {
    "enas": {"steps": 2, "samples": 2, "candidates": 3, "images": 4},
    "rsps": {"archs": 4, "images": 4, "finalists": 2},
    "spos": {"evaluations": 3, "images": 4, "calibration": 8, "macs_bins": ()},
    "fairnas": {"evaluations": 3, "calibration": 8},
}
"""Settings of read-outs for the run of two steps."""
SMALL = {"size": 8, "train_images": 32, "test_images": 10}


TINY = {
    NASBench201: {"width": 8, "cells": 1},
    Darts: {"width": 4, "cells": 3},
    ShuffleNet: {"width": 0.25, "repeats": (1, 1, 2, 1)},
    Mobile: {"width": 0.25, "layers": (1, 1, 2, 1, 1, 1)},
}


def read(name: str) -> Recipe:
    return Recipe.read(name)


def resolve(recipe: Recipe, **tables) -> ResolvedSearch:
    """Resolve a recipe on a few bundled digits, which leave everything but the data as it is."""
    data = {"name": "digits", **SMALL, **tables.get("data", {})}
    if "stored" in recipe.data:
        data["stored"] = data["size"] + 4
    return resolving.resolve(recipe.over(**{**tables, "data": data}))


def method_of(resolved: ResolvedSearch) -> Method:
    with seeded("recipe"):
        return resolved.method.make(resolved.space)


@cache
def weights_of(space: Space) -> int:
    with Undrawn():
        return count_params(Supernet(space))


def test_every_shipped_recipe_is_here_and_has_a_title_of_its_own():
    assert {path.stem for path in folder()} == {*SETTINGS, *OURS}
    assert len({read(name).title for name in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("name", sorted({*SETTINGS, *OURS}))
def test_it_says_what_it_is(name):
    recipe = read(name)
    check_recipe(recipe)
    assert recipe.title
    assert recipe.source
    if name not in OURS:
        assert re.search(r"arXiv \d{4}\.\d{5}", recipe.source)
        assert "published" in recipe.source


@pytest.mark.parametrize("name", SETTINGS)
def test_it_comes_to_the_published_numbers(name):
    expected, recipe = SETTINGS[name], read(name)
    found = resolve(recipe)
    data = {"classes": expected.space.classes, "channels": 3, "size": expected.space.size}
    assert found.space.replace(**data) == expected.space
    assert found.train == expected.train
    assert method_of(found).plan == expected.plan
    assert dict(recipe.data) == IMAGES[name]
    assert METHODS[name].items() <= found.method.settings.items()
    assert dict(recipe.limit) == LIMITS.get(name, {})
    assert found.method.settings.get("faithful", False) is False


@pytest.mark.parametrize("name", SETTINGS)
def test_it_states_every_number_itself(name):
    """Another default in the code cannot change a recipe unseen."""
    recipe = read(name)
    found = resolve(recipe)
    assert set(fields_of(Train)) - set(recipe.train) <= {"validate_every", "lr_epochs"}
    derived = {"classes", "channels", "size", "auxiliary", "drop_path"}
    if recipe.space.get("stem") == "cifar":
        derived.add("stem_width")
    if recipe.method.get("progressive"):
        derived.add("partial")  # the stages say it
    else:
        derived |= {"partials", "keep"}
    assert set(fields_of(type(found.space))) - set(recipe.space) <= derived
    assert set(fields_of(found.method.cls)) - set(recipe.method) <= derived


def some(names: Iterable[str], kind: Callable[[str], object]) -> list[object]:
    """Return all names; of those of one kind, all but the first are in the tier ``full``."""
    kinds: dict[object, str] = {}
    for name in names:
        kinds.setdefault(kind(name), name)
    return [pytest.param(name, marks=() if kinds[kind(name)] == name else pytest.mark.full) for name in names]


@pytest.mark.parametrize("name", some(SETTINGS, lambda name: type(SETTINGS[name].space)))
def test_the_supernet_at_full_size(name):
    expected = SETTINGS[name]
    assert (
        tuple(weights_of(expected.space.replace(**stage.space)) for stage in expected.plan.stages) == expected.weights
    )


def darts_by_hand(width: int) -> int:
    """Eight cells with the options of DARTS; normalisation in cells has no weights."""
    total = 27 * 3 * width + 2 * 3 * width  # the stem, 3x3, with scale and shift
    before, last, c = 3 * width, 3 * width, width
    for i in range(8):
        c *= 2 if i in (2, 5) else 1
        total += (before + last) * c  # both inputs brought to c channels
        edge = 2 * (9 * c + c * c) + 2 * (25 * c + c * c) + (9 * c + c * c) + (25 * c + c * c)  # sep 3, 5, dil 3, 5
        total += 14 * edge + (8 * c * c if i in (2, 5) else 0)  # a skip over a stride halves twice, into half of c each
        before, last = last, 4 * c
    return total + last * 10 + 10


def shuffle_by_hand(affine: bool) -> int:
    """Twenty blocks of four kinds; ``affine`` adds two weights a channel and normalisation."""
    norms = 16 + 1024
    total = 27 * 16 + 640 * 1024 + 1024 * 1000  # stem, last convolution, classifier without bias
    inputs = 16
    for channels, blocks in ((64, 4), (160, 4), (320, 8), (640, 4)):
        for block in range(blocks):
            reads, middle = (channels // 2 if block else inputs), channels // 2
            gives = channels - reads
            for k in (3, 5, 7):
                total += reads * middle + k * k * middle + middle * gives
                norms += middle + middle + gives
            total += 9 * reads + reads * middle + 9 * middle + middle * middle + 9 * middle + middle * gives
            norms += reads + 4 * middle + gives
            if not block:  # the projection beside each of the four, xception's with a kernel of 3
                total += sum(k * k * inputs + inputs * inputs for k in (3, 5, 7, 3))
                norms += 4 * 2 * inputs
        inputs = channels
    return total + 2 * norms * affine


def fairnas_by_hand() -> int:
    """Nineteen blocks of six kinds, all normalisation with scale and shift."""
    total = 27 * 32 + 2 * 32  # stem
    total += 9 * 32 + 2 * 32 + 32 * 16 + 2 * 16  # the fixed block
    total += 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000  # last convolution, classifier
    inputs = 16
    for channels, blocks in ((32, 2), (40, 4), (80, 4), (96, 4), (192, 4), (320, 1)):
        for _ in range(blocks):
            for k in (3, 5, 7):
                for e in (3, 6):
                    middle = inputs * e
                    total += inputs * middle + k * k * middle + middle * channels + 2 * (2 * middle + channels)
            inputs = channels
    return total


def test_the_weights_of_supernets_by_hand():
    assert darts_by_hand(16) == 1_930_618
    assert darts_by_hand(24) == 3_998_194
    assert shuffle_by_hand(affine=False) == 8_388_176
    assert shuffle_by_hand(affine=True) == 8_489_648
    assert fairnas_by_hand() == 15_992_600


@pytest.mark.parametrize("name", SETTINGS)
def test_how_many_steps_it_takes(name):
    expected = SETTINGS[name]
    plan, train = expected.plan, expected.train
    own = 0 if plan.coupling == "joint" else round(expected.images * train.arch_share)
    per_epoch = math.ceil((expected.images - own) / train.batch)
    trained = sum(length - plan.warmup(length) for length in plan.stage_epochs(train.epochs))
    arch = 0 if plan.coupling == "weights_only" else trained * (plan.arch_block or per_epoch)
    assert (train.epochs * per_epoch, arch) == expected.steps


def test_spos_and_fairnas_hold_fifty_thousand_images_out():
    for name in ("spos_imagenet", "fairnas_imagenet"):
        assert round(SETTINGS[name].images * SETTINGS[name].train.arch_share) == 50_000


def test_dsnas_goes_on_from_its_weights_at_the_rate_of_its_checkpoint():
    """The code's cosine begins behind the warm-up: 75 of 235 epochs at the end of the 80th."""
    retrain = check_recipe(read("dsnas_imagenet")).retrain
    found = retrain.on("shufflenet")
    assert retrain.start == "inherited"
    assert (found.epochs, found.schedule, found.lr_per, found.lr_min) == (160, "cosine", "step", 0.0)
    assert found.lr == pytest.approx(0.25 * (1 + math.cos(math.pi * 75 / 235)), abs=1e-4)
    assert SETTINGS["dsnas_imagenet"].train.epochs + found.epochs == 240


def test_the_share_of_imagenet():
    assert SETTINGS["drnas_imagenet"].images / 1_281_167 == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize("name", some(SETTINGS, lambda name: (read(name).method["name"], type(SETTINGS[name].space))))
def test_two_steps_at_a_tiny_size(name):
    """A progressive recipe prunes and widens between them."""
    recipe, full = read(name), SETTINGS[name].space
    plan = SETTINGS[name].plan
    fields = dict(TINY[type(full)])
    if "drnas" in name and isinstance(full, Darts):
        fields["width"] = 12  # in parts of six, four and three
    if isinstance(full, Darts) and full.stem == "imagenet":
        fields["stem_width"] = 12
    stages = len(plan.stages)
    share = 0 if plan.coupling == "joint" else SETTINGS[name].train.arch_share
    weighing = SMALL["train_images"] - round(SMALL["train_images"] * share)
    small = resolve(
        recipe,
        space=fields,
        method={**({"warmup": 0} if "warmup" in recipe.method else {}), **FEW.get(recipe.method["name"], {})},
        train={"epochs": stages, "batch": math.ceil(weighing * stages / 2), "validate_every": 0},
        data={"size": 32} if full.size == 224 else {},
    )
    method = method_of(small)
    before = {key: value.detach().clone() for key, value in method.named_parameters()}
    loop = Search(small.space, method, small.data, small.train)
    weights = next(loop.supernet.parameters()).detach().clone()
    records = list(loop.run())
    assert loop.step == 2
    assert [record.stage for record in records] == list(range(stages))
    assert all(math.isfinite(record.train_loss) for record in records)
    assert bool(before) == (plan.coupling != "weights_only")
    assert all(not torch.equal(dict(method.named_parameters())[key], value) for key, value in before.items())
    assert not torch.equal(next(loop.supernet.parameters()), weights)
    loop.space.check(loop.answer())


def test_the_page_names_every_recipe_with_its_size_and_steps():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows: dict[str, str] = {}
    for name, row in re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.M):
        rows[name] = rows.get(name, "") + row
    assert {*SETTINGS, *OURS} <= set(rows)
    for name, setting in SETTINGS.items():
        for number in (*setting.weights, *setting.steps):
            assert f"{number:,}" in rows[name], (name, number)
