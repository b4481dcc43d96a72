"""The shipped recipes: each against the published numbers, which stand here a second time, written out by hand."""

import dataclasses
import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from gapless.core.cost import count_params
from gapless.core.method import Method
from gapless.core.plan import Adam, Plan, Stage, Train
from gapless.core.progress import seeded
from gapless.core.settings import fields_of, make
from gapless.engine.search import Search
from gapless.engine.supernet import Supernet
from gapless.runs.recipe import Recipe, Resolved, folder
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

OURS = {"demo", "nb201_cifar10_cpu", "darts_cifar10_cpu"}
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
CELLS = {"affine": False, "pool_norm": "plain", "inputs": 2, "channels": 3}
BENCH = NASBench201(width=16, cells=5, affine=False, partial=1, classes=10, channels=3, size=32)
DARTS_SPACE = Darts(options="darts", cells=8, width=16, stem="cifar", partial=1, classes=10, size=32, **CELLS)
DRNAS_SPACE = Darts(options="drnas", cells=20, width=36, stem="cifar", partial=1, classes=10, size=32, **CELLS)
IMAGENET_SPACE = Darts(
    options="drnas", cells=14, width=48, stem="imagenet", stem_width=144, partial=1, classes=1000, size=224, **CELLS
)
DROPNAS_SPACE = Darts(options="original", cells=14, width=16, stem="cifar", partial=1, classes=10, size=32, **CELLS)


def adam(lr: float) -> Adam:
    return Adam(lr=lr, betas=(0.5, 0.999), decay=1e-3)


def progressive(partials: tuple[int, int], keep: int, **more) -> Plan:
    first, second = partials
    stages = (Stage(0.5, None, {"partial": first}), Stage(0.5, keep, {"partial": second}))
    return Plan(coupling="alternate", order="arch_first", stages=stages, warmup_epochs=10, **more)


