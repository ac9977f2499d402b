"""The weights of a model, packed for the kernels in one flat buffer, once per model."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.graph.parts import LayerSpec
from npylstm.kernels.arguments import RECURRENT
from npylstm.kernels.library import KernelLibrary
from npylstm.kernels.packing import ALIGNMENT, VectorType, aligned, rounded_size
from npylstm.kernels.table import Row, row_of

__all__ = ["TABLE_BYTES", "Parameters", "weights_type"]

# The most that tables of embeddings times kernels may take, of all layers of a model.
TABLE_BYTES = 16 << 20
_TABLE_ROWS = 256  # that are computed together

_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64
# See npylstm.kernels.products.multiply.
_MULTIPLY = ctypes.CFUNCTYPE(
    None, _ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT,
    _COUNT,
)  # fmt: skip
# See npylstm.kernels.integer_products.round_rows.
_ROUND_ROWS = ctypes.CFUNCTYPE(None, _ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT, _COUNT)


def weights_type(layer: LayerSpec, prefix: str, dtype: str) -> str:
    """Return the type of the weights that the kernels of a part of a layer read."""
    return layer.product_type(prefix) if dtype == "float32" else dtype


class Parameters:
    """All weights of a model, packed for the kernels in one flat buffer.

    Attributes
    ----------
    library
        The kernels that they are packed for.
    rows
        The row of the kernel table for each part of a layer, by its name and the prefix of the
        part, and the vectors of its kernels.
    buffer
        The packed weights.
    tables
        Products of embeddings and kernels; see :meth:`table`.
    offsets
        Offsets of the parts of a layer, by its name and the prefix of the part, and by column.
    """

    def __init__(self, layers: Sequence[LayerSpec], dtype: str, library: KernelLibrary) -> None:
        self.tables: dict[tuple[str, ...], Array] = {}
        self._parts: list[tuple[int, Array]] = []
        self._size = 0
        self.library, self.dtype = library, dtype
        self.rows: dict[tuple[str, str], tuple[Row, VectorType]] = {}
        self.offsets: dict[tuple[str, str], dict[str, int]] = {}
        for layer in layers:
            weights = layer.factors()
            for prefix, operation in layer.layer.parts().items():
                kind = weights_type(layer, prefix, dtype)
                row = row_of(operation, kind)
                if row is None:  # an alias
                    continue
                vector = library.vector_type(dtype)._replace(weights=kind)
                self.rows[layer.name, prefix] = row, vector
                own = {k.removeprefix(prefix): w for k, w in weights.items()
                       if k.startswith(prefix)}  # fmt: skip
                packed = row.packed(operation, own, vector)
                self.offsets[layer.name, prefix] = {c: self._add(w) for c, w in packed.items()}
        # Padding: activations read parameters beyond their own.
        self.buffer: Array = aligned(self._size + ALIGNMENT, dtype)
        for at, part in self._parts:
            self.buffer[at : at + part.size] = part.reshape(-1)
        self.buffer.flags.writeable = False
        del self._parts

    def table(
        self, key: tuple[str, ...], row: Array, embeddings: int | None, ids: int
    ) -> Array | None:
        """Return the input's part of a recurrent layer's gates for every id, and keep it.

        It is the product that the layer computes for an embedded id, with the same bits.

        Parameters
        ----------
        key
            Names of the embedding, the recurrent layer and its part.
        row
            Of the recurrent layer, for a tensor of embedded ids.
        embeddings
            Offset of the embeddings; None for one-hot vectors.
        ids
            Their number. For one-hot vectors there is one more entry: for what is no id.

        Returns
        -------
        Array or None
            None if all tables would have more than :data:`TABLE_BYTES`.
        """
        span = int(row[RECURRENT.VECTORS]) * self.library.vector_type(self.dtype).lanes
        if key not in self.tables:
            size = self.buffer.itemsize
            used = sum(table.nbytes for table in [*self.tables.values()])
            count = ids if embeddings is not None else ids + 1
            if used + count * span * size > TABLE_BYTES:
                return None
            table = aligned(count * span, self.dtype).reshape(count, span)
            features = int(row[RECURRENT.IN])
            for first in range(0, count, _TABLE_ROWS):
                rows = table[first : first + _TABLE_ROWS]
                if embeddings is None:
                    x = np.eye(len(rows), features, first, self.dtype)
                else:
                    begin = embeddings + first * features
                    x = self.buffer[begin : begin + len(rows) * features].reshape(-1, features)
                self._multiply_input(row, x, rows)
            # Another thread may have made it, and programs have its address.
            self.tables.setdefault(key, table)
        return self.tables[key]

    def _multiply_input(self, row: Array, x: Array, z: Array) -> None:
        """Compute the input's part of a recurrent layer's gates for rows."""
        start, size = self.buffer.ctypes.data, self.buffer.itemsize
        w, bias = (start + int(row[c]) * size for c in (RECURRENT.W, RECURRENT.BIAS))
        rows, features = x.shape
        if row[RECURRENT.ROUND_ROWS]:
            rounded = aligned(rows * rounded_size(features), self.dtype).reshape(rows, -1)
            round_rows = _ROUND_ROWS(int(row[RECURRENT.ROUND_ROWS]))
            round_rows(
                rounded.ctypes.data, rounded.shape[1], x.ctypes.data, features, rows, features
            )
            x = rounded
        multiply = _MULTIPLY(int(row[RECURRENT.MULTIPLY]))
        multiply(
            z.ctypes.data, z.shape[1], bias, 0, rows, x.ctypes.data, x.shape[1], features, w, 0,
            int(row[RECURRENT.VECTORS]),
        )  # fmt: skip

    def _add(self, array: Array) -> int:
        at = self._size
        self._parts.append((at, array))
        self._size += -(-array.size // ALIGNMENT) * ALIGNMENT
        return at
