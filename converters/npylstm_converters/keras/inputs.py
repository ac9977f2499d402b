"""The inputs of a model: their shapes as declared, or inferred from the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from npylstm import FormatError
from npylstm.ops.base import Operation
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.convolution import Conv1D
from npylstm.ops.dense import Dense, Embedding
from npylstm.ops.masking import Masking
from npylstm.ops.normalization import BatchNormalization, LayerNormalization
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.recurrent import Recurrent
from npylstm.ops.shapes import BATCH, STEPS, Dim
from npylstm.ops.time_distributed import TimeDistributed
from npylstm.spec import TensorSpec
from npylstm_converters.keras.graph import Call, Graph, RawLayer, Tensor

__all__ = ["is_embedding_input", "is_first_call_shape", "read_inputs"]

# Layers that keep the shape.
_KEEP = (ActivationLayer, BatchNormalization, Identity, LayerNormalization, Masking)


def read_inputs(
    graph: Graph, calls: Sequence[Call], layers: Mapping[str, Operation], names: Mapping[str, str]
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a model, in order.

    Parameters
    ----------
    graph, calls
        The model, and its calls with nested models expanded.
    layers
        Its translated layers by path.
    names
        The inputs' names in the spec.

    Returns
    -------
    tuple
        Each free size has a separate name.

    Raises
    ------
    FormatError
        If a shape is unknown.
    """
    inputs: list[TensorSpec] = []
    free = 0
    for name in graph.inputs:
        raw, first = graph.layer(name), _first_reader(Tensor(name), calls, layers)
        declared = _declared(graph, raw, first)
        shape: list[Dim] = []
        batch_axis = int(bool(getattr(first, "time_major", False)))
        for axis, size in enumerate(declared):
            if axis == batch_axis:
                shape.append(BATCH)  # a batch size fixed by the framework becomes free
            elif size is None:
                free += 1
                shape.append(STEPS if free == 1 else f"{STEPS}_{free}")
            else:
                shape.append(int(size))
        readers = [_behind(c, calls, layers) for c in calls if Tensor(name) in c.reads]
        whole = bool(readers) and all(map(is_embedding_input, readers))
        inputs.append(TensorSpec(names[name], tuple(shape), whole))
    return tuple(inputs)


def is_embedding_input(layer: Operation | None) -> bool:
    """Whether a layer's inputs are ids: indices into an Embedding."""
    inner = layer.layer if isinstance(layer, TimeDistributed) else layer
    return isinstance(inner, Embedding)


def is_first_call_shape(graph: Graph, layers: Iterable[Operation]) -> bool:
    """Whether a shape is only that of the first call, so that its number of steps is arbitrary.

    Such a shape has a batch size, which nobody fixes without a stateful layer.
    """
    config = graph.layer(graph.inputs[0]).config
    declared = config.get("batch_input_shape") or config.get("batch_shape") or graph.build_shape
    pinned = isinstance(declared, (list, tuple)) and len(declared) > 1 and declared[0] is not None
    return pinned and graph.sequential and not any(getattr(n, "stateful", False) for n in layers)


def _first_reader(
    tensor: Tensor, calls: Sequence[Call], layers: Mapping[str, Operation]
) -> Operation | None:
    """Return the first layer that reads a tensor, skipping layers that keep its shape."""
    return next((_behind(c, calls, layers) for c in calls if tensor in c.reads), None)


def _behind(call: Call, calls: Sequence[Call], layers: Mapping[str, Operation]) -> Operation | None:
    layer = layers.get(call.layer)  # None for an operation
    if isinstance(layer, _KEEP):
        return _first_reader(Tensor(call.layer, call.number), calls, layers)
    return layer


def _declared(graph: Graph, raw: RawLayer, first: Operation | None) -> Sequence[Any]:
    config = raw.config
    declared = config.get("batch_input_shape") or config.get("batch_shape") or graph.build_shape
    if declared is None and isinstance(config.get("input_shape"), list):
        declared = [None, *config["input_shape"]]
    inner = first.directions["forward"] if isinstance(first, Bidirectional) else first
    features, length = getattr(inner, "features", None), config.get("input_length")
    if declared is None and isinstance(inner, (Recurrent, Conv1D)):
        declared = [None, length, features]
    if declared is None and isinstance(first, Dense):
        declared = [None, features]
    if declared is None and isinstance(first, Embedding):
        declared = [None, length]
    if declared is None:
        raise FormatError(f"{raw.name}: the input shape is nowhere declared")
    if not isinstance(declared, (list, tuple)) or not all(
        d is None or (isinstance(d, int) and not isinstance(d, bool)) for d in declared
    ):
        raise FormatError(f"{raw.name}: expected an input shape, got {declared!r:.80}")
    return declared
