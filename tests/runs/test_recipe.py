import pytest
from PIL import Image

from gapless.core.errors import UserError
from gapless.runs.checked import check_recipe
from gapless.runs.recipe import Recipe, line_of
from gapless.runs.resolved import ResolvedSearch, resolve


def test_what_is_written_reads_back_the_same(tmp_path):
    recipe = Recipe(
        title='a "quoted" title',
        source="here",
        space={"name": "darts", "width": 4, "inputs": "none", "affine": True},
        method={"name": "drnas", "anchor": 1e-4, "regulariser": "kl"},
        methods={"darts": {"arch_lr": 0.1}, "dropnas": {"adjust": False}},
        train={"epochs": 3, "lr": 0.1},
        retrain={"protocol": "cifar", "drop_path": 0.3, "space": {"pool_norm": "plain"}},
        data={"name": "digits", "size": 8},
        run={"seed": 4},
    )
    path = tmp_path / "r.toml"
    path.write_text(recipe.toml())
    again = Recipe.read(path)
    for name in ("title", "source", "space", "method", "methods", "train", "retrain", "data", "run"):
        assert getattr(again, name) == getattr(recipe, name)


def test_resolving_fills_in_the_papers_settings_and_what_the_data_say():
    recipe = Recipe(space={"name": "darts", "width": 8}, method={"name": "dropnas"}, data={"name": "digits"})
    resolved = resolve(recipe)
    assert isinstance(resolved, ResolvedSearch)
    assert (resolved.space.options, resolved.space.cells, resolved.space.width) == ("original", 14, 8)
    assert (resolved.space.classes, resolved.space.channels, resolved.space.size) == (10, 1, 8)
    assert (resolved.train.epochs, resolved.train.batch, resolved.train.clip) == (76, 96, 3.0)
    full = resolved.full()
    assert full.space["options"] == "original"
    assert full.method["rate_free"] == 3e-5
    assert full.train["lr"] == 0.0375
    assert "classes" not in full.space
    check_recipe(full)


def test_another_name_drops_the_settings_of_the_one_before():
    recipe = Recipe(space={"name": "darts", "stem": "imagenet"}, method={"name": "darts"})
    assert recipe.over(space={"name": "nasbench201"}).space == {"name": "nasbench201"}
    assert recipe.over(space={"width": 8}).space == {"name": "darts", "stem": "imagenet", "width": 8}
    assert recipe.over(space={"name": "darts", "width": 8}).space["stem"] == "imagenet"


def test_another_method_takes_its_settings_from_the_recipes_table_of_methods():
    recipe = Recipe(method={"name": "drnas", "arch_lr": 1.0}, methods={"darts": {"arch_lr": 2.0}})
    assert recipe.over(method={"name": "darts"}).method == {"name": "darts", "arch_lr": 2.0}
    assert recipe.over(method={"name": "darts", "arch_lr": 3.0}).method == {"name": "darts", "arch_lr": 3.0}
    assert recipe.over(method={"name": "dropnas"}).method == {"name": "dropnas"}


def test_other_data_keep_what_holds_for_any_images():
    recipe = Recipe(data={"name": "uoft-cs/cifar10", "size": 16, "train_images": 100, "label": "label"})
    assert recipe.over(data={"name": "digits"}).data == {"name": "digits", "size": 16, "train_images": 100}


def test_lines_are_found_in_their_tables():
    text = 'title = "x"\n[space]\nname = "darts"\n[train]\n  "lr" = 1\nlr_min = 0\n'
    assert line_of(text, "", "title") == 1
    assert line_of(text, "", "train") == 4
    assert line_of(text, "space", "name") == 3
    assert line_of(text, "train", "lr") == 5
    assert line_of(text, "train", "lr_min") == 6
    assert line_of(text, "space", "lr") == 0


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"space": {"name": "darts"}}, r"\[method\] needs a name"),
        ({"space": {"name": 3}, "method": {"name": "darts"}}, r"\[space\] needs a name"),
        ({"space": {"name": "darts", "inputs": 2.5}, "method": {"name": "darts"}}, "whole number"),
        ({"space": {"name": "darts", "affine": "perhaps"}, "method": {"name": "darts"}}, "true or false"),
        ({"space": {"name": "darts"}, "method": {"name": "darts"}, "run": {"precision": "half"}}, "float32"),
        (
            {"space": {"name": "darts"}, "method": {"name": "darts"}, "data": {"name": "digits", "sice": 8}},
            "Did you mean 'size'",
        ),
        ({"space": {"name": "darts"}, "method": {"name": "darts"}, "methods": {"drna": {}}}, "Did you mean 'drnas'"),
        (
            {"space": {"name": "darts"}, "method": {"name": "darts"}, "methods": {"drnas": 3}},
            r"Did you mean \[method\]",
        ),
        (
            {"space": {"name": "darts"}, "method": {"name": "darts"}, "methods": {"drnas": {"rate": 1}}},
            "`rate` is no setting of drnas",
        ),
    ],
)
def test_wrong_tables(tables, message):
    with pytest.raises(UserError, match=message):
        check_recipe(Recipe(**tables))


def test_a_resolved_recipe_holds_the_method_s_settings_of_the_space():
    """Read again it resolves to the same, and nothing in it waits for a default."""
    method = {"name": "drnas", "progressive": True, "keep": [2]}
    recipe = Recipe(space={"name": "darts", "width": 12, "cells": 3}, method=method, data={"name": "digits"})
    resolved = resolve(recipe)
    assert resolved.method.settings.items() >= {"arch_lr": 6e-4, "partials": (6, 4), "keep": (2,), "warmup": 10}.items()
    full = resolved.full()
    assert full.method == {"name": "drnas", **resolved.method.settings}
    assert resolve(full).method.settings == resolved.method.settings
    assert "none" not in full.toml().partition("[method]")[2].partition("[train]")[0]


def test_the_recipe_of_a_run_holds_wherever_it_is_read(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / "pets" / split / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(space={"name": "darts"}, method={"name": "darts"}, data={"name": "pets"})
    full = resolve(recipe).full()
    assert full.data["name"] == str(tmp_path / "pets")
    monkeypatch.chdir("/")
    assert resolve(full).data.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("3", "\\[retrain.space\\] holds fields of the space; got 3"),
        ("{ cells = { a = 1 } }", "`retrain.space.cells` must be a whole number"),
        ("{ classes = 3 }", "`retrain.space.classes` is read from the data"),
        ("{ cells = -1 }", "`retrain.space.cells` must be from 1 to 1,000; got -1"),
        ("{ wdith = 4 }", "`retrain.space.wdith` is no setting of nasbench201. Did you mean 'width'"),
    ],
)
def test_fields_of_the_space_alone_are_checked(tmp_path, space, said):
    path = tmp_path / "r.toml"
    path.write_text(f"[space]\nname = 'nasbench201'\n[method]\nname = 'darts'\n[retrain]\nspace = {space}\n")
    with pytest.raises(UserError, match=said):
        check_recipe(Recipe.read(path))
