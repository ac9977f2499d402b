"""The inputs of a model: their shapes as declared, or inferred from the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from npylstm import FormatError
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH, STEPS, Dim
from npylstm.spec import TensorSpec
from npylstm_converters.keras.config import dtype_name
from npylstm_converters.keras.graph import Call, Graph, RawLayer, Tensor
from npylstm_converters.keras.inlining import FlatGraph

__all__ = ["INTEGERS", "SMALL_INTEGERS", "read_inputs"]

# Floats hold the numbers of practice exactly; Keras computes with them until weights are floats.
INTEGERS = ("int32", "int64")
SMALL_INTEGERS = ("int8", "uint8", "int16", "uint16", "uint32")  # sums of these overflow


def read_inputs(
    graph: Graph, flat: FlatGraph, layers: Mapping[str, Operation], names: Mapping[str, str]
) -> tuple[tuple[TensorSpec, ...], bool]:
    """Return the inputs of a model, in order.

    Parameters
    ----------
    graph, flat
        The model, with nested models and without.
    layers
        Its translated layers by path.
    names
        The inputs' names in the spec.

    Returns
    -------
    inputs
        Each free size has a separate name.
    free_steps
        Whether their shapes are only those of a first call, so that the steps are free.

    Raises
    ------
    FormatError
        If a shape is unknown.
    """
    inputs: list[TensorSpec] = []
    free = 0
    calls = [_without_states(call, layers) for call in flat.calls]
    for name in graph.inputs:
        first = next(_readers(Tensor(name), calls, layers, _keeps_shape), None)
        declared = _declared(graph, flat.raws[name], first)
        shape: list[Dim] = []
        batch_axis = int(first is not None and first.time_axis == 0)
        for axis, size in enumerate(declared):
            if axis == batch_axis:
                shape.append(BATCH)  # a batch size fixed by the framework becomes free
            elif size is None:
                free += 1
                shape.append(STEPS if free == 1 else f"{STEPS}_{free}")
            else:
                shape.append(int(size))
        readers = [*_readers(Tensor(name), flat.calls, layers, _keeps_ids)]
        ids = bool(readers) and all(_reads_ids(layer) for layer in readers)
        stated = dtype_name(flat.raws[name].config.get("dtype"))
        integer = ids or stated in (*INTEGERS, *SMALL_INTEGERS)
        inputs.append(TensorSpec(names[name], tuple(shape), integer))
    # Nobody fixes the batch size without a stateful layer, so it shows the shape of a first call.
    declared = _batch_shape(graph, flat.raws[graph.inputs[0]])
    pinned = isinstance(declared, (list, tuple)) and len(declared) > 1 and declared[0] is not None
    stateful = any(layer.stateful for layer in layers.values())
    return tuple(inputs), pinned and graph.sequential and not stateful


def _reads_ids(layer: Operation | None) -> bool:
    return layer is not None and layer.innermost.vocabulary_size is not None


_keeps_shape, _keeps_ids = attrgetter("keeps_shape"), attrgetter("keeps_ids")


def _without_states(call: Call, layers: Mapping[str, Operation]) -> Call:
    """Return a call without the initial states that it reads."""
    layer = layers.get(call.layer)
    if layer is None or not layer.is_recurrent:
        return call
    return replace(call, inputs=call.inputs[:1], options={})


def _readers(
    tensor: Tensor,
    calls: Sequence[Call],
    layers: Mapping[str, Operation],
    is_skipped: Callable[[Operation], bool],
) -> Iterator[Operation | None]:
    """Yield the layers that read a tensor, or those behind skipped ones; None: no layer."""
    seen = {tensor}

    def walk(tensor: Tensor) -> Iterator[Operation | None]:
        readers = [call for call in calls if tensor in call.reads]
        if not readers:
            yield None
        for call in readers:
            layer, made = layers.get(call.layer), Tensor(call.layer, call.number)
            if layer is None or not is_skipped(layer):
                yield layer
            elif made not in seen:
                seen.add(made)
                yield from walk(made)

    return walk(tensor)


def _batch_shape(graph: Graph, raw: RawLayer) -> Any:
    config = raw.config
    return config.get("batch_input_shape") or config.get("batch_shape") or graph.build_shape


def _declared(graph: Graph, raw: RawLayer, first: Operation | None) -> Sequence[Any]:
    config, declared = raw.config, _batch_shape(graph, raw)
    if declared is None and isinstance(config.get("input_shape"), list):
        declared = [None, *config["input_shape"]]
    expected = first.expected_input if first is not None else None
    if declared is None and expected is not None:
        sizes = {BATCH: None, STEPS: config.get("input_length")}
        declared = [sizes[d] if isinstance(d, str) else d for d in expected]
    if declared is None:
        raise FormatError(f"{raw.name}: the input shape is nowhere declared")
    if not isinstance(declared, (list, tuple)) or not all(
        d is None or (isinstance(d, int) and not isinstance(d, bool)) for d in declared
    ):
        raise FormatError(f"{raw.name}: expected an input shape, got {declared!r:.80}")
    return declared
