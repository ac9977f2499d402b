"""Convolutions, pooling and batch normalization of TensorFlow, with the features last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal

__all__ = ["batch_norm", "conv2d", "depthwise_conv2d", "pool"]

_TO_FRONT, _TO_BACK = [0, 3, 1, 2], [0, 2, 3, 1]  # ONNX has the features second
_ONES = (1, 1, 1, 1)


def _padding(padding: str, explicit: Sequence[int]) -> dict[str, Any]:
    """Return the attributes of ONNX for a padding."""
    if padding == "VALID":
        return {}
    if padding == "SAME":
        return {"auto_pad": "SAME_UPPER"}
    if padding == "EXPLICIT" and len(explicit) == 8 and not any([*explicit[:2], *explicit[6:]]):
        return {"pads": [explicit[2], explicit[4], explicit[3], explicit[5]]}
    raise Refusal(f"padding={padding!r:.20} with {[*explicit]} is not supported")


def _inner(sizes: Sequence[int], what: str) -> list[int]:
    """Return the numbers of the two axes between batch and features."""
    if len(sizes) != 4 or sizes[0] != 1 or sizes[3] != 1:
        raise Refusal(f"{what}={[*sizes]} is not supported: expected 1 for batch and features")
    return [*sizes[1:3]]


def _check_format(data_format: str) -> None:
    if data_format != "NHWC":
        raise Refusal(f"data_format={data_format!r:.20} is not supported, only 'NHWC'")


def _convolved(
    call: Any, x: str, filters: str, group: int, strides: Sequence[int], padding: str,
    explicit: Sequence[int], data_format: str, dilations: Sequence[int],
) -> str:  # fmt: skip
    _check_format(data_format)
    attributes = {
        "strides": _inner(strides, "strides"), "dilations": _inner(dilations, "dilations"),
        "group": group, **_padding(padding, explicit),
    }  # fmt: skip
    front = call.emit("Transpose", x, part="front", perm=_TO_FRONT)
    made = call.emit("Conv", front, filters, part="convolution", **attributes)
    back: str = call.emit("Transpose", made, perm=_TO_BACK)
    return back


def conv2d(
    call: Any, x: str, filters: str, *, strides: Sequence[int], padding: str,
    explicit_paddings: Sequence[int] = (), data_format: str = "NHWC",
    dilations: Sequence[int] = _ONES,
) -> str:  # fmt: skip
    """Convolve; filters are (height, width, features, filters)."""
    ours = call.emit("Transpose", filters, part="filters", perm=[3, 2, 0, 1])
    return _convolved(call, x, ours, 1, strides, padding, explicit_paddings, data_format, dilations)


def depthwise_conv2d(
    call: Any, x: str, filters: str, *, strides: Sequence[int], padding: str,
    explicit_paddings: Sequence[int] = (), data_format: str = "NHWC",
    dilations: Sequence[int] = _ONES,
) -> str:  # fmt: skip
    """Convolve each feature on its own; filters are (height, width, features, multiplier)."""
    array = np.asarray(call.known(filters, "filter"))
    height, width, features, count = array.shape
    ours = array.transpose(2, 3, 0, 1).reshape(features * count, 1, height, width)
    return _convolved(
        call, x, call.constant(ours), features, strides, padding, explicit_paddings, data_format,
        dilations,
    )  # fmt: skip


def pool(operator: str) -> Callable[..., str]:
    """Return a function that takes the largest entry or the mean of each window."""

    def apply(
        call: Any, x: str, *, ksize: Sequence[int], strides: Sequence[int], padding: str,
        explicit_paddings: Sequence[int] = (), data_format: str = "NHWC",
    ) -> str:  # fmt: skip
        _check_format(data_format)
        attributes = {
            "kernel_shape": _inner(ksize, "ksize"), "strides": _inner(strides, "strides"),
            **_padding(padding, explicit_paddings),
        }  # fmt: skip
        front = call.emit("Transpose", x, part="front", perm=_TO_FRONT)
        made = call.emit(operator, front, part="pool", **attributes)
        back: str = call.emit("Transpose", made, perm=_TO_BACK)
        return back

    return apply


def batch_norm(
    call: Any, x: str, scale: str, offset: str, mean: str, variance: str, *,
    epsilon: float = 1e-4, is_training: bool = True, data_format: str = "NHWC",
) -> list[str]:  # fmt: skip
    """Normalize with stored statistics."""
    _check_format(data_format)
    if is_training:
        raise Refusal("normalizes with the statistics of the batch, which is not supported")
    shifted = call.emit("Add", variance, call.constant(np.float32(epsilon)), part="variance")
    root = call.emit("Sqrt", shifted, part="deviation")
    factor = call.emit("Div", scale, root, part="factor")
    centred = call.emit("Sub", x, mean, part="centred")
    scaled = call.emit("Mul", centred, factor, part="scaled")
    return [call.emit("Add", scaled, offset)]
