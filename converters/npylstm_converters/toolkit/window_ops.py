"""Convolution, pooling and resizing along any number of axes, for all importers.

The input has the batch first. :class:`~npylstm.ops.convolution.Conv1D`, which has a kernel, is the
convolution along one axis; :class:`~npylstm.ops.convolution_nd.Convolution` is that along several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from npylstm.activations import LINEAR, Activation
from npylstm.ops.base import Operation
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.convolution_nd import Convolution
from npylstm.ops.pooling import AdaptivePool, Pool
from npylstm.ops.resizing import Resize
from npylstm.ops.shaping import Reshape, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.array_ops import reduce
from npylstm_converters.toolkit.translation import Graph

__all__ = [
    "adaptive_pool", "convolution", "depth_to_space", "global_pool", "integers", "pairs", "pool",
    "resize", "space_to_depth",
]  # fmt: skip


def integers(name: str, value: Any, count: int) -> tuple[int, ...]:
    """Return one integer for each axis; a single one is that of all axes."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if len(values) == 1:
        values = [*values] * count
    if len(values) != count or any(type(v) is not int for v in values):
        raise Refusal(f"{name}: expected {count} integers, got {value!r:.60}")
    return tuple(values)


def pairs(name: str, value: Any, count: int) -> tuple[int, ...]:
    """Return the padding before and after each axis, of one integer for both sides of each axis."""
    return tuple(v for v in integers(name, value, count) for _ in range(2))


def convolution(
    features: int,
    units: int,
    size: Sequence[int],
    *,
    stride: Sequence[int] = (),
    dilation: Sequence[int] = (),
    padding: Sequence[int] = (),
    groups: int = 1,
    channels_first: bool = False,
    use_bias: bool = True,
    activation: Activation = LINEAR,
    same: str = "",
) -> Operation:
    """Return the operation; arguments are those of ``Convolution``."""
    numbers = tuple(size), tuple(stride), tuple(dilation), tuple(padding)
    made = Convolution(
        features, units, *numbers, groups, channels_first, use_bias, activation, same
    )
    if len(size) != 1 or same == "lower":
        return made
    return Conv1D(
        features, units, made.size[0], made.stride[0], made.dilation[0], groups, made.padding,
        channels_first, use_bias, bool(same), activation,
    )  # fmt: skip


def pool(
    operation: str,
    size: Sequence[int],
    *,
    stride: Sequence[int] = (),
    dilation: Sequence[int] = (),
    padding: Sequence[int] = (),
    count_padding: bool = False,
    channels_first: bool = False,
    same: str = "",
    ceil: bool = False,
    p: float = 2.0,
) -> Operation:
    """Return the operation; arguments are those of ``Pool``."""
    numbers = tuple(size), tuple(stride), tuple(dilation), tuple(padding)
    made = Pool(operation, *numbers, count_padding, channels_first, same, ceil, p)
    if len(size) != 1 or same == "lower" or ceil or operation not in ("max", "mean"):
        return made
    if same and count_padding:
        return made
    return Pool1D(
        operation, made.size[0], made.stride[0], made.dilation[0], made.padding, count_padding,
        channels_first, bool(same),
    )  # fmt: skip


def _spatial(graph: Graph, x: Any, channels_first: bool) -> list[int]:
    rank = len(graph.shape(x))
    if rank < 3:
        raise Refusal(f"expected an input of at least 3 axes, got {rank}")
    return [*range(2, rank)] if channels_first else [*range(1, rank - 1)]


def global_pool(operation: str, channels_first: bool = False) -> Callable[..., Any]:
    """Return a function that reduces all spatial axes, by a word of ``Reduce``."""

    def apply(graph: Graph, x: Any, keepdims: Any = False) -> Any:
        x = graph.tensor(x)
        axes = _spatial(graph, x, channels_first)
        return reduce(operation)(graph, x, axes, bool(keepdims))

    return apply


