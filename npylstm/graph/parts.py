"""Parts of a spec: tensors, layers with weights, calls of layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import FormatError
from npylstm.graph.case import LONGEST_REPR, equal_bits
from npylstm.integer_matrix import IntegerMatrix
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, Shape, format_shape
from npylstm.printable import clipped
from npylstm.storage import StoredWeight

__all__ = ["RESERVED", "Edge", "LayerSpec", "TensorSpec", "scale_axis"]

RESERVED = ("npylstm", "case")  # first parts of other keys in the file
# Roles of the weights that a storage type applies to.
_FACTORS = ("kernel", "recurrent_kernel", "projection")
_TABLE = "table"
_NAME = re.compile(r"[^\x00-\x1f/\\]+")


def scale_axis(operation: Operation, weight: str) -> int:
    """Return the axis whose entries have scales of their own where a weight is stored in integers.

    It is the last one, of the columns; the first one, of the rows, in tables of embeddings.
    """
    return 0 if operation.weight_role(weight) == _TABLE else -1


def _factor_names(prefix: str, operation: Operation) -> list[str]:
    """Return the names of the factors of products of a part of a layer."""
    return [prefix + key for key, role in operation.weight_roles.items() if role in _FACTORS]


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output.

    Parameters
    ----------
    name
        Of the tensor.
    shape
        Integers, and symbols for variable sizes: ``("batch", "steps", 3)``.
    integer
        Whether the values must be integers (ids of an embedding), of any dtype.
    """

    name: str
    shape: Shape
    integer: bool = False

    def __str__(self) -> str:
        return f"{self.name} {format_shape(self.shape)}"

    @property
    def whole(self) -> bool:
        """The former name of ``integer``."""
        return self.integer

    @property
    def time_axis(self) -> int | None:
        """The time axis: the first axis besides the batch, if features follow or values are ids."""
        if len(self.shape) < (2 if self.integer else 3) or BATCH not in self.shape[:2]:
            return None
        return 1 - self.shape.index(BATCH)


