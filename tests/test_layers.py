"""The layer table of docs/design.md: imports only go down, and inside a layer not sideways; and what an import costs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gapless
from gapless.core import catalogue

ROOT = Path(gapless.__file__).parent
LAYERS = {
    "core": 0,
    **dict.fromkeys(("kernels", "ops", "methods", "searchers", "analysis"), 1),
    **dict.fromkeys(("spaces", "engine", "data"), 2),
    **dict.fromkeys(("tables", "measure"), 3),
    "runs": 4,
    **dict.fromkeys(("scores", "reports", "formats"), 5),
    "studies": 6,
    "commands": 7,
    "testing": 6,  # it may import from layers 0 to 5, and nothing may import it
}
KINDS = ("methods", "searchers", "spaces", "tables")
WORDS = {"random", "patched"}
"""Plug-ins that are called by ordinary words: only an import names them."""
PLUGINS = {name for kind in KINDS for name in catalogue.names(kind)} - WORDS
MEANT = {
    "core/protocol.py": {"nasbench201", "shufflenet"},  # protocols are called after those who trained by them
    "commands/search.py": {"nasbench201", "drnas"},  # what a search runs where nothing is named: the demo
    "studies/compare.py": {"nasbench201"},  # where a comparison searches if nothing is named
    "testing/examples.py": {"patched"},  # the published suites run on a patched model, too
}
"""File -> the plug-ins that it may name."""
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imported(path: Path) -> set[str]:
    """Return the full names of what a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_only_go_down():
    for path in FILES:
        folder = path.relative_to(ROOT).parts[0]
        for name in imported(path):
            package, _, rest = name.partition(".")
            if package != "gapless" or name == "gapless.__version__":
                continue
            other = rest.split(".")[0]
            assert other in LAYERS, f"{path}: {name}: the folder {other!r} is in no layer"
            assert other == folder or LAYERS[other] < LAYERS[folder], (
                f"{path}: {folder} (layer {LAYERS[folder]}) imports {name} (layer {LAYERS[other]})"
            )


def test_every_folder_with_code_is_in_a_layer():
    assert {p.relative_to(ROOT).parts[0] for p in FILES} <= set(LAYERS)


def test_the_core_sees_torch_and_the_standard_library_only():
    for path in (ROOT / "core").rglob("*.py"):
        packages = {name.partition(".")[0] for name in imported(path)}
        assert packages <= sys.stdlib_module_names | {"torch", "gapless"}, path


DOOR = tuple(f"gapless.kernels.{name}" for name in ("fan", "forms", "backend", "announce"))
FOREIGN = {
    "cpu": ("triton", "gapless.kernels.gpu"),
    "gpu": ("numba", "llvmlite", "gapless.kernels.cpu"),
}
"""What each back end must run without."""


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_the_engine_uses_kernels_through_one_interface():
    """Which backend computes a fan, and how, is known inside of ``kernels`` alone."""
    for path in (ROOT / "engine").rglob("*.py"):
        for name in imported(path):
            assert not within(name, ("gapless.kernels",)) or within(name, DOOR), f"{path.name} imports {name}"


def test_a_backend_needs_no_other_compiler():
    """Numba and Triton are imported by one backend each; the modules that both share need neither."""
    for path in (ROOT / "kernels").rglob("*.py"):
        folder = path.relative_to(ROOT / "kernels").parts[0]
        foreign = FOREIGN.get(folder, ("numba", "llvmlite", "triton"))
        for name in imported(path):
            assert not within(name, foreign), f"{path} imports {name}"


def test_the_gpu_backend_runs_without_numba():
    pytest.importorskip("triton", reason="Triton is not installed")
    program = """
import sys
sys.modules |= dict.fromkeys(("numba", "llvmlite"))
import torch
from gapless.kernels import plain
from gapless.kernels.forms import Pool, Route, Skip, Window
from gapless.kernels.gpu import backend
routes = [Route(0, Skip()), Route(0, Pool(True, 3, Window(1, 1), 1e-5))]
torch.manual_seed(0)
x, coefficients = torch.randn(1, 3, 3, 4).double(), torch.tensor([0.5, 2.0]).double()
assert backend.serves(routes, x, [])
(ours,), (theirs,) = (module.fan(routes, coefficients, x, [None], [])[0] for module in (backend, plain))
torch.testing.assert_close(ours, theirs)
assert not any(name.startswith("gapless.kernels.cpu") for name in sys.modules)
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def named(path: Path) -> set[str]:
    """Return the plug-ins that a file names: in its code, its imports and its texts of one word."""
    modules = (name.split(".") for name in imported(path) if name.startswith(tuple(f"gapless.{k}." for k in KINDS)))
    found = {parts[2] for parts in modules if parts[2] in PLUGINS | WORDS}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str) and " " not in text:
                words = re.findall(r"\w+", text.lower())
                found |= {name for name in PLUGINS for word in words if f"_{name}_" in f"_{word}_"}
    return found


def test_shared_code_names_no_method_no_space_and_no_table():
    """A plug-in is named in its own file, and in :data:`MEANT`."""
    shared = [path for path in FILES if path.relative_to(ROOT).parts[0] not in KINDS]
    found = {str(path.relative_to(ROOT)): names for path in shared if (names := named(path))}
    assert found == MEANT


def test_libraries_that_few_commands_use_are_imported_by_these():
    """Every command waits for what ``import gapless`` imports."""
    heavy = ("sklearn", "scipy", "pandas", "numba", "datasets", "kornia", "ray", "onnx")
    program = f"import sys, gapless.commands.app; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
