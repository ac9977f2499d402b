"""The path of Keras' masks from the layer that creates one to the layers that use it.

Keras attaches masks to tensors while it runs. This module applies the rules of the Keras that wrote
the model once. The masks become tensors of the graph: the file stores the result, not the rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from npylstm.ops.base import Operation
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.activations import LAYERS as ACTIVATION_LAYERS
from npylstm_converters.keras.graph import REVERSED, Call, Graph, RawLayer, Tensor
from npylstm_converters.keras.inlining import Claims

__all__ = [
    "Join",
    "Mask",
    "Sources",
    "created_mask",
    "joined_sources",
    "output_mask",
    "split_masks",
    "used_masks",
]  # fmt: skip

Mask = TypeVar("Mask")
# Combines several masks into one: ``"and"``, ``"or"``, or concatenated along the ``"steps"``.
# ``"any"`` reduces one mask along its last axis.
Join = Callable[[str, Sequence[Mask]], Mask]

# Layers that pass on the mask of their input and do not use it.
_PASS = (
    "Dense", "Activation", "BatchNormalization", "LayerNormalization", "UnitNormalization",
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "PReLU",
    REVERSED, *ACTIVATION_LAYERS,
)  # fmt: skip
_PASS_SINCE_3 = ("Identity", "Normalization", "Rescaling")  # Keras 2 drops it
_MERGE = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Merge")
_ATTENTION = ("Attention", "AdditiveAttention", "MultiHeadAttention")
_CHOOSY_SINCE_3 = ("Multiply", "Maximum", "Minimum")  # they skip masked entries


# The sources of a mask: pairs (tensor, number). The mask is true where any tensor differs from its
# number.
Sources = frozenset[tuple[Tensor, float]]


def created_mask(raw: RawLayer, layer: Operation, call: Call, major: int) -> Sources | None:
    """Return the sources of the mask that a layer creates, its second output.

    Up to Keras 2, Softmax passes on its ``mask`` argument.
    """
    if not call.inputs or layer.user_function is not None:
        return None  # damaged: the layer's translation reports it
    if "mask" in call.options:
        return frozenset({(call.options["mask"][0], 0.0)}) if major < 3 else None
    class_name, config = raw.class_name, raw.config
    if class_name == "TimeDistributed" and major < 3:
        class_name, config = _inside(config)
    if class_name == "Masking":
        return frozenset({(call.inputs[0], float(config.get("mask_value", 0.0)))})
    if class_name == "Embedding" and config.get("mask_zero"):
        return frozenset({(call.inputs[0], 0.0)})
    return None


def _inside(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the class and config of a wrapper's inner layer."""
    entry = config.get("layer")
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        return "", {}
    return str(entry.get("class_name")), entry["config"]


def joined_sources(_: str, masks: Sequence[Sources]) -> Sources:
    """Return the sources of several combined masks."""
    return frozenset().union(*masks)


def split_masks(
    graph: Graph, calls: Sequence[Call], outputs: Sequence[Tensor] | Tensor, claims: Claims
) -> tuple[dict[Tensor, Sources | None], list[Call], list[tuple[Tensor, Sources | None]]]:
    """Remove masks from a graph that computes them by operations, as in Keras 3.

    Returns
    -------
    given, calls, claimed
        The sources of each call's ``mask`` argument (None: true everywhere); the calls without
        these arguments and without unused operations; the sources of masks in calls of nested
        models.
    """
    raws = dict(graph.leaves())
    by_call = {(call.layer, call.number): call for call in calls}

    def is_operation(call: Call) -> bool:
        return call.layer in raws and raws[call.layer].class_name.startswith("ops.")

    tracer = _MaskTracer(raws, by_call)
    given: dict[Tensor, Sources | None] = {}
    kept = []
    for call in calls:
        if len(call.options.get("mask", ())) == 1:
            (mask,) = call.options["mask"]
            main = Tensor(call.layer, call.number)
            with contextlib.suppress(_OtherMask):
                given[main] = tracer.sources(mask)
                rest = {k: t for k, t in call.options.items() if k != "mask"}
                call = replace(call, options=rest)
        kept.append(call)
    claimed: list[tuple[Tensor, Sources | None]] = []
    for tensor, mask in claims:
        other: Sources = frozenset({(mask, 0.0)})  # no mask of Keras has this source
        with contextlib.suppress(_OtherMask):
            claimed.append((tensor, tracer.sources(mask)))
            continue
        claimed.append((tensor, other))
    ends = [outputs] if isinstance(outputs, Tensor) else outputs
    needed = {(t.layer, t.call) for t in ends}
    for call in reversed(kept):  # calls follow the calls that they read
        if not is_operation(call) or (call.layer, call.number) in needed:
            needed |= {(t.layer, t.call) for t in call.reads}
    kept = [c for c in kept if not is_operation(c) or (c.layer, c.number) in needed]
    return given, kept, claimed


class _OtherMask(Exception):
    """Raised for a mask that Keras itself did not create."""


