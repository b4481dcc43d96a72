"""The official NATS-Bench topology files (Dong et al., arXiv 2009.00437), read into the small table of
:mod:`gapless.tables.nasbench201`.

The official download is pickles, and a pickle runs whatever its author wrote when it is read: :func:`read` does so
only for those who say that they trust it. The package ``nats-bench`` (extra ``nats-bench``) does the reading. It knows
a data set by what was trained on and a set by what was measured, and :data:`SETS` says which pair fills which column.
Every value is the mean over all seeds in the file, after the last epoch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import pickle
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gapless.core import files
from gapless.core.errors import UserError
from gapless.tables import KEY
from gapless.tables.nasbench201 import CELLS, EPOCHS

NAME = "NATS-tss-v1_0-3ffb9"
"""Base name of the official files."""
SUFFIX = ".pickle.pbz2"
SETS: dict[str, tuple[str, str]] = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_test": ("ImageNet16-120", "x-test"),
}
"""Column -> (data set, set) in the package's words.

CIFAR-10 was trained twice: ``cifar10-valid`` on 25,000 images, whose other 25,000 are ``x-valid``; ``cifar10`` on all
50,000, whose ``ori-test`` are the 10,000 test images. CIFAR-100 and ImageNet16-120 were trained once, and their test
images divided into ``x-valid`` and ``x-test``; ``ori-test`` there is both together, and is not used.
"""
_OPTION = r"(?:none|skip_connect|nor_conv_1x1|nor_conv_3x3|avg_pool_3x3)"
_ARCH = re.compile(rf"\|{_OPTION}~0\|\+\|{_OPTION}~0\|{_OPTION}~1\|\+\|{_OPTION}~0\|{_OPTION}~1\|{_OPTION}~2\|")
_DAMAGE = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
"""What reading a pickle that is damaged, or is something else, may raise."""


@dataclass(frozen=True, eq=False)
class Cells:
    """What was read.

    Attributes
    ----------
    index, archs
        The benchmark's own number and string of each cell, ascending by number.
    columns
        Column name -> a value per cell, percent.
    provenance
        Plain facts: source, digest, versions, how means were taken, sets and numbers of seeds per column, warnings.
    warnings
        One sentence for each thing that is not as in the whole benchmark; empty where all is there.
    """

    index: tuple[int, ...]
    archs: tuple[str, ...]
    columns: Mapping[str, tuple[float, ...]]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...]


def read(path: str | Path, *, trust: bool = False, told: Callable[[int, int], None] | None = None) -> Cells:
    """Read the official files, a folder or a single pickle.

    The folder is read cell by cell in little memory; the single file is read at once and takes many times its size.

    Parameters
    ----------
    path
        The unpacked folder ``NATS-tss-v1_0-3ffb9-simple``, or the single file ``NATS-tss-v1_0-3ffb9.pickle.pbz2``.
    trust
        Whether the pickles may be read, and thereby run.
    told
        Called after each cell with (cells read, cells to read).

    Raises
    ------
    UserError
        Where there are no such files, they are not trusted, the package is missing, or they hold something else, such
        as the size search space.
    """
    path = files.whole(path)
    _check(path)
    if not trust:
        raise UserError(
            f"{path} is a pickle: reading it runs whatever its author put into it. If you have it from the authors of "
            "NATS-Bench and trust it, set `trust`."
        )
    try:
        package = importlib.import_module("nats_bench")
    except ImportError as error:
        raise UserError(
            f"The package nats-bench cannot be imported ({error}). Install it: pip install 'gapless[nats-bench]'."
        ) from None
    try:
        api = package.create(str(path), "topology", fast_mode=path.is_dir(), verbose=False)
        known = [str(arch) for arch in api.meta_archs]
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    if any(_ARCH.fullmatch(arch) is None for arch in known):
        wrong = next(arch for arch in known if _ARCH.fullmatch(arch) is None)
        raise UserError(f"{path} holds {wrong!r}, which is no cell of the topology search space.{_size_hint(wrong)}")
    digest = hashlib.sha256()
    rows: dict[int, dict[str, tuple[float, int]]] = {}
    names: set[str] = set()
    for number, total, index, results in _results(api, path, digest):
        rows[index] = _row(results, index, known, path)
        names |= set(rows[index])
        if told is not None:
            told(number, total)
    order = [f"{column}_{epochs}" for epochs in EPOCHS for column in SETS]
    columns = [name for name in order if name in names]
    whole = [index for index in sorted(rows) if len(rows[index]) == len(columns)]
    partial = len(rows) - len(whole)
    if not columns or not whole:
        raise UserError(f"{path} holds no cell with results for {' and '.join(EPOCHS)} epochs.")
    warnings = _warnings(path.name, len(whole), partial, [name for name in order if name not in names])
    seeds: dict[str, dict[str, int]] = {name: {} for name in columns}
    for index in whole:
        for name in columns:
            count = str(rows[index][name][1])
            seeds[name][count] = seeds[name].get(count, 0) + 1
    provenance = {
        "title": "NAS-Bench-201 (arXiv 2001.00326) as published in NATS-Bench, topology (arXiv 2009.00437)",
        "source": path.name,
        "sha256": digest.hexdigest(),
        "versions": {name: version(name) for name in ("gapless", "nats-bench", "numpy", "pyarrow")}
        | {"python": platform.python_version()},
        "means": "arithmetic mean over all seeds in the file, after the last epoch, percent",
        "sets": {name: "{1} of {0}".format(*SETS[name.rpartition("_")[0]]) for name in columns},
        "seeds": seeds,
        "cells": len(whole),
        "warnings": list(warnings),
    }
    return Cells(
        tuple(whole),
        tuple(known[index] for index in whole),
        {name: tuple(rows[index][name][0] for index in whole) for name in columns},
        provenance,
        warnings,
    )


def write(cells: Cells, out: str | Path) -> None:
    """Write the table as Parquet, as a whole (:func:`gapless.core.files.write`).

    Raises
    ------
    UserError
        Where the file cannot be written.
    """
    out = files.place(out)
    data = pa.table(
        {
            "index": pa.array(cells.index, pa.int64()),
            "arch": pa.array(cells.archs, pa.string()),
            **{name: pa.array(values, pa.float64()) for name, values in cells.columns.items()},
        }
    ).replace_schema_metadata({KEY: json.dumps(cells.provenance).encode()})
    buffer = BytesIO()
    pq.write_table(data, buffer)
    try:
        files.write(out, buffer.getbuffer())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from None


# ---------------------------------------------------------------------- what is there


def _check(path: Path) -> None:
    """Raise where the path does not look like the official files; nothing is read."""
    expected = f"Give the unpacked folder {NAME}-simple or the file {NAME}{SUFFIX}."
    if not path.exists():
        raise UserError(f"There is no {path}. {expected}")
    if "NATS-sss" in path.name:
        raise UserError(f"{path} is the size search space of NATS-Bench (sss). {expected}")
    if path.is_dir():
        if not (path / f"meta{SUFFIX}").is_file():
            inside = sorted(p.name for p in path.iterdir() if (p / f"meta{SUFFIX}").is_file())
            hint = f" Did you mean {path / inside[0]}?" if inside else ""
            raise UserError(f"{path} holds no meta{SUFFIX}, so it is no folder of NATS-Bench.{hint} {expected}")
    elif path.suffix == ".tar":
        raise UserError(f"{path} is an archive. Unpack it first: tar xf {path.name}. {expected}")
    elif not path.name.endswith(SUFFIX):
        raise UserError(f"{path} is no {SUFFIX} file. {expected}")


def _results(api: Any, path: Path, digest: Any) -> Iterator[tuple[int, int, int, Mapping[str, Any]]]:
    """Yield (place from 1, of how many, index, epochs -> the package's results) for each cell that is there."""
    if path.is_file():
        with path.open("rb") as whole:
            while chunk := whole.read(2**20):
                digest.update(chunk)
        there = sorted(api.arch2infos_dict)
        for number, index in enumerate(there, start=1):
            yield number, len(there), index, api.arch2infos_dict[index]
        return
    digest.update((path / f"meta{SUFFIX}").read_bytes())
    files = {index: _cell_file(path, index) for index in range(len(api.meta_archs))}
    found = {index: file for index, file in files.items() if file is not None}
    for number, (index, file) in enumerate(found.items(), start=1):
        digest.update(file.read_bytes())
        try:
            api.reload(str(path), index)
        except _DAMAGE as error:
            raise _damaged(file, error) from None
        yield number, len(found), index, api.arch2infos_dict.pop(index)  # the package would keep them all in memory


def _cell_file(path: Path, index: int) -> Path | None:
    """Return the file of a cell, under either name that the package knows, or None."""
    for name in (f"{index:06d}{SUFFIX}", f"{index}{SUFFIX}"):
        if (path / name).is_file():
            return path / name
    return None


def _row(results: Mapping[str, Any], index: int, known: list[str], path: Path) -> dict[str, tuple[float, int]]:
    """Return column -> (mean over seeds, number of seeds) of one cell; a column that was not measured is left out."""
    row = {}
    try:
        for epochs in EPOCHS:
            if epochs not in results:
                continue
            result = results[epochs]
            if result.arch_str != known[index]:
                raise ValueError(f"it is {known[index]}, its results are those of {result.arch_str}")
            for column, (data, name) in SETS.items():
                if data not in result.get_dataset_names():
                    continue
                trials = result.query(data)
                if any(name not in trial.get_eval_set() for trial in trials.values()):
                    continue
                if result.get_total_epoch(data) != int(epochs):
                    raise ValueError(f"results filed under {epochs} epochs have {result.get_total_epoch(data)}")
                value = float(result.get_metrics(data, name, iepoch=None, is_random=False)["accuracy"])
                if not (math.isfinite(value) and 0 <= value <= 100):
                    raise ValueError(f"an accuracy is {value}")
                row[f"{column}_{epochs}"] = value, len(trials)
    except _DAMAGE as error:
        raise UserError(
            f"Cell {index} of {path} cannot be read: {type(error).__name__}: {error}. Download it again."
        ) from None
    return row


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read as a file of NATS-Bench: {type(error).__name__}: {error}. Download it again."
    )


def _size_hint(arch: str) -> str:
    """Return where a text that is no cell is from, as a sentence."""
    return (
        f" It is of the size search space (sss). Give the topology files, {NAME}."
        if re.fullmatch(r"\d+(:\d+)+", arch)
        else ""
    )


def _warnings(name: str, cells: int, partial: int, missing: list[str]) -> tuple[str, ...]:
    """Return a sentence for everything that is not as in the whole benchmark."""
    said = []
    if cells < CELLS:
        said.append(
            f"{name} gave {cells:,} of {CELLS:,} cells: ranks and percentiles of this table are among those only."
        )
    if partial:
        said.append(f"{partial:,} cells were left out, for they lack results that others have.")
    if missing:
        said.append(f"No cell has results for {', '.join(missing)}: the table lacks those columns.")
    return tuple(said)
