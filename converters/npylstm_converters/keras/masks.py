"""Where Keras' masks go: from the layer that makes one to the layers that obey it.

Keras attaches masks to tensors while it runs. Here they are followed once, by the rules of the
Keras that wrote the model, and become tensors of the graph: the file holds the outcome, no rule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from npylstm.layers import Bidirectional, Concatenate, Layer, TimeDistributed
from npylstm.layers.recurrent import Recurrent
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.activations import LAYERS as ACTIVATION_LAYERS
from npylstm_converters.keras.graph import Call, Graph, RawLayer, Tensor

__all__ = [
    "Join", "Sources", "also_masked", "follow", "joined_sources", "made_mask", "split_masks",
    "taken", "with_mask",
]  # fmt: skip

Mask = TypeVar("Mask")
# Makes one mask of several: ``"and"``, ``"or"``, or one after the other along the steps.
Join = Callable[[str, Sequence[Mask]], Mask]

# Layers that hand the mask of their input on, and pay no heed to it themselves.
_PASS = (
    "Dense", "Activation", "BatchNormalization", "LayerNormalization", "UnitNormalization",
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "ActivityRegularization", "PReLU",
    "TimeDistributed", *(name for name in ACTIVATION_LAYERS if name != "Softmax"),
)  # fmt: skip
_PASS_SINCE_3 = ("Identity", "Rescaling")  # Keras 2 lets it go there
_MERGE = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Merge")
# Layers that would compute something else if their input has a mask.
_HEED = (
    "Softmax",
    "GlobalAveragePooling1D",
    "Attention",
    "AdditiveAttention",
    "MultiHeadAttention",
)


# What a mask is made of: of which tensor, compared with which number; true where any differs.
Sources = frozenset[tuple[Tensor, float]]


def made_mask(raw: RawLayer, call: Call) -> Sources | None:
    """What the mask is made of that a layer makes, as a second output."""
    if not call.inputs:
        return None  # damage, which the layer will report
    if raw.class_name == "Masking":
        return frozenset({(call.inputs[0], float(raw.config.get("mask_value", 0.0)))})
    if raw.class_name == "Embedding" and raw.config.get("mask_zero"):
        return frozenset({(call.inputs[0], 0.0)})
    return None


def joined_sources(how: str, masks: Sequence[Sources]) -> Sources:
    """Tell of what several masks are made."""
    return frozenset().union(*masks)


def split_masks(
    graph: Graph, calls: Sequence[Call], outputs: Sequence[Tensor] | Tensor
) -> tuple[dict[Tensor, Sources | None], list[Call]]:
    """Take masks out of a graph that spells them out as operations, as Keras 3 does.

    Returns
    -------
    given, calls
        What the masks are made of that calls are given (None: true everywhere), and the calls
        without them and without operations that nobody needs any more.
    """
    raws = dict(graph.leaves())
    by_call = {(call.layer, call.number): call for call in calls}

    def is_operation(call: Call) -> bool:
        return call.layer in raws and raws[call.layer].class_name.startswith("ops.")

    given: dict[Tensor, Sources | None] = {}
    kept = []
    for call in calls:
        if "mask" in call.options:
            (mask, *_) = call.options["mask"]
            main = Tensor(call.layer, call.number)
            with contextlib.suppress(_OtherMask):
                given[main] = _sources(mask, raws, by_call)
                rest = {k: t for k, t in call.options.items() if k != "mask"}
                call = replace(call, options=rest)
        kept.append(call)
    ends = [outputs] if isinstance(outputs, Tensor) else outputs
    needed = {(t.layer, t.call) for t in ends}
    for call in reversed(kept):  # readers come after what they read
        if not is_operation(call) or (call.layer, call.number) in needed:
            needed |= {(t.layer, t.call) for t in call.reads}
    return given, [
        call for call in kept if not is_operation(call) or (call.layer, call.number) in needed
    ]


class _OtherMask(Exception):
    """A mask that is none of Keras' own making."""


