"""Keras' attention layers, and what else may be told how to compute by the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from npylstm.layers import (
    ActivationLayer,
    Attention,
    Layer,
    MaskedSoftmax,
    MultiHeadAttention,
)
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import WEIGHT_SHAPERS, Config, Translation, Writer
from npylstm_converters.keras.graph import Call, RawLayer
from npylstm_converters.keras.weights import LayerTensors, read_array

__all__ = ["TRANSLATORS", "as_called", "ordered", "understands"]

_PARTS = ("query", "key", "value", "attention_output")
_NEUTRAL = (
    "dropout", "seed", "flash_attention", "query_shape", "key_shape", "value_shape",
    *(f"{w}_{s}" for w in ("kernel", "bias") for s in WEIGHT_SHAPERS),
)  # fmt: skip


def _attention(score: str) -> Callable[[Config, LayerTensors], Translation]:
    def translate_it(config: Config, tensors: LayerTensors) -> Translation:
        config.neutral("dropout", "seed")
        scaled = config.flag("use_scale", default=score == "additive")
        if config.take("score_mode", default="dot") != "dot":
            raise Refusal("score_mode: expected 'dot'")
        causal = config.flag("causal")
        if not scaled:
            return Attention(score, causal=causal), {}
        source = tensors.take("scale")["scale"]
        features = source.shape[0] if score == "additive" and source.shape else 0
        scale = read_array(source, (features,) if features else ())
        layer = Attention(score, features, scaled=True, causal=causal)
        return layer, {"scale": scale.reshape(features or 1)}

    return translate_it


def _multi_head_attention(config: Config, tensors: LayerTensors) -> Translation:
    dropped = config.number("dropout", default=0.0) > 0
    robust = config.flag("softmax_robust_masking")
    config.neutral(*_NEUTRAL)
    heads, key_units = config.size("num_heads"), config.size("key_dim")
    value_units = config.take("value_dim", default=None) or key_units
    if config.axes("attention_axes", default=1) != (1,):
        raise Refusal("attention_axes: expected 1, the steps")
    if config.flag("use_gate") or config.take("sliding_window", default=None) is not None:
        raise Refusal("use_gate and sliding_window are not supported")
    use_bias = config.flag("use_bias", default=True)
    asked = config.take("output_shape", default=None)
    roles = ["kernel", "bias"] if use_bias else ["kernel"]
    tensors = tensors.arranged(("query_dense", "key_dense", "value_dense", "output_dense"))
    sources = tensors.take(*(f"{part}/{role}" for part in _PARTS for role in roles))
    shapes = {part: sources[f"{part}/kernel"].shape for part in _PARTS}
    for part, shape in shapes.items():
        if len(shape) != 3:
            raise Refusal(f"{part}: expected a kernel of 3 axes, got {shape}")
    units = shapes["attention_output"][2]
    if asked not in (None, units, [units]):
        raise Refusal(f"output_shape: expected {units}, got {asked!r:.60}")
    layer = MultiHeadAttention(
        query_features=shapes["query"][0], value_features=shapes["value"][0],
        key_features=shapes["key"][0], heads=heads, key_units=key_units, value_units=value_units,
        units=units, use_bias=use_bias,
        # Without dropout Keras 3 takes another way to the same, which never gives zeros.
        zero_blocked=dropped and config.writer.softmax_zeroes_blocked and not robust,
    )  # fmt: skip
    wanted = layer.weight_shapes()
    names = {f"{part}/{role}": f"{part.removeprefix('attention_')}_{role}"
             for part in _PARTS for role in roles}  # fmt: skip
    weights = {names[k]: read_array(source, wanted[names[k]]) for k, source in sources.items()}
    return layer, weights


def ordered(raw: RawLayer, call: Call) -> Call:
    """Put query, value and key in order, which may be given by name."""
    if raw.class_name != "MultiHeadAttention" or raw.custom:
        return call
    options = dict(call.options)
    inputs = [*call.inputs]
    for name in ("query", "value", "key"):
        inputs += options.pop(name, ())
    return replace(call, inputs=tuple(inputs), options=options)


def understands(layer: Layer, argument: str) -> bool:
    """Whether a layer heeds an argument of its call."""
    attends = isinstance(layer, (Attention, MultiHeadAttention))
    return argument == "use_causal_mask" and attends


def as_called(layer: Layer, call: Call, writer: Writer) -> Layer:
    """Return the layer as the arguments of a call will have it."""
    if isinstance(layer, (Attention, MultiHeadAttention)) and "use_causal_mask" in call.arguments:
        return replace(layer, causal=True)
    if isinstance(layer, ActivationLayer) and "mask" in call.options:
        axis = layer.activation.axis
        if layer.activation.name == "softmax" and axis is not None:
            return MaskedSoftmax(axis, writer.softmax_zeroes_blocked)
    return layer


TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    "Attention": _attention("dot"),
    "AdditiveAttention": _attention("additive"),
    "MultiHeadAttention": _multi_head_attention,
}
