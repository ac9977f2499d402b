"""The path of Keras' masks from the layer that creates one to the layers that use it.

Keras attaches masks to tensors while it runs. This module applies the rules of the Keras that wrote
the model once. The masks become tensors of the graph: the file stores the result, not the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from npylstm.ops.base import Operation
from npylstm.spec import LayerSpec
from npylstm_converters.errors import Reasons, Refusal
from npylstm_converters.keras.config import ACTIVATION_LAYERS, Writer
from npylstm_converters.keras.graph import REVERSED, Call, RawLayer, Tensor, display_path
from npylstm_converters.keras.inlining import FlatGraph, Sources
from npylstm_converters.keras.operations import may_return_its_input

__all__ = ["Flow", "created_mask", "give_masks", "used_masks"]

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


def _joined_sources(_: str, masks: Sequence[Sources]) -> Sources:
    """Return the sources of several combined masks."""
    return frozenset().union(*masks)


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


def _output_mask(
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


class Flow(Generic[Mask]):
    """The masks of tensors, collected call by call.

    ``attached`` are the masks of the tensors while Keras runs, ``written`` those in the graph:
    Keras 3 also writes masks as arguments of calls, and these apply even if the tensor has lost its
    mask by then.
    """

    def __init__(self, graph: FlatGraph, writer: Writer, join: Join[Mask]) -> None:
        self.written: dict[Tensor, Mask] = {}
        self.attached: dict[Tensor, Mask] = {}
        self._graph, self._writer, self._join = graph, writer, join

    def has_mask_argument(self, call: Call) -> bool:
        """Whether the config stores a ``mask`` argument for a call."""
        return Tensor(call.layer, call.number) in self._graph.mask_arguments

    def given(self, call: Call) -> list[Mask | None]:
        """Return the masks of a call's inputs."""
        masks = self.written if self.has_mask_argument(call) else self.attached
        return [self._one(call, tensor, masks) for tensor in call.inputs]

    def _one(self, call: Call, tensor: Tensor, masks: Mapping[Tensor, Mask]) -> Mask | None:
        """Return the mask of one input; an output of a TimeDistributed model follows its rule.

        The graph of a Keras 3 model has no masks for the inputs and outputs of nested models.
        """
        own = masks.get(tensor)
        graph, major = self._graph, self._writer.major
        inner, outer = graph.raws[tensor.layer].times, graph.raws[call.layer].times
        if outer == inner and masks is self.written and major >= 3:
            return own if self._model_of(call.layer) == self._model_of(tensor.layer) else None
        if outer >= inner:
            return own
        around = masks.get(graph.steps[tensor]) if tensor in graph.steps else None
        if major >= 3:
            return around
        return own if own is not None or around is None else self._join("any", [around])

    def _model_of(self, path: str) -> str:
        """Return the path of the innermost model that contains a layer."""
        return max((m for m in self._graph.models if path.startswith(m)), key=len, default="")

    def make(self, call: Call, mask: Mask) -> None:
        """Record the mask that a layer creates."""
        main = Tensor(call.layer, call.number)
        self.written[main] = self.attached[main] = mask

    def propagate(self, raw: RawLayer, layer: Operation, call: Call) -> None:
        """Record the output masks of a layer that creates none.

        Raises
        ------
        Refusal
            If the mask would change the outputs in an unsupported way.
        """
        names = layer.output_names() if layer.returns_sequence else ("",)
        sequences = [k for k, name in enumerate(names) if name not in layer.state_shapes()]
        outputs = [Tensor(call.layer, call.number, k) for k in sequences]
        major = self._writer.major
        written, attached = (
            [self._one(call, tensor, masks) for tensor in call.inputs]
            for masks in (self.written, self.attached)
        )
        if self.has_mask_argument(call):  # the argument's mask propagates, not the tensor's
            attached = written
        after = _output_mask(raw, layer, attached, major, self._join)
        if after is not None:
            self.attached |= dict.fromkeys(outputs, after)
        if written != attached:
            after = _output_mask(raw, layer, written, major, self._join)
        if after is not None:
            self.written |= dict.fromkeys(outputs, after)
        if _removes_masks(raw, self._writer):
            for tensor in call.inputs:
                self.attached.pop(tensor, None)


def _removes_masks(raw: RawLayer, writer: Writer) -> bool:
    """Whether a layer removes the masks of its inputs."""
    return raw.class_name == "MultiHeadAttention" and not raw.custom and writer.heads_take_masks


