"""How files hold weights in fewer bits than the model computes with: one row per storage type.

A weight is encoded once, into arrays that the file holds: the main array under the weight's own
key, others beside it (``W_i.scale``). It is decoded when the model is loaded. Operations and parity
see the decoded numbers. Products of recurrent and dense layers read the stored ones: the numbers of
bfloat16 are widened in registers, those of int8 are multiplied as integers
(:mod:`npylstm.integer_matrix`).
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
        the weight's shape; the others have one number for each column, the entries of its last
        axis; for each row, the entries of its first axis, in tables of embeddings.
    encode
        Rounds a float32 weight to stored arrays; the second argument is the axis that scales have.
    decode
        Returns the float32 weight of stored arrays, with the same second argument.
    """

    dtypes: Mapping[str, str]
    encode: Callable[[Array, int], Mapping[str, Array]]
    decode: Callable[[Mapping[str, Array], int], Array]

    def shapes(self, weight: tuple[int, ...], axis: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each stored array, by what follows the key, for a weight's shape."""
        return {suffix: (weight[axis],) if suffix else weight for suffix in self.dtypes}


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
    axis
        Of the entries that have a scale of their own: -1, or 0 for tables of embeddings.
    """

    storage: str
    arrays: Mapping[str, Array]
    weight: Array
    axis: int = -1

    @classmethod
    def encoded(cls, storage: str, weight: Array, axis: int = -1) -> StoredWeight:
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
        made = cls.decoded(storage, row.encode(weight, axis), axis)
        if not np.isfinite(made.weight).all():
            raise FormatError(
                f"storage type {storage}: {np.abs(weight).max():g} is too large for it; keep this "
                "layer in float32"
            )
        return made

    @classmethod
    def decoded(cls, storage: str, arrays: Mapping[str, Array], axis: int = -1) -> StoredWeight:
        """Return the weight of the arrays in a file.

        Raises
        ------
        FormatError
            If the storage type is unknown.
        """
        held = {suffix: np.array(array) for suffix, array in arrays.items()}
        with np.errstate(over="ignore"):  # infinities are reported by whoever uses the weight
            weight = np.ascontiguousarray(storage_type(storage).decode(held, axis), np.float32)
        for array in (weight, *held.values()):
            array.flags.writeable = False
        return cls(storage, MappingProxyType(held), weight, axis)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredWeight.decoded, (self.storage, dict(self.arrays), self.axis)


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


def _round_to_bfloat16(weight: Array, axis: int) -> dict[str, Array]:
    return {"": (drop_bits(weight, 16) >> 16).astype(np.uint16)}


def _widen_bfloat16(stored: Mapping[str, Array], axis: int) -> Array:
    bits = stored[""].astype(np.uint32) << np.uint32(16)
    return np.asarray(bits.view(np.float32))


def _scaled(dtype: str) -> Storage:
    """Return the storage type of integers times a scale for each column or row.

    The largest number of a column is the largest integer times its scale; zero is zero.
    """
    most = int(np.iinfo(dtype).max)

    def spread(scale: Array, weight: Array, axis: int) -> Array:
        """Add axes to the scale, so that it applies to its entries of the weight."""
        shape = [1] * weight.ndim
        shape[axis] = -1
        return scale.reshape(shape)

    def encode(weight: Array, axis: int) -> dict[str, Array]:
        wide = weight.astype(np.float64)
        others = tuple(k for k in range(weight.ndim) if k != axis % weight.ndim)
        largest = np.abs(wide).max(axis=others, initial=0.0)
        scale = np.maximum(largest / most, np.finfo(np.float32).tiny).astype(np.float32)
        steps = np.clip(np.rint(wide / spread(scale, weight, axis)), -most, most)
        return {"": steps.astype(dtype), ".scale": scale}

    def decode(stored: Mapping[str, Array], axis: int) -> Array:
        integers = stored[""]
        return integers.astype(np.float64) * spread(stored[".scale"], integers, axis)

    return Storage({"": dtype, ".scale": "float32"}, encode, decode)


STORAGE = {
    "bfloat16": Storage({"": "uint16"}, _round_to_bfloat16, _widen_bfloat16),
    "int8": _scaled("int8"),
    "int16": _scaled("int16"),
}
