"""Sets in the layouts of Hugging Face: Parquet files and class folders on disk, and names on the hub."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import struct
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gapless.core import files
from gapless.core.errors import UserError, nearest
from gapless.core.text import printable, shown
from gapless.data.images import Picture, Raw, Rows

TRAIN = ("train", "training")
TEST = ("test", "testing", "validation", "valid", "val", "dev")  # the first one that is there serves
LABELS = ("label", "labels", "fine_label", "coarse_label", "class", "target")
IMAGES = ("image", "img", "images")
OTHERS = 100_000
"""A folder with so many other files, and not a tenth as many images, is no set of images."""
SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I;16L": "16-bit grey",
    "I;16N": "16-bit grey",
    "P": "palette",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
}
"""Pillow's modes in the words of :data:`CONVERSIONS`."""
TRANSPARENT = ("LA", "RGBA")  # their kind says so
CONVERSIONS = {
    "black and white": "grey, 0 and 255",
    "grey": "kept",
    "grey with transparency": "laid on black (on white where nothing would be seen), grey",
    "16-bit grey": "grey, the upper 8 bits, or the lower 8 where nothing stands above them",
    "palette": "RGB",
    "RGB": "kept",
    "RGBA": "laid on black (on white where nothing would be seen), RGB",
    "CMYK": "RGB, without a colour profile",
    "YCbCr": "RGB",
    "other colours": "RGB",
    "transparent colour": "laid on black (on white where nothing would be seen)",
    "camera orientation": "turned upright",
    "several frames": "the first one",
}
"""What is done with images of each kind. If any image of a set has colours, its grey ones get three equal channels."""


def read_folder(
    root: Path, *, label: str | None = None, image: str | None = None, test_split: str | None = None
) -> Raw:
    """Read a folder.

    Either Parquet files in it, in its folder ``data`` or in one other folder, the split being a word of the file name
    (``train-00000-of-00001.parquet``, ``photos_train.parquet``) or the name of their folder (``train/0000.parquet``).
    Or else images in class folders: ``train/cat/1.png`` with ``test``, ``validation`` or neither beside ``train``, or
    ``cat/1.png`` without a split. ``test_split`` names the split that serves for testing.
    """
    tables = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet")) or _nested(root)
    if tables:
        return _read_parquet(root, tables, label, image, test_split)
    no_columns(f"{root} holds images in class folders, not columns", label, image)
    return _read_class_folders(root, test_split)


