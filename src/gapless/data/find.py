"""Which reader a name means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gapless.core import files
from gapless.core.errors import UserError
from gapless.core.text import printable, shown
from gapless.data import digits, huggingface
from gapless.data.images import Raw

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def find(name: str | Path, *, label: str | None = None, image: str | None = None, test_split: str | None = None) -> Raw:
    """Read the labels of a set and where its images are; the parameters are those of ``gapless.data.load``.

    Raises
    ------
    UserError
        Where there is no such set, or its columns cannot be told.
    """
    path = files.place(name)
    if name == digits.NAME:
        huggingface.no_columns("the digits have no columns", label, image)
        if test_split not in (None, "test"):
            raise UserError(f"`test_split` must be test for the digits; got {printable(test_split[:80])!r}.", of="data")
        return digits.read()
    if files.is_folder(path):
        return huggingface.read_folder(path, label=label, image=image, test_split=test_split)
    if os.path.lexists(path):
        what = "is a file" if files.is_file(path) else "is no folder"
        raise UserError(f"{shown(path)} {what}. Give the folder that holds it.")
    if isinstance(name, Path) or not _HUB_NAME.fullmatch(name):
        raise UserError(f"There is no folder {name}. Give a folder, a name on the Hugging Face hub or {digits.NAME!r}.")
    return huggingface.read_hub(name, label=label, image=image, test_split=test_split, known=(digits.NAME,))
