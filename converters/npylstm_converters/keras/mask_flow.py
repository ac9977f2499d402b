"""The masks of a call's input tensors.

Keras attaches masks to tensors while it runs. Keras 3 also writes masks into the graph, as
arguments of calls; these apply even if the tensor has lost its mask by then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple

from npylstm.ops.base import Operation
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import Writer
from npylstm_converters.keras.graph import Call, RawLayer, Tensor
from npylstm_converters.keras.masks import (
    Join,
    Mask,
    Sources,
    joined_sources,
    output_mask,
    used_masks,
)

__all__ = ["Flow", "Masks", "mask_races"]


class Masks(NamedTuple):
    """The masks in a config.

    Attributes
    ----------
    writer
        The Keras whose rules apply.
    given
        The sources of each call's ``mask`` argument, by the call's main output.
    claimed
        The sources of masks in calls of nested models, by the masked tensor.
    steps
        For each output of a TimeDistributed model, the input of that model.
    models
        Paths of the nested models.
    """

    writer: Writer
    given: Mapping[Tensor, Sources | None]
    claimed: Mapping[Tensor, Sources | None]
    steps: Mapping[Tensor, Tensor]
    models: Collection[str]

    def model_of(self, path: str) -> str:
        """Return the path of the innermost model that contains a layer."""
        return max((m for m in self.models if path.startswith(m)), key=len, default="")


class Flow(Generic[Mask]):
    """The masks of tensors, collected call by call.

    ``written`` are the masks in the graph, ``attached`` those of the tensors while Keras runs.
    """

    def __init__(self, raws: Mapping[str, RawLayer], masks: Masks, join: Join[Mask]) -> None:
        self.written: dict[Tensor, Mask] = {}
        self.attached: dict[Tensor, Mask] = {}
        self._raws, self._masks, self._join = raws, masks, join

    def has_mask_argument(self, call: Call) -> bool:
        """Whether the config stores a ``mask`` argument for a call."""
        return Tensor(call.layer, call.number) in self._masks.given

    def given(self, call: Call) -> list[Mask | None]:
        """Return the masks of a call's inputs."""
        return self._seen(call, self.written if self.has_mask_argument(call) else self.attached)

    def _seen(self, call: Call, masks: Mapping[Tensor, Mask]) -> list[Mask | None]:
        return [self._one(call, tensor, masks) for tensor in call.inputs]

    def _one(self, call: Call, tensor: Tensor, masks: Mapping[Tensor, Mask]) -> Mask | None:
        """Return the mask of one input; an output of a TimeDistributed model follows its rule.

        The graph of a Keras 3 model has no masks for the inputs and outputs of nested models.
        """
        own = masks.get(tensor)
        inner, outer = self._raws[tensor.layer].times, self._raws[call.layer].times
        if outer == inner and masks is self.written and self._masks.writer.major >= 3:
            model_of = self._masks.model_of
            return own if model_of(call.layer) == model_of(tensor.layer) else None
        if outer >= inner:
            return own
        around = masks.get(self._masks.steps[tensor]) if tensor in self._masks.steps else None
        if self._masks.writer.major >= 3:
            return around
        return own if own is not None or around is None else self._join("any", [around])

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
        major = self._masks.writer.major
        written, attached = self._seen(call, self.written), self._seen(call, self.attached)
        if self.has_mask_argument(call):  # the argument's mask propagates, not the tensor's
            attached = written
        after = output_mask(raw, layer, attached, major, self._join)
        if after is not None:
            self.attached |= dict.fromkeys(outputs, after)
        if written != attached:
            after = output_mask(raw, layer, written, major, self._join)
        if after is not None:
            self.written |= dict.fromkeys(outputs, after)
        if removes_masks(raw, self._masks.writer):
            for tensor in call.inputs:
                self.attached.pop(tensor, None)


def removes_masks(raw: RawLayer, writer: Writer) -> bool:
    """Whether a layer removes the masks of its inputs."""
    return raw.class_name == "MultiHeadAttention" and not raw.custom and writer.heads_take_masks


def mask_races(
    raws: Mapping[str, RawLayer],
    layers: Mapping[str, Operation],
    calls: Sequence[Call],
    masks: Masks,
    flow: Flow[Sources],
) -> Iterator[tuple[Call, Call]]:
    """Find calls that read a mask which another call removes, in an undefined order.

    Yields
    ------
    reader, taker
        Neither depends on the other.
    """
    readers: dict[Tensor, list[Call]] = {}
    for call in calls:
        for tensor in call.inputs:
            readers.setdefault(tensor, []).append(call)
    for k, taker in enumerate(calls):
        masked = {t for t in taker.inputs if t in flow.written}
        if not masked or not removes_masks(raws[taker.layer], masks.writer):
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
                and _depends_on_masks(raws[call.layer], layers[call.layer], call, given, masks)
            ):
                yield call, taker


def _order_is_undefined(call: Call, other: Call) -> bool:
    """Whether the order of two calls in Keras is undefined."""
    for one, another in zip(call.place, other.place, strict=False):
        if one != another:
            return one[0] == another[0]
    return True


def _depends_on_masks(
    raw: RawLayer, layer: Operation, call: Call, given: Sequence[Sources | None], masks: Masks
) -> bool:
    """Whether the masks of its inputs change a call's output or its mask."""
    major = masks.writer.major
    try:
        after = output_mask(raw, layer, given, major, joined_sources)
    except Refusal:
        return True
    return after is not None or bool(used_masks(raw, layer, call, given, major, False))
