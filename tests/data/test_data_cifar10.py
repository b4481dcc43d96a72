"""CIFAR-10 from Parquet files, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gapless.data import Augment, load

CIFAR10 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10"

pytestmark = pytest.mark.skipif(
    not CIFAR10.is_dir(), reason="needs CIFAR-10 as Parquet files in ../shared/data/cifar10"
)


@pytest.mark.parametrize("size", [None, 16])
def test_a_subset(size: int | None):
    data = load(CIFAR10, train_images=500, test_images=200, size=size)
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
    assert data.train.labels.bincount().tolist() == [50] * 10
    assert data.test.labels.bincount().tolist() == [20] * 10
    assert data.augment == Augment(pad=(size or 32) // 8, flip=True)
    assert tuple(data.train.pixels.shape) == (500, 3, size or 32, size or 32)
    images, _ = data.batch(data.train, torch.arange(500), dtype=torch.float64)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_halving_commutes_with_reading():
    whole, half = (load(CIFAR10, train_images=20, test_images=20, size=size).test.pixels for size in (None, 16))
    mean = whole.double().unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    assert torch.equal(mean.round(), half.double())
