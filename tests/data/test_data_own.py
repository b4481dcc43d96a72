"""Files as people have them: odd formats and broken folders convert as stated, or fail with their name."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gapless.core.errors import UserError
from gapless.data import load
from gapless.data.huggingface import CONVERSIONS, MODES, decode
from gapless.data.survey import SHOWN, Some, survey

NAMES = ("cat", "dog", "eel")


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.frombytes(mode, size, values.tobytes())


def folder(root: Path, n: int = 4, classes: tuple[str, ...] = NAMES, seed: int = 0, **options: Any) -> Path:
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            picture(seed + 100 * k + i, **options).save(root / name / f"{i}.png")
    return root


def refused(*parts: str, path: Path, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(path, **options)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def one(root: Path, name: str, image: Image.Image, mode: str = "RGB", **options: Any) -> np.ndarray:
    """Save an image as the only test image of its class, and return what is loaded of it."""
    folder(root / "train", mode=mode)
    folder(root / "test", 1, NAMES[1:], mode=mode)
    (root / "test" / "cat").mkdir()
    image.save(root / "test" / "cat" / name, **options)
    data = load(root)
    return data.test.pixels[data.test.labels == 0][0].numpy()


# Formats


def test_cmyk_becomes_rgb_by_subtracting_inks(tmp_path: Path):
    """Cyan ink leaves green and blue, black ink leaves nothing."""
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 4))
    found = one(tmp_path, "ink.jpg", image, quality=100, subsampling=0).astype(int)
    assert np.abs(found[:, 6, 4] - [0, 255, 255]).max() <= 6
    assert found[:, 1, 4].max() <= 6
    assert survey(tmp_path).kinds["CMYK"] == (1, CONVERSIONS["CMYK"])


def test_of_a_moving_image_the_first_frame_counts(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    found = one(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (found == np.array([255, 0, 0])[:, None, None]).all()
    assert survey(tmp_path).kinds["several frames"] == (1, "the first one")


def test_the_orientation_of_a_jpeg(tmp_path: Path):
    """6 means that the first row of the file is the right side of the scene."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))
    found = one(tmp_path, "phone.jpg", image, "L", exif=exif, quality=100).astype(int)
    assert found[0, :, 4:].min() > 245 and found[0, :, :4].max() < 10
    assert survey(tmp_path).kinds["camera orientation"] == (1, "turned upright")


def test_every_kind_of_image_is_named_with_its_conversion(tmp_path: Path):
    assert set(MODES.values()) < set(CONVERSIONS)
    folder(tmp_path)
    cat = tmp_path / "cat"
    for mode in ("1", "L", "LA", "P", "RGBA"):
        Image.new(mode, (8, 8)).save(cat / f"mode {mode}.png")
    Image.new("P", (8, 8)).save(cat / "hole.png", transparency=0)
    Image.new("YCbCr", (8, 8)).save(cat / "y.tif")
    Image.new("LAB", (8, 8)).save(cat / "lab.tif")
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(cat / "16.png")
    found = survey(tmp_path)
    counts = {kind: count for kind, (count, _) in found.kinds.items()}
    assert counts == {
        "RGB": 12,
        "palette": 2,
        "black and white": 1,
        "grey": 1,
        "grey with transparency": 1,
        "RGBA": 1,
        "16-bit grey": 1,
        "YCbCr": 1,
        "other colours": 1,
        "transparent colour": 1,
    }
    assert found.unreadable.count == 0
    assert load(tmp_path).channels == 3


# Broken files


