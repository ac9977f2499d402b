"""Checks saved programs before torch opens them, because torch unpickles their contents."""

from __future__ import annotations

import io
import json
import os
import zipfile

from npylstm import FormatError, UnsupportedError
from npylstm.io.npz import check_zip_bomb
from npylstm_converters.torch.mapping import MAX_HEADER, MAX_PICKLE, damage_named, mapped, span
from npylstm_converters.torch.unpickler import Unpickler

__all__ = ["refuse_code_in_program"]


def refuse_code_in_program(path: str | os.PathLike[str]) -> None:
    """Raise UnsupportedError if a saved program's pickles name code: loading would run it.

    Parameters
    ----------
    path
        A ``.pt2``.

    Raises
    ------
    UnsupportedError
        Lists every name that is not allowed.
    FormatError
        If it is damaged.
    """
    with damage_named(path), zipfile.ZipFile(path) as archive:
        data = mapped(path)
        for info in archive.infolist():
            start, end = span(data, info)
            _refuse_foreign(info.filename)
            if info.filename.endswith((".pt", ".pth", ".pkl", ".pickle")):
                _refuse_code(data[start:end], info.filename)
            elif info.filename.endswith(".json") and "/data/" in f"/{info.filename}":
                _refuse_pickles(data[start:end], info.filename)


def _refuse_foreign(name: str) -> None:
    """Raise UnsupportedError for members whose contents torch would run."""
    last = name.rpartition("/")[2]
    if last.startswith(("custom_obj", "opaque_obj")) or "aotinductor" in name:
        raise UnsupportedError([f"{name}: holds an object or machine code, not tensors"])


def _refuse_pickles(content: bytes, name: str) -> None:
    """Raise UnsupportedError if a list of weights declares a pickle or an object."""
    if len(content) > MAX_HEADER:
        raise FormatError(f"{name}: has {len(content)} bytes")
    try:
        entries = json.loads(content).get("config", {}).items()
        for key, entry in entries:
            _refuse_foreign(str(entry["path_name"]))
            if entry["use_pickle"]:
                raise UnsupportedError([f"{name}: {key} is a pickle; save it as a plain tensor"])
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise FormatError(f"{name}: expected a list of tensors: {error}") from None


def _refuse_code(content: bytes, name: str) -> None:
    """Check one member that torch would unpickle: a zip inside the zip, from torch.save."""
    if len(content) > MAX_PICKLE or not content.startswith(b"PK\x03\x04"):
        raise FormatError(f"{name}: expected what torch.save writes")
    stream = io.BytesIO(content)
    check_zip_bomb(stream)
    with zipfile.ZipFile(stream) as inner:
        for info in inner.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                raise FormatError(f"{name}: {info.filename}: is compressed, or damaged")
            if info.filename.endswith(".pkl"):
                Unpickler(inner.read(info)).load_plain()
