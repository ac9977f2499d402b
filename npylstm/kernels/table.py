"""The table of kernels: one row each.

A row contains the kind of operation, the kernel, and its columns
(:mod:`npylstm.kernels.arguments`). ``fits`` depends on the config of an operation, not on sizes, so
that the kernel of an operation is chosen once, when the model is loaded. ``pack`` arranges the
weights by column, once; ``bind`` computes the other columns of a call. ``X`` and ``Y``, activations
and products are filled in for all kernels with such columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npylstm.activations import TANH, Activation
from npylstm.arrays import Array
from npylstm.kernels import bind_attention as attention
from npylstm.kernels import bind_elementwise as elementwise
from npylstm.kernels import bind_joins as joins
from npylstm.kernels import bind_layers as layers
from npylstm.kernels import bind_matrices as matrices
from npylstm.kernels import bind_recurrent as recurrent
from npylstm.kernels import bind_reductions as reductions
from npylstm.kernels import bind_views as views
from npylstm.kernels.arguments import (
    ACTIVATION,
    ATTENTION,
    CHOICE,
    COMBINE,
    CONVOLUTION,
    COPY,
    DENSE,
    EMBEDDING,
    KERNEL,
    MASKING,
    MATRICES,
    MOVE,
    NORMALIZE,
    ONE_HOT,
    POOL,
    RECURRENT,
    REDUCE,
    RESCALE,
    SCALE,
    SOFTMAX,
    WIDTH,
)
from npylstm.kernels.calls import Call, Place
from npylstm.kernels.library import Kernel, KernelLibrary
from npylstm.kernels.packing import VectorType

__all__ = [
    "EXAMPLES",
    "FETCH",
    "KERNELS",
    "PRODUCTS",
    "STORE",
    "STORED",
    "Product",
    "Row",
    "alias",
    "is_alias",
    "row_of",
]

Weights = Mapping[str, Array]
Columns = dict[str, int]
ANY_AXIS = -1000


def _always(operation: Any) -> bool:
    return True


def _nothing(operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
    return {}


class Row(NamedTuple):
    """A kernel for one kind of operation.

    Attributes
    ----------
    serves
        The kind of operation.
    kernel
        The kernel.
    columns
        Its columns.
    bind
        Computes columns of a call; a list for several rows.
    pack
        Arranges weights by column.
    fits
        Whether the kernel can compute an operation of this kind.
    weights
        The types of weights that it can read; empty: all.
    in_place
        Whether the output may be the memory of an input of its shape: no entry of this input is
        read after an entry of another row, or another entry of an elementwise operation, is
        written.
    softmax
        The axis that activations may mix: the last for kernels that apply them to whole rows.
    example
        Arguments of an operation that the kernel computes, for ``npylstm doctor``; None if another
        row shows the kernel.
    example_inputs
        Number of its inputs, all the same tensor.
    """

    serves: str
    kernel: Kernel
    columns: Any
    bind: Callable[[Any, Call], Columns | list[Columns]]
    pack: Callable[[Any, Weights, VectorType], dict[str, Array]] = _nothing
    fits: Callable[[Any], bool] = _always
    weights: tuple[str, ...] = ()
    in_place: bool = False
    softmax: int | None = None
    example: Mapping[str, Any] | None = None
    example_inputs: int = 1

    def kernels(self, weights: str) -> Iterator[Kernel]:
        """Yield the kernel, and those that it calls, for this type of weights."""
        yield self.kernel
        if hasattr(self.columns, "MULTIPLY"):
            yield from filter(None, PRODUCTS[weights])

    def accepts(self, operation: Any, weights: str) -> bool:
        """Whether the kernel can compute an operation, with its activations and weights."""
        dtype = "float64" if weights == "float64" else "float32"
        is_served = dtype in self.kernel.dtypes and weights in (self.weights or PRODUCTS)
        if not is_served or not self.fits(operation):
            return False
        for _, activation in _activations(operation):
            fits = activation.axis is None or self.softmax in (activation.axis, ANY_AXIS)
            if activation.row.code is None or not fits:
                return False
        return True

    def packed(self, operation: Any, weights: Weights, vector: VectorType) -> dict[str, Array]:
        """Return the kernel's parameters, packed by column."""
        parts = self.pack(operation, weights, vector)
        for code, activation in self._coded(operation):
            parts[f"{code}_PARAM"] = np.array(activation.params or (0.0,), vector.dtype)
        return parts

    def bound(self, operation: Any, call: Call, parameters: Mapping[str, int]) -> list[Array]:
        """Return the rows of a call."""
        values = dict(parameters)
        for code, activation in self._coded(operation):
            assert activation.row.code is not None  # accepts has checked it
            values[code] = activation.row.code
        if hasattr(self.columns, "MULTIPLY"):
            product = PRODUCTS[call.vector.weights]
            values |= product.addresses(call.library, call.vector.dtype, self.columns)
        values |= {"X": call.inputs[0].start if call.inputs else 0, "Y": call.outputs[0].start}
        made = self.bind(operation, call)
        several = made if isinstance(made, list) else [made]
        return [self.row(call.library, call.vector.dtype, values | own) for own in several]

    def _coded(self, operation: Any) -> Iterator[tuple[str, Activation]]:
        """Yield the activations that the kernel computes by a code, with its column."""
        return ((c, a) for c, a in _activations(operation) if hasattr(self.columns, c))

    def row(self, library: KernelLibrary, dtype: str, values: Mapping[str, int]) -> Array:
        """Return a row of a program with these columns."""
        row = np.zeros(WIDTH, np.int64)
        row[KERNEL] = library.address(self.kernel, dtype)
        for name, value in values.items():
            row[getattr(self.columns, name)] = value
        return row


