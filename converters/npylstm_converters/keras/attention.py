"""Keras' attention layers, and other layers whose call arguments change the computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from npylstm.ops.attention import ATTENTION_MASK, Attention, MultiHeadAttention
from npylstm.ops.base import Operation
from npylstm.ops.masking import MaskedSoftmax
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import WEIGHT_SHAPERS, Config, Translation, Writer
from npylstm_converters.keras.graph import Call, RawLayer
from npylstm_converters.keras.tensors import LayerTensors, read_array

__all__ = [
    "TRANSLATORS", "as_called", "is_attention", "supports_argument", "supports_tensor",
]  # fmt: skip

# Call arguments of Keras, and the fields of our operations.
_ARGUMENTS = {"use_causal_mask": "causal", "return_attention_scores": "return_scores"}
_PARTS = ("query", "key", "value", "attention_output")
_NEUTRAL = (
    "dropout", "seed", "flash_attention", "query_shape", "key_shape", "value_shape",
    *(f"{w}_{s}" for w in ("kernel", "bias") for s in WEIGHT_SHAPERS),
)  # fmt: skip


def _attention(score: str) -> Callable[[Config, LayerTensors], Translation]:
    def translate_it(config: Config, tensors: LayerTensors) -> Translation:
        config.neutral("dropout", "seed")
        scaled = config.flag("use_scale", default=score == "additive")
        mode = config.take("score_mode", default="dot")
        if mode not in ("dot", "concat"):
            raise Refusal(f"score_mode: expected 'dot' or 'concat', got {mode!r:.60}")
        kind = mode if score == "dot" else score
        causal = config.flag("causal")
        roles = ["scale"] * scaled + ["concat_score_weight"] * (kind == "concat")
        sources = tensors.take(*roles) if roles else {}
        features = 0
        if scaled and kind == "additive":
            features = sources["scale"].shape[0] if sources["scale"].shape else 0
        layer = Attention(kind, features, scaled, causal=causal)
        arrays = {
            role: read_array(source, (features,) if features else ())
            for role, source in sources.items()
        }
        names = {"scale": "scale", "concat_score_weight": "score_weight"}
        return layer, {names[role]: array.reshape(-1) for role, array in arrays.items()}

    return translate_it


def _multi_head_attention(config: Config, tensors: LayerTensors) -> Translation:
    dropped = config.number("dropout", default=0.0) > 0
    robust = config.flag("softmax_robust_masking")
    config.neutral(*_NEUTRAL)
    heads, key_units = config.size("num_heads"), config.size("key_dim")
    value_units = config.take("value_dim", default=None) or key_units
    if type(value_units) is not int or value_units < 1:
        raise Refusal(f"value_dim: expected a positive integer, got {value_units!r:.60}")
    if config.axes("attention_axes", default=1) != (1,):
        raise Refusal("attention_axes: expected 1, the steps")
    if config.flag("use_gate"):
        raise Refusal("use_gate is not supported")
    window = config.take("sliding_window", default=None) or 0
    if type(window) is not int or window < 0:
        raise Refusal(f"sliding_window: expected a positive integer, got {window!r:.60}")
    use_bias = config.flag("use_bias", default=True)
    asked = config.take("output_shape", default=None)
    roles = ["kernel", "bias"] if use_bias else ["kernel"]
    tensors = tensors.arranged(("query_dense", "key_dense", "value_dense", "output_dense"))
    sources = tensors.take(*(f"{part}/{role}" for part in _PARTS for role in roles))
    shapes = {part: sources[f"{part}/kernel"].shape for part in _PARTS}
    if isinstance(asked, list) and len(asked) > 1:
        raise Refusal(f"output_shape: expected one size, got {asked!r:.60}")
    for part, shape in shapes.items():
        if len(shape) != 3:
            raise Refusal(f"{part}: expected a kernel of 3 axes, got {shape}")
    units = shapes["attention_output"][2]
    if asked not in (None, units, [units]):
        raise Refusal(f"output_shape: expected {units}, got {asked!r:.60}")
    layer = MultiHeadAttention(
        query_features=shapes["query"][0], value_features=shapes["value"][0],
        key_features=shapes["key"][0], heads=heads, key_units=key_units, value_units=value_units,
        units=units, use_bias=use_bias, window=window,
        fully_masked=_fully_masked(config.writer, dropped, robust),
    )  # fmt: skip
    wanted = layer.weight_shapes()
    names = {f"{part}/{role}": f"{part.removeprefix('attention_')}_{role}"
             for part in _PARTS for role in roles}  # fmt: skip
    weights = {names[k]: read_array(source, wanted[names[k]]) for k, source in sources.items()}
    return layer, weights


def _fully_masked(writer: Writer, softmax: bool, robust: bool) -> str:
    """Return the ``fully_masked`` rule: the weights of queries whose keys are all masked.

    Keras 3 uses its layer Softmax with dropout or if the call requests scores, and another
    function otherwise.
    """
    if writer.major < 3:
        return "uniform" if robust else "additive"
    if not softmax:
        return "uniform"
    return "zero" if writer.softmax_zeroes_blocked else "lowered"


def is_attention(raw: RawLayer, layer: Operation) -> bool:
    """Whether a layer is an attention layer of Keras, to which call arguments apply."""
    return raw.class_name in TRANSLATORS and layer.innermost is layer and not layer.user_function


def supports_argument(raw: RawLayer, layer: Operation, argument: str) -> bool:
    """Whether a layer uses an argument of its call that is not a tensor."""
    return argument in _ARGUMENTS and is_attention(raw, layer)


def supports_tensor(raw: RawLayer, layer: Operation, argument: str) -> bool:
    """Whether a layer uses a tensor in a named argument of its call."""
    if argument == "attention_mask":
        return raw.class_name == "MultiHeadAttention" and is_attention(raw, layer)
    if argument == "mask":  # only softmax with a mask has one before masks are followed
        return layer.masked_inputs == (0,)
    return argument == "initial_state" and bool(layer.state_shapes())


def _is_softmax(class_name: object, config: object) -> bool:
    """Whether a layer is Keras' Softmax, the only activation that uses a mask, or has it inside."""
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if class_name == "TimeDistributed" and isinstance(inner, Mapping):
        return _is_softmax(inner.get("class_name"), inner.get("config"))
    return class_name == "Softmax"


def as_called(raw: RawLayer, layer: Operation, call: Call, writer: Writer) -> Operation:
    """Return the layer that the arguments of a call select."""
    if is_attention(raw, layer):
        selected: dict[str, Any] = {
            ours: True for theirs, ours in _ARGUMENTS.items() if theirs in call.arguments
        }
        if raw.class_name == "MultiHeadAttention":
            if "attention_mask" in call.options:
                selected["masked"] = (ATTENTION_MASK,)
            if "return_attention_scores" in call.arguments:
                selected["fully_masked"] = _fully_masked(writer, True, False)
        return replace(layer, **selected)
    softmax = (
        layer.activations.get("activation") if _is_softmax(raw.class_name, raw.config) else None
    )
    if "mask" in call.options and softmax is not None:
        axis = -1 if softmax.axis is None else softmax.axis
        return MaskedSoftmax(axis, writer.softmax_zeroes_blocked, additive=writer.major < 3)
    return layer


TRANSLATORS: dict[str, Callable[[Config, LayerTensors], Translation]] = {
    "Attention": _attention("dot"),
    "AdditiveAttention": _attention("additive"),
    "MultiHeadAttention": _multi_head_attention,
}