def adaptive_pool(operation: str, channels_first: bool = False) -> Callable[..., Any]:
    """Return a function that pools the spatial axes to fixed sizes; None keeps the size."""

    def apply(graph: Graph, x: Any, size: Any) -> Any:
        x = graph.tensor(x)
        axes = _spatial(graph, x, channels_first)
        wanted = size if isinstance(size, (list, tuple)) else [size] * len(axes)
        if len(wanted) != len(axes):
            raise Refusal(f"output size: expected {len(axes)} sizes, got {size!r:.60}")
        sizes = [graph.shape(x)[k] if n is None else n for k, n in zip(axes, wanted, strict=True)]
        if all(n == 1 for n in sizes):
            return reduce(operation)(graph, x, axes, True)
        integer = integers("output size", sizes, len(axes))
        return graph.add(AdaptivePool(operation, integer, channels_first), x)

    return apply


def resize(
    graph: Graph,
    x: Any,
    axes: Sequence[int],
    sizes: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    mode: str = "nearest",
    coordinates: str = "half_pixel",
    rounding: str = "round_prefer_floor",
    cubic_a: float = -0.75,
    pytorch: bool = False,
) -> Any:
    """Interpolate along axes, one after the other; words are those of ``Resize``."""
    x = graph.tensor(x)
    if (sizes is None) == (scales is None):
        raise Refusal("expected either the sizes or the scales of the output")
    numbers: Sequence[Any] = sizes if sizes is not None else scales or ()
    if len(numbers) != len(axes):
        raise Refusal(f"expected {len(axes)} sizes or scales, got {list(numbers)!r:.60}")
    words = (mode, coordinates, rounding, cubic_a, pytorch)
    for axis, number in zip(axes, numbers, strict=True):
        if scales is not None and number != 1:
            x = graph.add(Resize(axis, (), float(number), *words), x)
        elif sizes is not None and number != graph.shape(x)[axis]:
            x = graph.add(Resize(axis, integers("size", number, 1), None, *words), x)
    return x


def _merge(graph: Graph, x: Any, axis: int, count: int = 2) -> Any:
    """Merge neighbouring axes."""
    sizes: list[Any] = [(0, k) for k in range(len(graph.shape(x)))]
    return graph.add(Reshape((*sizes[:axis], -1, *sizes[axis + count :])), x)


def _split(graph: Graph, x: Any, axis: int, *sizes: int) -> Any:
    """Split an axis into axes of these sizes, of which one is -1."""
    kept: list[Any] = [(0, k) for k in range(len(graph.shape(x)))]
    return graph.add(Reshape((*kept[:axis], *sizes, *kept[axis + 1 :])), x)


def depth_to_space(graph: Graph, x: Any, block: Any, depth_first: Any = True) -> Any:
    """Move blocks of features to positions: ``(batch, b * b * c, h, w)`` to ``(batch, c, ...)``.

    The features are in the order (row, column, feature), or, without ``depth_first``, in the order
    (feature, row, column), as those of PyTorch's ``pixel_shuffle``.
    """
    x = graph.tensor(x)
    (b,) = integers("block", block, 1)
    if len(graph.shape(x)) != 4:
        raise Refusal(f"expected an input of 4 axes, got {len(graph.shape(x))}")
    x = _split(graph, x, 1, *((b, b, -1) if depth_first else (-1, b, b)))
    order = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)
    x = graph.add(Transpose(order), x)  # (batch, features, height, rows, width, columns)
    return _merge(graph, _merge(graph, x, 4), 2)


def space_to_depth(graph: Graph, x: Any, block: Any, depth_first: Any = True) -> Any:
    """Move blocks of positions to features: the inverse of :func:`depth_to_space`."""
    x = graph.tensor(x)
    (b,) = integers("block", block, 1)
    if len(graph.shape(x)) != 4:
        raise Refusal(f"expected an input of 4 axes, got {len(graph.shape(x))}")
    x = _split(graph, _split(graph, x, 3, -1, b), 2, -1, b)
    order = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)
    return _merge(graph, graph.add(Transpose(order), x), 1, 3)