@dataclass(frozen=True)
class Edge:
    """One call of a layer.

    Parameters
    ----------
    layer
        Name of the layer.
    inputs, outputs
        Names of the tensors.
    """

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def call(cls, layer: LayerSpec, *inputs: str, number: int = 1) -> Edge:
        """Return a call of a layer, with the names of its outputs.

        Parameters
        ----------
        layer
            The layer.
        *inputs
            Names of the tensors that it reads.
        number
            Index of the call, from 1 on.

        Returns
        -------
        Edge
            Outputs are ``lstm``, ``lstm/h``; ``lstm#2`` for the second call.
        """
        name = layer.name if number == 1 else f"{layer.name}#{number}"
        suffixes = layer.layer.output_names()
        return cls(layer.name, inputs, tuple(f"{name}/{s}" if s else name for s in suffixes))

    @property
    def name(self) -> str:
        """Name of the call and of its state: the main output."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class LayerSpec:
    """A named layer with its weights.

    Two are equal if their names, configs and weights (bit by bit) are equal. The function of an
    ``external`` layer is not compared, because files do not contain it.

    Attributes
    ----------
    name
        Unique in the model.
    layer
        The operation.
    weights
        Read-only arrays by name, as :meth:`Operation.weight_shapes` lists them.
    stored
        Those weights that files hold in fewer bits, by name: how they are stored. A weight that is
        replaced is no longer among them.
    """

    name: str
    layer: Operation
    weights: Mapping[str, Array] = field(default_factory=dict)
    stored: Mapping[str, StoredWeight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frozen = {}
        for key, array in self.weights.items():
            frozen[key] = np.asarray(array, order="C")
            if frozen[key] is array and array.flags.writeable:
                frozen[key] = array.copy()
            frozen[key].flags.writeable = False
        shapes = self.layer.weight_shapes() if self.stored else {}
        stored = {k: self.stored[k] for k in shapes if k in self.stored}
        stored = {k: s for k, s in stored.items() if equal_bits(frozen.get(k), s.weight)}
        frozen |= {k: s.weight for k, s in stored.items()}  # one array, not two equal ones
        object.__setattr__(self, "weights", MappingProxyType(frozen))
        object.__setattr__(self, "stored", MappingProxyType(stored))

    def __repr__(self) -> str:
        text = f"{self.name!r}: {self.kind}, {self.parameters:,} parameters"
        return f"<npylstm.spec.LayerSpec {clipped(text, LONGEST_REPR - 26)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerSpec):
            return NotImplemented
        same = (self.name, self.layer) == (other.name, other.layer)
        return (
            same
            and equal_bits(self.weights, other.weights)
            and equal_bits(self._held(), other._held())
        )

    def __hash__(self) -> int:
        return hash((self.name, self.layer))

    def __reduce__(self) -> tuple[Any, ...]:
        return LayerSpec, (self.name, self.layer, dict(self.weights), dict(self.stored))

    def __deepcopy__(self, memo: object) -> LayerSpec:
        return self  # immutable

    def _held(self) -> dict[str, Any]:
        """Return the storage types of the stored weights, and their arrays."""
        return {key: {"type": s.storage, **s.arrays} for key, s in self.stored.items()}

    def rounded_weights(self) -> list[str]:
        """Return the names of the weights that :meth:`in_storage` rounds.

        Returns
        -------
        list
            The matrices of products, and tables of embeddings.
        """
        roles = self.layer.weight_roles.items()
        kept = (key for key, role in roles if role in (*_FACTORS, _TABLE))
        return [key for key in kept if self.weights[key].ndim > 1]

    def in_storage(self, storage: str) -> LayerSpec:
        """Return the layer with the matrices of its products rounded to a storage type.

        So are tables of embeddings. Biases, and all that is not multiplied by the input or the
        state, stay as they are.

        Parameters
        ----------
        storage
            A key of :data:`npylstm.storage.STORAGE`, such as ``"bfloat16"``.

        Returns
        -------
        LayerSpec
            Its weights are the rounded ones; files hold them in the bits of the storage type.

        Raises
        ------
        FormatError
            If the storage type is unknown or cannot hold the numbers, or a sum has too many terms.
        """
        stored = {}
        for key in self.rounded_weights():
            axis = scale_axis(self.layer, key)
            try:
                stored[key] = StoredWeight.encoded(storage, self.weights[key], axis)
            except FormatError as error:
                raise FormatError(f"{self.name}/{key}: {error}") from None
        weights = {**self.weights, **{k: s.weight for k, s in stored.items()}}
        made = replace(self, weights=weights, stored=stored)
        for problem in made._storage_problems():
            raise FormatError(problem)
        return made

    def _storage_problems(self) -> Iterator[str]:
        for key, stored in self.stored.items():
            axis, ndim = scale_axis(self.layer, key), stored.weight.ndim
            if len(stored.arrays) > 1 and ndim and (stored.axis - axis) % ndim:
                yield f"{self.name}/{key}: expected scales along axis {axis}, got {stored.axis}"
        try:
            self.factors()
        except FormatError as error:
            yield f"{self.name}: {error}"

    def product_type(self, prefix: str = "") -> str:
        """Return how a part of the layer computes its products.

        Parameters
        ----------
        prefix
            Of the part's weights, as in :meth:`Operation.parts`.

        Returns
        -------
        str
            ``"int8"`` or ``"bfloat16"`` if all factors of its products are stored so and its
            products read stored weights; else ``"float32"``: decoded weights, as all others.
        """
        operation = self._parts().get(prefix) if self.stored else None
        if operation is None or not operation.reads_stored_weights:
            return "float32"
        factors = _factor_names(prefix, operation)
        types = {self.stored[key].storage if key in self.stored else "" for key in factors}
        return types.pop() if types in ({"int8"}, {"bfloat16"}) else "float32"

    def _parts(self) -> Mapping[str, Operation]:
        return self.layer.recurrent_parts() or {"": self.layer}

    def factors(self) -> dict[str, Any]:
        """Return the weights as products use them.

        Returns
        -------
        dict
            The weights; those of products that are computed with integers as an
            :class:`~npylstm.integer_matrix.IntegerMatrix`.
        """
        made: dict[str, Any] = dict(self.weights)
        for prefix, operation in self._parts().items() if self.stored else ():
            if self.product_type(prefix) == "int8":
                for key in _factor_names(prefix, operation):
                    arrays = self.stored[key].arrays
                    made[key] = IntegerMatrix(arrays[""], arrays[".scale"])
        return made

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the file by their keys below the layer's, in the order of the file.

        Returns
        -------
        dict
            The weights, or the stored arrays of those in :attr:`stored`.
        """
        arrays: dict[str, Array] = {}
        for key in self.layer.weight_shapes():
            if key in self.stored:
                arrays |= {key + suffix: a for suffix, a in self.stored[key].arrays.items()}
            else:
                arrays[key] = self.weights[key]
        return arrays

    def to_json(self) -> dict[str, Any]:
        """Return name, kind and config, and the storage types of stored weights, as JSON values.

        Returns
        -------
        dict
            ``storage`` is there only if weights are stored in fewer bits.
        """
        entry = {"name": self.name, "kind": self.kind, "config": self.config}
        types = {key: stored.storage for key, stored in self.stored.items()}
        return entry | ({"storage": types} if types else {})

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(array.size for array in self.weights.values())

    @property
    def storage(self) -> str:
        """Storage types of the stored weights; empty if there are none."""
        return ", ".join(sorted({stored.storage for stored in self.stored.values()}))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all weights in a file."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def kind(self) -> str:
        """The operation's name in the registry."""
        return self.layer.kind

    @property
    def config(self) -> dict[str, Any]:
        """The whole config as JSON values."""
        return self.layer.to_json()

    def problems(self, dtype: str) -> Iterator[str]:
        """Yield every problem of the name and the weights.

        Parameters
        ----------
        dtype
            That the weights must have.

        Yields
        ------
        str
            One sentence for each problem.
        """
        if not _NAME.fullmatch(self.name) or self.name in (*RESERVED, ".", ".."):
            yield f"layer name {self.name!r}: empty, reserved, or contains a slash"
        shapes = self.layer.weight_shapes()
        for key in shapes.keys() - self.weights.keys():
            yield f"{self.name}/{key}: missing, expected shape {shapes[key]}"
        for key in self.weights.keys() - shapes.keys():
            yield f"{self.name}/{key}: unexpected, expected only {', '.join(shapes) or 'none'}"
        yield from self._storage_problems()
        for key in shapes.keys() & self.weights.keys():
            array = self.weights[key]
            if array.shape != shapes[key]:
                yield f"{self.name}/{key}: expected shape {shapes[key]}, got {array.shape}"
            elif array.dtype != dtype:
                yield f"{self.name}/{key}: expected {dtype}, got {array.dtype}"
            elif self.layer.holds_infinity and (count := np.count_nonzero(np.isnan(array))):
                yield f"{self.name}/{key}: expected numbers, got {count} nan"
            elif not self.layer.holds_infinity and not np.isfinite(array).all():
                count = np.count_nonzero(~np.isfinite(array))
                yield f"{self.name}/{key}: expected finite numbers, got {count} nan or inf"
