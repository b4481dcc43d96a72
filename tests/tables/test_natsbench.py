"""Files in the official format, built with the package's own classes and read by its own reader."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gapless.commands import table as commands
from gapless.core.errors import UserError
from gapless.studies.tables import import_table, show_table
from gapless.tables import load
from gapless.tables.nasbench201 import CELLS
from gapless.tables.official import natsbench

package = pytest.importorskip("nats_bench")

A = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
ARCHS = (A, SKIP, NONE)

LAST = {
    ("cifar10-valid", "x-valid"): 90.0,
    ("cifar10-valid", "ori-test"): 10.0,  # trained on half of the images: in no column
    ("cifar10", "ori-test"): 93.0,
    ("cifar100", "ori-test"): 20.0,  # x-valid and x-test together: in no column
    ("cifar100", "x-valid"): 70.0,
    ("cifar100", "x-test"): 71.0,
    ("ImageNet16-120", "ori-test"): 30.0,
    ("ImageNet16-120", "x-valid"): 44.0,
    ("ImageNet16-120", "x-test"): 45.0,
}
"""Accuracy of the first cell with the first seed after 200 epochs; each cell has 1 less than the one before, 12 epochs 30
less, and every earlier epoch 1."""
SEEDS = {
    "200": {"cifar10-valid": (777, 888), "cifar10": (777, 888, 999), "cifar100": (777, 999), "ImageNet16-120": (777,)},
    "12": {"cifar10-valid": (777,), "cifar10": (777,), "cifar100": (777,), "ImageNet16-120": (777,)},
}
MORE = {777: 0.0, 888: 0.5, 999: 1.6}
"""What a seed has more than the first one."""
EXPECTED = {
    "cifar10_valid_200": 90.25,  # (90 + 90.5) / 2
    "cifar10_test_200": 93.7,  # (93 + 93.5 + 94.6) / 3
    "cifar100_valid_200": 70.8,  # (70 + 71.6) / 2
    "cifar100_test_200": 71.8,
    "imagenet16_valid_200": 44.0,
    "imagenet16_test_200": 45.0,
    "cifar10_valid_12": 60.0,
    "cifar10_test_12": 63.0,
    "cifar100_valid_12": 40.0,
    "cifar100_test_12": 41.0,
    "imagenet16_valid_12": 14.0,
    "imagenet16_test_12": 15.0,
}
"""Of the first cell."""


def trial(cell: int, epochs: int, data: str, seed: int):
    """Return one training as the package keeps it."""
    run = package.ResultsCount(data, None, None, None, 1.2, 180.0, {"arch_str": ARCHS[cell]}, seed, epochs, [0.01])
    run.update_train_info(*[dict.fromkeys(range(epochs), 99.0)] * 4)
    names = [name for trained, name in LAST if trained == data]
    accuracies = {f"{name}@{e}": 1.0 for name in names for e in range(epochs)}
    for name in names:
        less = cell + (30 if epochs == 12 else 0)
        accuracies[f"{name}@{epochs - 1}"] = LAST[data, name] - less + MORE[seed]
    rest = dict.fromkeys(accuracies, 0.5)
    run.update_eval(accuracies, rest, rest)
    return run


def results(cell: int, spoil=None) -> dict:
    """Return epochs -> state of a cell's results; ``spoil(results by epochs)`` may change them first."""
    found = {}
    for epochs, by_data in SEEDS.items():
        found[epochs] = package.ArchResults(cell, ARCHS[cell])
        for data, seeds in by_data.items():
            for seed in seeds:
                found[epochs].update(data, seed, trial(cell, int(epochs), data, seed))
    if spoil is not None:
        spoil(found)
    return {epochs: result.state_dict() for epochs, result in found.items()}


def save(path: Path, value) -> None:
    assert path.name.endswith(".pickle.pbz2")
    package.pickle_save(value, str(path).removesuffix(".pbz2"))


def folder(path: Path, cells=(0, 1, 2), archs=ARCHS, spoil=None, name="{:06d}.pickle.pbz2") -> Path:
    path.mkdir(parents=True)
    save(path / "meta.pickle.pbz2", {"meta_archs": list(archs), "total_archs": len(archs)})
    for cell in cells:
        save(path / name.format(cell), results(cell, spoil if cell == 1 else None))
    return path