def _activations(operation: Any) -> Iterator[tuple[str, Activation]]:
    """Yield the activations of an operation, with the column of their code."""
    for field, code in (("activation", "CODE"), ("recurrent_activation", "RECURRENT_CODE")):
        activation = getattr(operation, field, None)
        if activation is not None:
            yield code, activation


_FLOAT32 = ("float32",)
_MULTIPLY = Kernel("products", "multiply")


class Product(NamedTuple):
    """How products read their weights.

    Attributes
    ----------
    multiply
        The kernel of the product.
    round_rows
        The kernel that rounds rows before it; None if it reads them as they are.
    lstm_row
        The kernel of a step of a single row of an LSTM; None if it is part of the LSTM's.
    """

    multiply: Kernel
    round_rows: Kernel | None = None
    lstm_row: Kernel | None = None

    def addresses(self, library: KernelLibrary, dtype: str, columns: Any) -> Columns:
        """Return the kernels' addresses, by the names of a kernel's columns."""
        return {
            name.upper(): library.address(kernel, dtype)
            for name, kernel in self._asdict().items()
            if kernel is not None and hasattr(columns, name.upper())
        }


# By the type of the weights; see npylstm.graph.parts.LayerSpec.product_type.
PRODUCTS = {
    "float32": Product(_MULTIPLY),
    "float64": Product(_MULTIPLY),
    "bfloat16": Product(Kernel("products", "multiply_bfloat16", _FLOAT32),
                        lstm_row=Kernel("lstm_rows", "lstm_row_bfloat16", _FLOAT32)),
    "int8": Product(Kernel("integer_products", "multiply_int8", _FLOAT32),
                    Kernel("integer_products", "round_rows", _FLOAT32),
                    Kernel("integer_rows", "lstm_row_int8", _FLOAT32)),
}  # fmt: skip
STORED = ("bfloat16", "int8")  # types of weights in fewer bits than the model's dtype
_NORMALIZE, _POOL = Kernel("normalizing", "normalize"), Kernel("reductions", "pool")
_MOVE, _COMBINE = Kernel("moves", "move"), Kernel("elementwise", "combine")
_ATTEND = Kernel("attention", "attend")
_MATRICES = Kernel("matrices", "multiply_matrices")

