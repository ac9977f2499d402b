"""What TorchScript computes with values that are no tensors: sizes, lists, tuples, text.

One function for each of its operations, by name; :func:`function_of` chooses. Operations that are
not here are torch's own, on tensors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["function_of"]


def _raise(message: Any, *_: Any) -> None:
    raise RuntimeError(str(message))


def _range_length(low: Any, high: Any, step: Any) -> Any:
    return len(range(low, high, step))


def _slice(values: Any, start: Any = None, end: Any = None, step: Any = None) -> Any:
    return values[start:end:step]


def _append(values: Any, value: Any) -> Any:
    values.append(value)
    return values


def _set_item(values: Any, key: Any, value: Any) -> Any:
    values[key] = value
    return values


def _tensor(value: Any, dtype: Any = None, *_: Any) -> Any:
    import torch

    return torch.tensor(value, dtype=dtype)


def _divide(a: Any, b: Any, rounding: Any = None) -> Any:
    return a / b if rounding is None else a // b  # sizes are not negative


def _largest(*values: Any) -> Any:
    return max(*values)


def _smallest(*values: Any) -> Any:
    return min(*values)


# Values may be tensors: the operation does not look into them.
_ANY: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: tuple(values),
    "prim::DictConstruct": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "prim::ListUnpack": list,
    "prim::TupleUnpack": list,
    "prim::TupleIndex": lambda values, index: values[index],
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::RaiseException": _raise,
    "prim::Print": lambda *_: [],
    "prim::NumToTensor": lambda value: value,
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::device": lambda tensor: tensor.device,
    "prim::layout": lambda tensor: tensor.layout,
    "prim::is_cuda": lambda tensor: False,
    # Together: torch's fused layers, for inference without gradients, are not used.
    "prim::requires_grad": lambda tensor: True,
    "aten::is_grad_enabled": lambda: True,
    "prim::data": lambda tensor: tensor,
    "prim::type": lambda device: device.type,
    **dict.fromkeys(
        (f"prim::is_{word}" for word in ("nested", "sparse", "quantized", "mkldnn", "meta")),
        lambda tensor: False,
    ),
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "aten::append": _append,
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::warn": lambda *_: [],
    "aten::is_floating_point": lambda tensor: tensor.is_floating_point(),
    "aten::dict": lambda *pairs: dict(*pairs),
    "aten::values": lambda values: list(values.values()),
    "aten::keys": list,
    "aten::items": lambda values: list(values.items()),
}

# Functions of tensors that torch has for TorchScript only.
_OF_TENSORS: dict[str, Callable[..., Any]] = {
    "size": lambda tensor, axis=None: [*tensor.shape] if axis is None else tensor.shape[axis],
    "len": lambda tensor: tensor.shape[0],
    "cpu": lambda tensor: tensor.cpu(),
    "Bool": bool,
    "Int": int,
    "Float": float,
}

_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": _divide,
    "floordiv": operator.floordiv, "floor_divide": operator.floordiv,
    "remainder": operator.mod, "pow": operator.pow, "neg": operator.neg,
    "abs": abs, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "__not__": operator.not_,
    "__and__": lambda a, b: a and b, "__or__": lambda a, b: a or b,
    "__xor__": operator.xor, "Int": lambda v: v, "IntImplicit": lambda v: v,
    "Float": lambda v: v * 1.0, "FloatImplicit": lambda v: v, "ScalarImplicit": lambda v: v,
    "Bool": bool, "str": str, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt,
    "format": lambda text, *values: text.format(*values),
    "__range_length": _range_length, "__derive_index": lambda k, low, step: low + k * step,
    "device": lambda name: name, "min": _smallest, "max": _largest, "tensor": _tensor,
    "as_tensor": _tensor,
}  # fmt: skip

# The first argument is a list, a tuple or a dictionary, whatever it holds.
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "len": len, "__getitem__": lambda values, key: values[key],
    "__contains__": lambda values, key: key in values,
    "slice": _slice, "list": list, "copy": list, "reverse": lambda v: v.reverse(),
    "extend": lambda values, more: values.extend(more), "_set_item": _set_item,
    "pop": lambda values, at=-1: values.pop(at), "insert": lambda v, at, x: v.insert(at, x),
    "add": operator.add, "add_": operator.iadd, "mul": operator.mul, "clear": lambda v: v.clear(),
}  # fmt: skip


def function_of(kind: str, given: list[Any]) -> Callable[..., Any] | None:
    """Return the function for an operation with these arguments; None if it is one of torch's."""
    if kind in _ANY:
        return _ANY[kind]
    name = kind.partition("::")[2]
    if kind in ("prim::min", "prim::max"):
        return _NUMBERS[name]
    if given and isinstance(given[0], (list, tuple, dict)) and name in _CONTAINERS:
        return _CONTAINERS[name]
    if any(map(_holds_tensors, given)):
        return _OF_TENSORS.get(name)
    return _NUMBERS.get(name)


def _holds_tensors(value: Any) -> bool:
    import torch

    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensors, value))
    return isinstance(value, torch.Tensor)
