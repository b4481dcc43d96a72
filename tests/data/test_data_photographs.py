"""Variations of photographs: what they leave alone, what a seed determines, and hand-computed colours."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.errors import UserError
from gapless.data import Augment, ImageData, load, photographs
from gapless.data.images import Split

JITTER, POLICY = (0.4, 0.4, 0.4, 0.2), (2, 9)
ALL = {
    "crop": Augment(crop_scale=0.08),
    "jitter": Augment(jitter=JITTER),
    "randaugment": Augment(randaugment=POLICY),
    "all": Augment(flip=True, cutout=3, crop_scale=0.3, jitter=JITTER, randaugment=POLICY),
}
NOTHING = Augment()
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(augment: Augment = NOTHING, *, n: int = 24, side: int = 16, channels: int = 3, window: int | None = None):
    """A set whose normalisation is the identity on the scale from 0 to 1."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (n, channels, side // 4, side // 4), np.uint8)
    split = Split(torch.from_numpy(coarse.repeat(4, 2).repeat(4, 3)), torch.arange(n) % 3)
    return ImageData(
        "made", "here", ("a", "b", "c"), split, split, (0.0,) * channels, (1.0,) * channels, augment, window
    )


def batch(data: ImageData, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return data.batch(data.train, torch.arange(len(data.train)), generator=seeded(seed), augment=True, dtype=dtype)


def plain(data: ImageData) -> Tensor:
    return data.batch(data.train, torch.arange(len(data.train)), dtype=torch.float64)[0]


# Laws of all


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_shape_range_labels_and_that_pictures_change(name: str, channels: int):
    data = make(replace(ALL[name], cutout=0), channels=channels)
    images, labels = batch(data)
    assert images.shape == data.train.pixels.shape
    assert images.dtype == torch.float64
    assert images.isfinite().all()
    assert images.min() >= -1e-6 and images.max() <= 1 + 1e-6
    assert torch.equal(labels, data.train.labels)
    changed = (images - plain(data)).abs().flatten(1).amax(1) > 1e-3
    assert changed.double().mean() > 0.8


@pytest.mark.parametrize("name", ALL)
def test_the_generator_determines_the_batch_and_the_global_one_is_left_alone(name: str):
    data = make(ALL[name])
    photographs._policy.cache_clear()  # making kornia's modules must not matter either
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (batch(data, seed)[0] for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, batch(data, 4)[0])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ALL)
def test_the_first_use_in_a_process_gives_the_same_batch(name: str):
    """Importing kornia and making its modules must not shift what is drawn."""
    data = make(ALL[name])
    first, _ = batch(data)
    for cached in (photographs._crop, photographs._jitter, photographs._policy):
        cached.cache_clear()
    assert torch.equal(batch(data)[0], first)


