"""A set of images that lies on the device as bytes, and batches of it, normalised and augmented as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gapless.core.errors import UserError
from gapless.core.machine import free_memory
from gapless.core.settings import HueTurns, Magnitude, Margin, NonNegative, Operations, Share, check_ranges
from gapless.data import photographs

BAND = 8
"""New rows of pixels that are computed at once where an image is resized; by measurement."""
SEED = 0  # of every subset and split: part of the definition of the data, not of an experiment


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training images are varied: part of the data's recipe. Lengths in pixels; what is 0 is off.

    Attributes
    ----------
    pad
        The image is padded by so many black pixels on each side and a window of the size that the network sees is
        cropped, uniformly.
    flip
        Mirror left and right with probability 1/2.
    cutout
        Side of a square that is set to 0 after normalisation: its centre pixel (for even sides, the lower right of the
        four middle ones) is uniform, and the part beyond the border is lost (DeVries and Taylor, arXiv 1708.04552).
    crop_scale
        The smallest share of the image's area that a training window covers, in [0, 1]; the window has a random aspect
        of 3/4 to 4/3 and is resized to what the network sees (Szegedy et al., arXiv 1409.4842).
    jitter
        Strengths with which brightness, contrast, saturation (each 0 or more) and hue (0 to 0.5 turns) vary; see
        :func:`gapless.data.photographs.jitter`. Grey images vary in brightness and contrast only.
    randaugment
        Operations on each image and their magnitude, 1 to 29 (Cubuk et al., arXiv 1909.13719).
    """

    pad: Margin = 0
    flip: bool = False
    cutout: Margin = 0
    crop_scale: Share = 0.0
    jitter: tuple[NonNegative, NonNegative, NonNegative, HueTurns] = (0.0, 0.0, 0.0, 0.0)
    randaugment: tuple[Operations, Magnitude] = (0, 0)

    def __post_init__(self) -> None:
        check_ranges(type(self), vars(self), "data")
        if self.crop_scale and self.pad:
            raise UserError(
                f"`crop_scale` is {self.crop_scale} and `pad` is {self.pad}: both choose the training window. "
                "Leave one 0.",
                of="data",
            )
        if len(self.jitter) != 4:
            raise UserError(
                "`jitter` must be brightness, contrast, saturation and hue, such as 0.4 0.4 0.4 0.2; got "
                f"{_listed(self.jitter)}.",
                of="data",
            )
        operations, magnitude = self.randaugment
        if any(self.randaugment) and not (operations >= 1 and 1 <= magnitude <= 29):
            raise UserError(
                "`randaugment` must be a number of operations, 1 or more, and a magnitude, 1 to 29, such as 2 9, "
                f"or 0 0, which is off; got {_listed(self.randaugment)}.",
                of="data",
            )