def _nested(root: Path) -> list[Path]:
    """Return the Parquet files of a download from the hub: in one folder, or in its folders of splits."""
    if any(_pictures(folder) or any(map(_pictures, _folders(folder))) for folder in _folders(root)):
        return []  # what lies beside images describes them
    found = [
        path
        for pattern in ("*/*.parquet", "*/*/*.parquet")
        for path in sorted(root.glob(pattern))
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    tops = sorted({path.relative_to(root).parts[0] for path in found})
    if len(tops) > 1 and not set(tops) <= {*TRAIN, *TEST}:
        raise UserError(
            f"{root} holds several sets of Parquet files: {', '.join(tops)}. Give the folder of one of them."
        )
    return found


def no_columns(reason: str, *columns: str | None) -> None:
    """Raise where a column is given for a set without columns."""
    if any(column is not None for column in columns):
        raise UserError(f"`label` and `image` name columns, but {reason}. Leave them out.", of="data")


def _choose(names: Collection[str], source: str, asked: str | None = None) -> tuple[str, str | None, str]:
    """Return the training split, the test split and the source, which tells where another split serves for testing.

    A split that is alone is the whole set, whatever its name. ``asked`` names the split for testing; "none" takes a
    part of the training split.
    """
    train = next((name for name in TRAIN if name in names), None)
    if train is None:
        if len(names) > 1:
            raise UserError(f"{source}: there is no train split among {', '.join(names)}.")
        train = next(iter(names))
    test = next((name for name in TEST if name in names and name != train), None)
    if asked is not None:
        others = [name for name in names if name != train]
        if asked not in (*others, "none"):
            raise UserError(
                f"`test_split` must be one of {', '.join([*others, 'none'])}; got {printable(asked[:80])!r}.", of="data"
            )
        test = None if asked == "none" else asked
    return train, test, source if test in (None, *TEST[:2]) else f"{source}; {test} serves as the test split"


# Class folders


@dataclass
class _Tree:
    """The images of one split in class folders, and what is wrong with its folders and files."""

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def rows(self) -> Rows:
        return _rows(self.paths, self.labels, [str(path) for path in self.paths])


def _read_class_folders(root: Path, asked: str | None = None) -> Raw:
    inside = {folder.name.lower(): folder for folder in _folders(root)}
    named = {name: folder for name, folder in inside.items() if name in TRAIN + TEST}
    splits = {name: folder for name, folder in named.items() if _folders(folder)}
    flat = [folder for name, folder in named.items() if name not in splits and _pictures(folder)]
    source, train, test, note = f"images in {root}", "", None, ""
    if flat and len(named) == len(inside) and not splits:
        raise UserError(
            f"{flat[0]} holds images and no class folders. A split holds a folder for each class, such as "
            "train/cat/1.png and test/cat/2.png; without splits the classes are the folders: cat/1.png."
        )
    if any(name in splits for name in TRAIN) or (splits and len(splits) == len(inside)):
        train, test, source = _choose(splits, source, asked)
        unlabelled = [folder.name for folder in flat if test is None or folder.name.lower() in TEST[: TEST.index(test)]]
        if unlabelled:
            note = f"the images of {' and '.join(unlabelled)} lie in no class folders and are not used"
    elif asked not in (None, "none"):
        raise UserError(
            f"`test_split` names {printable(asked[:80])!r}, and {root} has no splits. Leave it out.", of="data"
        )
    top = splits[train] if train else root
    classes = tuple(folder.name for folder in _folders(top))
    if not classes:
        raise UserError(
            f"{root} holds no set of images: expected train-*.parquet, or class folders such as "
            f"train/cat/1.png or cat/1.png.{_arrays(path.name for path in root.iterdir())}"
        )
    trees = [_tree(root, folder, classes) for folder in (top, *((splits[test],) if test else ()))]
    empty = sorted(set(range(len(classes))) - set(trees[0].labels))
    told = _instead(trees[0], top) if empty else {}
    return Raw(
        root.resolve().name,
        source,
        classes,
        trees[0].rows(),
        trees[1].rows() if test else None,
        test or "",
        (
            *(problem for tree in trees for problem in tree.problems),
            *(f"The class folder {top / classes[c]} holds no images.{told.get(classes[c], '')}" for c in empty),
        ),
        tuple(name for tree in trees for name in tree.ignored),
        tuple(folder.name for name, folder in inside.items() if train and name not in (train, test)),
        note,
    )


def _instead(tree: _Tree, top: Path) -> dict[str, str]:
    """Return class -> what its folder holds beside images, as a sentence."""
    found: dict[str, list[str]] = {}
    for name in tree.ignored:
        inside = Path(name).relative_to(top).parts
        found.setdefault(inside[0], []).append(name)
    return {
        label: f" It holds {len(names):,} other files, such as {names[0]}.{_arrays(names)}"
        for label, names in found.items()
    }


def _arrays(names: Iterable[str]) -> str:
    """Return what to do with arrays of NumPy, where there are any."""
    if not any(name.lower().endswith((".npy", ".npz")) for name in names):
        return ""
    return (
        " Arrays of NumPy are not read: save each image as a file, with "
        "PIL.Image.fromarray(array).save('cat/1.png') for uint8 [H, W] or [H, W, 3]."
    )


def _folders(root: Path) -> list[Path]:
    try:
        found = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read ({error.strerror}).") from error
    return sorted(found, key=lambda p: p.name)


def _pictures(folder: Path) -> bool:
    """Return whether images lie in a folder itself; one that cannot be read is reported where it is walked."""
    try:
        return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
    except OSError:
        return False


def _tree(root: Path, top: Path, classes: Sequence[str]) -> _Tree:
    """Walk the class folders of one split: those inside them belong to the class, and links are followed."""
    found = _Tree()
    seen = {os.path.realpath(root), os.path.realpath(top)}

    def unreadable(error: OSError) -> None:
        found.problems.append(f"The folder {error.filename} cannot be read ({error.strerror}).")

    def is_new(folder: str) -> bool:
        """Return whether the folder is not yet read: a link may lead to one that is, or to one that it lies in."""
        real = os.path.realpath(folder)
        if real in seen:
            found.problems.append(f"The folder {folder} leads to {real}, which is read already. Remove the link.")
            return False
        seen.add(real)
        return True

    found.ignored += sorted(str(p) for p in top.iterdir() if not p.is_dir() and not p.name.startswith("."))
    for folder in _folders(top):
        if folder.name not in classes:
            hint = nearest(folder.name, classes)
            found.problems.append(f"{folder} is no class of the training split.{hint}")
            continue
        if not is_new(str(folder)):
            continue
        images: list[Path] = []
        for here, folders, inside in os.walk(folder, onerror=unreadable, followlinks=True):
            visible = sorted(name for name in folders if not name.startswith("."))
            folders[:] = [name for name in visible if is_new(os.path.join(here, name))]
            paths = [Path(here, name) for name in inside if not name.startswith(".")]
            images += [path for path in paths if path.suffix.lower() in SUFFIXES]
            found.ignored += sorted(str(path) for path in paths if path.suffix.lower() not in SUFFIXES)
            if len(found.ignored) > max(OTHERS, 10 * (len(found.paths) + len(images))):
                there = len(found.paths) + len(images)
                raise UserError(
                    f"{root} is no set of images: among its first {len(found.ignored) + there:,} files {there:,} are "
                    "images by their names. Give the folder that holds the class folders."
                )
        found.paths += sorted(images, key=lambda path: path.relative_to(folder).as_posix())
        found.labels += [classes.index(folder.name)] * len(images)
    return found


# Tables: Parquet files and the hub


@dataclass(frozen=True)
class _Table:
    """Rows of one split: the Arrow table, a name for every row, and the folder that relative paths start from."""

    table: Any
    where: list[str]
    root: Path


def _read_parquet(root: Path, paths: list[Path], label: str | None, image: str | None, asked: str | None) -> Raw:
    splits = _splits_of(paths)
    train, test, source = _choose(splits, f"Parquet files in {root}", asked)
    tables = [_parquet_table(splits[name]) for name in (train, test) if name is not None]
    metadata = (tables[0].table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features") or {}
    raw = _from_tables(root.resolve().name, source, tables, features, label, image)
    unused = tuple(name for name in splits if name not in (train, test))
    return replace(raw, tested=raw.tested and (test or ""), unused=unused)


def _splits_of(paths: list[Path]) -> dict[str, list[Path]]:
    """Return split -> its files: the split is the one word of a file's name that names a split, else the name of its
    folder, else the first word of its name.

    Raises
    ------
    UserError
        Where some names hold such a word and others none, or one holds several: no test image may be trained on.
    """
    found: dict[Path, str] = {}
    for path in paths:
        part = re.match(r"([^-]+)-\d{5}-of-\d{5}", path.stem.lower())
        words = [part.group(1)] if part else re.split(r"[-_. ]", path.stem.lower())
        said = [TRAIN[0] if word in TRAIN else word for word in words if part or word in TRAIN + TEST]
        folder = path.parent.name.lower()
        if folder in TRAIN + TEST:
            said.append(TRAIN[0] if folder in TRAIN else folder)
        named = list(dict.fromkeys(said))
        if len(named) > 1:
            raise UserError(f"{path} names two splits, {' and '.join(named)}. Rename it: train-{path.name}, say.")
        found[path] = named[0] if named else ""
    if not any(found.values()) and len({path.parent for path in paths}) > 1:
        raise UserError(f"{paths[0].parent} and other folders hold Parquet files whose names name no split.")
    if any(found.values()) and not all(found.values()):
        odd = next(path for path, split in found.items() if not split)
        raise UserError(
            f"{odd} names no split, and other files there do. Rename it, as train-*.parquet, or move it away."
        )
    splits: dict[str, list[Path]] = {}
    for path, split in found.items():
        splits.setdefault(split or re.split(r"[-_.]", path.name)[0].lower(), []).append(path)
    return splits


def _parquet_table(paths: list[Path]) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, where = [], []
    for file in paths:
        files.checked(file, "The Parquet file")
        try:
            tables.append(pq.ParquetFile(file).read())
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} is not a readable Parquet file ({error}).") from error
        where += [f"row {i} of {file}" for i in range(len(tables[-1]))]
        if tables[-1].schema != tables[0].schema:
            raise UserError(f"{paths[0]} and {file} have different columns: they are parts of one split.")
    return _Table(pa.concat_tables(tables), where, paths[0].parent)


def read_hub(
    name: str,
    *,
    label: str | None = None,
    image: str | None = None,
    test_split: str | None = None,
    known: Iterable[str] = (),
) -> Raw:
    """Read a set from the Hugging Face hub, or from its cache, where ``datasets`` keeps what it has downloaded.

    Parameters
    ----------
    name
        ``user/set``, or ``set`` for the few that have no user.
    label, image
        Columns; None finds them.
    test_split
        Split that serves for testing.
    known
        Names of sets that are not on the hub, to suggest where ``name`` was mistyped.
    """
    for variable in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(variable, "1")
    import datasets

    datasets.disable_progress_bars()
    try:
        with _within_patience(name):
            found = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        remedy = "Check the name and the connection, or download the set and give its folder."
        if datasets.config.HF_HUB_OFFLINE:
            remedy = "HF_HUB_OFFLINE is set, so only the cache was searched. " + remedy
        raise UserError(
            f"There is no folder {name!r}, and the Hugging Face hub did not give a set of that name "
            f"({str(error).rstrip('.')}).{nearest(name, known)} {remedy}"
        ) from error
    train, test, source = _choose(found, f"{name} on the Hugging Face hub", test_split)
    tables = []
    for split in (train, test):
        if split is not None:
            rows = [f"row {i} of the {split} split of {name}" for i in range(len(found[split]))]
            tables.append(_Table(found[split].with_format("arrow")[:], rows, Path()))
    raw = _from_tables(name, source, tables, found[train].features.to_dict(), label, image)
    unused = tuple(str(split) for split in found if split not in (train, test))
    return replace(raw, tested=raw.tested and (test or ""), unused=unused)


@contextlib.contextmanager
def _within_patience(name: str) -> Iterator[None]:
    """Ask the hub for a set once; where nobody answers, let the cache alone be searched: the library would try for half
    a minute."""
    import datasets
    from huggingface_hub import HfApi, constants, errors, utils

    utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what it would say stands in our own sentence
    settings: tuple[Any, ...] = (datasets.config, constants)
    before = [each.HF_HUB_OFFLINE for each in settings]
    if not any(before):
        try:
            HfApi().dataset_info(name, timeout=PATIENCE)
        except errors.HfHubHTTPError:
            pass  # it answered
        except Exception:  # what says that nobody answers depends on the version
            for each in settings:
                each.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for each, offline in zip(settings, before, strict=True):
            each.HF_HUB_OFFLINE = offline


def _from_tables(
    name: str, source: str, tables: list[_Table], features: Mapping[str, Any], label: str | None, image: str | None
) -> Raw:
    """Return the set; ``features`` is the hub's description of the columns, empty where there is none."""
    features = {column: kind for column, kind in features.items() if isinstance(kind, dict)}  # lists are no images
    image, label = _find_columns(tables[0].table.schema, features, image, label)
    for column in (image, label):
        if any(column not in part.table.column_names for part in tables):
            raise UserError(f"{source}: the test split has no column {column!r}.")
    values, note = [_labels(part.table.column(label).to_pylist(), label, part.where) for part in tables], ""
    if len(values) > 1 and values[1] and all(value is None or value == -1 for value in values[1]):
        note, values, tables = "the images for testing have no labels and are not used", values[:1], tables[:1]
    described = features.get(label, {})
    described = described["feature"] if isinstance(described.get("feature"), dict) else described  # of a list
    if described.get("_type") == "ClassLabel":
        classes = tuple(described.get("names") or map(str, range(described.get("num_classes") or 0)))
        codes: dict[Any, int] = {i: i for i in range(len(classes))}
    else:
        legal = sorted({value for value in values[0] if value is not None})
        classes, codes = tuple(map(str, legal)), {value: i for i, value in enumerate(legal)}
    splits, problems = [], []
    for part, labels in zip(tables, values, strict=True):
        for where, value in zip(part.where, labels, strict=True):
            if value not in codes:
                what = "no label" if value is None else f"the label {value!r}, which is no class of the training split"
                problems.append(f"In column {label!r}, {where} has {what}.")
        items = [_item(value, part.root) for value in part.table.column(image).to_pylist()]
        splits.append(_rows(items, [codes.get(value, -1) for value in labels], part.where))
    test = splits[1] if len(splits) > 1 else None
    return Raw(name, source, classes, splits[0], test, "test" if test else "", problems=tuple(problems), note=note)


def _labels(values: list[Any], column: str, where: Sequence[str]) -> list[Any]:
    """Return labels as whole numbers, texts or None: also where they are stored as floats, in lists of one, or as a one
    among zeros.

    Raises
    ------
    UserError
        Where one is a fraction, or several.
    """
    lengths = {len(value) for value in values if isinstance(value, list)}
    coded = len(lengths) == 1 and all(
        len(value) > 1 and value.count(1) == 1 and value.count(0) == len(value) - 1
        for value in values
        if isinstance(value, list)
    )
    found = []
    for value, row in zip(values, where, strict=True):
        if isinstance(value, list):
            if len(value) != 1 and not coded:
                raise UserError(
                    f"Column {column!r} cannot be the label: {row} has {len(value)} labels, and an image has one here. "
                    "Give another column as `label`.",
                    of="data",
                )
            value = value.index(1) if coded else value[0]
        if not isinstance(value, int | float | str | None):
            raise UserError(
                f"Column {column!r} cannot be the label: {row} holds neither a number nor a text. Give another column "
                "as `label`.",
                of="data",
            )
        if isinstance(value, float) and not value.is_integer():
            if not math.isnan(value):
                raise UserError(
                    f"Column {column!r} cannot be the label: {row} has {value!r}, a quantity and no class. Give "
                    "another column as `label`.",
                    of="data",
                )
            value = None
        found.append(int(value) if isinstance(value, float) else value)
    return found


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
    if label is not None or not {*LABELS, *described("ClassLabel")} & {*labels}:
        labels += of_type(types.is_floating, types.is_list, types.is_large_list, types.is_fixed_size_list)
    return (
        _pick("image", image, schema.names, images, described("Image"), of_type(is_struct), IMAGES),
        _pick("label", label, schema.names, labels, described("ClassLabel"), LABELS),
    )


def _pick(kind: str, given: str | None, names: list[str], legal: list[str], *tiers: Sequence[str]) -> str:
    """Return the column that is given, else the only legal one of the first tier that has any."""
    advice = f"Give its name as `{kind}`. Columns: {', '.join(names)}."
    if given is not None:
        if given not in names:
            raise UserError(f"There is no column {given!r}.{nearest(given, names)} {advice}", of="data")
        if given not in legal:
            fits = "encoded files (PNG, JPEG) or paths" if kind == "image" else "whole numbers or texts"
            raise UserError(f"Column {given!r} cannot be the {kind}: it does not hold {fits}. {advice}", of="data")
        return given
    for tier in tiers:
        found = [name for name in legal if name in tier]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"More than one column may be the {kind}: {', '.join(found)}. {advice}", of="data")
    raise UserError(f"No column looks like the {kind}. {advice}", of="data")


