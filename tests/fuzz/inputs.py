"""Bad input to every command, drawn by seed: each input is one wrong thing in a command that is right otherwise."""

import inspect
import json
import os
import random
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gapless.commands.app import bound_app

TINY = (
    "--space.width", "4", "--space.cells", "1", "--epochs", "1", "--train.batch", "16", "--data", "digits",
    "--data.train_images", "32", "--data.test_images", "16", "--threads", "1", "--execution", "reference",
)  # fmt: skip
FEW = ("--data", "digits", "--data.train_images", "32", "--data.test_images", "16", "--threads", "1")
NUMBERS = (
    "nan", "inf", "-inf", "1e400", "-1", "-0.5", "10000000000000000000", "9" * 5000, "1e9999", "", " ", "0x10", "1_0",
    "one", "1,5", "1;2", "--1", "true", "None", "٣", "1e-400x", "(1,)", "[1]", "\x1b[2J", "nan nan",
)  # fmt: skip
TEXTS = (
    "", " ", "\x1b[31mred", "a\nb", "x" * 256, "y" * 5000, "../../../nowhere", "~nobody/x", "nul\0byte", "\udcff\udcfe", "🦊",
    "%s%n", "{}", "-", "--", "=1+1", "<script>", "con", "./nowhere.py", "a.py:b", ":", "/", "//", "\\", "'", '"', "$HOME",
)  # fmt: skip
ARCHS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "DARTS_V2", "[2, 1, 0, 3]", "[(3, 7), (6, 5)]", "FairNAS-A",
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])",
)  # fmt: skip
RUN_FILES = ("recipe.toml", "trace.jsonl", "arch.json", "machine.json", "gap.json", "manifest.json")
READERS = ("show", "report", "evaluate", "resume", "export", "gap", "diagnose", "retrain")
DEEP = "[" * 20_000


@dataclass(frozen=True)
class Case:
    """Words of a command, and what is done to the files of its folder before."""

    kind: str
    words: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda where: None


def base(command: str) -> list[str]:
    """Return words with which a command is right and quick; the folder holds the run ``run``."""
    return {
        "search": ["search", "--space", "nasbench201", "--method", "darts", *TINY, "--out", "new"],
        "retrain": [
            "retrain",
            "run",
            "--epochs",
            "1",
            *FEW,
            "--space.width",
            "4",
            "--space.cells",
            "1",
            "--out",
            "new",
        ],
        "evaluate": ["evaluate", "run"],
        "compare": ["compare", "--methods", "random", "--seeds", "0", *TINY, "--out", "new"],
        "export": ["export", "run", "--format", "py", "--out", "new"],
        "show": ["show", "run"],
        "gap": ["gap", "run", "--archs", "2", "--images", "8", "--budgets", "1", "--threads", "1"],
        "diagnose": ["diagnose", "run", "--images", "8", "--threads", "1"],
        "report": ["report", "run"],
        "resume": ["resume", "run"],
        "check": ["check", "--data", "digits"],
        "list": ["list", "methods"],
        "table show": ["table", "show", "table.parquet"],
        "table import": ["table", "import", "table.pth", "--out", "new.parquet"],
    }[command]


COMMANDS = (
    "search",
    "retrain",
    "evaluate",
    "compare",
    "export",
    "show",
    "gap",
    "diagnose",
    "report",
    "resume",
    "check",
)
METHODS = (
    "darts",
    "drnas",
    "dropnas",
    "gdas",
    "snas",
    "enas",
    "spos",
    "fairnas",
    "da_nas",
    "rsps",
    "evolution",
    "random",
)
SPACES = ("nasbench201", "darts", "shufflenet", "mobile", "insights64", "entangled_cells")


def options_of(words: list[str], where: Path) -> dict[str, object]:
    """Return the options of a command, with their types."""
    here = Path.cwd()
    os.chdir(where)
    try:
        command, _, _ = bound_app(words).parse_args(words, exit_on_error=False, print_error=False)
    finally:
        os.chdir(here)
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            found[name.replace("__", ".")] = parameter.annotation
    return found


def with_option(words: list[str], name: str, value: str) -> tuple[str, ...]:
    """Return words in which an option has a value; it replaces the one that is there."""
    flag = f"--{name}"
    if flag in words:
        at = words.index(flag)
        words = words[:at] + words[at + 2 :]
    return (*words, flag, value)


