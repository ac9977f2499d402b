"""Operations of TensorFlow that put elements into other places, or choose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.tensorflow.constants import DTYPES

__all__ = [
    "all_same", "broadcast_to", "call_function", "cast", "concat", "expand_dims", "fill",
    "filled_like", "gather", "gather_nd", "mirror_pad", "one_hot", "pack", "pad", "range_",
    "read_variable", "reshape", "resource_gather", "reverse", "same", "select_v2", "shape", "size",
    "slice_", "split", "split_sizes", "squeeze", "tile", "top_k", "transpose", "unpack",
]  # fmt: skip

_FIRST, _LAST = -(1 << 62), (1 << 62) - 1  # bounds of slices that run to an end


def same(_call: Any, x: Any) -> Any:
    """Return the input."""
    return x


def all_same(_call: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the inputs."""
    return [*inputs]


def call_function(call: Any, inputs: Sequence[Any], *, f: str) -> list[Any]:
    """Write the nodes of a function."""
    made: list[Any] = call.lowering.call(call.lowering.function(f), inputs)
    return made


def read_variable(call: Any, handle: Any) -> str:
    """Return the values of a variable."""
    made: str = call.lowering.variable(handle)
    return made


def resource_gather(call: Any, handle: Any, indices: str, *, batch_dims: int = 0) -> str:
    """Return rows of a variable, as an embedding does."""
    return gather(call, read_variable(call, handle), indices, batch_dims=batch_dims)


def gather(
    call: Any, params: str, indices: str, axis: str | None = None, *, batch_dims: int = 0
) -> str:
    """Return entries along an axis."""
    if batch_dims:
        raise Refusal(f"batch_dims={batch_dims} is not supported, only 0")
    made: str = call.emit("Gather", params, indices, axis=0 if axis is None else call.axis(axis))
    return made


def gather_nd(call: Any, params: str, indices: str) -> str:
    """Return entries at indices of several axes."""
    made: str = call.emit("GatherND", params, indices)
    return made


def select_v2(call: Any, condition: str, x: str, y: str) -> str:
    """Choose between two tensors."""
    made: str = call.emit("Where", condition, x, y)
    return made


def _onnx_type(kind: int) -> int:
    from onnx import helper

    if kind not in DTYPES:
        raise Refusal(f"TensorFlow's type {kind} is not supported")
    dtype = "int64" if DTYPES[kind] == "int32" else DTYPES[kind]  # as all integers here
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def cast(call: Any, x: str, *, DstT: int) -> str:
    """Convert to another type."""
    made: str = call.emit("Cast", x, to=_onnx_type(DstT))
    return made


def shape(call: Any, x: str) -> str:
    """Return the sizes of the axes."""
    made: str = call.emit("Shape", x)
    return made


def size(call: Any, x: str) -> str:
    """Return the number of elements."""
    made: str = call.emit("Size", x)
    return made


def reshape(call: Any, x: str, shape: str) -> str:
    """Reshape in row-major order."""
    made: str = call.emit("Reshape", x, shape, allowzero=1)
    return made


def expand_dims(call: Any, x: str, axis: str) -> str:
    """Insert an axis of size one."""
    array = call.lowering.constants.get(x)
    if array is not None:
        made: str = call.constant(np.expand_dims(array, call.axis(axis)))
        return made
    made = call.emit("Unsqueeze", x, call.integers(call.axes(axis)))
    return made


def squeeze(call: Any, x: str, *, squeeze_dims: Sequence[int] = ()) -> str:
    """Remove axes of size one."""
    axes = [call.integers([*squeeze_dims])] if squeeze_dims else []
    made: str = call.emit("Squeeze", x, *axes)
    return made


def transpose(call: Any, x: str, perm: str) -> str:
    """Exchange axes."""
    made: str = call.emit("Transpose", x, perm=call.axes(perm, "perm"))
    return made


def slice_(call: Any, x: str, begin: str, size: str) -> str:
    """Return a block; a size of -1 is up to the end."""
    starts, sizes = call.axes(begin, "begin"), call.axes(size, "size")
    ends = [_LAST if n == -1 else k + n for k, n in zip(starts, sizes, strict=True)]
    made: str = call.emit("Slice", x, call.integers(starts), call.integers(ends))
    return made


def pack(call: Any, inputs: Sequence[str], *, axis: int = 0) -> str:
    """Stack tensors along a new axis."""
    along = call.integers([axis])
    parts = [call.emit("Unsqueeze", x, along, part=f"part{k}") for k, x in enumerate(inputs)]
    made: str = call.emit("Concat", *parts, axis=axis)
    call.lowering.parts[made] = [*inputs]
    return made


