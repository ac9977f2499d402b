"""Operations on tensors that are not layers: ``x[:, -1]``, ``a + b``, ``tf.reduce_mean(x, 1)``.

Keras stores them in three forms: as layers around a node of a TensorFlow graph, as layers around a
TensorFlow function, and (Keras 3) as Keras operations. Each name is one row here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npylstm import NpylstmError
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape, format_shape
from npylstm.ops.shaping import BATCH_SIZE, Reshape, Transpose
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Call, RawLayer, Slot
from npylstm_converters.keras.slicing import get_item, strided_slice
from npylstm_converters.toolkit.array_ops import (
    arithmetic,
    concatenate,
    expand_dims,
    identity,
    matmul,
    pointwise,
    reduce,
    softmax,
    squeeze,
    stack,
    transpose,
)
from npylstm_converters.toolkit.translation import Graph, Row, table, translate

__all__ = [
    "FROM_GRAPHS", "NAMES", "Operand", "Plan", "Step", "keeps_integers", "plan_of",
    "refuse_unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Operand:
    """A tensor of a plan: an input of the call, or the output of a step."""

    number: int
    shape: Shape


@dataclass(frozen=True)
class Step:
    """One operation of a plan, with the numbers of its operands."""

    operation: Operation
    reads: tuple[int, ...]


class Plan:
    """The operations that compute a call, before they have names.

    Attributes
    ----------
    steps
        In the order of computation; the last output is that of the call. The numbers of the
        outputs follow those of the operands.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.operands = [Operand(k, shape) for k, shape in enumerate(shapes)]
        self.steps: list[Step] = []

    def tensor(self, value: Any) -> Operand:
        if not isinstance(value, Operand):
            raise Refusal(f"expected a tensor, got {value!r:.60}")
        return value

    def number(self, value: Any) -> float | None:
        if isinstance(value, Operand):
            return None
        if type(value) not in (int, float):
            raise Refusal(f"expected tensors and numbers, got {value!r:.60}")
        try:
            return float(value)
        except OverflowError:
            raise Refusal("expected a number of a size that floats have") from None

    def shape(self, tensor: Operand) -> Shape:
        return tensor.shape

    def add(self, operation: Operation, *tensors: Operand, part: str = "") -> Operand:
        try:
            (shape,) = operation.output_shapes([x.shape for x in tensors])
        except NpylstmError as error:
            raise Refusal(str(error)) from None
        self.steps.append(Step(operation, tuple(x.number for x in tensors)))
        self.operands.append(Operand(len(self.operands), shape))
        return self.operands[-1]


def _expand_dims(graph: Graph, x: Any, axis: Any) -> Any:
    if axis == 0:
        raise Refusal("axis 0: expected a place behind the batch")
    return expand_dims(graph, x, axis)


def _reshape(graph: Graph, x: Any, shape: Any) -> Any:
    x = graph.tensor(x)
    if not isinstance(shape, list) or len(shape) < 2 or shape[0] not in (-1, None):
        raise Refusal(f"shape: expected -1 for the batch and sizes, got {shape!r:.60}")
    if any(type(size) is not int for size in shape[1:]):
        raise Refusal(f"shape: expected integers, got {shape!r:.60}")
    sizes, own = shape[1:], graph.shape(x)[1:]
    fixed = [size for size in own if isinstance(size, int)]
    if -1 not in sizes and (len(fixed) < len(own) or math.prod(fixed) != math.prod(sizes)):
        raise Refusal(
            f"shape {shape}: would mix samples, as one has the shape {format_shape(own)}; "
            "keep the batch as the first axis"
        )
    return graph.add(Reshape((BATCH_SIZE, *sizes)), x)


def _matmul(
    graph: Graph, x: Any, y: Any, *, transpose_a: Any = None, transpose_b: Any = None,
    adjoint_a: Any = None, adjoint_b: Any = None,
) -> Any:  # fmt: skip
    operands = []
    for operand, flags in ((x, (transpose_a, adjoint_a)), (y, (transpose_b, adjoint_b))):
        tensor = graph.tensor(operand)
        if any(flags):
            rank = len(graph.shape(tensor))
            axes = (*range(rank - 2), rank - 1, rank - 2)
            tensor = graph.add(Transpose(axes), tensor, part="transposed")
        operands.append(tensor)
    return matmul(graph, *operands)


def _cast(graph: Graph, x: Any, dtype: Any) -> Any:
    if dtype not in ("float32", "float64"):
        raise Refusal(f"to {dtype!r:.40} is not supported")
    return identity(graph, x)


