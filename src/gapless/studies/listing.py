"""The catalogue: what can be named, each with its source."""

from __future__ import annotations

from gapless.core import catalogue
from gapless.runs.recipe import Recipe, folder

DATASETS = {
    "digits": "8x8 grey digits bundled with scikit-learn (UCI ML hand-written digits, Alpaydin and Kaynak 1998)",
    "FOLDER": "train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png, or train-*.parquet and test-*.parquet",
    "NAME": "any image classification set of the Hugging Face hub, as uoft-cs/cifar10",
}


def listing() -> dict[str, dict[str, str]]:
    """Return kind -> name -> source."""
    return {
        "methods": {
            n: catalogue.find(n, "methods", "searchers").source
            for k in ("methods", "searchers")
            for n in catalogue.names(k)
        },
        "scores": {n: catalogue.find(n, "scores").source for n in catalogue.names("scores")},
        "spaces": {n: catalogue.find(n, "spaces").source for n in catalogue.names("spaces")},
        "datasets": DATASETS,
        "recipes": {path.stem: Recipe.read(path).title for path in folder()},
    }