def _listed(values: Sequence[float]) -> str:
    return " ".join(map(str, values))


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
    window
        Side of the square window of square images that the network sees, in pixels; None shows it the whole image.
    tested
        What ``test`` is, in words: ``the test split``, or what serves in its place, and why.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    window: int | None = None
    tested: str = "the test split"

    def __post_init__(self) -> None:
        height, width = self.train.pixels.shape[2:]
        if self.window is not None and not (height == width and 1 <= self.window <= height):
            raise ValueError(
                f"A window of {self.window} pixels needs square images that hold it, not {height}x{width}."
            )

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.pixels.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees, in pixels."""
        if self.window is not None:
            return self.window, self.window
        return self.train.pixels.shape[2], self.train.pixels.shape[3]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of classes, labels and pixels of both splits: a resumed run checks with
        them that the images are those it began with."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(json.dumps(list(split.pixels.shape)).encode())
            digest.update(split.labels.cpu().numpy().astype("<i8").tobytes())
            for part in split.pixels.split(1024):  # of a set on a GPU, only so much is copied at a time
                digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

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

        The order is the usual one: window (pad with black and crop, or crop and resize), mirror, colour jitter,
        RandAugment, normalise, cutout. What is not augmented is the centre window. Random numbers are drawn on the
        generator's device, those of kornia on the CPU, and moved, so a seed gives the same batch on every device.

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
            return self._normalise(_centre(x, self.size), dtype), labels
        if generator is None:
            raise ValueError("augment=True needs a generator.")
        x = self._vary(x, torch.promote_types(dtype, torch.float32), generator)
        return _cut_out(self._normalise(x, dtype), self.augment.cutout, generator), labels

    def _vary(self, x: Tensor, wide: torch.dtype, generator: torch.Generator) -> Tensor:
        """Return training windows of images in bytes: in bytes, or on the scale from 0 to 1 in ``wide`` where what is
        asked for needs fractions."""
        augment = self.augment
        if augment.crop_scale:
            x = photographs.resized_crop(x.to(wide).div_(255), self.size, augment.crop_scale, generator)
        x = _crop_and_flip(x, augment, self.size, generator)
        if any(augment.jitter) or any(augment.randaugment):
            x = x if x.is_floating_point() else x.to(wide).div_(255)
            if any(augment.jitter):
                x = photographs.jitter(x, augment.jitter, generator)
            if any(augment.randaugment):
                x = photographs.randaugment(x, *augment.randaugment, generator)
        return x

    def _normalise(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalise bytes, or what lies between 0 and 1."""
        wide = torch.promote_types(dtype, torch.float32)
        white = 1 if x.is_floating_point() else 255
        scale, shift = _scale(self.mean, self.std, white, wide, x.device)
        return x.to(wide).mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=64)
