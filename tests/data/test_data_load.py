"""Reading sets: splits, subsets, sizes, colour, Parquet files, class folders, and what is said when it fails."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gapless.core.errors import UserError
from gapless.data import Augment, ImageData, digits, load
from gapless.data.images import fit, stratified, stratified_fifth

NAMES = ("cat", "dog", "eel")


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """A random picture; ``size`` is width and height."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    rng = np.random.default_rng(seed)
    return Image.frombytes(mode, size, rng.integers(0, 256, (size[1], size[0], bands), np.uint8).tobytes())


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def parquet(
    path: Path, n: int = 12, *, seed: int = 0, features: dict[str, Any] | None = None, **columns: Any
) -> list[Image.Image]:
    """Write a Parquet file of n pictures with the labels 0, 1, 2, 0 ...; ``columns`` replaces or (None) drops some."""
    images = [picture(seed + i) for i in range(n)]
    table: dict[str, Any] = {
        "img": [{"bytes": png(image), "path": None} for image in images],
        "label": [i % 3 for i in range(n)],
    } | columns
    arrow = pa.table({name: column for name, column in table.items() if column is not None})
    if features is not None:
        arrow = arrow.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow, path)
    return images


def folder(root: Path, n: int = 4, *, classes: tuple[str, ...] = NAMES, seed: int = 0, **options: Any) -> None:
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            picture(seed + 100 * k + i, **options).save(root / name / f"{i}.png")


def refused(*parts: str, path: Any, **options: Any) -> None:
    """Loading must fail with a message that has all parts."""
    with pytest.raises(UserError) as caught:
        load(path, **options)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def everything(data: ImageData) -> list[bytes]:
    return sorted(x.numpy().tobytes() for split in (data.train, data.test) for x in split.pixels)


# Digits


def test_digits():
    from sklearn.datasets import load_digits

    data, found = load("digits"), load_digits()
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert (data.name, data.channels, data.size) == ("digits", 1, (8, 8))
    assert data.classes == tuple("0123456789")
    assert data.augment == Augment(pad=1, flip=False, cutout=0)
    assert everything(data) == sorted((x * 15).astype(np.uint8).tobytes() for x in found.images)
    assert int(data.train.pixels.max()) == 240


def test_the_file_of_scikit_learn_says_what_scikit_learn_says():
    assert np.array_equal(digits._table(find_spec("sklearn")), digits._table(None))


def test_digits_keep_their_labels_and_the_splits_are_disjoint():
    from sklearn.datasets import load_digits

    data, found = load("digits"), load_digits()
    truth = {(x * 15).astype(np.uint8).tobytes(): int(y) for x, y in zip(found.images, found.target, strict=True)}
    assert len(truth) == 1797  # no image occurs twice, so disjoint means disjoint
    seen = set()
    for split in (data.train, data.test):
        for x, y in zip(split.pixels, split.labels, strict=True):
            assert truth[x.numpy().tobytes()] == int(y)
            seen.add(x.numpy().tobytes())
    assert len(seen) == 1797


def test_the_split_of_the_digits_is_the_same_everywhere():
    data = load("digits")
    assert hashlib.sha256(data.test.pixels.numpy().tobytes()).hexdigest()[:16] == "a41f7264c1937b8f"
    assert (data.test.labels.bincount() - 36).abs().max() <= 1
    assert "no test split, so a stratified fifth" in data.source


def test_normalised_training_digits_have_mean_zero_and_deviation_one():
    data = load("digits", train_images=500)
    images, _ = data.batch(data.train, torch.arange(500), dtype=torch.float64)
    assert abs(float(images.mean())) < 1e-12
    assert abs(float(images.std(correction=0)) - 1) < 1e-12


def test_overrides_of_the_augmentation():
    assert load("digits", pad=0, flip=True, cutout=2).augment == Augment(flip=True, cutout=2)
    refused("`pad` must be at least 0; got -1", path="digits", pad=-1)


