"""Keras' recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM, SimpleRNN
from npylstm_converters import layouts
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import Config, Translation
from npylstm_converters.keras.graph import RawLayer, is_custom
from npylstm_converters.keras.tensors import LayerTensors, first_axis, read_array

__all__ = ["NAMES", "translators"]

# Keys of training only, and of implementations with the same result.
_NEUTRAL = (
    *(f"{w}_{s}" for w in ("kernel", "recurrent", "bias")
      for s in ("initializer", "regularizer", "constraint")),
    "unit_forget_bias", "dropout", "recurrent_dropout", "implementation", "unroll", "seed",
    "init", "inner_init", "forget_bias_init", "W_regularizer", "U_regularizer", "b_regularizer",
    "dropout_W", "dropout_U", "consume_less", "weights", "use_cudnn",
)  # fmt: skip
_MISSING = object()
_FLAGS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "time_major",
    "zero_output_for_mask",
)  # fmt: skip


def _options(config: Config) -> dict[str, Any]:
    """Remove and return the options of cuDNN's layers, which all recurrent layers have."""
    config.neutral(*_NEUTRAL)
    options: dict[str, Any] = {name: config.flag(name) for name in _FLAGS}
    return options | {"units": config.size("units", "output_dim")}


def _gated_options(config: Config) -> dict[str, Any]:
    """Remove and return the options of LSTM and GRU; a gate's default depends on the version."""
    options = _options(config)
    activation = config.activation("activation", default="tanh")
    recurrent = config.take("recurrent_activation", "inner_activation", default=_MISSING)
    if recurrent is _MISSING:
        recurrent = config.writer.recurrent_default
        if recurrent is None:
            raise Refusal(
                f"recurrent_activation is missing and Keras {config.writer.version} had two "
                "defaults"
            )
    return options | {
        "activation": activation,
        "recurrent_activation": config.resolve(recurrent),
        "use_bias": config.flag("use_bias", default=True),
    }


def _lstm(config: Config, tensors: LayerTensors) -> Translation:
    options = _gated_options(config)
    weights, features = _lstm_weights(tensors, options["units"], options["use_bias"])
    return LSTM(features, **options), weights


def _cudnn_lstm(config: Config, tensors: LayerTensors) -> Translation:
    options = _options(config)
    weights, features = _lstm_weights(tensors, options["units"], use_bias=True)
    return LSTM(features, **options), weights


def _lstm_weights(
    tensors: LayerTensors, units: int, use_bias: bool
) -> tuple[dict[str, Array], int]:
    """Return the weights, read in the layout that their number and shapes show."""
    if len(tensors) == 12:  # Keras 1
        sources = tensors.take(*layouts.KERAS1_ORDER)
        features = first_axis(sources["W_i"].shape)
        shapes = {"W": (features, units), "U": (units, units), "b": (units,)}
        arrays = [read_array(s, shapes[role[0]]) for role, s in sources.items()]
        return layouts.lstm_from_keras1(arrays), features
    # Keras 1 with consume_less="gpu" packed the gates as Keras 2 does.
    roles = ("kernel", "recurrent_kernel", "bias")[: 3 if use_bias else 2]
    sources = tensors.take(*roles)
    features = first_axis(sources["kernel"].shape)
    kernel = read_array(sources["kernel"], (features, 4 * units))
    recurrent_kernel = read_array(sources["recurrent_kernel"], (units, 4 * units))
    if not use_bias:
        return layouts.lstm_from_keras(kernel, recurrent_kernel, None), features
    # Only cuDNN's layout has a doubled bias, whatever class the config names.
    if sources["bias"].shape == (8 * units,):
        bias = read_array(sources["bias"], (8 * units,))
        return layouts.lstm_from_cudnn(kernel, recurrent_kernel, bias), features
    bias = read_array(sources["bias"], (4 * units,))
    return layouts.lstm_from_keras(kernel, recurrent_kernel, bias), features


def _gru(config: Config, tensors: LayerTensors) -> Translation:
    options = _gated_options(config)
    # Configs without the key have this form.
    options["reset_after"] = config.flag("reset_after", default=False)
    weights, features = _gru_weights(
        tensors, options["units"], options["use_bias"], options["reset_after"]
    )
    return GRU(features, **options), weights


def _gru_weights(
    tensors: LayerTensors, units: int, use_bias: bool, reset_after: bool
) -> tuple[dict[str, Array], int]:
    if len(tensors) == 9:  # Keras 1
        sources = tensors.take(*layouts.KERAS1_GRU_ORDER)
        features = first_axis(sources["W_z"].shape)
        shapes = {"W": (features, units), "U": (units, units), "b": (units,)}
        arrays = [read_array(s, shapes[role[0]]) for role, s in sources.items()]
        return layouts.gru_from_keras1(arrays), features
    sources = tensors.take(*("kernel", "recurrent_kernel", "bias")[: 3 if use_bias else 2])
    features = first_axis(sources["kernel"].shape)
    kernel = read_array(sources["kernel"], (features, 3 * units))
    recurrent_kernel = read_array(sources["recurrent_kernel"], (units, 3 * units))
    # Only cuDNN's layout has one flat bias of both halves.
    if use_bias and reset_after and sources["bias"].shape == (6 * units,):
        both = read_array(sources["bias"], (6 * units,))
        return layouts.gru_from_cudnn(kernel, recurrent_kernel, both), features
    bias = None
    if use_bias:
        bias = read_array(sources["bias"], (2, 3 * units) if reset_after else (3 * units,))
    return layouts.gru_from_keras(kernel, recurrent_kernel, bias), features


