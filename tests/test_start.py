"""What a start imports, by ``sys.modules``: a library that is not needed is not waited for."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gapless

HEAVY = (
    "torch",
    "numpy",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "safetensors",
    "datasets",
    "PIL",
    "kornia",
    "numba",
    "triton",
    "ray",
    "onnx",
    "tensorboard",
    "torch._dynamo",
)
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def loaded(program, *names):
    """Return which of the modules a process has imported that ran the program."""
    end = f"; import json, sys; print(json.dumps([name for name in {names or HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program + end], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def command(*arguments):
    return f"from gapless.commands.app import run; assert run({list(arguments)!r}) == 0"


def test_the_package_imports_nothing():
    assert loaded("import gapless; dir(gapless); gapless.UserError", *HEAVY, "rich", "cyclopts") == []


def test_help_and_lists_import_no_library_that_computes():
    """All in one process, which is asked after each command."""
    helped = ("resume", "show", "diagnose", "report", "check", "list", "table", "evaluate", "export", "gap")
    lines = [
        ("--help",),
        ("--version",),
        ("list",),
        ("list", "methods", "--json"),
        *((name, "--help") for name in helped),
        ("table", "import", "--help"),
    ]
    clean = f"; import sys; heavy = [name for name in {HEAVY} if name in sys.modules]; assert not heavy, heavy"
    assert loaded("; ".join(command(*line) + clean for line in lines)) == []


def test_evaluating_an_architecture_needs_torch_alone():
    both = command("evaluate", CELL) + "; " + command("evaluate", "SPOS")
    assert set(loaded(both)) <= {"torch", "numpy"}, "PyTorch imports NumPy"


def test_the_core_imports_torch_and_the_standard_library_alone():
    core = sorted(path.stem for path in (Path(gapless.__file__).parent / "core").glob("*.py"))
    program = "import torch, sys; before = set(sys.modules); " + "; ".join(f"import gapless.core.{m}" for m in core)
    program += "; new = {m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)"
    assert loaded(program + "; print(new); assert new <= {'gapless', 'torch'}, new", "torch._dynamo", "triton") == []


def test_the_working_parts_leave_out_what_few_commands_use():
    program = "import gapless.commands.search, gapless.commands.retrain, gapless.commands.compare"
    rare = ("matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "safetensors", "datasets", "PIL", "kornia", "numba")
    assert loaded(program, *rare, "ray", "onnx", "triton", "torch._dynamo") == []


def test_training_does_not_import_the_compiler(tmp_path):
    """PyTorch's own optimisers import it at their first step, its additions on the meta device do, where costs are
    counted: every start of a search or a training would pay for it."""
    small = ("--space.width", "1", "--space.cells", "1")
    options = ("--epochs", "1", "--execution", "reference", "--limit", "macs=1G", *small)
    searched = command("search", *options, "--train.batch", "512", "--out", str(tmp_path / "run"))
    trained = command("retrain", str(tmp_path / "run"), "--epochs", "1", "--retrain.batch", "512", *small)
    assert loaded(searched + "; " + trained, "torch._dynamo", "sympy", "numba", "pandas", "sklearn", "datasets") == []


def test_the_package_has_every_name_that_it_lists():
    tree = ast.parse(Path(gapless.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = [a.asname or a.name for node in block.body for a in node.names]
    assert sorted(imported) == sorted(gapless.__all__)
    assert set(gapless.__all__) <= set(dir(gapless))
    for name in gapless.__all__:
        assert getattr(gapless, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        gapless.serach  # noqa: B018