_OFF = (None, False)
_ONE = {"input": "x", "features": "x"}
_TWO = {"x1": "x", "x2": "y"}
_LIST = {"values": "xs", "x": "xs", "inputs": "xs"}
_REDUCED = {"input_tensor": "x", "keep_dims": "keepdims"}

# The names of each in Keras 3, TensorFlow's Python and TensorFlow's graphs.
_ALIASES: dict[tuple[str, ...], Row] = {
    ("Add", "__operators__.add", "math.add", "AddV2"): Row("", arithmetic("add"), _TWO),
    ("Subtract", "math.subtract", "Sub"): Row("", arithmetic("subtract"), _TWO),
    ("Multiply", "math.multiply", "Mul"): Row("", arithmetic("multiply"), _TWO),
    ("TrueDivide", "Divide", "math.truediv", "math.divide", "RealDiv"):
        Row("", arithmetic("divide"), _TWO),
    ("Maximum", "math.maximum"): Row("", arithmetic("maximum"), _TWO),
    ("Minimum", "math.minimum"): Row("", arithmetic("minimum"), _TWO),
    ("Power", "math.pow", "Pow"): Row("", arithmetic("power"), _TWO),
    ("Negative", "math.negative", "Neg"): Row("", pointwise("negative"), _ONE),
    ("Absolute", "Abs", "math.abs"): Row("", pointwise("abs"), _ONE),
    ("Square", "math.square"): Row("", pointwise("square"), _ONE),
    ("Sqrt", "math.sqrt"): Row("", pointwise("sqrt"), _ONE),
    ("Log", "math.log"): Row("", pointwise("log"), _ONE),
    ("Sin", "math.sin"): Row("", pointwise("sin"), _ONE),
    ("Cos", "math.cos"): Row("", pointwise("cos"), _ONE),
    ("Exp", "math.exp"): Row("", pointwise("exponential"), _ONE),
    ("Tanh", "math.tanh"): Row("", pointwise("tanh"), _ONE),
    ("Sigmoid", "math.sigmoid"): Row("", pointwise("sigmoid"), _ONE),
    ("Relu", "nn.relu"): Row("", pointwise("relu"), _ONE),
    ("Softplus", "math.softplus", "nn.softplus"): Row("", pointwise("softplus"), _ONE),
    ("Softmax", "nn.softmax"): Row("", softmax(), {"logits": "x"}),
    ("Mean", "math.reduce_mean"): Row("", reduce("mean"), _REDUCED),
    ("Sum", "math.reduce_sum"): Row("", reduce("sum"), _REDUCED),
    ("Max", "math.reduce_max"): Row("", reduce("max"), _REDUCED, only={"initial": _OFF}),
    ("Min", "math.reduce_min"): Row("", reduce("min"), _REDUCED, only={"initial": _OFF}),
    ("Concatenate", "concat"): Row("", concatenate, _LIST),
    ("Stack", "stack"): Row("", stack, _LIST),
    ("ExpandDims", "expand_dims"): Row("", _expand_dims, {"input": "x"}),
    ("Squeeze", "compat.v1.squeeze", "squeeze"):
        Row("", squeeze, {"input": "x"}, only={"squeeze_dims": _OFF}),
    ("Reshape", "reshape"): Row("", _reshape, {"tensor": "x", "newshape": "shape"}),
    ("Transpose", "compat.v1.transpose", "transpose"):
        Row("", transpose, {"a": "x", "perm": "axes"}, only={"conjugate": _OFF}),
    ("Matmul", "linalg.matmul"): Row("", _matmul, {**_TWO, "a": "x", "b": "y"}, only=dict.fromkeys(
        ("a_is_sparse", "b_is_sparse", "output_type", "grad_a", "grad_b"), _OFF)),
    ("Cast", "cast"): Row("", _cast, {"input": "x"}),
    ("identity", "Identity"): Row("", identity, _ONE),
    ("GetItem", "__operators__.getitem"):
        Row("", get_item, {"slice_spec": "key"}, only={"var": _OFF}),
    ("StridedSlice",): Row("", strided_slice, {"input": "x"}),
}  # fmt: skip
_ROWS = table(row._replace(name=name) for names, row in _ALIASES.items() for name in names)
NAMES = tuple(_ROWS)  # in all three forms
FROM_GRAPHS = ("AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "Neg", "Abs",
                "Square", "Sqrt", "Log", "Sin", "Cos", "Exp", "Tanh", "Sigmoid", "Relu",
                "Softplus", "StridedSlice", "Identity")  # fmt: skip
# Operations that Keras 2 calls with separate tensors, not with a list.
_TAKE_LISTS = ("Concatenate", "concat", "Stack", "stack")