def option_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield a wrong value of a drawn option of a drawn command."""
    known: dict[tuple[str, ...], dict[str, object]] = {}
    while True:
        words = base(chance.choice(COMMANDS))
        if words[0] == "search":
            words[2], words[4] = chance.choice(SPACES), chance.choice(METHODS)
            if words[2] != "nasbench201":
                words = [w for i, w in enumerate(words) if not ("--space." in w or "--space." in words[i - 1])]
        key = tuple(words)
        if key not in known:
            known[key] = options_of(words, where)
        name = chance.choice(
            [n for n in known[key] if n not in ("json", "trust", "trainings")]
        )  # a legal one takes hours
        numeric = any(kind in str(known[key][name]) for kind in ("int", "float"))
        value = chance.choice(NUMBERS if numeric and chance.random() < 0.8 else TEXTS)
        yield Case("option", with_option(list(words), name, value))


# ---------------------------------------------------------------------- paths


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _secret(path: Path) -> None:
    path.write_text("x")
    path.chmod(0)


def _text(content: str | bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


THINGS = {
    "fifo": _fifo, "loop": _loop, "zero": _zero, "folder": _folder, "secret": _secret, "empty": _text(""),
    "bytes": _text(b"\xff\xfe\x00\x01" * 40), "deep": _text(DEEP), "number": _text("9" * 6000), "json": _text('{"a": 1}'),
    "deep toml": _text("a = " + "[" * 5000), "png": _text(b"\x89PNG\r\n\x1a\n" + bytes(40)), "parquet": _text(b"PAR1" + bytes(80) + b"PAR1"),
    "pickle": _text(b"cos\nsystem\n(S'touch hurt'\ntR."), "zip": _text(b"PK\x03\x04" + bytes(60)), "long line": _text("a" * 300_000),
    "toml number": _text("[space]\nname = " + "9" * 6000), "bom": _text(b"\xef\xbb\xbf[space]\nname = 'dartz'\n"),
}  # fmt: skip


def path_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield a command that is given something else than it wants at a path."""
    targets = [
        ("search", "thing.toml", lambda: ["search", "thing.toml", "--out", "new"]),
        ("search", "thing", lambda: ["search", "thing", "--out", "new"]),
        ("search", "thing", lambda: [*base("search")[:-2], "--data", "thing", "--out", "new"]),
        ("search", "thing.py", lambda: ["search", "--method", "./thing.py", "--trust", *TINY, "--out", "new"]),
        ("search", "thing", lambda: [*base("search"), "--limit", "latency=5ms", "--latency_file", "thing"]),
        ("search", "thing", lambda: ["search", "--method", "random", "--score", "table", "--score.file", "thing", "--out", "new"]),
        ("evaluate", "thing", lambda: ["evaluate", "thing"]),
        ("evaluate", "thing.json", lambda: ["evaluate", "./thing.json"]),
        ("evaluate", "thing", lambda: ["evaluate", ARCHS[0], "--table", "thing"]),
        ("gap", "thing", lambda: [*base("gap"), "--table", "thing"]),
        ("gap", "thing", lambda: [*base("gap"), "--beside", "thing"]),
        ("show", "thing", lambda: ["show", "thing"]),
        ("show", "thing.svg", lambda: ["show", "run", "--out", "thing.svg"]),
        ("report", "thing", lambda: ["report", "thing"]),
        ("report", "thing.html", lambda: ["report", "run", "--out", "thing.html"]),
        ("resume", "thing", lambda: ["resume", "thing"]),
        ("diagnose", "thing", lambda: ["diagnose", "run", "--beside", "thing", "--images", "8"]),
        ("export", "thing", lambda: ["export", "run", "--format", "py", "--out", "thing"]),
        ("export", "thing", lambda: ["export", "thing", "--format", "py", "--out", "new"]),
        ("retrain", "thing", lambda: ["retrain", "thing", "--epochs", "1", *FEW, "--out", "new"]),
        ("retrain", "thing", lambda: [*base("retrain")[:-2], "--out", "thing"]),
        ("compare", "thing", lambda: ["compare", "thing", "--methods", "random", "--out", "new"]),
        ("compare", "thing", lambda: [*base("compare")[:-2], "--out", "thing"]),
        ("compare", "thing", lambda: [*base("compare"), "--table", "thing"]),
        ("check", "thing", lambda: ["check", "--data", "thing"]),
        ("table", "thing", lambda: ["table", "show", "thing"]),
        ("table", "thing", lambda: ["table", "import", "thing", "--out", "new.parquet", "--trust"]),
    ]  # fmt: skip
    while True:
        _, name, words = chance.choice(targets)
        if chance.random() < 0.25:
            odd = chance.choice(TEXTS)
            yield Case("path", tuple(odd if word == name else word for word in words()))
        else:
            kind = chance.choice(list(THINGS))
            yield Case(f"path {kind}", tuple(words()), lambda at, name=name, kind=kind: THINGS[kind](at / name))


