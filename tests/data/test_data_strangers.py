"""Images from a stranger: nothing is started, and nothing outside of the folder is read."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image

from gapless.core.errors import UserError
from gapless.data import load

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def folder_of(path, *extra):
    for number in range(8):
        place = path / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 30 * number).save(place / f"{number}.png")
    for name, content in extra:
        (path / name).write_bytes(content)
    return path


def test_an_image_starts_no_program(tmp_path, monkeypatch):
    def started(*given, **named):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    with pytest.raises(UserError, match="none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"):
        load(folder_of(tmp_path / "photos", ("a/x.png", EPS)))


def test_a_pipe_among_the_images_is_a_sentence(tmp_path):
    path = folder_of(tmp_path / "photos")
    os.mkfifo(path / "a" / "x.png")
    with pytest.raises(UserError, match="a pipe or a device"):
        load(path)


@pytest.mark.parametrize(
    "named", ["../secret.png", "inside/../../secret.png", "{}/secret.png", "link/secret.png", "a\0b"]
)
def test_a_row_names_no_image_outside_of_its_folder(tmp_path, named):
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    path = tmp_path / "table"
    (path / "inside").mkdir(parents=True)
    (path / "link").symlink_to(tmp_path)
    Image.new("L", (8, 8), 9).save(path / "inside" / "fine.png")
    names = ["inside/fine.png"] * 7 + [named.format(tmp_path)]
    rows = {"image": [{"bytes": None, "path": name} for name in names], "label": [0, 1] * 4}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(rows["image"], kind), "label": rows["label"]}), path / "train.parquet")
    with pytest.raises(UserError, match="not in the folder of the table"):
        load(path)