def _name(raw: RawLayer) -> str:
    if raw.class_name.startswith("ops."):
        return raw.class_name.removeprefix("ops.")
    if raw.class_name == "TensorFlowOpLayer":
        name = str(_node(raw).get("op"))
        return name if name in FROM_GRAPHS else f"{name} of a TensorFlow graph"
    return str(raw.config.get("function"))


def _node(raw: RawLayer) -> Mapping[str, Any]:
    """Return the TensorFlow graph node that a layer holds as an object or as text."""
    node = raw.config.get("node_def")
    if isinstance(node, str):
        try:
            node = json.loads(node)
        except (ValueError, RecursionError):
            node = None
    if not isinstance(node, Mapping):
        raise Refusal("node_def: expected an object")
    return node


def refuse_unknown(raw: RawLayer) -> None:
    """Raise Refusal if an operation has no row."""
    name = _name(raw)
    if name not in _ROWS:
        raise Refusal(f"operation {name!r:.80} is not supported")


def plan_of(raw: RawLayer, call: Call, shapes: Sequence[Shape]) -> Plan:
    """Return the operations that compute a call.

    Parameters
    ----------
    raw, call
        The operation and its call.
    shapes
        The shapes of the tensors in ``call.reads``.

    Raises
    ------
    Refusal
        If an argument is not supported.
    """
    plan = Plan(shapes)
    operands = tuple(plan.operands)

    def fill(value: Any) -> Any:
        if isinstance(value, Slot):
            return operands[value.place]
        return [fill(v) for v in value] if isinstance(value, list) else value

    positional = [fill(value) for value in call.positional]
    named: dict[str, Any] = dict(call.keyword_arguments)
    place = len(call.inputs)
    for name, tensors in call.options.items():
        several = operands[place : place + len(tensors)]
        named[name] = several[0] if len(tensors) == 1 else [*several]
        place += len(tensors)
    settings: Mapping[str, Any] = {}
    if raw.class_name == "TensorFlowOpLayer":
        positional = _with_constants(positional, raw.config.get("constants"))
        attributes = _node(raw).get("attr")
        settings = attributes if isinstance(attributes, Mapping) else {}
    elif raw.class_name.startswith("ops."):
        settings = raw.config
    else:
        named.pop("name", None)
    settings = _relevant_settings(raw, settings)
    twice = sorted(named.keys() & settings.keys())
    if twice:
        raise Refusal(f"argument {twice[0]} is given twice")
    name = _name(raw)
    if name in _TAKE_LISTS and positional and not isinstance(positional[0], list):
        count = sum(isinstance(value, Operand) for value in positional)
        positional[:count] = [positional[:count]]
    translate(_ROWS[name], plan, positional, {**named, **settings})
    return plan


# Keys of a config that change no result. Keras 3 gives an operation a name and, in some versions,
# a dtype None; layers around a TensorFlow function or node have the keys of a layer.
_LAYER_KEYS = ("name", "trainable", "dtype", "batch_input_shape", "function", "node_def",
               "constants")  # fmt: skip
# Attributes of a TensorFlow node with element types; we use the tensors' types.
_TYPE_ATTRIBUTES = ("T", "Index")


def _relevant_settings(raw: RawLayer, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that change the result; raise Refusal for unknown config keys."""
    if raw.class_name.startswith("ops."):
        neutral = {"name"} if settings.get("dtype", "") is not None else {"name", "dtype"}
        return {k: v for k, v in settings.items() if k not in neutral}
    left = [f"{k}={v!r:.60}" for k, v in sorted(raw.config.items()) if k not in _LAYER_KEYS]
    if left:
        raise Refusal(f"config not understood: {', '.join(left)}")
    return {
        k: v for k, v in settings.items() if k not in _TYPE_ATTRIBUTES and not k.startswith("_")
    }


def _with_constants(positional: list[Any], constants: Any) -> list[Any]:
    """Return the arguments of a TensorFlow node with its constants inserted at their indices."""
    held = constants if isinstance(constants, Mapping) else {}
    if not all(re.fullmatch("[0-9]{1,4}", str(key), re.ASCII) for key in held):
        raise Refusal(f"constants: expected places, got {', '.join(map(str, held)):.60}")
    for key, value in sorted(held.items(), key=lambda entry: int(entry[0])):
        positional.insert(int(key), value)
    return positional


# Operations that TensorFlow computes equally for integers and floats.
_SHAPING = ("__operators__.getitem", "StridedSlice", "concat", "stack", "reshape", "expand_dims",
            "transpose", "compat.v1.transpose", "squeeze", "compat.v1.squeeze", "identity",
            "Identity", "cast", "Cast")  # fmt: skip


def keeps_integers(raw: RawLayer) -> bool:
    """Whether TensorFlow computes an operation equally for integers and floats."""
    return _name(raw) in _SHAPING