# ---------------------------------------------------------------------- content


def odd_value(chance: random.Random) -> object:
    """Return a value of any type."""
    return chance.choice(
        [None, True, 0, -1, 3, 1e308, -2.5, float("nan"), float("inf"), 10**30, "", "x", "../..", "\x1b[2J", "x" * 9999, [], {}, [[]],
         {"a": {"b": []}}, [1, "2", None], "nan", "2020-01-01", {"": ""}, ["a"] * 50]
    )  # fmt: skip


def changed(value: object, chance: random.Random) -> object:
    """Return JSON with one place changed: another value, a key dropped, added or renamed, an item doubled."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key, copied = chance.choice(list(value)), dict(value)
        act = chance.random()
        if act < 0.15:
            del copied[key]
        elif act < 0.25:
            copied[f"{key}x"] = copied.pop(key)
        elif act < 0.35:
            copied[chance.choice(["name", "x", "file", ""])] = odd_value(chance)
        else:
            copied[key] = changed(value[key], chance)
        return copied
    if isinstance(value, list) and value and chance.random() < 0.8:
        at, listed = chance.randrange(len(value)), list(value)
        act = chance.random()
        if act < 0.2:
            del listed[at]
        elif act < 0.4:
            listed.append(listed[at])
        else:
            listed[at] = changed(listed[at], chance)
        return listed
    return odd_value(chance)


def spoilt(content: bytes, chance: random.Random) -> bytes:
    """Return bytes cut, flipped, doubled, or with something put in."""
    at = chance.randrange(len(content) + 1)
    return chance.choice([
        content[:at],
        content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
        content[:at] + chance.choice([b"\0", b"\xff", b"[", b"]]]", b"{", b"\n", b"9" * 5000, b"nan", b'"', b"=" ]) + content[at:],
        content + content,
        content[at:],
    ])  # fmt: skip


def toml_of(tables: dict) -> str:
    """Return tables as TOML, or as text that is none where TOML has no such value."""
    import tomlkit

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items() if v is not None}
        return [plain(v) for v in value if v is not None] if isinstance(value, list) else value

    try:
        return tomlkit.dumps(plain(tables))
    except Exception:
        return f"a = {tables}"


RECIPE = {
    "space": {"name": "nasbench201", "width": 4, "cells": 1},
    "method": {"name": "darts"},
    "train": {"epochs": 1, "batch": 16},
    "data": {"name": "digits", "train_images": 32, "test_images": 16},
    "run": {"threads": 1, "execution": "reference"},
    "retrain": {"protocol": "nasbench201", "epochs": 1, "space": {"cells": 1}},
    "limit": {"params": "900M"},
    "methods": {"drnas": {"anchor": 0.1}},
}


def recipe_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield a recipe with something wrong in it."""
    while True:
        content = toml_of(changed(RECIPE, chance)).encode("utf-8", "surrogatepass")
        if chance.random() < 0.4:
            content = spoilt(toml_of(RECIPE).encode(), chance)
        words = chance.choice(
            [("search", "r.toml", "--out", "new"), ("search", "r.toml", "--help"), ("compare", "r.toml", "--methods", "random", "--seeds", "0", "--out", "new")]
        )  # fmt: skip
        yield Case("recipe", words, lambda at, content=content: (at / "r.toml").write_bytes(content))


