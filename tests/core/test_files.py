"""Files that a user names, and files that we write: nothing hangs, nothing is followed out of a folder."""

import os
import stat

import pytest

from gapless.core import files
from gapless.core.errors import UserError


def odd(folder):
    """Paths that are no file to read, and what is said of each."""
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to(folder / "nowhere")
    return {
        folder / "pipe": "a pipe or a device",
        "/dev/zero": "a pipe or a device",
        folder / "circle": "its links lead in a circle",
        folder / "folder": "it is a folder",
        folder / "dangling": "there is no such file",
        folder / ("a" * 256): "the name is too long",
        "/" + "long/" * 1000: "the name is too long",
        folder / "pipe" / "below": "a part of the path is no folder",
        "a\0b": "it holds a zero byte",
        "~nobody-of-that-name/x": "there is no such user",
    }


def test_what_is_no_file_is_a_sentence(tmp_path):
    for path, told in odd(tmp_path).items():
        with pytest.raises(UserError, match=told):
            files.read_bytes(path)
        assert not files.is_file(tmp_path / path)


def test_what_is_no_text_or_too_large(tmp_path):
    (tmp_path / "x").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"no text in UTF-8: byte 2"):
        files.read_text(tmp_path / "x")
    with pytest.raises(UserError, match="at most 0 MB are read"):
        files.read_text(tmp_path / "x", most=2)
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa")
    assert files.read_text(tmp_path / "bom") == "a"


def test_a_path_is_shown_without_what_moves_the_cursor():
    assert files.shown("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
    assert files.shown(os.fsdecode(b"a\xff")) == "a\\xff"


def test_a_file_is_written_as_a_whole_and_never_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "x").symlink_to(outside)
    files.write(folder / "x", b"new")
    assert (folder / "x").read_bytes() == b"new" and not (folder / "x").is_symlink()
    assert outside.read_text() == "mine"
    assert [p.name for p in folder.iterdir()] == ["x"]
    assert stat.S_IMODE((folder / "x").stat().st_mode) == stat.S_IMODE(outside.stat().st_mode)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        files.write(tmp_path / "x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("outside", path)])
def test_nothing_is_added_to_what_is_no_file(tmp_path, make):
    (tmp_path / "outside").write_text("mine")
    make(tmp_path / "log")
    with pytest.raises(OSError):
        files.append(tmp_path / "log", b"line")
    assert (tmp_path / "outside").read_text() == "mine"


def test_another_name_of_a_file_keeps_its_content(tmp_path):
    (tmp_path / "outside").write_text("a")
    os.link(tmp_path / "outside", tmp_path / "log")
    files.append(tmp_path / "log", b"b")
    files.append(tmp_path / "log", b"c")
    assert (tmp_path / "log").read_text() == "abc" and (tmp_path / "outside").read_text() == "a"


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    files.remove(tmp_path / "link")
    files.remove(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["outside"] and (tmp_path / "outside" / "mine").exists()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="link"):
        files.folder(tmp_path / "link")
