"""Operations on tensors that are no layers: ``x[:, -1]``, ``a + b``, ``tf.reduce_mean(x, 1)``.

Keras has written them in three ways: as layers around a node of a TensorFlow graph, as layers
around a function of TensorFlow, and (Keras 3) as operations of its own. Each is one row here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from npylstm.activations import Activation
from npylstm.ops.arithmetic import Arithmetic, MatMul, Reduce
from npylstm.ops.base import Operation
from npylstm.ops.pointwise import ActivationLayer, Identity
from npylstm.ops.shapes import Shape, format_shape
from npylstm.ops.shaping import BATCH_SIZE, Concatenate, Reshape, Stack, Transpose
from npylstm.ops.time_distributed import TimeDistributed
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.arguments import Arguments, Operand, Plan
from npylstm_converters.keras.graph import Call, RawLayer, Slot
from npylstm_converters.keras.slicing import get_item, strided_slice, with_axis

__all__ = [
    "FROM_GRAPHS", "NAMES", "is_operation", "keeps_integers", "over_time", "plan_of",
    "refuse_unknown",
]  # fmt: skip

_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")


def is_operation(raw: RawLayer) -> bool:
    """Whether it is an operation on tensors that poses as a layer."""
    return raw.class_name.startswith("ops.") or raw.class_name in _LAYERS


_Make = Callable[[Arguments], Plan]


def _binary(operation: str) -> _Make:
    def make(given: Arguments) -> Plan:
        a, b = given.get(0, "x", "x1"), given.get(1, "y", "x2")
        if isinstance(a, Operand) and isinstance(b, Operand):
            return Plan([Arithmetic(operation)], [a.place, b.place])
        tensor, number = (a, b) if isinstance(a, Operand) else (b, a)
        if not isinstance(tensor, Operand) or type(number) not in (int, float):
            raise Refusal(f"expected tensors and numbers, got {number!r:.60}")
        try:
            layer = Arithmetic(operation, float(number), number_first=tensor is b)
        except OverflowError:
            raise Refusal("expected a number of a size that floats have") from None
        return Plan([layer], [tensor.place])

    return make


def _unary(layer: Operation) -> _Make:
    return lambda given: Plan([layer], [given.tensor(0, "x", "features", "input").place])


def _softmax(given: Arguments) -> Plan:
    x = given.tensor(0, "x", "logits")
    axis = given.axis(x, -1)
    return Plan([ActivationLayer(Activation.of("softmax", axis=axis - len(x.shape)))], [x.place])


def _reduce(operation: str) -> _Make:
    def make(given: Arguments) -> Plan:
        x = given.tensor(0, "x", "input_tensor")
        axis = given.setting(1, "axis")
        axes = axis if isinstance(axis, list) else [axis]
        if not axes or any(type(a) is not int for a in axes):
            raise Refusal(f"axis: expected integers, got {axis!r:.60}")
        given.off("initial")
        kept = bool(given.setting(2, "keepdims", "keep_dims"))
        front = tuple(sorted(a + len(x.shape) if a < 0 else a for a in axes))
        return Plan([Reduce(operation, front, kept)], [x.place])

    return make


def _concatenate(given: Arguments) -> Plan:
    tensors = given.tensors("values", "xs", "x", "inputs")
    return Plan([Concatenate(given.axis(tensors[0]))], [t.place for t in tensors])


def _stack(given: Arguments) -> Plan:
    tensors = given.tensors("values", "xs", "x", "inputs")
    return Plan([Stack(given.axis(tensors[0], 0, extra=1))], [t.place for t in tensors])


def _expand_dims(given: Arguments) -> Plan:
    x = given.tensor(0, "x", "input")
    axis = given.axis(x, extra=1)
    if not 0 < axis <= len(x.shape):
        raise Refusal(f"axis {axis}: expected a place behind the batch")
    return Plan([with_axis(axis, len(x.shape))], [x.place])


def _squeeze(given: Arguments) -> Plan:
    x = given.tensor(0, "x", "input")
    axis = given.axis(x)
    given.off("squeeze_dims")
    if not 0 < axis < len(x.shape) or x.shape[axis] != 1:
        raise Refusal(f"axis {axis}: expected one of size 1")
    return Plan([Reshape(tuple((0, k) for k in range(len(x.shape)) if k != axis))], [x.place])


def _reshape(given: Arguments) -> Plan:
    x = given.tensor(0, "x", "tensor")
    shape = given.setting(1, "newshape", "shape")
    if not isinstance(shape, list) or len(shape) < 2 or shape[0] not in (-1, None):
        raise Refusal(f"shape: expected -1 for the batch and sizes, got {shape!r:.60}")
    if any(type(size) is not int for size in shape[1:]):
        raise Refusal(f"shape: expected integers, got {shape!r:.60}")
    sizes, own = shape[1:], x.shape[1:]
    fixed = [size for size in own if isinstance(size, int)]
    if -1 not in sizes and (len(fixed) < len(own) or math.prod(fixed) != math.prod(sizes)):
        raise Refusal(
            f"shape {shape}: would mix samples, as one has the shape {format_shape(own)}; "
            "keep the batch as the first axis"
        )
    return Plan([Reshape((BATCH_SIZE, *sizes))], [x.place])


def _transpose(given: Arguments) -> Plan:
    x = given.tensor(0, "x", "a")
    axes = given.setting(1, "axes", "perm")
    given.off("conjugate")
    if not isinstance(axes, list) or any(type(a) is not int for a in axes):
        raise Refusal(f"axes: expected a list of integers, got {axes!r:.60}")
    return Plan([Transpose(tuple(axes))], [x.place])


def _matmul(given: Arguments) -> Plan:
    a, b = given.tensor(0, "x1", "a"), given.tensor(1, "x2", "b")
    given.off("a_is_sparse", "b_is_sparse", "output_type", "grad_a", "grad_b")
    turned: dict[int, Operation] = {}
    for x, letter in ((a, "a"), (b, "b")):
        flags = [given.option(f"{word}_{letter}") for word in ("transpose", "adjoint")]
        if any(flags):
            rank = len(x.shape)
            turned[x.place] = Transpose((*range(rank - 2), rank - 1, rank - 2))
    if turned and a.place == b.place:
        raise Refusal("of a tensor by itself, turned, is not supported")
    return Plan([MatMul()], [a.place, b.place], turned)


def _cast(given: Arguments) -> Plan:
    dtype = given.setting(1, "dtype")
    if dtype not in ("float32", "float64"):
        raise Refusal(f"to {dtype!r:.40} is not supported")
    return Plan([Identity()], [given.tensor(0, "x", "input").place])


def _active(name: str, **params: float) -> _Make:
    return _unary(ActivationLayer(Activation.of(name, **params)))


# By what they do, the names that Keras 3, TensorFlow's Python and TensorFlow's graphs have for it.
_NAMES: dict[tuple[str, ...], _Make] = {
    ("Add", "__operators__.add", "math.add", "AddV2"): _binary("add"),
    ("Subtract", "math.subtract", "Sub"): _binary("subtract"),
    ("Multiply", "math.multiply", "Mul"): _binary("multiply"),
    ("TrueDivide", "Divide", "math.truediv", "math.divide", "RealDiv"): _binary("divide"),
    ("Maximum", "math.maximum"): _binary("maximum"),
    ("Minimum", "math.minimum"): _binary("minimum"),
    ("Power", "math.pow", "Pow"): _binary("power"),
    ("Negative", "math.negative", "Neg"): _active("negative"),
    ("Absolute", "Abs", "math.abs"): _active("abs"),
    ("Square", "math.square"): _active("square"),
    ("Sqrt", "math.sqrt"): _active("sqrt"),
    ("Log", "math.log"): _active("log"),
    ("Sin", "math.sin"): _active("sin"),
    ("Cos", "math.cos"): _active("cos"),
    ("Exp", "math.exp"): _active("exponential"),
    ("Tanh", "math.tanh"): _active("tanh"),
    ("Sigmoid", "math.sigmoid"): _active("sigmoid"),
    ("Relu", "nn.relu"): _active("relu"),
    ("Softplus", "math.softplus", "nn.softplus"): _active("softplus"),
    ("Softmax", "nn.softmax"): _softmax,
    ("Mean", "math.reduce_mean"): _reduce("mean"),
    ("Sum", "math.reduce_sum"): _reduce("sum"),
    ("Max", "math.reduce_max"): _reduce("max"),
    ("Min", "math.reduce_min"): _reduce("min"),
    ("Concatenate", "concat"): _concatenate,
    ("Stack", "stack"): _stack,
    ("ExpandDims", "expand_dims"): _expand_dims,
    ("Squeeze", "compat.v1.squeeze", "squeeze"): _squeeze,
    ("Reshape", "reshape"): _reshape,
    ("Transpose", "compat.v1.transpose", "transpose"): _transpose,
    ("Matmul", "linalg.matmul"): _matmul,
    ("Cast", "cast"): _cast,
    ("identity", "Identity"): _unary(Identity()),
    ("GetItem", "__operators__.getitem"): get_item,
    ("StridedSlice",): strided_slice,
}  # fmt: skip
_OPERATIONS = {name: make for names, make in _NAMES.items() for name in names}
NAMES = tuple(_OPERATIONS)  # in whichever of the three ways
FROM_GRAPHS = ("AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "Neg", "Abs",
                "Square", "Sqrt", "Log", "Sin", "Cos", "Exp", "Tanh", "Sigmoid", "Relu",
                "Softplus", "StridedSlice", "Identity")  # fmt: skip


def _name(raw: RawLayer) -> str:
    if raw.class_name.startswith("ops."):
        return raw.class_name.removeprefix("ops.")
    if raw.class_name == "TensorFlowOpLayer":
        name = str(_node(raw).get("op"))
        return name if name in FROM_GRAPHS else f"{name} of a TensorFlow graph"
    return str(raw.config.get("function"))


def _node(raw: RawLayer) -> Mapping[str, Any]:
    """The node of a TensorFlow graph that a layer holds, as an object or as its text."""
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
    """Refuse an operation that has no row."""
    name = _name(raw)
    if name not in _OPERATIONS:
        raise Refusal(f"operation {name!r:.80} is not supported")


def plan_of(raw: RawLayer, call: Call, shapes: Sequence[Shape]) -> Plan:
    """Find the layers that compute an operation.

    Parameters
    ----------
    raw, call
        The operation, and how it is called.
    shapes
        Of the tensors in ``call.reads``.

    Raises
    ------
    Refusal
        If an argument is not understood.
    """
    operands = [Operand(k, shape) for k, shape in enumerate(shapes)]

    def fill(value: Any) -> Any:
        if isinstance(value, Slot):
            return operands[value.place]
        return [fill(v) for v in value] if isinstance(value, list) else value

    positional = [fill(value) for value in call.positional]
    named: dict[str, Any] = dict(call.told)
    place = len(call.inputs)
    for name, tensors in call.options.items():
        named[name] = operands[place] if len(tensors) == 1 else operands[place:][: len(tensors)]
        place += len(tensors)
    settings: Mapping[str, Any] | None = None
    if raw.class_name == "TensorFlowOpLayer":
        positional = _with_constants(positional, raw.config.get("constants"))
        attributes = _node(raw).get("attr")
        settings = attributes if isinstance(attributes, Mapping) else {}
    elif raw.class_name.startswith("ops."):
        settings = raw.config
    else:
        named.pop("name", None)
    given = Arguments(positional, named, _meaningful(raw, settings))
    plan = _OPERATIONS[_name(raw)](given)
    given.finish()
    return plan


# Keys of a config that change no result. Keras 3 gives an operation a name and, in some versions,
# a dtype that is None; layers around a TensorFlow function or node have the keys of a layer.
_LAYER_KEYS = ("name", "trainable", "dtype", "batch_input_shape", "function", "node_def",
               "constants")  # fmt: skip
# Attributes of a TensorFlow node that name element types: those of the tensors decide.
_TYPE_ATTRIBUTES = ("T", "Index")


def _meaningful(raw: RawLayer, settings: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Leave out of the settings what changes no result; refuse other keys around a function."""
    if raw.class_name.startswith("ops."):
        assert settings is not None
        neutral = {"name"} if settings.get("dtype", "") is not None else {"name", "dtype"}
        return {k: v for k, v in settings.items() if k not in neutral}
    left = [f"{k}={v!r:.60}" for k, v in sorted(raw.config.items()) if k not in _LAYER_KEYS]
    if left:
        raise Refusal(f"config not understood: {', '.join(left)}")
    if settings is None:
        return None
    return {
        k: v for k, v in settings.items() if k not in _TYPE_ATTRIBUTES and not k.startswith("_")
    }


