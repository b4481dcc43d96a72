"""Labelled images: ``load`` reads a set by name or from a folder, ``ImageData`` holds it and hands out batches."""

from __future__ import annotations

import re
from pathlib import Path

from gapless.core.errors import UserError
from gapless.data import digits, huggingface
from gapless.data.images import Augment, ImageData, assemble

__all__ = ["Augment", "ImageData", "load"]

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load(
    name: str | Path,
    *,
    size: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    label: str | None = None,
    image: str | None = None,
    pad: int | None = None,
    flip: bool | None = None,
    cutout: int | None = None,
) -> ImageData:
    """Read a set of labelled images into memory, on the CPU.

    Number of channels, image size and classes are read from the data. Without a test split, ``validation`` serves, and
    without that a stratified fifth of the images. Every random choice is the same on every machine.

    Parameters
    ----------
    name
        ``digits``, which needs no download; or a folder of Parquet files or of images; or a name on the Hugging Face
        hub. A folder wins over a hub name.
    size
        Side of the square images, in pixels: the shorter side is resized to it by the exact area average, then the
        centre is cropped. None keeps the images as they are; they must then have one size.
    train_images, test_images
        Take a stratified subset of so many images of the split. None takes all.
    label, image
        Columns of a Parquet or hub set. None finds them by type, then by name.
    pad, flip, cutout
        Replace parts of the set's own ``Augment``.

    Raises
    ------
    UserError
        When the set cannot be found, read or split as asked.
    """
    path = Path(name).expanduser()
    if name == digits.NAME:
        huggingface.no_columns("the digits have no columns", label, image)
        raw = digits.read()
    elif path.is_dir():
        raw = huggingface.read_folder(path, label=label, image=image)
    elif path.exists():
        raise UserError(f"{name} is a file. Give the folder that holds it.")
    elif isinstance(name, Path) or not _HUB_NAME.fullmatch(name):
        raise UserError(f"There is no folder {name}. Give a folder, a name on the Hugging Face hub or {digits.NAME!r}.")
    else:
        raw = huggingface.read_hub(name, label=label, image=image, known=(digits.NAME,))
    return assemble(
        raw, size=size, train_images=train_images, test_images=test_images, pad=pad, flip=flip, cutout=cutout
    )
