"""One function per Keras layer class: from raw config and arrays to a layer with weights.

A translator reads every config key that it supports. Remaining keys and unread arrays are errors.
Keys that change nothing in inference (initializers, regularizers, dropout rates, ...) are listed
as such, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from npylstm.activations import LINEAR, Activation
from npylstm.ops.base import Operation
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.indexing import Flip
from npylstm.ops.masking import Masking
from npylstm.ops.pointwise import ActivationLayer, Identity, PReLU
from npylstm.ops.shaping import BATCH_SIZE, Reshape, Stack, Transpose
from npylstm.ops.time_distributed import TimeDistributed
from npylstm_converters.errors import Refusal
from npylstm_converters.keras import attention, convolution, merging, normalization, recurrent
from npylstm_converters.keras.config import (
    ACTIVATION_LAYERS,
    WEIGHT_SHAPERS,
    Config,
    Translation,
    Writer,
    activation_from_layer,
    without_weights,
)
from npylstm_converters.keras.external import code_instead
from npylstm_converters.keras.graph import REVERSED, RawLayer, is_custom
from npylstm_converters.keras.precision import check_precision, dequantize
from npylstm_converters.keras.preprocessing import CLASSES as PREPROCESSING
from npylstm_converters.keras.preprocessing import advice
from npylstm_converters.keras.tensors import LayerTensors, first_axis, merge_lora, read_array

__all__ = ["TRANSLATORS", "translate"]

# Keys that any layer may have. ``dtype`` is checked before the translators run.
_COMMON = (
    "name", "trainable", "dtype", "autocast", "batch_input_shape", "batch_shape", "input_shape",
    "input_dtype", "input_dim", "input_length", "activity_regularizer", "create_input_layer",
    "cache_enabled", "build_input_shape",
)  # fmt: skip

_DENSE_NEUTRAL = (
    *(f"{w}_{s}" for w in ("kernel", "bias") for s in WEIGHT_SHAPERS),
    "init", "weights", "W_regularizer", "b_regularizer", "W_constraint", "b_constraint",
    "lora_rank", "lora_alpha", "quantization_config",
)  # fmt: skip
_NOISE_NEUTRAL = (
    "rate", "p", "seed", "noise_shape", "stddev", "sigma", "data_format", "dim_ordering",
    "l1", "l2", "rng_type",
)  # fmt: skip


def _dense(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral(*_DENSE_NEUTRAL)
    units = config.size("units", "output_dim")
    use_bias = config.flag("use_bias", "bias", default=True)
    activation = config.activation("activation", default="linear")
    sources = tensors.take(*("kernel", "bias")[: 2 if use_bias else 1])
    features = first_axis(sources["kernel"].shape)
    weights = {"kernel": read_array(sources["kernel"], (features, units))}
    if use_bias:
        weights["bias"] = read_array(sources["bias"], (units,))
    return Dense(features, units, activation, use_bias), weights


def _over_steps(layer: Operation, class_name: str) -> Operation:
    """Return a layer applied to every step, from zero state; refuse one that keeps its state."""
    if layer.innermost.stateful:
        raise Refusal(
            f"TimeDistributed({class_name}) with stateful=True is not supported: the state goes on "
            "from one outer step to the next"
        )
    return TimeDistributed(layer)


def _time_distributed(config: Config, tensors: LayerTensors) -> Translation:
    """Return the inner layer if it acts on the last axis only, else the wrapped layer."""
    inner = config.take("layer")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("config"), Mapping):
        raise Refusal("TimeDistributed: expected a layer")
    class_name = str(inner.get("class_name"))
    raw = RawLayer(tensors.layer, class_name, inner["config"], is_custom(inner))
    layer, weights = translate(raw, tensors, config.writer)
    by_feature = class_name in _BY_FEATURE and layer.innermost is layer
    if by_feature and all(a.axis in (None, -1) for a in layer.activations.values()):
        return layer, weights
    return _over_steps(layer, class_name), weights


def _activation(config: Config) -> Operation:
    return _pointwise(config.activation("activation"))


def _pointwise(activation: Activation) -> Operation:
    return Identity() if activation == LINEAR else ActivationLayer(activation)


def _activation_layer(class_name: str) -> Callable[..., Translation]:
    def translate_it(config: Config) -> Operation:
        _, arguments = ACTIVATION_LAYERS[class_name]
        missing = object()
        taken = {a: config.take(a, default=missing) for a in arguments}
        given = {a: v for a, v in taken.items() if v is not missing}
        return _pointwise(activation_from_layer(class_name, given))

    return without_weights(translate_it)


def _identity(config: Config) -> Operation:
    config.neutral(*_NOISE_NEUTRAL)
    return Identity()


def _flatten(config: Config) -> Operation:
    if config.take("data_format", default=None) not in (None, "channels_last"):
        raise Refusal("Flatten with data_format='channels_first' is not supported")
    return Reshape((BATCH_SIZE, -1))


def _reshape(config: Config) -> Operation:
    return Reshape((BATCH_SIZE, *config.sizes("target_shape")))


def _permute(config: Config) -> Operation:
    return Transpose((0, *config.sizes("dims")))


def _repeat_vector(config: Config) -> Operation:
    return Stack(1, config.size("n"))


def _turned(config: Config) -> Operation:
    return Flip((config.axis("axis"),))


_NOISE = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity",
)  # fmt: skip


# Layers that compute every step separately, or along the last axis.
_BY_FEATURE = ("Dense", "Activation", "TimeDistributed", *_NOISE, *ACTIVATION_LAYERS)


def _embedding(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral("embeddings_initializer", "embeddings_regularizer", "embeddings_constraint",
                   "init", "W_regularizer", "W_constraint", "weights", "dropout", "lora_rank",
                   "lora_alpha", "quantization_config", "sparse")  # fmt: skip
    mask_zero = config.flag("mask_zero")
    units = config.size("output_dim")
    source = tensors.take("embeddings")["embeddings"]
    vocabulary = first_axis(source.shape)
    weights = {"embeddings": read_array(source, (vocabulary, units))}
    return Embedding(vocabulary, units, mask_zero), weights


def _masking(config: Config) -> Operation:
    return Masking(config.number("mask_value", default=0.0))


def _prelu(config: Config, tensors: LayerTensors) -> Translation:
    config.neutral("alpha_initializer", "alpha_regularizer", "alpha_constraint", "init", "weights",
                   "shared_axes")  # fmt: skip
    source = tensors.take("alpha")["alpha"]
    return PReLU(source.shape), {"alpha": read_array(source, source.shape)}


TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Activation": without_weights(_activation),
    "Flatten": without_weights(_flatten),
    "Reshape": without_weights(_reshape),
    "Permute": without_weights(_permute),
    REVERSED: without_weights(_turned),
    "RepeatVector": without_weights(_repeat_vector),
    "Embedding": _embedding,
    "Masking": without_weights(_masking),
    "PReLU": _prelu,
    **attention.TRANSLATORS,
    **normalization.TRANSLATORS,
    **convolution.TRANSLATORS,
    **merging.TRANSLATORS,
    **dict.fromkeys(_NOISE, without_weights(_identity)),
    **{name: _activation_layer(name) for name in ACTIVATION_LAYERS},
}


def translate(layer: RawLayer, tensors: LayerTensors, writer: Writer) -> Translation:
    """Return the operation and weights of one Keras layer.

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
        With the first reason why this layer is not supported.
    """
    if layer.custom or layer.class_name not in TRANSLATORS:
        if layer.class_name in PREPROCESSING and not layer.custom:
            raise Refusal(advice(layer.class_name))
        if layer.custom or layer.class_name == "Lambda":
            raise Refusal(code_instead(layer.name, layer.class_name, own=layer.custom))
        raise Refusal(f"layer class {layer.class_name!r} is not supported")
    # An Embedding's dtype was once that of its input ids.
    if layer.class_name != "Embedding" or layer.config.get("dtype") not in ("int32", "int64"):
        check_precision(layer.class_name, layer.config.get("dtype"))
    config = Config(layer.config, writer)
    config.neutral(*_COMMON)
    tensors = dequantize(layer.class_name, layer.config.get("dtype"), tensors)
    tensors = merge_lora(layer.config, tensors)
    made, weights = TRANSLATORS[layer.class_name](config, tensors)
    config.finish()
    if len(tensors) and not tensors.taken:
        tensors.take()  # a layer without weights must have no arrays
    for _ in range(layer.times):
        made = _over_steps(made, layer.class_name)
    return made, weights


TRANSLATORS |= recurrent.translators(translate)
