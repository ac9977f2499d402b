"""TensorFlow's checkpoints: ``PREFIX.index`` lists variables, ``PREFIX.data-*`` hold their bytes.

All sizes and offsets are compared with the files when a checkpoint is opened; the checksum of a
variable is verified when it is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npylstm import FormatError, UnsupportedError
from npylstm_converters.errors import DamagedError, Refusal
from npylstm_converters.tensorflow.crc32c import masked_crc32c
from npylstm_converters.tensorflow.table import read_table
from npylstm_converters.toolkit.wire import Message, read_varint

__all__ = ["OBJECT_GRAPH", "Checkpoint", "Variable", "open_checkpoint", "read_file"]

Array = npt.NDArray[Any]

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # absent in checkpoints of TensorFlow 1
_MOST_BYTES = (1 << 31) - 1  # of an index or a message: the limit of protocol buffers
_MOST_AXES = 32
_STRING, _BFLOAT16 = 7, 14
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 8: "<c8", 9: "<i8", 10: "?",
    _BFLOAT16: "<u2", 17: "<u2", 18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_HALF = {_BFLOAT16: "bfloat16", 19: "float16"}


@dataclass(frozen=True)
class Variable:
    """A tensor of a checkpoint that is read on request.

    Attributes
    ----------
    path
        Its key in the checkpoint, or another name for messages and the ledger.
    kind
        TensorFlow's number of its type.
    file
        The shard, with offset and size of the tensor's bytes in it.
    checksum
        The masked CRC-32C of these bytes.
    """

    path: str
    shape: tuple[int, ...]
    kind: int
    file: str
    offset: int
    size: int
    checksum: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the array: float32 for the half types, which it holds exactly."""
        if self.kind not in _DTYPES:
            raise Refusal(f"{self.path}: TensorFlow's type {self.kind} is not supported")
        name = "float32" if self.kind in _HALF else _DTYPES[self.kind].lstrip("<")
        return np.dtype(name)

    @property
    def half(self) -> str:
        """The name of its type if that has 16 bits, else an empty string."""
        return _HALF.get(self.kind, "")

    def named(self, path: str) -> Variable:
        """Return the variable under another name."""
        return replace(self, path=path)

    def read(self) -> Array:
        """Return the array.

        Raises
        ------
        FormatError
            If its checksum differs.
        """
        dtype = self.dtype
        data = self.stored()
        self.check(masked_crc32c(data))
        array: Array = np.frombuffer(data, _DTYPES[self.kind]).reshape(self.shape)
        if self.kind == _BFLOAT16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(dtype)

    def stored(self) -> bytes:
        """Return its bytes."""
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise DamagedError(f"{self.file}: changed while it was read")
        return data

    def check(self, checksum: int) -> None:
        """Compare a checksum with the stored one."""
        if checksum != self.checksum:
            raise DamagedError(
                f"{self.file}: the checksum of {self.path} differs, so the file is damaged: "
                "copy it again"
            )


@dataclass(frozen=True)
class Checkpoint:
    """The variables of a checkpoint by key, and its object graph if it has one."""

    prefix: str
    variables: Mapping[str, Variable]
    objects: bytes | None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an index or of a message of protocol buffers.

    Raises
    ------
    FormatError
        If it is longer than such a file can be.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise FormatError(f"{os.fspath(path)}: expected up to {_MOST_BYTES} bytes")
    return data


def open_checkpoint(prefix: str) -> Checkpoint:
    """Read the index of a checkpoint, and compare it with the files of its data.

    Raises
    ------
    UnsupportedError
        If variables are partitioned, or the numbers are big-endian.
    FormatError
        If a file is damaged or missing.
    OSError
        If a file cannot be read.
    """
    path = f"{prefix}.index"
    data = read_file(path)
    try:
        return _open(prefix, data)
    except UnsupportedError as error:
        raise UnsupportedError([f"{path}: {reason}" for reason in error.reasons]) from None
    except FormatError as error:
        text = str(error)
        raise FormatError(text if text.startswith(prefix) else f"{path}: {text}") from None