def _with_constants(positional: list[Any], constants: Any) -> list[Any]:
    """Put the constants of a TensorFlow node between what it reads, by their places."""
    held = constants if isinstance(constants, Mapping) else {}
    if not all(re.fullmatch("[0-9]{1,4}", str(key), re.ASCII) for key in held):
        raise Refusal(f"constants: expected places, got {', '.join(map(str, held)):.60}")
    for key, value in sorted(held.items(), key=lambda entry: int(entry[0])):
        positional.insert(int(key), value)
    return positional


def over_time(plan: Plan, times: int) -> Plan:
    """The same for each step of as many more time axes."""

    def wrapped(layer: Operation) -> Operation:
        for _ in range(times):
            layer = TimeDistributed(layer)
        return layer

    before = {k: wrapped(layer) for k, layer in plan.before.items()}
    return Plan([wrapped(layer) for layer in plan.layers], plan.reads, before)


# What TensorFlow computes with whole numbers as with others.
_SHAPING = ("__operators__.getitem", "StridedSlice", "concat", "stack", "reshape", "expand_dims",
            "transpose", "compat.v1.transpose", "squeeze", "compat.v1.squeeze", "identity",
            "Identity", "cast", "Cast")  # fmt: skip


def keeps_integers(raw: RawLayer) -> bool:
    """Whether an operation makes the same of whole numbers as of floats, in TensorFlow."""
    return _name(raw) in _SHAPING
