"""PyTorch's files, told apart by content, and their tensors, read without PyTorch.

========================  ==================================================================
form                      how it is known
========================  ==================================================================
zip of tensors            a zip with ``NAME/data.pkl`` (torch >= 1.6)
legacy pickle             a magic number, pickled (torch before 1.6)
safetensors               the length of a header, and the header, which is JSON
TorchScript               a zip with ``NAME/code/``
exported program          a zip with ``NAME/models/`` or ``serialized_exported_program.json``
========================  ==================================================================
"""

from __future__ import annotations

import enum
import json
import math
import mmap
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.layers.base import Array
from npylstm.npz import refuse_bombs
from npylstm_converters.files import zip_names
from npylstm_converters.torch.mapping import MAX_HEADER, MAX_PICKLE, damage_named, mapped, span
from npylstm_converters.torch.unpickler import DTYPES, Storage, Tensor, Unpickler
from npylstm_converters.torch.wrappers import without_prefix, without_weight_norm

__all__ = ["Checkpoint", "Kind", "read_checkpoint", "sniff", "sniff_head"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEAD = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001

_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MOST_AXES, _LARGEST_SIZE = 32, 1 << 62
# How many times over all numbers may be shown (stride 0, shared storages).
_MOST_REPEATS, _MOST_REPEATED = 8, 1 << 20
_DEEPEST, _MOST_LISTED, _LONGEST_KEY = 30, 20, 1000


class Kind(enum.Enum):
    """What a file is; the value says it in words."""

    ZIP = "PyTorch zip"
    LEGACY = "PyTorch legacy pickle"
    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "TorchScript"
    PROGRAM = "an exported program"


def sniff_head(source: str | os.PathLike[str], head: bytes) -> bool:
    """Whether a file may be one of PyTorch's, by its first bytes and, for a zip, its names."""
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(zip_names(source)) is not None
    return head.startswith(b"\x80") or head[8:9] == b"{"


def _kind_of_zip(names: list[str]) -> Kind | None:
    tails = {name.partition("/")[2] or name for name in names}
    if any(t.startswith("models/") and t.endswith(".json") for t in tails) or (
        "serialized_exported_program.json" in tails
    ):
        return Kind.PROGRAM
    if any(t == "data.pkl" or t.startswith("data/") for t in tails):
        return Kind.TORCHSCRIPT if any(t.startswith("code/") for t in tails) else Kind.ZIP
    return None


def sniff(path: str | os.PathLike[str]) -> Kind:
    """Tell what a file is.

    Raises
    ------
    FormatError
        If it is none of PyTorch's.
    OSError
        If it cannot be read.
    """
    label = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # whoever opens a pipe waits
        raise FormatError(f"{label}: expected a file")
    with open(path, "rb") as stream:
        head = stream.read(64)
    if not head:
        raise FormatError(f"{label}: is empty")
    if head.startswith(b"PK\x03\x04"):
        kind = _kind_of_zip(zip_names(path))
        if kind is None:
            raise FormatError(f"{label}: a zip without data.pkl, or damaged")
        return kind
    if _LEGACY_HEAD in head:
        return Kind.LEGACY
    if head[8:9] == b"{":
        return Kind.SAFETENSORS
    if head.startswith(b"\x80"):
        raise FormatError(
            f"{label}: a pickle that torch.save did not write; save it by "
            "torch.save(module.state_dict(), path)"
        )
    raise FormatError(f"{label}: expected a file of torch.save or safetensors, or it is damaged")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weight file.

    Attributes
    ----------
    tensors
        Arrays by name, in the order of the file. Half precision is widened to float32.
    format
        Which form the file has.
    notes
        What was decided on the way.
    """

    tensors: dict[str, Array]
    format: str
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Checkpoint:
    """Read a weight file without PyTorch; nothing in it is executed.

    Parameters
    ----------
    path
        A ``.pt``, ``.pth`` or ``.safetensors``, told by content.
    key
        Where in the file the state_dict is, with dots for what is nested; None if that is clear.

    Raises
    ------
    UnsupportedError
        If the file names code; every name is listed.
    FormatError
        If it is damaged, or holds no state_dict or several.
    OSError
        If it cannot be opened.
    """
    label = os.fspath(path)
    kind = sniff(path)
    if kind in (Kind.TORCHSCRIPT, Kind.PROGRAM):
        raise FormatError(f"{label}: is {kind.value}, not a state_dict")
    with damage_named(path):
        value, storages = _READERS[kind](path)
        tensors, notes = _choose(value, key)
        _refuse_repetition(tensors, storages)
        arrays = {name: _array(name, tensor, storages) for name, tensor in tensors.items()}
        arrays = without_weight_norm(without_prefix(arrays))
    return Checkpoint(arrays, kind.value, tuple(notes))


class _Storages:
    """Where the numbers of a file's storages lie; they are read when a tensor asks for them.

    Parameters
    ----------
    data
        The whole file.
    spans
        First byte and end of each storage, by its key.
    order
        ``"<"`` or ``">"``.
    checksums
        CRC-32 of each storage, where the file has them.
    label
        What a storage is called in errors, with its key behind it.
    """

    def __init__(
        self,
        data: mmap.mmap,
        spans: Mapping[str, tuple[int, int]],
        label: str,
        order: str = "<",
        checksums: Mapping[str, int] | None = None,
    ) -> None:
        self._data, self._spans, self._label, self._order = data, spans, label, order
        self._checksums = dict(checksums or {})

    def bytes_of(self, key: str) -> int:
        """How many bytes a storage has.

        Raises
        ------
        FormatError
            If it is not there.
        """
        if key not in self._spans:
            raise FormatError(f"{self._label}{key}: missing")
        start, end = self._spans[key]
        return end - start

    def read(self, key: str, dtype: str, count: int) -> Array:
        """See a storage as numbers, where they lie."""
        held = self.bytes_of(key)
        kind = np.dtype(self._order + DTYPES[dtype]) if dtype != "bool" else np.dtype("?")
        if count * kind.itemsize != held:
            raise FormatError(
                f"{self._label}{key}: expected {count} elements of {dtype}, the file holds "
                f"{held} bytes"
            )
        start, end = self._spans[key]
        checksum = self._checksums.pop(key, None)
        if checksum is not None and zlib.crc32(memoryview(self._data)[start:end]) != checksum:
            raise FormatError(f"{self._label}{key}: damaged: its checksum is another")
        return np.frombuffer(self._data, kind, count, start) if count else np.zeros(0, kind)


def _read_zip(path: str | os.PathLike[str]) -> tuple[Any, _Storages]:
    with open(path, "rb") as stream:
        refuse_bombs(stream)
        archive = zipfile.ZipFile(stream)
        infos = {info.filename: info for info in archive.infolist()}
        if len(infos) < len(archive.infolist()):
            raise FormatError("a member stands in the file twice")
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
    value = Unpickler(member(pickles[0])).load()
    folder = f"{prefix}data/"
    keys = {n.removeprefix(folder): n for n in infos if n.startswith(folder) and n != folder}
    return value, _Storages(
        data, {k: spans[n] for k, n in keys.items()}, "data/", order,
        {k: checksums[n] for k, n in keys.items()},
    )  # fmt: skip


def _read_legacy(path: str | os.PathLike[str]) -> tuple[Any, _Storages]:
    """Magic number, protocol, system, object, keys of the storages: five pickles, then numbers."""
    data = mapped(path)
    position = 0

    def load() -> Any:
        nonlocal position
        machine = Unpickler(data, position)
        value = machine.load()
        position = machine.position
        return value

    magic, protocol, system = load(), load(), load()
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise FormatError(f"expected protocol {_LEGACY_PROTOCOL} of torch.save")
    if not isinstance(system, dict):
        raise FormatError("expected a description of the system")
    value, keys = load(), load()
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

    return value, _Storages(data, storages, "storage ")  # little-endian, whoever wrote it


def _storage_sizes(value: Any) -> dict[str, int]:
    """Bytes of an element in each storage that a tensor of the object lies in."""
    found: dict[str, int] = {}
    for _, tensor in _walk(value):
        if isinstance(tensor, Tensor):
            itemsize = np.dtype(DTYPES[tensor.storage.dtype or tensor.dtype]).itemsize
            if found.setdefault(tensor.storage.key, itemsize) != itemsize:
                raise FormatError(f"storage {tensor.storage.key}: is of two types")
    return found


def _walk(value: Any, optimizers: bool = True) -> Iterator[tuple[str, Any]]:
    """Go through nested containers, each visited once, with dotted paths.

    ``optimizers``: also through the states of optimizers, which hold tensors by parameter.
    """
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
                if isinstance(v, (dict, list, tuple, Tensor))
            ]


def _short(key: Any) -> str:
    return key[:_LONGEST_KEY] if isinstance(key, str) else f"{key!r:.{_LONGEST_KEY}}"


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[Any, _Storages]:
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
        strides = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
        value[name] = Tensor(
            Storage(name, kind, math.prod(shape), 0, math.prod(shape)),
            0,
            tuple(shape),
            strides,
            kind,
        )
    end = 0
    for a, b, name in sorted(spans):
        if a != end:
            raise FormatError(f"{name}: begins at {a}, expected {end}")
        end = b
    if end != size_of_data:
        raise FormatError(f"{size_of_data - end} bytes belong to no tensor")
    return value, _Storages(data, {name: (first + a, first + b) for a, b, name in spans}, "")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands in it twice")
    return made


_READERS: Mapping[Kind, Callable[[Any], tuple[Any, _Storages]]] = {
    Kind.ZIP: _read_zip,
    Kind.LEGACY: _read_legacy,
    Kind.SAFETENSORS: _read_safetensors,
}


def _is_state_dict(value: Any) -> bool:
    """Whether it maps names to tensors, and to nothing else."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) for k in value)
        and all(isinstance(v, Tensor) for v in value.values())
    )


