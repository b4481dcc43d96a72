"""Batches: normalisation and augmentation against plain loops over images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gapless.core.errors import UserError
from gapless.data import Augment, ImageData
from gapless.data.images import Split, statistics

MEAN, STD = (0.4, 0.5, 0.25), (0.2, 0.3, 0.5)


def make(augment: Augment, n: int = 40, size: tuple[int, int] = (6, 8)) -> ImageData:
    rng = np.random.default_rng(1)
    train, test = (
        Split(torch.from_numpy(rng.integers(0, 256, (n, 3, *size), np.uint8)), torch.arange(n) % 2) for _ in range(2)
    )
    return ImageData("made", "made here", ("a", "b"), train, test, MEAN, STD, augment)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    return ((pixels.double() / 255 - mean) / std).float()


def naive(data: ImageData, index: Tensor, generator: torch.Generator) -> Tensor:
    """One image at a time, with the documented draws: shifts down, shifts across, mirrors, cutout rows, columns."""
    augment, n, (height, width) = data.augment, len(index), data.size
    pad, side = augment.pad, augment.cutout
    shift = torch.randint(2 * pad + 1, (2, n, 1), generator=generator) if pad else torch.zeros(2, n, 1).long()
    mirror = torch.rand((n, 1), generator=generator) < 0.5 if augment.flip else torch.zeros(n, 1).bool()
    if side:
        row = torch.randint(height, (n, 1), generator=generator)
        column = torch.randint(width, (n, 1), generator=generator)
    images = []
    for k, i in enumerate(index.tolist()):
        canvas = torch.zeros(3, height + 2 * pad, width + 2 * pad, dtype=torch.uint8)
        canvas[:, pad : pad + height, pad : pad + width] = data.train.pixels[i]
        top, left = int(shift[0, k]), int(shift[1, k])
        image = canvas[:, top : top + height, left : left + width]
        image = normalised(torch.flip(image, (2,)) if mirror[k] else image)
        if side:
            y, x = int(row[k]) - side // 2, int(column[k]) - side // 2
            image[:, max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 0
        images.append(image)
    return torch.stack(images)


def test_without_augmentation_a_batch_is_the_normalised_images():
    data = make(Augment(pad=2, flip=True, cutout=3))
    index = torch.tensor([5, 0, 39, 5])
    images, labels = data.batch(data.test, index)
    torch.testing.assert_close(images, normalised(data.test.pixels[index]), rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [1, 0, 1, 1]
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_empty_augmentation_is_the_identity_and_draws_nothing():
    data, generator = make(Augment()), seeded()
    index = torch.arange(40)
    images, _ = data.batch(data.train, index, generator=generator, augment=True)
    assert torch.equal(images, data.batch(data.train, index)[0])
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize(
    "augment",
    [
        Augment(pad=1),
        Augment(pad=7),
        Augment(flip=True),
        Augment(cutout=1),
        Augment(cutout=3),
        Augment(cutout=4),
        Augment(cutout=50),
        Augment(pad=2, flip=True, cutout=3),
    ],
    ids=str,
)
def test_augmentation_equals_a_loop_over_images(augment: Augment):
    data = make(augment)
    index = torch.randperm(40, generator=seeded(9))
    images, labels = data.batch(data.train, index, generator=seeded(3), augment=True)
    torch.testing.assert_close(images, naive(data, index, seeded(3)), rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, data.train.labels[index])


def test_every_crop_is_a_window_of_the_padded_image_and_every_window_occurs():
    data = make(Augment(pad=1), n=2)
    images, _ = data.batch(data.train, torch.zeros(400).long(), generator=seeded(), augment=True)
    padded = torch.nn.functional.pad(data.train.pixels[:1], (1, 1, 1, 1))
    windows = padded.unfold(2, 6, 1).unfold(3, 8, 1)[0].permute(1, 2, 0, 3, 4).reshape(9, 3, 6, 8)
    same = (images[:, None] - normalised(windows)[None]).abs().flatten(2).amax(2) < 1e-4
    assert (same.sum(1) == 1).all()
    assert (same.sum(0) > 20).all()  # 44 expected of each


def test_padding_is_black_before_normalisation_and_cutout_is_zero_after():
    data = make(Augment(pad=20))
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    images, _ = data.batch(data.train, torch.arange(40), generator=seeded(), augment=True)
    outside = images[:, :, 0, 0].isclose(black).all(1)
    assert outside.float().mean() > 0.5
    data = make(Augment(cutout=50))
    assert not data.batch(data.train, torch.arange(40), generator=seeded(), augment=True)[0].any()


def test_half_of_the_images_are_mirrored():
    data = make(Augment(flip=True))
    index = torch.arange(4000) % 40
    images, _ = data.batch(data.train, index, generator=seeded(), augment=True)
    plain, _ = data.batch(data.train, index)
    kept = (images == plain).flatten(1).all(1)
    assert torch.equal(images[~kept], plain[~kept].flip(3))
    assert abs(kept.double().mean() - 0.5) < 0.03  # 3.8 standard deviations


def test_cutout_centres_are_uniform_over_the_image():
    data = make(Augment(cutout=1), size=(3, 4))
    images, _ = data.batch(data.train, torch.arange(6000) % 40, generator=seeded(), augment=True)
    holes = (images == 0).all(1)
    assert torch.equal(holes.flatten(1).sum(1), torch.ones(6000).long())
    assert (holes.sum(0) - 500).abs().max() < 90  # 4.2 standard deviations


def test_the_seed_determines_the_batch():
    data = make(Augment(pad=2, flip=True, cutout=2))
    index = torch.arange(40)
    first, again, other = (data.batch(data.train, index, generator=seeded(s), augment=True)[0] for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_leave_the_set_alone():
    data = make(Augment(pad=2, flip=True, cutout=2))
    before = data.train.pixels.clone()
    data.batch(data.train, torch.arange(40), generator=seeded(), augment=True)
    assert torch.equal(data.train.pixels, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype(dtype: torch.dtype):
    data = make(Augment(pad=1, cutout=2))
    index = torch.arange(40)
    images, _ = data.batch(data.train, index, generator=seeded(), augment=True, dtype=dtype)
    single, _ = data.batch(data.train, index, generator=seeded(), augment=True)
    assert images.dtype == dtype
    torch.testing.assert_close(images, single.to(dtype), rtol=1e-5, atol=1e-6)


def test_augmentation_needs_a_generator():
    data = make(Augment())
    with pytest.raises(ValueError, match="generator"):
        data.batch(data.train, torch.arange(2), augment=True)


def test_statistics_are_those_of_numpy_and_normalise_the_training_split():
    data = make(Augment())
    pixels = data.train.pixels.numpy()
    mean, std = statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 2, 3)), rtol=1e-12)
    images, _ = replace(data, mean=mean, std=std).batch(data.train, torch.arange(40), dtype=torch.float64)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-12, rtol=0)


def test_a_constant_channel_has_deviation_one():
    assert statistics(np.full((300, 1, 2, 2), 51, np.uint8)) == ((0.2,), (1.0,))


def test_moving_to_a_device():
    data = make(Augment()).to(torch.device("meta"))
    assert data.train.pixels.is_meta
    assert data.test.labels.is_meta
    assert (data.channels, data.size, len(data.train)) == (3, (6, 8), 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_gives_the_same_batch_on_the_gpu():
    data, index = make(Augment(pad=2, flip=True, cutout=3)), torch.arange(40)
    gpu = data.to("cuda")
    here, labels = data.batch(data.train, index, generator=seeded(), augment=True)
    there, moved = gpu.batch(gpu.train, index, generator=seeded(), augment=True)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-6)
    assert torch.equal(moved.cpu(), labels)


@pytest.mark.parametrize("wrong", [{"pad": -1}, {"cutout": -2}])
def test_negative_lengths_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UserError, match="must be at least 0; got -"):
        Augment(**wrong)