def _cudnn_gru(config: Config, tensors: LayerTensors) -> Translation:
    options = _options(config)
    config.neutral("reset_after")
    weights, features = _gru_weights(tensors, options["units"], use_bias=True, reset_after=True)
    return GRU(features, reset_after=True, **options), weights


def _simple_rnn(config: Config, tensors: LayerTensors) -> Translation:
    options = _options(config)
    units, use_bias = options["units"], config.flag("use_bias", default=True)
    options["activation"] = config.activation("activation", default="tanh")
    sources = tensors.take(*("kernel", "recurrent_kernel", "bias")[: 3 if use_bias else 2])
    features = first_axis(sources["kernel"].shape)
    weights = {
        "W_h": read_array(sources["kernel"], (features, units)),
        "U_h": read_array(sources["recurrent_kernel"], (units, units)),
    }
    if use_bias:
        weights["b_h"] = read_array(sources["bias"], (units,))
    return SimpleRNN(features, use_bias=use_bias, **options), weights


# The layer class for each cell class.
_CELLS = {"LSTMCell": _lstm, "GRUCell": _gru, "SimpleRNNCell": _simple_rnn}


def _rnn(config: Config, tensors: LayerTensors) -> Translation:
    """Translate an RNN layer with a separate cell."""
    cell = config.take("cell")
    entries = [cell]
    if isinstance(cell, Mapping) and cell.get("class_name") == "StackedRNNCells":
        inside = cell.get("config")
        entries = inside.get("cells", []) if isinstance(inside, Mapping) else []
    if not isinstance(entries, list):
        raise Refusal(f"cells: expected a list, got {entries!r:.60}")
    if len(entries) != 1:
        raise Refusal(f"RNN of {len(entries)} cells is not supported: use one layer for each")
    entry = entries[0]
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        raise Refusal(f"cell: expected a cell, got {entry!r:.60}")
    class_name = str(entry.get("class_name"))
    if is_custom(entry) or class_name not in _CELLS:
        raise Refusal(f"cell class {class_name!r} is not supported")
    own = {k: v for k, v in entry["config"].items() if k not in ("name", "trainable", "dtype")}
    both = Config({**own, **config.rest()}, config.writer)
    made = _CELLS[class_name](both, tensors)
    both.neutral("batch_input_shape")
    both.finish()
    return made


Translate = Callable[[RawLayer, LayerTensors, Any], Translation]


def _bidirectional(translate: Translate) -> Callable[[Config, LayerTensors], Translation]:
    """Return the translator of Bidirectional; ``translate`` translates any layer."""

    def translate_it(config: Config, tensors: LayerTensors) -> Translation:
        merge_mode = config.take("merge_mode", default="concat")
        inner, backward = config.take("layer"), config.take("backward_layer", default=None)
        if backward is None:
            backward = _turned(inner)
        directions: list[Operation] = []
        weights: dict[str, Array] = {}
        halves = tensors.halves(_is_frozen(inner) and not _is_frozen(backward))
        for way, entry, half in zip(
            ("forward", "backward"), (inner, backward), halves, strict=True
        ):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
                raise Refusal(f"{way} layer: expected a layer, got {entry!r:.60}")
            raw = RawLayer(
                tensors.layer, str(entry.get("class_name")), entry["config"], is_custom(entry)
            )
            layer, arrays = translate(raw, half, config.writer)
            if not layer.is_recurrent or raw.class_name == "Bidirectional":
                raise Refusal(f"{way} layer: expected a recurrent layer, got {raw.class_name}")
            if config.writer.zero_output_in_pairs:
                zero: dict[str, Any] = {"zero_output_for_mask": layer.returns_sequence}
                layer = replace(layer, **zero)
            directions.append(layer)
            weights |= {f"{way}/{key}": array for key, array in arrays.items()}
        # The wrapper repeats these keys of the inner layer.
        config.neutral("return_sequences", "return_state", "go_backwards", "stateful", "weights",
                       "zero_output_for_mask")  # fmt: skip
        forward, backward_made = directions
        return Bidirectional(forward, backward_made, _merge_mode(merge_mode)), weights

    return translate_it


def _is_frozen(entry: Any) -> bool:
    """Whether an inner layer is frozen, so that its arrays are last."""
    config = entry.get("config") if isinstance(entry, Mapping) else None
    return isinstance(config, Mapping) and config.get("trainable") is False


def _merge_mode(value: Any) -> str:
    if value is None:
        return "none"
    if value not in ("concat", "sum", "mul", "ave"):
        raise Refusal(f"merge_mode: expected concat, sum, mul, ave or None, got {value!r:.60}")
    return str(value)


def _turned(entry: Any) -> Any:
    """Return the backward layer that Keras creates if the config has none."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        return entry
    backwards = {"go_backwards": not entry["config"].get("go_backwards", False)}
    return {**entry, "config": {**entry["config"], **backwards}}


NAMES = ("LSTM", "GRU", "SimpleRNN", "RNN", "CuDNNLSTM", "CuDNNGRU", "Bidirectional")


def translators(translate: Translate) -> dict[str, Callable[[Config, LayerTensors], Translation]]:
    """Return translators by Keras class; wrappers call ``translate`` for inner layers."""
    own = (_lstm, _gru, _simple_rnn, _rnn, _cudnn_lstm, _cudnn_gru, _bidirectional(translate))
    return dict(zip(NAMES, own, strict=True))
