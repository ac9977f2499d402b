"""PyTorch's recurrent modules: stacks of layers and directions, built from npylstm's layers.

The importers of programs and of state_dicts both use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from npylstm.activations import Activation
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm_converters import layouts

__all__ = ["MODES", "Mode", "Weights", "make_layer"]


@dataclass(frozen=True)
class Weights:
    """The arrays of one layer and direction, with PyTorch's names."""

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None = None
    bias_hh: Array | None = None
    weight_hr: Array | None = None


@dataclass(frozen=True)
class Mode:
    """A kind of recurrent module: the number of packed gates, and its options."""

    gates: int
    states: int
    options: dict[str, Any]


MODES: dict[str, Mode] = {
    "LSTM": Mode(4, 2, {}),
    "GRU": Mode(3, 1, {}),
    "RNN_TANH": Mode(1, 1, {}),
    "RNN_RELU": Mode(1, 1, {"activation": Activation("relu")}),
}


def make_layer(
    mode: str, directions: Sequence[Weights], batch_first: bool
) -> tuple[Operation, dict[str, Array]]:
    """Return one layer of a stack: a recurrent layer, or a bidirectional one for two directions.

    It returns sequences and its state. Outputs beyond a sequence's length are zeros, as in
    ``pad_packed_sequence``.

    Parameters
    ----------
    mode
        A key of :data:`MODES`, PyTorch's name.
    directions
        Weights of the forward and, in a bidirectional module, of the backward direction.
    batch_first
        Whether the axes are (batch, steps, features), or (steps, batch, features).
    """
    made = [_make_direction(mode, w, batch_first, bool(k)) for k, w in enumerate(directions)]
    if len(made) == 1:
        return made[0]
    (forward, forward_weights), (backward, backward_weights) = made
    weights = {f"forward/{k}": w for k, w in forward_weights.items()}
    weights |= {f"backward/{k}": w for k, w in backward_weights.items()}
    return Bidirectional(forward, backward), weights


def _make_direction(
    mode: str, w: Weights, batch_first: bool, backwards: bool
) -> tuple[Operation, dict[str, Array]]:
    kind = MODES[mode]
    options: dict[str, Any] = {
        "features": w.weight_ih.shape[1],
        "units": w.weight_ih.shape[0] // kind.gates,
        "use_bias": w.bias_ih is not None,
        "return_sequences": True,
        "return_state": True,
        "go_backwards": backwards,
        "time_major": not batch_first,
        "zero_output_for_mask": True,
        **kind.options,
    }
    arrays = (w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    if mode == "LSTM":
        projection = 0 if w.weight_hr is None else w.weight_hr.shape[0]
        layer = LSTM(**options, projection=projection)
        return layer, layouts.lstm_from_torch(*arrays, w.weight_hr)
    if mode == "GRU":
        return GRU(**options, reset_after=True), layouts.gru_from_torch(*arrays)
    return SimpleRNN(**options), layouts.rnn_from_torch(*arrays)
