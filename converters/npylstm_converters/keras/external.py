"""Custom layers: NumPy functions of the user replace them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.ops.external import External, Function
from npylstm.ops.shapes import BATCH, Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import RawLayer
from npylstm_converters.keras.tensors import LayerTensors, read_array

__all__ = ["code_instead", "external", "infer_output_shape"]

# Values of the free sizes in two probe calls: they show which output size depends on which.
_FIRST, _SECOND = (3, 7, 13, 19, 29), (5, 11, 17, 23, 31)


def code_instead(layer: str, class_name: str, *, own: bool) -> str:
    """Return the reason against a layer that is code, with the way to replace it."""
    what = "a class of the user's own" if own else "not supported"
    return (
        f"layer class {class_name!r} is {what}; its code is never run: pass a NumPy function for "
        f"it, custom={{{layer!r}: function}} or --custom {shlex.quote(layer)}=module:function"
    )


def external(
    raw: RawLayer, tensors: LayerTensors, name: str, function: Function
) -> tuple[External, dict[str, Array]]:
    """Return the layer; :func:`probe` finds its output shape at the call."""
    if raw.times:
        raise Refusal("a function of the user's own inside TimeDistributed is not supported")
    tensors = _ordered(tensors)
    sources = tensors.take(*(str(k) for k in range(len(tensors))))
    weights = {role: read_array(source, source.shape) for role, source in sources.items()}
    shapes = tuple(array.shape for array in weights.values())
    return External(name, (), shapes).with_function(function), weights


def _ordered(tensors: LayerTensors) -> LayerTensors:
    """Return a layer's own arrays before those of its sublayer, as Keras lists them.

    Raises
    ------
    Refusal
        If there are several sublayers: ``.keras`` files do not hold their order.
    """
    groups = {s.path.rpartition("/vars/")[0] for s in tensors.sources if "/vars/" in s.path}
    own = {g for g in groups if all(f"{other}/".startswith(f"{g}/") for other in groups)}
    if len(groups - own) > 1:
        raise Refusal(
            f"holds the weights of {', '.join(sorted(groups - own))}, in an order that the file "
            "does not tell; convert the model object, or save it as .h5"
        )
    return tensors.arranged_by(lambda path: path.rpartition("/vars/")[0] not in own)


def infer_output_shape(
    layer: External, inputs: Sequence[Shape], weights: Mapping[str, Array], dtype: str
) -> External:
    """Return the layer with the function's output shape, found by two calls with numbers.

    Raises
    ------
    Refusal
        If it fails, mixes samples of the batch, or returns a size that no input has.
    """
    assert layer.function is not None  # it has just been bound
    symbols = list(dict.fromkeys(d for shape in inputs for d in shape if isinstance(d, str)))
    if len(symbols) > len(_FIRST):
        raise Refusal(f"reads {len(symbols)} free sizes, expected {len(_FIRST)} at most")
    made, given = [], []
    for sizes in (_FIRST, _SECOND):
        known = dict(zip(symbols, sizes, strict=False))
        shapes = [tuple(known[d] if isinstance(d, str) else d for d in s) for s in inputs]
        rng = np.random.default_rng(0)
        arrays = [rng.uniform(0.5, 1.5, shape).astype(dtype) for shape in shapes]
        try:
            y = layer.call(layer.function, arrays, [*weights.values()])
            y = np.asarray(y, dtype)
            made.append(y.shape)
        except Exception as error:  # a user's function may raise anything
            listed = ", ".join(map(str, shapes))
            raise Refusal(
                f"its function fails on inputs {listed}: {type(error).__name__}: {error}"
            ) from None
        given.append(shapes)
        _refuse_mixing(layer, inputs, arrays, y, [*weights.values()])
    first, second = made
    if len(first) != len(second):
        raise Refusal(f"its function gives {len(first)} axes and {len(second)} axes")
    places = {
        pair: (k, axis)
        for k, (a, b) in reversed(list(enumerate(zip(*given, strict=True))))
        for axis, pair in reversed(list(enumerate(zip(a, b, strict=True))))
    }
    sizes_made: list[int | tuple[int, int]] = []
    for axis, pair in enumerate(zip(first, second, strict=True)):
        if pair[0] == pair[1]:
            sizes_made.append(pair[0])
        elif pair in places:
            sizes_made.append(places[pair])
        else:
            raise Refusal(
                f"axis {axis} of what its function gives has {pair[0]} and {pair[1]} entries, as "
                "no axis of the inputs has"
            )
    bound = External(layer.name, tuple(sizes_made), layer.shapes)
    return bound.with_function(layer.function)


def _refuse_mixing(
    layer: External,
    inputs: Sequence[Shape],
    arrays: Sequence[Array],
    y: Array,
    weights: Sequence[Array],
) -> None:
    """Raise Refusal if a sample alone gives another output than in a batch."""
    batched = [shape.index(BATCH) if BATCH in shape else None for shape in inputs]
    alone = [
        x if axis is None else x.take([0], axis) for x, axis in zip(arrays, batched, strict=True)
    ]
    assert layer.function is not None  # it has just been bound
    try:
        first = np.asarray(layer.call(layer.function, alone, weights), y.dtype)
    except Exception as error:  # a user's function may raise anything
        raise Refusal(
            f"its function fails on one sample: {type(error).__name__}: {error}"
        ) from None
    if y.shape[:1] != arrays[0].shape[:1] or first.shape != (1, *y.shape[1:]):
        raise Refusal(
            f"its function gives {y.shape} for {arrays[0].shape}: expected a row for each sample "
            "of the batch"
        )
    if not np.allclose(first, y[:1], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise Refusal("its function does not treat every sample of the batch by itself")
