"""Where the training of an architecture starts: fresh, or with the weights of the search that found it."""

import pytest
import torch
from scored import searched

import gapless
from gapless.core.errors import UserError
from gapless.runs.resolved import resolve
from gapless.runs.run import Run
from gapless.runs.searched import inherited, starting_network
from gapless.studies.results import SearchResult
from gapless.studies.resume import resume
from gapless.studies.retrain import plan, retrain

FEW = {"epochs": 1, "batch": 32}


@pytest.fixture(scope="module")
def dsnas(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("runs") / "dsnas", "dsnas")


def test_a_method_whose_weights_go_on_starts_from_them_at_the_size_of_its_search(dsnas):
    recipe = plan(dsnas.path, protocol=FEW)
    assert (recipe.retrain["start"], recipe.retrain["weights"]) == ("inherited", str(dsnas.path.resolve()))
    resolved = resolve(recipe)
    assert (resolved.space.width, resolved.space.cells, resolved.space.affine) == (4, 1, False)
    weights = dsnas.weights()
    for name, value in starting_network(resolved).state_dict().items():
        assert torch.equal(value, weights[f"network.{name}"])


def test_training_on_begins_where_the_search_ended(dsnas, tmp_path):
    """With a rate of zero only statistics move: the accuracy is that of the inherited network, and the first loss is
    far below that of fresh weights."""
    found = retrain(dsnas.path, protocol={**FEW, "lr": 1e-12}, out=tmp_path / "on")
    kept, before = found.run.weights(), inherited(dsnas, found.arch, found.space).state_dict()
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(kept[name], value, rtol=0, atol=1e-6)
    fresh = retrain(dsnas.path, protocol={**FEW, "lr": 1e-12, "start": "fresh"}, fields={"width": 4, "cells": 1})
    assert found.record["train_loss"] < fresh.record["train_loss"]


def test_it_resumes_and_can_be_repeated(dsnas, tmp_path):
    through = retrain(dsnas.path, protocol={**FEW, "epochs": 2}, out=tmp_path / "through")
    recipe = Run.open(tmp_path / "through").recipe()
    assert recipe.retrain["start"] == "inherited"
    again = tmp_path / "again"
    begun = Run.create(again)
    begun.write("recipe.toml", recipe.toml())
    assert resume(again).record["train_loss"] == through.record["train_loss"]
    repeated = retrain(tmp_path / "through", protocol={"epochs": 2})
    assert repeated.record["train_loss"] == through.record["train_loss"]


def test_any_supernet_can_be_trained_on_and_any_answer_fresh(supernet, dsnas):
    assert "start" not in plan(supernet.path).retrain
    assert plan(supernet.path).space["cells"] == 5
    assert plan(supernet.path, protocol={"start": "inherited"}).space["cells"] == 1
    assert plan(dsnas.path, protocol={"start": "fresh"}).space["cells"] == 5


def test_what_a_recipe_says_of_a_fresh_network_does_not_stand_in_the_way(tmp_path):
    """Its stand-alone size, head and drop path are for a network that starts afresh; a head that is asked for is
    fresh."""
    recipe = gapless.Recipe(
        space={"name": "darts", "width": 4, "cells": 3},
        method={"name": "dsnas"},
        train={"epochs": 1, "batch": 32},
        data={"name": "digits", "train_images": 64, "test_images": 40},
        retrain={"protocol": "cifar", "drop_path": 0.3, "aux_weight": 0.4, "space": {"cells": 5, "width": 8}},
        run={"threads": 1},
    )
    run = gapless.search(recipe, out=tmp_path / "run").run
    on = plan(run.path, protocol=FEW)
    assert (on.space["cells"], on.space["width"], on.space["auxiliary"]) == (3, 4, False)
    assert (on.retrain["aux_weight"], on.retrain["drop_path"]) == (0.0, 0.0)
    fresh = plan(run.path, protocol={**FEW, "start": "fresh"})
    assert (fresh.space["cells"], fresh.space["width"], fresh.space["auxiliary"]) == (5, 8, True)
    headed = retrain(run.path, protocol={**FEW, "aux_weight": 0.4, "batch": 16})
    assert headed.space.auxiliary


def test_sizes_and_limits_are_those_of_the_network_that_trains_on(tmp_path):
    """A limit that a full-size network of the space breaks is held at the size of the search, and that size is told."""

    def recipe(**retrain):
        return gapless.Recipe(
            space={"name": "nasbench201", "width": 4, "cells": 1},
            method={"name": "dsnas"},
            train={"epochs": 1, "batch": 32},
            data={"name": "digits", "train_images": 64, "test_images": 40},
            limit={"macs": "400k"},
            retrain=retrain,
            run={"threads": 1},
        )

    found = gapless.search(recipe(), out=tmp_path / "run")
    (held,) = found.limits
    assert held.cost == found.summary()["macs"] <= 400_000
    trained = retrain(found.run.path, protocol=FEW)
    assert trained.summary()["macs"] == held.cost
    assert SearchResult.read(found.run).summary()["macs"] == held.cost
    with pytest.raises(UserError, match="No architecture of nasbench201 has at most 400,000 MACs"):
        gapless.search(recipe(start="fresh"))


def test_what_cannot_be_is_a_sentence(dsnas, tmp_path):
    with pytest.raises(UserError, match=r"`cells` cannot be changed: .* `retrain.start` to fresh"):
        plan(dsnas.path, fields={"cells": 2})
    with pytest.raises(UserError, match="give its run folder"):
        plan(
            "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", data={"name": "digits"}, protocol={"start": "inherited"}
        )
    drawn = gapless.search(
        gapless.Recipe(
            space={"name": "nasbench201", "width": 4, "cells": 1},
            method={"name": "random"},
            data={"name": "digits", "train_images": 100, "test_images": 40},
        ),
        out=tmp_path / "random",
    )
    assert "start" not in plan(drawn.run.path).retrain
    with pytest.raises(UserError, match="random trains no supernet"):
        plan(drawn.run.path, protocol={"start": "inherited"})
    with pytest.raises(UserError, match="`start` must be one of fresh, inherited"):
        plan(dsnas.path, protocol={"start": "warm"})
    (dsnas.path / "weights.safetensors").rename(tmp_path / "kept")
    try:
        with pytest.raises(UserError, match="its supernet is gone"):
            plan(dsnas.path)
    finally:
        (tmp_path / "kept").rename(dsnas.path / "weights.safetensors")
