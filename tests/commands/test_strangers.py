"""Nothing from a stranger is executed, and nothing is written outside of a folder."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gapless.core import catalogue
from gapless.core.errors import Untrusted, UserError
from gapless.runs.checked import component
from gapless.runs.comparison import Comparison
from gapless.runs.recipe import Recipe

TINY = ("--space.width", 4, "--space.cells", 1, "--data.train_images", 60, "--data.test_images", 20, "--threads", 1)
METHOD = """
from gapless.searchers.random import Random
from pathlib import Path

Path("executed").touch()

class Mine(Random):
    label = "mine"

METHOD = Mine
"""
SPACE = """
from dataclasses import dataclass
from pathlib import Path
from gapless.spaces.nasbench201 import NASBench201

Path("executed").touch()

@dataclass(frozen=True, kw_only=True)
class Mine(NASBench201):
    \"\"\"A space of one's own.\"\"\"
    label = "mine"

SPACE = Mine
"""


@pytest.fixture
def executed(tmp_path):
    """Return whether the code of an outside file has run since the last time."""

    def look():
        there = (tmp_path / "executed").exists()
        (tmp_path / "executed").unlink(missing_ok=True)
        return there

    return look


@pytest.fixture(params=["method", "space"])
def run(request, gapless, tmp_path, executed):
    """A finished run whose method, or space, is a file of the user's."""
    (tmp_path / "mine.py").write_text(METHOD if request.param == "method" else SPACE)
    given = {"method": ("--method", "./mine.py"), "space": ("--space", "./mine.py", "--method", "random")}
    assert gapless("search", *given[request.param], *TINY, "--out", "run")[0] == 0, "what is typed needs no permission"
    assert executed()
    return request.param


def test_a_run_is_read_and_drawn_without_its_code(gapless, run, executed, tmp_path):
    for words in (("show", "run"), ("report", "run"), ("evaluate", "run"), ("show", "run", "--out", "cell.png")):
        status, _, err = gapless(*words)
        assert (status, err) == (0, ""), words
        assert not executed(), words
    before = gapless("evaluate", "run", "--json")[1]
    assert gapless("evaluate", "run", "--trust", "--json")[1] == before, "the sizes are those that were recorded"


def test_what_runs_its_code_asks_first(gapless, run, executed, tmp_path):
    both = (("export", "run", "--format", "py"), ("retrain", "run", "--epochs", 1, "--data", "digits"))
    for words in both if run == "space" else ():  # a network of a space of ours needs no code of a method
        status, _, err = gapless(*words, "--out", "out")
        assert status == 2 and "mine.py" in err and "--trust" in err and "SHA-256" in err, words
        assert not executed() and not (tmp_path / "out").exists()
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "arch.json").unlink()
    status, _, err = gapless("resume", "run")
    assert status == 2 and "--trust" in err and not executed()
    assert gapless("resume", "run", "--trust")[0] == 0 and executed()
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "arch.json").unlink()
    (tmp_path / "mine.py").write_text(METHOD + "# changed\n")
    status, _, err = gapless("resume", "run", "--trust")
    assert status == 2 and "was changed since" in err and not executed()


