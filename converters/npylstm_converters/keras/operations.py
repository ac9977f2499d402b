"""Operations on tensors that are not layers: ``x[:, -1]``, ``a + b``, ``tf.reduce_mean(x, 1)``.

Keras stores them in three forms: as layers around a node of a TensorFlow graph, as layers around a
TensorFlow function, and (Keras 3) as Keras operations. Each name is one row of
:mod:`npylstm_converters.keras.rows`, those of nodes of :mod:`npylstm_converters.keras.nodes`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from npylstm.ops.pointwise import Identity
from npylstm.ops.shapes import Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.keras import nodes
from npylstm_converters.keras.graph import Call, RawLayer, Slot
from npylstm_converters.keras.integer_types import type_of_operation
from npylstm_converters.keras.plans import Operand, Plan
from npylstm_converters.keras.rows import ROWS, TAKE_LISTS
from npylstm_converters.toolkit.translation import Row, translate

__all__ = [
    "NAMES",
    "integer_type",
    "keeps_integers",
    "may_return_its_input",
    "plan_of",
    "refuse_unknown",
    "result_type",
]

NAMES = tuple(ROWS)


def _name(raw: RawLayer) -> str:
    if raw.class_name.startswith("ops."):
        return raw.class_name.removeprefix("ops.")
    if raw.class_name == "TensorFlowOpLayer":
        return str(_node(raw).get("op"))
    return str(raw.config.get("function"))


def _row(raw: RawLayer) -> Row:
    """Return the row of an operation; raises Refusal if there is none."""
    name, of_node = _name(raw), raw.class_name == "TensorFlowOpLayer"
    rows = nodes.ROWS if of_node else ROWS
    if name not in rows:
        where = " of a TensorFlow graph" if of_node else ""
        raise Refusal(f"operation '{name:.80}{where}' is not supported")
    return rows[name]


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
    _row(raw)


def plan_of(
    raw: RawLayer, call: Call, names: Sequence[str], shapes: Sequence[Shape], values: Sequence[Any],
    types: Sequence[str] = (), floats: str = "float32",
) -> tuple[Plan, Sequence[Operand] | None, Any]:  # fmt: skip
    """Return the operations that compute a call.

    Parameters
    ----------
    raw, call
        The operation and its call.
    names, shapes
        The tensors in ``call.reads``, of :attr:`RawLayer.times` axes less.
    values
        For each of them None, or the sizes that it is: such a tensor is never computed.
    types
        Their types in Keras, as :func:`integer_type` returns them; none for floats.
    floats
        The model's type.

    Returns
    -------
    plan
        The operations.
    results
        Its outputs; None if the call computes sizes.
    value
        These sizes.

    Raises
    ------
    Refusal
        If an argument is not supported.
    """
    kind = integer_type(raw, call, types)
    plan = Plan(names, shapes, bool(raw.times), kind, floats, types)
    operands = [
        operand if value is None else value
        for operand, value in zip(plan.operands, values, strict=True)
    ]

    def fill(value: Any, first: int = 0) -> Any:
        if isinstance(value, Slot):
            return operands[first + value.place]
        return [fill(v, first) for v in value] if isinstance(value, list) else value

    positional = [fill(value) for value in call.positional]
    named: dict[str, Any] = dict(call.keyword_arguments)
    place = len(call.inputs)
    for name, tensors in call.options.items():
        several = operands[place : place + len(tensors)]
        named[name] = several[0] if len(tensors) == 1 else [*several]
        if name in call.structures:
            named[name] = fill(call.structures[name], place)
        place += len(tensors)
    settings: Mapping[str, Any] = {}
    if raw.class_name == "TensorFlowOpLayer":
        positional = _with_constants(positional, raw.config.get("constants"))
        attributes = _node(raw).get("attr")
        settings = nodes.plain(attributes) if isinstance(attributes, Mapping) else {}
    elif raw.class_name.startswith("ops."):
        settings = raw.config
    else:
        named.pop("name", None)
    settings = _relevant_settings(raw, settings)
    twice = sorted(named.keys() & settings.keys())
    if twice:
        raise Refusal(f"argument {twice[0]} is given twice")
    positional = _grouped(raw, positional)
    result = translate(_row(raw), plan, positional, {**named, **settings})
    several = result if isinstance(result, list) else [result]
    if not several or not all(isinstance(value, Operand) for value in several):
        return plan, None, result
    read = range(len(names))  # an output has a name of its own
    copied = [plan.add(Identity(), x) if x.number in read else x for x in several]
    return plan, copied, None


def _grouped(raw: RawLayer, positional: list[Any]) -> list[Any]:
    """Return arguments with a list where Keras wrote the entries of a list one by one."""
    name = _name(raw)
    if not positional or isinstance(positional[0], list):
        return positional
    if raw.class_name == "TensorFlowOpLayer":
        if name not in nodes.TAKE_LISTS:
            return positional
        end = len(positional) - nodes.TAKE_LISTS[name]
        return [positional[:end], *positional[end:]]
    return [positional] if name in TAKE_LISTS else positional


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
_EXACT = (
    "__operators__.getitem", "StridedSlice", "concat", "stack", "reshape", "expand_dims",
    "transpose", "compat.v1.transpose", "squeeze", "compat.v1.squeeze", "identity", "Identity",
    "cast", "Cast", "one_hot", "reverse", "split", "unstack", "tile", "repeat", "roll", "slice",
    "strided_slice", "compat.v1.gather", "gather", "where", "compat.v1.gather_nd", "gather_nd",
    "math.equal", "math.not_equal",
    "math.less", "math.less_equal", "math.greater", "math.greater_equal", "math.argmax",
    "math.argmin", "math.reduce_max", "math.reduce_min", "math.maximum", "math.minimum",
    "zeros_like", "ones_like", "compat.v1.shape", "broadcast_to", "stop_gradient",
    # Unless they overflow.
    "math.add", "__operators__.add", "math.subtract", "math.multiply", "math.floormod",
    "compat.v1.floor_div", "math.abs", "math.negative", "math.reduce_sum", "math.cumsum", "sort",
    "argsort", "math.top_k", "math.add_n",
)  # fmt: skip


def integer_type(raw: RawLayer, call: Call, types: Sequence[str], output: int = 0) -> str:
    """Return the type of an operation's result; empty for floats.

    ``types`` are those of the tensors in ``call.reads``.
    """
    name = _name(raw)
    if output and name in ("TopK", "math.top_k"):
        return "int32"  # the indices
    return type_of_operation(name, raw, call, types)


def keeps_integers(raw: RawLayer) -> bool:
    """Whether TensorFlow computes an operation equally for integers and floats."""
    return _name(raw) in _EXACT


def result_type(raw: RawLayer, call: Call) -> str:
    """Return ``integer`` or ``float`` if an operation has results of this type, else nothing."""
    name = _name(raw)
    if name in ("math.argmax", "math.argmin", "argsort"):
        return "integer"
    if name in ("one_hot", "math.truediv", "math.divide"):
        return "float"
    if name == "cast":
        dtype = str(call.keyword_arguments.get("dtype", *call.positional[1:]))
        return "float" if dtype.startswith("float") else "integer"
    return ""


def may_return_its_input(raw: RawLayer) -> bool:
    """Whether TensorFlow may return the tensor that it gets, or copies its attributes."""
    return _name(raw) in ("cast", "Cast", "identity", "Identity", "math.add_n", "AddN")