def single(path: Path, cells=(0, 1, 2)) -> Path:
    infos = {cell: results(cell) for cell in cells}
    save(path, {"meta_archs": list(ARCHS), "arch2infos": infos, "evaluated_indexes": set(infos)})
    return path


@pytest.fixture
def official(tmp_path) -> Path:
    return folder(tmp_path / "NATS-tss-v1_0-3ffb9-simple")


# ---------------------------------------------------------------------- what is read


@pytest.mark.parametrize("form", ["folder", "short names", "single"])
def test_every_column_by_hand(form, tmp_path):
    if form == "single":
        path = single(tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2")
    else:
        path = folder(tmp_path / "x", name="{:06d}.pickle.pbz2" if form == "folder" else "{:d}.pickle.pbz2")
    heard = []
    found = natsbench.read(path, trust=True, told=lambda *at: heard.append(at))
    assert found.index == (0, 1, 2)
    assert found.archs == ARCHS
    assert list(found.columns) == list(EXPECTED)
    for name, first in EXPECTED.items():
        assert found.columns[name] == pytest.approx((first, first - 1, first - 2), abs=1e-12)
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_the_columns_are_those_of_the_packages_own_queries(official):
    """Valid and test as the package names them when asked in those words."""
    found = natsbench.read(official, trust=True)
    api = package.create(str(official), "tss", fast_mode=True, verbose=False)
    names = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16": "ImageNet16-120"}
    for name, values in found.columns.items():
        data, kind, epochs = name.split("_")
        assert api.find_best(names[data], kind, hp=epochs) == (0, pytest.approx(values[0], abs=1e-12))


def test_one_seed_is_not_the_mean(official):
    """What the package's get_more_info gives by default is one seed, drawn anew each time."""
    api = package.create(str(official), "tss", fast_mode=True, verbose=False)
    drawn = {round(api.get_more_info(0, "cifar10", hp="200")["test-accuracy"], 6) for _ in range(60)}
    assert drawn == {93.0, 93.5, 94.6}


def test_the_table_says_where_it_is_from(official, tmp_path):
    import_table(official, tmp_path / "a.parquet", trust=True)
    told = load(tmp_path / "a.parquet").provenance
    assert told["source"] == "NATS-tss-v1_0-3ffb9-simple"
    assert told["cells"] == 3
    assert told["means"].startswith("arithmetic mean over all seeds")
    assert set(told["versions"]) == {"gapless", "nats-bench", "numpy", "pyarrow", "python"}
    assert told["sets"]["cifar10_test_200"] == "ori-test of cifar10"
    assert told["sets"]["cifar10_valid_12"] == "x-valid of cifar10-valid"
    assert told["sets"]["imagenet16_test_200"] == "x-test of ImageNet16-120"
    assert told["seeds"]["cifar10_test_200"] == {"3": 3}
    assert told["seeds"]["cifar10_test_12"] == {"1": 3}
    assert str(tmp_path) not in json.dumps(told)
    digest = told["sha256"]
    save(
        official / "000002.pickle.pbz2",
        results(2, lambda found: found["12"].update("extra", 1, trial(2, 12, "cifar10", 777))),
    )
    assert natsbench.read(official, trust=True).provenance["sha256"] != digest


# ---------------------------------------------------------------------- parts of it


def test_a_part_is_imported_with_a_warning_and_read(tmp_path):
    path = folder(tmp_path / "part", cells=(0, 2))
    done = import_table(path, tmp_path / "a.parquet", trust=True)
    assert (done.cells, len(done.columns), len(done.warnings)) == (2, 12, 1)
    assert "part gave 2 of 15,625 cells" in done.warnings[0]
    loaded = load(tmp_path / "a.parquet")
    assert loaded.archs == (A, NONE)
    assert loaded.row(loaded.parse(A))["cifar10_test_200"] == 93.7
    assert [loaded.rank(loaded.parse(arch), "cifar10_test_200") for arch in (A, NONE)] == [1, 2]
    assert pq.read_table(tmp_path / "a.parquet")["index"].to_pylist() == [0, 2]


def test_the_whole_benchmark_has_no_warning(official, monkeypatch):
    monkeypatch.setattr(natsbench, "CELLS", 3)
    assert natsbench.read(official, trust=True).warnings == ()


def test_a_cell_that_lacks_results_is_left_out(tmp_path):
    path = folder(tmp_path / "x", spoil=lambda found: found.pop("12"))
    found = natsbench.read(path, trust=True)
    assert found.index == (0, 2)
    assert any("1 cells were left out" in sentence for sentence in found.warnings)


def test_a_seed_without_the_set_makes_the_cell_incomplete(tmp_path):
    """The package raises for such a mean; a mean over the other seeds would be another quantity."""

    def spoil(found):
        found["200"].query("cifar100", 999).eval_names.remove("x-test")

    assert natsbench.read(folder(tmp_path / "x", spoil=spoil), trust=True).index == (0, 2)


def test_a_column_that_no_cell_has_is_missing(tmp_path):
    path = folder(tmp_path / "x", cells=(1,), spoil=lambda found: found.pop("12"))
    found = natsbench.read(path, trust=True)
    assert list(found.columns) == [name for name in EXPECTED if name.endswith("_200")]
    assert any("No cell has results for cifar10_valid_12" in sentence for sentence in found.warnings)


# ---------------------------------------------------------------------- trust


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_runs_without_trust(official, tmp_path):
    save(official / "meta.pickle.pbz2", {"meta_archs": list(ARCHS), "more": Evil(tmp_path / "ran")})
    with pytest.raises(UserError, match="runs whatever its author put into it.*`trust`"):
        import_table(official, tmp_path / "a.parquet")
    assert not (tmp_path / "ran").exists()
    import_table(official, tmp_path / "a.parquet", trust=True)
    assert (tmp_path / "ran").exists()


# ---------------------------------------------------------------------- errors


def wrong(path, match, tmp_path):
    with pytest.raises(UserError, match=match):
        import_table(path, tmp_path / "out.parquet", trust=True)
    assert not list(tmp_path.glob("*.parquet")) and not list(tmp_path.glob(".*.tmp"))


def test_without_the_package(official, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    wrong(official, r"pip install 'gapless\[nats-bench\]'", tmp_path)


def test_wrong_places(official, tmp_path):
    wrong(tmp_path / "nothing", "There is no .*NATS-tss-v1_0-3ffb9-simple", tmp_path)
    wrong(tmp_path, r"Did you mean .*NATS-tss-v1_0-3ffb9-simple\?", tmp_path)
    (tmp_path / "empty").mkdir()
    wrong(tmp_path / "empty", "holds no meta.pickle.pbz2, so it is no folder of NATS-Bench. Give", tmp_path)
    (tmp_path / "NATS-tss-v1_0-3ffb9-simple.tar").write_bytes(b"")
    wrong(tmp_path / "NATS-tss-v1_0-3ffb9-simple.tar", "Unpack it first: tar xf", tmp_path)
    (tmp_path / "NAS-Bench-201-v1_1-096897.pth").write_bytes(b"")
    wrong(tmp_path / "NAS-Bench-201-v1_1-096897.pth", "is no .pickle.pbz2 file", tmp_path)


def test_the_size_search_space(tmp_path):
    (tmp_path / "NATS-sss-v1_0-50262-simple").mkdir()
    wrong(tmp_path / "NATS-sss-v1_0-50262-simple", "size search space", tmp_path)
    wrong(folder(tmp_path / "renamed", cells=(), archs=("8:8:16:64:8",)), "'8:8:16:64:8'.* size search space", tmp_path)
    wrong(folder(tmp_path / "else", cells=(), archs=(A[:-1],)), "is no cell of the topology search space", tmp_path)


def test_damage(tmp_path):
    (tmp_path / "cut.pickle.pbz2").write_bytes(single(tmp_path / "x.pickle.pbz2").read_bytes()[:-50])
    wrong(tmp_path / "cut.pickle.pbz2", "cannot be read as a file of NATS-Bench.*Download it again", tmp_path)
    save(tmp_path / "list.pickle.pbz2", [1, 2])
    wrong(tmp_path / "list.pickle.pbz2", "cannot be read as a file of NATS-Bench", tmp_path)
    path = folder(tmp_path / "a")
    (path / "000001.pickle.pbz2").write_bytes(b"nonsense")
    wrong(path, "000001.pickle.pbz2 cannot be read as a file of NATS-Bench", tmp_path)
    infos = {7: results(0)}
    save(tmp_path / "seven.pickle.pbz2", {"meta_archs": list(ARCHS), "arch2infos": infos, "evaluated_indexes": {7}})
    wrong(tmp_path / "seven.pickle.pbz2", "Cell 7 of .* cannot be read", tmp_path)
    wrong(folder(tmp_path / "empty", cells=()), "holds no cell with results", tmp_path)


def other_arch(found):
    found["200"].arch_str = NONE


def too_good(found):
    found["12"].query("cifar10", 777).eval_acc1es["ori-test@11"] = 100.5


def not_a_number(found):
    found["12"].query("cifar100", 777).eval_acc1es["x-test@11"] = float("nan")


def short(found):
    found["200"] = found["12"]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (other_arch, "its results are those of"),
        (too_good, "accuracy is 100.5"),
        (not_a_number, "accuracy is nan"),
        (short, "filed under 200 epochs have 12"),
    ],
)
def test_results_that_cannot_be(spoil, match, tmp_path):
    wrong(folder(tmp_path / "x", spoil=spoil), f"Cell 1 of .*{match}", tmp_path)


