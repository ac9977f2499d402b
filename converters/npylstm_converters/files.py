"""File functions that importers share."""

from __future__ import annotations

import hashlib
import os
import zipfile

__all__ = ["sha256_of", "zip_names"]


_HEADER, _LONGEST_NAME = 30, 256  # bytes of a zip member's fixed header; its name follows


def sha256_of(*paths: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file in hexadecimal.

    Of several files it is the sha256 of the text that ``sha256sum`` prints for them, sorted by
    name, in their common folder.
    """
    if len(paths) > 1:
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
        names = sorted(os.path.relpath(os.path.abspath(p), folder) for p in paths)
        lines = [f"{sha256_of(os.path.join(folder, n))}  {n.replace(os.sep, '/')}" for n in names]
        return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    digest = hashlib.sha256()
    with open(paths[0], "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def zip_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a zip file's members; only the first if the directory is damaged.

    Raises
    ------
    FormatError
        If the central directory is too long.
    """
    from npylstm.io.npz import check_zip_bomb

    with open(path, "rb") as stream:
        check_zip_bomb(stream)
        try:
            return zipfile.ZipFile(stream).namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
            stream.seek(0)
            header = stream.read(_HEADER + _LONGEST_NAME)
            length = int.from_bytes(header[26:28], "little")
            return [header[_HEADER : _HEADER + length].decode("utf-8", "replace")]
