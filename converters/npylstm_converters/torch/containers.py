"""Readers of PyTorch's containers: the pickled object, and its storages."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.io.npz import check_zip_bomb
from npylstm_converters.torch.mapping import MAX_HEADER, MAX_PICKLE, mapped, span
from npylstm_converters.torch.pickle_values import DTYPES, Opaque, Storage, Tensor
from npylstm_converters.torch.storages import Storages
from npylstm_converters.torch.unpickler import Unpickler

__all__ = ["read_legacy", "read_safetensors", "read_zip", "walk"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MOST_AXES = 32
_DEEPEST, _LONGEST_KEY = 30, 1000


def read_zip(path: str | os.PathLike[str], opaque: bool = False) -> tuple[Any, Storages]:
    """Return the object and the storages in a zip of ``torch.save``.

    ``opaque``: whether objects of forbidden classes are returned as :class:`Opaque`.
    """
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

    def member(name: str) -> bytes:
        start, end = spans[name]
        if end - start > MAX_PICKLE:
            raise FormatError(f"{name}: has {end - start} bytes")
        content = data[start:end]
        if zlib.crc32(content) != checksums[name]:
            raise FormatError(f"{name}: damaged: its checksum is another")
        return content

    pickles = [n for n in infos if n.endswith("data.pkl") and n.count("/") <= 1]
    if len(pickles) != 1:
        raise FormatError(f"expected one member named data.pkl, got {len(pickles)}")
    prefix = pickles[0].removesuffix("data.pkl")
    order = "<"
    if f"{prefix}byteorder" in infos:
        written = member(f"{prefix}byteorder").strip()
        if written not in (b"little", b"big"):
            raise FormatError(f"byteorder: expected little or big, got {written!r:.40}")
        order = ">" if written == b"big" else "<"
    value = Unpickler(member(pickles[0])).load(opaque)
    folder = f"{prefix}data/"
    keys = {n.removeprefix(folder): n for n in infos if n.startswith(folder) and n != folder}
    return value, Storages(
        data, {k: spans[n] for k, n in keys.items()}, "data/", order,
        {k: checksums[n] for k, n in keys.items()},
    )  # fmt: skip


def read_legacy(path: str | os.PathLike[str], opaque: bool = False) -> tuple[Any, Storages]:
    """Return the object and the storages of a legacy file.

    It holds five pickles (magic number, protocol, system, object, keys of the storages), then data.
    """
    data = mapped(path)
    position = 0

    def load() -> Any:
        nonlocal position
        machine = Unpickler(data, position)
        value = machine.load(opaque)
        position = machine.position
        return value

    magic, protocol, system = load(), load(), load()
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise FormatError(f"expected protocol {_LEGACY_PROTOCOL} of torch.save")
    if not isinstance(system, dict):
        raise FormatError("expected a description of the system")
    value = load()
    if opaque:  # tensors inside such objects are ignored
        return value, Storages(data, {}, "storage ")
    keys = load()
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise FormatError("expected the keys of the storages")
    sizes = _storage_sizes(value)
    storages: dict[str, tuple[int, int]] = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", data, position)
        position += 8
        size = count * sizes.get(key, 0)
        if count < 0 or key not in sizes or position + size > len(data):
            raise FormatError(f"storage {key}: {count} elements do not fit the file")
        storages[key] = (position, position + size)
        position += size

    return value, Storages(data, storages, "storage ")  # always little-endian


def _storage_sizes(value: Any) -> dict[str, int]:
    """Return the element size in bytes of each storage that the object's tensors use."""
    found: dict[str, int] = {}
    for _, tensor in walk(value):
        if isinstance(tensor, Tensor):
            itemsize = np.dtype(DTYPES[tensor.storage.dtype or tensor.dtype]).itemsize
            if found.setdefault(tensor.storage.key, itemsize) != itemsize:
                raise FormatError(f"storage {tensor.storage.key}: is of two types")
    return found


def walk(value: Any, optimizers: bool = True, opaque: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield dotted paths and nested containers, each once.

    ``optimizers``: include the states of optimizers, which hold tensors by parameter.
    ``opaque``: include objects of forbidden classes.
    """
    wanted = (dict, list, tuple, Tensor, *((Opaque,) if opaque else ()))
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        path, item = todo.pop()
        yield path, item
        shallow = path.count(".") < _DEEPEST and len(path) < _LONGEST_KEY
        optimizer = isinstance(item, dict) and {"state", "param_groups"} <= item.keys()
        if isinstance(item, (dict, list, tuple)) and shallow and (optimizers or not optimizer):
            if id(item) in seen:
                continue
            seen.add(id(item))
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            todo += [
                (f"{path}.{_short(k)}" if path else _short(k), v)
                for k, v in reversed(list(pairs))
                if isinstance(v, wanted)
            ]


def _short(key: Any) -> str:
    return key[:_LONGEST_KEY] if isinstance(key, str) else f"{key!r:.{_LONGEST_KEY}}"


def read_safetensors(path: str | os.PathLike[str]) -> tuple[Any, Storages]:
    """Return the tensors by name and the storages of a safetensors file."""
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        held = os.fstat(stream.fileno()).st_size - 8
        if not 2 <= length <= min(MAX_HEADER, held):
            raise FormatError(f"expected a header of up to {held} bytes, got {length}")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_no_twins)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"header: not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError("header: expected an object")
    data, first = mapped(path), 8 + length
    size_of_data = len(data) - first
    header.pop("__metadata__", None)
    value: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(a), int(b)]}:
                pass
            case _:
                raise FormatError(f"{name}: expected dtype, shape and data_offsets")
        if dtype not in _SAFETENSORS_TYPES:
            known = ", ".join(_SAFETENSORS_TYPES)
            raise FormatError(f"{name}: expected a dtype of {known}, got {dtype!r:.40}")
        if len(shape) > _MOST_AXES or any(
            type(d) is not int or not 0 <= d < 1 << 62 for d in shape
        ):
            raise FormatError(f"{name}: expected a shape, got {shape!r:.80}")
        kind = _SAFETENSORS_TYPES[dtype]
        size = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
        if not 0 <= a <= b <= size_of_data or b - a != size:
            raise FormatError(
                f"{name}: expected {size} bytes for shape {shape} of {dtype}, got {a} to {b} of "
                f"{size_of_data}"
            )
        spans.append((a, b, name))
        count = math.prod(shape)
        strides = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
        value[name] = Tensor(Storage(name, kind, count, 0, count), 0, tuple(shape), strides, kind)
    end = 0
    for a, b, name in sorted(spans):
        if a != end:
            raise FormatError(f"{name}: begins at {a}, expected {end}")
        end = b
    if end != size_of_data:
        raise FormatError(f"{size_of_data - end} bytes belong to no tensor")
    return value, Storages(data, {name: (first + a, first + b) for a, b, name in spans}, "")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is in it twice")
    return made