class _MaskTracer:
    """Masks computed by operations, traced back to their sources; each operation once."""

    def __init__(self, raws: Mapping[str, RawLayer], calls: Mapping[tuple[str, int], Call]) -> None:
        self._raws, self._calls = raws, calls
        self._known: dict[Tensor, Sources | None] = {}

    def sources(self, tensor: Tensor) -> Sources | None:
        """Return the sources of a mask; None if it is true everywhere."""
        if tensor not in self._known:
            try:
                self._known[tensor] = self._read(tensor)
            except RecursionError:
                raise _OtherMask from None
        return self._known[tensor]

    def _read(self, tensor: Tensor) -> Sources | None:
        call = self._calls.get((tensor.layer, tensor.call))
        kind = self._raws[tensor.layer].class_name if call is not None else ""
        if call is None or call.problem or call.options:
            raise _OtherMask
        if kind == "ops.NotEqual" and len(call.inputs) == len(call.numbers) == 1:
            return frozenset({(call.inputs[0], call.numbers[0])})
        if kind == "ops.OnesLike":
            return None
        along_an_axis = ("ops.Any", "ops.ExpandDims", "ops.Concatenate")
        if kind not in (*along_an_axis, "ops.LogicalOr", "ops.ConvertToTensor"):
            raise _OtherMask
        axis = self._raws[tensor.layer].config.get("axis")
        along_steps = kind == "ops.Concatenate" and axis == 1
        if kind in along_an_axis and axis not in (-1, [-1]) and not along_steps:
            raise _OtherMask
        made: Sources = frozenset()
        for part in call.inputs:
            if self._raws[part.layer].class_name == "ops.ZerosLike":
                continue
            sources = self.sources(part)
            if sources is None:
                return None
            made |= sources
        return made


def used_masks(
    raw: RawLayer,
    layer: Operation,
    call: Call,
    given: Sequence[Mask | None],
    major: int,
    explicit: bool,
) -> dict[int, Mask]:
    """Return the masks that a layer uses in a call, by input.

    Keras 3 ignores a sequence's attached mask if the call has an ``initial_state``.
    """
    if major >= 3 and "initial_state" in call.options and not explicit:
        return {}
    choosy = major >= 3 and raw.class_name in _CHOOSY_SINCE_3
    masks = enumerate(given if choosy else given[: layer.mask_input_count])
    return {k: mask for k, mask in masks if mask is not None}


def output_mask(
    raw: RawLayer, layer: Operation, given: Sequence[Mask | None], major: int, join: Join[Mask]
) -> Mask | None:
    """Return the mask of the main output of a call that creates none.

    Parameters
    ----------
    raw, layer
        The layer in the config, and the translated one.
    given
        Masks of the inputs.
    major
        The major version of Keras.
    join
        Combines several masks.

    Raises
    ------
    Refusal
        If the mask would change the outputs in an unsupported way.
    """
    there = [mask for mask in given if mask is not None]
    if not there:
        return None
    name = raw.class_name
    inner = layer.innermost
    if layer.user_function is not None:
        raise Refusal("a mask reaches a function of the user's own, which is not supported")
    if name == "Softmax" and not layer.masked_inputs:
        raise Refusal("Softmax with the mask of what it reads is not supported")
    if name == "TimeDistributed":
        return _over_steps(raw, inner, given, major, join)
    if layer.mask_input_count:
        _check_supported(raw, layer)
    if inner.is_recurrent:
        return given[0] if inner.returns_sequence else None
    if name in _PASS or name in _ATTENTION or (major >= 3 and name in _PASS_SINCE_3):
        return given[0]
    if name == "Concatenate" or (name == "Merge" and raw.config.get("mode") == "concat"):
        return _concatenated(raw, given, there, major, join)
    if name in _MERGE:
        if major >= 3:
            return join("or", there) if len(there) == len(given) else None
        return join("and", there)
    return None


def _check_supported(raw: RawLayer, layer: Operation) -> None:
    """Raise Refusal for options with which Keras applies a mask to the wrong steps."""
    inner = layer.innermost
    if inner.time_axis == 0 and inner is not layer:
        raise Refusal("TimeDistributed(time_major) with a mask is not supported")
    if inner.is_recurrent and _unrolled_backwards(raw.config):
        raise Refusal("unroll with go_backwards and a mask is not supported")
    if raw.config.get("data_format") == "channels_first":
        raise Refusal("channels_first with a mask is not supported")


def _over_steps(
    raw: RawLayer, inner: Operation, given: Sequence[Mask | None], major: int, join: Join[Mask]
) -> Mask | None:
    """Return the output mask of TimeDistributed: unchanged in Keras 3.

    Up to Keras 2 the inner layer determines it. If that drops its mask, ``any`` over its steps
    remains.
    """
    class_name, config = _inside(raw.config)
    mask = given[0]
    assert mask is not None  # the only input has a mask
    if class_name in ("Softmax", *_ATTENTION, "TimeDistributed", "Concatenate", *_MERGE):
        raise Refusal(f"TimeDistributed({class_name}) with a mask is not supported")
    if inner.mask_input_count:
        _check_supported(replace(raw, config=config), inner)
    dropped = inner.mask_input_count or class_name not in _PASS
    if major < 3 and not inner.returns_sequence and dropped:
        return join("any", [mask])
    return mask


def _unrolled_backwards(config: Mapping[str, Any]) -> bool:
    """Whether Keras applies the mask to the steps in reverse order."""
    class_name, inner = _inside(config)
    if class_name:
        return bool(inner.get("unroll"))
    quirk = ("unroll", "go_backwards", "zero_output_for_mask", "return_sequences")
    return all(config.get(name) for name in quirk)


def _concatenated(
    raw: RawLayer,
    given: Sequence[Mask | None],
    there: Sequence[Mask],
    major: int,
    join: Join[Mask],
) -> Mask | None:
    axis = raw.config.get("concat_axis" if raw.class_name == "Merge" else "axis", -1)
    whole = len(there) == len(given)
    if axis in (1, [1]) and not raw.times:
        if not whole:
            raise Refusal("Concatenate along the steps, with a mask for some of them")
        return join("steps", there)
    if major >= 3:  # true if the mask of any part is true
        return join("or", there) if whole else None
    return join("and", there)