def _open(prefix: str, data: bytes) -> Checkpoint:
    entries = dict(read_table(data))
    header = entries.pop(b"", None)
    if header is None:
        raise FormatError("has no header, so it is no checkpoint of TensorFlow")
    fields = Message(header, 1, 2)
    if fields.integer(2):
        raise UnsupportedError(
            "is big-endian: load it on a machine of its kind, and save as .keras"
        )
    shards = fields.integer(1)
    if not 0 < shards < 100_000:
        raise FormatError(f"expected 1 to 99,999 files of data, got {shards}")
    messages = {key: Message(entry, 1, 2, 3, 4, 5, 6, 7) for key, entry in entries.items()}
    sliced = [key for key, message in messages.items() if any(message.messages(7))]
    if sliced:
        listed = ", ".join(str(key, "utf-8", "replace") for key in sliced)
        raise UnsupportedError(
            f"variables in several slices (a partitioner split them) are not supported: {listed}; "
            "load the model and save it without a partitioner"
        )
    variables = [_variable(key, m, prefix, shards) for key, m in messages.items()]
    _check_files(variables)
    graph = next((v for v in variables if v.path == OBJECT_GRAPH and v.kind == _STRING), None)
    named = {v.path: v for v in variables if v.kind != _STRING}
    return Checkpoint(prefix, named, None if graph is None else _text(graph))


def _variable(key: bytes, fields: Message, prefix: str, shards: int) -> Variable:
    try:
        name = str(key, "utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"key {key!r:.80}: expected UTF-8") from None
    shard = fields.integer(3)
    if shard >= shards:
        raise FormatError(f"{name}: file {shard} of {shards}")
    sizes = fields.message(2, 2, 3)
    shape = tuple(size.integer(1) for size in sizes.messages(2, 1))
    if len(shape) > _MOST_AXES or sizes.integer(3):
        raise FormatError(f"{name}: expected a shape of up to {_MOST_AXES} axes")
    file = f"{prefix}.data-{shard:05d}-of-{shards:05d}"
    kind, offset, size = fields.integer(1), fields.integer(4), fields.integer(5)
    made = Variable(name, shape, kind, file, offset, size, fields.integer(6))
    if kind in _DTYPES and size != math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize:
        raise FormatError(f"{name}: {size} bytes do not fill shape {shape}")
    return made


def _check_files(variables: list[Variable]) -> None:
    """Compare offsets and sizes with the files; bytes belong to one variable only."""
    sizes: dict[str, int] = {}
    ends: dict[str, int] = {}
    for variable in sorted(variables, key=lambda v: (v.file, v.offset)):
        file = variable.file
        if file not in sizes:
            if not os.path.isfile(file):
                raise FormatError(f"{file}: is missing; it belongs beside the .index")
            sizes[file] = os.path.getsize(file)
        end = variable.offset + variable.size
        if end > sizes[file]:
            raise FormatError(
                f"{file}: expected {end} bytes or more, for {variable.path}, got {sizes[file]}"
            )
        if variable.size and variable.offset < ends.get(file, 0):
            raise FormatError(f"{file}: {variable.path} overlaps another variable")
        ends[file] = max(end, ends.get(file, 0))


def _text(variable: Variable) -> bytes:
    """Return the bytes of a tensor that is one string.

    They follow their number and a checksum of that number. The checksum of the tensor is that of
    the number as 4 or 8 bytes, of its checksum, and of the string.
    """
    if variable.shape:
        raise FormatError(f"{variable.path}: expected one string, got shape {variable.shape}")
    data = variable.stored()
    size, start = read_varint(memoryview(data), 0)
    if start + 4 + size != len(data):
        raise FormatError(f"{variable.path}: a string of {size} bytes in {len(data)}")
    number = size.to_bytes(4 if size < 1 << 32 else 8, "little")
    checksum = data[start : start + 4]
    if masked_crc32c(number) != int.from_bytes(checksum, "little"):
        raise FormatError(f"{variable.file}: {variable.path} is damaged")
    variable.check(masked_crc32c(number + checksum + data[start + 4 :]))
    return data[start + 4 :]
