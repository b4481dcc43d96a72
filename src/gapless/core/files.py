"""How files are read that a user names, and how our own are written.

What is read may come from a stranger: only regular files are opened, up to a size, and whatever is
wrong with a path is one sentence. What is written replaces a file as a whole and is never written
through a link, for a folder may come from a stranger, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gapless.core.errors import UserError
from gapless.core.text import shown

TEXT = 64 * 2**20
"""The largest text file that is read: traces of long searches have some megabytes."""
DRAFT = ".tmp"
"""Suffix of the temporary files of :func:`write`, whose names begin with a full stop."""
REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EACCES: "you may not read it",
    errno.EPERM: "you may not read it",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "it is a folder",
}


def place(given: str | Path) -> Path:
    """Return the path that a user means, with ``~`` expanded.

    Raises
    ------
    UserError
        Where it can be no path: it holds a zero byte, or names a user who does not exist.
    """
    text = os.fspath(given)
    if "\0" in text:
        raise UserError(f"{shown(text)} is no path: it holds a zero byte.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{shown(text)} is no path: there is no such user. Give the whole path.") from None


def whole(given: str | Path) -> Path:
    """Return the full path of what a user names, links followed; links that lead in a circle stay as they are."""
    return Path(os.path.realpath(place(given)))


def is_file(path: Path) -> bool:
    """Return whether a regular file is there; a path that cannot be looked at leads nowhere."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; a path that cannot be looked at leads nowhere."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


# ---------------------------------------------------------------------- reading


@contextlib.contextmanager
def opened(given: str | Path, what: str = "The file", *, most: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Parameters
    ----------
    given
        The path, as the user named it.
    what
        What it should hold, as the beginning of a sentence: "The recipe".
    most
        The largest size in bytes; None: any.

    Raises
    ------
    UserError
        Where it cannot be read, is no regular file (a folder, pipe or device), or is too large.
    """
    path = place(given)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise unreadable(path, what, error) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device, not a file"
        raise UserError(f"{what} {shown(path)} cannot be read: it is {kind}.")
    with open(handle, "rb") as file:
        if most is not None and status.st_size > most:
            raise UserError(
                f"{what} {shown(path)} has {status.st_size / 2**20:,.0f} MB; at most {most / 2**20:,.0f} MB are read."
            )
        yield file


def unreadable(path: str | Path, what: str, error: OSError | ValueError) -> UserError:
    """Return the error for a path that could not be opened."""
    number = getattr(error, "errno", None)
    reason = REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)
    return UserError(f"{what} {shown(path)} cannot be read: {reason}.")


def read_bytes(given: str | Path, what: str = "The file", *, most: int = TEXT) -> bytes:
    """Return the content of a regular file (see :func:`opened`)."""
    with opened(given, what, most=most) as file:
        try:
            return file.read()
        except OSError as error:
            raise unreadable(given, what, error) from None


def read_text(given: str | Path, what: str = "The file", *, most: int = TEXT) -> str:
    """Return the text of a regular file in UTF-8 (see :func:`opened`).

    Raises
    ------
    UserError
        Where it is no text, too.
    """
    try:
        return read_bytes(given, what, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {shown(given)} is no text in UTF-8: byte {error.start} fits no character.") from None


def checked(given: str | Path, what: str = "The file") -> Path:
    """Return the path of a regular file that another library will open by its name."""
    with opened(given, what):
        return place(given)


# ---------------------------------------------------------------------- writing


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file as a whole: under a new name beside it, synced, renamed.

    A link of that name is replaced, not followed. Whatever goes wrong, the file before is untouched and nothing of the
    new one is left.

    Parameters
    ----------
    path
        The file. Its folder must exist.
    content
        What it shall hold.

    Raises
    ------
    OSError
        Where the system refuses.
    """
    draft = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}{DRAFT}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(draft, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    _sync(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a regular file, which is made where there is none, and wait until it is on the disk.

    Raises
    ------
    OSError
        Where the system refuses, or a link, a folder, a pipe or a device is in the place of the file.
    """
    with os.fdopen(opened_to_append(path), "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def opened_to_append(path: Path) -> int:
    """Return the handle of a regular file to which is added; see :func:`append`."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o666)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_nlink > 1:  # another name, perhaps outside of the folder, has the same content
        os.close(handle)
        write(path, path.read_bytes())
        return opened_to_append(path)
    return handle


def folder(path: Path) -> None:
    """Make a folder where there is none.

    Raises
    ------
    OSError
        Where the system refuses, or a link or a file is in its place.
    """
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link is in the place of the folder")


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content; what links lead to stays.

    Raises
    ------
    OSError
        Where the system refuses.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def drafts(path: Path) -> list[Path]:
    """Return what processes that were killed while they wrote have left in a folder."""
    return sorted(p for p in path.glob(f".*{DRAFT}") if p.name.startswith("."))


def _sync(path: Path) -> None:
    """Make a rename last through a crash of the machine, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
