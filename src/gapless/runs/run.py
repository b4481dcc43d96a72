"""A run folder: the interface between commands. What stands in it is written once and read by all others."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gapless.core.decision import Arch
from gapless.core.errors import UserError
from gapless.core.machine import instructions, processor
from gapless.core.space import Space
from gapless.data import ImageData
from gapless.runs.checked import component
from gapless.runs.recipe import MEASURED, Recipe

FILES = {
    "recipe.toml": "the resolved recipe",
    "trace.jsonl": "a line an epoch, or an evaluation",
    "arch.json": "the architecture and its space",
    "weights.safetensors": "supernet and method, or the trained network",
    "checkpoint.pt": "everything that the run needs to go on",
    "result.json": "the accuracy of a trained network",
    "judged.json": "architectures that a method's read-out judged by inherited accuracy",
    "latency.json": "measured latencies, where a limit asked for them",
    "machine.json": "where it ran",
    "cell.svg": "the drawn cell",
    "scores.svg": "the scores of every decision",
    "training.svg": "losses, accuracies, learning rate",
    "range.svg": "what a search draws is worth",
    "gap.json": "how far the search can be trusted",
    "diagnose.json": "how its options relate",
    "report.html": "all of it on one page",
    "tensorboard": "event files",
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
            raise UserError(f"{path} is already there and not empty. Give another `out`, or move it away.")

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
        run = cls(Path(path))
        if not run.started:
            raise UserError(f"{path} is no run: it has no recipe.toml.")
        return run

    @property
    def started(self) -> bool:
        """Whether the folder holds a recipe."""
        return (self.path / "recipe.toml").is_file()

    @property
    def kind(self) -> Literal["search", "retrain"]:
        """What ran here."""
        return "retrain" if self.recipe().arch else "search"

    # ------------------------------------------------------------------ writing

    def write_bytes(self, name: str, content: bytes | memoryview) -> None:
        """Write a file at once: to a temporary name, synced, renamed.

        Raises
        ------
        UserError
            Where that fails; the file before is untouched.
        """
        target, draft = self.path / name, self.path / f".{name}.tmp"
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
            _sync(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise self._unwritten(target, error) from None

    def write(self, name: str, text: str) -> None:
        """Write a text file at once (see :meth:`write_bytes`)."""
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON."""
        self.write(name, json.dumps(value, indent=1) + "\n")

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line to the trace."""
        try:
            with (self.path / "trace.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritten(self.path / "trace.jsonl", error) from None

    def rewind(self, epoch: int) -> None:
        """Drop what the trace tells of ``epoch`` (from 0) and later ones, and a line that was cut off."""
        if (self.path / "trace.jsonl").is_file():
            kept = [json.dumps(record) + "\n" for record in self.trace() if record["epoch"] < epoch]
            self.write("trace.jsonl", "".join(kept))

    def _unwritten(self, path: Path, error: OSError) -> UserError:
        return UserError(
            f"{path} cannot be written: {error.strerror}. What was saved before is whole; when that is put right, "
            f"go on with: gapless resume {self.path}"
        )

    def write_arch(
        self,
        arch: Arch,
        space: Space,
        name: str,
        data: ImageData | Mapping[str, Any] | None,
        score: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the architecture with what is needed to build it again, and to prepare images for it; None where no
        images are known. ``score`` is what a black-box search found it by."""
        self.write_json(
            "arch.json",
            {
                "arch": str(arch),
                "notation": space.write(arch),
                "space": name,
                "classes": space.classes,
                "channels": space.channels,
                "size": space.size,
                "images": described(data) if isinstance(data, ImageData) else data,
                **({} if score is None else {"score": score}),
            },
        )

    def write_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors."""
        from safetensors.torch import save

        self.write_bytes("weights.safetensors", save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    # ------------------------------------------------------------------ reading

    def recipe(self) -> Recipe:
        """Return the resolved recipe."""
        return Recipe.read(self.path / "recipe.toml")

    def trace(self) -> Iterator[dict[str, Any]]:
        """Yield the trace, a record per epoch; a line that is still being written, or was cut off, ends it."""
        path = self.path / "trace.jsonl"
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    return
                yield record

    def machine(self) -> dict[str, Any]:
        """Return where the run began."""
        path = self.path / "machine.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / ("result.json" if self.kind == "retrain" else "arch.json")).is_file()

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the supernet and the method."""
        from safetensors.torch import load_file

        return load_file(self.path / "weights.safetensors")

    def result(self) -> dict[str, Any]:
        """Return what a training came to."""
        path = self.path / "result.json"
        if not path.is_file():
            raise UserError(f"{self.path} holds no result yet: the training has not ended.")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def images(self) -> dict[str, Any]:
        """Return ``names`` of the classes, and ``mean`` and ``std`` per channel, of the images that the run used; empty
        where it used none."""
        told = json.loads((self.path / "arch.json").read_text(encoding="utf-8"))
        return {key: tuple(value) for key, value in (told["images"] or {}).items()}

    def judged(self) -> dict[str, Any]:
        """Return ``seconds`` that the read-out of a method's answer took, and the ``archs`` that it judged: ``arch``,
        ``images``, ``accuracy`` in percent. Both are empty for methods without such a read-out."""
        path = self.path / "judged.json"
        nothing: dict[str, Any] = {"seconds": 0.0, "archs": []}
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else nothing

    def score(self) -> dict[str, Any] | None:
        """Return what a black-box search found its architecture by, None for other searches."""
        told: dict[str, Any] = json.loads((self.path / "arch.json").read_text(encoding="utf-8"))
        return told.get("score")

    def found(self) -> tuple[Arch, Space]:
        """Return the architecture and the space, at the size of the search, that it was found in."""
        path = self.path / "arch.json"
        if not path.is_file():
            raise UserError(
                f"{self.path} holds no architecture yet: the run has not ended. Go on with: gapless resume {self.path}"
            )
        told = json.loads(path.read_text(encoding="utf-8"))
        space: Space = component(self.recipe(), "space", "spaces").make(**{k: told[k] for k in MEASURED})
        arch = Arch.parse(told["arch"])
        space.check(arch)
        return arch, space


def _sync(folder: Path) -> None:
    """Make a rename last through a crash of the machine, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def described(data: ImageData) -> dict[str, Any]:
    """Return what a network needs to know of its images: ``names`` of the classes, ``mean`` and ``std`` per channel."""
    return {"names": data.classes, "mean": data.mean, "std": data.std}


def machine() -> dict[str, Any]:
    """Return where this process runs: processor, threads, GPU, versions."""
    return {
        "gapless": version("gapless"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "processor": processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
