"""An error names parameters, and says so to each of its readers."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import gapless
from gapless.core.errors import UserError

ROOT = Path(gapless.__file__).parent
ALLOWED = {
    "methods/dsnas.py": {"--dsnas"},  # an option of the released code
    "reports/page.py": {"--out", "--data"},  # command lines that repeat a run
    "studies/jobs.py": {"--head"},  # an option of Ray
}
"""File -> options that it may spell."""


def flags(error):
    return error.spelled(lambda name: f"--{name}")


def test_a_message_reads_in_python_as_it_was_written():
    error = UserError("`width` must be at least 1; got 0.", of="space")
    assert str(error) == "`width` must be at least 1; got 0."


@pytest.mark.parametrize(
    ("message", "of", "names", "spelled"),
    [
        ("`width` must be at least 1.", "space", ("space.width",), "`--space.width` must be at least 1."),
        ("`jobs` must be at least 1.", "", ("jobs",), "`--jobs` must be at least 1."),
        (
            "Give more `train.epochs` or a shorter `warmup`.",
            "method",
            ("train.epochs", "method.warmup"),
            "Give more `--train.epochs` or a shorter `--method.warmup`.",
        ),
        ("`tau` is wrong.", "methods.snas", ("methods.snas.tau",), "`--methods.snas.tau` is wrong."),
        (
            "Install with `pip install ray`, or read `README.md`.",
            "",
            (),
            "Install with `pip install ray`, or read `README.md`.",
        ),
        ("width is wrong.", "space", (), "width is wrong."),
    ],
)
def test_a_command_spells_the_names_in_backquotes(message, of, names, spelled):
    error = UserError(message, of=of)
    assert error.names == names
    assert flags(error) == spelled


def test_what_no_option_sets_stays_as_it_was_written():
    error = UserError("`width` and `depth` differ.", of="space")
    assert error.spelled({"space.width": "--space.width"}.get) == "`--space.width` and `depth` differ."


def test_an_error_in_a_recipe_names_the_place_and_the_key():
    error = UserError("`width` must be at least 1; got 0.", of="space")
    assert str(error.at("r.toml, line 3: ")) == "r.toml, line 3: `space.width` must be at least 1; got 0."
    assert error.at("") is error


def test_an_error_comes_whole_from_another_process():
    error = UserError("`width` must be at least 1; got 0.", of="space", where="r.toml, line 3: ")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.of, again.where) == (str(error), "space", "r.toml, line 3: ")


def test_no_text_below_the_commands_spells_an_option():
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("commands/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in comments
        ]
        spelled = {word for text in texts for word in re.findall(r"(?<![\w-])--[a-z][\w.]*", text)}
        assert spelled <= ALLOWED.get(name, set()), name