def unpack(call: Any, x: str, *, axis: int = 0, num: int) -> list[str]:
    """Return the entries along an axis."""
    return [call.emit("Gather", x, call.integers(k), part=str(k), axis=axis) for k in range(num)]


def concat(call: Any, inputs: Sequence[str]) -> str:
    """Concatenate tensors along an axis, which is the last input."""
    made: str = call.emit("Concat", *inputs[:-1], axis=call.axis(inputs[-1]))
    return made


def split(call: Any, axis: str, x: str, *, num_split: int) -> list[str]:
    """Cut into equal parts along an axis."""
    made: list[str] = call.lowering.write(
        "Split", [x], call.node.name, num_split, axis=call.axis(axis)
    )
    return made


def split_sizes(call: Any, x: str, sizes: str, axis: str) -> list[str]:
    """Cut into parts along an axis."""
    wanted, along = call.axes(sizes, "size_splits"), call.integers([call.axis(axis)])
    rest = wanted.index(-1) if -1 in wanted else len(wanted)
    if -1 in wanted[rest + 1 :]:
        raise Refusal(f"size_splits={wanted}: expected at most one -1")
    ends = [*accumulate(wanted)]  # those behind the rest are counted from the end
    ends[rest:] = [end - ends[-1] for end in ends[rest:]]
    starts = [0, *ends[:-1]]
    return [
        call.emit(
            "Slice", x, call.integers([start]), call.integers([end or _LAST]), along, part=str(k)
        )
        for k, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def fill(call: Any, dims: str, value: str) -> str:
    """Return a tensor of one number."""
    made: str = call.emit("Expand", value, dims)
    return made


def filled_like(number: int) -> Callable[..., str]:
    """Return a function that makes a tensor of one number with the shape of another."""

    def apply(call: Any, x: str) -> str:
        dtype = DTYPES.get(int(call.node.attributes.get("T", 1)), "float32")
        value = call.constant(np.asarray(number, dtype))
        made: str = call.emit("Expand", value, call.emit("Shape", x, part="shape"))
        return made

    return apply


def broadcast_to(call: Any, x: str, shape: str) -> str:
    """Repeat entries along axes of size one."""
    made: str = call.emit("Expand", x, shape)
    return made


def tile(call: Any, x: str, multiples: str) -> str:
    """Repeat a tensor along its axes, as a whole."""
    made: str = call.emit("Tile", x, multiples)
    return made


def range_(call: Any, start: str, limit: str, delta: str) -> str:
    """Return equally spaced numbers."""
    made: str = call.emit("Range", start, limit, delta)
    return made


def _pads(call: Any, paddings: str) -> str:
    widths = np.asarray(call.known(paddings, "paddings"))
    pads: str = call.integers(np.ravel(widths.reshape(-1, 2).T))
    return pads


def pad(call: Any, x: str, paddings: str, value: str | None = None) -> str:
    """Put a number before and after along axes."""
    made: str = call.emit("Pad", x, _pads(call, paddings), *([] if value is None else [value]))
    return made


def mirror_pad(call: Any, x: str, paddings: str, *, mode: str) -> str:
    """Put the reflection before and after along axes."""
    if mode != "REFLECT":
        raise Refusal(f"mode={mode!r:.20} is not supported, only 'REFLECT'")
    made: str = call.emit("Pad", x, _pads(call, paddings), mode="reflect")
    return made


def reverse(call: Any, x: str, axes: str) -> str:
    """Reverse the order along axes."""
    along = call.axes(axes)
    starts, ends = call.integers([_LAST] * len(along)), call.integers([_FIRST] * len(along))
    steps = call.integers([-1] * len(along))
    made: str = call.emit("Slice", x, starts, ends, call.integers(along), steps)
    return made


def one_hot(call: Any, indices: str, depth: str, on: str, off: str, *, axis: int = -1) -> str:
    """Return vectors with one entry on; an index out of range gives none."""
    if axis != -1:
        raise Refusal(f"axis={axis} is not supported, only -1")
    numbers = [call.integers(number) for number in (0, call.axis(depth, "depth"), 1)]
    places = call.emit("Range", *numbers, part="places")
    columns = call.emit("Unsqueeze", indices, call.integers([-1]), part="columns")
    chosen = call.emit("Equal", columns, places, part="chosen")
    made: str = call.emit("Where", chosen, on, off)
    return made


def top_k(call: Any, x: str, k: str) -> list[str]:
    """Return the k largest entries along the last axis, and their places."""
    count = call.integers(call.axes(k, "k"))
    made: list[str] = call.lowering.write("TopK", [x, count], call.node.name, 2, axis=-1)
    return made
