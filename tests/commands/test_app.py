"""The command line as a user sees it: what it prints, its exit status, what it writes."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from gapless.runs.checked import check_recipe
from gapless.runs.recipe import Recipe, folder

TINY = [
    "--space.width",
    "4",
    "--space.cells",
    "1",
    "--epochs",
    "1",
    "--data.train_images",
    "60",
    "--data.test_images",
    "20",
    "--train.batch",
    "16",
]
CELL_A = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def last_json(out):
    return json.loads(out.strip().splitlines()[-1])


def test_search_writes_a_run_folder_and_says_what_next(gapless, tmp_path):
    status, out, err = gapless("search", *TINY, "--out", "run", "--json")
    assert (status, err) == (0, "")
    told = last_json(out)
    assert {"run", "arch", "notation", "params", "macs", "seconds", "peak_memory_mb"} <= set(told)
    assert told["run"] == "run"
    assert "Next: gapless retrain run" in out
    files = {p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith(".")}
    assert files == {
        "recipe.toml",
        "trace.jsonl",
        "arch.json",
        "weights.safetensors",
        "checkpoint.pt",
        "machine.json",
        "cell.svg",
        "manifest.json",
    }
    trace = [json.loads(line) for line in (tmp_path / "run" / "trace.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in trace] == [0]
    assert trace[-1]["arch"] == told["arch"]
    status, out, _ = gapless("evaluate", "run", "--json")
    assert status == 0
    assert {k: last_json(out)[k] for k in ("arch", "params", "macs")} == {
        k: told[k] for k in ("arch", "params", "macs")
    }
    status, out, _ = gapless("show", "run", "--out", "cell.png", "--json")
    assert status == 0
    assert last_json(out) == {**{k: told[k] for k in ("run", "arch", "notation")}, "picture": "cell.png"}
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_the_resolved_recipe_repeats_the_run(gapless):
    first = last_json(gapless("search", *TINY, "--seed", 3, "--out", "one", "--json")[1])
    second = last_json(gapless("search", "one/recipe.toml", "--out", "two", "--json")[1])
    assert first["arch"] == second["arch"]
    lines = [json.loads(Path(d, "trace.jsonl").read_text().splitlines()[-1]) for d in ("one", "two")]
    for line in lines:
        for name in ("seconds", "images_per_second", "peak_memory_mb"):
            del line[name]
    assert lines[0] == lines[1]
    one, two = load_file("one/weights.safetensors"), load_file("two/weights.safetensors")
    assert one.keys() == two.keys()
    assert all(one[k].equal(two[k]) for k in one)


@pytest.mark.parametrize("method", ["darts", "drnas", "dropnas", "random"])
@pytest.mark.parametrize("space", ["nasbench201", pytest.param("darts", marks=pytest.mark.full)])
def test_every_method_runs_on_both_spaces(gapless, method, space):
    tiny = [
        "3" if space == "darts" and word == "1" and TINY[i - 1] == "--space.cells" else word
        for i, word in enumerate(TINY)
    ]
    status, out, err = gapless("search", "--space", space, "--method", method, *tiny, "--out", "run", "--json")
    assert (status, err) == (0, "")
    assert last_json(out)["params"] > 0


BLOCKS = {
    "shufflenet": ("--space.width 0.125 --space.widths 64 160 --space.repeats 2 1 --space.strides 1 2 1", 3),
    "mobile": (
        "--space.width 0.1 --space.variant proxyless --space.layers 2 1 1 1 1 1 --space.strides 1 2 1 2 1 1 1",
        7,
    ),
}


@pytest.mark.parametrize(
    ("space", "method"), [("shufflenet", "darts"), pytest.param("mobile", "dropnas", marks=pytest.mark.full)]
)
def test_blocks_go_all_the_way_from_search_to_export(gapless, tmp_path, space, method):
    typed, count = BLOCKS[space]
    fields = typed.split()
    few = ["--epochs", "1", "--data.train_images", "60", "--data.test_images", "20"]
    search = ["search", "--space", space, "--method", method, *fields, *few, "--data", "digits", "--train.batch", "16"]
    status, out, err = gapless(*search, "--out", "run", "--json")
    assert (status, err) == (0, "")
    found = last_json(out)
    assert found["arch"].count("=") == count
    assert "cell.svg" in {p.name for p in (tmp_path / "run").iterdir()}
    status, out, err = gapless(
        "retrain", "run", *few, "--retrain.batch", "16", *fields[:2], "--out", "trained", "--json"
    )
    assert (status, err) == (0, "")
    trained = last_json(out)
    assert trained["arch"] == found["arch"]
    assert trained["params"] < found["params"], "the second is at the paper's width"
    status, out, err = gapless("export", "trained", "--format", "py,torch", "--out", "exported", "--json")
    assert (status, err) == (0, "")
    assert last_json(out)["differences"] == {"py": 0.0, "torch": 0.0}
    status, out, err = gapless("export", "run", "--inherit", "--out", "inherited", "--json")
    assert (status, last_json(out)["weights"], last_json(out)["notation"]) == (0, "inherited", found["notation"])
    text = gapless("evaluate", found["notation"], *fields, "--space.channels", "1", "--space.size", "8", "--json")
    assert last_json(text[1])["arch"] == found["arch"], "a text is read in the space that the options describe"


def test_evaluate_knows_the_released_blocks(gapless):
    for name, params, macs in (("SPOS", 3_558_464, 322_918_720), ("FairNAS-A", 4_651_352, 388_122_848)):
        found = last_json(gapless("evaluate", name, "--json")[1])
        assert (found["params"], found["macs"]) == (params, macs)
        assert last_json(gapless("evaluate", found["notation"], "--json")[1]) == found
        assert last_json(gapless("evaluate", found["arch"], "--json")[1]) == found
    deep = f"[{', '.join(['(3, 3)'] * 21)}]"
    found = last_json(gapless("evaluate", deep, "--json")[1])
    assert found["macs"] == 257_422_208, "what fairnas cannot read, proxyless does"


def test_without_out_a_second_run_gets_a_folder_of_its_own(gapless, tmp_path):
    for _ in range(2):
        assert gapless("search", "--method", "random")[0] == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {
        "nasbench201-random-digits-seed0",
        "nasbench201-random-digits-seed0-2",
    }


def test_a_method_and_a_space_from_files_outside(gapless, tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    for page, name in (("add-a-method.md", "mine.py"), ("add-a-space.md", "chain.py")):
        (tmp_path / name).write_text(re.search(r"```python\n(.*?)```", (docs / page).read_text(), re.S).group(1))
    tiny = ["--epochs", "1", "--data.train_images", "60", "--data.test_images", "20"]
    status, out, err = gapless(
        "search", "--method", "./mine.py", "--space", "./chain.py", "--method.hot", "3", *tiny, "--out", "run", "--json"
    )
    assert (status, err) == (0, "")
    assert set(last_json(out)["arch"].split("=")[0]) <= set("block012")
    assert gapless("evaluate", "run")[0] == 0


def test_evaluate_reads_every_notation(gapless, tmp_path):
    (tmp_path / "arch.txt").write_text(CELL_A + "\n")
    for given in (CELL_A, "arch.txt"):
        found = last_json(gapless("evaluate", given, "--json")[1])
        assert (found["params"], found["macs"]) == (1_288_506, 184_730_240)
    assert last_json(gapless("evaluate", found["arch"], "--json")[1])["notation"] == CELL_A
    found = last_json(gapless("evaluate", "DARTS_V2", "--json")[1])
    assert (found["params"], found["macs"]) == (3_349_342, 528_359_040)
    again = last_json(gapless("evaluate", found["notation"], "--json")[1])
    assert again == found


def test_evaluate_at_other_sizes(gapless):
    found = last_json(gapless("evaluate", "DrNAS_imagenet", "--space.stem", "imagenet", "--json")[1])
    assert (found["params"], found["macs"]) == (5_726_368, 624_405_504)
    smaller = last_json(gapless("evaluate", "DARTS_V2", "--space.cells", 8, "--space.width", 16, "--json")[1])
    assert smaller["params"] < 300_000


def test_evaluate_with_a_table(gapless, table_file):
    found = last_json(gapless("evaluate", CELL_A, "--table", table_file, "--json")[1])["table"]
    assert round(found["cifar10_test_200"], 2) == 94.36
    column = pq.read_table(table_file)["cifar10_test_200"].to_pylist()
    mine = next(v for v in column if abs(v - found["cifar10_test_200"]) < 1e-4)
    assert found["rank"] == 1 + sum(v > mine for v in column) <= 5
    assert found["percentile"] == pytest.approx(100 * sum(v < mine for v in column) / 15625, abs=1e-4)
    status, _, err = gapless("evaluate", CELL_A, "--table", table_file, "--column", "cifar10_test_100")
    assert status == 2
    assert "Did you mean 'cifar10_test_200'" in err


@pytest.mark.parametrize("kind", ["methods", "spaces", "datasets", "recipes"])
def test_list(gapless, kind):
    status, out, _ = gapless("list", kind, "--json")
    assert status == 0
    assert all(source for source in last_json(out)[kind].values())
    assert len(out.strip().splitlines()) == len(last_json(out)[kind]) + 1


WRONG = [
    (("search", "--method", "drna"), "There is no method 'drna'. Did you mean 'drnas'?"),
    (("search", "--space", "dart"), "There is no space 'dart'. Did you mean 'darts'?"),
    (("search", "--space", "patched"), "made in Python"),
    (("search", "--space.widht", "3"), "Did you mean --space.width?"),
    (("search", "--method", "darts", "--method.anchor", "1"), "It is a setting of drnas."),
    (("search", "--epochs", "many"), "many"),
    (("search", "--epochs", "0"), "at least 1"),
    (("search", "--space.width", "0"), "`--space.width` must be at least 1; got 0."),
    (("search", "--train.momentum", "1"), "`--train.momentum` must be at least 0 and less than 1; got 1.0."),
    (("search", "--limit", "50M"), "The `--limit` '50M' is not of the form"),
    (("check", "--data", "digits", "--data.pad", "-1"), "`--data.pad` must be at least 0; got -1."),
    (("gap", "nowhere", "--trainings", "-1"), "`--trainings` must be from 1 to 1,000; got -1."),
    (("search", "--space", "darts", "--space.partial", "3"), "cannot be split"),
    (("search", "--space", "darts", "--space.stem", "cifer"), "cifar"),
    (("search", "--method", "drnas", "--method.progressive", "--epochs", "4"), "warm-up"),
    (
        ("search", "--method", "drnas", "--method.progressive", "--method.partials", "4", "2", "1"),
        "`--method.keep` must be 2 numbers",
    ),
    (("search", "--method", "./nowhere.py"), "There is no file ./nowhere.py"),
    (("search", "nothing"), "There is no recipe 'nothing'"),
    (("search", "nothing.toml"), "There is no recipe file nothing.toml"),
    (("search", "--seed", "3", "demo"), "Put the recipe first: gapless search demo"),
    (("search", "--data", "nowhere/at/all"), "nowhere/at/all"),
    (("search", "--device", "tpu"), "There is no device 'tpu'"),
    (("search", "--precision", "half"), "half"),
    (("evaluate", "DARTS_V3"), "Did you mean 'DARTS_V2'?"),
    (("evaluate", "|conv~0|"), "no operation 'conv'"),
    (("evaluate", "[2, 1, 4]"), "4 stands for no block of shufflenet"),
    (("evaluate", "[(3, 7), (6, 4)]"), "no block (6, 4)"),
    (("evaluate", "FairNAS-D"), "Did you mean 'FairNAS-C'?"),
    (("evaluate", "1.0=k3e6,1.1=k3e4"), "'k3e4' is no answer to '1.1'"),
    (("search", "--space", "shufflenet", "--space.strides", "1", "2"), "one more: the stem's, first"),
    (("search", "--space", "shufflenet", "--space.strides", "1", "two"), "two"),
    (("evaluate", "Genotype(normal=1, reduce=2)"), "must be a list"),
    (("evaluate", "Genotype(normal=__import__('os').getcwd(), reduce=[])"), "is no genotype"),
    (("evaluate", "DARTS_V2", "--table", "x.parquet"), "nasbench201"),
    (("evaluate", CELL_A, "--table", "x.parquet"), "There is no table x.parquet"),
    (("evaluate",), "ARCHITECTURE"),
    (("show", "DARTS_V2", "--out", "cell.gif"), ".svg, .png, .pdf"),
    (("list", "method"), "methods"),
    (("serch",), 'Did you mean "search"?'),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), WRONG, ids=lambda v: " ".join(v)[:60] if isinstance(v, tuple) else None
)
def test_a_wrong_input_is_one_message_status_2_and_nothing_written(gapless, tmp_path, arguments, expected):
    status, _, err = gapless(*arguments)
    assert status == 2
    assert expected in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_as_it_is(gapless, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    status, _, err = gapless("search", *TINY, "--out", "run")
    assert status == 2
    assert "not empty" in err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


BAD_RECIPES = [
    ('[space]\nname = "darts"\n\n[method]\nname = "darts"\nunroled = true\n', "line 6", "unrolled"),
    ('[space]\nname = "darts"\nwidth = "wide"\n[method]\nname = "darts"\n', "line 3", "whole number"),
    ('[space]\nname = "dats"\n[method]\nname = "darts"\n', "line 2", "darts"),
    ('[space]\nname = "darts"\n[metod]\nname = "darts"\n', "line 3", "method"),
    ('[space]\nname = "darts"\n[methods]\nname = "darts"\n', "line 4", "[method]"),
    ('[space]\nname = "darts"\n[method]\nname = "darts"\n[train]\nepoch = 3\n', "line 6", "epochs"),
    ('[space]\nname = "darts"\n[method]\nname = "darts"\n[run]\nsede = 3\n', "line 6", "seed"),
    ('[space]\nname = "darts"\nclasses = 3\n[method]\nname = "darts"\n', "line 3", "read from the data"),
    ('[space]\nname = "darts\n', "line 2", "TOML"),
    (
        '[space]\nname = "darts"\nwidth = 0\n[method]\nname = "darts"\n',
        "r.toml, line 3: `space.width`",
        "at least 1; got 0",
    ),
    ('[space]\nname = "darts"\n[method]\nname = "darts"\n[train]\nlr = -1\n', "r.toml, line 6: `train.lr`", "got -1"),
    ('[space]\nname = "darts"\n[method]\nname = "snas"\ntau = -1\n', "r.toml, line 5: `method.tau`", "got -1"),
    (
        '[space]\nname = "darts"\n[method]\nname = "darts"\n[data]\nname = "digits"\npad = -1\n',
        "line 7: `data.pad`",
        "-1",
    ),
]


@pytest.mark.parametrize(("text", "line", "hint"), BAD_RECIPES)
def test_a_bad_recipe_names_file_and_line(gapless, tmp_path, text, line, hint):
    (tmp_path / "r.toml").write_text(text)
    status, _, err = gapless("search", "r.toml")
    assert status == 2
    assert "r.toml" in err
    assert line in err
    assert hint in err
    assert [p.name for p in tmp_path.iterdir()] == ["r.toml"]


def test_an_option_laid_over_a_recipe_is_named_as_an_option(gapless, tmp_path):
    (tmp_path / "r.toml").write_text('[space]\nname = "darts"\nwidth = 8\n[method]\nname = "darts"\n')
    status, _, err = gapless("search", "r.toml", "--space.width", "0")
    assert (status, err) == (2, "`--space.width` must be at least 1; got 0.\n")


def test_help_follows_the_space_and_the_method(gapless, capsys):
    _, out, _ = gapless("search", "--space", "darts", "--method", "dropnas", "--help")
    assert "--space.stem" in out
    assert "--method.rate_weights" in out
    assert "0.0375" in out
    _, out, _ = gapless("search", "--space", "darts", "--method", "drnas", "--help")
    assert re.search(r"--method.arch_lr.*?default: 0.0006\]", out, re.DOTALL)
    plain = " ".join(out.replace("│", " ").split())
    for shown in ("[from 1 to 1,000,000; default: 50]", "[from 0 to 1,000,000; default: 0.0006]"):
        assert shown in plain
    _, out, _ = gapless("search", "--help")
    assert "--space.stem" not in out
    assert "--method.anchor" in out


@pytest.mark.parametrize(
    ("command", "shown"),
    [("diagnose", "[at least 2"), ("gap", "[from 2 to"), ("compare", "[from 1 to 1,024; default: 1]"), ("retrain", "[from 1 to 1,000,000;")],
)  # fmt: skip
def test_help_shows_the_ranges_of_every_command(gapless, command, shown):
    words = {"diagnose": ["nowhere"], "gap": ["nowhere"], "compare": [], "retrain": ["DARTS_V2"]}[command]
    _, out, _ = gapless(command, *words, "--help")
    plain = " ".join(out.replace("│", " ").split())
    assert shown.replace("at least 2", "from 2 to 1,000,000,000") in plain


def test_every_shipped_recipe_is_sound():
    assert folder()
    for path in folder():
        recipe = Recipe.read(path)
        assert recipe.title
        assert recipe.source
        check_recipe(recipe)


def test_too_little_memory_to_compute_is_said_at_the_start(gapless, tmp_path, monkeypatch):
    """Where the address space is bounded OpenBLAS would wait for ever."""
    monkeypatch.setattr("gapless.commands.failures.address_space", lambda: 10**9)
    status, out, err = gapless("search", "--out", "run")
    assert (status, out) == (2, "") and "may address 0.9 GiB of memory (ulimit -v)" in err
    assert not (tmp_path / "run").exists()
    assert gapless("list", "methods")[0] == 0


def test_that_memory_is_short_is_said_whatever_else_fails(gapless, monkeypatch):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr("gapless.commands.app.bound_app", short)
    monkeypatch.setattr("gapless.commands.failures.memory", short)
    status, _, err = gapless("list")
    assert (status, err) == (2, "There is not enough memory.\n")
