"""Sets in the layouts of Hugging Face: Parquet files and class folders on disk, and names on the hub."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from gapless.core.errors import UserError, nearest
from gapless.data.images import Raw, Rows

TRAIN = ("train", "training")
TEST = ("test", "testing", "validation", "valid", "val", "dev")  # the first one that is there serves
LABELS = ("label", "labels", "fine_label", "coarse_label", "class", "target")
IMAGES = ("image", "img", "images")
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

T = TypeVar("T")


def read_folder(root: Path, *, label: str | None = None, image: str | None = None) -> Raw:
    """Read a folder.

    Either Parquet files in it or in its folder ``data``, the split being the first word of the file name
    (``train-00000-of-00001.parquet``), or else images in class folders: ``train/cat/1.png`` with ``test``,
    ``validation`` or neither beside ``train``, or ``cat/1.png`` without a split.
    """
    files = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if files:
        return _read_parquet(root, files, label, image)
    no_columns(f"{root} holds images in class folders, not columns", label, image)
    return _read_class_folders(root)


def no_columns(reason: str, *columns: str | None) -> None:
    """Raise where a column is given for a set without columns."""
    if any(column is not None for column in columns):
        raise UserError(f"--data.label and --data.image name columns, but {reason}. Leave them out.")


def _choose(splits: Mapping[str, T], source: str) -> tuple[T, T | None, str]:
    """Return the training split, the test split and the source, which tells where another split serves for testing.

    A split that is alone is the whole set, whatever its name.
    """
    train = next((name for name in TRAIN if name in splits), None)
    if train is None:
        if len(splits) > 1:
            raise UserError(f"{source}: there is no train split among {', '.join(splits)}.")
        train = next(iter(splits))
    test = next((name for name in TEST if name in splits and name != train), None)
    if test is None:
        return splits[train], None, source
    return splits[train], splits[test], source if test in TEST[:2] else f"{source}; {test} serves as the test split"


# Class folders


def _read_class_folders(root: Path) -> Raw:
    inside = {folder.name.lower(): folder for folder in _folders(root)}
    splits = {name: folder for name, folder in inside.items() if name in TRAIN + TEST and _folders(folder)}
    source, train, test = f"images in {root}", root, None
    if any(name in splits for name in TRAIN):
        train, test, source = _choose(splits, source)
    classes = tuple(folder.name for folder in _folders(train))
    if not classes:
        raise UserError(
            f"{root} holds no set of images: expected train-*.parquet, or class folders such as "
            "train/cat/1.png or cat/1.png."
        )
    train_rows = _class_rows(train, classes)
    empty = set(range(len(classes))) - set(train_rows.labels.tolist())
    if empty:
        raise UserError(f"The class folder {train / classes[min(empty)]} holds no images.")
    return Raw(root.resolve().name, source, classes, train_rows, None if test is None else _class_rows(test, classes))


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def _class_rows(root: Path, classes: Sequence[str]) -> Rows:
    paths: list[Path] = []
    labels: list[int] = []
    for folder in _folders(root):
        if folder.name not in classes:
            raise UserError(f"{folder} is no class of the training split.{nearest(folder.name, classes)}")
        parts = (p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        found = sorted(p.as_posix() for p in parts if not any(part.startswith(".") for part in p.parts))
        paths += [folder / name for name in found]
        labels += [classes.index(folder.name)] * len(found)
    return _rows(paths, labels, [str(path) for path in paths])


# Tables: Parquet files and the hub


@dataclass(frozen=True)
class _Table:
    """Rows of one split: the Arrow table, a name for every row, and the folder that relative paths start from."""

    table: Any
    where: list[str]
    root: Path


def _read_parquet(root: Path, files: list[Path], label: str | None, image: str | None) -> Raw:
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(re.split(r"[-_.]", file.name)[0].lower(), []).append(file)
    train, test, source = _choose(splits, f"Parquet files in {root}")
    tables = [_parquet_table(part) for part in (train, test) if part is not None]
    metadata = (tables[0].table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features") or {}
    return _from_tables(root.resolve().name, source, tables, features, label, image)


def _parquet_table(files: list[Path]) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, where = [], []
    for file in files:
        try:
            tables.append(pq.ParquetFile(file).read())
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} is not a readable Parquet file ({error}).") from error
        where += [f"row {i} of {file}" for i in range(len(tables[-1]))]
        if tables[-1].schema != tables[0].schema:
            raise UserError(f"{files[0]} and {file} have different columns: they are parts of one split.")
    return _Table(pa.concat_tables(tables), where, files[0].parent)


def read_hub(name: str, *, label: str | None = None, image: str | None = None, known: Iterable[str] = ()) -> Raw:
    """Read a set from the Hugging Face hub, or from its cache, where ``datasets`` keeps what it has downloaded.

    Parameters
    ----------
    name
        ``user/set``, or ``set`` for the few that have no user.
    label, image
        Columns; None finds them.
    known
        Names of sets that are not on the hub, to suggest where ``name`` was mistyped.
    """
    for variable in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(variable, "1")
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        remedy = "Check the name and the connection, or download the set and give its folder."
        if datasets.config.HF_HUB_OFFLINE:
            remedy = "HF_HUB_OFFLINE is set, so only the cache was searched. " + remedy
        raise UserError(
            f"There is no folder {name!r}, and the Hugging Face hub did not give a set of that name "
            f"({str(error).rstrip('.')}).{nearest(name, known)} {remedy}"
        ) from error
    train, test, source = _choose(found, f"{name} on the Hugging Face hub")
    tables = []
    for split in (train, test):
        if split is not None:
            rows = [f"row {i} of the {split.split} split of {name}" for i in range(len(split))]
            tables.append(_Table(split.with_format("arrow")[:], rows, Path()))
    return _from_tables(name, source, tables, train.features.to_dict(), label, image)


def _from_tables(
    name: str, source: str, tables: list[_Table], features: Mapping[str, Any], label: str | None, image: str | None
) -> Raw:
    """Return the set; ``features`` is the hub's description of the columns, empty where there is none."""
    features = {column: kind for column, kind in features.items() if isinstance(kind, dict)}  # lists are no images
    image, label = _find_columns(tables[0].table.schema, features, image, label)
    for column in (image, label):
        if any(column not in part.table.column_names for part in tables):
            raise UserError(f"{source}: the test split has no column {column!r}.")
    values = [part.table.column(label).to_pylist() for part in tables]
    described = features.get(label, {})
    if described.get("_type") == "ClassLabel":
        classes = tuple(described.get("names") or map(str, range(described.get("num_classes") or 0)))
        codes: dict[Any, int] = {i: i for i in range(len(classes))}
    else:
        legal = sorted({value for value in values[0] if value is not None})
        classes, codes = tuple(map(str, legal)), {value: i for i, value in enumerate(legal)}
    splits = []
    for part, labels in zip(tables, values, strict=True):
        for where, value in zip(part.where, labels, strict=True):
            if value not in codes:
                what = "no label" if value is None else f"the label {value!r}, which is no class of the training split"
                raise UserError(f"In column {label!r}, {where} has {what}.")
        items = [_item(value, part.root) for value in part.table.column(image).to_pylist()]
        splits.append(_rows(items, [codes[value] for value in labels], part.where))
    return Raw(name, source, classes, splits[0], splits[1] if len(splits) > 1 else None)


