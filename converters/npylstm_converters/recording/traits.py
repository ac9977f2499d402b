"""The properties of a model's inputs: free sizes, ids, and values that its masks exclude."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from npylstm import Model, ModelSpec, NpylstmError, ShapeError
from npylstm.arrays import Array
from npylstm.ops.shapes import BATCH
from npylstm.runtime.binding import bind_mask
from npylstm.spec import TensorSpec

__all__ = ["Traits", "find_sizes", "read_traits", "shape_of"]

_UNKNOWN_IDS = 10  # if no embedding reads the integers
_LONGEST_SEARCH = 64  # largest number of additional steps that are tried


@dataclass(frozen=True)
class Traits:
    """The properties of a model that its scenarios depend on.

    Attributes
    ----------
    symbols
        The free sizes except the batch, in the order of the inputs.
    vocabulary
        The number of ids, by integer input.
    padding
        The values that a mask of the model excludes, by input.
    lengths
        The free size that each input of lengths counts: integers ``(batch,)`` that no embedding
        reads, beside sequences.
    has_state, has_lengths
        Whether the model accepts an initial state, and ``lengths``.
    """

    symbols: tuple[str, ...]
    vocabulary: Mapping[str, int]
    padding: Mapping[str, tuple[float, ...]]
    lengths: Mapping[str, str]
    has_state: bool
    has_lengths: bool


def read_traits(spec: ModelSpec, pinned: Mapping[str, int]) -> Traits:
    """Return the traits of a model; ``pinned`` has the free sizes that the framework fixes."""
    symbols = dict.fromkeys(d for t in spec.inputs for d in t.shape if isinstance(d, str))
    padding: dict[str, dict[float, None]] = {}
    for edge in spec.edges:
        value = spec[edge.layer].layer.innermost.masked_value
        for name, own in _behind(spec, edge.inputs[0], value) if value is not None else ():
            padding.setdefault(name, {})[own] = None
    steps = [d for d in symbols if d != BATCH]
    vocabulary = dict(_vocabulary(spec))
    counts = [t.name for t in spec.inputs if t.integer and t.shape == (BATCH,)]
    embedded = {name for name, size in vocabulary.items() if size is not None}
    return Traits(
        symbols=tuple(d for d in steps if d not in pinned),
        vocabulary={name: size or _UNKNOWN_IDS for name, size in vocabulary.items()},
        padding={name: tuple(values) for name, values in padding.items()},
        lengths={name: steps[0] for name in counts if steps and name not in embedded},
        has_state=bool(spec.state_shapes()),
        has_lengths=_takes_lengths(spec),
    )


def _behind(spec: ModelSpec, tensor: str, value: float) -> Iterator[tuple[str, float]]:
    """Yield the inputs that reach a tensor, with the input value that becomes ``value``."""
    makers = {t: edge for edge in spec.edges for t in edge.outputs}
    todo, seen = [(tensor, value)], {(tensor, value)}
    for name, number in todo:  # grows while it is walked
        if name not in makers:
            yield name, number
            continue
        edge = makers[name]
        before = spec[edge.layer].layer.innermost.input_value(number)
        further = [] if before is None else [(t, before) for t in edge.inputs]
        todo += [pair for pair in dict.fromkeys(further) if pair not in seen]
        seen.update(further)


def _vocabulary(spec: ModelSpec) -> Iterator[tuple[str, int | None]]:
    """Yield the number of ids of inputs that embeddings read, also through slices and copies.

    None for integers that no embedding reads.
    """
    for tensor in spec.inputs:
        reached, sizes = {tensor.name}, []
        for edge in spec.edges:
            if not reached & {*edge.inputs}:
                continue
            layer = spec[edge.layer].layer.innermost
            if layer.vocabulary_size is not None:
                sizes.append(layer.vocabulary_size)
            elif layer.keeps_ids:
                reached.add(edge.outputs[0])
        if sizes or tensor.integer:
            yield tensor.name, min(sizes, default=None)


def _takes_lengths(spec: ModelSpec) -> bool:
    if spec.inputs[0].time_axis is None:
        return False
    symbols = {d for t in spec.inputs for d in t.shape if isinstance(d, str)}
    inputs = _zeros(spec, dict.fromkeys(symbols, 2))
    try:
        bind_mask(None, np.array([1, 1]), spec, inputs, 2)
    except ShapeError:
        return False
    return True


def shape_of(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return an input's shape with the free sizes filled in."""
    return tuple(sizes[d] if isinstance(d, str) else d for d in tensor.shape)


def _zeros(spec: ModelSpec, sizes: Mapping[str, int]) -> dict[str, Array]:
    return {t.name: np.zeros(shape_of(t, sizes), spec.dtype) for t in spec.inputs}


def find_sizes(model: Model, wanted: Mapping[str, int]) -> dict[str, int] | None:
    """Return the smallest sizes at or above the wanted ones that the model accepts.

    A convolution needs at least as many steps as its kernel has, a Reshape needs multiples of a
    number, and two inputs may need equal lengths.
    """
    free = [name for name in wanted if name != BATCH]
    if not free:
        return dict(wanted)
    equal = dict.fromkeys(free, max(wanted[name] for name in free))
    tries = [dict(wanted), {**wanted, **equal}]
    for more in range(1, _LONGEST_SEARCH):
        tries += [
            {k: n + more * (k != BATCH) for k, n in wanted.items()},
            {**wanted, **{k: n + more for k, n in equal.items()}},
        ]
    for sizes in dict.fromkeys(tuple(t.items()) for t in tries):
        if _accepts(model, dict(sizes)):
            return dict(sizes)
    return None


def _accepts(model: Model, sizes: Mapping[str, int]) -> bool:
    try:
        model.predict(_zeros(model.spec, {BATCH: 1, **sizes}))
    except NpylstmError:
        return False
    return True