def test_the_generator_is_advanced_and_pixels_stay():
    data, generator = make(ALL["all"]), seeded()
    before, index = data.train.pixels.clone(), torch.arange(24)
    one, two = (data.batch(data.train, index, generator=generator, augment=True)[0] for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(data.train.pixels, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_agree(dtype: torch.dtype):
    data = make(Augment(flip=True, cutout=3, crop_scale=0.3, jitter=(0.2, 0.2, 0.2, 0.0)))
    truth, images = batch(data)[0], batch(data, dtype=dtype)[0]
    assert images.dtype == dtype
    torch.testing.assert_close(images.double(), truth, atol=1e-5 if dtype == torch.float32 else 0.01, rtol=0)


def test_training_normalises_as_testing_does():
    data = replace(make(Augment(crop_scale=1.0)), mean=(0.4, 0.5, 0.25), std=(0.2, 0.3, 0.5))
    torch.testing.assert_close(batch(data)[0], plain(data), atol=1e-6, rtol=0)


def test_kornia_is_imported_only_where_it_is_needed():
    """It takes seconds; a set without these variations must not wait for it."""
    for path in Path(photographs.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert "kornia" not in ast.unparse(node) or not isinstance(node, ast.Import | ast.ImportFrom), path


# Windows


def test_a_window_of_stored_images():
    data = make(side=16, window=10)
    assert data.size == (10, 10)
    assert torch.equal(plain(data), plain(make())[:, :, 3:13, 3:13])
    images, _ = batch(data)
    whole = plain(make()).unfold(2, 10, 1).unfold(3, 10, 1).permute(0, 2, 3, 1, 4, 5)  # n, top, left, C, H, W
    same = (whole - images[:, None, None]).abs().flatten(3).amax(3) < 1e-6
    assert same.flatten(1).any(1).all()


def test_every_window_occurs():
    data = make(side=16, n=1, window=14)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    split = Split(pixels, torch.zeros(1).long())
    data = ImageData("made", "here", ("a",), split, split, (0.0,), (1.0,), Augment(), 14)
    images, _ = data.batch(split, torch.zeros(900).long(), generator=seeded(), augment=True, dtype=torch.float64)
    corners = (images[:, 0, 0, 0] * 255).round().long()
    assert sorted(corners.unique().tolist()) == [0, 1, 2, 16, 17, 18, 32, 33, 34]
    assert corners.bincount(minlength=35)[corners.unique()].min() > 60  # 100 expected of each


def test_a_window_must_lie_in_square_images():
    with pytest.raises(ValueError, match="16x16"):
        make(side=16, window=17)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_of_everything_is_the_plain_resize(channels: int):
    same = make(Augment(crop_scale=1.0), channels=channels)
    torch.testing.assert_close(batch(same)[0], plain(same), atol=1e-6, rtol=0)
    smaller = make(Augment(crop_scale=1.0), channels=channels, window=12)
    resized = F.interpolate(plain(same), (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(batch(smaller)[0], resized, atol=1e-6, rtol=0)


def test_crops_have_the_areas_and_aspects_that_are_said():
    """Pixels that hold their own row and column tell where the window was."""
    n, side, size = 400, 60, 30
    place = torch.arange(side, dtype=torch.float64)
    x = torch.stack([place[:, None].expand(side, side), place[None].expand(side, side)])[None].expand(n, -1, -1, -1)
    seen = photographs.resized_crop(x, (size, size), 0.25, seeded())
    rise = seen[:, 0, 20, 5] - seen[:, 0, 10, 5]
    run = seen[:, 1, 5, 20] - seen[:, 1, 5, 10]
    height, width = rise * size / 10, run * size / 10
    share, aspect = height * width / side**2, width / height
    assert (height.round() - height).abs().max() < 1e-4  # whole pixels
    assert share.min() > 0.25 - 0.03 and share.max() <= 1
    assert share.min() < 0.3 and share.max() > 0.95
    assert aspect.min() > 3 / 4 - 0.03 and aspect.max() < 4 / 3 + 0.05
    assert abs(share.mean() - 0.6) < 0.06  # uniform from 0.25 to 1 is 0.625; the widest do not fit
    assert abs(aspect.log().mean()) < 0.03


# Colours


def one_colour(colour: tuple[float, ...], n: int = 200, side: int = 4) -> Tensor:
    return torch.tensor(colour, dtype=torch.float64)[None, :, None, None].expand(n, -1, side, side)


def soft(n: int = 50, channels: int = 3) -> Tensor:
    """Pictures without extreme colours, so that nothing is clamped."""
    return 0.4 + 0.2 * torch.rand(n, channels, 6, 6, generator=seeded(3), dtype=torch.float64)


def test_brightness_is_one_factor_for_a_picture():
    x = soft()
    factor = photographs.jitter(x, (0.4, 0.0, 0.0, 0.0), seeded()) / x
    assert (factor - factor[:, :1, :1, :1]).abs().max() < 1e-6
    drawn = factor[:, 0, 0, 0]
    assert drawn.min() >= 0.6 - 1e-6 and drawn.max() <= 1.4 + 1e-6
    assert drawn.std() > 0.15  # 0.8 / sqrt(12) = 0.23
    assert abs(drawn.mean() - 1) < 0.1


def test_contrast_keeps_the_mean_luma_of_a_picture():
    x = soft()
    y = photographs.jitter(x, (0.0, 0.4, 0.0, 0.0), seeded())
    luma, mean = (y * LUMA).sum(1), (x * LUMA).sum(1).mean((1, 2))
    torch.testing.assert_close(luma.mean((1, 2)), mean, atol=1e-6, rtol=0)
    factor = (y - mean[:, None, None, None]) / (x - mean[:, None, None, None])
    assert (factor - factor[:, :1, :1, :1]).abs().median() < 1e-6
    assert factor[:, 0, 0, 0].std() > 0.15


def test_saturation_keeps_the_luma_of_every_pixel():
    x = soft()
    y = photographs.jitter(x, (0.0, 0.0, 0.4, 0.0), seeded())
    torch.testing.assert_close((y * LUMA).sum(1), (x * LUMA).sum(1), atol=1e-3, rtol=0)
    assert (y - x).abs().max() > 0.01


def test_hue_turns_pure_red_by_a_known_angle():
    """Within a sixth of a turn red stays 1, and green or blue grows to 6 times the angle in turns."""
    y = photographs.jitter(one_colour((1.0, 0.0, 0.0)), (0.0, 0.0, 0.0, 0.1), seeded())[:, :, 0, 0]
    angle = (y[:, 1] - y[:, 2]) / 6
    torch.testing.assert_close(y[:, 0], torch.ones(200).double(), atol=1e-5, rtol=0)
    assert (y[:, 1] * y[:, 2]).abs().max() < 1e-5
    assert -0.1 - 1e-5 <= angle.min() < -0.08 and 0.08 < angle.max() <= 0.1 + 1e-5


def test_grey_pictures_have_no_hue_and_no_saturation():
    x = soft(channels=1)
    assert torch.equal(photographs.jitter(x, (0.0, 0.0, 0.9, 0.5), seeded()), x)
    assert torch.equal(photographs.jitter(x, JITTER, seeded()), photographs.jitter(x, (0.4, 0.4, 0.0, 0.0), seeded()))
    y = photographs.jitter(x, (0.0, 0.5, 0.0, 0.0), seeded())
    torch.testing.assert_close(y.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-6, rtol=0)


# RandAugment


def test_every_picture_draws_its_own_operation():
    """One picture repeated, one operation each: fourteen results, and five more, for what moves goes both ways."""
    x = torch.rand(1, 3, 24, 24, generator=seeded(1), dtype=torch.float64).expand(400, -1, -1, -1)
    y = photographs.randaugment(x, 1, 9, seeded()).flatten(1)
    different = []
    for image in y:
        if not any((image - other).abs().max() < 1e-4 for other in different):
            different.append(image)
    assert len(different) == len(photographs.POLICY) + 5 == 19


def test_operations_follow_one_another():
    """kornia's inversion twice is nothing; it stands here for the whole table."""
    x = soft()
    with pytest.MonkeyPatch.context() as patch:
        photographs._policy.cache_clear()
        patch.setattr(photographs, "POLICY", (("invert", 0, 1),))
        once, twice = (photographs.randaugment(x, count, 9, seeded()) for count in (1, 2))
        photographs._policy.cache_clear()
    torch.testing.assert_close(once, 1 - x, atol=1e-6, rtol=0)
    torch.testing.assert_close(twice, x, atol=1e-6, rtol=0)


def test_the_magnitude_is_a_place_in_the_range():
    """kornia's contrast is a factor from 0.1 to 1.9: 1 at magnitude 15, 0.7 at magnitude 10."""
    x = soft()
    with pytest.MonkeyPatch.context() as patch:
        photographs._policy.cache_clear()
        patch.setattr(photographs, "POLICY", (("contrast", 0.1, 1.9),))
        middle, lower = (photographs.randaugment(x, 1, magnitude, seeded()) for magnitude in (15, 10))
        photographs._policy.cache_clear()
    torch.testing.assert_close(middle, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(lower, 0.7 * x, atol=1e-6, rtol=0)


# Settings


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"crop_scale": -0.1}, ("`crop_scale`", "got -0.1")),
        ({"crop_scale": 1.5}, ("from 0 to 1; got 1.5",)),
        ({"crop_scale": math.nan}, ("`crop_scale`", "got nan")),
        ({"crop_scale": 0.08, "pad": 4}, ("`crop_scale` is 0.08 and `pad` is 4", "Leave one 0")),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, ("got 0.6 in 0.4 0.4 0.4 0.6", "from 0 to 0.5")),
        ({"jitter": (-0.4, 0.0, 0.0, 0.0)}, ("at least 0; got -0.4",)),
        ({"jitter": (0.4, 0.4, 0.4)}, ("got 0.4 0.4 0.4.",)),
        ({"randaugment": (2, 0)}, ("got 2 0", "1 to 29")),
        ({"randaugment": (0, 9)}, ("1 or more",)),
        ({"randaugment": (2, 30)}, ("from 0 to 29; got 30 in 2 30",)),
        ({"size": 4, "stored": 3}, ("stored size 3 is less than the size 4",)),
        ({"stored": 0}, ("at least 1; got 0",)),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], parts: tuple[str, ...]):
    with pytest.raises(UserError) as caught:
        load("digits", **wrong)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_what_load_makes_of_the_settings():
    data = load("digits", size=14, stored=16, train_images=20, test_images=20)
    assert (data.size, tuple(data.train.pixels.shape)) == ((14, 14), (20, 1, 16, 16))
    assert data.augment.pad == 0
    assert load("digits", stored=7, train_images=20).size == (7, 7)
    assert load("digits", size=7, stored=7, train_images=20).window is None
    data = load("digits", crop_scale=0.3, jitter=JITTER, randaugment=POLICY, train_images=20)
    assert data.augment == Augment(crop_scale=0.3, jitter=JITTER, randaugment=POLICY)
    assert load("digits", pad=2, size=6, stored=7, train_images=20).augment.pad == 2


# Fingerprint


def test_the_fingerprint_follows_from_the_images_alone():
    data = make()
    assert data.fingerprint == make(ALL["all"]).fingerprint == make(window=8).fingerprint
    assert len(data.fingerprint) == 16 and int(data.fingerprint, 16) >= 0
    assert load("digits").fingerprint == load("digits", cutout=3).fingerprint
    assert load("digits").fingerprint != load("digits", train_images=500).fingerprint


def test_the_fingerprint_sees_every_part():
    data = make()
    pixels, labels = data.train.pixels.clone(), data.train.labels.clone()
    pixels[7, 1, 2, 3] ^= 1
    labels[5] = (labels[5] + 1) % 3
    others = [
        replace(data, classes=("a", "b", "d")),
        replace(data, classes=("a", "b\nc")),
        replace(data, train=Split(pixels, data.train.labels)),
        replace(data, test=Split(pixels, data.test.labels)),
        replace(data, train=Split(data.train.pixels, labels)),
        replace(data, train=Split(data.train.pixels.flatten(2).unflatten(2, (8, 32)), data.train.labels)),
        replace(data, train=Split(data.train.pixels[:20], data.train.labels[:20])),
    ]
    prints = [one.fingerprint for one in (data, *others)]
    assert len(set(prints)) == len(prints)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_a_seed_gives_the_same_batch_on_the_gpu(name: str):
    data = make(ALL[name])
    gpu, state = data.to("cuda"), torch.cuda.get_rng_state()
    torch.testing.assert_close(batch(gpu)[0].cpu(), batch(data)[0], rtol=0, atol=1e-6)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert gpu.fingerprint == data.fingerprint
