"""The names that a pickle may use, and what each one makes here.

Nothing is imported or called by its name in the file: each name is one entry of a table in this
file. A name that is in no table makes the whole file an error.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm_converters.torch.pickle_values import (
    DTYPES,
    Global,
    NumpyArray,
    NumpyType,
    Opaque,
    QuantizedTensor,
    Storage,
    Tensor,
    check_type,
    checked_key,
    integers,
)

__all__ = ["CONSTANTS", "FUNCTIONS", "STORAGES", "call", "make_set", "make_storage", "set_state"]


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str | None = None
) -> Tensor:
    check_type(storage, Storage, "a storage")
    kind = dtype or storage.dtype
    if kind is None or (storage.dtype is not None and kind != storage.dtype):
        raise FormatError(f"pickle: a tensor of type {kind} in a storage of {storage.dtype}")
    if kind == "qint8":
        raise FormatError("pickle: a quantized tensor without a scale")
    # The argument after requires_grad and hooks: operations applied when the tensor is read.
    later = rest[2] if len(rest) > 2 and rest[2] else {}
    if check_type(later, dict, "a dictionary").keys() - {"neg"}:
        raise FormatError("pickle: a tensor that is computed when it is read")
    return Tensor(
        storage, check_type(offset, int, "an offset"), integers(size, "a size"),
        integers(stride, "a stride"), kind, later.get("neg") is True,
    )  # fmt: skip


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    kind = check_type(dtype, str, "a dtype")
    return _tensor(storage, offset, size, stride, grad, hooks, *rest, dtype=kind)


def _quantized_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, quantizer: Any, *_: Any
) -> QuantizedTensor:
    if check_type(storage, Storage, "a storage").dtype != "qint8":
        raise FormatError(f"pickle: a quantized tensor in a storage of {storage.dtype}")
    made = functools.partial(
        QuantizedTensor, storage, check_type(offset, int, "an offset"), integers(size, "a size"),
        integers(stride, "a stride"), "qint8", False,
    )  # fmt: skip
    match quantizer:
        case ("per_tensor_affine", float(scale), int(zero_point)):
            return made(scale, zero_point)
        case ("per_channel_affine", Tensor() as scales, Tensor() as points, int(axis)):
            if 0 <= axis < len(size) and scales.size == points.size == (size[axis],):
                return made(scales, points, axis)
        case ("per_channel_affine", list(scales), list(points), int(axis)):
            numbers = all(isinstance(v, float) for v in scales) and 0 <= axis < len(size)
            if numbers and len(scales) == len(points) == size[axis]:
                return made(tuple(scales), integers(points, "zero points"), axis)
    raise FormatError("pickle: a quantized tensor in no form that is known")


def _parameter(tensor: Any, *_: Any) -> Tensor:
    made: Tensor = check_type(tensor, Tensor, "a tensor")
    return made


def _tensor_of_class(function: Any, kind: Any, arguments: Any, _state: Any) -> Any:
    if isinstance(kind, Opaque):
        raise FormatError(f"pickle: a tensor of class {kind.name}")
    if not str(check_type(function, Global, "a function")).startswith("torch._utils._rebuild_"):
        raise FormatError(f"pickle: makes a tensor by {function}")
    return call(function, check_type(arguments, tuple, "arguments"))


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in check_type(pairs, (tuple, list), "pairs"):
        check_type(pair, (tuple, list), "a pair")
        if len(pair) != 2:
            raise FormatError("pickle: expected a pair")
        made[checked_key(pair[0])] = pair[1]
    return made


def _counter(counts: Any = None) -> dict[Any, Any]:
    return dict(check_type(counts, dict, "a dictionary")) if counts is not None else {}


def make_set(items: Any = ()) -> set[Any]:
    """Return a set of items that can be hashed in little time."""
    return {checked_key(item) for item in check_type(items, (tuple, list), "items")}


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes from the form of protocol 2."""
    if encoding != "latin1":
        raise FormatError("pickle: expected bytes as latin1")
    try:
        return str(check_type(text, str, "a string")).encode("latin1")
    except UnicodeEncodeError:
        raise FormatError("pickle: expected bytes as latin1") from None


_NUMPY_TYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def _numpy_type(descr: Any, *_: Any) -> NumpyType | Opaque:
    """Return a type of plain numbers; types of texts, objects and records stay names."""
    name = str(check_type(descr, str, "the name of a NumPy type"))
    if name.lstrip("<>|=") not in _NUMPY_TYPES:
        return Opaque(Global("numpy", "dtype"), (name,))
    return NumpyType(name.lstrip("<>|="), ">" if name.startswith(">") else "<")


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    kind = check_type(dtype, NumpyType, "a NumPy type").dtype
    if len(check_type(data, bytes, "bytes")) != kind.itemsize:
        raise FormatError("pickle: a NumPy number of another size than its type")
    return np.frombuffer(data, kind)[0].item()


