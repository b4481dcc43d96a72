"""The export of a finished network: files that need no Gapless."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gapless.core import files
from gapless.core.decision import Arch
from gapless.core.errors import UserError, unknown
from gapless.core.progress import seeded
from gapless.core.settings import typed
from gapless.core.space import Space
from gapless.core.text import quoted
from gapless.formats.model import Model
from gapless.runs.checked import check_recipe
from gapless.runs.run import Run
from gapless.runs.searched import inherited, reopened
from gapless.studies import defaults
from gapless.studies.evaluate import locate


def _write(module: str, model: Model, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module(module).write(model, folder)
    return found


FORMATS: dict[str, Callable[[Model, Path], dict[str, Any]]] = {
    name: partial(_write, module) for name, module in defaults.FORMATS.items()
}
"""Name of a format -> what writes a model into a folder, and returns what it found."""


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    path
        The folder.
    model
        What was exported.
    told
        The content of ``model.json``.
    """

    path: Path
    model: Model
    told: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return the plain facts."""
        return {"folder": str(self.path), **self.told, "warning": self.model.warning}


def export(
    given: str | Path,
    *,
    formats: Sequence[str] = ("py",),
    out: str | Path | None = None,
    space: str | None = None,
    fields: Mapping[str, Any] | None = None,
    inherit: bool = False,
) -> Exported:
    """Write a network as files that need no Gapless.

    Parameters
    ----------
    given
        A run folder, or an architecture in any notation. The run of a training gives the trained network; a search and
        a text give the architecture with random weights, at the size at which the paper trains it alone.
    formats
        Some of ``py``, ``onnx``, ``torch``.
    out
        The folder; None stands for ``exports/NAME``, with a number where that is taken.
    space, fields
        Name of the space, and fields that differ; only where no weights are taken over.
    inherit
        Take the weights of a search's supernet, at the size of the search.

    Raises
    ------
    UserError
        For anything wrong with what was given; nothing is written then.
    """
    check_formats(formats)
    if out is not None:
        Run.check_free(out)
    model = model_of(given, space=space, fields=fields, inherit=inherit)
    return write(model, formats, _free(given) if out is None else files.place(out))


def check_formats(formats: Sequence[str]) -> None:
    """Raise a :class:`UserError` for a format that there is not, or where a package that it needs is missing."""
    if not formats:
        raise UserError(f"Give a format: {', '.join(FORMATS)}.")
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if "onnx" in formats:
        from gapless.formats import onnx

        onnx.packages()


def model_of(
    given: str | Path, *, space: str | None = None, fields: Mapping[str, Any] | None = None, inherit: bool = False
) -> Model:
    """Return the network that a run or a text stands for (see :func:`export`)."""
    arch, own, run = locate(given, space, fields)
    asked = typed(type(own), fields or {}, of="space")
    if run is None:
        if inherit:
            raise UserError("`inherit` takes the weights of a search: give its run folder.")
        size = own.alone().replace(**asked).deployed()
        return _fresh(arch, size, "an architecture given as text")
    if run.kind == "retrain":
        model = _trained(run, arch, own, asked, inherit)
    elif inherit:
        _check_fixed(asked, f"the supernet of {given} has")
        _, size = reopened(check_recipe(run.recipe()), own)
        size = size.deployed()
        origin = f"found by a search, weights of its supernet, run {_short(given)}"
        _weights(run)
        network = inherited(run, arch, size).eval()
        model = Model(arch=arch, space=size, network=network, weights="inherited", origin=origin)
    else:
        size = own.replace(**asked).alone().replace(**asked).deployed()
        model = _fresh(arch, size, f"found by a search, run {_short(given)}")
    return replace(model, **run.images())


def _fresh(arch: Arch, size: Space, origin: str) -> Model:
    with seeded("export", "weights"):
        network = size.network(arch).eval()
    return Model(arch=arch, space=size, network=network, weights="fresh", origin=origin)


def _trained(run: Run, arch: Arch, own: Space, asked: Mapping[str, Any], inherit: bool) -> Model:
    if inherit:
        raise UserError(f"The run {run.path} trained its network alone: leave out `inherit`, its weights are used.")
    if not run.ended:
        raise UserError(f"The run {run.path} has not ended. Go on with: gapless resume {quoted(run.path)}")
    _check_fixed(asked, f"the run {run.path} trained")
    size, weights = own.deployed(), _weights(run)
    network = size.network(arch)
    names = list(network.state_dict())
    missing = [name for name in names if name not in weights]
    if missing:
        raise UserError(f"The weights of {run.path} do not fit its network: {missing[0]} is missing.")
    network.load_state_dict({name: weights[name] for name in names})
    result = run.result()
    return Model(
        arch=arch,
        space=size,
        network=network.eval(),
        weights="trained",
        origin=f"trained alone, run {_short(run.path)}",
        accuracy=float(result["test_accuracy"]),
        tested=f"{result['test_images']:,} images: {result['tested_on']}",
    )


def write(model: Model, formats: Sequence[str], out: str | Path) -> Exported:
    """Write a model into a folder that is not there yet, or empty; a failure leaves nothing.

    Parameters
    ----------
    model
        What is written: from :func:`model_of`, or made of a space and a network of one's own.
    formats
        See :func:`export`.
    out
        The folder.

    Raises
    ------
    UserError
        Where the folder is taken or cannot be written, or a format cannot hold the network.
    """
    check_formats(formats)
    out = Path(out)
    Run.check_free(out)
    there = next(p for p in out.absolute().parents if p.exists())
    draft = there / f".{out.name[:200]}.{secrets.token_hex(8)}{files.DRAFT}"
    try:
        draft.mkdir(mode=0o777)
        written = {name: FORMATS[name](model, draft) for name in dict.fromkeys(formats)}
        told = {
            **model.facts,
            "differences": {name: found["difference"] for name, found in written.items()},
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(draft.iterdir())},
        }
        (draft / "model.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir() and not out.is_symlink():
            out.rmdir()
        draft.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(out, model, told)


def _weights(run: Run) -> dict[str, Any]:
    if not (run.path / "weights.safetensors").is_file():
        raise UserError(f"{run.path} holds no weights: it has not ended, or trains none.")
    return run.weights()


def _check_fixed(asked: Mapping[str, Any], what: str) -> None:
    if asked:
        raise UserError(
            f"`{next(iter(asked))}` cannot be changed: the weights that {what} are of one size. Leave it out.",
            of="space",
        )


def _short(given: str | Path) -> str:
    """Return the name of a run folder: its path is of no use elsewhere."""
    return Path(given).resolve().name


def _free(given: str | Path) -> Path:
    """Return a folder that is not there yet, named after what is exported."""
    text = str(given)
    stem = _short(text) if os.path.exists(text) else text if re.fullmatch(r"[\w.-]{1,60}", text) else "network"
    path, n = Path("exports") / stem, 2
    while path.exists():
        path, n = Path("exports") / f"{stem}-{n}", n + 1
    return path
