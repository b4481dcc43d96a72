"""The catalogue: what can be named, each with its source."""

from __future__ import annotations

from typing import Literal

from gapless.core import catalogue
from gapless.runs.recipe import Recipe, folder

Kind = Literal["methods", "scores", "spaces", "tables", "datasets", "recipes"]
FOLDERS = {"methods": ("methods", "searchers"), **{kind: (kind,) for kind in ("scores", "spaces", "tables")}}
"""What is listed -> folders of the package that hold it."""
DATASETS = {
    "digits": "8x8 grey digits bundled with scikit-learn (UCI ML hand-written digits, Alpaydin and Kaynak 1998)",
    "FOLDER": "train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png, or train-*.parquet and test-*.parquet",
    "NAME": "any image classification set of the Hugging Face hub, as uoft-cs/cifar10",
}


def listing(kind: Kind | None = None) -> dict[str, dict[str, str]]:
    """Return kind -> name -> source, of one kind or of all.

    >>> listing("methods")["methods"]["darts"]
    'DARTS, Liu, Simonyan and Yang, arXiv 1806.09055'
    """
    found = {
        what: {name: catalogue.source(folder, name) for folder in folders for name in catalogue.names(folder)}
        for what, folders in FOLDERS.items()
        if kind in (None, what)
    }
    if kind in (None, "datasets"):
        found["datasets"] = DATASETS
    if kind in (None, "recipes"):
        found["recipes"] = {path.stem: Recipe.read(path).title for path in folder()}
    return found
