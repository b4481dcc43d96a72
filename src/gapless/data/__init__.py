"""Labelled images: ``load`` reads a set by name or from a folder, ``ImageData`` holds it and hands out batches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gapless.core.lazy import attributes
from gapless.core.settings import HueTurns, Magnitude, Margin, Natural, NonNegative, Operations, Share, Side, ranged

if TYPE_CHECKING:
    from gapless.data.images import Augment, ImageData
else:
    __getattr__, __dir__ = attributes(__name__, __file__)

__all__ = ["Augment", "ImageData", "load"]


@partial(ranged, of="data")
def load(
    name: str | Path,
    *,
    size: Side | None = None,
    stored: Side | None = None,
    train_images: Natural | None = None,
    test_images: Natural | None = None,
    label: str | None = None,
    image: str | None = None,
    test_split: str | None = None,
    pad: Margin | None = None,
    flip: bool | None = None,
    cutout: Margin | None = None,
    crop_scale: Share = 0.0,
    jitter: tuple[NonNegative, NonNegative, NonNegative, HueTurns] = (0.0, 0.0, 0.0, 0.0),
    randaugment: tuple[Operations, Magnitude] = (0, 0),
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
        Side of the square that the network sees, in pixels. None shows it the stored images as they are.
    stored
        Side of the square images that are kept in memory, in pixels, at least ``size``: the shorter side is resized to
        it by the exact area average, then the centre is cropped. Training sees windows of them, everything else the
        centre window; ImageNet is 224 of 256 (Krizhevsky et al., 2012). None takes ``size``, and without a size keeps
        the images as they are; they must then have one size.
    train_images, test_images
        Take a stratified subset of so many images of the split. None takes all.
    label, image
        Columns of a Parquet or hub set. None finds them by type, then by name.
    test_split
        Name of the split that serves for testing, such as validation; none: a stratified fifth of the training images.
        None takes test, else a validation split, else that fifth.
    pad
        Black pixels on each side before a training window is cropped, uniformly. None: an eighth of the side, which is
        4 at 32 pixels, as for CIFAR-10 in DARTS (arXiv 1806.09055); 0 with ``crop_scale`` or ``stored``.
    flip
        Mirror half of the training images. None: colour images, as in DARTS, but not grey ones, which are often letters
        and digits.
    cutout
        Side of a square of a training image that is blanked, in pixels (arXiv 1708.04552). None: 0, which is off; 16
        where DARTS trains a network on CIFAR-10.
    crop_scale
        Random resized crops: the smallest share of the stored image that a training window covers, 0 to 1. 0 is off;
        0.08 for ImageNet (Szegedy et al., arXiv 1409.4842).
    jitter
        How much brightness, contrast, saturation and hue of training images vary: 4 numbers. All 0 is off;
        0.4 0.4 0.4 0.2 for ImageNet in the released code of DARTS. Grey images vary in brightness and contrast only.
    randaugment
        RandAugment (Cubuk et al., arXiv 1909.13719): how many operations on each training image, and their magnitude, 1
        to 29. 0 0 is off; 2 9 is the paper's choice for ResNet-50 on ImageNet.

    Raises
    ------
    UserError
        When the set cannot be found, read or split as asked.
    """
    from gapless.data.find import find
    from gapless.data.images import assemble

    return assemble(
        find(name, label=label, image=image, test_split=test_split),
        size=size,
        stored=stored,
        train_images=train_images,
        test_images=test_images,
        pad=pad,
        flip=flip,
        cutout=cutout,
        crop_scale=crop_scale,
        jitter=jitter,
        randaugment=randaugment,
    )
