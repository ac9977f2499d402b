"""A model as one list of calls: nested models are expanded, and masks in the graph removed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from npylstm import FormatError
from npylstm_converters.keras.graph import (
    PATH_SEPARATOR,
    Call,
    Graph,
    Place,
    RawLayer,
    Tensor,
    display_path,
)

__all__ = ["FlatGraph", "Sources", "flatten"]

_MOST_CALLS = 100_000  # nesting multiplies the number of calls

# The sources of a mask: pairs (tensor, number). The mask is true where any tensor differs from its
# number.
Sources = frozenset[tuple[Tensor, float]]


class FlatGraph(NamedTuple):
    """A model without nested models.

    Attributes
    ----------
    raws
        The layers as the config describes them, by path.
    calls
        In the order of computation; calls of a layer are numbered as the config numbers them.
    outputs
        A single tensor represents all outputs of a call.
    mask_arguments
        The sources of each call's ``mask`` argument, by the call's main output. None: all true.
    model_masks
        The sources of masks in calls of nested models, by the masked tensor.
    steps
        For each output of a TimeDistributed model, the input of that model.
    models
        Paths of the nested models.
    """

    raws: Mapping[str, RawLayer]
    calls: Sequence[Call]
    outputs: Sequence[Tensor] | Tensor
    mask_arguments: Mapping[Tensor, Sources | None]
    model_masks: Mapping[Tensor, Sources | None]
    steps: Mapping[Tensor, Tensor]
    models: Collection[str]


def flatten(graph: Graph, raws: Mapping[str, RawLayer]) -> FlatGraph:
    """Return a model without nested models and without the masks that Keras 3 writes.

    ``raws`` are its layers by path, as :meth:`Graph.leaves` yields them.
    """
    calls: list[Call] = []
    steps: dict[Tensor, Tensor] = {}
    claims: list[tuple[Tensor, Tensor]] = []
    models: set[str] = set()
    counts: Counter[str] = Counter()
    trails: dict[str, list[tuple[int, ...]]] = {}

    def run(
        graph: Graph, prefix: str, around: tuple[Place, ...], inputs: Sequence[Tensor]
    ) -> list[Tensor] | Tensor:
        made: dict[tuple[str, int], list[Tensor] | Tensor] = {}
        raws = {layer.name: layer for layer in graph.layers}
        for name, tensor in zip(graph.inputs, inputs, strict=True):
            made[name, 0] = [tensor]

        def find(tensor: Tensor) -> Tensor:
            source = made.get((tensor.layer, tensor.call))
            if source is None:
                path = display_path(f"{prefix}{tensor.layer}")
                raise FormatError(f"model config: {path}: call {tensor.call} is never computed")
            if isinstance(source, Tensor):
                return Tensor(source.layer, source.call, tensor.output)
            if not 0 <= tensor.output < len(source):
                path = display_path(f"{prefix}{tensor.layer}")
                raise FormatError(f"model config: {path} has no output {tensor.output}")
            return source[tensor.output]

        for call in graph.calls:
            raw, path = raws[call.layer], f"{prefix}{call.layer}"
            given = tuple(map(find, call.inputs))
            options = {k: tuple(map(find, tensors)) for k, tensors in call.options.items()}
            place = (*around, *(call.place or ((0, call.layer, call.number),)))
            problem = call.problem
            stated = call.masks or call.options.get("mask", ())
            masks = [None if mask is None else find(mask) for mask in stated]
            if raw.inner is not None and not raw.is_model and len(given) != 1:
                problem = problem or f"is called with {len(given)} tensors"
            if call.names and raw.inner is None:
                problem = problem or "is called with inputs by name"
            elif call.names and raw.inner is not None:
                order = _order(call.names, raw.inner)
                problem = problem or ("" if order else f"is called with {', '.join(call.names)}")
                given = tuple(given[k] for k in order) if order else given
                masks = [masks[k] for k in order] if order and masks else masks
            if raw.inner is not None and not problem:
                if len(given) != len(raw.inner.inputs):
                    raise FormatError(
                        f"model config: {display_path(path)}: expected "
                        f"{len(raw.inner.inputs)} inputs, got {len(given)}"
                    )
                inside = f"{path}{PATH_SEPARATOR}"
                if raw.is_model:
                    models.add(inside)
                result = run(raw.inner, inside, place, given)
                made[call.layer, call.number] = result
                if raw.class_name == "TimeDistributed":
                    ends = [result] if isinstance(result, Tensor) else result
                    steps.update(dict.fromkeys(ends, given[0]))
                options.pop("mask", None)
                if len(masks) in (0, len(given)) and not options and not call.arguments:
                    pairs = zip(given, masks, strict=False)
                    claims.extend((tensor, mask) for tensor, mask in pairs if mask is not None)
                    continue
                problem = f"is called with {', '.join([*options, *call.arguments]) or 'masks'}"
            made.setdefault((call.layer, call.number), Tensor(path, counts[path]))
            calls.append(
                replace(call, layer=path, number=counts[path], inputs=given, options=options,
                        problem=problem, place=place)
            )  # fmt: skip
            counts[path] += 1
            trails.setdefault(path, []).append(tuple(number for _, _, number in place))
            if len(calls) > _MOST_CALLS:
                raise FormatError(f"model config: more than {_MOST_CALLS} calls of layers")
        if graph.sequential:
            return made[graph.outputs[0].layer, 0]
        return [find(t) for t in graph.outputs]

    outputs = run(graph, "", (), [Tensor(name) for name in graph.inputs])
    ranks = {
        (path, k): rank
        for path, keys in trails.items()
        for rank, k in enumerate(sorted(range(len(keys)), key=keys.__getitem__))
    }

    if any(call != rank for (_, call), rank in ranks.items()):

        def renumber(tensor: Tensor) -> Tensor:
            return replace(tensor, call=ranks.get((tensor.layer, tensor.call), tensor.call))

        calls = [
            replace(
                call,
                number=ranks[call.layer, call.number],
                inputs=tuple(map(renumber, call.inputs)),
                options={key: tuple(map(renumber, read)) for key, read in call.options.items()},
            )
            for call in calls
        ]
        claims = [(renumber(a), renumber(b)) for a, b in claims]
        steps = {renumber(a): renumber(b) for a, b in steps.items()}
        if isinstance(outputs, Tensor):
            outputs = renumber(outputs)
        else:
            outputs = [renumber(t) for t in outputs]
    ends = [outputs] if isinstance(outputs, Tensor) else outputs
    given, calls, claimed = _without_masks(raws, calls, ends, claims)
    calls = [_with_positional_inputs(raws.get(call.layer), call) for call in calls]
    return FlatGraph(raws, calls, outputs, given, dict(claimed), steps, models)


def _order(names: Sequence[str], graph: Graph) -> list[int]:
    """Return for each input of a model its place among names; empty if they are others."""
    pairs = zip_longest(graph.inputs, graph.input_names, fillvalue="")
    own = [key or name for name, key in pairs]
    return [names.index(name) for name in own] if sorted(own) == sorted(names) else []


def _without_masks(
    raws: Mapping[str, RawLayer],
    calls: Sequence[Call],
    outputs: Sequence[Tensor],
    claims: Sequence[tuple[Tensor, Tensor]],
) -> tuple[dict[Tensor, Sources | None], list[Call], list[tuple[Tensor, Sources | None]]]:
    """Remove masks from a graph that computes them by operations, as in Keras 3.

    Returns
    -------
    given, calls, claimed
        The sources of each call's ``mask`` argument (None: true everywhere); the calls without
        these arguments and without unused operations; the sources of masks in calls of nested
        models.
    """
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
    needed = {(t.layer, t.call) for t in outputs}
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


def _with_positional_inputs(raw: RawLayer | None, call: Call) -> Call:
    """Return the call with query, value and key as positional inputs, in this order."""
    if raw is None or raw.class_name != "MultiHeadAttention" or raw.custom:
        return call
    options = dict(call.options)
    inputs = [*call.inputs]
    for name in ("query", "value", "key"):
        inputs += options.pop(name, ())
    return replace(call, inputs=tuple(inputs), options=options)