def _sources(
    tensor: Tensor, raws: Mapping[str, RawLayer], calls: Mapping[tuple[str, int], Call]
) -> Sources | None:
    """Read the operations that make a mask backwards."""
    call = calls.get((tensor.layer, tensor.call))
    kind = raws[tensor.layer].class_name if call is not None else ""
    if call is None or call.problem or call.options:
        raise _OtherMask
    if kind == "ops.NotEqual" and len(call.inputs) == len(call.numbers) == 1:
        return frozenset({(call.inputs[0], float(call.numbers[0]))})
    if kind == "ops.OnesLike":
        return None
    if kind not in ("ops.Any", "ops.ExpandDims", "ops.LogicalOr", "ops.Concatenate"):
        raise _OtherMask
    if kind != "ops.LogicalOr" and raws[tensor.layer].config.get("axis") not in (-1, [-1]):
        raise _OtherMask
    made: Sources = frozenset()
    for part in call.inputs:
        if raws[part.layer].class_name == "ops.ZerosLike":
            continue
        sources = _sources(part, raws, calls)
        if sources is None:
            return None
        made |= sources
    return made


def obeys(layer: Layer) -> bool:
    """Whether a layer takes a mask."""
    return isinstance(layer, (Recurrent, Bidirectional))


def taken(
    layer: Layer, call: Call, given: Sequence[Mask | None], major: int, explicit: bool
) -> Mask | None:
    """The mask that a layer obeys in a call.

    Keras 3 passes over the mask of a sequence if a state is given beside it, unless it is told.
    """
    if (
        not given
        or not obeys(layer)
        or (major >= 3 and "initial_state" in call.options and not explicit)
    ):
        return None
    return given[0]


def with_mask(layer: Layer) -> Layer:
    """Return the same layer, taking a mask as its last input."""
    if isinstance(layer, Bidirectional):
        forward, backward = map(with_mask, layer.directions.values())
        return replace(layer, forward_layer=forward, backward_layer=backward)
    assert isinstance(layer, Recurrent)
    return replace(layer, masked=True)


def follow(
    raw: RawLayer, layer: Layer, given: Sequence[Mask | None], major: int, join: Join[Mask]
) -> Mask | None:
    """Say which mask the main output of a call has; it makes none itself.

    Parameters
    ----------
    raw, layer
        The layer, as the config has it and as it was translated.
    given
        Masks of the inputs.
    major
        The generation of Keras.
    join
        Makes one of several.

    Raises
    ------
    Refusal
        If the mask would change what the layer computes, in a way that is not supported.
    """
    there = [mask for mask in given if mask is not None]
    if not there:
        return None
    name = raw.class_name
    if name in _HEED or (major >= 3 and name in ("Maximum", "Minimum", "Multiply")):
        raise Refusal(f"{name} with a mask is not supported")
    inner = layer
    while isinstance(inner, TimeDistributed):
        inner = inner.layer
    if inner is not layer and (obeys(inner) or inner.kind == "reduce"):
        raise Refusal(f"TimeDistributed({inner.kind}) with a mask is not supported")
    if obeys(layer):
        if getattr(layer, "time_major", False):
            raise Refusal("time_major with a mask is not supported")
        if _unrolled_backwards(raw.config):
            raise Refusal("unroll with go_backwards and a mask is not supported")
        return given[0] if getattr(layer, "return_sequences", False) else None
    if name in _PASS or (major >= 3 and name in _PASS_SINCE_3):
        return given[0]
    if name == "Concatenate" or isinstance(layer, Concatenate):
        return _concatenated(layer, given, there, major, join)
    if name in _MERGE:
        if major >= 3:
            return join("or", there) if len(there) == len(given) else None
        return join("and", there)
    return None


def _unrolled_backwards(config: Mapping[str, Any]) -> bool:
    """Whether Keras lays the mask over the steps the other way round, as it then does."""
    inner = config.get("layer")
    if isinstance(inner, Mapping) and isinstance(inner.get("config"), Mapping):
        return bool(inner["config"].get("unroll"))
    quirk = ("unroll", "go_backwards", "zero_output_for_mask", "return_sequences")
    return all(config.get(name) for name in quirk)


def also_masked(layer: Layer) -> tuple[int, ...]:
    """Outputs beside the main one that have its mask."""
    if isinstance(layer, Bidirectional) and layer.merge_mode == "none" and layer.return_sequences:
        return (1,)
    return ()


def _concatenated(
    layer: Layer, given: Sequence[Mask | None], there: Sequence[Mask], major: int, join: Join[Mask]
) -> Mask | None:
    axis = getattr(layer, "axis", -1)
    whole = len(there) == len(given)
    if axis == 1:
        if not whole:
            raise Refusal("Concatenate along the steps, with a mask for some of them")
        return join("steps", there)
    if major >= 3:  # true where it is for any of the features
        return join("or", there) if whole else None
    return join("and", there)
