"""The table of gate orders and weight layouts, in pure NumPy.

All other code uses only the gates i, f, c, o (GRU: z, r, h), as separate arrays in Keras'
orientation: input kernels (features, units), recurrent kernels (units, units), biases (units,).

======================  ============================  =====================================
source                  gate order along the packed   orientation and biases
                        axis
======================  ============================  =====================================
Keras 2 and 3           i f c o                       columns; one bias
Keras 1                 twelve arrays, stored i c f o one array per gate
Keras GRU               z r h                         columns; one bias, or two kept separate
                                                      (``reset_after``)
CuDNNLSTM in Keras      i f c o                       columns, each gate's kernel scrambled
                                                      (see :func:`lstm_from_cudnn`); two
                                                      biases, to be added
CuDNNGRU in Keras       z r h                         as CuDNNLSTM; two biases, kept separate
PyTorch LSTM            i f g o, where g is c         rows; two biases, to be added
PyTorch GRU             r z n, where n is h           rows; two biases, kept separate
PyTorch RNN             one                           rows; two biases, to be added
======================  ============================  =====================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "GATE_ORDER",
    "KERAS1_GRU_ORDER",
    "KERAS1_ORDER",
    "gru_from_cudnn",
    "gru_from_keras",
    "gru_from_keras1",
    "gru_from_torch",
    "lstm_from_cudnn",
    "lstm_from_keras",
    "lstm_from_keras1",
    "lstm_from_torch",
    "rnn_from_torch",
    "split_gates",
]

Array = npt.NDArray[Any]

GATE_ORDER = {"keras": "ifco", "cudnn": "ifco", "torch": "ifco"}
TORCH_GRU_ORDER = "rzh"
KERAS_GRU_ORDER = "zrh"

# The order in which Keras 1 lists the twelve arrays of an LSTM.
KERAS1_ORDER = tuple(f"{letter}_{gate}" for gate in "icfo" for letter in "WUb")
KERAS1_GRU_ORDER = tuple(f"{letter}_{gate}" for gate in "zrh" for letter in "WUb")


def split_gates(packed: Array, order: str) -> dict[str, Array]:
    """Split an array along its last axis into one array per gate, keyed ``"i" "f" "c" "o"``."""
    return dict(zip(order, np.split(packed, len(order), axis=-1), strict=True))


def _named(letter: str, gates: Mapping[str, Array], order: str = "ifco") -> dict[str, Array]:
    return {f"{letter}_{gate}": gates[gate] for gate in order}


def lstm_from_keras(kernel: Array, recurrent_kernel: Array, bias: Array | None) -> dict[str, Array]:
    """Split Keras' three packed arrays.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 4 units), (units, 4 units), (4 units,) or None.
    """
    order = GATE_ORDER["keras"]
    weights = _named("W", split_gates(kernel, order))
    weights |= _named("U", split_gates(recurrent_kernel, order))
    if bias is not None:
        weights |= _named("b", split_gates(bias, order))
    return weights


def gru_from_keras(kernel: Array, recurrent_kernel: Array, bias: Array | None) -> dict[str, Array]:
    """Split Keras' packed arrays of a GRU.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 3 units), (units, 3 units), and (3 units,), or (2, 3 units) with ``reset_after``:
        the input's and the recurrent one; or None.
    """
    arrays = {"W": kernel, "U": recurrent_kernel}
    if bias is not None:
        arrays |= {"b": bias} if bias.ndim == 1 else {"b": bias[0], "rb": bias[1]}
    weights: dict[str, Array] = {}
    for letter, array in arrays.items():
        weights |= _named(letter, split_gates(array, KERAS_GRU_ORDER), "zrh")
    return weights


def gru_from_cudnn(kernel: Array, recurrent_kernel: Array, bias: Array) -> dict[str, Array]:
    """Split the arrays of Keras' CuDNNGRU, with ``reset_after``; see :func:`lstm_from_cudnn`.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 3 units), (units, 3 units), (6 units,): the input's biases, then the recurrent.
    """
    order = KERAS_GRU_ORDER
    W = {g: k.reshape(k.shape[::-1]).T for g, k in split_gates(kernel, order).items()}
    U = {g: k.T for g, k in split_gates(recurrent_kernel, order).items()}
    weights = _named("W", W, order) | _named("U", U, order)
    for letter, half in zip(("b", "rb"), np.split(bias, 2), strict=True):
        weights |= _named(letter, split_gates(half, order), order)
    return weights


def gru_from_keras1(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the nine arrays of a Keras 1 GRU by name, from Keras 1's order."""
    named = dict(zip(KERAS1_GRU_ORDER, arrays, strict=True))
    return {f"{letter}_{gate}": named[f"{letter}_{gate}"] for letter in "WUb" for gate in "zrh"}