def _find_columns(schema: Any, features: Mapping[str, Any], image: str | None, label: str | None) -> tuple[str, str]:
    """Return the columns of images and of labels: as given, else by the hub's types, then by storage, then by name."""
    from pyarrow import types

    def is_struct(column: Any) -> bool:
        return types.is_struct(column) and any(field.name == "bytes" for field in column)

    def of_type(*kinds: Callable[[Any], bool]) -> list[str]:
        stored = {f.name: f.type.value_type if types.is_dictionary(f.type) else f.type for f in schema}
        return [name for name, column in stored.items() if any(kind(column) for kind in kinds)]

    def described(kind: str) -> list[str]:
        return [name for name in schema.names if features.get(name, {}).get("_type") == kind]

    strings = (types.is_string, types.is_large_string)
    images = of_type(is_struct, types.is_binary, types.is_large_binary, *strings)
    labels = of_type(types.is_integer, types.is_boolean, *strings)
    return (
        _pick("image", image, schema.names, images, described("Image"), of_type(is_struct), IMAGES),
        _pick("label", label, schema.names, labels, described("ClassLabel"), LABELS),
    )


def _pick(kind: str, given: str | None, names: list[str], legal: list[str], *tiers: Sequence[str]) -> str:
    """Return the column that is given, else the only legal one of the first tier that has any."""
    advice = f"Give its name with --data.{kind}. Columns: {', '.join(names)}."
    if given is not None:
        if given not in names:
            raise UserError(f"There is no column {given!r}.{nearest(given, names)} {advice}")
        if given not in legal:
            raise UserError(f"Column {given!r} cannot be the {kind}: its type does not fit. {advice}")
        return given
    for tier in tiers:
        found = [name for name in legal if name in tier]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"More than one column may be the {kind}: {', '.join(found)}. {advice}")
    raise UserError(f"No column looks like the {kind}. {advice}")


# Encoded images


def _item(value: Any, root: Path) -> bytes | Path | None:
    """Return what an image column holds in one row: the encoded image, or the path of its file."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return root / value if isinstance(value, str) else value


def _rows(items: Sequence[bytes | Path | None], labels: Sequence[int], where: Sequence[str]) -> Rows:
    return Rows(lambda i: decode(items[i], where[i]), where.__getitem__, np.array(labels, np.int64))


def decode(item: bytes | Path | None, where: str) -> NDArray[np.uint8]:
    """Decode one image: uint8 [1, H, W] if it is grey, else [3, H, W].

    Transparent images are composited on black, 16-bit grey keeps its upper 8 bits, an orientation in the camera's tags
    is applied. Of a moving image the first frame counts.

    Raises
    ------
    UserError
        Naming the image by ``where``, when it is missing, damaged or stored in floating point.
    """
    if item is None:
        raise UserError(f"There is no image in {where}.")
    try:
        with Image.open(BytesIO(item) if isinstance(item, bytes) else item) as image:
            image.load()
            upright: Image.Image = image
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                upright = ImageOps.exif_transpose(image)
            return _array(upright)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"There is no readable image in {where} ({error}).") from error


def _array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[None]
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range")
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    mode = "L" if grey else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
