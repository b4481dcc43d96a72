"""The embedded set: 1,797 handwritten digits of 8 x 8 grey pixels, which come with scikit-learn."""

from __future__ import annotations

import numpy as np

from gapless.data.images import Picture, Raw, Rows

NAME = "digits"


def read() -> Raw:
    """Return the digits, unsplit: pixel values 0..16 times 15, hence 0..240, exactly.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (its test part), as distributed with
    scikit-learn.
    """
    from sklearn.datasets import load_digits  # here, because importing scikit-learn takes a second

    found = load_digits()
    pixels = (found.images * 15).astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    rows = Rows(lambda i: Picture(pixels[i], ("grey",)), lambda i: f"digit {i}", labels)
    source = "handwritten digits of the UCI repository, 1,797 images of 8 x 8 pixels, as distributed with scikit-learn"
    return Raw(NAME, source, tuple(str(name) for name in found.target_names), rows, None)
