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
ONNX LSTM               i o f c; peepholes i o f      rows, an axis for directions in front; two
                                                      biases in one array, to be added
ONNX GRU                z r h                         as LSTM; two biases, kept separate
ONNX RNN                one                           as LSTM; two biases, to be added
======================  ============================  =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "KERAS1_GRU_ORDER", "KERAS1_ORDER", "gru_from_cudnn", "gru_from_keras", "gru_from_keras1",
    "gru_from_onnx", "gru_from_torch", "lstm_from_cudnn", "lstm_from_keras", "lstm_from_keras1",
    "lstm_from_onnx", "lstm_from_torch", "rnn_from_onnx", "rnn_from_torch", "torch_from_keras_gru",
]  # fmt: skip

Array = npt.NDArray[Any]

_GATES = "ifcozrh"  # npylstm lists the gates of a layer in this order
GATE_ORDER = {"keras": "ifco", "cudnn": "ifco", "torch": "ifco"}
ONNX_LSTM_ORDER, ONNX_GRU_ORDER, ONNX_PEEPHOLE_ORDER = "iofc", "zrh", "iof"
TORCH_GRU_ORDER = "rzh"
KERAS_GRU_ORDER = "zrh"

# The order in which Keras 1 lists the twelve arrays of an LSTM.
KERAS1_ORDER = tuple(f"{letter}_{gate}" for gate in "icfo" for letter in "WUb")
KERAS1_GRU_ORDER = tuple(f"{letter}_{gate}" for gate in "zrh" for letter in "WUb")


def _split(
    order: str, W: Array, U: Array, b: Array | None = None, rb: Array | None = None
) -> dict[str, Array]:
    """Split arrays along their last axes into one array per gate, named ``W_i``; omit None."""
    weights: dict[str, Array] = {}
    for letter, packed in {"W": W, "U": U, "b": b, "rb": rb}.items():
        if packed is not None:
            gates = dict(zip(order, np.split(packed, len(order), axis=-1), strict=True))
            weights |= {f"{letter}_{gate}": gates[gate] for gate in sorted(order, key=_GATES.index)}
    return weights


def _unscrambled(
    order: str, W: Array, U: Array, b: Array, rb: Array | None = None
) -> dict[str, Array]:
    """Split the arrays of a CuDNN layer, and bring each gate's kernels to Keras' orientation."""
    weights = _split(order, W, U, b, rb)
    for gate in order:
        W_gate = weights[f"W_{gate}"]
        weights[f"W_{gate}"] = W_gate.reshape(W_gate.shape[::-1]).T
        weights[f"U_{gate}"] = weights[f"U_{gate}"].T
    return weights


