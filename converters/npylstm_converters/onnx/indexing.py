"""Operators that read and write entries by index, sort, and pad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm.ops.indexing import Slice
from npylstm.ops.shapes import BATCH
from npylstm.ops.shaping import Concatenate, Reshape
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.sizes import equal
from npylstm_converters.onnx.values import ConstantTensor, Ref, Value, integers
from npylstm_converters.toolkit import array_ops, index_ops

__all__ = [
    "arg_reduce", "cum_sum", "einsum", "gather_elements", "one_hot", "pad", "scatter", "scatter_nd",
    "top_k", "trilu",
]  # fmt: skip

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(
    graph: Any, data: Value, pads: Any, constant_value: Any = None, axes: Any = None, *,
    mode: str = "constant", value: float = 0.0,
) -> Any:  # fmt: skip
    """Put entries before and after along axes; negative numbers remove entries."""
    x = graph.tensor(data)
    if mode not in _MODES:
        raise Refusal(f"mode={mode!r:.40} is not supported")
    numbers = integers(pads)
    if not all(isinstance(n, int) for n in numbers):
        raise Refusal(f"pads: {numbers} depend on the sizes of the inputs")
    which = [*range(len(graph.shape(x)))] if axes is None else [int(a) for a in integers(axes)]
    if len(numbers) != 2 * len(which):
        raise Refusal(f"pads: expected {2 * len(which)} numbers, got {len(numbers)}")
    if constant_value is not None:
        number = graph.number(constant_value)
        if number is None and not graph.is_zero(constant_value):
            raise Refusal("constant_value: expected a constant number")
        value = number or 0.0
    value = value if mode == "constant" else 0.0
    widths = [(0, 0)] * len(graph.shape(x))
    for k, axis in enumerate(which):
        widths[array_ops.axis_of(graph, x, axis)] = (numbers[k], numbers[k + len(which)])
    if all(width == (0, 0) for width in widths):
        return x
    return index_ops.pad(graph, x, widths, _MODES[mode], value)


def gather_elements(graph: Any, data: Value, indices: Value, *, axis: int = 0) -> Any:
    """Take one entry along an axis for each index."""
    return index_ops.take_along_axis(graph, data, indices, axis)


_SCATTER = {"none": "set", "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


def scatter(
    graph: Any, data: Value, indices: Value, updates: Value, *, axis: int = 0,
    reduction: str = "none",
) -> Any:  # fmt: skip
    """Write one entry along an axis for each index."""
    if reduction not in _SCATTER:
        raise Refusal(f"reduction={reduction!r:.40} is not supported")
    write = index_ops.scatter_elements(_SCATTER[reduction])
    return write(graph, data, indices, updates, axis)


def scatter_nd(
    graph: Any, data: Value, indices: Value, updates: Value, *, reduction: str = "none"
) -> Any:
    """Replace entries at indices; a block of neighbours is cut out and put in."""
    if reduction not in _SCATTER:
        raise Refusal(f"reduction={reduction!r:.40} is not supported")
    block = None
    if reduction == "none" and isinstance(indices, ConstantTensor):
        block = _replaced_block(graph, graph.tensor(data), indices, graph.tensor(updates))
    if block is not None:
        return block
    return index_ops.scatter_nd(_SCATTER[reduction])(graph, data, indices, updates)


def _replaced_block(graph: Any, x: Ref, indices: ConstantTensor, new: Ref) -> Ref | None:
    """Replace the entries of a block; None if the indices do not list one in order."""
    count = indices.array.shape[-1]
    rows = indices.array.reshape(-1, count)
    box = [np.unique(column) for column in rows.T]
    listed = np.stack(np.meshgrid(*box, indexing="ij"), -1).reshape(-1, count)
    consecutive = all(len(b) and b[-1] - b[0] + 1 == len(b) and b[0] >= 0 for b in box)
    if not consecutive or listed.shape != rows.shape or (listed != rows).any():
        return None
    blocks = []
    for axis, own in enumerate(box):
        size = graph.sizes(x)[axis]
        is_batch = graph.shape(x)[axis] == BATCH
        exported = graph.exported_batch if is_batch else size if isinstance(size, int) else None
        whole = len(own) == exported
        blocks.append((0, None) if whole else (int(own[0]), int(own[-1]) + 1))
    return _replaced(graph, x, new, blocks)


def _replaced(graph: Any, x: Ref, new: Ref, blocks: Sequence[tuple[int, int | None]]) -> Ref:
    """Return ``x`` with ``new`` in place of a block, of which ``(0, None)`` is a whole axis."""
    at = next((k for k, block in enumerate(blocks) if block != (0, None)), None)
    if at is None:
        return _shaped_like(graph, new, x)
    start, stop = blocks[at]
    size = graph.sizes(x)[at]
    rest = [*blocks[:at], (0, None), *blocks[at + 1 :]]
    inner = _replaced(graph, graph.add(Slice(at, start, stop), x, part="block"), new, rest)
    parts = [graph.add(Slice(at, 0, start), x, part="before")] if start else []
    parts.append(inner)
    if not equal(size, stop):
        parts.append(graph.add(Slice(at, stop), x, part="after"))
    made: Ref = graph.add(Concatenate(at), *parts) if len(parts) > 1 else inner
    return made


def _shaped_like(graph: Any, new: Ref, x: Ref) -> Ref:
    if graph.shape(new) == graph.shape(x):
        return new
    target, sources = graph.target(graph.sizes(x), new)
    made: Ref = graph.add(Reshape(target), *sources, part="shaped")
    return made


def arg_reduce(operation: str) -> Callable[..., Any]:
    """Return a function that finds the largest or smallest entry along an axis."""
    along = array_ops.arg_reduce(operation)

    def apply(
        graph: Any, data: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
    ) -> Any:
        made = along(graph, data, axis, bool(keepdims), bool(select_last_index))
        return Ref(made.name, "i")

    return apply


def top_k(
    graph: Any, X: Value, K: Any = None, *, k: int | None = None, axis: int = -1, largest: int = 1,
) -> list[Any]:  # fmt: skip
    """Return the k largest or smallest entries along an axis, and their indices."""
    count = k if K is None else int(integers(K)[0])
    made = [
        array_ops.top_k(what)(graph, X, count, axis, bool(largest)) if used else None
        for what, used in zip(("values", "indices"), graph.outputs, strict=False)
    ]
    if len(made) > 1 and made[1] is not None:
        made[1] = Ref(made[1].name, "i")
    return made


def cum_sum(graph: Any, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """Return running totals along an axis."""
    (along,) = integers(axis)
    return array_ops.cumulative("sum")(graph, x, int(along), bool(exclusive), bool(reverse))


def one_hot(graph: Any, indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Any:
    """Return vectors with one entry on."""
    if not isinstance(values, ConstantTensor):
        raise Refusal("values: expected a constant")
    off, on = np.ravel(values.array).tolist()
    size = int(integers(depth)[0])
    made = index_ops.one_hot(graph, indices, size, axis, float(on), float(off), negative=True)
    return Ref(made.name, {"f": "f", "b": "b"}.get(values.array.dtype.kind, "i"))


def trilu(graph: Any, input: Value, k: Any = None, *, upper: int = 1) -> Any:
    """Keep one triangle of matrices."""
    return index_ops.trilu(graph, input, 0 if k is None else int(integers(k)[0]), bool(upper))


def einsum(graph: Any, inputs: Sequence[Value], *, equation: str) -> Any:
    """Sum products as an equation says."""
    return array_ops.einsum(graph, equation, [graph.tensor(x) for x in inputs])
