"""The storages of a file's tensors, and arrays read from them."""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.torch.pickle_values import DTYPES, QuantizedTensor, Storage, Tensor

__all__ = ["Storages", "read_tensor", "refuse_repetition"]

# The highest ratio of tensor elements to stored elements (stride 0, shared storages).
_MOST_REPEATS, _MOST_REPEATED = 8, 1 << 20


class Storages:
    """The storages of a file; each is read when a tensor needs it.

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
        Prefix of a storage's key in errors.
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
        """Return the number of bytes in a storage.

        Raises
        ------
        FormatError
            If it does not exist.
        """
        if key not in self._spans:
            raise FormatError(f"{self._label}{key}: missing")
        start, end = self._spans[key]
        return end - start

    def size_of(self, storage: Storage) -> int:
        """Return the number of bytes of a storage, in the pickle or outside it."""
        return self.bytes_of(storage.key) if storage.data is None else len(storage.data)

    def read(self, storage: Storage, dtype: str) -> Array:
        """Return a storage as an array that shares the file's memory."""
        key, count, held = storage.key, storage.count, self.size_of(storage)
        order = self._order if storage.data is None else "<"
        kind = np.dtype(order + DTYPES[dtype]) if dtype != "bool" else np.dtype("?")
        if count * kind.itemsize != held:
            raise FormatError(
                f"{self._label}{key}: expected {count} elements of {dtype}, the file holds "
                f"{held} bytes"
            )
        if storage.data is not None:
            return np.frombuffer(storage.data, kind)
        start, end = self._spans[key]
        checksum = self._checksums.pop(key, None)
        if checksum is not None and zlib.crc32(memoryview(self._data)[start:end]) != checksum:
            raise FormatError(f"{self._label}{key}: damaged: its checksum is another")
        return np.frombuffer(self._data, kind, count, start) if count else np.zeros(0, kind)


def refuse_repetition(tensors: Iterable[Tensor], storages: Storages) -> None:
    """Raise FormatError if the tensors have far more elements than their storages."""
    several = list(tensors)
    wanted = sum(math.prod(t.size) for t in several)
    apart = {
        t.storage.key if t.storage.data is None else id(t.storage.data): t.storage for t in several
    }
    held = sum(map(storages.size_of, apart.values()))
    if wanted > max(_MOST_REPEATS * held, _MOST_REPEATED):
        raise FormatError(f"tensors of {wanted} elements in storages of {held} bytes")


def read_tensor(name: str, tensor: Tensor, storages: Storages) -> Array:
    """Return a tensor as an array, checked against its storage; 8-bit codes become numbers."""
    storage, size, stride = tensor.storage, tensor.size, tensor.stride
    count = math.prod(size)
    if len(size) != len(stride) or min((*size, *stride, tensor.offset, storage.start)) < 0:
        raise FormatError(
            f"{name}: size {size}, stride {stride}, offset {tensor.offset} describe no tensor"
        )
    last = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count and last >= storage.shown:
        raise FormatError(f"{name}: reaches to element {last} of a storage of {storage.shown}")
    flat = storages.read(storage, storage.dtype or tensor.dtype)
    if storage.dtype is None and tensor.dtype not in DTYPES:
        raise FormatError(f"{name}: unknown dtype {tensor.dtype}")
    itemsize = flat.dtype.itemsize
    shown = np.lib.stride_tricks.as_strided(
        flat[storage.start + tensor.offset :], size, [s * itemsize for s in stride]
    ) if count else np.zeros(size, flat.dtype)  # fmt: skip
    array: Array = np.array(shown, flat.dtype.newbyteorder("="))
    if isinstance(tensor, QuantizedTensor):
        return _dequantized(name, array, tensor, storages)
    if tensor.negative:
        if tensor.dtype not in ("float32", "float64"):
            raise FormatError(f"{name}: expected float32 or float64 to negate, got {tensor.dtype}")
        array = np.asarray(-array)
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        return np.asarray(array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if tensor.dtype == "float16" else array


def _dequantized(name: str, codes: Array, tensor: QuantizedTensor, storages: Storages) -> Array:
    """Return the numbers of 8-bit codes, in float32 with one rounding, as torch does."""
    scale, zero_point = (
        read_tensor(name, part, storages) if isinstance(part, Tensor) else np.asarray(part)
        for part in (tensor.scale, tensor.zero_point)
    )
    with np.errstate(over="ignore", under="ignore"):
        scale = scale.astype(np.float32)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise FormatError(f"{name}: expected positive scales of its 8-bit codes")
    if zero_point.dtype.kind != "i" or not ((zero_point >= -128) & (zero_point <= 127)).all():
        raise FormatError(f"{name}: expected zero points of its 8-bit codes from -128 to 127")
    if tensor.axis is not None:
        shape = [-1 if axis == tensor.axis else 1 for axis in range(codes.ndim)]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    steps = codes.astype(np.int64) - zero_point
    return np.asarray(scale * steps.astype(np.float32))
