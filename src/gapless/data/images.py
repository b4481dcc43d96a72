"""A set of images that lies on the device as bytes, and batches of it, normalised and augmented as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gapless.core.errors import UserError

SEED = 0  # of every subset and split: part of the definition of the data, not of an experiment


@dataclass(frozen=True)
class Augment:
    """How training images are varied: part of the data's recipe. Lengths in pixels.

    Attributes
    ----------
    pad
        The image is padded by so many black pixels on each side and a window of its size is cropped, uniformly.
    flip
        Mirror left and right with probability 1/2.
    cutout
        Side of a square that is set to 0 after normalisation: its centre pixel (for even sides, the lower right of the
        four middle ones) is uniform, and the part beyond the border is lost (DeVries and Taylor, arXiv 1708.04552).
    """

    pad: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, pixels in (("pad", self.pad), ("cutout", self.cutout)):
            if pixels < 0:
                raise UserError(f"{name} is {pixels}; it is a number of pixels, 0 or more.")


@dataclass(frozen=True, eq=False)
class Split:
    """Images as bytes and their labels, on one device.

    Attributes
    ----------
    pixels
        uint8 [N, C, H, W].
    labels
        int64 [N], positions in the set's ``classes``.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on ``device``."""
        return Split(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of labelled images, in memory.

    Attributes
    ----------
    name
        What to call it.
    source
        Where it is from, and how it was split and subset; one line.
    classes
        Names; a label is a position here.
    train, test
        The two splits, on the same device.
    mean, std
        Per channel, of all pixels of ``train``, on the scale where black is 0 and white is 1.
    augment
        Applied to training batches on request.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.train.pixels.shape[2], self.train.pixels.shape[3]

    def to(self, device: torch.device | str) -> ImageData:
        """Return the set with both splits on ``device``."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def batch(
        self,
        split: Split,
        index: Tensor,
        *,
        generator: torch.Generator | None = None,
        augment: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Return normalised images and their labels, on the split's device.

        The order is torchvision's: pad with black, crop, mirror, normalise; then cutout. Random numbers are drawn on
        the generator's device and moved, so a seed gives the same batch on every device.

        Parameters
        ----------
        split
            ``self.train`` or ``self.test``.
        index
            int64 [n], positions in the split.
        generator
            Advanced only where ``augment`` is set and ``self.augment`` leaves something to chance.
        augment
            Vary the images by ``self.augment``.
        dtype
            Of the images; the arithmetic is in float32 or better.

        Returns
        -------
        tuple[Tensor, Tensor]
            Images [n, C, H, W] and labels int64 [n].
        """
        index = _move(index, split.pixels.device)
        x, labels = split.pixels.index_select(0, index), split.labels.index_select(0, index)
        if not augment:
            return self._normalise(x, dtype), labels
        if generator is None:
            raise ValueError("augment=True needs a generator.")
        x = self._normalise(_crop_and_flip(x, self.augment, generator), dtype)
        return _cut_out(x, self.augment.cutout, generator), labels

    def _normalise(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        std = torch.tensor(self.std, dtype=torch.float64)
        shift = -torch.tensor(self.mean, dtype=torch.float64) / std
        scale, shift = _move(torch.stack([1 / (255 * std), shift]).to(wide), x.device)[:, :, None, None]
        return x.to(wide).mul_(scale).add_(shift).to(dtype)


def _move(x: Tensor, device: torch.device) -> Tensor:
    """Move without making the host wait for the GPU's queue: CUDA copies pageable memory before the call returns."""
    return x.to(device, non_blocking=x.device.type == "cpu" and device.type == "cuda")


def _crop_and_flip(x: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Return windows [n, C, H, W] of the zero-padded images, some of them mirrored, by one gather."""
    n, channels, height, width = x.shape
    pad, device = augment.pad, generator.device
    if not pad and not augment.flip:
        return x
    rows = torch.arange(height, device=device).expand(n, height)
    columns = torch.arange(width, device=device).expand(n, width)
    if pad:
        shift = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
        x = F.pad(x, (pad, pad, pad, pad))
    if augment.flip:
        mirror = torch.rand((n, 1), generator=generator, device=device) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    places = rows[:, :, None] * x.shape[3] + columns[:, None, :]
    places = _move(places, x.device).view(n, 1, -1).expand(-1, channels, -1)
    return x.reshape(n, channels, -1).gather(2, places).view(n, channels, height, width)


def _cut_out(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set one square of each of the images [n, C, H, W] to 0, in place."""
    if not side:
        return x
    n, _, *size = x.shape
    inside = []
    for pixels in size:
        start = torch.randint(pixels, (n, 1), generator=generator, device=generator.device) - side // 2
        place = torch.arange(pixels, device=generator.device)
        inside.append((place >= start) & (place < start + side))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill_(_move(square, x.device), 0)


# From what a reader finds to an ImageData


@dataclass(frozen=True)
class Rows:
    """One split as its reader found it: labels in memory, images still to be decoded.

    Attributes
    ----------
    read
        Decodes image ``i``: uint8 [1, H, W] or [3, H, W].
    where
        Names image ``i`` for an error message.
    labels
        int64 [N].
    """

    read: Callable[[int], NDArray[np.uint8]]
    where: Callable[[int], str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Raw:
    """A set as its reader found it; ``test`` is None where there is nothing but training images."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: Rows
    test: Rows | None


def assemble(
    raw: Raw,
    *,
    size: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    pad: int | None = None,
    flip: bool | None = None,
    cutout: int | None = None,
) -> ImageData:
    """Split, subset, decode and resize what a reader found; the parameters are those of ``gapless.data.load``.

    The set's own augmentation follows from its images. Colour: ``pad`` 4 and ``flip`` at 32 pixels, as for CIFAR-10 in
    DARTS (arXiv 1806.09055), and in proportion at other sizes. Grey: no ``flip``, for what is grey is mostly letters
    and digits, whose mirror images are others or none.
    """
    if size is not None and size < 1:
        raise UserError(f"The size {size} is not a number of pixels, 1 or more.")
    source, test = raw.source, raw.test or raw.train
    _check_classes(raw)
    if raw.test is None:
        fifth = stratified_fifth(raw.train.labels, raw.classes)
        rest = np.setdiff1d(np.arange(len(raw.train.labels)), fifth)
        source += "; no test split, so a stratified fifth of the images serves"
    else:
        rest, fifth = np.arange(len(raw.train.labels)), np.arange(len(test.labels))
    chosen = []
    for split, index, labels, count in (
        ("train", rest, raw.train.labels, train_images),
        ("test", fifth, test.labels, test_images),
    ):
        if count is not None:
            source += f"; {count} of the {len(index)} {split} images, stratified"
            index = index[_subset(labels[index], count, split)]
        chosen.append(index)
    pixels = _decode([(raw.train, chosen[0]), (test, chosen[1])], size)
    mean, std = statistics(pixels[0])
    _, channels, height, width = pixels[0].shape
    augment = Augment(
        pad=min(height, width) // 8 if pad is None else pad,
        flip=channels == 3 if flip is None else flip,
        cutout=0 if cutout is None else cutout,
    )
    splits = [
        Split(torch.from_numpy(x), torch.from_numpy(rows.labels[index]))
        for x, rows, index in zip(pixels, (raw.train, test), chosen, strict=True)
    ]
    return ImageData(raw.name, source, raw.classes, splits[0], splits[1], mean, std, augment)


def _check_classes(raw: Raw) -> None:
    found = np.unique(raw.train.labels)
    if len(found) == 0:
        raise UserError(f"{raw.source}: there are no training images.")
    if len(found) == 1:
        raise UserError(f"{raw.source}: all training images have the label {raw.classes[found[0]]!r}; two are needed.")
    if raw.test is not None and len(raw.test.labels) == 0:
        raise UserError(f"{raw.source}: there are no test images.")


def stratified(labels: NDArray[np.int64], count: int, leave: int = 0) -> NDArray[np.int64]:
    """Choose ``count`` positions such that every class has its share, by largest remainder, and at least one.

    The choice depends on the labels alone: positions are ranked by the words of PCG64, a stream that NumPy keeps stable
    across versions and machines, and a larger choice without ``leave`` contains the smaller ones of balanced classes.

    Parameters
    ----------
    labels
        int64 [N].
    count
        From the number of classes to N, less ``leave`` for each class.
    leave
        So many of each class are not chosen.

    Returns
    -------
    NDArray[np.int64]
        [count], ascending.
    """
    _, code, have = np.unique(labels, return_inverse=True, return_counts=True)
    spare = have - 1 - leave
    shared, total = (count - len(have)) * spare, max(1, int(spare.sum()))
    take = 1 + shared // total
    take[np.argsort(-(shared % total), kind="stable")[: count - int(take.sum())]] += 1
    rank = np.argsort(np.random.PCG64(SEED).random_raw(len(labels)), kind="stable")
    chosen = [rank[code[rank] == c][:n] for c, n in enumerate(take)]
    return np.sort(np.concatenate(chosen))


def stratified_fifth(labels: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """Choose a fifth of the positions, rounded up, such that every class is on both sides."""
    found, have = np.unique(labels, return_counts=True)
    if have.min() < 2:
        alone = classes[found[np.argmin(have)]]
        raise UserError(f"There is no test split, and none can be made: class {alone!r} has a single image.")
    return stratified(labels, max(len(found), -(-len(labels) // 5)), leave=1)


def _subset(labels: NDArray[np.int64], count: int, split: str) -> NDArray[np.int64]:
    classes = len(np.unique(labels))
    if not classes <= count <= len(labels):
        raise UserError(
            f"{count} {split} images are asked for; the {split} split has {len(labels)} images of {classes} classes, "
            f"so ask for {classes} to {len(labels)}."
        )
    return stratified(labels, count)


def _decode(parts: Sequence[tuple[Rows, NDArray[np.int64]]], size: int | None) -> list[NDArray[np.uint8]]:
    """Return the chosen images of each part, uint8 [n, C, H, W]: C is 1 if all images of all parts are grey, else 3."""
    first: tuple[str, tuple[int, ...]] | None = None
    colour, stacks = False, []
    for rows, index in parts:
        stack = np.empty((len(index), 3, 0, 0), np.uint8)
        for place, i in enumerate(index.tolist()):
            image = rows.read(i)
            if size is not None:
                image = fit(image, size)
            if first is None:
                first = rows.where(i), image.shape[1:]
            elif image.shape[1:] != first[1]:
                a, b = (f"{w} is {s[1]} x {s[0]}" for w, s in (first, (rows.where(i), image.shape[1:])))
                raise UserError(f"The images differ in size: {a} and {b} pixels. Resize them, e.g. --data.size 32.")
            if place == 0:
                stack = np.empty((len(index), 3, *first[1]), np.uint8)
            stack[place] = image
            colour |= len(image) == 3
        stacks.append(stack)
    return stacks if colour else [stack[:, :1].copy() for stack in stacks]


def fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the image [C, H, W] as a square of ``size`` pixels.

    The shorter side is resized to ``size`` and the longer one in proportion, then the centre is cropped. Each new pixel
    is the mean over the area that it covers, computed in whole numbers and rounded once, ties to even: 32 to 16 is the
    mean of 2 x 2 pixels.
    """
    _, height, width = image.shape
    if height == width == size:
        return image
    short = min(height, width)
    down, across = (_overlap(old, (2 * old * size + short) // (2 * short), size) for old in (height, width))
    mean: NDArray[np.float64] = down @ image.astype(np.float64, order="C") @ across.T / (height * width)
    return mean.round().astype(np.uint8)


@lru_cache(maxsize=64)
def _overlap(old: int, new: int, keep: int) -> NDArray[np.float64]:
    """Return [keep, old]: how much of the ``keep`` middle ones of ``new`` pixels lies on each of ``old`` pixels.

    In units of 1/new of an old pixel, so that all entries are whole and every row sums to ``old``.
    """
    start = (np.arange(keep) + (new - keep) // 2)[:, None] * old
    place = np.arange(old) * new
    overlap: NDArray[np.int64] = np.minimum(start + old, place + new) - np.maximum(start, place)
    return overlap.clip(0).astype(np.float64)


def statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 [N, C, H, W], in units of 255.

    Sums are in whole numbers, so the results are exact to float64's last digit. A constant channel has deviation 1.
    """
    mean, std = [], []
    value = np.arange(256)
    for channel in range(pixels.shape[1]):
        count = np.zeros(256, np.int64)
        for start in range(0, len(pixels), 256):
            count += np.bincount(pixels[start : start + 256, channel].ravel(), minlength=256)
        n, first, second = (int((count * value**power).sum()) for power in range(3))
        mean.append(first / (255 * n))
        std.append(math.sqrt((n * second - first**2) / n**2) / 255 or 1.0)
    return tuple(mean), tuple(std)
