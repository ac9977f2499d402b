"""Recognise files that are there in place of a model: pointers, web pages, partial downloads."""

from __future__ import annotations

import os
import re
import zipfile
from typing import IO

from npylstm.errors import FormatError

__all__ = ["check_content", "check_no_pointer", "check_unpacked", "reason_against"]

_POINTERS = (
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
)
_ANNEX = re.compile(rb"(\.\./)*(\.git)?/annex/objects/")
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard",
}  # fmt: skip


def check_content(path: str | os.PathLike[str]) -> None:
    """Check that a file is not one that is often there in place of a model.

    Parameters
    ----------
    path
        A file.

    Raises
    ------
    FormatError
        If it is a pointer of Git LFS or git-annex, a web page, or the first part of a zip or HDF5
        file.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> check_content("models/sine_keras/sine.keras")
    """
    with open(path, "rb") as stream:
        reason = reason_against(stream)
    if reason:
        raise FormatError(f"{os.fspath(path)}: {reason}")


def reason_against(stream: IO[bytes]) -> str:
    """Return why a file is none that :func:`check_content` accepts; empty if it is one."""
    stream.seek(0)
    head = stream.read(512)
    return _pointer(head) or _page(head) or _incomplete(stream, head)


def check_no_pointer(path: str | os.PathLike[str]) -> None:
    """Check that a file is no pointer of Git LFS or git-annex; raises FormatError, OSError."""
    with open(path, "rb") as stream:
        reason = _pointer(stream.read(512))
    if reason:
        raise FormatError(f"{os.fspath(path)}: {reason}")


def check_unpacked(path: str | os.PathLike[str]) -> None:
    """Check that a file is not compressed; raises FormatError, OSError."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    kind = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")
    if kind:
        raise FormatError(f"{os.fspath(path)}: is compressed with {kind}: unpack it first")


def _pointer(head: bytes) -> str:
    if head.startswith(_POINTERS):
        size = re.search(rb"\nsize (\d{1,20})", head)
        which = f", a file of {int(size[1]):,} bytes" if size else ""
        return (
            f"is a Git LFS pointer, not the file itself{which}: run `git lfs pull` in its "
            "repository, or download the file from its web page"
        )
    if _ANNEX.match(head):
        return "is a git-annex pointer, not the file itself: run `git annex get` in its repository"
    return ""


def _page(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.lower().startswith((b"<!doctype html", b"<html", b"<head")):
        return ""
    title = re.search(rb"<title>\s*([^<]{1,60})", text, re.IGNORECASE)
    named = f" titled {title[1].decode('utf-8', 'replace').strip()!r}" if title else ""
    return (
        f"is an HTML page{named}, not a model: the download returned a web page; log in if the "
        "page asks for it, and use the link to the raw file (GitHub: raw; Hugging Face: resolve in "
        "place of blob)"
    )


def _incomplete(stream: IO[bytes], head: bytes) -> str:
    """Return what a zip or HDF5 file lacks at its end."""
    size = stream.seek(0, os.SEEK_END)
    missing = ""
    if head.startswith(_ZIP) and not zipfile.is_zipfile(stream):
        missing = f"a zip file of {size:,} bytes without its end"
    if head.startswith(_HDF5) and len(head) > 44:
        # The superblock states the size of the file: at byte 40, 44 or 28 by its version.
        place = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8])
        width = head[13] if head[8] < 2 else head[9]
        stated = int.from_bytes(head[place : place + 8], "little") if place and width == 8 else 0
        if size < stated < 1 << 62:
            missing = f"an HDF5 file of {stated:,} bytes, of which {size:,} are here"
    return f"is incomplete: {missing}; download or copy it again" if missing else ""
