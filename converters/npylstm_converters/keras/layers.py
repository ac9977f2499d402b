"""One function per Keras layer class: raw config and arrays in, a layer with weights out.

A translator takes every key of the config that it understands; what is left over is refused, and
so is any array that it does not ask for. Keys that change nothing in inference
(initializers, regularizers, dropout rates, ...) are named as such, here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from npylstm import FormatError
from npylstm.activations import LINEAR, Activation
from npylstm.layers import (
    LSTM,
    ActivationLayer,
    Dense,
    Flatten,
    Identity,
    Permute,
    RepeatVector,
    Reshape,
)
from npylstm.layers.base import Array, Layer
from npylstm_converters import layouts
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.activations import LAYERS as ACTIVATION_LAYERS
from npylstm_converters.keras.activations import activation_from_layer, resolve
from npylstm_converters.keras.graph import RawLayer, is_custom
from npylstm_converters.keras.weights import LayerTensors, read_array

__all__ = ["TRANSLATORS", "Writer", "translate"]

Translation = tuple[Layer, dict[str, Array]]


@dataclass(frozen=True)
class Writer:
    """The Keras that wrote a model: what its defaults and formulas depend on.

    ``version`` is as written (``"2.2.4-tf"``), or a guess from the evidence (``"1"``).
    """

    framework: str
    version: str
    evidence: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9A-Za-z.+_-]{1,60})?", self.version):
            raise FormatError(f"keras_version: expected such as '2.15.0', got {self.version!r:.80}")

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def recurrent_default(self) -> str | None:
        """The default recurrent activation of LSTM; None where the version does not tell."""
        _, _, rest = self.version.partition(".")
        digits = re.match(r"[0-9]{1,4}", rest)
        minor = int(digits[0]) if digits else 0
        if self.version.startswith("2.2.4-tf"):
            return None  # TF 1.13 to 2.1 all call themselves so, with both defaults
        return "hard_sigmoid" if (self.major, minor) < (2, 3) else "sigmoid"


class Config:
    """A layer's config, crossed off key by key."""

    def __init__(self, raw: Mapping[str, Any], writer: Writer) -> None:
        self._left = dict(raw)
        self.writer = writer

    def take(self, *names: str, default: Any = ...) -> Any:
        """Take a value that goes by any of these names in one version or another.

        Raises
        ------
        Refusal
            If none is there and there is no default.
        """
        found = [self._left.pop(n) for n in names if n in self._left]
        if not found and default is ...:
            raise Refusal(f"config has no {names[0]!r}")
        return found[0] if found else default

    def size(self, *names: str) -> int:
        """Take a positive integer."""
        value = self.take(*names)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Refusal(f"{names[0]}: expected a positive integer, got {value!r}")
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        """Take a true or false."""
        value = self.take(*names, default=default)
        if value not in (True, False, None):
            raise Refusal(f"{names[0]}: expected true or false, got {value!r}")
        return bool(value)

    def sizes(self, name: str) -> tuple[int, ...]:
        """Take a list of integers."""
        value = self.take(name)
        if type(value) is int:
            value = [value]
        if not isinstance(value, list) or any(type(v) is not int for v in value):
            raise Refusal(f"{name}: expected a list of integers, got {value!r}")
        return tuple(value)

    def activation(self, *names: str, default: Any = None) -> Activation:
        """Take an activation, in the formula of the writer."""
        return resolve(self.take(*names, default=default), self.writer.major)

    def neutral(self, *names: str) -> None:
        """Cross off keys that do not change the result of inference."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Refuse what nobody understood."""
        if self._left:
            left = ", ".join(f"{k}={v!r:.60}" for k, v in sorted(self._left.items()))
            raise Refusal(f"config not understood: {left}")


# Keys that any layer may have. ``dtype`` is judged before the translators are called.
_COMMON = (
    "name", "trainable", "dtype", "autocast", "batch_input_shape", "batch_shape", "input_shape",
    "input_dtype", "input_dim", "input_length", "activity_regularizer", "create_input_layer",
    "cache_enabled", "build_input_shape",
)  # fmt: skip