def test_a_folder_named_digits_is_reached_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load(Path("digits")).classes == NAMES
    assert load("./digits").classes == NAMES
    assert len(load("digits").classes) == 10


# Subsets and splits


def test_subsets_are_stratified_deterministic_and_nested():
    data = load("digits", train_images=200, test_images=100)
    assert data.train.labels.bincount().tolist() == [20] * 10
    assert data.test.labels.bincount().tolist() == [10] * 10
    assert "200 of the 1437 train images, stratified; 100 of the 360 test images" in data.source
    small = load("digits", train_images=100)
    assert {x.numpy().tobytes() for x in small.train.pixels} < {x.numpy().tobytes() for x in data.train.pixels}
    assert torch.equal(load("digits", train_images=200).train.pixels, data.train.pixels)


@pytest.mark.parametrize("count", [3, 4, 17, 50, 99, 100])
def test_every_class_has_its_share_and_at_least_one(count: int):
    labels = np.repeat([0, 1, 5], [1, 9, 90])
    chosen = stratified(labels, count)
    assert len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    have = np.array([(labels[chosen] == c).sum() for c in (0, 1, 5)])
    assert (have >= 1).all()
    assert (np.abs(have - count * np.array([0.01, 0.09, 0.9])) < 2).all()


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 100), (3, 4, 5), (2, 2, 2, 2, 2, 205), (50, 50)])
def test_a_fifth_leaves_every_class_on_both_sides(sizes: tuple[int, ...]):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    fifth = stratified_fifth(labels, [str(c) for c in range(len(sizes))])
    rest = np.setdiff1d(np.arange(len(labels)), fifth)
    assert len(fifth) == max(len(sizes), -(-len(labels) // 5))
    assert set(labels[fifth]) == set(labels[rest]) == set(range(len(sizes)))


@pytest.mark.parametrize("count", [9, 1438])
def test_impossible_subsets(count: int):
    refused(f"{count} train images", "1437 images of 10 classes", "10 to 1437", path="digits", train_images=count)


@pytest.mark.parametrize("count", [0, -1])
def test_a_subset_has_an_image(count: int):
    refused(f"`train_images` must be at least 1; got {count}", path="digits", train_images=count)


def test_impossible_test_subset():
    refused("400 test images", "10 to 360", path="digits", test_images=400)


# Sizes


def test_halving_is_the_mean_of_two_by_two():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    mean = image.reshape(3, 16, 2, 16, 2).mean((2, 4))
    assert np.array_equal(fit(image, 16), np.rint(mean).astype(np.uint8))


@pytest.mark.parametrize(("old", "new"), [(12, 4), (24, 4), (8, 16), (9, 9)])
def test_whole_ratios_are_exact(old: int, new: int):
    image = np.random.default_rng(1).integers(0, 256, (1, old, old), np.uint8)
    if new <= old:
        k = old // new
        expected = np.rint(image.reshape(1, new, k, new, k).mean((2, 4)))
    else:
        expected = image.repeat(new // old, 1).repeat(new // old, 2)
    assert np.array_equal(fit(image, new), expected.astype(np.uint8))


@pytest.mark.parametrize(("height", "width", "size"), [(7, 5, 3), (10, 31, 4), (5, 5, 8), (6, 20, 6)])
def test_other_ratios_are_the_mean_over_the_area_then_the_centre(height: int, width: int, size: int):
    """The area mean of fractional pixels is the plain mean after every pixel is repeated until borders meet."""
    image = np.random.default_rng(2).integers(0, 256, (3, height, width), np.uint8)
    short = min(height, width)
    high, wide = (int(side * size / short + 0.5) for side in (height, width))
    fine = image.repeat(high, 1).repeat(wide, 2).astype(np.float64)
    resized = np.rint(fine.reshape(3, high, height, wide, width).mean((2, 4)))
    top, left = (high - size) // 2, (wide - size) // 2
    assert np.array_equal(fit(image, size), resized[:, top : top + size, left : left + size].astype(np.uint8))


def test_size_of_a_set():
    data = load("digits", size=4)
    assert (data.size, data.augment.pad) == ((4, 4), 0)
    refused("`size` must be at least 1; got 0", path="digits", size=0)


def test_mixed_sizes_need_a_size(tmp_path: Path):
    folder(tmp_path)
    picture(7, (10, 6)).save(tmp_path / "dog" / "9.png")
    refused("cat", "8 x 8", "9.png is 10 x 6", "`size`, such as 32", path=tmp_path)
    assert load(tmp_path, size=4).size == (4, 4)


def test_oblong_images_of_one_size_stay(tmp_path: Path):
    folder(tmp_path, size=(48, 32))
    data = load(tmp_path)
    assert (data.size, data.augment) == ((32, 48), Augment(pad=4, flip=True))


# Colour


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_images_have_one_channel_and_no_mirror_images(tmp_path: Path, mode: str):
    if mode == "1":
        for k, name in enumerate(NAMES):
            (tmp_path / name).mkdir()
            for i in range(3):
                picture(10 * k + i, mode="L").convert("1").save(tmp_path / name / f"{i}.png")
    else:
        folder(tmp_path, mode=mode)
    data = load(tmp_path)
    assert (data.channels, data.augment.flip) == (1, False)
    if mode == "1":
        assert set(data.train.pixels.unique().tolist()) == {0, 255}


def one(tmp_path: Path, image: Image.Image, *, mode: str = "RGB", **options: Any) -> np.ndarray:
    """Load a set with ``image`` as the only one of its class, and return it."""
    folder(tmp_path / "train", mode=mode)
    folder(tmp_path / "test", mode=mode)
    for path in (tmp_path / "test" / "dog").iterdir():
        path.unlink()
    image.save(tmp_path / "test" / "dog" / "this.png", **options)
    data = load(tmp_path)
    return data.test.pixels[data.test.labels == 1][0].numpy()


def test_mixed_modes_become_colour(tmp_path: Path):
    grey = picture(3, mode="L")
    assert np.array_equal(one(tmp_path, grey), array(grey).repeat(3, 0))


def test_palettes_become_colour(tmp_path: Path):
    image = picture(3).quantize(16)
    assert np.array_equal(one(tmp_path, image), array(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_images_are_composited_on_black(tmp_path: Path, mode: str):
    image = picture(3, mode=mode)
    *colour, alpha = (np.asarray(band).astype(np.float64) for band in image.split())
    expected = np.stack([band * alpha / 255 for band in colour])
    found = one(tmp_path, image, mode="L" if mode == "LA" else "RGB")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def test_a_transparent_palette_colour_becomes_black(tmp_path: Path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((2, 0), 0)
    found = one(tmp_path, image, transparency=bytes([0, 255]))
    assert found[:, 0, 2].tolist() == [0, 0, 0]
    assert found[:, 1, 2].tolist() == [0, 255, 0]


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    assert np.array_equal(one(tmp_path, Image.fromarray(values), mode="L")[0], values >> 8)


def test_the_orientation_of_the_camera_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image = picture(3)
    assert np.array_equal(one(tmp_path, image, exif=exif), array(image.transpose(Image.Transpose.ROTATE_270)))


def test_floating_point_images_are_refused(tmp_path: Path):
    folder(tmp_path)
    Image.new("F", (8, 8)).save(tmp_path / "cat" / "x.tif")
    refused("x.tif", "8 or 16 bits", path=tmp_path)


# Class folders


def test_class_folders_without_a_split(tmp_path: Path):
    folder(tmp_path, 5)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "._1.png").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    data = load(str(tmp_path))
    assert (data.name, data.classes) == (tmp_path.name, NAMES)
    assert data.train.labels.bincount().tolist() == [4, 4, 4]
    assert data.test.labels.bincount().tolist() == [1, 1, 1]
    assert str(tmp_path) in data.source
    assert "no test split" in data.source
    paths = sorted(tmp_path.rglob("[0-9].png"))
    assert everything(data) == sorted(array(Image.open(path)).tobytes() for path in paths)


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_class_folders_with_a_split(tmp_path: Path, name: str):
    folder(tmp_path / "train")
    folder(tmp_path / name, 2, seed=50)
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.test.pixels[0].numpy(), array(picture(50)))
    assert ("serves as the test split" in data.source) == (name != "test")
    assert "no test split" not in data.source


def test_test_wins_over_validation(tmp_path: Path):
    for name, n in (("train", 4), ("validation", 3), ("test", 2)):
        folder(tmp_path / name, n)
    assert len(load(tmp_path).test) == 6


def test_train_folder_alone_is_split(tmp_path: Path):
    folder(tmp_path / "train", 5)
    assert (len(load(tmp_path).train), len(load(tmp_path).test)) == (12, 3)


def test_the_order_in_which_the_file_system_lists_files_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder(tmp_path, 10)
    here, walk, asked = load(tmp_path).train, os.walk, []

    def shuffled(folder, *, reverse: bool, **options):
        for place, folders, files in walk(folder, **options):
            asked.append(place)
            yield place, folders, sorted(files, reverse=reverse)

    for reverse in (False, True):
        monkeypatch.setattr(os, "walk", functools.partial(shuffled, reverse=reverse))
        assert torch.equal(load(tmp_path).train.pixels, here.pixels)
    assert len(asked) == 6


def test_a_class_may_be_called_train(tmp_path: Path):
    folder(tmp_path, classes=("bus", "train"))
    assert load(tmp_path).classes == ("bus", "train")


def test_class_folders_that_do_not_fit(tmp_path: Path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", classes=("cat", "dgo"))
    refused("dgo", "no class of the training split", "Did you mean 'dog'?", path=tmp_path)


def test_an_empty_class_folder(tmp_path: Path):
    folder(tmp_path)
    (tmp_path / "fox").mkdir()
    refused("fox", "holds no images", path=tmp_path)


def test_an_empty_test_folder(tmp_path: Path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", 0)
    refused("no test images", path=tmp_path)


def test_one_class_only(tmp_path: Path):
    folder(tmp_path, classes=("cat",))
    refused("'cat'", "two are needed", path=tmp_path)


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path):
    folder(tmp_path)
    folder(tmp_path, 1, classes=("fox",))
    refused("'fox'", "single image", "none can be made", path=tmp_path)


def test_a_corrupt_file_is_named(tmp_path: Path):
    folder(tmp_path)
    file = tmp_path / "eel" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    refused(str(file), path=tmp_path)
    file.write_text("not an image")
    refused(str(file), "no readable image", path=tmp_path)


def test_columns_make_no_sense_without_columns(tmp_path: Path):
    folder(tmp_path)
    refused("`label`", "Leave them out", path=tmp_path, label="label")
    refused("`image`", "Leave them out", path="digits", image="img")


# Parquet files

FEATURES = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}


def test_parquet_without_description(tmp_path: Path):
    images = parquet(tmp_path / "train-00000-of-00001.parquet")
    parquet(tmp_path / "test-00000-of-00001.parquet", 6, seed=50)
    data = load(tmp_path)
    assert data.classes == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert np.array_equal(data.train.pixels.numpy(), np.stack([array(image) for image in images]))
    assert len(data.test) == 6


def test_parquet_with_description(tmp_path: Path):
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", features=FEATURES)
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", 6, features=FEATURES)
    data = load(tmp_path)
    assert (data.classes, len(data.test)) == (NAMES, 6)


def test_parquet_as_datasets_writes_it(tmp_path: Path):
    features = datasets.Features(picture=datasets.Image(), kind=datasets.ClassLabel(names=list(NAMES)))
    rows = {"picture": [picture(i) for i in range(12)], "kind": [0, 1, 2] * 4}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    data = load(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (NAMES, 9, 3)


def test_shards_are_read_in_order_and_nothing_is_written(tmp_path: Path):
    images = parquet(tmp_path / "train-00000-of-00002.parquet", 6) + parquet(
        tmp_path / "train-00001-of-00002.parquet", 6, seed=6
    )
    parquet(tmp_path / "test.parquet", 3)
    before = sorted(tmp_path.rglob("*"))
    assert np.array_equal(load(tmp_path).train.pixels.numpy(), np.stack([array(image) for image in images]))
    assert sorted(tmp_path.rglob("*")) == before


def test_string_labels_are_sorted(tmp_path: Path):
    parquet(tmp_path / "train.parquet", label=["eel", "cat", "dog"] * 4)
    parquet(tmp_path / "test.parquet", label=["cat", "cat", "dog"] * 4)
    data = load(tmp_path)
    assert data.classes == NAMES
    assert data.train.labels[:3].tolist() == [2, 0, 1]


def test_integer_labels_with_gaps(tmp_path: Path):
    parquet(tmp_path / "train.parquet", label=[10, 2, 7] * 4)
    data = load(tmp_path)
    assert data.classes == ("2", "7", "10")
    assert sorted(data.train.labels.unique().tolist()) == [0, 1, 2]


def test_images_as_plain_bytes_and_as_paths(tmp_path: Path):
    images = [picture(i) for i in range(12)]
    parquet(tmp_path / "a" / "train.parquet", img=None, image=[png(image) for image in images])
    for name in "bc":
        (tmp_path / name / "inside").mkdir(parents=True)
        for i, image in enumerate(images):
            image.save(tmp_path / name / "inside" / f"{i}.png")
    parquet(tmp_path / "b" / "train.parquet", img=[f"inside/{i}.png" for i in range(12)])
    parquet(tmp_path / "c" / "train.parquet", img=[{"bytes": None, "path": f"inside/{i}.png"} for i in range(12)])
    expected = sorted(array(image).tobytes() for image in images)
    for name in "abc":
        assert everything(load(tmp_path / name)) == expected


def test_ambiguous_columns_have_to_be_chosen(tmp_path: Path):
    parquet(tmp_path / "train.parquet", label=None, fine_label=[0, 1, 2] * 4, coarse_label=[0, 0, 1] * 4)
    refused("fine_label, coarse_label", "`label`", "Columns: img, fine_label, coarse_label", path=tmp_path)
    assert load(tmp_path, label="coarse_label").classes == ("0", "1")
    refused("'fine_lable'", "Did you mean 'fine_label'?", path=tmp_path, label="fine_lable")


def test_ambiguous_images_have_to_be_chosen(tmp_path: Path):
    blank = [{"bytes": png(Image.new("L", (8, 8))), "path": None}] * 12
    parquet(tmp_path / "train.parquet", mask=blank)
    refused("img, mask", "`image`", path=tmp_path)
    assert load(tmp_path, image="img").channels == 3


def test_the_described_type_decides_before_the_name(tmp_path: Path):
    kinds = {"kind": {"_type": "ClassLabel", "names": ["x", "y"]}, "label": {"dtype": "int64", "_type": "Value"}}
    parquet(tmp_path / "train.parquet", kind=[0, 1] * 6, features=kinds)
    assert load(tmp_path).classes == ("x", "y")


def test_columns_that_cannot_be_found(tmp_path: Path):
    parquet(tmp_path / "a" / "train.parquet", label=None, colour=[0, 1, 2] * 4)
    refused("No column looks like the label", "img, colour", path=tmp_path / "a")
    parquet(tmp_path / "b" / "train.parquet", img=None, text=["x"] * 12)
    refused("No column looks like the image", path=tmp_path / "b")
    parquet(tmp_path / "c" / "train.parquet", label=[0.5, 1.5, 2.5] * 4)
    refused("'label' cannot be the label", path=tmp_path / "c", label="label")


def test_rows_without_a_legal_label_are_named(tmp_path: Path):
    parquet(tmp_path / "train.parquet", features=FEATURES)
    parquet(tmp_path / "test.parquet", 3, label=[0, -1, 2], features=FEATURES)
    refused("row 1 of", "test.parquet", "the label -1", path=tmp_path)
    parquet(tmp_path / "test.parquet", 3, label=[0, 1, None], features=FEATURES)
    refused("row 2 of", "no label", path=tmp_path)


def test_rows_without_a_readable_image_are_named(tmp_path: Path):
    good = {"bytes": png(picture(0)), "path": None}
    parquet(tmp_path / "train.parquet")
    for bad, reason in (({"bytes": b"junk", "path": None}, "no readable image"), (None, "no image")):
        parquet(tmp_path / "test.parquet", 3, img=[good, good, bad])
        refused("row 2 of", "test.parquet", reason, path=tmp_path)


def test_parquet_files_that_do_not_fit(tmp_path: Path):
    parquet(tmp_path / "a" / "train.parquet")
    parquet(tmp_path / "a" / "test.parquet", label=None, kind=[0, 1, 2] * 4)
    refused("test split has no column 'label'", path=tmp_path / "a")
    parquet(tmp_path / "b" / "train-0.parquet")
    parquet(tmp_path / "b" / "train-1.parquet", extra=[1] * 12)
    refused("train-1.parquet", "different columns", path=tmp_path / "b")
    parquet(tmp_path / "c" / "one.parquet")
    parquet(tmp_path / "c" / "two.parquet")
    refused("no train split among one, two", path=tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.parquet").write_text("junk")
    refused("train.parquet is not a readable Parquet file", path=tmp_path / "d")
    parquet(tmp_path / "e" / "train.parquet", 0, img=pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    refused("no training images", path=tmp_path / "e")


def test_one_file_of_any_name_is_split(tmp_path: Path):
    parquet(tmp_path / "0000.parquet", 30)
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (24, 6)


# Names


def test_names_that_lead_nowhere(tmp_path: Path):
    refused("There is no folder", "nowhere", path=tmp_path / "nowhere")
    refused("There is no folder", "nowhere", path=str(tmp_path / "nowhere"))
    refused("holds no set of images", "train-*.parquet", path=tmp_path)
    (tmp_path / "x.parquet").write_text("x")
    refused("is a file", "folder that holds it", path=tmp_path / "x.parquet")


def test_a_set_of_the_hub(monkeypatch: pytest.MonkeyPatch):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(NAMES)))
    rows = {"image": [picture(i) for i in range(6)], "label": [0, 1, 2] * 2}

    def hub(name: str) -> datasets.DatasetDict:
        assert name == "someone/animals"
        return datasets.DatasetDict(
            train=datasets.Dataset.from_dict(rows, features=features, split="train"),
            validation=datasets.Dataset.from_dict(rows, features=features, split="validation"),
        )

    monkeypatch.setattr(datasets, "load_dataset", hub)
    data = load("someone/animals")
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("someone/animals", NAMES, 6, 6)
    assert data.source == "someone/animals on the Hugging Face hub; validation serves as the test split"
    assert np.array_equal(data.test.pixels[4].numpy(), array(picture(4)))


def test_a_folder_wins_over_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder(tmp_path / "someone" / "animals")
    monkeypatch.chdir(tmp_path)
    assert str(Path("someone") / "animals") in load("someone/animals").source


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    def hub(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", hub)
    refused("no folder 'digist'", "Couldn't reach", "Did you mean 'digits'?", "the connection", path="digist")


def test_the_real_library_offline(tmp_path: Path):
    code = "from gapless.data import load; load('someone/animals')"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "UserError: There is no folder 'someone/animals'" in done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr
