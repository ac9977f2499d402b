"""Which files a source is: a SavedModel folder, or a checkpoint by its prefix."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm_converters.tensorflow.table import MAGIC

__all__ = ["SourceFiles", "find_files"]

_MODEL, _METADATA, _LATEST = "saved_model.pb", "keras_metadata.pb", "checkpoint"
_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}$")
_SUFFIX = re.compile(rf"\.index$|\.meta$|{_DATA.pattern}")
_LONGEST = 1 << 16  # of the text file `checkpoint`


@dataclass(frozen=True)
class SourceFiles:
    """The prefix of the checkpoint, and the folder of the SavedModel that it belongs to."""

    prefix: str
    folder: str | None = None

    @property
    def main(self) -> str:
        """The file that identifies the source."""
        if self.folder is not None:
            return os.path.join(self.folder, _MODEL)
        return f"{self.prefix}.index"


def find_files(source: Any) -> SourceFiles | None:
    """Return the files of a source, or None if it is nothing of TensorFlow.

    Parameters
    ----------
    source
        A SavedModel folder or its ``saved_model.pb``; a folder with a checkpoint; or a
        checkpoint's prefix, one of its files, or the text file ``checkpoint``.

    Raises
    ------
    FormatError
        If a folder holds several checkpoints and does not say which is the latest.
    UnsupportedError
        If it is a SavedModel in text form.
    """
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(os.fspath(source))
    if path.is_dir():
        return _in_folder(path)
    if path.name in (_MODEL, _METADATA) and (path.parent / _MODEL).is_file():
        return _in_folder(path.parent)
    if path.name == _LATEST and path.is_file():
        return _latest(path)
    for prefix in (str(path), _SUFFIX.sub("", str(path))):
        if _is_index(f"{prefix}.index"):
            return SourceFiles(prefix)
    return None


def _in_folder(folder: Path) -> SourceFiles | None:
    if (folder / _MODEL).is_file():
        return SourceFiles(str(folder / "variables" / "variables"), str(folder))
    if (folder / "saved_model.pbtxt").is_file():
        raise UnsupportedError(
            f"{folder}: a SavedModel as text is not supported: save it as binary"
        )
    if (folder / _LATEST).is_file():
        return _latest(folder / _LATEST)
    found = sorted(str(p) for p in folder.glob("*.index") if _is_index(str(p)))
    if len(found) > 1:
        listed = ", ".join(os.path.basename(p.removesuffix(".index")) for p in found)
        raise FormatError(
            f"{folder}: holds several checkpoints: give the path of one of {listed:.500}"
        )
    return SourceFiles(found[0].removesuffix(".index")) if found else None


def _latest(path: Path) -> SourceFiles | None:
    """Return the checkpoint that the text file ``checkpoint`` names, in the same folder."""
    with open(path, "rb") as stream:
        text = stream.read(_LONGEST).decode("utf-8", "replace")
    match = re.search(r'^model_checkpoint_path: "((?:[^"\\]|\\.)*)"', text, re.MULTILINE)
    if match is None:
        return None
    name = re.split(r"[/\\]", match[1])[-1]
    prefix = str(path.parent / name)
    if not name or not _is_index(f"{prefix}.index"):
        raise FormatError(f"{path}: names {name!r:.80}, and there is no such checkpoint beside it")
    return SourceFiles(prefix)


def _is_index(path: str) -> bool:
    """Whether a file ends as a table of LevelDB, or claims to be a checkpoint and is damaged."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - len(MAGIC)))
        whole = stream.read() == MAGIC
    beside = re.escape(os.path.basename(path).removesuffix(".index")) + _DATA.pattern
    return whole or any(re.match(beside, p) for p in os.listdir(os.path.dirname(path) or "."))