BROKEN = {
    "empty.jpg": b"",
    "words.png": b"this is no picture\n" * 9,
    "zeros.bmp": bytes(500),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_image_is_named(tmp_path: Path, name: str):
    file = folder(tmp_path) / "dog" / name
    file.write_bytes(BROKEN[name])
    refused(str(file), "no readable image", path=tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_jpeg_is_named(tmp_path: Path, share: float):
    file = folder(tmp_path, size=(64, 64)) / "dog" / "cut.jpg"
    picture(1, (64, 64)).save(file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(str(file), "truncated", path=tmp_path)


def test_a_moving_image_that_breaks_off_has_a_first_frame():
    """Pillow has many ways to say that a later frame is damaged; none of them may end the command."""
    file = io.BytesIO()
    picture(1, (24, 24)).save(file, "GIF", save_all=True, append_images=[picture(2, (24, 24))])
    whole = decode(file.getvalue(), "the whole")
    seen = set()
    for length in range(20, len(file.getvalue()), 7):
        with contextlib.suppress(UserError):
            part = decode(file.getvalue()[:length], "a part")
            assert np.array_equal(part.pixels, whole.pixels)
            seen.add(part.kinds)
    assert ("palette", "several frames") in seen


def test_what_may_not_be_read_is_named(tmp_path: Path):
    file = folder(tmp_path) / "dog" / "0.png"
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    refused(str(file), "Permission", path=tmp_path)
    file.chmod(0o600)
    inner = tmp_path / "dog" / "inner"
    inner.mkdir(mode=0)
    refused(str(inner), "cannot be read", path=tmp_path)
    inner.rmdir()
    (tmp_path / "dog").chmod(0)
    refused(str(tmp_path / "dog"), "cannot be read", path=tmp_path)
    (tmp_path / "dog").chmod(0o700)
    tmp_path.chmod(0)
    refused(str(tmp_path), "cannot be read", path=tmp_path)
    tmp_path.chmod(0o700)


def test_a_folder_that_the_system_does_not_list_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder(tmp_path)
    scan = os.scandir

    def denied(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused(str(tmp_path / "dog"), "cannot be read (Permission denied)", path=tmp_path)


def test_images_that_do_not_fit_the_memory(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr("gapless.data.images._decode", full)
    with pytest.raises(UserError, match=r"do not fit.*1 TiB.*`size`"):
        load("digits")


# Folders


def test_folders_inside_a_class_folder_belong_to_the_class(tmp_path: Path):
    folder(tmp_path)
    (tmp_path / "cat" / "tabby" / "young").mkdir(parents=True)
    picture(50).save(tmp_path / "cat" / "tabby" / "young" / "0.png")
    picture(51).save(tmp_path / "cat" / "tabby" / "x.PNG")
    data = load(tmp_path)
    assert data.classes == NAMES
    assert (data.train.labels.bincount() + data.test.labels.bincount()).tolist() == [6, 4, 4]


def test_a_folder_named_like_an_image_is_no_image(tmp_path: Path):
    folder(tmp_path)
    (tmp_path / "cat" / "best.png").mkdir()
    assert len(load(tmp_path).train) + len(load(tmp_path).test) == 12


@pytest.mark.parametrize("name", ["validation", "test", "train"])
def test_a_split_that_is_alone_is_the_whole_set(tmp_path: Path, name: str):
    folder(tmp_path / name, 5)
    data = load(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (NAMES, 12, 3)
    assert "no test split" in data.source


def test_splits_without_training_images(tmp_path: Path):
    for name in ("val", "test"):
        folder(tmp_path / name)
    refused("no train split among", "val", "test", path=tmp_path)


def test_two_images_of_each_class(tmp_path: Path):
    data = load(folder(tmp_path, 2))
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 2]


def test_a_hundred_to_one(tmp_path: Path):
    folder(tmp_path / "train", 200, ("cat",), size=(2, 2))
    folder(tmp_path / "train", 2, ("dog",), seed=900, size=(2, 2))
    data = load(tmp_path)
    assert data.train.labels.bincount().tolist() == [160, 1]
    assert data.test.labels.bincount().tolist() == [40, 1]
    assert survey(tmp_path).imbalance == 160


def test_links_are_followed(tmp_path: Path):
    folder(tmp_path / "store")
    (tmp_path / "set" / "dog").mkdir(parents=True)
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "store" / "cat")
    (tmp_path / "set" / "dog" / "more").symlink_to(tmp_path / "store" / "dog")
    (tmp_path / "set" / "dog" / "eel.png").symlink_to(tmp_path / "store" / "eel" / "0.png")
    data = load(tmp_path / "set")
    assert (data.train.labels.bincount() + data.test.labels.bincount()).tolist() == [4, 5]


@pytest.mark.parametrize("place", ["loop", "cat/loop", "cat/inner/loop"])
@pytest.mark.parametrize("target", [".", "cat"])
def test_links_in_a_circle_are_named(tmp_path: Path, place: str, target: str):
    folder(tmp_path)
    link = tmp_path / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / target)
    refused(f"The folder {link} leads to", "Remove the link", path=tmp_path)


def test_two_folders_that_hold_links_to_one_another(tmp_path: Path):
    folder(tmp_path)
    (tmp_path / "cat" / "to_dog").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "to_cat").symlink_to(tmp_path / "cat")
    refused("leads to", path=tmp_path)


@pytest.mark.parametrize("target", ["0.png", "nowhere.png"])
def test_links_to_no_file_are_named(tmp_path: Path, target: str):
    folder(tmp_path)
    link = tmp_path / "cat" / "a.png"
    link.symlink_to("a.png" if target == "0.png" else target)
    refused(str(link), "no readable image", path=tmp_path)


# Surveys


def test_a_survey_counts(tmp_path: Path):
    folder(tmp_path / "train", 4, size=(8, 6))
    folder(tmp_path / "test", 2, ("cat", "dog"), seed=500, mode="L")
    folder(tmp_path / "validation", 2, seed=700)
    picture(9, (20, 30)).save(tmp_path / "train" / "eel" / "large.jpg")
    for name in ("notes.txt", "list.csv", "cat/a.HEIC", "cat/b.heic", "cat/.hidden.txt"):
        (tmp_path / "train" / name).write_text("x")
    found = survey(tmp_path)
    assert (found.classes, found.train, found.test, found.test_split) == (NAMES, (4, 4, 5), (2, 2, 0), "test")
    assert found.absent == {"train": (), "test": ("eel",)}
    sizes = found.sizes
    assert (sizes.smallest, sizes.median, sizes.largest, sizes.distinct, sizes.square) == (
        (8, 6),
        (8, 6),
        (20, 30),
        3,
        False,
    )
    assert found.kinds == {"RGB": (13, "kept"), "grey": (4, "kept")}
    assert (found.channels, found.imbalance, found.few, found.unused) == (3, 1.25, (), ("validation",))
    assert found.ignored_kinds == {".heic": 2, ".txt": 1, ".csv": 1}
    assert found.ignored.count == 4 and str(tmp_path / "train" / "cat" / "a.HEIC") in found.ignored.first
    assert (found.problems, found.unreadable, found.leaked, found.repeated) == ((), Some(), Some(), Some())


def test_a_survey_goes_on_where_load_stops(tmp_path: Path):
    folder(tmp_path / "train", 30)
    folder(tmp_path / "test", 2, ("cat", "dgo", "eel"), seed=500)
    (tmp_path / "train" / "fox").mkdir()
    bad = sorted((tmp_path / "train" / "dog").iterdir())[:12]
    for file in bad:
        file.write_bytes(file.read_bytes()[:40])
    found = survey(tmp_path)
    assert found.unreadable.count == 12
    assert len(found.unreadable.first) == SHOWN
    assert all(str(file) in told for file, told in zip(bad, found.unreadable.first, strict=False))
    assert len(found.problems) == 2
    assert "dgo is no class" in found.problems[0] and "fox holds no images" in found.problems[1]
    assert found.train == (30, 30, 30, 0) and found.test == (2, 0, 2, 0)
    assert found.few == ("fox",)
    assert sum(count for count, _ in found.kinds.values()) == 94 - 12
    refused("dgo is no class", "1 more", "gapless check", path=tmp_path)


def test_duplicates_are_found_by_their_pixels(tmp_path: Path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", 2, seed=500)
    same = picture(1)  # train/cat/1.png
    same.save(tmp_path / "test" / "cat" / "same.bmp")
    same.save(tmp_path / "train" / "cat" / "again.bmp")
    same.save(tmp_path / "train" / "dog" / "other.bmp")
    found = survey(tmp_path)
    first = tmp_path / "train" / "cat" / "1.png"
    assert found.leaked == Some(1, (f"{tmp_path / 'test' / 'cat' / 'same.bmp'} equals {first}",))
    assert found.repeated.count == 2
    assert found.contradicting.first == (f"{tmp_path / 'train' / 'dog' / 'other.bmp'} (dog) equals {first} (cat)",)


def test_transposed_pixels_are_no_duplicates(tmp_path: Path):
    for k, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for i, size in enumerate(((4, 8), (8, 4), (2, 16))):
            Image.new("L", size, 40 * k).save(tmp_path / name / f"{i}.png")
    found = survey(tmp_path)
    assert (found.repeated.count, found.leaked.count, found.sizes.distinct) == (0, 0, 3)


def test_a_survey_of_the_digits_agrees_with_loading_them():
    found, data = survey("digits"), load("digits")
    assert list(found.train) == data.train.labels.bincount().tolist()
    assert list(found.test) == data.test.labels.bincount().tolist()
    assert (found.test_split, found.leaked.count, found.channels) == ("", 0, 1)
    assert found.kinds == {"grey": (1797, "kept")}


def test_a_survey_of_rows_without_labels_and_images(tmp_path: Path):
    rows = [picture(i).tobytes("jpeg", "RGB") for i in range(12)]
    images: list[bytes | None] = [*rows[:10], None, b"junk"]
    labels = ["cat", "dog", None] * 4
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    found = survey(tmp_path)
    assert (found.classes, found.train, found.test) == (("cat", "dog"), (4, 4), (0, 0))
    assert len(found.problems) == 4 and "row 2 of" in found.problems[0]
    assert found.unreadable.count == 2
    assert ["row 10" in found.unreadable.first[0], "row 11" in found.unreadable.first[1]] == [True, True]
    refused("row 2 of", "no label", "3 more", path=tmp_path)