# Encoded images

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, whatever a file is called. Pillow knows more, and starts other programs for some of them (EPS)."""
PATIENCE = 10.0
"""Seconds in which the hub has to answer."""
LARGEST = 2**30
"""The largest file of an image, in bytes."""
Item = Any
"""An encoded image (bytes), the path of its file, a path :class:`Outside` of the folder, or None."""


def _item(value: Any, root: Path) -> Item:
    """Return what an image column holds in one row: the encoded image, or the path of its file.

    A path that leads out of the folder of the table is none: the table may come from a stranger.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str):
        return value
    if "\0" in value or not os.path.realpath(root / value).startswith(os.path.realpath(root) + os.sep):
        return Outside(value)
    return root / value


class Outside(str):
    """The path of an image outside of the folder of its table."""


def _rows(items: Sequence[Item], labels: Sequence[int], where: Sequence[str]) -> Rows:
    return Rows(lambda i: decode(items[i], where[i]), where.__getitem__, np.array(labels, np.int64))


def decode(item: Item, where: str) -> Picture:
    """Decode one image, as :data:`CONVERSIONS` says.

    Raises
    ------
    UserError
        Naming the image by ``where``, when it is missing, damaged or stored in floating point.
    """
    if item is None:
        raise UserError(f"There is no image in {where}.")
    if isinstance(item, Outside):
        raise UserError(f"{where} names the image {shown(item)}, which is not in the folder of the table.")
    try:
        content = files.read_bytes(item, "The image", most=LARGEST) if isinstance(item, Path) else item
    except UserError as error:
        raise UserError(f"There is no readable image in {where}. {error}") from None
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(content), formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # a spoilt note of a camera changes no pixel
            image.load()
            kinds = [MODES.get(image.mode, "other colours")]
            upright: Image.Image = image
            if image.has_transparency_data and image.mode not in TRANSPARENT:
                kinds.append("transparent colour")
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                upright = ImageOps.exif_transpose(image)
                kinds.append("camera orientation")
            pixels = _array(upright)
            if _has_more_frames(image):
                kinds.append("several frames")
    except UnidentifiedImageError as error:
        raise UserError(
            f"There is no readable image in {where}: it is damaged, or none of {', '.join(FORMATS)}."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"There is no readable image in {where} ({error}).") from error
    return Picture(pixels, tuple(kinds))


def _has_more_frames(image: Image.Image) -> bool:
    """Return whether there is a second frame. It is not used, so it may be damaged, which Pillow says in many ways."""
    try:
        return bool(getattr(image, "is_animated", False))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error):
        return True


def _array(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        return (wide if wide.max(initial=0) < 256 else wide >> 8).astype(np.uint8)[None]
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are wide numbers without a fixed range; save it with 8 or 16 bits a channel")
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = _opaque(image.convert("RGBA"))
    mode = "L" if grey else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image with transparency laid on black; on white where black leaves nothing to be seen."""
    for ground in (0, 255):
        laid = Image.alpha_composite(Image.new("RGBA", image.size, (ground, ground, ground, 255)), image)
        pixels = np.asarray(laid)
        if (pixels != pixels[:1, :1]).any():
            break
    return laid