def _choose(value: Any, key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """Find the state_dict in what the file holds."""
    found: dict[str, dict[str, Tensor]] = {}
    judged: dict[int, bool] = {}  # a dictionary may stand in many places
    for path, item in _walk(value, optimizers=False):
        if id(item) not in judged:
            judged[id(item)] = _is_state_dict(item)
        if judged[id(item)] and not re.search(r"(^|\.)state\.\d+$", path):
            if path in found and found[path] is not item:
                raise FormatError(f"holds two state_dicts under {path!r}; save one by itself")
            found[path] = item
    if key is not None:
        if key not in found:
            known = ", ".join(sorted(map(repr, found))[:_MOST_LISTED]) or "none"
            raise FormatError(f"key {key!r:.80}: no state_dict there; there are: {known}")
        return found[key], [f"key {key!r}, as told"]
    if not found:
        raise FormatError(
            f"expected a state_dict, names of tensors, got a {type(value).__name__}; save it by "
            "torch.save(module.state_dict(), path)"
        )
    if len(found) > 1 and "" not in found:
        names = ", ".join(sorted(map(repr, found))[:_MOST_LISTED])
        raise FormatError(f"holds {len(found)} state_dicts, choose one by key (--key): {names}")
    path = "" if "" in found else next(iter(found))
    notes = [f"key {path!r}, the only state_dict in the file"] if path else []
    return found[path], notes


def _refuse_repetition(tensors: Mapping[str, Tensor], storages: _Storages) -> None:
    """Tensors may show the same numbers over and over, but not beyond all measure."""
    wanted = sum(math.prod(t.size) for t in tensors.values())
    held = sum(storages.bytes_of(key) for key in {t.storage.key for t in tensors.values()})
    if wanted > max(_MOST_REPEATS * held, _MOST_REPEATED):
        raise FormatError(f"tensors of {wanted} elements in storages of {held} bytes")


def _array(name: str, tensor: Tensor, storages: _Storages) -> Array:
    """Check a tensor against its storage and read it."""
    storage, size, stride = tensor.storage, tensor.size, tensor.stride
    count = math.prod(size)
    if len(size) != len(stride) or min((*size, *stride, tensor.offset, storage.start)) < 0:
        raise FormatError(
            f"{name}: size {size}, stride {stride}, offset {tensor.offset} describe no tensor"
        )
    last = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count and last >= storage.shown:
        raise FormatError(f"{name}: reaches to element {last} of a storage of {storage.shown}")
    flat = storages.read(storage.key, storage.dtype or tensor.dtype, storage.count)
    if storage.dtype is None and tensor.dtype not in DTYPES:
        raise FormatError(f"{name}: unknown dtype {tensor.dtype}")
    itemsize = flat.dtype.itemsize
    shown = np.lib.stride_tricks.as_strided(
        flat[storage.start + tensor.offset :], size, [s * itemsize for s in stride]
    ) if count else np.zeros(size, flat.dtype)  # fmt: skip
    array: Array = np.array(shown, flat.dtype.newbyteorder("="))
    if tensor.negative:
        if tensor.dtype not in ("float32", "float64"):
            raise FormatError(f"{name}: expected float32 or float64 to negate, got {tensor.dtype}")
        array = np.asarray(-array)
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        return np.asarray(array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if tensor.dtype == "float16" else array
