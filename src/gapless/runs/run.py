"""A run folder: the interface between commands. What stands in it is written once and read by all others."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gapless.core import catalogue
from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.settings import make
from gapless.core.space import Space
from gapless.runs.recipe import MEASURED, Recipe

FILES = {
    "recipe.toml": "the resolved recipe",
    "trace.jsonl": "a line an epoch",
    "arch.json": "the architecture and its space",
    "weights.safetensors": "supernet and method",
    "machine.json": "where it ran",
    "cell.svg": "the drawn cell",
}


@dataclass(frozen=True)
class Run:
    """A folder with the files of :data:`FILES`."""

    path: Path

    @staticmethod
    def check_free(path: str | Path) -> None:
        """Raise a :class:`UserError` where the folder exists and is not empty."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} is already there and not empty. Give another --out, or move it away.")

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Make the folder.

        Raises
        ------
        UserError
            Where the folder exists and is not empty, or cannot be written.
        """
        path = Path(path)
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from None
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Return the run in a folder.

        Raises
        ------
        UserError
            Where the folder holds no run.
        """
        path = Path(path)
        if not (path / "recipe.toml").is_file():
            raise UserError(f"{path} is no run: it has no recipe.toml.")
        return cls(path)

    # ------------------------------------------------------------------ writing

    def write(self, name: str, text: str) -> None:
        """Write a file at once: to a temporary name, synced, renamed."""
        target, draft = self.path / name, self.path / f".{name}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON."""
        self.write(name, json.dumps(value, indent=1) + "\n")

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line to the trace."""
        with (self.path / "trace.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_arch(self, arch: Arch, space: Space, name: str) -> None:
        """Write the architecture with what is needed to build it again."""
        self.write_json(
            "arch.json",
            {
                "arch": str(arch),
                "notation": space.write(arch),
                "space": name,
                "classes": space.classes,
                "channels": space.channels,
                "size": space.size,
            },
        )

    def write_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors."""
        draft = self.path / ".weights.tmp"
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, draft)
        draft.replace(self.path / "weights.safetensors")

    # ------------------------------------------------------------------ reading

    def recipe(self) -> Recipe:
        """Return the resolved recipe."""
        return Recipe.read(self.path / "recipe.toml")

    def trace(self) -> Iterator[dict[str, Any]]:
        """Yield the trace, a record per epoch."""
        path = self.path / "trace.jsonl"
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                yield json.loads(line)

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the supernet and the method."""
        return load_file(self.path / "weights.safetensors")

    def found(self) -> tuple[Arch, Space]:
        """Return the architecture and the space, at the size of the search, that it was found in."""
        path = self.path / "arch.json"
        if not path.is_file():
            raise UserError(f"{self.path} holds no architecture yet: the search has not ended.")
        told = json.loads(path.read_text(encoding="utf-8"))
        recipe = self.recipe()
        space_class: type[Space] = catalogue.find(recipe.space["name"], "spaces")
        given = {k: v for k, v in recipe.space.items() if k != "name"}
        space = make(space_class, {**given, **{k: told[k] for k in MEASURED}})
        arch = Arch.parse(told["arch"])
        space.check(arch)
        return arch, space


def machine() -> dict[str, Any]:
    """Return where this process runs: processor, threads, GPU, versions."""
    return {
        "gapless": version("gapless"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return found.group(1) if found else platform.processor()
