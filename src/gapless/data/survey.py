"""A look at every image of a set, which goes on where ``load`` would stop at the first bad one."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import UserError
from gapless.data.find import find
from gapless.data.huggingface import CONVERSIONS
from gapless.data.images import Raw, Rows, divide

SHOWN = 10
"""So many of a kind are named, and all are counted."""


@dataclass(frozen=True)
class Some:
    """Things of which there may be many: how many, and the first :data:`SHOWN`."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """Width and height in pixels of the smallest, the median and the largest image by area, how many different sizes
    there are, and whether all are square."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    distinct: int
    square: bool


@dataclass(frozen=True)
class Survey:
    """What a set of labelled images holds, good and bad.

    Attributes
    ----------
    name, source, classes
        As in ``ImageData``.
    train, test
        Images of each class, in the order of ``classes``, in the splits that would serve; readable or not.
    test_split
        Name of the split that serves as the test split; ``""`` where a fifth of the training images has to.
    sizes
        None where no image can be read.
    kinds
        How images are stored -> (how many, what they are converted to).
    channels
        1 if all images are grey, else 3.
    problems
        Reasons why the set cannot be used, other than unreadable images.
    unreadable
        Images that cannot be decoded, and why.
    leaked
        Test images whose pixels occur in the training split, each with a training image that equals it.
    repeated
        Training images whose pixels occur earlier in the training split, each with the first of them.
    contradicting
        Those of ``repeated`` that have another class than the first.
    imbalance
        Images of the largest class of the training split over those of the smallest that has any.
    few
        Classes with fewer than 2 images in all.
    absent
        Split -> classes without an image in it.
    ignored
        Files in class folders that are no images by their name.
    ignored_kinds
        Their suffixes -> how many.
    unused
        Splits and folders that are left out.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    test_split: str
    sizes: Sizes | None
    kinds: dict[str, tuple[int, str]]
    channels: int
    problems: tuple[str, ...]
    unreadable: Some
    leaked: Some
    repeated: Some
    contradicting: Some
    imbalance: float
    few: tuple[str, ...]
    absent: dict[str, tuple[str, ...]]
    ignored: Some
    ignored_kinds: dict[str, int]
    unused: tuple[str, ...]


def survey(
    name: str | Path, *, label: str | None = None, image: str | None = None, test_split: str | None = None
) -> Survey:
    """Decode every image of a set and return what there is.

    Images count as equal when their decoded pixels do, before any resizing. Decoding takes as long as ``load`` does;
    memory is needed for one image at a time.

    Parameters
    ----------
    name, label, image, test_split
        As for ``gapless.data.load``.

    Raises
    ------
    UserError
        Where there is no set of images to look at: no such folder, no such column, no class folders.
    """
    raw = find(name, label=label, image=image, test_split=test_split)
    problems = list(raw.problems)
    try:
        train, test = divide(raw)
    except UserError as error:
        if not problems:
            problems.append(str(error))
        train, test = np.arange(len(raw.train.labels)), np.arange(len(raw.test.labels) if raw.test else 0)
    look = _Look(raw)
    look.over("train", raw.train, train)
    look.over("test", raw.test or raw.train, test)
    splits = {"train": _count(raw, raw.train, train), "test": _count(raw, raw.test or raw.train, test)}
    have = [n for n in splits["train"] if n]
    total = [a + b for a, b in zip(splits["train"], splits["test"], strict=True)]
    return Survey(
        raw.name,
        raw.source,
        raw.classes,
        splits["train"],
        splits["test"],
        raw.tested,
        look.sizes(),
        {kind: (n, CONVERSIONS[kind]) for kind, n in look.kinds.most_common()},
        3 if look.colour else 1,
        tuple(problems),
        _some(look.unreadable),
        _some(look.leaked),
        _some(look.repeated),
        _some(look.contradicting),
        max(have) / min(have) if have else 1.0,
        tuple(c for c, n in zip(raw.classes, total, strict=True) if n < 2),
        {
            split: tuple(c for c, n in zip(raw.classes, counts, strict=True) if not n)
            for split, counts in splits.items()
        },
        _some(raw.ignored),
        dict(Counter(PurePath(file).suffix.lower() or "no suffix" for file in raw.ignored).most_common()),
        raw.unused,
    )


def _some(found: list[str] | tuple[str, ...]) -> Some:
    return Some(len(found), tuple(found[:SHOWN]))


def _count(raw: Raw, rows: Rows, index: NDArray[np.int64]) -> tuple[int, ...]:
    labels = rows.labels[index]
    return tuple(np.bincount(labels[labels >= 0], minlength=len(raw.classes)).tolist())


class _Look:
    """What decoding image after image has shown so far."""

    def __init__(self, raw: Raw) -> None:
        self.classes = raw.classes
        self.sides: Counter[tuple[int, int]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.colour = False
        self.unreadable: list[str] = []
        self.leaked: list[str] = []
        self.repeated: list[str] = []
        self.contradicting: list[str] = []
        self.known: dict[bytes, tuple[str, int]] = {}  # pixels of the training split -> the first that has them

    def over(self, split: str, rows: Rows, index: NDArray[np.int64]) -> None:
        """Decode the images of one split; the training split goes first."""
        for i in index.tolist():
            where, label = rows.where(i), int(rows.labels[i])
            try:
                picture = rows.read(i)
            except UserError as error:
                self.unreadable.append(str(error))
                continue
            channels, height, width = picture.pixels.shape
            self.colour |= channels == 3
            self.sides[width, height] += 1
            self.kinds.update(picture.kinds)
            digest = hashlib.blake2b(str(picture.pixels.shape).encode(), digest_size=16)
            digest.update(np.ascontiguousarray(picture.pixels).data)
            first = self.known.get(digest.digest())
            if first is None:
                if split == "train":
                    self.known[digest.digest()] = where, label
            elif split == "test":
                self.leaked.append(f"{where} equals {first[0]}")
            else:
                self.repeated.append(f"{where} equals {first[0]}")
                if label != first[1] and min(label, first[1]) >= 0:
                    names = (self.classes[label], self.classes[first[1]])
                    self.contradicting.append(f"{where} ({names[0]}) equals {first[0]} ({names[1]})")

    def sizes(self) -> Sizes | None:
        """Return the summary of all sizes seen."""
        if not self.sides:
            return None
        order = sorted(self.sides, key=lambda side: (side[0] * side[1], side))
        reached = np.cumsum([self.sides[side] for side in order])
        median = order[int(np.searchsorted(reached, (reached[-1] + 1) // 2))]
        return Sizes(order[0], median, order[-1], len(order), all(w == h for w, h in order))
