"""Operations on tensors that are no layers: ``x[:, -1]``, ``a + b``, ``tf.reduce_mean(x, 1)``.

Keras has written them in three ways: as layers around a node of a TensorFlow graph, as layers
around a function of TensorFlow, and (Keras 3) as operations of its own. Each is one row here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npylstm.activations import Activation
from npylstm.layers import (
    ActivationLayer,
    Arithmetic,
    Concatenate,
    Elementwise,
    Identity,
    Layer,
    MatMul,
    Reduce,
    Reshape,
    Select,
    Slice,
    Stack,
    Transpose,
    View,
)
from npylstm.layers.base import Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Call, RawLayer, Slot

__all__ = ["Operand", "Plan", "is_operation", "plan_of", "refuse_unknown"]

_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")


def is_operation(raw: RawLayer) -> bool:
    """Whether it is an operation on tensors that poses as a layer."""
    return raw.class_name.startswith("ops.") or raw.class_name in _LAYERS


@dataclass(frozen=True)
class Operand:
    """A tensor that goes in: its place in what the call reads, and its shape."""

    place: int
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What computes an operation: layers one after the other; the first reads these operands.

    ``before`` holds layers for single operands, by their place.
    """

    layers: Sequence[Layer]
    reads: Sequence[int]
    before: Mapping[int, Layer] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """An operation with its arguments; tensors among them are :class:`Operand`."""

    positional: Sequence[Any]
    named: Mapping[str, Any]

    def get(self, position: int, *names: str, default: Any = None) -> Any:
        """Look an argument up, by position or by one of its names."""
        if len(self.positional) > position:
            return self.positional[position]
        return next((self.named[n] for n in names if n in self.named), default)

    def tensor(self, position: int = 0, *names: str) -> Operand:
        """Look up an argument that must be a tensor."""
        value = self.get(position, *names)
        if not isinstance(value, Operand):
            raise Refusal(f"expected a tensor, got {value!r:.60}")
        return value

    def axis(self, x: Operand, default: Any = None, extra: int = 0) -> int:
        """Look up one axis, counted from the front."""
        axis = self.named.get("axis", self.get(1, "axis", default=default))
        if isinstance(axis, list) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is not int:
            raise Refusal(f"axis: expected an integer, got {axis!r:.60}")
        return axis + len(x.shape) + extra if axis < 0 else axis


_Make = Callable[[_Asked], Plan]


def _binary(operation: str) -> _Make:
    def make(asked: _Asked) -> Plan:
        a, b = asked.get(0, "x", "x1"), asked.get(1, "y", "x2")
        if isinstance(a, Operand) and isinstance(b, Operand):
            return Plan([Arithmetic(operation)], [a.place, b.place])
        tensor, number = (a, b) if isinstance(a, Operand) else (b, a)
        if not isinstance(tensor, Operand) or type(number) not in (int, float):
            raise Refusal(f"expected tensors and numbers, got {number!r:.60}")
        layer = Arithmetic(operation, float(number), number_first=tensor is b)
        return Plan([layer], [tensor.place])

    return make


def _unary(layer: Layer) -> _Make:
    return lambda asked: Plan([layer], [asked.tensor(0, "x", "features", "logits").place])


def _softmax(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "logits")
    axis = asked.axis(x, -1)
    return Plan([ActivationLayer(Activation.of("softmax", axis=axis - len(x.shape)))], [x.place])


def _reduce(operation: str) -> _Make:
    def make(asked: _Asked) -> Plan:
        x = asked.tensor(0, "x", "input_tensor")
        given = asked.named.get("axis", asked.get(1, "axis"))
        axes = given if isinstance(given, list) else [given]
        if not axes or any(type(a) is not int for a in axes):
            raise Refusal(f"axis: expected integers, got {given!r:.60}")
        if asked.named.get("initial") is not None:
            raise Refusal("initial is not supported")
        kept = bool(asked.named.get("keepdims") or asked.named.get("keep_dims"))
        front = tuple(sorted(a + len(x.shape) if a < 0 else a for a in axes))
        return Plan([Reduce(operation, front, kept)], [x.place])

    return make