FIRST = Plan(coupling="alternate", order="arch_first", virtual="plain", warmup_epochs=0, arch=adam(3e-4))
SECOND = Plan(coupling="unrolled", order="arch_first", virtual="plain", warmup_epochs=0, arch=adam(3e-4))
JOINT = Plan(coupling="joint", decay_on="ran", decay_step="coupled", inactive="skip", warmup_epochs=0, arch=adam(3e-4))


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a recipe must come to."""

    space: Darts | NASBench201
    train: Train
    plan: Plan
    weights: tuple[int, ...]
    """Of the supernet in each stage."""
    images: int
    """Training images."""
    steps: tuple[int, int]
    """Of the weights and of the architecture, in all."""


# 391 = ceil(25000 / 64), 98 = ceil(25000 / 256), 521 = ceil(50000 / 96), 251 = ceil(128117 / 512)
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
        Plan(coupling="alternate", order="arch_first", warmup_epochs=15, arch=adam(6e-4)),
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
}
CIFAR = {"pad": 4, "flip": True, "cutout": 0}
IMAGES = {
    **{name: {"name": "uoft-cs/cifar10", **CIFAR} for name in SETTINGS},
    "drnas_cifar100": {"name": "uoft-cs/cifar100", "label": "fine_label", **CIFAR},
    "dropnas_cifar100": {"name": "uoft-cs/cifar100", "label": "fine_label", **CIFAR},
    "drnas_imagenet": {
        "name": "ILSVRC/imagenet-1k",
        "train_images": 160_146,
        "size": 224,
        "stored": 256,
        "crop_scale": 0.08,
        "jitter": [0.0, 0.0, 0.0, 0.0],
        "pad": 0,
        "flip": True,
        "cutout": 0,
    },
}
METHODS = {
    "nb201_gdas": {"estimator": "scalar_fill", "tau": 10.0, "tau_end": 0.1},
    "nb201_beta_darts": {"lambda_max": 50.0},
    "pc_darts_cifar10": {"warmup": 15},
    **{name: {"unrolled": False} for name in ("nb201_darts1", "darts_cifar10_first")},
    **{name: {"unrolled": True} for name in ("nb201_darts2", "darts_cifar10_second")},
    **{name: {"regulariser": "l2", "read": "softmax"} for name in SETTINGS if "drnas" in name},
    **{name: {"rate_weights": 3e-5, "rate_free": 3e-5, "adjust": True} for name in SETTINGS if "dropnas" in name},
}
SMALL = {"size": 8, "train_images": 32, "test_images": 10}


def read(name: str) -> Recipe:
    return Recipe.read(name)


def resolve(recipe: Recipe, **tables) -> Resolved:
    """Resolve a recipe on a few bundled digits, which leave everything but the data as it is."""
    data = {"name": "digits", **SMALL, **tables.get("data", {})}
    if "stored" in recipe.data:
        data["stored"] = data["size"] + 4
    return recipe.over(**{**tables, "data": data}).resolve()


def method_of(resolved: Resolved) -> Method:
    with seeded("recipe"):
        method = make(resolved.method_class, resolved.method, resolved.space)
    assert isinstance(method, Method)
    return method


@cache
def weights_of(space: Darts | NASBench201) -> int:
    with torch.device("meta"):
        return count_params(Supernet(space))


def test_every_shipped_recipe_is_here_and_has_a_title_of_its_own():
    assert {path.stem for path in folder()} == {*SETTINGS, *OURS}
    assert len({read(name).title for name in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("name", sorted({*SETTINGS, *OURS}))
def test_it_says_what_it_is(name):
    recipe = read(name)
    recipe.check()
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
    assert METHODS[name].items() <= found.method.items()
    assert found.method.get("faithful", False) is False


@pytest.mark.parametrize("name", SETTINGS)
def test_it_states_every_number_itself(name):
    """Another default in the code cannot change a recipe unseen."""
    recipe = read(name)
    found = resolve(recipe)
    assert set(fields_of(Train)) - set(recipe.train) <= {"validate_every", "lr_epochs"}
    derived = {"classes", "channels", "size", "auxiliary", "drop_path"}
    if recipe.space.get("stem") != "imagenet":
        derived.add("stem_width")
    if recipe.method.get("progressive"):
        derived.add("partial")  # the stages say it
    else:
        derived |= {"partials", "keep"}
    assert set(fields_of(type(found.space))) - set(recipe.space) <= derived
    assert set(fields_of(found.method_class)) - set(recipe.method) <= derived


@pytest.mark.parametrize("name", SETTINGS)
def test_the_supernet_at_full_size(name):
    expected = SETTINGS[name]
    assert (
        tuple(weights_of(expected.space.replace(**stage.space)) for stage in expected.plan.stages) == expected.weights
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_how_many_steps_it_takes(name):
    expected = SETTINGS[name]
    plan, train = expected.plan, expected.train
    own = 0 if plan.coupling == "joint" else round(expected.images * train.arch_share)
    per_epoch = math.ceil((expected.images - own) / train.batch)
    trained = sum(length - plan.warmup(length) for length in plan.stage_epochs(train.epochs))
    assert (train.epochs * per_epoch, trained * per_epoch) == expected.steps


def test_the_share_of_imagenet():
    assert SETTINGS["drnas_imagenet"].images / 1_281_167 == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_steps_at_a_tiny_size(name):
    """A progressive recipe prunes and widens between them."""
    recipe, full = read(name), SETTINGS[name].space
    fields = {"width": 8, "cells": 1} if isinstance(full, NASBench201) else {"width": 4, "cells": 3}
    if "drnas" in name and isinstance(full, Darts):
        fields["width"] = 12  # in parts of six, four and three
    if full.size == 224:
        fields["stem_width"] = 12
    stages = len(SETTINGS[name].plan.stages)
    joint = SETTINGS[name].plan.coupling == "joint"
    weighing = SMALL["train_images"] - (0 if joint else round(SMALL["train_images"] * SETTINGS[name].train.arch_share))
    small = resolve(
        recipe,
        space=fields,
        method={"warmup": 0} if "warmup" in recipe.method else {},
        train={"epochs": stages, "batch": math.ceil(weighing * stages / 2), "validate_every": 0},
        data={"size": 32} if full.size == 224 else {},
    )
    method = method_of(small)
    before = method.alpha.detach().clone()
    loop = Search(small.space, method, small.data, small.train)
    weights = next(loop.supernet.parameters()).detach().clone()
    records = list(loop.run())
    assert loop.step == 2
    assert [record.stage for record in records] == list(range(stages))
    assert all(math.isfinite(record.train_loss) for record in records)
    assert not torch.equal(method.alpha, before)
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
