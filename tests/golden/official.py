"""Loading official code on a machine without CUDA, and under a newer PyTorch than it was written for.

Nothing here edits a checkout: modules the code imports but does not need for one step are stubbed, old call
signatures are translated, and a script's text may be adapted in memory where it is no longer valid Python.
"""

import contextlib
import importlib.machinery
import io
import logging
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch import nn

STUBS = (
    "cv2",
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torch.utils.tensorboard",
    "tensorboardX",
    "graphviz",
    "nas_201_api",
)
WORK_FOLDERS = ("run/searchs/golden", "experiments/cifar10", "experiments/nasbench201")


class _Stub:
    """Accepts every call and attribute."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub()


def _stub_module(name):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.__getattr__ = lambda attribute: getattr(_Stub(), attribute)
    return module


def commit_of(checkout):
    """The commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def load(checkout, folders, script, arguments=(), replacements=()):
    """Run an official script as an imported module and return it with the official modules it imported.

    ``folders`` (relative to the checkout, most important first) are searched for imports; ``arguments`` stand for the
    command line; ``replacements`` are (old, new) pairs applied to the script's text in memory.
    """
    checkout = Path(checkout).resolve()
    path = checkout / folders[0] / script
    text = path.read_text()
    for old, new in replacements:
        if old not in text:
            raise ValueError(f"{script} no longer contains {old!r}")
        text = text.replace(old, new)
    stubs = {name: _stub_module(name) for name in STUBS}
    saved = {name: sys.modules.get(name) for name in stubs}
    before, search_path, argv, folder = set(sys.modules), list(sys.path), sys.argv, os.getcwd()
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    with tempfile.TemporaryDirectory() as work:
        try:
            for name in WORK_FOLDERS:
                (Path(work) / name).mkdir(parents=True)
            os.chdir(Path(work) / "run")
            sys.modules.update(stubs)
            sys.path[:0] = [str(checkout / name) for name in folders]
            sys.argv = [script, *arguments]
            with quiet():
                exec(compile(text, str(path), "exec"), module.__dict__)
        finally:
            os.chdir(folder)
            sys.path[:], sys.argv, sys.dont_write_bytecode = search_path, argv, write_bytecode
            loaded = {}
            for name in set(sys.modules) - before:
                origin = getattr(sys.modules[name], "__file__", None)
                inside = origin is not None and checkout in Path(origin).resolve().parents
                if inside or any(str(checkout) in entry for entry in getattr(sys.modules[name], "__path__", ())):
                    loaded[name] = sys.modules.pop(name)
            for name, original in saved.items():
                if original is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = original
    return module, loaded


@contextlib.contextmanager
def quiet():
    """Keep official prints and log lines off the terminal."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


def _scaled(original):
    """Translate the old ``method(scale, tensor)`` to ``method(tensor, alpha=scale)``."""

    def method(self, *args, **kwargs):
        if len(args) == 2 and not kwargs:
            scale, other = args
            return original(self, other, alpha=float(scale))
        return original(self, *args, **kwargs)

    return method


@contextlib.contextmanager
def old_torch():
    """The behaviour the official code expects: ``cuda()`` works (here: does nothing), ``add_``, ``sub`` and ``sub_``
    take (scale, tensor), ``clip_grad_norm`` exists, and ``zero_grad`` writes zeros instead of removing gradients."""
    methods = {name: _scaled(getattr(torch.Tensor, name)) for name in ("add_", "sub", "sub_")}
    methods["cuda"] = lambda self, *args, **kwargs: self
    zero_grad = torch.optim.Optimizer.zero_grad
    patches = [(torch.Tensor, name, method) for name, method in methods.items()]
    patches += [
        (nn.Module, "cuda", lambda self, *args, **kwargs: self),
        (torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=False: zero_grad(self, set_to_none=False)),
        (nn.utils, "clip_grad_norm", nn.utils.clip_grad_norm_),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(replaced(owner, name, value))
        yield


@contextlib.contextmanager
def replaced(owner, name, value):
    """Replace one attribute for a while."""
    own = name in vars(owner)
    original = getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield original
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