def _several(asked: _Asked) -> list[Operand]:
    given = asked.get(0, "values", "xs", "inputs")
    tensors = given if isinstance(given, list) else list(asked.positional)
    if not tensors or not all(isinstance(t, Operand) for t in tensors):
        raise Refusal("expected a list of tensors")
    return tensors


def _concatenate(asked: _Asked) -> Plan:
    tensors = _several(asked)
    axis = asked.named.get("axis")
    if type(axis) is not int:
        raise Refusal(f"axis: expected an integer, got {axis!r:.60}")
    return Plan([Concatenate(axis)], [t.place for t in tensors])


def _stack(asked: _Asked) -> Plan:
    tensors = _several(asked)
    axis = asked.named.get("axis", 0)
    if type(axis) is not int:
        raise Refusal(f"axis: expected an integer, got {axis!r:.60}")
    front = axis + len(tensors[0].shape) + 1 if axis < 0 else axis
    return Plan([Stack(front)], [t.place for t in tensors])


def _expand_dims(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "input")
    axis = asked.axis(x, extra=1)
    sizes: list[int | tuple[int, int]] = [(0, k) for k in range(len(x.shape))]
    sizes.insert(axis, 1)
    if axis == 0:
        raise Refusal("puts an axis before the batch")
    return Plan([View(tuple(sizes))], [x.place])


def _squeeze(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "input")
    axis = asked.axis(x)
    if not 0 < axis < len(x.shape) or x.shape[axis] != 1:
        raise Refusal(f"axis {axis}: expected one of size 1")
    return Plan([View(tuple((0, k) for k in range(len(x.shape)) if k != axis))], [x.place])


def _reshape(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "tensor")
    shape = asked.named.get("newshape", asked.get(1, "shape", "newshape"))
    if not isinstance(shape, list) or len(shape) < 2 or shape[0] not in (-1, None):
        raise Refusal(f"shape: expected -1 for the batch and sizes, got {shape!r:.60}")
    if any(type(size) is not int for size in shape[1:]):
        raise Refusal(f"shape: expected integers, got {shape!r:.60}")
    return Plan([Reshape(tuple(shape[1:]))], [x.place])


def _transpose(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "a")
    axes = asked.named.get("axes", asked.get(1, "perm", "axes"))
    if not isinstance(axes, list) or any(type(a) is not int for a in axes):
        raise Refusal(f"axes: expected a list of integers, got {axes!r:.60}")
    return Plan([Transpose(tuple(axes))], [x.place])


def _matmul(asked: _Asked) -> Plan:
    a, b = asked.tensor(0, "x1", "a"), asked.tensor(1, "x2", "b")
    turned: dict[int, Layer] = {}
    for x, name in ((a, "transpose_a"), (b, "transpose_b")):
        if asked.named.get(name):
            rank = len(x.shape)
            turned[x.place] = Transpose((*range(rank - 2), rank - 1, rank - 2))
    if turned and a.place == b.place:
        raise Refusal("of a tensor by itself, turned, is not supported")
    return Plan([MatMul()], [a.place, b.place], turned)


def _identity(asked: _Asked) -> Plan:
    dtype = asked.named.get("dtype")
    if dtype not in (None, "float32", "float64"):
        raise Refusal(f"to {dtype!r:.40} is not supported")
    return Plan([Identity()], [asked.tensor(0, "x", "input").place])


def _get_item(asked: _Asked) -> Plan:
    x = asked.tensor()
    key = asked.get(1, "slice_spec", "key")
    return Plan(_cut(key if isinstance(key, list) else [key], len(x.shape)), [x.place])


def _cut(key: Sequence[Any], rank: int) -> list[Layer]:
    """Make layers of what stands between brackets."""
    entries: list[Any] = []
    for entry in key:
        name = entry.get("class_name") if isinstance(entry, Mapping) else None
        if name == "__ellipsis__":
            entries += [{}] * (rank - len(key) + 1)
        else:
            entries.append(entry["config"] if name == "__slice__" else entry)
    layers: list[Layer] = []
    axis = 0
    for entry in entries:
        if type(entry) is int:
            layers.append(Select(axis, entry))
            continue
        if not isinstance(entry, Mapping):
            raise Refusal(f"takes {entry!r:.60}: expected numbers and slices")
        start, stop, step = (entry.get(name) for name in ("start", "stop", "step"))
        if any(v is not None and type(v) is not int for v in (start, stop, step)):
            raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected numbers")
        if (start or 0, stop, step or 1) != (0, None, 1):
            layers.append(Slice(axis, start or 0, stop, step or 1))
        axis += 1
    if layers and getattr(layers[0], "axis", 1) == 0:
        raise Refusal("takes samples out of the batch")
    return layers or [Identity()]


