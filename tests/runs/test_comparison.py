"""What a comparison is, and what its folder says of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from gapless.core.errors import UserError
from gapless.runs.comparison import Comparison, ComparisonCell, Folder
from gapless.runs.recipe import Recipe
from gapless.runs.run import Run

BASE = Recipe(
    space={"name": "nasbench201", "width": 4},
    method={"name": "darts", "arch_lr": 0.001},
    methods={"drnas": {"arch_lr": 0.002}},
    score={"name": "table", "file": str(Path("t.parquet").resolve())},
    train={"epochs": 2},
    data={"name": "digits", "train_images": 100},
    run={"seed": 9, "threads": 1},
)


def asked(methods=("darts", "drnas", "random"), seeds=(0, 1), data=("digits",), base=BASE, **more):
    return Comparison.of(base, methods, seeds, data, **more)


def test_every_method_has_every_seed_and_its_own_settings():
    found = asked()
    cells = list(found.cells())
    assert [c.name for c in cells[:3]] == ["darts-digits-seed0", "drnas-digits-seed0", "random-digits-seed0"]
    assert len(cells) == 6
    darts, random = found.recipe_of(cells[3]), found.recipe_of(cells[5])
    assert darts.method == {"name": "darts", "arch_lr": 0.001}
    assert darts.run == {"seed": 1, "threads": 1}
    assert darts.data == {"name": "digits", "train_images": 100}
    assert (darts.score, darts.train) == ({}, {"epochs": 2})
    assert (random.score, random.train) == (BASE.score, {})
    assert found.recipe_of(cells[1]).method == {"name": "drnas", "arch_lr": 0.002}


def test_it_comes_back_from_its_folder(tmp_path):
    found = asked(table="t.parquet", columns=("cifar10_test_200",), baseline="random")
    Folder(tmp_path).write(found)
    again = Folder.open(tmp_path).comparison()
    assert again.recipe.where == tmp_path / "comparison.toml"
    assert replace(again, recipe=replace(again.recipe, where=None)) == found
    (tmp_path / "comparison.toml").write_text("[comparison]\nmethods = 3\n")
    with pytest.raises(UserError, match="cannot be read"):
        Folder(tmp_path).comparison()
    with pytest.raises(UserError, match="is no comparison"):
        Folder.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ()}, "`methods` lists nothing"),
        ({"methods": ("darts", "darts")}, "lists darts twice"),
        ({"seeds": (1, 1)}, "lists 1 twice"),
        ({"data": ("a/b", "c/b")}, "two that are called b"),
        ({"baseline": "rando"}, "Did you mean 'random'"),
        ({"table": "t", "columns": ("x", "y")}, "`columns` lists 2 for 1 sets"),
    ],
)
def test_what_cannot_be_compared(given, said):
    with pytest.raises(UserError, match=said):
        asked(**given)


def test_other_settings_are_told():
    one = asked()
    assert one.unlike(asked(), ["darts", "random"], retrained=True) == ""
    longer = asked(base=BASE.over(train={"epochs": 3}))
    assert longer.unlike(one, ["darts"], retrained=True) == "train.epochs is 3, and was 2"
    assert longer.unlike(one, ["random"], retrained=True) == ""  # it trains nothing
    assert asked(base=BASE.over(method={"arch_lr": 1.0})).unlike(one, ["darts"], retrained=True) == (
        "darts: arch_lr is 1.0, and was 0.001"
    )
    assert "data.train_images is not set" in asked(base=Recipe(**{**vars(BASE), "data": {}})).unlike(
        one, ["darts"], retrained=False
    )
    assert asked(base=BASE.over(run={"save_every": 1.0})).unlike(one, ["darts"], retrained=True) == ""
    assert asked(base=BASE.over(run={"watch": True})).unlike(one, ["darts"], retrained=True) == ""
    trained = asked(base=BASE.over(retrain={"epochs": 5}), retrain=True)
    assert trained.unlike(one, ["darts"], retrained=False) == ""
    assert trained.unlike(one, ["darts"], retrained=True) == "retrain.epochs is 5, and was not set"


def test_methods_that_a_later_call_leaves_out_keep_their_settings():
    first = asked(base=BASE.over(retrain={"epochs": 5}), retrain=True)
    second = asked(methods=("drnas",), base=Recipe(**{**vars(BASE), "method": {}})).keeping(first)
    assert second.recipe.methods == {"darts": {"arch_lr": 0.001}, "drnas": {"arch_lr": 0.002}}
    assert second.recipe.retrain == {"epochs": 5}
    third = asked(methods=("darts",), base=BASE.over(method={"arch_lr": 1.0})).keeping(second)
    assert third.unlike(second, ["darts"], retrained=False) == "darts: arch_lr is 1.0, and was 0.001"


def test_runs_that_have_begun_and_why_one_failed(tmp_path):
    folder, cell = Folder(tmp_path), ComparisonCell("darts", "digits", 0)
    assert folder.runs() == ()
    run = Run.create(folder.run(cell).path)
    assert folder.runs() == ()
    run.write("recipe.toml", "")
    assert folder.runs() == (run,)
    assert folder.failure(cell) == ""
    folder.log(cell).parent.mkdir()
    folder.log(cell).write_text("Begun\nFailed: no images\n")
    assert folder.failure(cell) == "no images"
    folder.log(cell).write_text("Begun\nFailed: no images\n\nBegun\n")
    assert folder.failure(cell) == ""
