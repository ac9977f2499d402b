"""Readers of PyTorch's containers: the pickled object, and its storages."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from npylstm import FormatError, UnsupportedError
from npylstm.io.npz import check_zip_bomb
from npylstm_converters.torch.legacy import load_legacy
from npylstm_converters.torch.mapping import MAX_PICKLE, mapped, span
from npylstm_converters.torch.pickle_values import Global, Storage
from npylstm_converters.torch.storages import Storages
from npylstm_converters.torch.unpickler import Unpickler

__all__ = ["Contents", "read_legacy", "read_pickle", "read_zip"]


@dataclass(frozen=True)
class Contents:
    """The contents of a file: its object, not executed, and the storages of its tensors.

    Attributes
    ----------
    value
        The object; what is foreign is an :class:`~npylstm_converters.torch.pickle_values.Opaque`.
    storages
        The storages.
    foreign
        Names in the pickle that are not known here, at most fifty.
    sources
        Source texts of classes by name, which torch before 1.6 wrote.
    """

    value: Any
    storages: Storages
    foreign: tuple[Global, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


def read_zip(path: str | os.PathLike[str]) -> Contents:
    """Return the contents of a zip of ``torch.save``."""
    with open(path, "rb") as stream:
        check_zip_bomb(stream)
        archive = zipfile.ZipFile(stream)
        infos = {info.filename: info for info in archive.infolist()}
        if len(infos) < len(archive.infolist()):
            raise FormatError("a member is in the file twice")
    data = mapped(path)
    spans = {name: span(data, info) for name, info in infos.items()}
    if sum(end - start for start, end in spans.values()) > len(data):
        raise FormatError("its members lie in one another")
    checksums = {name: info.CRC for name, info in infos.items()}

    def member(name: str) -> memoryview:
        start, end = spans[name]
        if end - start > MAX_PICKLE:
            raise FormatError(f"{name}: has {end - start} bytes")
        content = memoryview(data)[start:end]
        if zlib.crc32(content) != checksums[name]:
            raise FormatError(f"{name}: damaged: its checksum is another")
        return content

    pickles = [n for n in infos if n.endswith("data.pkl") and n.count("/") <= 1]
    if len(pickles) != 1:
        raise FormatError(f"expected one member named data.pkl, got {len(pickles)}")
    prefix = pickles[0].removesuffix("data.pkl")
    order = "<"
    if f"{prefix}byteorder" in infos:
        written = bytes(member(f"{prefix}byteorder")[:40]).strip()
        if written not in (b"little", b"big"):
            raise FormatError(f"byteorder: expected little or big, got {written!r:.40}")
        order = ">" if written == b"big" else "<"
    machine = Unpickler(member(pickles[0]))
    value = machine.load()
    folder = f"{prefix}data/"
    keys = {n.removeprefix(folder): n for n in infos if n.startswith(folder) and n != folder}
    storages = Storages(
        data, {k: spans[n] for k, n in keys.items()}, "data/", order,
        {k: checksums[n] for k, n in keys.items()},
    )  # fmt: skip
    return Contents(value, storages, tuple(machine.foreign), machine.sources)


def read_legacy(path: str | os.PathLike[str]) -> Contents:
    """Return the contents of a legacy file; see :mod:`npylstm_converters.torch.legacy`."""
    data = mapped(path)
    foreign: dict[Global, None] = {}
    sources: dict[str, str] = {}

    def load(position: int) -> tuple[Any, int, Iterable[Storage]]:
        machine = Unpickler(data, position)
        value = machine.load()
        foreign.update(machine.foreign)
        sources.update(machine.sources)
        return value, machine.position, machine.storages

    value, spans = load_legacy(data, load)
    # The data are little-endian always.
    return Contents(value, Storages(data, spans, "storage "), tuple(foreign), sources)


def read_pickle(path: str | os.PathLike[str]) -> Contents:
    """Return the contents of a file of Python's ``pickle.dump``."""
    data = mapped(path)
    machine = Unpickler(data)
    try:
        value = machine.load()
    except FormatError:
        if any(name.module.startswith("joblib.") for name in machine.foreign):
            raise UnsupportedError(
                ["a file of joblib; save the state_dict by torch.save"]
            ) from None
        raise
    return Contents(value, Storages(data, {}, "storage "), tuple(machine.foreign), machine.sources)