_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def _strided_slice(asked: _Asked) -> Plan:
    """TensorFlow's own form of it, with bits for what stands between the brackets."""
    x = asked.tensor()
    bounds = [asked.get(k) for k in (1, 2, 3)]
    if any(not isinstance(b, list) or any(type(v) is not int for v in b) for b in bounds):
        raise Refusal("expected bounds that are numbers")
    masks = {name: _bits(asked.named.get(name)) for name in _MASKS}
    if masks["new_axis_mask"]:
        raise Refusal("with a new axis is not supported")
    key: list[Any] = []
    for k, (start, stop, step) in enumerate(zip(*bounds, strict=True)):
        bit = 1 << k
        if masks["ellipsis_mask"] & bit:
            key.append({"class_name": "__ellipsis__"})
        elif masks["shrink_axis_mask"] & bit:
            key.append(start)
        else:
            open_start, open_stop = masks["begin_mask"] & bit, masks["end_mask"] & bit
            bounded = {"start": None if open_start else start, "stop": None if open_stop else stop}
            key.append({**bounded, "step": step})
    return Plan(_cut(key, len(x.shape)), [x.place])


def _bits(value: Any) -> int:
    held = value.get("i", 0) if isinstance(value, Mapping) else value or 0
    try:
        return int(held)
    except (TypeError, ValueError):
        raise Refusal(f"expected a number, got {value!r:.60}") from None


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
    ("Negative", "math.negative", "Neg"): _unary(Elementwise("negative")),
    ("Absolute", "Abs", "math.abs"): _unary(Elementwise("abs")),
    ("Square", "math.square"): _unary(Elementwise("square")),
    ("Sqrt", "math.sqrt"): _unary(Elementwise("sqrt")),
    ("Log", "math.log"): _unary(Elementwise("log")),
    ("Sin", "math.sin"): _unary(Elementwise("sin")),
    ("Cos", "math.cos"): _unary(Elementwise("cos")),
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
    ("Cast", "cast", "identity", "Identity"): _identity,
    ("GetItem", "__operators__.getitem"): _get_item,
    ("StridedSlice",): _strided_slice,
}  # fmt: skip
_OPERATIONS = {name: make for names, make in _NAMES.items() for name in names}
_FROM_GRAPHS = ("AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Pow", "Neg", "Abs",
                "Square", "Sqrt", "Log", "Sin", "Cos", "Exp", "Tanh", "Sigmoid", "Relu",
                "Softplus", "StridedSlice", "Identity")  # fmt: skip


def _name(raw: RawLayer) -> str:
    if raw.class_name.startswith("ops."):
        return raw.class_name.removeprefix("ops.")
    if raw.class_name == "TensorFlowOpLayer":
        name = str(_node(raw).get("op"))
        return name if name in _FROM_GRAPHS else f"{name} of a TensorFlow graph"
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
    named: dict[str, Any] = {**raw.config, **call.told}
    place = len(call.inputs)
    for name, tensors in call.options.items():
        named[name] = operands[place] if len(tensors) == 1 else operands[place:][: len(tensors)]
        place += len(tensors)
    if raw.class_name == "TensorFlowOpLayer":
        constants = raw.config.get("constants")
        for key, value in sorted((constants if isinstance(constants, Mapping) else {}).items()):
            if not str(key).isdigit() or int(key) > len(positional):
                raise Refusal(f"constants: expected places, got {key!r:.40}")
            positional.insert(int(key), value)
        attributes = _node(raw).get("attr")
        named = dict(attributes) if isinstance(attributes, Mapping) else {}
    return _OPERATIONS[_name(raw)](_Asked(positional, named))
