"""Operators that interpolate, and those that exchange features and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npylstm.ops.resizing import ReverseSequence
from npylstm.ops.shapes import BATCH
from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.values import ConstantTensor, Value, integers
from npylstm_converters.toolkit import window_ops

__all__ = ["depth_to_space", "resize", "resize_by", "reverse_sequence", "space_to_depth"]


def _numbers(value: Value | None, name: str) -> list[float] | None:
    if value is None or (isinstance(value, ConstantTensor) and not value.array.size):
        return None
    if not isinstance(value, ConstantTensor):
        raise Refusal(f"{name}: is computed from an input, which is supported for constants only")
    return [float(n) for n in np.ravel(value.array)]


def resize(
    graph: Any, X: Value, roi: Value | None = None, scales: Value | None = None, sizes: Any = None,
    *, mode: str = "nearest", coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor", cubic_coeff_a: float = -0.75, antialias: int = 0,
    axes: Sequence[int] | None = None, keep_aspect_ratio_policy: str = "stretch",
    exclude_outside: int = 0,
) -> Any:  # fmt: skip
    """Interpolate along some axes, to sizes or by scales."""
    crops = coordinate_transformation_mode == "tf_crop_and_resize"
    if crops or (roi is not None and not isinstance(roi, ConstantTensor)):
        raise Refusal("a region of interest (tf_crop_and_resize) is not supported")
    for name, value, only in (
        ("antialias", antialias, 0), ("exclude_outside", exclude_outside, 0),
        ("keep_aspect_ratio_policy", keep_aspect_ratio_policy, "stretch"),
    ):  # fmt: skip
        if value != only:
            raise Refusal(f"{name}={value!r:.40} is not supported, only {only!r}")
    x = graph.tensor(X)
    which = [*range(len(graph.shape(x)))] if axes is None else [int(a) for a in axes]
    by = _numbers(scales, "scales")
    to = None if sizes is None else integers(sizes)
    own = graph.shape(x)
    if to is not None:
        pairs = [(a, int(n)) for a, n in zip(which, to, strict=True) if _changes(own[a], n, graph)]
        which, numbers = [a for a, _ in pairs], [n for _, n in pairs]
        return window_ops.resize(
            graph, x, which, numbers, None, mode, coordinate_transformation_mode, nearest_mode,
            cubic_coeff_a,
        )  # fmt: skip
    return window_ops.resize(
        graph, x, which, None, by, mode, coordinate_transformation_mode, nearest_mode,
        cubic_coeff_a,
    )  # fmt: skip


def _changes(size: Any, wanted: Any, graph: Any) -> bool:
    """Whether an axis gets another size; that of the batch is the exported one."""
    if isinstance(size, int) and isinstance(wanted, int):
        return size != wanted
    return not (size == BATCH and wanted == graph.exported_batch)


def resize_by(
    graph: Any, X: Value, scales: Any = None, *, mode: str = "nearest",
    height_scale: float | None = None, width_scale: float | None = None,
) -> Any:  # fmt: skip
    """Interpolate as the first versions of Resize and Upsample do."""
    if height_scale is not None and width_scale is not None:
        by: list[float] | None = [1.0, 1.0, height_scale, width_scale]
    else:
        by = [*map(float, scales)] if isinstance(scales, list) else _numbers(scales, "scales")
    x = graph.tensor(X)
    if by is None or len(by) != len(graph.shape(x)):
        raise Refusal(f"expected a scale for each of {len(graph.shape(x))} axes, got {by!r:.60}")
    for axis, scale in enumerate(by):
        rounding = "ceil" if scale < 1 else "floor"  # these versions do not say; onnxruntime's
        x = window_ops.resize(graph, x, [axis], None, [scale], mode, "asymmetric", rounding)
    return x


def reverse_sequence(
    graph: Any, input: Value, sequence_lens: Value, *, time_axis: int = 0, batch_axis: int = 1
) -> Any:
    """Reverse the first entries of every sequence."""
    operation = ReverseSequence(time_axis, batch_axis)
    return graph.add(operation, graph.tensor(input), graph.tensor(sequence_lens))


def depth_to_space(graph: Any, input: Value, *, blocksize: int, mode: str = "DCR") -> Any:
    """Move blocks of features to positions."""
    return window_ops.depth_to_space(graph, input, blocksize, _depth_first(mode))


def space_to_depth(graph: Any, input: Value, *, blocksize: int, mode: str = "DCR") -> Any:
    """Move blocks of positions to features."""
    return window_ops.space_to_depth(graph, input, blocksize, _depth_first(mode))


def _depth_first(mode: str) -> bool:
    if mode not in ("DCR", "CRD"):
        raise Refusal(f"mode={mode!r:.40} is not supported")
    return mode == "DCR"