def test_a_recipe_asks_too_and_means_files_beside_it(gapless, executed, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text(METHOD)
    (tmp_path / "mine.py").write_text("raise SystemExit('the wrong file')")
    recipe = tmp_path / "theirs" / "r.toml"
    small = "[space]\nname = 'nasbench201'\n[data]\ntrain_images = 60\n[run]\nthreads = 1\n"
    for text in (
        f"{small}[method]\nname = './mine.py'\n",
        f"{small}[method]\nname = 'random'\n[methods.'./mine.py']\n",
    ):
        recipe.write_text(text)
        for words in (("search", recipe, "--help"), ("search", recipe, "--out", "run"), ("compare", recipe)):
            status, _, err = gapless(*words)
            assert status == 2 and str(tmp_path / "theirs" / "mine.py") in err and "--trust" in err, words
            assert not executed() and not (tmp_path / "run").exists()
    recipe.write_text(f"{small}[method]\nname = './mine.py'\n")
    status, _, err = gapless("search", recipe, "--trust", "--out", "run")
    assert (status, err) == (0, "") and executed()


def test_trust_is_for_the_block_alone():
    assert not catalogue.trusted()
    with catalogue.trusting():
        assert catalogue.trusted()
    assert not catalogue.trusted()


LINKED = (
    "trace.jsonl", "checkpoint.pt", "weights.safetensors", "arch.json", "machine.json", "cell.svg", "scores.svg",
    "report.html", "recipe.toml", "training.svg", "gap.json", "gap.md", "gap-chain.svg",
)  # fmt: skip


def test_links_in_a_run_folder_are_not_followed(gapless, tmp_path):
    search = ("search", *TINY, "--epochs", 1, "--train.batch", 16, "--execution", "reference")
    assert gapless(*search, "--out", "run")[0] == 0
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    for name in LINKED:
        (outside / name).write_text("mine")
        for link in (f".{name}.tmp", name):
            if not (run / link).exists() or name.endswith(".svg"):
                (run / link).unlink(missing_ok=True)
                (run / link).symlink_to(outside / name)
    (outside / "tensorboard").mkdir()
    (outside / "tensorboard" / "events.out.tfevents.1").write_text("mine")
    (run / "tensorboard").symlink_to(outside / "tensorboard")
    status, _, err = gapless("show", "run", "--tensorboard")
    assert status == 2 and "tensorboard cannot be written" in err
    status, _, err = gapless("gap", "run", "--archs", 2, "--images", 10, "--budgets", 1, "--threads", 1)
    assert status == 0, err
    status, _, err = gapless("report", "run")
    assert status == 0, err
    for name in ("cell.svg", "scores.svg", "training.svg", "report.html", "gap.json", "gap.md", "gap-chain.svg"):
        assert (run / name).is_file() and not (run / name).is_symlink(), name
    (run / "manifest.json").unlink()
    (run / "arch.json").unlink()
    (run / "arch.json").symlink_to(outside / "arch.json.not")
    gapless("resume", "run")
    for path in outside.rglob("*"):
        assert path.is_dir() or path.read_text() == "mine", path


def test_jobs_import_nothing_from_the_folder_of_the_caller(tmp_path):
    for name in ("random", "types", "numpy", "torch", "gapless"):
        (tmp_path / f"{name}.py").write_text("import os; os.write(1, b'hijacked'); os._exit(7)")
    code = (
        "import os, sys, random, types, numpy, torch; from pathlib import Path; from gapless.studies.jobs import Here, Job\n"
        f"os.chdir({str(tmp_path)!r}); sys.path.insert(0, '')\n"
        "print(Here(1).run([Job('a', os.mkdir, {'path': 'made'}, Path('logs/a.log'))], lambda job, came: None))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "state='ended'" in done.stdout, (tmp_path / "logs" / "a.log").read_text()
    assert os.path.isdir(tmp_path / "made")


def test_the_searcher_of_a_method_is_code_as_the_method_is(gapless, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('hurt', 'w')\n")
    recipe = '[space]\nname = "nasbench201"\n[method]\nname = "spos"\nsearcher = "./evil.py"\n[data]\nname = "digits"\n'
    (tmp_path / "r.toml").write_text(recipe)
    status, _, err = gapless("search", "r.toml", "--out", "run")
    assert status == 2 and "evil.py" in err and "--trust" in err
    assert not (tmp_path / "hurt").exists() and not (tmp_path / "run").exists()


COMPARISON = """
[comparison]
methods = ["{method}"]
seeds = [0]
data = ["digits"]
baseline = "{method}"
table = "{table}"
columns = []
retrain = false

[space]
name = "{space}"
{more}
"""
PLACES = {
    "method": {"method": "./evil.py"},
    "space": {"space": "./evil.py"},
    "table": {"table": "./evil.py:x"},
    "score": {"more": "[score]\nname = './evil.py'"},
    "file of a score": {"more": "[score]\nname = 'table'\nfile = './evil.py:x'"},
    "searcher": {"method": "fairnas", "more": "[methods.fairnas]\nsearcher = './evil.py'"},
}


@pytest.mark.parametrize("place", PLACES)
def test_the_folder_of_a_comparison_executes_nothing(gapless, tmp_path, place):
    """Wherever it names a file: also a command that forgets to ask is refused."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "evil.py").write_text("open('hurt', 'w')\n")
    settings = {"method": "random", "table": "", "space": "nasbench201", "more": ""} | PLACES[place]
    (tmp_path / "theirs" / "comparison.toml").write_text(COMPARISON.format(**settings))
    for words in (("compare", "theirs", "--help"), ("compare", "theirs"), ("report", "theirs"), ("show", "theirs")):
        status, _, err = gapless(*words)
        assert not (tmp_path / "hurt").exists(), words
        if words == ("compare", "theirs"):
            assert status == 2 and "evil.py" in err and "--trust" in err


def test_a_file_is_executed_as_it_was_compared(tmp_path):
    """Neither what changes between the two nor what Python caches beside the file."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(METHOD.replace('Path("executed").touch()', "VALUE = 1"))
    assert catalogue.find(str(plugin), "searchers").label == "mine"
    assert not (tmp_path / "__pycache__").exists()
    catalogue.suspect(str(plugin))
    with pytest.raises(Untrusted, match="may not run.*`trust`"):
        catalogue.find(str(plugin), "searchers")
    catalogue.permit(str(plugin), catalogue.fingerprint(plugin))
    assert catalogue.find(str(plugin), "searchers").label == "mine"
    plugin.write_text("open('hurt', 'w')\n")
    with catalogue.trusting(), pytest.raises(Untrusted, match="changed since it was permitted"):
        catalogue.find(str(plugin), "searchers")


def test_a_comparison_goes_on_with_the_code_that_it_began_with(gapless, inside, executed, tmp_path):
    (tmp_path / "mine.py").write_text(METHOD)
    words = ("compare", "--methods", "./mine.py", "--seeds", 0, *TINY, "--out", "all")
    assert gapless(*words)[0] == 0
    (tmp_path / "mine.py").write_text(METHOD + "# changed\n")
    executed()
    status, _, err = gapless("compare", "all", "--seeds", "0,1", "--trust")
    assert status == 2 and "was changed since" in err and not executed()


@pytest.mark.parametrize("name", ["evil.py.py", "d.pyx/evil.py", ".pyenv/evil.py", "a.py:b.py", "up/../evil.py", ".py"])
def test_names_that_hold_the_ending_more_than_once(gapless, tmp_path, name):
    """Who asks and who runs go by one rule, and what is shown is what would run."""
    path = tmp_path / "theirs" / name
    (tmp_path / "theirs" / "up").mkdir(parents=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text("open('hurt', 'w')\n")
    recipe = tmp_path / "theirs" / "r.toml"
    recipe.write_text(f"[space]\nname = './{name}'\n[method]\nname = 'random'\n[data]\nname = 'digits'\n")
    for words in (("search", recipe, "--help"), ("search", recipe, "--out", "run"), ("compare", recipe)):
        status, _, err = gapless(*words)
        assert status == 2 and "--trust" in err and path.name in err, err
        assert not (tmp_path / "hurt").exists()
    (tmp_path / "theirs" / "comparison.toml").write_text(
        COMPARISON.format(method="random", space="nasbench201", more="", table=f"./{name}:x")
    )
    gapless("report", "theirs")
    assert not (tmp_path / "hurt").exists()


def test_a_link_that_is_turned_after_it_was_read_is_not_followed(tmp_path):
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "evil.py").write_text("open('hurt', 'w')\n")
    path = tmp_path / "r.toml"
    path.write_text("[space]\nname = 'nasbench201'\n[method]\nname = './mine.py'\n")
    recipe = Recipe.read(path)
    (tmp_path / "mine.py").unlink()
    (tmp_path / "mine.py").symlink_to("evil.py")
    with pytest.raises(Untrusted):
        component(recipe, "method", "methods", "searchers")
    with pytest.raises(Untrusted):
        catalogue.find(str(tmp_path / "mine.py"), "methods")


def test_code_that_changes_during_a_comparison_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(METHOD.replace('Path("executed").touch()', ""))
    base = Recipe(space={"name": "nasbench201"})
    asked = Comparison.of(base, (str(tmp_path / "mine.py"), "random"), (0, 1), ("digits",))
    first, *_, last = asked.cells()
    asked.recipe_of(first)
    (tmp_path / "mine.py").write_text(METHOD + "# changed\n")
    with pytest.raises(UserError, match="was changed since"):
        asked.recipe_of(replace(last, method=first.method))
    left = Comparison.of(base, ("random",), (0,), ("digits",)).keeping(asked)
    assert left.recipe.outside == asked.recipe.outside, "also while a call leaves the method out"


def test_a_comparison_of_files_of_ones_own_goes_on(gapless, inside, tmp_path):
    (tmp_path / "mine.py").write_text(SPACE.replace('Path("executed").touch()', ""))
    words = ("compare", "--space", "./mine.py", "--methods", "random", *TINY, "--out", "all")
    for seeds in ("0", "0", "0,1"):
        status, _, err = gapless(*words, "--seeds", seeds)
        assert (status, err) == (0, "")
