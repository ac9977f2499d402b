"""Keras' merge layers."""

from __future__ import annotations

from collections.abc import Callable

from npylstm.ops.arithmetic import Arithmetic
from npylstm.ops.base import Operation
from npylstm.ops.products import Dot
from npylstm.ops.shaping import Concatenate
from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import Config, Translation, without_weights

__all__ = ["TRANSLATORS"]

_OPERATIONS = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Average": "average",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
_MERGE_NEUTRAL = (
    "output_shape", "output_shape_type", "output_mask", "output_mask_type",
    "arguments", "node_indices", "tensor_indices",
)  # fmt: skip
_KERAS1_MODES = {"sum": "add", "mul": "multiply", "ave": "average", "max": "maximum"}


def _arithmetic(operation: str) -> Callable[..., Translation]:
    return without_weights(lambda _: Arithmetic(operation, after_batch=True))


def _concatenate(config: Config) -> Operation:
    return Concatenate(config.axis("axis"))


def _dot(config: Config) -> Operation:
    axes = config.take("axes")
    axes = [axes, axes] if type(axes) is int else axes
    if not isinstance(axes, list) or len(axes) != 2 or any(type(a) is not int for a in axes):
        raise Refusal(f"axes: expected an integer or two, got {axes!r:.60}")
    epsilon = 1e-7 if config.writer.major >= 3 else 1e-6
    return Dot((axes[0], axes[1]), config.flag("normalize"), epsilon)


def _merge(config: Config) -> Operation:
    """Translate ``Merge`` of Keras 1, one class for all modes."""
    mode = config.take("mode", default="sum")
    if config.take("mode_type", default="raw") != "raw":
        raise Refusal(f"mode {mode!r:.60} is a function of the user's own")
    if config.take("layers", default=None):
        raise Refusal("Merge as the first layer, of models given to it, is not supported")
    config.neutral(*_MERGE_NEUTRAL)
    concat_axis = config.axis("concat_axis")
    dot_axes = config.take("dot_axes", default=-1)
    if mode == "concat":
        return Concatenate(concat_axis)
    if mode in ("dot", "cos"):
        axes = [dot_axes, dot_axes] if type(dot_axes) is int else dot_axes
        pair = [a[0] if isinstance(a, list) and len(a) == 1 else a for a in axes]
        if len(pair) != 2 or any(type(a) is not int for a in pair) or mode == "cos":
            raise Refusal(f"mode {mode!r} with dot_axes={dot_axes!r:.60} is not supported")
        return Dot((pair[0], pair[1]))
    if mode not in _KERAS1_MODES:
        raise Refusal(f"mode {mode!r:.60} is not supported")
    return Arithmetic(_KERAS1_MODES[mode], after_batch=True)


TRANSLATORS: dict[str, Callable[..., Translation]] = {
    **{name: _arithmetic(operation) for name, operation in _OPERATIONS.items()},
    "Concatenate": without_weights(_concatenate),
    "Dot": without_weights(_dot),
    "Merge": without_weights(_merge),
}