def test_what_is_there_is_not_replaced_and_nothing_half_is_left(official, tmp_path, monkeypatch):
    out = tmp_path / "a.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="already there"):
        import_table(official, out, trust=True)
    assert out.read_bytes() == b"mine"
    with pytest.raises(UserError, match="no folder"):
        import_table(official, tmp_path / "no" / "a.parquet", trust=True)
    with pytest.raises(UserError, match="must be a Parquet file"):
        import_table(official, tmp_path / "a.csv", trust=True)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        import_table(official, tmp_path / "b.parquet", trust=True)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.parquet"]


# ---------------------------------------------------------------------- showing


def test_show_by_hand(official, tmp_path):
    """Three cells with v, v - 1 and v - 2: the tenth percentile lies a fifth of the way from the worst to the middle."""
    import_table(official, tmp_path / "accuracy.parquet", trust=True)
    found = show_table(tmp_path)
    assert (found["cells"], list(found["columns"])) == (3, list(EXPECTED))
    for name, v in EXPECTED.items():
        column = found["columns"][name]
        assert (column["best"], column["arch"]) == (v, A)
        assert column["percentiles"] == pytest.approx({"10": v - 1.8, "50": v - 1, "90": v - 0.2}, abs=1e-9)
    assert found["provenance"] == natsbench.read(official, trust=True).provenance


