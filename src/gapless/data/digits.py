"""The embedded set: 1,797 handwritten digits of 8 x 8 grey pixels, which come with scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gapless.data.images import Picture, Raw, Rows

NAME = "digits"


def read() -> Raw:
    """Return the digits, unsplit: pixel values 0..16 times 15, hence 0..240, exactly.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (its test part), as distributed with
    scikit-learn.
    """
    table = _table(find_spec("sklearn"))
    pixels = (table[:, :64] * 15).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, 64].astype(np.int64)
    rows = Rows(lambda i: Picture(pixels[i], ("grey",)), lambda i: f"digit {i}", labels)
    source = "handwritten digits of the UCI repository, 1,797 images of 8 x 8 pixels, as distributed with scikit-learn"
    return Raw(NAME, source, tuple(map(str, range(10))), rows, None)


def _table(sklearn: object) -> NDArray[np.float64]:
    """Return [1797, 65]: 64 pixels and the label of each digit.

    Importing scikit-learn takes seconds, reading its file does not; where the file is elsewhere in a later version,
    scikit-learn is asked.
    """
    file = Path(str(getattr(sklearn, "origin", "."))).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])
