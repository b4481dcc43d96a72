"""Variations of photographs through kornia: random resized crops, colour jitter and RandAugment.

kornia draws from PyTorch's global generator on the CPU. So that a batch follows from the generator it is given alone,
each function here runs kornia on a copy of the global state, seeded by one draw, and puts the state back. All draws are
made on the CPU, so a seed means the same picture on every device. kornia takes seconds to import and is imported when
first used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

RATIO = (3 / 4, 4 / 3)
"""Width over height of a random resized crop, before it is resized (Szegedy et al., arXiv 1409.4842)."""
POLICY: tuple[tuple[str, float, float], ...] = (
    ("identity", 0, 0),
    ("auto_contrast", 0, 1),
    ("equalize", 0, 1),
    ("rotate", -30, 30),
    ("posterize", 4, 8),
    ("solarize", 0, 1),
    ("color", 0.1, 1.9),
    ("contrast", 0.1, 1.9),
    ("brightness", 0.1, 1.9),
    ("sharpness", 0.1, 1.9),
    ("shear_x", -0.3, 0.3),
    ("shear_y", -0.3, 0.3),
    ("translate_x", -0.1, 0.1),
    ("translate_y", -0.1, 0.1),
)
"""The paper's operations: name, strength at magnitude 0, strength at magnitude 30.

Names, ranges and formulas are kornia's, whose brightness adds and whose contrast multiplies. kornia's own list has no
identity, but inversion and a solarised sum (with a threshold of its own chance), which the paper has not.
"""


def resized_crop(x: Tensor, size: tuple[int, int], smallest: float, generator: torch.Generator) -> Tensor:
    """Return a random window of each image, resized bilinearly: [n, C, height, width].

    Parameters
    ----------
    x
        Float [n, C, H, W].
    size
        Height and width of the result.
    smallest
        A window covers a share of the image's area that is uniform between this and 1. Its width over height is
        log-uniform in :data:`RATIO`. Of ten such windows the first that fits is taken; if none fits, the largest.
    generator
        Advanced by one draw.
    """
    with torch.random.fork_rng(devices=[]):
        crop = _crop(size, smallest)
        _seed_from(generator)
        return _run(crop, x)


def jitter(x: Tensor, strengths: tuple[float, float, float, float], generator: torch.Generator) -> Tensor:
    """Return images whose colours vary, in [0, 1].

    The formulas are torchvision's. The factors are drawn for each image; the order of the four is drawn once a batch.

    Parameters
    ----------
    x
        Float [n, C, H, W] in [0, 1]. With C = 1 there is no saturation and no hue to vary.
    strengths
        Brightness, contrast, saturation, hue. Each of the first three draws a factor from [1 - s, 1 + s] (no less than
        0), the last an angle from [-s, s] turns.
    generator
        Advanced by one draw.
    """
    brightness, contrast, *colour = strengths
    saturation, hue = colour if x.shape[1] == 3 else (0.0, 0.0)
    with torch.random.fork_rng(devices=[]):
        vary = _jitter((brightness, contrast, saturation, hue))
        _seed_from(generator)
        return _run(vary, x)


def randaugment(x: Tensor, operations: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Return images each of which went through operations drawn from :data:`POLICY`, with replacement.

    kornia alone would draw the operations once a batch; here, as in the paper (Cubuk et al., arXiv 1909.13719), every
    image draws its own, and the images that drew the same one run together.

    Parameters
    ----------
    x
        Float [n, C, H, W] in [0, 1]. Grey images run as colour images with three equal channels.
    operations
        For each image.
    magnitude
        Of all operations, 1 to 29: the place in the range of their strength, in thirtieths.
    generator
        Advanced by one draw.
    """
    channels = x.shape[1]
    x = x.expand(-1, 3, -1, -1).clone()
    with torch.random.fork_rng(devices=[]):
        policy = _policy(magnitude)
        _seed_from(generator)
        for step in torch.randint(len(policy), (operations, len(x))):
            for number in step.unique().tolist():
                mine = (step == number).nonzero()[:, 0].to(x.device)
                x[mine] = _run(policy[number], x[mine])
    return x[:, :channels]


def _seed_from(generator: torch.Generator) -> None:
    """Seed the global CPU generator, and unlike ``torch.manual_seed`` no other, by one draw."""
    draw = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    torch.default_generator.manual_seed(int(draw))


def _run(module: Any, x: Tensor) -> Tensor:
    result: Tensor = module(x)
    return result.to(x.dtype)


# Built inside the copy of the global state, too: a module may draw when it is made.


@lru_cache(maxsize=8)
def _crop(size: tuple[int, int], smallest: float) -> Any:
    from kornia.augmentation import RandomResizedCrop

    return RandomResizedCrop(size, scale=(smallest, 1.0), ratio=RATIO, align_corners=False, cropping_mode="slice")


@lru_cache(maxsize=8)
def _jitter(strengths: tuple[float, float, float, float]) -> Any:
    from kornia.augmentation import ColorJitter

    factors = [(max(0.0, 1 - s), 1 + s) for s in strengths[:3]]
    return ColorJitter(*factors, (-strengths[3], strengths[3]))


@lru_cache(maxsize=8)
def _policy(magnitude: int) -> list[Any]:
    from kornia.augmentation.auto import RandAugment

    return [
        torch.nn.Identity()
        if one[0] == "identity"
        else RandAugment(1, magnitude, policy=[[one]], transformation_matrix_mode="skip")
        for one in POLICY
    ]
