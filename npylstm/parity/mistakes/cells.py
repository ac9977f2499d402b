"""Mistakes inside a recurrent cell: its gates, kernels, biases and formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from npylstm.activations import SIGMOID, Activation
from npylstm.arrays import Array
from npylstm.parity.corrections import Cell, Detail, Found, Subject

__all__ = [
    "ACTIVATIONS", "bias_doubled", "bias_missing", "gates_of_one_letter_permuted",
    "gates_permuted", "kernel_in_other_order", "kernel_transposed", "recurrent_activation",
    "recurrent_kernel_in_other_order", "recurrent_kernel_transposed",
]  # fmt: skip

Options = Iterable[tuple[Detail, Cell]]

# Functions that are tried in place of a layer's activation.
ACTIVATIONS = (
    Activation("linear"), Activation("tanh"), SIGMOID, Activation("relu"),
    Activation("hard_sigmoid_fifth"), Activation("hard_sigmoid_sixth"), Activation("hard_tanh"),
    Activation("softsign"), Activation("softplus"), Activation("elu"), Activation("selu"),
    Activation("silu"), Activation("gelu"), Activation("gelu_tanh"), Activation("mish"),
    Activation("exponential"), Activation("softmax"), Activation("log_softmax"),
    Activation("log_sigmoid"), Activation("hard_silu"),
    Activation.of("relu", negative_slope=0.01), Activation.of("relu", negative_slope=0.1),
    Activation.of("relu", negative_slope=0.2), Activation.of("relu", negative_slope=0.3),
    Activation.of("relu", max_value=6.0),
)  # fmt: skip
_OF_CELLS = tuple(
    a for a in ACTIVATIONS
    if a.name not in ("exponential", "softmax", "log_softmax", "log_sigmoid", "mish", "hard_silu")
    and a.params[:1] not in ((0.1,), (0.2,), (0.3,))
)  # fmt: skip
_GATES = (
    SIGMOID, Activation("hard_sigmoid_fifth"), Activation("hard_sigmoid_sixth"), Activation("tanh"),
    Activation("hard_tanh"), Activation("relu"), Activation("linear"), Activation("softsign"),
    Activation("softmax"),
)  # fmt: skip


def _letter(key: str) -> str:
    return key.partition("_")[0]


def gates_permuted(subject: Subject) -> Found:
    """Gates are read in another order.

    Each framework has its own order of the packed gates, of an LSTM: i f c o (Keras, PyTorch,
    cuDNN), i o f c (ONNX), i c f o (TensorFlow 1); of a GRU z r h (Keras, ONNX) or r z n (PyTorch).
    Source: the layouts in FORMATS of the frameworks' documentation (onnx.ai operators LSTM, GRU;
    pytorch.org nn.LSTM, nn.GRU).
    """
    return subject.in_cells(
        lambda cell: _permuted(cell, ("W", "U", "b", "rb"), {}),
        "in {where}, read the gates in the order {order}",
    )


def gates_of_one_letter_permuted(subject: Subject) -> Found:
    """Gates of only the kernels, one kernel or the biases are read in another order.

    This happens if a converter has separate functions for kernels and biases.
    """
    letters = {"kernels": ("W", "U"), "kernel": ("W",), "recurrent kernel": ("U",),
               "bias": ("b", "rb")}  # fmt: skip

    def change(cell: Cell) -> Options:
        for what, which in letters.items():
            yield from _permuted(cell, which, {"of": what})

    return subject.in_cells(change, "in {where}, read the gates of the {of} in the order {order}")


def _permuted(cell: Cell, letters: Sequence[str], detail: Detail) -> Options:
    gates = cell.layer.gates
    for order in itertools.permutations(gates):
        if order == gates:
            continue
        moved = {
            f"{letter}_{gate}": cell.weights[f"{letter}_{source}"]
            for letter in letters
            for gate, source in zip(gates, order, strict=True)
            if f"{letter}_{gate}" in cell.weights
        }
        if moved:
            yield {"order": " ".join(order), **detail}, cell.with_weights(**moved)


def kernel_transposed(subject: Subject) -> Found:
    """A square kernel is read with rows and columns exchanged, gate by gate.

    PyTorch stores (units, features), Keras (features, units); if both sizes are equal, there is no
    error. Source: pytorch.org nn.LSTM (weight_ih), keras.io LSTMCell.build (kernel).
    """
    return subject.in_cells(
        lambda cell: _transposed(cell, "W"), "in {where}, transpose the kernel of every gate"
    )


def recurrent_kernel_transposed(subject: Subject) -> Found:
    """The recurrent kernel is read with rows and columns exchanged; it is always square.

    Source: pytorch.org nn.LSTM (weight_hh), keras.io LSTMCell.build (recurrent_kernel).
    """
    return subject.in_cells(
        lambda cell: _transposed(cell, "U"), "in {where}, transpose the recurrent kernel"
    )


def _transposed(cell: Cell, letter: str) -> Options:
    own = {k: a.T for k, a in cell.weights.items() if _letter(k) == letter}
    if all(a.shape == cell.weights[k].shape for k, a in own.items()):
        yield {}, cell.with_weights(**own)


def kernel_in_other_order(subject: Subject) -> Found:
    """The bytes of the kernel are read in the other memory order, whole or gate by gate.

    ``reshape`` instead of ``transpose``: rows become pieces of columns, and any shape fits.
    """
    return subject.in_cells(
        lambda cell: _reordered(cell, "W"),
        "in {where}, read the kernel in {order} ({of}), with transpose instead of reshape",
    )


def recurrent_kernel_in_other_order(subject: Subject) -> Found:
    """The bytes of the recurrent kernel are read in the other memory order."""
    return subject.in_cells(
        lambda cell: _reordered(cell, "U"),
        "in {where}, read the recurrent kernel in {order} ({of}), with transpose, not reshape",
    )


def _column_bytes_as_rows(a: Array) -> Array:
    read: Array = a.T.reshape(a.shape)
    return read


def _row_bytes_as_columns(a: Array) -> Array:
    read: Array = a.reshape(a.shape[::-1]).T
    return read


_ORDERS: dict[str, Callable[[Array], Array]] = {
    "row-major order": _column_bytes_as_rows, "column-major order": _row_bytes_as_columns,
}  # fmt: skip


def _reordered(cell: Cell, letter: str) -> Options:
    names = [f"{letter}_{g}" for g in cell.layer.gates]
    arrays = [cell.weights[name] for name in names]
    for order, read in _ORDERS.items():
        each = dict(zip(names, map(read, arrays), strict=True))
        yield {"order": order, "of": "gate by gate"}, cell.with_weights(**each)
        parts = np.split(read(np.concatenate(arrays, axis=1)), len(names), axis=1)
        whole = dict(zip(names, parts, strict=True))
        yield {"order": order, "of": "all gates"}, cell.with_weights(**whole)
        rows = np.split(read(np.concatenate(arrays, axis=0)), len(names), axis=0)
        yield (
            {"order": order, "of": "gates as rows"},
            cell.with_weights(**dict(zip(names, rows, strict=True))),
        )


def bias_missing(subject: Subject) -> Found:
    """Biases are missing: all, or one of the two of a GRU.

    Source: converters that read kernel and recurrent kernel and skip the third array; PyTorch
    modules created with ``bias=False`` and loaded with ``strict=False``.
    """
    return subject.in_cells(
        lambda cell: _other_biases(cell, ("b", "rb", "all"), np.zeros_like),
        "in {where}, add the bias ({of})",
    )


def _other_biases(cell: Cell, choices: Sequence[str], change: Callable[[Array], Array]) -> Options:
    """Yield the cell with all biases changed, or with one of the two kinds."""
    biases = [k for k in cell.weights if _letter(k) in ("b", "rb")]
    for of in choices:
        chosen = [k for k in biases if of in ("all", _letter(k))]
        if chosen and (of == "all" or len(chosen) < len(biases)):
            yield {"of": of}, cell.with_weights(**{k: change(cell.weights[k]) for k in chosen})


def bias_doubled(subject: Subject) -> Found:
    """A bias is added twice: once with the input, once with the recurrent product.

    PyTorch and cuDNN have two biases, Keras has one. A copy of one into both doubles it.
    Source: pytorch.org nn.LSTM (bias_ih, bias_hh).
    """
    return subject.in_cells(
        lambda cell: _other_biases(cell, ("all", "b", "rb"), lambda bias: 2 * bias),
        "in {where}, add the bias once ({of})",
    )


def cell_activation(subject: Subject) -> Found:
    """The cell computes its candidate and output with another function."""
    return subject.in_cells(
        lambda cell: _other_functions(cell, "activation", _OF_CELLS),
        "in {where}, compute with the activation {to} instead of {from}",
    )


def _other_functions(cell: Cell, name: str, functions: Sequence[Activation]) -> Options:
    own = cell.layer.activations.get(name)
    for other in functions if own else ():
        if other != own:
            layer = cell.layer.with_activations({name: other})
            yield {"from": str(own), "to": str(other)}, replace(cell, layer=layer)


def recurrent_activation(subject: Subject) -> Found:
    """The gates are computed with another function.

    ``hard_sigmoid`` was the default of Keras until 2.3, and there are two: slope 1/5 (Keras 1 and
    2, TensorFlow.js) and 1/6 (Keras 3, PyTorch). Source: keras.io release notes 2.3.0 and 3.0.
    """
    return subject.in_cells(
        lambda cell: _other_functions(cell, "recurrent_activation", _GATES),
        "in {where}, compute the gates with {to} instead of {from}",
    )