_WEIGHT_SHAPERS = ("initializer", "regularizer", "constraint")
_DENSE_NEUTRAL = (
    *(f"{w}_{s}" for w in ("kernel", "bias") for s in _WEIGHT_SHAPERS),
    "init", "weights", "W_regularizer", "b_regularizer", "W_constraint", "b_constraint",
    "lora_rank", "lora_alpha", "quantization_config",
)  # fmt: skip
_LSTM_NEUTRAL = (
    *(f"{w}_{s}" for w in ("kernel", "recurrent", "bias") for s in _WEIGHT_SHAPERS),
    "unit_forget_bias", "dropout", "recurrent_dropout", "implementation", "unroll", "seed",
    "init", "inner_init", "forget_bias_init", "W_regularizer", "U_regularizer", "b_regularizer",
    "dropout_W", "dropout_U", "consume_less", "weights",
    # Rules for masked steps; without a mask there are none.
    "zero_output_for_mask",
)  # fmt: skip
_NOISE_NEUTRAL = (
    "rate", "p", "seed", "noise_shape", "stddev", "sigma", "data_format", "dim_ordering",
    "l1", "l2", "rng_type",
)  # fmt: skip


def _lstm(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral(*_LSTM_NEUTRAL)
    units = config.size("units", "output_dim")
    use_bias = config.flag("use_bias", default=True)
    options = _lstm_options(config)
    activation = config.activation("activation", default="tanh")
    default = config.writer.recurrent_default
    recurrent = config.take("recurrent_activation", "inner_activation", default=default)
    if recurrent is None:
        raise Refusal(
            f"recurrent_activation is missing and Keras {config.writer.version} had two defaults"
        )
    weights, features = _lstm_weights(tensors, units, use_bias)
    layer = LSTM(
        features=features, units=units, activation=activation,
        recurrent_activation=resolve(recurrent, config.writer.major), use_bias=use_bias, **options,
    )  # fmt: skip
    return layer, weights


def _cudnn_lstm(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral(*_LSTM_NEUTRAL)
    units = config.size("units")
    options = _lstm_options(config)
    weights, features = _lstm_weights(tensors, units, use_bias=True)
    return LSTM(features=features, units=units, **options), weights


def _lstm_options(config: Config) -> dict[str, Any]:
    names = ("return_sequences", "return_state", "go_backwards", "stateful", "time_major")
    return {name: config.flag(name) for name in names}


def _lstm_weights(
    tensors: LayerTensors, units: int, use_bias: bool
) -> tuple[dict[str, Array], int]:
    """Read the weights in whichever layout their number and shapes show."""
    if len(tensors) == 12:  # Keras 1
        sources = tensors.take(*layouts.KERAS1_ORDER)
        features = _first_axis(sources["W_i"].shape)
        shapes = {"W": (features, units), "U": (units, units), "b": (units,)}
        arrays = [read_array(s, shapes[role[0]]) for role, s in sources.items()]
        return layouts.lstm_from_keras1(arrays), features
    # Keras 1 with consume_less="gpu" packed the gates as Keras 2 does.
    roles = ("kernel", "recurrent_kernel", "bias")[: 3 if use_bias else 2]
    sources = tensors.take(*roles)
    features = _first_axis(sources["kernel"].shape)
    kernel = read_array(sources["kernel"], (features, 4 * units))
    recurrent_kernel = read_array(sources["recurrent_kernel"], (units, 4 * units))
    if not use_bias:
        return layouts.lstm_from_keras(kernel, recurrent_kernel, None), features
    # A doubled bias gives cuDNN's layout away, whatever class the config names.
    if sources["bias"].shape == (8 * units,):
        bias = read_array(sources["bias"], (8 * units,))
        return layouts.lstm_from_cudnn(kernel, recurrent_kernel, bias), features
    bias = read_array(sources["bias"], (4 * units,))
    return layouts.lstm_from_keras(kernel, recurrent_kernel, bias), features


def _first_axis(shape: tuple[int, ...]) -> int:
    if len(shape) != 2:
        raise Refusal(f"expected a kernel of 2 axes, got shape {shape}")
    return shape[0]


def _dense(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral(*_DENSE_NEUTRAL)
    units = config.size("units", "output_dim")
    use_bias = config.flag("use_bias", "bias", default=True)
    activation = config.activation("activation", default="linear")
    sources = tensors.take(*("kernel", "bias")[: 2 if use_bias else 1])
    features = _first_axis(sources["kernel"].shape)
    weights = {"kernel": read_array(sources["kernel"], (features, units))}
    if use_bias:
        weights["bias"] = read_array(sources["bias"], (units,))
    return Dense(features, units, activation, use_bias), weights


def _time_distributed(config: Config, tensors: LayerTensors) -> Translation:
    """Wrapped layers that act on the last axis are the same with and without the wrapper."""
    inner = config.take("layer")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("config"), Mapping):
        raise Refusal("TimeDistributed: expected a layer")
    class_name = inner.get("class_name")
    if not is_custom(inner) and class_name not in (
        "Dense",
        "Activation",
        *_NOISE,
        *ACTIVATION_LAYERS,
    ):
        raise Refusal(f"TimeDistributed({class_name}) is not supported")
    raw = RawLayer(tensors.layer, str(class_name), inner["config"], is_custom(inner))
    layer, weights = translate(raw, tensors, config.writer)
    activation = layer.activation if isinstance(layer, ActivationLayer) else LINEAR
    if activation.axis not in (None, -1):
        raise Refusal(f"TimeDistributed({activation}) is not supported: use axis=-1")
    return layer, weights


def _activation(config: Config, tensors: LayerTensors) -> Translation:
    return _pointwise(config.activation("activation"))


def _pointwise(activation: Activation) -> Translation:
    return (Identity() if activation == LINEAR else ActivationLayer(activation)), {}


def _activation_layer(class_name: str) -> Callable[[Config, LayerTensors], Translation]:
    def translate_it(config: Config, tensors: LayerTensors) -> Translation:
        _, arguments = ACTIVATION_LAYERS[class_name]
        missing = object()
        taken = {a: config.take(a, default=missing) for a in arguments}
        given = {a: v for a, v in taken.items() if v is not missing}
        return _pointwise(activation_from_layer(class_name, given))

    return translate_it


def _identity(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral(*_NOISE_NEUTRAL)
    return Identity(), {}


def _flatten(config: Config, tensors: LayerTensors) -> Translation:
    if config.take("data_format", default=None) not in (None, "channels_last"):
        raise Refusal("Flatten with data_format='channels_first' is not supported")
    return Flatten(), {}


def _reshape(config: Config, tensors: LayerTensors) -> Translation:
    return Reshape(config.sizes("target_shape")), {}


def _permute(config: Config, tensors: LayerTensors) -> Translation:
    return Permute(config.sizes("dims")), {}


def _repeat_vector(config: Config, tensors: LayerTensors) -> Translation:
    return RepeatVector(config.size("n")), {}


_NOISE = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity",
)  # fmt: skip

TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    "LSTM": _lstm,
    "CuDNNLSTM": _cudnn_lstm,
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Activation": _activation,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    **dict.fromkeys(_NOISE, _identity),
    **{name: _activation_layer(name) for name in ACTIVATION_LAYERS},
}


def translate(layer: RawLayer, tensors: LayerTensors, writer: Writer) -> Translation:
    """Translate one layer.

    Parameters
    ----------
    layer
        Its class and raw config.
    tensors
        Its arrays.
    writer
        The Keras that wrote it.

    Returns
    -------
    layer, weights

    Raises
    ------
    Refusal
        With the first reason that stands in the way of this layer.
    """
    if layer.custom or layer.class_name not in TRANSLATORS:
        what = "a class of the user's own" if layer.custom else "not supported"
        raise Refusal(f"layer class {layer.class_name!r} is {what}")
    _refuse_reduced_precision(layer.config.get("dtype"))
    config = Config(layer.config, writer)
    config.neutral(*_COMMON)
    made, weights = TRANSLATORS[layer.class_name](config, tensors)
    config.finish()
    if not weights and len(tensors) and not isinstance(made, (LSTM, Dense)):
        tensors.take()  # refuses arrays that a layer without weights should not have
    return made, weights


def _refuse_reduced_precision(dtype: Any) -> None:
    """float32 and float64 compute as we do; a policy such as mixed_float16 does not."""
    name = dtype_name(dtype)
    if name not in (None, "float32", "float64"):
        raise Refusal(
            f"dtype {name!r} is not supported: it computes in reduced precision; load the model "
            "with dtype float32 and save it again"
        )


def dtype_name(dtype: Any) -> Any:
    """Read a dtype, given by name or as a serialised policy."""
    if isinstance(dtype, Mapping):
        config = dtype.get("config")
        return config.get("name") if isinstance(config, Mapping) else None
    return dtype