def run_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield a run folder in which a file does not hold what it must, with and without a manifest that says so."""
    while True:
        name, reader, signed = chance.choice(RUN_FILES), chance.choice(READERS), chance.random() < 0.7
        content = (where / "run" / name).read_bytes()
        if name == "recipe.toml" and chance.random() < 0.6:
            content = toml_of(changed(tomllib.loads(content.decode()), chance)).encode("utf-8", "surrogatepass")
        elif name.endswith(".json") and chance.random() < 0.7:
            content = json.dumps(changed(json.loads(content), chance)).encode()
        elif name == "trace.jsonl" and chance.random() < 0.7:
            lines = content.decode().splitlines()
            at = chance.randrange(len(lines))
            lines[at] = json.dumps(changed(json.loads(lines[at]), chance))
            content = ("\n".join(lines) + "\n").encode()
        else:
            content = spoilt(content, chance)

        def prepare(at: Path, name: str = name, content: bytes = content, signed: bool = signed) -> None:
            from gapless.runs import manifest

            (at / "run" / name).write_bytes(content)
            if signed and name != manifest.NAME:
                entries = manifest.entries_of(at / "run")
                (at / "run" / manifest.NAME).write_text(manifest.text_of(entries))

        yield Case(f"run {name}", tuple(base(reader)), prepare)


def notation_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield a notation with something wrong in it."""
    alphabet = "|~+()[]{},'\"= 0123456789abcxyz_-\\\n\0é🦊"
    while True:
        text = chance.choice(ARCHS)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text) + 1)
            text = chance.choice([
                text[:at] + chance.choice(alphabet) + text[at:], text[:at] + text[at + chance.randrange(1, 9) :], text[:at], text + text,
                text[:at] + chance.choice(["9" * 5000, "(" * 3000, "__import__('os')", "nan"]) + text[at:],
            ])  # fmt: skip
        command = chance.choice(["evaluate", "show", "export", "retrain"])
        words = {
            "export": ("--format", "py", "--out", "new"),
            "retrain": ("--epochs", "1", *FEW, "--space.width", "4", "--out", "new"),
        }
        yield Case("notation", (command, text, *words.get(command, ())))


def word_cases(chance: random.Random, where: Path) -> Iterator[Case]:
    """Yield words in a wrong order, doubled, cut or unknown."""
    while True:
        words = base(chance.choice([*COMMANDS, "list", "table show", "table import"]))
        for _ in range(chance.randrange(1, 3)):
            at = chance.randrange(len(words))
            act = chance.randrange(5)
            if act == 0 and words[0] not in ("search", "retrain", "compare", "gap"):  # they would be right, and long
                words = words[:at]
            elif act == 1:
                words = [*words[:at], chance.choice(TEXTS), *words[at:]]
            elif act == 2:
                words = [*words[:at], words[at][:-1], *words[at + 1 :]]
            elif act == 3:
                words = [*words, f"--{chance.choice(['x', 'space.x', 'method.', 'data.size', 'run.seed', ''])}", "1"]
            else:
                words = [*words[:at], words[at], *words[at:]]
            words = words or [""]
        yield Case("words", tuple(words))


KINDS = (option_cases, option_cases, option_cases, path_cases, path_cases, recipe_cases, recipe_cases, run_cases, run_cases, notation_cases, word_cases)  # fmt: skip


def drawn(seed: int | str, count: int, where: Path) -> list[Case]:
    """Return so many cases; ``where`` holds the run ``run``."""
    chance = random.Random(f"fuzz-{seed}")
    kinds = [kind(random.Random(f"fuzz-{seed}-{i}"), where) for i, kind in enumerate(KINDS)]
    return [next(chance.choice(kinds)) for _ in range(count)]


def state(where: Path) -> dict[str, object]:
    """Return what stands in a folder: kinds, sizes and contents."""
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(where):
        for name in (*folders, *names):
            path = Path(folder, name)
            status = path.lstat()
            key = str(path.relative_to(where))
            if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
                found[key] = path.read_bytes()
            else:
                found[key] = stat.S_IFMT(status.st_mode)
    return {key: value for key, value in found.items() if not key.endswith(".lock")}


def fresh(template: Path, where: Path) -> None:
    """Make a folder with the run of the template."""
    shutil.copytree(template / "run", where / "run", ignore=shutil.ignore_patterns("*.svg", ".lock"))


__all__ = ["Case", "drawn", "fresh", "state"]