def test_show_the_table_of_others(table_file):
    found = show_table(table_file)
    assert found["cells"] == CELLS
    best = [found["columns"][f"{name}_test_200"]["best"] for name in ("cifar10", "cifar100", "imagenet16")]
    assert np.round(best, 2).tolist() == [94.37, 73.51, 47.31]
    assert found["columns"]["cifar100_test_200"]["arch"] == A
    assert found["provenance"] == {}


def test_show_what_is_no_table(tmp_path):
    with pytest.raises(UserError, match="no table"):
        show_table(tmp_path / "nothing.parquet")


# ---------------------------------------------------------------------- the commands


def run(*words):
    commands.command(["table"])(
        [str(w) for w in words], exit_on_error=False, print_error=False, result_action="return_value"
    )


def test_the_commands(official, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`trust`"):
        run("import", official)
    run("import", official, "--trust", "--out", "t.parquet", "--json")
    out, err = capsys.readouterr()
    assert err == ""
    assert "Written: t.parquet, 3 cells, 12 accuracies each" in out
    assert "Warning: NATS-tss-v1_0-3ffb9-simple gave 3 of 15,625 cells" in out
    told = json.loads(out.splitlines()[-1])
    assert (told["table"], told["cells"], len(told["warnings"])) == ("t.parquet", 3, 1)
    run("show", "t.parquet", "--json")
    out, _ = capsys.readouterr()
    assert any(
        line.split()[:5] == ["cifar10_test_200", "91.90", "92.70", "93.50", "93.70"] for line in out.splitlines()
    )
    assert "cifar10_test_200: ori-test of cifar10; seeds: 3 cells with 3" in out
    assert json.loads(out.splitlines()[-1])["columns"]["cifar10_test_200"]["best"] == 93.7


def test_the_help_says_what_a_pickle_is(capsys):
    run("import", "--help")
    assert "runs code" in " ".join(capsys.readouterr().out.split())
