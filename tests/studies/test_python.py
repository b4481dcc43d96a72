"""The Python calls behind the commands."""

import pytest

import gapless
from gapless.core.cost import count_params
from gapless.spaces.darts import Darts

TINY = {"space": {"width": 4}, "train": {"epochs": 1}, "data": {"train_images": 60, "test_images": 20}}


def test_search_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    found = gapless.search(gapless.Recipe.read("demo").over(**TINY), on_progress=told.append)
    assert found.run is None
    assert [r.epoch for r in told] == [0]
    assert list(tmp_path.iterdir()) == []
    assert found.space.read(found.summary()["notation"]) == found.arch


def test_a_search_that_diverges_says_so(tmp_path):
    wild = gapless.Recipe.read("demo").over(**{**TINY, "train": {"epochs": 5, "lr": 1e6, "lr_min": 1e6, "clip": 0.0}})
    with pytest.raises(gapless.UserError, match="Try a smaller `lr`"):
        gapless.search(wild)


def test_evaluate_takes_fields(tmp_path):
    small = gapless.evaluate("DARTS_V2", fields={"cells": 8, "width": 16})
    full = gapless.evaluate("DARTS_V2")
    assert small["params"] < full["params"] == 3_349_342
    with pytest.raises(gapless.UserError, match="Did you mean 'cells'"):
        gapless.evaluate("DARTS_V2", fields={"cell": 8})


@pytest.mark.parametrize("option", ["noise", "none"])
def test_evaluate_keeps_the_space_in_which_a_text_was_read(option):
    """Noise is an option of s4, which is retrained smaller; none an answer where every edge is kept."""
    kept = [(option if source else "sep_conv_3x3", source) for _ in range(2, 6) for source in range(2)]
    every = [(option, source) for node in range(2, 6) for source in range(node)]
    pairs = kept if option == "noise" else every
    text = f"Genotype(normal={pairs}, normal_concat=range(2, 6), reduce={pairs}, reduce_concat=range(2, 6))"
    found = gapless.evaluate(text)
    assert option in found["arch"]
    space = Darts(options="s4") if option == "noise" else Darts(inputs=None)
    network = space.alone().network(space.read(text))
    assert found["params"] == count_params(network)


def test_show_says_where(tmp_path):
    path = gapless.show("DARTS_V1", out=tmp_path / "v1.svg")
    assert "max_pool_3x3" in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"LayerChoice_1": "conv"}', "looks like JSON, in which NNI"),
        ("16:40:56:8:64", "the size space of NATS-Bench"),
        ("(1, 2, 3, 4, 0, 1)", "NASLib"),
    ],
)
def test_notations_of_other_libraries_are_recognised(text, said):
    with pytest.raises(gapless.UserError, match=said):
        gapless.evaluate(text)


def test_a_string_of_the_benchmark_is_found_in_a_line_of_a_log():
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert gapless.evaluate(f"[epoch 99] best: {cell} (94.37 %)") == gapless.evaluate(cell)
    other = cell.replace("skip_connect", "none")
    with pytest.raises(gapless.UserError, match="2 different architectures"):
        gapless.evaluate(f"{cell} {other}")
