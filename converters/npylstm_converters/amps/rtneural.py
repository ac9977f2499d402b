"""Captures of AIDA-X (``.json``, ``.aidax``), and other networks of RTNeural.

The layouts are those of Keras. What RTNeural does not look at is accepted only where it makes no
difference: its LSTM and GRU compute sigmoid and tanh, whatever ``activation`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.activations import LINEAR, Activation
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense
from npylstm.ops.normalization import BatchNormalization
from npylstm.ops.pointwise import ActivationLayer, PReLU, Rescaling
from npylstm_converters import layouts
from npylstm_converters.amps.parts import (
    add_skip,
    gain_of,
    read_metadata,
    read_rate,
    scale_audio,
    start,
)
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.toolkit.draft import Draft
from npylstm_converters.toolkit.json_files import (
    listed_shape,
    read_choice,
    read_numbers,
    read_size,
)
from npylstm_converters.toolkit.ledger import became
from npylstm_converters.toolkit.translation import Row, table, translate

__all__ = ["rtneural"]


def rtneural(
    draft: Draft,
    in_shape: Any,
    layers: Any,
    in_skip: Any = 0,
    in_gain: Any = 0.0,
    out_gain: Any = 0.0,
    input_batch: Any = None,
    output_batch: Any = None,
    metadata: Any = None,
    samplerate: Any = None,
    author: Any = None,
    esr: Any = None,
) -> None:
    """Translate a file of RTNeural.

    Parameters
    ----------
    draft
        The model.
    in_shape, layers
        Of RTNeural.
    in_skip, in_gain, out_gain, input_batch, output_batch, metadata
        Of AIDA-X: 1 adds the input to the output; gains in dB; a recorded run without the gains.
    samplerate, author, esr
        The metadata of some files.

    Raises
    ------
    UnsupportedError, Refusal
        Lists every layer that is not supported.
    FormatError
        If it is damaged.
    """
    if not isinstance(in_shape, list) or not isinstance(layers, list) or not layers:
        raise FormatError("expected lists in_shape and layers")
    if len(in_shape) > 3:
        raise Refusal(f"in_shape of {len(in_shape)} axes is not supported, only (batch, steps, n)")
    features = read_size("in_shape", in_shape[-1] if in_shape else None)
    if type(in_skip) is not int or in_skip not in (0, 1):
        raise Refusal(f"in_skip={in_skip!r:.60} is not supported, only 0 or 1")
    about = read_metadata(metadata, author=author, esr=esr)
    own = metadata.get("samplerate") if isinstance(metadata, Mapping) else None
    draft.about |= about | read_rate(own, samplerate)
    gains = gain_of("in_gain", in_gain), gain_of("out_gain", out_gain)
    start(draft, features)
    scale_audio(draft, gains[0])
    before = draft.last
    _add_layers(draft, layers)
    if in_skip:
        if draft.features != 1:
            raise Refusal(f"in_skip with {draft.features} outputs is not supported, only 1")
        add_skip(draft, before, 1)
    if gains[1] != 1:
        draft.add("out_gain", Rescaling(gains[1]))
    _keep_case(draft, input_batch, output_batch, features, gains)


def _keep_case(draft: Draft, x: Any, y: Any, features: int, gains: tuple[float, float]) -> None:
    """Keep the run that AIDA-X's trainer recorded; it knows neither gains nor knobs."""
    if x is None and y is None:
        return
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not x:
        raise FormatError("input_batch, output_batch: expected two lists of one length")
    size = len(x)
    arrays = [read_numbers(n, v, (size,)) for n, v in (("input_batch", x), ("output_batch", y))]
    if features != 1 or draft.features != 1 or gains != (1.0, 1.0):
        draft.decisions.append(
            "input_batch, output_batch: not kept: recorded without gain and knobs"
        )
    else:
        draft.case = (arrays[0].reshape(1, size, 1), arrays[1].reshape(1, size, 1))
        draft.about["recorded_by"] = "the capture's author"


def _add_layers(draft: Draft, layers: Sequence[Any]) -> None:
    reasons = Reasons()
    for k, entry in enumerate(layers):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("shape"), list):
            raise FormatError(f"layers[{k}]: expected an object with a shape")
        shape = entry["shape"]
        units = read_size(f"layers[{k}]: shape", shape[-1] if shape else None)
        kind, options = entry.get("type"), {a: v for a, v in entry.items() if a != "type"}
        label = f"layers[{k}] ({kind if isinstance(kind, str) else '?'})"
        if not isinstance(kind, str) or kind not in _LAYERS:
            reasons.add(f"layers[{k}]: type {kind!r:.60} is not supported")
            draft.stand_in(units)
            continue
        try:
            translate(_LAYERS[kind], _Layer(draft, k), (), {**options, "shape": units})
        except Refusal as error:
            reasons.add(f"{label}: {error}")
            draft.stand_in(units)
        except FormatError as error:
            raise FormatError(f"{label}: {error}") from None
        if draft.features != units:
            raise FormatError(f"{label}: shape says {units} features, it has {draft.features}")
    reasons.raise_if_any()


