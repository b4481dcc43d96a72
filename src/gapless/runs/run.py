"""A run folder: the interface between commands. What stands in it is written once and read by all others."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gapless.core import files
from gapless.core.decision import Arch
from gapless.core.errors import Occupied, Untrusted, UserError
from gapless.core.machine import instructions, processor
from gapless.core.space import Space
from gapless.core.text import printable, quoted, shown
from gapless.data import ImageData
from gapless.runs import manifest, recorded, schema
from gapless.runs.checked import component
from gapless.runs.recipe import MEASURED, Recipe

LARGEST = 4 * 2**30
"""The largest trace that is read, in bytes: a black-box search may have millions of lines."""
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
    "manifest.json": "size and SHA-256 of the files above; the mark of the run's end",
    "tensorboard": "event files",
}


@dataclass(frozen=True)
class Run:
    """A folder with the files of :data:`FILES`."""

    path: Path

    @staticmethod
    def check_free(path: str | Path) -> None:
        """Raise a :class:`UserError` where the folder exists and is not empty."""
        path = files.place(path)
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError:  # the library that writes weights takes no other names
            raise UserError(f"{shown(path)} cannot be used as `out`: its name is not in UTF-8.") from None
        try:
            left = set(path.iterdir()) - {path / ".lock", *files.drafts(path)} if path.is_dir() else {path}
            if left and (path.exists() or path.is_symlink()):
                raise Occupied(f"{shown(path)} is already there and not empty. Give another `out`, or move it away.")
        except OSError as error:
            raise UserError(f"{shown(path)} cannot be used as `out`: {error.strerror}.") from None

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Make the folder. Take it (:func:`gapless.runs.checkpoint.taken`) before anything is written into it.

        Raises
        ------
        UserError
            Where the folder exists and is not empty, or cannot be written.
        """
        path = files.place(path)
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{shown(path)} cannot be written: {error.strerror}.") from None
        return cls(path)

    def tidy(self) -> None:
        """Remove what processes that were killed while they wrote have left. Call it while the run is held."""
        try:
            for draft in files.drafts(self.path):
                files.remove(draft)
        except OSError as error:
            raise self._unwritten(self.path, error) from None

    def check_regular(self) -> None:
        """Raise a :class:`UserError` where a folder, a pipe or a device is in the place of a file of the run."""
        for name in (*FILES, ".lock"):
            path = self.path / name
            if name != "tensorboard" and os.path.exists(path) and not files.is_file(path):
                kind = "a folder" if files.is_folder(path) else "a pipe or a device"
                raise UserError(
                    f"{shown(path)} is {kind}, where a file of the run is expected. Move it away; nothing was changed."
                )

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Return the run in a folder.

        Raises
        ------
        UserError
            Where the folder holds no run.
        """
        run = cls(files.place(path))
        if not run.started:
            raise UserError(f"{shown(path)} is no run: it has no recipe.toml.")
        return run

    @property
    def started(self) -> bool:
        """Whether the folder holds a recipe."""
        return files.is_file(self.path / "recipe.toml")

    @property
    def saved(self) -> bool:
        """Whether there is something to go on with: a checkpoint, or an epoch in the trace."""
        return any(files.is_file(path) and path.stat().st_size for path in self._progress)

    @property
    def _progress(self) -> tuple[Path, Path]:
        return self.path / "checkpoint.pt", self.path / "trace.jsonl"

    @property
    def kind(self) -> Literal["search", "retrain"]:
        """What ran here."""
        return "retrain" if self.recipe().arch else "search"

    # ------------------------------------------------------------------ writing

    def write_bytes(self, name: str, content: bytes | memoryview) -> None:
        """Write a file as a whole (:func:`gapless.core.files.write`).

        Raises
        ------
        UserError
            Where that fails; the file before is untouched.
        """
        try:
            files.write(self.path / name, content)
        except OSError as error:
            raise self._unwritten(self.path / name, error) from None

    def write(self, name: str, text: str) -> None:
        """Write a text file at once (see :meth:`write_bytes`)."""
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON."""
        self.write(name, json.dumps(value, indent=1) + "\n")

    def append(self, line: str) -> None:
        """Add a line to the trace."""
        try:
            files.append(self.path / "trace.jsonl", f"{line}\n".encode())
        except OSError as error:
            raise self._unwritten(self.path / "trace.jsonl", error) from None

    def restore(self, trace: Sequence[str]) -> None:
        """Write the lines of the trace, where it holds others: epochs after the checkpoint, a cut line, damage."""
        path, content = self.path / "trace.jsonl", "".join(f"{line}\n" for line in trace)
        same = not path.is_symlink() and files.is_file(path) and _trace_bytes(path) == content.encode()
        if not same and (content or os.path.lexists(path)):
            self.write("trace.jsonl", content)

    def _unwritten(self, path: Path, error: OSError) -> UserError:
        if self.ended:
            advice = "All other files are as they were."
        elif self.started and self.saved:
            advice = (
                "What was saved before is whole; when that is put right, go on with: "
                f"gapless resume {quoted(self.path)}"
            )
        else:
            advice = "Nothing was saved yet."
        return UserError(f"{shown(path)} cannot be written: {error.strerror}. {advice}")

    def write_arch(
        self,
        arch: Arch,
        space: Space,
        name: str,
        data: ImageData | Mapping[str, Any] | None,
        alone: Mapping[str, Any],
        score: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the architecture with what is needed to build it again, and to prepare images for it; None where no
        images are known. ``alone`` is what :meth:`alone` returns; ``score`` is what a black-box
        search found it by."""
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
                "alone": dict(alone),
                "described": recorded.described(space, arch),
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
        return Recipe.read(self.checked("recipe.toml"))

    def trace(self) -> Iterator[dict[str, Any]]:
        """Yield the trace, a record per epoch; a last line that is still being written, or was cut off, ends it.

        Raises
        ------
        Damaged
            Where a line is no record, or not that of the next epoch.
        """
        path = self.checked("trace.jsonl")
        if not files.is_file(path):
            return
        content = _trace_bytes(path)
        whole, _, _ = content.rpartition(b"\n")
        first: tuple[int, ...] = ()
        for number, line in enumerate(whole.split(b"\n") if whole else ()):
            place = f"{shown(path)}, line {number + 1},"
            record = schema.parse(line.decode(errors="replace"), dict[str, Any], place, self._repair)
            schema.check_record(record, place, self._repair)
            if record["epoch"] != number:
                raise schema.Damaged(
                    f"{place} is damaged: it is of epoch {record['epoch']}, where epoch {number} is expected. "
                    f"{self._repair}"
                )
            form = tuple(map(len, record.get("scores", ())))
            first = form if number == 0 else first
            if form != first:
                raise schema.Damaged(f"{place} is damaged: its scores are not of the form of the first. {self._repair}")
            yield record

    def records(self) -> list[dict[str, Any]]:
        """Return the trace of a run that has ended and has one; see :meth:`trace`.

        Raises
        ------
        Damaged
            Where it holds nothing, too.
        """
        found = list(self.trace())
        if not found:
            raise schema.Damaged(f"{shown(self.path / 'trace.jsonl')} is damaged: it holds no epoch. {self._repair}")
        return found

    @property
    def _repair(self) -> str:
        return "Put a copy of it as it was in its place, or run the recipe again into another folder."

    def machine(self) -> dict[str, Any]:
        """Return where the run began; empty where nothing says so."""
        path = self.checked("machine.json")
        found: dict[str, Any] = schema.read(path, schema.MachineFile, self._repair) if path.exists() else {}
        return found

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end."""
        return manifest.present(self.path)

    def end(self) -> None:
        """Write the manifest: the run has come to its end."""
        self.write(manifest.NAME, manifest.text_of(manifest.entries_of(self.path)))

    def write_listed(self, name: str, value: Any) -> None:
        """Write JSON into a run that has ended, and list it in the manifest. Call it while the run is held."""
        if not self.ended:
            self.write_json(name, value)
            return
        entries = {listed: entry for listed, entry in manifest.read(self.path).items() if listed != name}
        self.write(manifest.NAME, manifest.text_of(entries))  # so that a kill between the two leaves nothing spoilt
        self.write_json(name, value)
        self.write(manifest.NAME, manifest.text_of({**entries, **manifest.entries_of(self.path, [name])}))

    def check_all(self) -> None:
        """Compare every file that the manifest lists (:meth:`checked`)."""
        for name in manifest.read(self.path):
            spare = name in ("checkpoint.pt", "gap.json", "diagnose.json")  # a finished run can do without them
            if not spare or os.path.lexists(self.path / name):
                self.checked(name)

    def checked(self, name: str) -> Path:
        """Return the path of a file that is as it was when the run ended (:func:`gapless.runs.manifest.check`)."""
        restores = name == "trace.jsonl" and files.is_file(self.path / "checkpoint.pt")
        resume = f"Restore it with: gapless resume {quoted(self.path)}."
        manifest.check(self.path, name, resume if restores else self._repair)
        return self.path / name

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the supernet and the method, or of the trained network.

        Raises
        ------
        Damaged
            Where the file is no whole safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = files.checked(self.checked("weights.safetensors"), "The weights")
        try:
            return load_file(path)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise schema.Damaged(f"{shown(path)} is damaged: {error}. {self._repair}") from None

    def result(self) -> dict[str, Any]:
        """Return what a training came to."""
        path = self.checked("result.json")
        if not path.exists():
            raise UserError(f"{self.path} holds no result yet: the training has not ended.")
        found: dict[str, Any] = schema.read(path, schema.ResultFile, self._repair)
        return {**found, "tested_on": printable(found.get("tested_on", "the test images"))}

    def images(self) -> dict[str, Any]:
        """Return ``names`` of the classes, and ``mean`` and ``std`` per channel, of the images that the run used; empty
        where it used none."""
        return {key: tuple(value) for key, value in (self._arch_file()["images"] or {}).items()}

    def judged(self) -> dict[str, Any]:
        """Return ``seconds`` that the read-out of a method's answer took, what images it judged ``on``, and the
        ``archs`` that it judged: ``arch``, ``images``, ``accuracy`` in percent. All are empty for methods without such
        a read-out."""
        path = self.checked("judged.json")
        nothing: dict[str, Any] = {"seconds": 0.0, "on": "images", "archs": []}
        found = {**nothing, **schema.read(path, schema.JudgedFile, self._repair)} if path.exists() else nothing
        return {**found, "on": printable(found["on"])}

    def alone(self) -> dict[str, Any]:
        """Return ``params`` and ``macs`` of the architecture as it is, or would be, trained alone, and ``start``:
        whether from ``fresh`` or from ``inherited`` weights."""
        return dict(self._arch_file()["alone"])

    def score(self) -> dict[str, Any] | None:
        """Return what a black-box search found its architecture by, None for other searches."""
        found: dict[str, Any] | None = self._arch_file().get("score")
        return found

    def _arch_file(self) -> dict[str, Any]:
        path = self.checked("arch.json")
        if not path.exists():
            raise UserError(
                f"{self.path} holds no architecture yet: the run has not ended. "
                f"Go on with: gapless resume {quoted(self.path)}"
            )
        found: dict[str, Any] = schema.read(path, schema.ArchFile, self._repair)
        return found

    def found(self) -> tuple[Arch, Space]:
        """Return the architecture and the space, at the size of the search, that it was found in.

        Where the space is of an outside file that is not trusted, it is a space as the run recorded it
        (:mod:`gapless.runs.recorded`), which can be read and drawn, and builds no network.
        """
        content = self._arch_file()
        try:
            arch = Arch.parse(content["arch"])
            space: Space
            try:
                space = component(self.recipe(), "space", "spaces").make(**{k: content[k] for k in MEASURED})
            except Untrusted as error:
                space = recorded.recorded(content, str(error), MEASURED)
            space.check(arch)
        except schema.Damaged:
            raise
        except (ValueError, TypeError) as error:
            raise schema.Damaged(f"{shown(self.path / 'arch.json')} is damaged: {error} {self._repair}") from None
        return arch, space


def _trace_bytes(path: Path) -> bytes:
    return files.read_bytes(path, "The trace", most=LARGEST)


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
