"""Nested models are replaced by their layers' calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from npylstm import FormatError
from npylstm_converters.keras.graph import PATH_SEPARATOR, Call, Graph, Place, Tensor, display_path

__all__ = ["Claims", "Inlined", "inline"]

_MOST_CALLS = 100_000  # nesting multiplies the number of calls

Claims = Sequence[tuple[Tensor, Tensor]]


class Inlined(NamedTuple):
    """A model without nested models.

    Attributes
    ----------
    calls
        In the order of computation; calls of a layer are numbered as the config numbers them.
    outputs
        A single tensor represents all outputs of a call.
    claims
        Pairs (tensor, mask) from calls of nested models with a ``mask`` argument.
    steps
        For each output of a TimeDistributed model, the input of that model.
    """

    calls: list[Call]
    outputs: list[Tensor] | Tensor
    claims: Claims
    steps: Mapping[Tensor, Tensor]


def inline(graph: Graph) -> Inlined:
    """Return the model's calls with nested models expanded, by paths of :meth:`Graph.leaves`."""
    calls: list[Call] = []
    steps: dict[Tensor, Tensor] = {}
    claims: list[tuple[Tensor, Tensor]] = []
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
            if raw.inner is not None and not raw.is_model and len(given) != 1:
                problem = problem or f"is called with {len(given)} tensors"
            if raw.inner is not None and not problem:
                if len(given) != len(raw.inner.inputs):
                    raise FormatError(
                        f"model config: {display_path(path)}: expected "
                        f"{len(raw.inner.inputs)} inputs, got {len(given)}"
                    )
                result = run(raw.inner, f"{path}{PATH_SEPARATOR}", place, given)
                made[call.layer, call.number] = result
                if raw.class_name == "TimeDistributed":
                    ends = [result] if isinstance(result, Tensor) else result
                    steps.update(dict.fromkeys(ends, given[0]))
                masks = options.pop("mask", ())
                if len(masks) in (0, len(given)) and not options and not call.arguments:
                    claims.extend(zip(given, masks, strict=False))
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

    if all(call == rank for (_, call), rank in ranks.items()):
        return Inlined(calls, outputs, claims, steps)

    def renumber(tensor: Tensor) -> Tensor:
        return replace(tensor, call=ranks.get((tensor.layer, tensor.call), tensor.call))

    renumbered = [
        replace(
            call,
            number=ranks[call.layer, call.number],
            inputs=tuple(map(renumber, call.inputs)),
            options={key: tuple(map(renumber, tensors)) for key, tensors in call.options.items()},
        )
        for call in calls
    ]
    claims = [(renumber(a), renumber(b)) for a, b in claims]
    steps = {renumber(a): renumber(b) for a, b in steps.items()}
    ends_here = renumber(outputs) if isinstance(outputs, Tensor) else [renumber(t) for t in outputs]
    return Inlined(renumbered, ends_here, claims, steps)
