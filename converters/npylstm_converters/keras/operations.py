"""Operations on tensors that are no layers: ``x[:, -1]``, ``a + b``, ``tf.reduce_mean(x, 1)``.

Keras has written them in three ways: as layers around a node of a TensorFlow graph, as layers
around a function of TensorFlow, and (Keras 3) as operations of its own. Each is one row here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npylstm.activations import Activation
from npylstm.layers import (
    ActivationLayer,
    Arithmetic,
    Concatenate,
    Elementwise,
    Flip,
    Identity,
    Layer,
    MatMul,
    Reduce,
    Reshape,
    Select,
    Slice,
    Stack,
    TimeDistributed,
    Transpose,
    View,
)
from npylstm.layers.base import Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.graph import Call, RawLayer, Slot

__all__ = [
    "NAMES", "Operand", "Plan", "is_operation", "keeps_integers", "over_time", "plan_of",
    "refuse_unknown",
]  # fmt: skip

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
    seen: set[str] = field(default_factory=set)  # names that were looked up

    def option(self, *names: str, default: Any = None) -> Any:
        """Look an argument up that is only given by name."""
        self.seen.update(names)
        return next((self.named[n] for n in names if n in self.named), default)

    def get(self, position: int, *names: str, default: Any = None) -> Any:
        """Look an argument up, by position or by one of its names."""
        given = self.option(*names, default=default)
        return self.positional[position] if len(self.positional) > position else given

    def tensor(self, position: int = 0, *names: str) -> Operand:
        """Look up an argument that must be a tensor."""
        value = self.get(position, *names)
        if not isinstance(value, Operand):
            raise Refusal(f"expected a tensor, got {value!r:.60}")
        return value

    def axis(self, x: Operand, default: Any = None, extra: int = 0) -> int:
        """Look up one axis, counted from the front."""
        axis = self.option("axis", default=self.get(1, default=default))
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
        try:
            layer = Arithmetic(operation, float(number), number_first=tensor is b)
        except OverflowError:
            raise Refusal("expected a number of a size that floats have") from None
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
        given = asked.option("axis", default=asked.get(1))
        axes = given if isinstance(given, list) else [given]
        if not axes or any(type(a) is not int for a in axes):
            raise Refusal(f"axis: expected integers, got {given!r:.60}")
        if asked.option("initial") is not None:
            raise Refusal("initial is not supported")
        kept = bool(asked.option("keepdims") or asked.option("keep_dims"))
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
    return Plan([Concatenate(asked.axis(tensors[0]))], [t.place for t in tensors])


def _stack(asked: _Asked) -> Plan:
    tensors = _several(asked)
    return Plan([Stack(asked.axis(tensors[0], 0, extra=1))], [t.place for t in tensors])


def _expand_dims(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "input")
    axis = asked.axis(x, extra=1)
    if not 0 < axis <= len(x.shape):
        raise Refusal(f"axis {axis}: expected a place behind the batch")
    return Plan([_with_axis(axis, len(x.shape))], [x.place])


def _with_axis(axis: int, rank: int) -> View:
    """A new axis of size one."""
    sizes: list[int | tuple[int, int]] = [(0, k) for k in range(rank)]
    sizes.insert(axis, 1)
    return View(tuple(sizes))


def _squeeze(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "input")
    axis = asked.axis(x)
    if not 0 < axis < len(x.shape) or x.shape[axis] != 1:
        raise Refusal(f"axis {axis}: expected one of size 1")
    return Plan([View(tuple((0, k) for k in range(len(x.shape)) if k != axis))], [x.place])


def _reshape(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "tensor")
    shape = asked.option("newshape", default=asked.get(1, "shape"))
    if not isinstance(shape, list) or len(shape) < 2 or shape[0] not in (-1, None):
        raise Refusal(f"shape: expected -1 for the batch and sizes, got {shape!r:.60}")
    if any(type(size) is not int for size in shape[1:]):
        raise Refusal(f"shape: expected integers, got {shape!r:.60}")
    return Plan([Reshape(tuple(shape[1:]))], [x.place])


def _transpose(asked: _Asked) -> Plan:
    x = asked.tensor(0, "x", "a")
    axes = asked.option("axes", default=asked.get(1, "perm"))
    if asked.option("conjugate"):
        raise Refusal("conjugate is not supported")
    if not isinstance(axes, list) or any(type(a) is not int for a in axes):
        raise Refusal(f"axes: expected a list of integers, got {axes!r:.60}")
    return Plan([Transpose(tuple(axes))], [x.place])


def _matmul(asked: _Asked) -> Plan:
    a, b = asked.tensor(0, "x1", "a"), asked.tensor(1, "x2", "b")
    turned: dict[int, Layer] = {}
    for x, letter in ((a, "a"), (b, "b")):
        if asked.option(f"transpose_{letter}") or asked.option(f"adjoint_{letter}"):
            rank = len(x.shape)
            turned[x.place] = Transpose((*range(rank - 2), rank - 1, rank - 2))
    if turned and a.place == b.place:
        raise Refusal("of a tensor by itself, turned, is not supported")
    return Plan([MatMul()], [a.place, b.place], turned)


def _identity(asked: _Asked) -> Plan:
    dtype = asked.get(1, "dtype")
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
    names = [e.get("class_name") if isinstance(e, Mapping) else None for e in key]
    taken = sum(entry is not None for entry in key)  # a new axis takes none
    if names.count("__ellipsis__") > 1:
        raise Refusal("takes more than one ellipsis")
    for name, entry in zip(names, key, strict=True):
        if name == "__ellipsis__":
            entries += [{}] * (rank - taken + 1)
        else:
            entries.append(entry.get("config") if name == "__slice__" else entry)
    layers: list[Layer] = []
    axis = 0
    for entry in entries:
        made = _cut_one(entry, axis, rank)
        layers += [made] if made is not None else []
        if isinstance(made, Select):
            rank -= 1
            continue
        rank += isinstance(made, View)
        axis += 1
    if layers and getattr(layers[0], "axis", 1) == 0:
        raise Refusal("takes samples out of the batch")
    return layers or [Identity()]


def _cut_one(entry: Any, axis: int, rank: int) -> Layer | None:
    """Make a layer of one entry between brackets; nothing of a colon."""
    if type(entry) is int:
        return Select(axis, entry)
    if entry is None and axis:
        return _with_axis(axis, rank)
    if not isinstance(entry, Mapping):
        raise Refusal(f"takes {entry!r:.60}: expected numbers and slices")
    start, stop, step = (entry.get(name) for name in ("start", "stop", "step"))
    if any(v is not None and type(v) is not int for v in (start, stop, step)):
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected numbers")
    if (start, stop, step) == (None, None, -1):
        return Flip((axis,))
    if step is not None and step < 1:
        raise Refusal(f"takes a slice {dict(entry)!r:.60}: expected a step forward")
    if (start or 0, stop, step or 1) == (0, None, 1):
        return None
    return Slice(axis, start or 0, stop, step or 1)


_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def _strided_slice(asked: _Asked) -> Plan:
    """TensorFlow's own form of it, with bits for what stands between the brackets."""
    x = asked.tensor()
    bounds = [asked.get(k) for k in (1, 2, 3)]
    if any(not isinstance(b, list) or any(type(v) is not int for v in b) for b in bounds):
        raise Refusal("expected bounds that are numbers")
    if len({len(b) for b in bounds}) > 1:
        raise Refusal("expected as many bounds of each kind")
    masks = {name: _bits(asked.option(name)) for name in _MASKS}
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
    except (TypeError, ValueError, OverflowError):
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
NAMES = tuple(_OPERATIONS)  # in whichever of the three ways
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
    own = raw.config if raw.class_name.startswith("ops.") else {}
    named: dict[str, Any] = {**own, **call.told}
    place = len(call.inputs)
    for name, tensors in call.options.items():
        named[name] = operands[place] if len(tensors) == 1 else operands[place:][: len(tensors)]
        place += len(tensors)
    if raw.class_name == "TensorFlowOpLayer":
        positional = _with_constants(positional, raw.config.get("constants"))
        attributes = _node(raw).get("attr")
        named = dict(attributes) if isinstance(attributes, Mapping) else {}
    asked = _Asked(positional, named)
    plan = _OPERATIONS[_name(raw)](asked)
    for name, value in {**call.told, **call.options}.items():
        if name != "name" and name not in asked.seen and value not in (None, False):
            raise Refusal(f"argument {name}={value!r:.60} is not supported")
    return plan


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

    def wrapped(layer: Layer) -> Layer:
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