_ROWS = (
    Row("lstm", Kernel("recurrent", "lstm"), RECURRENT, recurrent.bind_lstm, recurrent.pack_lstm,
        fits=lambda layer: layer.clip is None and not (
            layer.peepholes or layer.coupled or layer.output_activation),
        example={"features": 5, "units": 20}),
    Row("gru", Kernel("recurrent", "gru"), RECURRENT, recurrent.bind_gru, recurrent.pack_gru,
        fits=lambda layer: layer.reset_after and layer.clip is None,
        example={"features": 5, "units": 20}),
    Row("gru", Kernel("recurrent", "gru_reset_before"), RECURRENT,
        recurrent.bind_gru_reset_before, recurrent.pack_gru_reset_before,
        fits=lambda layer: not layer.reset_after and layer.clip is None,
        example={"features": 5, "units": 20, "reset_after": False}),
    Row("simple_rnn", Kernel("recurrent", "simple_rnn"), RECURRENT, recurrent.bind_simple_rnn,
        recurrent.pack_simple_rnn, fits=lambda layer: layer.clip is None,
        example={"features": 5, "units": 20}),
    Row("dense", Kernel("dense", "dense_narrow"), DENSE, layers.bind_dense_narrow,
        layers.pack_dense_narrow, fits=lambda layer: layer.units <= layers.NARROW_UNITS,
        weights=("float32", "float64", "bfloat16"), softmax=-1,
        example={"features": 5, "units": 20}),
    Row("dense", Kernel("dense", "dense"), DENSE, layers.bind_dense, layers.pack_dense, softmax=-1,
        example={"features": 5, "units": layers.NARROW_UNITS + 20}),
    Row("conv1d", Kernel("layers", "convolve"), CONVOLUTION, layers.bind_convolution,
        layers.pack_convolution, softmax=-1,
        fits=lambda layer: layer.groups == 1 or layer.activation.row.elementwise,
        example={"features": 5, "units": 20, "size": 3}),
    Row("embedding", Kernel("layers", "embed"), EMBEDDING, layers.bind_embedding,
        layers.pack_embedding, example={"vocabulary": 9, "units": 20}),
    Row("one_hot", Kernel("layers", "one_hot"), ONE_HOT, layers.bind_one_hot,
        example={"depth": 3, "on": 2.0, "off": 3.0}),
    Row("activation", Kernel("layers", "activation"), ACTIVATION, layers.bind_activation,
        in_place=True, softmax=-1, example={"activation": TANH}),
    Row("transpose", _MOVE, MOVE, views.bind_move, example={"axes": (1, 0, 2)}),
    Row("reduce", Kernel("reductions", "reduce"), REDUCE, reductions.bind_reduce,
        fits=reductions.can_reduce, example={"operation": "mean", "axes": (1,)}),
    Row("activation", Kernel("reductions", "softmax"), SOFTMAX, reductions.bind_softmax,
        fits=reductions.is_softmax, softmax=ANY_AXIS,
        example={"activation": Activation("softmax", (1,))}),
    *(Row(kind, _NORMALIZE, NORMALIZE, reductions.bind_normalization,
          reductions.pack_normalization, in_place=True, example=example)
      for kind, example in (("layer_normalization", {"shape": (5,), "epsilon": 0.001}),
                            ("rms_normalization", None))),
    Row("pool1d", _POOL, POOL, reductions.bind_pool, fits=reductions.can_pool,
        example={"operation": "max", "size": 2, "stride": 2}),
    Row("pool", _POOL, POOL, reductions.bind_pool, fits=reductions.can_pool),
    Row("masking", Kernel("reductions", "mask_steps"), MASKING, reductions.bind_masking,
        example={}),
    *(Row(kind, _MOVE, MOVE, views.bind_move)
      for kind in ("expand", "flip", "select", "slice", "sliding_windows")),
    Row("concatenate", _MOVE, MOVE, joins.bind_concatenate),
    Row("stack", _MOVE, MOVE, joins.bind_stack),
    Row("repeat", _MOVE, MOVE, joins.bind_repeat),
    Row("pad", _MOVE, MOVE, joins.bind_pad),
    Row("full", _MOVE, MOVE, joins.bind_full),
    Row("constant", _MOVE, MOVE, joins.bind_constant, elementwise.pack_constant),
    Row("arithmetic", _COMBINE, COMBINE, elementwise.bind_arithmetic,
        fits=elementwise.can_combine, in_place=True,
        example={"operation": "multiply", "number": 3.0}),
    Row("prelu", _COMBINE, COMBINE, elementwise.bind_prelu, elementwise.pack_slopes,
        in_place=True),
    Row("where", Kernel("elementwise", "choose"), CHOICE, elementwise.bind_choice,
        example={"x": 2.0, "y": 3.0}),
    Row("rescaling", Kernel("elementwise", "rescale"), RESCALE, elementwise.bind_rescaling,
        in_place=True, example={"scale": 0.5, "offset": 3.0}),
    Row("batch_normalization", Kernel("elementwise", "scale"), SCALE, elementwise.bind_scale,
        elementwise.pack_scale, in_place=True,
        example={"features": 5, "axis": -1, "epsilon": 0.001}),
    Row("attention", _ATTEND, ATTENTION, attention.bind_attention,
        attention.pack_attention, example={}, example_inputs=2),
    Row("multi_head_attention", _ATTEND, ATTENTION,
        attention.bind_heads, attention.pack_heads, example_inputs=2,
        example=dict.fromkeys(("query_features", "value_features", "key_features", "units"), 5)
        | {"heads": 2, "key_units": 17, "value_units": 3}),
    Row("matmul", _MATRICES, MATRICES, matrices.bind_matmul),
    Row("dot", _MATRICES, MATRICES, matrices.bind_dot, example={"axes": (2, 2)}, example_inputs=2),
)  # fmt: skip

# Copies between tensors and states, for graphs that read or set states.
FETCH, STORE = (Row("", Kernel("layers", name), COPY, lambda *_: {}) for name in ("fetch", "store"))

# Operations for a check of their kernels, with their numbers of inputs.
EXAMPLES = tuple(
    (row.serves, row.example, row.example_inputs) for row in _ROWS if row.example is not None
)

KERNELS = tuple(dict.fromkeys((
    *(kernel for product in PRODUCTS.values() for kernel in product if kernel is not None),
    *(row.kernel for row in (*_ROWS, FETCH, STORE)),
)))  # fmt: skip

# Kinds whose output is the input's memory with another shape.
_ALIASES = ("identity", "reshape")


def is_alias(operation: Any) -> bool:
    """Whether the output always shares the input's memory."""
    return operation.kind in _ALIASES


def alias(operation: Any, inputs: Sequence[Place]) -> int | None:
    """Return where the output begins if it shares the memory of the first input, contiguous."""
    if is_alias(operation):
        return inputs[0].start
    row = row_of(operation, "float32")
    return views.alias_of(operation, inputs) if row and row.bind is views.bind_move else None


def row_of(operation: Any, weights: str) -> Row | None:
    """Return the first row whose kernel computes an operation; None if there is none.

    ``weights`` is a key of :data:`PRODUCTS`.
    """
    rows = (row for row in _ROWS if row.serves == operation.kind)
    return next((row for row in rows if row.accepts(operation, weights)), None)