def _listed(arrays: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
    """Return arrays by name, in the order in which npylstm lists the gates."""
    named = dict(zip(names, arrays, strict=True))
    gates = sorted({name[-1] for name in names}, key=_GATES.index)
    return {f"{letter}_{gate}": named[f"{letter}_{gate}"] for letter in "WUb" for gate in gates}


def lstm_from_keras(kernel: Array, recurrent_kernel: Array, bias: Array | None) -> dict[str, Array]:
    """Split Keras' three packed arrays.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 4 units), (units, 4 units), (4 units,) or None.
    """
    return _split(GATE_ORDER["keras"], kernel, recurrent_kernel, bias)


def gru_from_keras(kernel: Array, recurrent_kernel: Array, bias: Array | None) -> dict[str, Array]:
    """Split Keras' packed arrays of a GRU.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 3 units), (units, 3 units), and (3 units,), or (2, 3 units) with ``reset_after``:
        the input's and the recurrent one; or None.
    """
    biases = [bias] if bias is None or bias.ndim == 1 else [bias[0], bias[1]]
    return _split(KERAS_GRU_ORDER, kernel, recurrent_kernel, *biases)


def torch_from_keras_gru(
    kernel: Array, recurrent_kernel: Array, bias: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the arrays of Keras' GRU as PyTorch packs them, to run them there.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        As for :func:`gru_from_keras`, with ``reset_after``.

    Returns
    -------
    weight_ih, weight_hh, bias_ih, bias_hh
        (3 units, features), (3 units, units), (3 units,) twice.
    """
    order = [KERAS_GRU_ORDER.index(gate) for gate in TORCH_GRU_ORDER]

    def packed(array: Array) -> Array:
        gates = np.split(array, len(order), axis=-1)
        rows: Array = np.concatenate([gates[k] for k in order], axis=-1).T
        return rows

    return packed(kernel), packed(recurrent_kernel), packed(bias[0]), packed(bias[1])


def gru_from_cudnn(kernel: Array, recurrent_kernel: Array, bias: Array) -> dict[str, Array]:
    """Split the arrays of Keras' CuDNNGRU, with ``reset_after``; see :func:`lstm_from_cudnn`.

    Parameters
    ----------
    kernel, recurrent_kernel, bias
        (features, 3 units), (units, 3 units), (6 units,): the input's biases, then the recurrent.
    """
    return _unscrambled(KERAS_GRU_ORDER, kernel, recurrent_kernel, *np.split(bias, 2))


def gru_from_keras1(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the nine arrays of a Keras 1 GRU by name, from Keras 1's order."""
    return _listed(arrays, KERAS1_GRU_ORDER)


def lstm_from_keras1(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the twelve arrays of a Keras 1 LSTM by name, from Keras 1's order."""
    return _listed(arrays, KERAS1_ORDER)


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
    summed = np.add(*np.split(bias, 2))
    return _unscrambled(GATE_ORDER["cudnn"], kernel, recurrent_kernel, summed)


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
    bias = _sum(bias_ih, bias_hh)
    weights = _split(GATE_ORDER["torch"], weight_ih.T, weight_hh.T, bias)
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
    return _split(TORCH_GRU_ORDER, weight_ih.T, weight_hh.T, bias_ih, bias_hh)


def rnn_from_torch(
    weight_ih: Array, weight_hh: Array, bias_ih: Array | None, bias_hh: Array | None
) -> dict[str, Array]:
    """Transpose the arrays of one layer and direction of PyTorch's RNN.

    Parameters
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh
        (units, features), (units, units), (units,) twice or None.
    """
    return _split("h", weight_ih.T, weight_hh.T, _sum(bias_ih, bias_hh))


def lstm_from_onnx(W: Array, R: Array, B: Array | None, P: Array | None = None) -> dict[str, Array]:
    """Split the arrays of one direction of ONNX' LSTM.

    Parameters
    ----------
    W, R, B, P
        (4 units, features), (4 units, units), (8 units,) or None, (3 units,) or None.
    """
    weights = _split(ONNX_LSTM_ORDER, W.T, R.T, _sum(*_halves(B)))
    if P is not None:
        gates = dict(zip(ONNX_PEEPHOLE_ORDER, np.split(P, 3), strict=True))
        weights |= {f"p_{gate}": gates[gate] for gate in "ifo"}
    return weights


def gru_from_onnx(W: Array, R: Array, B: Array | None, reset_after: bool) -> dict[str, Array]:
    """Split the arrays of one direction of ONNX' GRU.

    Parameters
    ----------
    W, R, B
        (3 units, features), (3 units, units), (6 units,) or None.
    reset_after
        ``linear_before_reset``: the biases stay separate; else they are added.
    """
    biases = _halves(B) if reset_after else (_sum(*_halves(B)), None)
    return _split(ONNX_GRU_ORDER, W.T, R.T, *biases)


def rnn_from_onnx(W: Array, R: Array, B: Array | None) -> dict[str, Array]:
    """Split the arrays of one direction of ONNX' RNN.

    Parameters
    ----------
    W, R, B
        (units, features), (units, units), (2 units,) or None.
    """
    return _split("h", W.T, R.T, _sum(*_halves(B)))


def _halves(bias: Array | None) -> tuple[Array | None, Array | None]:
    return (None, None) if bias is None else tuple(np.split(bias, 2))  # type: ignore[return-value]


def _sum(bias_ih: Array | None, bias_hh: Array | None) -> Array | None:
    return None if bias_ih is None or bias_hh is None else bias_ih + bias_hh
