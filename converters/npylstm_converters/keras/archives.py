"""The members of a ``.keras`` archive: a zip, or the folder that it was unzipped to."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from npylstm import FormatError
from npylstm.io.npz import check_zip_bomb
from npylstm_converters.files import zip_names

__all__ = [
    "CONFIG", "WEIGHTS", "Archive", "as_plain_zip", "is_archive_folder", "open_archive",
    "read_member",
]  # fmt: skip

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError,
           NotImplementedError, OverflowError, OSError, MemoryError)  # fmt: skip


class Archive(Protocol):
    """Members by name, with slashes on all systems."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all members."""
        ...

    def size(self, name: str) -> int:
        """Return the size of a member in bytes."""
        ...

    def copy(self, name: str, target: IO[bytes]) -> None:
        """Write a member to a stream.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        ...


def read_member(archive: Archive, name: str) -> bytes:
    """Return the bytes of a member."""
    data = io.BytesIO()
    archive.copy(name, data)
    return data.getvalue()


def is_archive_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has the members of a ``.keras`` file."""
    return all(os.path.isfile(os.path.join(path, name)) for name in (CONFIG, WEIGHTS))


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a ``.keras`` file, or the folder that it was unzipped to.

    A zip may hold everything in one folder, as file managers write it.

    Raises
    ------
    FormatError
        If it is damaged or lacks the config or the weights.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    with open(path, "rb") as stream:
        yield _Zip(path, stream)


@contextlib.contextmanager
def as_plain_zip(path: Path) -> Iterator[Path]:
    """Yield the path of a ``.keras`` file as Keras writes it; other files as they are."""
    is_zip = path.is_file() and zipfile.is_zipfile(path)
    if not path.is_dir() and not (is_zip and CONFIG not in zip_names(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, open_archive(path) as archive:
        plain = Path(folder) / "model.keras"
        with zipfile.ZipFile(plain, "w") as target:
            for name in archive.names:
                with target.open(name, "w", force_zip64=True) as stream:
                    archive.copy(name, stream)
        yield plain


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()}

    @property
    def names(self) -> Sequence[str]:
        return [*self._files]

    def size(self, name: str) -> int:
        return self._files[name].stat().st_size

    def copy(self, name: str, target: IO[bytes]) -> None:
        with self._files[name].open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)


class _Zip:
    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        try:
            check_zip_bomb(stream)
            self._zip = zipfile.ZipFile(stream)
            infos = self._zip.infolist()
            check_zip_bomb(stream, sum(info.file_size for info in infos))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        except _DAMAGE as error:
            raise FormatError(f"{path}: damaged zip: {error}") from None
        members = {info.filename.replace("\\", "/"): info for info in infos}
        if len(members) != len(infos):
            raise FormatError(f"{path}: a name is in the zip twice")
        folder = self._folder(members)
        self._members = {
            name.removeprefix(folder): info
            for name, info in members.items()
            if name.startswith(folder) and not info.is_dir()
        }
        if WEIGHTS not in self._members:
            listed = ", ".join(sorted(self._members)[:20])
            raise FormatError(f"{path}: no {WEIGHTS} in it; found {listed}")

    def _folder(self, names: Sequence[str] | dict[str, zipfile.ZipInfo]) -> str:
        """Return the folder that holds the config, with its slash; empty at the top."""
        # macOS adds __MACOSX/ with a file of attributes for each file.
        own = [n for n in names if n.split("/")[-1] == CONFIG and not n.startswith("__MACOSX/")]
        folders = [name.removesuffix(CONFIG) for name in own]
        if not folders:
            raise FormatError(f"{self._path}: a zip without {CONFIG}, so not a .keras file")
        whole = [folder for folder in folders if f"{folder}{WEIGHTS}" in names]
        if "" not in folders and len(whole) > 1:
            raise FormatError(
                f"{self._path}: holds several models, in the folders {', '.join(sorted(whole))}; "
                "unzip it and convert one of them"
            )
        return "" if "" in folders else [*whole, *folders][0]

    @property
    def names(self) -> Sequence[str]:
        return [*self._members]

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def copy(self, name: str, target: IO[bytes]) -> None:
        """Unpack in pieces and verify the checksum; stop if the size is not the stated one."""
        info, label = self._members[name], f"{self._path}: {name}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"{label}: expected a stored or deflated member")
        try:
            with self._zip.open(info) as source:
                shutil.copyfileobj(source, target, 1 << 20)
        except _DAMAGE as error:
            raise FormatError(f"{label}: damaged: {error}") from None