class _Layer:
    """One entry of ``layers``."""

    def __init__(self, draft: Draft, number: int) -> None:
        self.draft, self._number = draft, number

    def arrays(self, weights: Any, *shapes: Sequence[int]) -> list[Array]:
        """Return all arrays of the layer, of these shapes."""
        if not isinstance(weights, list) or len(weights) != len(shapes):
            got = len(weights) if isinstance(weights, list) else type(weights).__name__
            raise FormatError(f"weights: expected {len(shapes)} arrays, got {got}")
        return [
            read_numbers(f"weights[{k}]", value, shape)
            for k, (value, shape) in enumerate(zip(weights, shapes, strict=True))
        ]

    def add(
        self, name: str, operation: Operation, weights: Mapping[str, Array],
        arrays: Sequence[Array], roles: Sequence[str],
    ) -> None:  # fmt: skip
        """Append the layer; ``roles`` are Keras' names of its arrays."""
        sources = {
            f"layers[{self._number}].weights[{k}]": (a.shape, became(role, [*weights]))
            for k, (a, role) in enumerate(zip(arrays, roles, strict=True))
        }
        self.draft.add(name, operation, weights, sources=sources)


_KERAS = ("kernel", "recurrent_kernel", "bias")
_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
_ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")


def _activation(name: Any) -> Activation:
    if name == "":
        return LINEAR
    return Activation.of(read_choice("activation", name, _ACTIVATIONS))


def _dense(layer: _Layer, shape: int, weights: Any, activation: Any = "") -> None:
    features = layer.draft.features
    bias = isinstance(weights, list) and len(weights) > 1
    arrays = layer.arrays(weights, (features, shape), *([(shape,)] if bias else []))
    named = dict(zip(("kernel", "bias"), arrays, strict=False))
    dense = Dense(features, shape, _activation(activation), use_bias=bias)
    layer.add("dense", dense, named, arrays, [*named])


def _lstm(layer: _Layer, shape: int, weights: Any) -> None:
    features = layer.draft.features
    arrays = layer.arrays(weights, (features, 4 * shape), (shape, 4 * shape), (4 * shape,))
    lstm = LSTM(features, shape, return_sequences=True)
    layer.add("lstm", lstm, layouts.lstm_from_keras(*arrays), arrays, _KERAS)


def _gru(layer: _Layer, shape: int, weights: Any) -> None:
    features = layer.draft.features
    arrays = layer.arrays(weights, (features, 3 * shape), (shape, 3 * shape), (2, 3 * shape))
    gru = GRU(features, shape, return_sequences=True, reset_after=True)
    layer.add("gru", gru, layouts.gru_from_keras(*arrays), arrays, _KERAS)


def _conv1d(
    layer: _Layer, shape: int, weights: Any, kernel_size: Any, dilation: Any, groups: Any = 1,
    activation: Any = "",
) -> None:  # fmt: skip
    features = layer.draft.features
    size, rate = (
        read_size(name, v[-1] if isinstance(v, list) and v else v)
        for name, v in (("kernel_size", kernel_size), ("dilation", dilation))
    )
    if features % read_size("groups", groups) or shape % groups:
        raise FormatError(f"groups: expected a divisor of {features} and {shape}, got {groups}")
    arrays = layer.arrays(weights, (size, features // groups, shape), (shape,))
    convolution = Conv1D(
        features, shape, size, dilation=rate, groups=groups, padding=((size - 1) * rate, 0),
        activation=_activation(activation),
    )  # fmt: skip
    named = dict(zip(("kernel", "bias"), arrays, strict=True))
    layer.add("conv1d", convolution, named, arrays, [*named])


def _prelu(layer: _Layer, shape: int, weights: Any) -> None:
    slopes = listed_shape("weights", weights)[-1]
    if slopes not in (1, shape):
        raise FormatError(f"weights: expected 1 or {shape} slopes, got {slopes}")
    (alpha,) = layer.arrays(weights, (1, slopes))
    layer.add("prelu", PReLU((slopes,), 2), {"alpha": alpha[0]}, [alpha], ["alpha"])


def _batchnorm(layer: _Layer, shape: int, weights: Any, epsilon: Any) -> None:
    if type(epsilon) not in (int, float):
        raise FormatError(f"epsilon: expected a number, got {epsilon!r:.60}")
    affine = isinstance(weights, list) and len(weights) > 2
    roles = _STATISTICS if affine else _STATISTICS[2:]
    arrays = layer.arrays(weights, *[(shape,) for _ in roles])
    normalization = BatchNormalization(shape, -1, float(np.float32(epsilon)), affine, affine)
    named = dict(zip(roles, arrays, strict=True))
    layer.add("batchnorm", normalization, named, arrays, roles)


def _activate(layer: _Layer, activation: Any, weights: Any = ()) -> None:
    if weights:
        raise Refusal("an activation with weights is not supported")
    function = _activation(activation)
    if function != LINEAR:
        layer.draft.add(function.name, ActivationLayer(function))


_TANH = {"activation": ("", "tanh")}
_NONE = {"activation": ("",)}
_LAYERS = table(
    [
        Row("dense", _dense),
        Row("time-distributed-dense", _dense),
        Row("lstm", _lstm, only=_TANH),
        Row("gru", _gru, only=_TANH),
        Row("conv1d", _conv1d),
        Row("prelu", _prelu, only=_NONE),
        Row("batchnorm", _batchnorm, only=_NONE),
        Row("activation", _activate, neutral=("shape",)),
    ]
)