def _array_of_bytes(data: Any, dtype: Any, shape: Any, order: Any = "C") -> NumpyArray:
    """Return the array of protocol 5."""
    return NumpyArray(_array((1, shape, dtype, order == "F", data)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "builtins.set": make_set,
    "__builtin__.set": make_set,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _quantized_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "torch.Size": lambda size: integers(size, "a size"),
    "torch.device": lambda *where: None,
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_type,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "scalar": _numpy_scalar,
            "_reconstruct": lambda *_: NumpyArray(),
        }.items()
    },
    "numpy.core.numeric._frombuffer": _array_of_bytes,
    "numpy._core.numeric._frombuffer": _array_of_bytes,
    "collections.defaultdict": lambda *_: {},
    # Classes whose objects are the tensor itself; also arguments of _rebuild_from_type_v2.
    "torch.nn.parameter.Parameter": _parameter,
    "torch.autograd.variable.Variable": _parameter,
}
# Names that are values, not functions.
CONSTANTS: dict[str, Any] = {
    **{f"torch.{name}": name for name in DTYPES},
    **{f"torch.{name}": name for name in ("per_tensor_affine", "per_channel_affine")},
    "numpy.ndarray": None,
    "torch.Tensor": None,
    "torch._tensor.Tensor": None,
}
# Classes of storages, with the type of their elements; None if each tensor has its own.
STORAGES: dict[str, str | None] = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64", "torch.IntStorage": "int32", "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8", "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool",
    "torch.QInt8Storage": "qint8",
    "torch.storage.UntypedStorage": None,
}  # fmt: skip


def call(function: Global, arguments: tuple[Any, ...]) -> Any:
    """Call one of the allowed functions; raise FormatError for any other or other arguments."""
    known = FUNCTIONS.get(str(function))
    if known is None:
        raise FormatError(f"pickle: calls {function}, which makes nothing")
    try:
        return known(*arguments)
    except TypeError:
        raise FormatError(f"pickle: calls {function} with other arguments than it takes") from None


def set_state(value: Any, state: Any) -> None:
    """Set the state of a NumPy array; check the state of the other values, and ignore it."""
    if isinstance(value, NumpyArray):
        value.array = _array(state)
    elif isinstance(value, NumpyType):
        order = check_type(state, tuple, "a state")[1:2]
        if order not in (("<",), ("|",), (">",)):
            raise FormatError("pickle: expected the byte order of a NumPy type")
        value.order = ">" if order == (">",) else "<"
    elif not isinstance(value, (dict, Tensor)):
        raise FormatError(f"pickle: sets the state of a {type(value).__name__}")
    elif not isinstance(state, (dict, tuple, Opaque)) and state is not None:
        raise FormatError(f"pickle: expected a state, got {type(state).__name__}")


def _array(state: Any) -> Any:
    """Return the array of a state: version, shape, type, whether in Fortran order, data."""
    match state:
        case (_, _, Opaque(), _, _):  # of texts or objects
            return None
        case (
            _,
            tuple(shape),
            NumpyType() as described,
            bool(fortran),
            (bytes() | memoryview() | str()) as data,
        ):
            kind = described.dtype
            data = _encode(data, "latin1") if isinstance(data, str) else data  # Python 2
            sizes = integers(shape, "a shape")
            if min(sizes, default=0) < 0 or math.prod(sizes) * kind.itemsize != len(data):
                raise FormatError("pickle: a NumPy array of another size than its shape")
            return np.frombuffer(data, kind).reshape(sizes, order="F" if fortran else "C")
        case _:
            raise FormatError("pickle: a NumPy array in no form that is known")


def make_storage(persistent: Any) -> Storage:
    """Return the storage of a persistent id: a tensor's data outside the pickle."""
    match persistent if isinstance(persistent, tuple) else None:
        case ("storage", Global() as kind, str(key), _, int(count), *rest):
            if str(kind) not in STORAGES:
                raise FormatError(f"pickle: {kind} is no storage")
            start, shown = 0, count
            match rest:
                case [] | [None]:
                    pass
                case [(_, int(start), int(shown))]:  # a view, in the legacy format
                    pass
                case _:
                    raise FormatError("pickle: a storage in no form that is known")
            if not 0 <= start <= start + shown <= count:
                raise FormatError(f"pickle: a view of {shown} from {start} on of {count}")
            return Storage(key, STORAGES[str(kind)], count, start, shown)
        case _:
            raise FormatError("pickle: a persistent id in no form that is known")
