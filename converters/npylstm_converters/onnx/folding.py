"""Evaluate nodes whose results are known when the graph is converted: constants and sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm.arrays import Array
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.sizes import Size
from npylstm_converters.onnx.values import ConstantTensor, Sizes

__all__ = ["can_evaluate", "can_fold", "fold", "fold_sizes"]

# A file of a few bytes may ask for any size.
_LARGEST = 1 << 26  # elements of a folded constant

_RANDOM = ("Multinomial", "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform",
           "RandomUniformLike")  # fmt: skip
# Operators for which the reference implementation has the results of the standard. Others, such as
# Softmax of old versions or recurrent operators with all their attributes, become layers.
_EXACT = frozenset((
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast",
    "CastLike", "Ceil", "Clip", "Compress", "Concat", "Cos", "Cosh", "CumSum", "DequantizeLinear",
    "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "HammingWindow",
    "HannWindow", "Identity", "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "MatMul", "Max",
    "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Round", "Scatter", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Sinh",
    "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "Tile", "TopK",
    "Transpose", "Trilu", "Unique", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
_SIZED_BY_VALUE = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "OneHot": 1, "Pad": 1,
                   "Upsample": 1, "BlackmanWindow": 0, "HammingWindow": 0,
                   "HannWindow": 0}  # fmt: skip


def can_evaluate(operator: str) -> bool:
    """Whether :func:`fold` evaluates an operator on constants, or refuses it whatever they are."""
    return operator in _EXACT or operator in _RANDOM


def fold(node: Any, arrays: Sequence[Array | None], opset: int) -> list[Array | None]:
    """Evaluate a node of constants with the reference implementation of the onnx package.

    Returns
    -------
    list
        An array for each output; None for outputs without a name.

    Raises
    ------
    Refusal
        If the operator is unknown, random, or the result would be too large.
    """
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if node.op_type in _RANDOM:
        raise Refusal("draws random numbers")
    _check_size(node.op_type, arrays)
    if node.op_type == "Slice" and arrays[0] is not None and all(a is not None for a in arrays):
        attributes = {a.name: list(a.ints) for a in node.attribute}
        return [_slice(arrays[0], attributes, *(a for a in arrays[1:] if a is not None))]
    try:
        feeds = {n: a for n, a in zip(node.input, arrays, strict=True) if n and a is not None}
        values = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in feeds.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = helper.make_graph([node], "fold", values, outputs)
        domain = helper.make_opsetid(node.domain, opset)
        model = helper.make_model(graph, opset_imports=[domain])
        _check_outputs(node, model, feeds)
        made = ReferenceEvaluator(model).run(None, feeds)
    except Refusal:
        raise
    except Exception as error:  # it may raise anything
        raise Refusal(f"cannot be evaluated: {' '.join(str(error).split())[:200]}") from None
    named = iter(made)
    return [np.asarray(next(named)) if name else None for name in node.output]


def _count(arrays: Sequence[Array | None]) -> int:
    return sum(array.size for array in arrays if array is not None)


def _check_size(operator: str, arrays: Sequence[Array | None]) -> None:
    """Check the size of a result that the values of an input determine."""
    at = _SIZED_BY_VALUE.get(operator)
    if operator == "Resize":  # scales or sizes, whose place depends on the version
        at = next((k for k in (3, 2, 1) if _count(arrays[k : k + 1]) > 1), None)
    claimed = 0.0
    if operator == "Range":
        numbers = [float(np.ravel(a)[0]) for a in arrays if a is not None]
        start, limit, delta = numbers
        claimed = abs((limit - start) / delta) if delta else math.inf
    elif at is not None and at < len(arrays) and (sizes := arrays[at]) is not None:
        numbers = [abs(float(n)) for n in np.ravel(sizes)]
        first = arrays[0] if at else None
        claimed = (1 if first is None else first.size) * math.prod(max(n, 1.0) for n in numbers)
        if operator == "Pad" and first is not None:
            pads = np.reshape(numbers[: 2 * first.ndim], (2, -1)).sum(0)
            claimed = math.prod((np.array(first.shape) + pads).tolist())
    _check_count(claimed)


def _check_outputs(node: Any, model: Any, feeds: Mapping[str, Array]) -> None:
    """Check the sizes that the shapes of the inputs and the attributes determine."""
    from onnx import shape_inference

    for value in shape_inference.infer_shapes(model).graph.output:
        _check_count(math.prod(float(d.dim_value) for d in value.type.tensor_type.shape.dim))
    if node.op_type == "Einsum":  # it visits every combination of entries
        _check_count(math.prod(float(array.size) for array in feeds.values()))


def _check_count(count: float) -> None:
    if count > _LARGEST:
        raise Refusal(f"a constant of {count:.3g} elements, at most {_LARGEST:,} are supported")


def _slice(x: Array, attributes: Mapping[str, Any], *limits: Array) -> Array:
    given: list[Any] = [*limits, None, None, None, None]
    starts, ends, axes, steps = given[:4]
    if starts is None:
        starts, ends, axes = [attributes.get(k) for k in ("starts", "ends", "axes")]
    which = range(len(np.ravel(starts))) if axes is None else np.ravel(axes).tolist()
    strides = [1] * len(list(which)) if steps is None else np.ravel(steps).tolist()
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(
        which, np.ravel(starts).tolist(), np.ravel(ends).tolist(), strides, strict=True
    ):
        first, last = _bound(start), _bound(end)
        if step < 0 and first < -x.shape[int(axis)]:
            first = 0  # ONNX begins at the first entry, Python before it
        taken[int(axis)] = slice(first, last, int(step))
    return x[tuple(taken)]


def _bound(value: Any) -> int:
    if isinstance(value, Size):
        raise Refusal(f"a slice of sizes that ends at {value}")
    return int(value)


def _axes(attributes: Mapping[str, Any], axes: Sequence[Array]) -> list[int]:
    given = axes[0] if axes else attributes.get("axes")
    return [] if given is None else [int(a) for a in np.ravel(given).tolist()]


def _unsqueeze(x: Array, attributes: Mapping[str, Any], *axes: Array) -> Array:
    return np.expand_dims(x, tuple(_axes(attributes, axes)))


def _squeeze(x: Array, attributes: Mapping[str, Any], *axes: Array) -> Array:
    return np.squeeze(x, tuple(_axes(attributes, axes)) or None)


def _gather(x: Array, attributes: Mapping[str, Any], indices: Array) -> Array:
    return np.take(x, indices.astype(int), attributes.get("axis", 0))


def _concat(first: Array, attributes: Mapping[str, Any], *others: Array) -> Array:
    return np.concatenate([first, *others], attributes.get("axis", 0))


def _same(x: Array, _: Mapping[str, Any]) -> Array:
    return x


def _cast(x: Array, attributes: Mapping[str, Any]) -> Array:
    from onnx import TensorProto

    truth = attributes["to"] == TensorProto.BOOL
    return np.asarray(np.frompyfunc(bool if truth else _whole, 1, 1)(x), object)


def _whole(value: Any) -> Any:
    return value if isinstance(value, Size) else int(value)


def _reduce(function: Callable[..., Array]) -> Callable[..., Array]:
    def apply(x: Array, attributes: Mapping[str, Any], *axes: Array) -> Array:
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(function(x, axis=tuple(_axes(attributes, axes)) or None, keepdims=keep))

    return apply


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    """Return a function of arrays that applies a function to each entry."""
    applied = np.frompyfunc(function, function.__code__.co_argcount, 1)

    def apply(x: Array, _: Mapping[str, Any], *others: Array) -> Array:
        return np.asarray(applied(x, *others), object)

    return apply


def _divide(x: Any, y: Any) -> Any:
    """Divide integers and round towards zero."""
    if isinstance(x, Size):
        return x // y
    if isinstance(y, Size):
        return Size({(): int(x)}) // y
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def _modulo(x: Array, attributes: Mapping[str, Any], y: Array) -> Array:
    if attributes.get("fmod"):
        raise Refusal("a remainder of sizes with fmod=1")
    return _each(lambda a, b: a % b)(x, attributes, y)


def _reshape(x: Array, _: Mapping[str, Any], shape: Array) -> Array:
    return x.reshape([int(d) for d in np.ravel(shape).tolist()])


def _expand(x: Array, _: Mapping[str, Any], shape: Array) -> Array:
    sizes = [int(d) for d in np.ravel(shape).tolist()]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes)))


def _range(start: Array, _: Mapping[str, Any], limit: Array, delta: Array) -> Array:
    return np.array([*range(int(start), _bound(limit.item()), int(delta))], object)


# Operators on sizes: functions of the first array, the attributes, and the other arrays.
_SIZE_OPERATORS: Mapping[str, Callable[..., Array]] = {
    "Identity": _same, "Cast": _cast,
    "Transpose": lambda x, attributes: np.transpose(x, attributes.get("perm")),
    "Slice": _slice, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Gather": _gather,
    "Concat": _concat, "Reshape": _reshape, "Expand": _expand, "Range": _range,
    "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max), "ReduceMin": _reduce(np.min),
    "Add": _each(lambda x, y: x + y), "Sub": _each(lambda x, y: x - y),
    "Mul": _each(lambda x, y: x * y), "Div": _each(_divide), "Mod": _modulo,
    "Neg": _each(lambda x: -x), "Min": _each(lambda x, y: min(x, y)),
    "Max": _each(lambda x, y: max(x, y)), "Equal": _each(lambda x, y: x == y),
    "Less": _each(lambda x, y: x < y), "Greater": _each(lambda x, y: x > y),
    "LessOrEqual": _each(lambda x, y: x <= y), "GreaterOrEqual": _each(lambda x, y: x >= y),
    "Not": _each(lambda x: not x), "And": _each(lambda x, y: bool(x) and bool(y)),
    "Or": _each(lambda x, y: bool(x) or bool(y)), "Where": _each(lambda c, x, y: x if c else y),
}  # fmt: skip


# Operators whose result has the sizes that are their later inputs.
_SHAPED = ("Expand", "Range", "Reshape")
# What is evaluated on sizes that were cast to floats.
_ON_FLOATS = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Equal", "Less", "Greater", "LessOrEqual",
              "GreaterOrEqual")  # fmt: skip


def can_fold(operator: str, values: Sequence[ConstantTensor | Sizes], to: int | None) -> bool:
    """Whether an operator on constants and sizes gives constants or sizes; ``to`` is of a cast."""
    from onnx import TensorProto

    if operator in _SHAPED and any(isinstance(v, Sizes) for v in values[operator != "Range" :]):
        return False
    floats = [v for v in values if _is_float(v)]
    if floats and (operator not in _ON_FLOATS or not all(map(_is_whole, floats))):
        return False
    names = ("INT", "UINT", "BOOL")
    whole = to is None or TensorProto.DataType.Name(to).startswith(names) or _is_float_type(to)
    return operator in _SIZE_OPERATORS and whole


def _is_float(value: ConstantTensor | Sizes) -> bool:
    return (value.kind if isinstance(value, Sizes) else value.array.dtype.kind) == "f"


def _is_float_type(to: int) -> bool:
    from onnx import TensorProto

    return TensorProto.DataType.Name(to) in ("FLOAT", "DOUBLE")


def _is_whole(value: ConstantTensor | Sizes) -> bool:
    """Whether all entries are integers, if only by value."""
    return isinstance(value, Sizes) or bool((value.array == np.trunc(value.array)).all())


def fold_sizes(
    operator: str, attributes: Mapping[str, Any], values: Sequence[ConstantTensor | Sizes]
) -> ConstantTensor | Sizes:
    """Evaluate an operator that :func:`can_fold` accepts.

    Raises
    ------
    Refusal
        If the result depends on the call.
    """
    first, *others = (value.array.astype(object) for value in values)
    try:
        made = _SIZE_OPERATORS[operator](first, attributes, *others)
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise Refusal(f"cannot be computed from sizes: {error}") from None
    entries = np.ravel(made).tolist()
    to = attributes.get("to")
    floats = any(map(_is_float, values)) if to is None else _is_float_type(to)
    if any(isinstance(entry, Size) for entry in entries):
        return Sizes(np.asarray(made, object), "f" if floats else "i")
    boolean = entries and all(isinstance(entry, (bool, np.bool_)) for entry in entries)
    dtype = np.bool_ if boolean else np.float32 if floats else np.int64
    if any(isinstance(entry, float) and not entry.is_integer() for entry in entries):
        dtype = np.float64
    return ConstantTensor(np.asarray(made).astype(dtype))