def lstm_from_keras1(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the twelve arrays of a Keras 1 LSTM by name, from Keras 1's order."""
    named = dict(zip(KERAS1_ORDER, arrays, strict=True))
    return {f"{letter}_{gate}": named[f"{letter}_{gate}"] for letter in "WUb" for gate in "ifco"}


def lstm_from_cudnn(kernel: Array, recurrent_kernel: Array, bias: Array) -> dict[str, Array]:
    """Split the arrays of Keras' CuDNNLSTM.

    The layer passes the memory of each gate's array to cuDNN, and cuDNN reads it as
    (units, features): so a gate's kernel has the right numbers in the wrong shape. The recurrent
    kernels are square, so they are transposed. An LSTM uses only the sum of the input bias and the
    recurrent bias.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 4 units), (units, 4 units), (8 units,).
    """
    order = GATE_ORDER["cudnn"]
    W = {g: k.reshape(k.shape[::-1]).T for g, k in split_gates(kernel, order).items()}
    U = {g: k.T for g, k in split_gates(recurrent_kernel, order).items()}
    b = split_gates(np.add(*np.split(bias, 2)), order)
    return _named("W", W) | _named("U", U) | _named("b", b)


def lstm_from_torch(
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None = None,
) -> dict[str, Array]:
    """Split the arrays of one layer and direction of PyTorch's LSTM.

    Parameters
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh
        (4 units, features), (4 units, units or projection), (4 units,) twice or None.
    weight_hr
        (projection, units) or None.
    """
    order = GATE_ORDER["torch"]
    weights = _named("W", split_gates(weight_ih.T, order))
    weights |= _named("U", split_gates(weight_hh.T, order))
    if bias_ih is not None and bias_hh is not None:
        weights |= _named("b", split_gates(bias_ih + bias_hh, order))
    return weights if weight_hr is None else weights | {"P": weight_hr.T}


def gru_from_torch(
    weight_ih: Array, weight_hh: Array, bias_ih: Array | None, bias_hh: Array | None
) -> dict[str, Array]:
    """Split the arrays of one layer and direction of PyTorch's GRU; the biases stay separate.

    Parameters
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh
        (3 units, features), (3 units, units), (3 units,) twice or None.
    """
    arrays = {"W": weight_ih.T, "U": weight_hh.T}
    if bias_ih is not None and bias_hh is not None:
        arrays |= {"b": bias_ih, "rb": bias_hh}
    weights: dict[str, Array] = {}
    for letter, array in arrays.items():
        weights |= _named(letter, split_gates(array, TORCH_GRU_ORDER), "zrh")
    return weights


def rnn_from_torch(
    weight_ih: Array, weight_hh: Array, bias_ih: Array | None, bias_hh: Array | None
) -> dict[str, Array]:
    """Transpose the arrays of one layer and direction of PyTorch's RNN.

    Parameters
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh
        (units, features), (units, units), (units,) twice or None.
    """
    weights = {"W_h": weight_ih.T, "U_h": weight_hh.T}
    if bias_ih is not None and bias_hh is not None:
        weights["b_h"] = bias_ih + bias_hh
    return weights