def _scale(
    mean: tuple[float, ...], std: tuple[float, ...], white: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return what normalises images by a product and a sum, [C, 1, 1] each."""
    with torch.inference_mode(False):
        deviation = torch.tensor(std, dtype=torch.float64)
        shift = -torch.tensor(mean, dtype=torch.float64) / deviation
        scale, shift = _move(torch.stack([1 / (white * deviation), shift]).to(dtype), device)[:, :, None, None]
        return scale, shift


def _move(x: Tensor, device: torch.device) -> Tensor:
    """Move without making the host wait for the GPU's queue, if ``x`` is small: much pageable memory is copied in parts
    that may wait for their turn."""
    return x.to(device, non_blocking=x.device.type == "cpu" and device.type == "cuda")


def _centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle windows of the images [n, C, H, W]."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], size, strict=True))
    return x[:, :, top : top + size[0], left : left + size[1]]


def _crop_and_flip(x: Tensor, augment: Augment, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return windows of the zero-padded images [n, C, H, W], some of them mirrored, by one gather."""
    n, channels = x.shape[:2]
    (height, width), pad, device = size, augment.pad, generator.device
    room = x.shape[2] - height + 2 * pad  # across it is the same: only square images have smaller windows
    if not room and not augment.flip:
        return x
    wide = x.shape[3] + 2 * pad if room else x.shape[3]
    # what chance decides is small: two numbers for each image, from which the device finds the places
    first = mirrored = torch.zeros(n, dtype=torch.int64, device=device)
    if room:
        shift = torch.randint(room + 1, (2, n, 1), generator=generator, device=device)[..., 0]
        first = shift[0] * wide + shift[1]
        x = F.pad(x, (pad, pad, pad, pad))
    if augment.flip:
        mirrored = (torch.rand((n, 1), generator=generator, device=device)[:, 0] < 0.5).long()
    first, mirrored = _move(torch.stack([first, mirrored]), x.device)[:, :, None, None]
    window, turn = _window(height, width, wide, x.device)
    places = torch.addcmul(first + window, mirrored, turn).view(n, 1, -1).expand(-1, channels, -1)
    return x.reshape(n, channels, -1).gather(2, places).view(n, channels, height, width)


@lru_cache(maxsize=64)
def _window(height: int, width: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places [height, width] of a window in an image of rows of ``wide`` pixels, and what they change by
    where it is mirrored, [width]."""
    with torch.inference_mode(False):
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        return (rows * wide + columns).to(device), (width - 1 - 2 * columns).to(device)


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
class Picture:
    """A decoded image.

    Attributes
    ----------
    pixels
        uint8 [1, H, W] if it is grey, else [3, H, W].
    kinds
        How it was stored, in words, where that is more than bytes in an array.
    """

    pixels: NDArray[np.uint8]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """One split as its reader found it: labels in memory, images still to be decoded.

    Attributes
    ----------
    read
        Decodes image ``i``.
    where
        Names image ``i`` for an error message.
    labels
        int64 [N]; -1 for what has no legal label, which is one of the set's problems.
    """

    read: Callable[[int], Picture]
    where: Callable[[int], str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Raw:
    """A set as its reader found it.

    Attributes
    ----------
    name, source, classes
        As in :class:`ImageData`.
    train, test
        The splits; ``test`` is None where there is nothing but training images.
    tested
        Name of the split that serves as the test split; empty where there is none.
    problems
        Sentences, each a reason why the set cannot be used as it is.
    ignored
        Files that stand where images are expected and are none by their name.
    unused
        Names of splits and folders that are left out.
    note
        Why images that lie there for testing are not used; empty where none do.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Rows
    test: Rows | None
    tested: str = ""
    problems: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    note: str = ""


def assemble(
    raw: Raw,
    *,
    size: int | None = None,
    stored: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    pad: int | None = None,
    flip: bool | None = None,
    cutout: int | None = None,
    crop_scale: float = 0.0,
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    randaugment: tuple[int, int] = (0, 0),
) -> ImageData:
    """Split, subset, decode and resize what a reader found; the parameters are those of ``gapless.data.load``.

    The set's own augmentation follows from its images. Colour: ``pad`` 4 and ``flip`` at 32 pixels, as for CIFAR-10 in
    DARTS (arXiv 1806.09055), and in proportion at other sizes; no ``pad`` where windows are smaller than the images or
    resized, for then they vary already. Grey: no ``flip``, for what is grey is mostly letters and digits, whose mirror
    images are others or none.
    """
    if size is not None and stored is not None and stored < size:
        raise UserError(f"The stored size {stored} is less than the size {size}, which is a window of it.")
    asked = Augment(  # wrong ones before decoding
        pad=pad or 0,
        flip=bool(flip),
        cutout=cutout or 0,
        crop_scale=crop_scale,
        jitter=jitter,
        randaugment=randaugment,
    )
    source, test = "; ".join(filter(None, (raw.source, raw.note))), raw.test or raw.train
    rest, fifth = divide(raw)
    if raw.test is None:
        source += "; no test split, so a stratified fifth of the images serves"
    chosen = []
    for split, index, labels, count in (
        ("train", rest, raw.train.labels, train_images),
        ("test", fifth, test.labels, test_images),
    ):
        if count is not None:
            source += f"; {count} of the {len(index)} {split} images, stratified"
            index = index[_subset(labels[index], count, split)]
        chosen.append(index)
    side, room = stored or size, free_memory()
    if side is not None and room is not None and sum(map(len, chosen)) * side**2 > room:
        raise UserError(
            f"The images take at least {sum(map(len, chosen)) * side**2 / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB "
            "of memory are free. Try a smaller `size` or `train_images`; `gapless check` tells what would fit.",
            of="data",
        )
    try:
        pixels = _decode([(raw.train, chosen[0]), (test, chosen[1])], stored or size)
    except MemoryError as error:
        raise UserError(
            f"The images do not fit the memory ({error}). Try a smaller `size` or `train_images`; `gapless check` "
            "tells what would fit.",
            of="data",
        ) from error
    if pixels[0].min() == pixels[0].max():
        raise UserError(
            f"{raw.source}: every pixel of every training image has the same value once decoded; there is nothing to "
            "learn from. Look at how the images are stored with: gapless check."
        )
    mean, std = statistics(pixels[0])
    _, channels, height, width = pixels[0].shape
    window = size if size is not None and size < height else None
    varied = window is not None or crop_scale > 0
    augment = replace(
        asked,
        pad=(0 if varied else min(height, width) // 8) if pad is None else pad,
        flip=channels == 3 if flip is None else flip,
    )
    splits = [
        Split(torch.from_numpy(x), torch.from_numpy(rows.labels[index]))
        for x, rows, index in zip(pixels, (raw.train, test), chosen, strict=True)
    ]
    tested = f"the {raw.tested} split" if raw.test is not None else "a stratified fifth of the training images"
    tested += f" ({raw.note})" if raw.note else ""
    return ImageData(raw.name, source, raw.classes, splits[0], splits[1], mean, std, augment, window, tested)


def divide(raw: Raw) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the training images in ``raw.train`` and those of the test images, in ``raw.test`` or,
    where there is none, in ``raw.train``: a stratified fifth.

    Raises
    ------
    UserError
        Where the set cannot be used as it is.
    """
    if raw.problems:
        more = f" (And {len(raw.problems) - 1} more; gapless check lists them.)" if raw.problems[1:] else ""
        raise UserError(raw.problems[0] + more)
    found = np.unique(raw.train.labels)
    if len(found) == 0:
        raise UserError(f"{raw.source}: there are no training images.")
    if len(found) == 1:
        raise UserError(f"{raw.source}: all training images have the label {raw.classes[found[0]]!r}; two are needed.")
    if raw.test is not None and len(raw.test.labels) == 0:
        raise UserError(f"{raw.source}: there are no test images.")
    if raw.test is not None:
        return np.arange(len(raw.train.labels)), np.arange(len(raw.test.labels))
    fifth = stratified_fifth(raw.train.labels, raw.classes)
    return np.setdiff1d(np.arange(len(raw.train.labels)), fifth), fifth


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
    stacks: list[NDArray[np.uint8]] = []
    for rows, index in parts:
        stack = np.empty((len(index), 1, 0, 0), np.uint8)
        for place, i in enumerate(index.tolist()):
            image = rows.read(i).pixels
            if size is not None:
                image = fit(image, size)
            if first is None:
                first = rows.where(i), image.shape[1:]
            elif image.shape[1:] != first[1]:
                a, b = (f"{w} is {s[1]} x {s[0]}" for w, s in (first, (rows.where(i), image.shape[1:])))
                raise UserError(f"The images differ in size: {a} and {b} pixels. Give a `size`, such as 32.", of="data")
            if place == 0:
                stack = np.empty((len(index), len(image), *first[1]), np.uint8)
            elif len(image) > stack.shape[1]:
                stack = stack.repeat(3, 1)
            stack[place] = image
        stacks.append(stack)
    channels = max(stack.shape[1] for stack in stacks)
    return [stack if stack.shape[1] == channels else stack.repeat(channels, 1) for stack in stacks]


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
    rows, columns = ((2 * old * size + short) // (2 * short) for old in (height, width))
    down = _shrunk(image.transpose(1, 2, 0), rows, size)
    mean: NDArray[np.float64] = _shrunk(down.transpose(1, 0, 2), columns, size) / (height * width)
    return mean.transpose(2, 1, 0).round().astype(np.uint8)


def _shrunk(x: NDArray[Any], new: int, keep: int) -> NDArray[np.float64]:
    """Return [keep, M, C]: the sums of ``x`` [old, M, C] by :func:`_overlap`, a band of new rows at a time, for each
    lies on few old ones."""
    old, *rest = x.shape
    overlap, flat, first = _overlap(old, new, keep), x.reshape(old, -1), (new - keep) // 2
    found = np.empty((keep, flat.shape[1]))
    for start in range(0, keep, BAND):
        end = min(start + BAND, keep)
        low, high = (first + start) * old // new, -(-(first + end) * old // new)
        np.matmul(overlap[start:end, low:high], flat[low:high].astype(np.float64), out=found[start:end])
    return found.reshape(keep, *rest)


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