def _mask_races(
    graph: FlatGraph, layers: Mapping[str, LayerSpec], writer: Writer, flow: Flow[Sources]
) -> Iterator[tuple[Call, Call]]:
    """Find calls that read a mask which another call removes, in an undefined order.

    Yields
    ------
    reader, taker
        Neither depends on the other.
    """
    calls = graph.calls
    readers: dict[Tensor, list[Call]] = {}
    for call in calls:
        for tensor in call.inputs:
            readers.setdefault(tensor, []).append(call)
    for k, taker in enumerate(calls):
        masked = {t for t in taker.inputs if t in flow.written}
        if not masked or not _removes_masks(graph.raws[taker.layer], writer):
            continue
        others = [c for t in masked for c in readers[t] if c is not taker]
        if not any(_order_is_undefined(call, taker) for call in others):
            continue
        before = {(t.layer, t.call) for t in taker.reads}
        for call in reversed(calls[:k]):
            if (call.layer, call.number) in before:
                before |= {(t.layer, t.call) for t in call.reads}
        after = {(taker.layer, taker.number)}
        for call in calls[k + 1 :]:
            if any((t.layer, t.call) in after for t in call.reads):
                after.add((call.layer, call.number))
        for call in others:
            key = (call.layer, call.number)
            if (
                key in before
                or key in after
                or flow.has_mask_argument(call)
                or call.layer not in layers
            ):
                continue
            given = [flow.written.get(t) if t in masked else None for t in call.inputs]
            if (
                any(given)
                and _order_is_undefined(call, taker)
                and _depends_on_masks(
                    graph.raws[call.layer], layers[call.layer].layer, call, given, writer.major
                )
            ):
                yield call, taker


def _order_is_undefined(call: Call, other: Call) -> bool:
    """Whether the order of two calls in Keras is undefined."""
    for one, another in zip(call.place, other.place, strict=False):
        if one != another:
            return one[0] == another[0]
    return True


def _depends_on_masks(
    raw: RawLayer, layer: Operation, call: Call, given: Sequence[Sources | None], major: int
) -> bool:
    """Whether the masks of its inputs change a call's output or its mask."""
    try:
        after = _output_mask(raw, layer, given, major, _joined_sources)
    except Refusal:
        return True
    return after is not None or bool(used_masks(raw, layer, call, given, major, False))


def give_masks(
    graph: FlatGraph, layers: dict[str, LayerSpec], writer: Writer, reasons: Reasons
) -> None:
    """Give a mask input to each layer that reads a masked tensor in any of its calls."""
    major = writer.major
    flow: Flow[Sources] = Flow(graph, writer, _joined_sources)
    wanted: dict[str, set[int]] = {}
    for call in graph.calls:
        raw = graph.raws[call.layer]
        if raw.is_operation:  # its output has no mask
            masked = any(t in flow.attached for t in call.reads)
            if major < 3 and masked and may_return_its_input(raw):
                reasons.add(
                    f"{display_path(call.layer)}: an operation on a masked tensor, whose mask "
                    "TensorFlow may pass on"
                )
            continue
        layer = layers[call.layer].layer
        given = flow.given(call)
        main = Tensor(call.layer, call.number)
        if flow.has_mask_argument(call) and graph.mask_arguments[main] != (given or [None])[0]:
            reasons.add(
                f"{display_path(call.layer)}: is called with a mask that Keras did not make"
            )
        try:
            own = created_mask(raw, layer, call, major)
            if own:
                flow.make(call, own)
            else:
                flow.propagate(raw, layer, call)
        except Refusal as error:
            reasons.add(f"{display_path(call.layer)}: {error}")
            continue
        mine = used_masks(raw, layer, call, given, major, flow.has_mask_argument(call))
        wanted.setdefault(call.layer, set()).update(mine)
    for tensor, mask in graph.model_masks.items():
        if mask != flow.written.get(graph.steps.get(tensor, tensor)):
            reasons.add(
                f"{display_path(tensor.layer)}: a model is called on it with a mask that "
                "Keras did not make"
            )
    for reader, taker in _mask_races(graph, layers, writer, flow):
        reasons.add(
            f"{display_path(reader.layer)}: reads a mask that "
            f"{display_path(taker.layer)} takes off in Keras 3, before or after"
        )
    for path, which in wanted.items():
        if which:
            layers[path] = replace(layers[path], layer=layers[path].layer.with_masks(which))
