"""How files hold weights in fewer bits than the model computes with: one row per storage type.

A weight is encoded once, into arrays that the file holds: the main array under the weight's own
key, others beside it (``W_i.scale``). It is decoded when the model is loaded. Nothing else depends
on the storage type: operations, kernels and parity see the decoded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError

__all__ = ["STORAGE", "Storage", "StoredWeight", "drop_bits", "storage_type"]


class Storage(NamedTuple):
    """A storage type.

    Attributes
    ----------
    dtypes
        Dtype of each stored array, by what follows the weight's key. The main array (``""``) has
        the weight's shape; the others have one number for each entry of its last axis.
    encode
        Rounds a float32 weight to stored arrays.
    decode
        Returns the float32 weight of stored arrays.
    """

    dtypes: Mapping[str, str]
    encode: Callable[[Array], Mapping[str, Array]]
    decode: Callable[[Mapping[str, Array]], Array]

    def shapes(self, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each stored array, by what follows the key, for a weight's shape."""
        return {suffix: weight[-1:] if suffix else weight for suffix in self.dtypes}


class StoredWeight(NamedTuple):
    """A weight as the file holds it.

    Attributes
    ----------
    storage
        The storage type, a key of :data:`STORAGE`.
    arrays
        The stored arrays, by what follows the weight's key.
    weight
        The decoded weight, float32.
    """

    storage: str
    arrays: Mapping[str, Array]
    weight: Array

    @classmethod
    def encoded(cls, storage: str, weight: Array) -> StoredWeight:
        """Round a weight to a storage type.

        Raises
        ------
        FormatError
            If the storage type is unknown, the weight is not float32, or one of its numbers is not
            finite or too large for the storage type.
        """
        row = storage_type(storage)
        if weight.dtype != np.float32 or not np.isfinite(weight).all():
            raise FormatError(
                f"storage type {storage}: expected finite float32 numbers, got {weight.dtype} with "
                f"{np.count_nonzero(~np.isfinite(weight))} nan or inf"
            )
        made = cls.decoded(storage, row.encode(weight))
        if not np.isfinite(made.weight).all():
            raise FormatError(
                f"storage type {storage}: {np.abs(weight).max():g} is too large for it; keep this "
                "layer in float32"
            )
        return made

    @classmethod
    def decoded(cls, storage: str, arrays: Mapping[str, Array]) -> StoredWeight:
        """Return the weight of the arrays in a file.

        Raises
        ------
        FormatError
            If the storage type is unknown.
        """
        held = {suffix: np.array(array) for suffix, array in arrays.items()}
        with np.errstate(over="ignore"):  # infinities are reported by whoever uses the weight
            weight = np.ascontiguousarray(storage_type(storage).decode(held), np.float32)
        for array in (weight, *held.values()):
            array.flags.writeable = False
        return cls(storage, MappingProxyType(held), weight)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredWeight.decoded, (self.storage, dict(self.arrays))


def storage_type(name: object) -> Storage:
    """Return the row of a storage type.

    Raises
    ------
    FormatError
        If it is unknown.
    """
    if not isinstance(name, str) or name not in STORAGE:
        known = ", ".join(STORAGE)
        raise FormatError(f"unknown storage type {name!r:.80}, expected one of {known}")
    return STORAGE[name]


def drop_bits(x: Array, count: int) -> Array:
    """Round the float32 values of an array to fewer bits: to nearest, ties to even.

    Parameters
    ----------
    x
        Numbers; they are converted to float32.
    count
        The number of bits to drop: 16 leaves bfloat16, 13 leaves TensorFloat-32.

    Returns
    -------
    Array
        The remaining bits, uint32, with zeros for those that are dropped.
    """
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    half = (1 << (count - 1)) - 1
    bits = bits + half + ((bits >> count) & 1)
    return np.asarray((bits >> count << count).astype(np.uint32))


def _round_to_bfloat16(weight: Array) -> dict[str, Array]:
    return {"": (drop_bits(weight, 16) >> 16).astype(np.uint16)}


def _widen_bfloat16(stored: Mapping[str, Array]) -> Array:
    bits = stored[""].astype(np.uint32) << np.uint32(16)
    return np.asarray(bits.view(np.float32))


def _round_to_int16(weight: Array) -> dict[str, Array]:
    """Round to steps of ``scale``, one for each column, so that its largest number is 32767."""
    wide = weight.astype(np.float64)
    largest = np.abs(wide).max(axis=tuple(range(weight.ndim - 1)), initial=0.0)
    scale = np.maximum(largest / 32767, np.finfo(np.float32).tiny).astype(np.float32)
    steps = np.clip(np.rint(wide / scale), -32767, 32767)
    return {"": steps.astype(np.int16), ".scale": scale}


def _widen_int16(stored: Mapping[str, Array]) -> Array:
    return np.asarray(stored[""].astype(np.float64) * stored[".scale"])


STORAGE = {
    "bfloat16": Storage({"": "uint16"}, _round_to_bfloat16, _widen_bfloat16),
    "int16": Storage({"": "int16", ".scale": "float32"}, _round_to_int16, _widen_int16),
}
