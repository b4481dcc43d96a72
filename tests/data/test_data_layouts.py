"""Sets of images as people have them: layouts, splits, and how images are stored."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gapless.core.errors import UserError
from gapless.data import load
from gapless.data.images import fit


def picture(path, seed=0, mode="RGB", size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels.squeeze() if len(mode) == 1 else pixels).save(path)


def classes(root, count=6):
    for name in ("cat", "dog"):
        for i in range(count):
            picture(root / name / f"{i}.png", seed=i + 100 * len(name) + ord(name[0]))


def table(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in range(len(labels))]
    encoded = []
    for i, image in enumerate(pixels):
        place = path.parent / f"tmp{i}.png"
        Image.fromarray(image).save(place)
        encoded.append({"bytes": place.read_bytes(), "path": None})
        place.unlink()
    pq.write_table(pa.table({"image": encoded, "label": labels}), path)


def test_splits_without_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        for i in range(3):
            picture(tmp_path / split / f"{i}.png", seed=i)
    with pytest.raises(UserError, match="no class folders.*train/cat/1.png"):
        load(tmp_path)


def test_a_flat_split_for_testing_is_said_to_be_unused(tmp_path):
    classes(tmp_path / "train")
    picture(tmp_path / "val" / "1.png")
    data = load(tmp_path)
    assert "images of val lie in no class folders and are not used" in data.source
    assert "a stratified fifth of the images serves" in data.source
    assert len(data.test) == 3 and data.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("stripes_train.parquet", "stripes_test.parquet"),
        ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("plain_text/train-00000.parquet", "plain_text/test-00000.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("photos.train.parquet", "photos.validation.parquet"),
    ],
)
def test_splits_are_found_in_names(tmp_path, train, test):
    table(tmp_path / train, [0, 1] * 5)
    table(tmp_path / test, [0, 1] * 2)
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (10, 4)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a_train.parquet", "b.parquet"), "names no split"),
        (("train_test.parquet", "test.parquet"), "names two splits"),
        (("one/train.parquet", "two/train.parquet"), "several sets"),
    ],
)
def test_names_that_may_mix_splits_are_refused(tmp_path, names, said):
    for name in names:
        table(tmp_path / name, [0, 1] * 3)
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_a_test_split_without_labels_is_not_used(tmp_path):
    table(tmp_path / "train.parquet", [0, 1] * 5)
    table(tmp_path / "test.parquet", [-1] * 4)
    data = load(tmp_path)
    assert "have no labels and are not used" in data.source
    assert len(data.test) == 2


def test_the_split_for_testing_can_be_chosen(tmp_path):
    for split, count in (("train", 10), ("val", 4), ("test", 2)):
        classes(tmp_path / split, count)
    assert len(load(tmp_path).test) == 4
    assert len(load(tmp_path, test_split="val").test) == 8
    assert len(load(tmp_path, test_split="none").test) == 4
    with pytest.raises(UserError, match="`test_split` must be one of test, val, none; got 'vla'"):
        load(tmp_path, test_split="vla")
    with pytest.raises(UserError, match="has no splits"):
        load(tmp_path / "train", test_split="val")


def test_sixteen_bits_that_hold_eight(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8)).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = load(tmp_path)
    assert data.train.pixels.max() > 200
    pixels = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "cat" / "0.png")
    values = {int(v) for image in load(tmp_path).train.pixels for v in image.unique()}
    values |= {int(v) for image in load(tmp_path).test.pixels for v in image.unique()}
    assert {1000 * i >> 8 for i in range(64)} <= values, "an image with more than 8 bits keeps its upper ones"


def test_black_drawings_on_transparency_are_seen(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
            image.putpixel((i, 2), (0, 0, 0, 255))
            image.save(tmp_path / name / f"{i}.png")
    data = load(tmp_path)
    assert data.train.pixels.min() == 0 and data.train.pixels.max() == 255


def test_images_without_content_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (7, 7, 7)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(UserError, match="same value once decoded"):
        load(tmp_path)


def test_images_that_do_not_fit_a_container_are_refused_before_they_are_read(tmp_path, monkeypatch):
    from gapless.data import images

    classes(tmp_path)
    monkeypatch.setattr(images, "free_memory", lambda: 500)
    with pytest.raises(UserError, match="of memory are free. Try a smaller `size`"):
        load(tmp_path, size=8)


def test_the_memory_of_a_control_group_counts(tmp_path, monkeypatch):
    from gapless.core import machine

    group = tmp_path / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("700000000\n")
    (group / "memory.current").write_text("300000000\n")
    texts = {"/proc/self/cgroup": "0::/box\n", "/proc/meminfo": "MemAvailable: 9000000 kB\n"}
    real = machine._text
    monkeypatch.setattr(
        machine, "_text",
        lambda path: texts[str(path)] if str(path) in texts else real(tmp_path / str(path).lstrip("/")),
    )  # fmt: skip
    assert machine.memory() == 700_000_000
    assert machine.free_memory() == 400_000_000


@pytest.mark.parametrize(
    "labels",
    [
        [0.0, 1.0, 2.0] * 4,
        [[0], [1], [2]] * 4,
        [["a"], ["b"], ["c"]] * 4,
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]] * 4,
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] * 4,
    ],
    ids=str,
)
def test_labels_in_other_clothes(tmp_path, labels):
    table(tmp_path / "train.parquet", labels)
    table(tmp_path / "test.parquet", labels[:6])
    data = load(tmp_path)
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    assert data.classes == (("a", "b", "c") if labels[0] == ["a"] else ("0", "1", "2"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 0.5] * 4, "'label' cannot be the label: row 1 of .* has 0.5, a quantity"),
        ([[0], [1, 2]] * 4, "'label' cannot be the label: row 1 of .* has 2 labels"),
        ([[0, 1, 1], [0, 1, 0]] * 4, "'label' cannot be the label: row 0 of .* has 3 labels"),
        ([[], [1]] * 4, "'label' cannot be the label: row 0 of .* has 0 labels"),
        ([0.0, float("nan")] * 4, "row 1 of .* has no label"),
        ([[0, None], [1, 0]] * 4, "row 0 of .* has 2 labels"),
        ([[[0]], [[1]]] * 4, "row 0 of .* holds neither a number nor a text"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes(tmp_path, labels, said):
    table(tmp_path / "train.parquet", labels)
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_a_column_of_whole_numbers_goes_before_one_of_fractions(tmp_path):
    table(tmp_path / "train.parquet", [0, 1] * 5)
    rows = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(rows.append_column("target", pa.array([0.5] * 10)), tmp_path / "train.parquet")
    assert load(tmp_path).classes == ("0", "1")


def test_arrays_of_numpy_are_told_what_to_become(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "a" / name).mkdir(parents=True)
        np.save(tmp_path / "a" / name / "1.npy", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"cat holds no images. It holds 1 other files, such as .*1\.npy.*fromarray"):
        load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "x_train.npy", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"b holds no set of images.*fromarray"):
        load(tmp_path / "b")


def test_a_folder_of_everything_is_left_soon(tmp_path, monkeypatch):
    monkeypatch.setattr("gapless.data.huggingface.OTHERS", 20)
    classes(tmp_path, 6)
    for i in range(130):
        (tmp_path / "cat" / f"{i}.txt").touch()
    with pytest.raises(UserError, match="is no set of images: among its first 136 files 6 are images"):
        load(tmp_path)
    for i in range(100, 130):
        (tmp_path / "cat" / f"{i}.txt").unlink()
        picture(tmp_path / "cat" / f"{i}.png", seed=i)
    assert len(load(tmp_path).classes) == 2


@pytest.mark.parametrize(
    ("splits", "asked", "said"),
    [
        (("train", "test"), None, "the test split"),
        (("train", "val"), None, "the val split"),
        (("train", "val", "test"), "val", "the val split"),
        (("train", "test"), "none", "a stratified fifth of the training images"),
        ((), None, "a stratified fifth of the training images"),
        (
            ("train", "flat"),
            None,
            "a stratified fifth of the training images (the images of val lie in no class folders and are not used)",
        ),
    ],
)
def test_what_accuracies_are_of_is_said(tmp_path, splits, asked, said):
    for split in splits or ("",):
        if split == "flat":
            picture(tmp_path / "val" / "1.png")
        else:
            classes(tmp_path / split)
    assert load(tmp_path, test_split=asked).tested == said


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(7, 9, 4), (32, 32, 16), (5, 5, 9), (100, 37, 32), (13, 200, 32), (1, 50, 8), (40, 40, 39), (130, 210, 50)],
)
def test_images_are_resized_by_the_exact_mean_of_areas(height, width, size):
    """Against the definition: every old pixel repeated, every new one the mean of its block."""
    image = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    short = min(height, width)
    rows, columns = ((2 * old * size + short) // (2 * short) for old in (height, width))

    def mean(x, new):  # along the last axis: in units of which both an old and a new pixel are whole numbers
        fine = x.repeat(new, axis=-1).reshape(*x.shape[:-1], new, x.shape[-1]).sum(-1)
        return fine[..., (new - size) // 2 :][..., :size]

    sums = mean(mean(image.astype(np.int64), columns).swapaxes(1, 2), rows).swapaxes(1, 2)
    assert np.array_equal(fit(image, size), (sums / (height * width)).round())
