"""How files hold weights in fewer bits than the model computes with: one row per storage type.

A weight is encoded once, into arrays that the file holds: the main array under the weight's own
key, others beside it (``W_i.scale``). It is decoded when the model is loaded. Nothing else depends
on the storage type: operations, kernels and parity see the decoded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError

__all__ = ["STORAGE", "Storage", "StoredWeight", "storage_type"]


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
            If the storage type is unknown.
        """
        return cls.decoded(storage, storage_type(storage).encode(weight))

    @classmethod
    def decoded(cls, storage: str, arrays: Mapping[str, Array]) -> StoredWeight:
        """Return the weight of the arrays in a file.

        Raises
        ------
        FormatError
            If the storage type is unknown.
        """
        weight = np.ascontiguousarray(storage_type(storage).decode(arrays), np.float32)
        weight.flags.writeable = False
        return cls(storage, arrays, weight)


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


def _round_to_bfloat16(weight: Array) -> dict[str, Array]:
    """Keep the upper 16 of 32 bits, rounded to nearest, ties to even."""
    bits = weight.astype(np.float32).view(np.uint32).astype(np.uint64)
    odd = bits >> np.uint64(16) & np.uint64(1)
    return {"": (bits + np.uint64(0x7FFF) + odd >> np.uint64(16)).astype(np.uint16)}


def _widen_bfloat16(stored: Mapping[str, Array]) -> Array:
    bits = stored[""].astype(np.uint32) << np.uint32(16)
    return np.asarray(bits.view(np.float32))


def _round_to_int16(weight: Array) -> dict[str, Array]:
    """Round to steps of ``scale``, one for each column, so that its largest number is 32767."""
    wide = weight.astype(np.float64)
    largest = np.abs(wide).max(axis=tuple(range(weight.ndim - 1)), initial=0.0)
    scale = np.where(largest > 0, largest / 32767, 1.0).astype(np.float32)
    steps = np.clip(np.rint(wide / scale), -32767, 32767)
    return {"": steps.astype(np.int16), ".scale": scale}


def _widen_int16(stored: Mapping[str, Array]) -> Array:
    return np.asarray(stored[""].astype(np.float64) * stored[".scale"])


STORAGE = {
    "bfloat16": Storage({"": "uint16"}, _round_to_bfloat16, _widen_bfloat16),
    "int16": Storage({"": "int16", ".scale": "float32"}, _round_to_int16, _widen_int16),
}
