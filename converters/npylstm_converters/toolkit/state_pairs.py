"""Find the states that a graph takes as inputs and returns as outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from npylstm import ModelSpec, NpylstmError
from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.shapes import BATCH

__all__ = ["state_pairs"]

# Sizes to try for axes whose size depends on the call; windows need several entries.
_SIZES = (3, 16, 512, 1024, 4096)
_MOST = 1 << 24  # elements of inputs that may be states, and of what is made of them


def state_pairs(spec: ModelSpec) -> tuple[tuple[str, str], ...]:
    """Return the inputs that are only initial states of recurrences that make an output.

    Every element of such an input gets a number of its own. The numbers are followed through the
    graph: to initial states, from there to the states that the same call returns, and on to the
    outputs. An input and an output that have the same numbers in the same places are a pair. A
    number that starts several states is none: after one step these states are different.

    Parameters
    ----------
    spec
        The model.

    Returns
    -------
    tuple
        Names of an input and an output.
    """
    candidates = [t for t in spec.inputs if not t.integer and not any(_is_free(d) for d in t.shape)]
    shapes = _shapes(spec)
    if not candidates or shapes is None:
        return ()
    if sum(math.prod(shapes[t.name]) for t in candidates) > _MOST:
        return ()
    numbers: dict[str, Array] = {}
    first = 1
    for tensor in candidates:
        array = np.arange(first, first + int(np.prod(shapes[tensor.name])), dtype=np.float64)
        numbers[tensor.name] = array.reshape(shapes[tensor.name])
        first += array.size
    read, final = _follow(spec, shapes, numbers)
    free = {t.name for t in candidates if not np.isin(numbers[t.name], read).any()}
    pairs = []
    taken: set[str] = set()
    for name in (t.name for t in candidates if t.name in free):
        for output in spec.outputs:
            made = final.get(output)
            if made is not None and output not in taken and np.array_equal(made, numbers[name]):
                pairs.append((name, output))
                taken.add(output)
                break
    return tuple(pairs)


def _is_free(size: int | str) -> bool:
    return isinstance(size, str) and size != BATCH


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of all tensors for two samples and some sizes that the graph accepts."""
    layers = {layer.name: layer.layer for layer in spec.layers}
    for size in _SIZES:
        known = {
            t.name: tuple(2 if d == BATCH else size if isinstance(d, str) else d for d in t.shape)
            for t in spec.inputs
        }
        try:
            for edge in spec.edges:
                made = layers[edge.layer].infer_shapes([known[t] for t in edge.inputs])
                known |= {t: tuple(map(int, s)) for t, s in zip(edge.outputs, made, strict=True)}
        except (NpylstmError, ValueError):
            continue
        return known
    return None


def _follow(
    spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]], numbers: dict[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Follow numbers to initial states, and from final states on.

    Returns
    -------
    read, final
        The numbers that something else than one state of one recurrence reads, and those of tensors
        that are made of final states.
    """
    layers = {layer.name: layer.layer for layer in spec.layers}
    read: list[Array] = []
    started: list[Array] = []
    final: dict[str, Array] = {}
    moves = _Moves()
    for edge in spec.edges:
        operation = layers[edge.layer]
        late = [final.get(t) for t in edge.inputs]
        if any(array is not None for array in late):
            moved = moves.outputs(operation, [shapes[t] for t in edge.inputs], late)
            final |= dict(zip(edge.outputs, moved or (), strict=False))
        known = [numbers.get(t) for t in edge.inputs]
        if all(array is None for array in known):
            continue
        initial = operation.initial_states(known)
        names = operation.state_shapes()
        if names and initial and all(array is not None for array in initial):
            started += [array for array in initial if array is not None]
            states = dict(zip(names, initial, strict=True))
            _return_states(operation, edge.outputs, states, final)
            others = [a for a in known if a is not None and not any(a is b for b in initial)]
            read += others
            continue
        made = moves.outputs(operation, [shapes[t] for t in edge.inputs], known)
        if made is None:
            read += {id(array): array for array in known if array is not None}.values()
        else:
            numbers |= dict(zip(edge.outputs, made, strict=True))
    starts, counts = np.unique(_flat(started), return_counts=True)
    return np.concatenate([_flat(read), starts[counts > 1]]), final


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([np.zeros(0), *(array.reshape(-1) for array in arrays)])


def _return_states(
    operation: Operation, outputs: tuple[str, ...], states: Mapping[str, Array | None],
    numbers: dict[str, Array],
) -> None:  # fmt: skip
    """Number the states that a call returns like its initial states."""
    for output, name in zip(outputs, operation.output_names(), strict=True):
        state = states.get(name)
        if state is not None:
            numbers[output] = state
    first = next(iter(states.values()))
    if not operation.returns_sequence and not operation.masked_inputs and first is not None:
        numbers.setdefault(outputs[0], first)  # the last output is the hidden state


class _Moves:
    """Applies operations that only move elements, as long as few elements are made."""

    def __init__(self) -> None:
        self._left = _MOST

    def outputs(
        self, operation: Operation, shapes: list[tuple[int, ...]], known: list[Array | None]
    ) -> tuple[Array, ...] | None:
        """Return the outputs of an operation; None if it does anything else, or makes too much."""
        if not operation.moves_elements or operation.weight_shapes():
            return None
        unread = operation.axis_map(shapes)[0].unread
        if any(array is None and k not in unread for k, array in enumerate(known)):
            return None
        self._left -= sum(math.prod(map(int, shape)) for shape in operation.infer_shapes(shapes))
        if self._left < 0:
            return None
        inputs = [
            np.zeros(shape) if array is None else array
            for array, shape in zip(known, shapes, strict=True)
        ]
        made, _ = operation.forward({}, inputs, {})
        return made
