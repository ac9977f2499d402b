"""Policies of reduced precision: which of them keep weights that can be converted.

A mixed policy computes in 16 bits and keeps float32 weights: the model is converted in float32.
Weights quantized to int8 are multiplied by their scales; Keras also rounds the inputs of such a
Dense to 8 bits in every call, and the converted model does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.keras.config import dtype_name
from npylstm_converters.keras.graph import RawLayer, display_path
from npylstm_converters.keras.tensors import (
    Array,
    ComputedSource,
    LayerTensors,
    Source,
    read_array,
    role_of,
)

__all__ = ["check_precision", "dequantize", "in_float32", "precision_notes"]

_MIXED = ("mixed_float16", "mixed_bfloat16")
_QUANTIZED = {"Dense": 1, "Embedding": 0}  # the axis of the weight that has a scale per entry


def _mode(dtype: Any) -> Any:
    """Return the mode of a policy that quantizes, else None."""
    policy = dtype.get("config") if isinstance(dtype, Mapping) else None
    return policy.get("mode") if isinstance(policy, Mapping) else None


def _source_name(dtype: Any) -> Any:
    """Return the name of the policy before quantization."""
    return dtype["config"].get("source_name") if _mode(dtype) is not None else dtype_name(dtype)


def check_precision(class_name: str, dtype: Any) -> None:
    """Check that a layer's weights are float32 or float64, or int8 with scales.

    Raises
    ------
    Refusal
        If it has weights of reduced precision, or is quantized in another way.
    """
    mode, name = _mode(dtype), _source_name(dtype)
    if mode is not None and (mode != "int8" or class_name not in _QUANTIZED):
        raise Refusal(
            f"is quantized to {mode!r:.20}, which is not supported for {class_name}: convert the "
            "model as it was before quantize()"
        )
    if name not in (None, "float32", "float64", *_MIXED):
        raise Refusal(
            f"dtype {name!r} is not supported: it computes in reduced precision; load the model "
            "with dtype float32 and save it again"
        )


def precision_notes(raws: Mapping[str, RawLayer]) -> Iterator[str]:
    """Yield a sentence about each policy that the conversion replaces."""
    dtypes = {path: raw.config.get("dtype") for path, raw in raws.items() if not raw.custom}
    for name in _MIXED:
        if any(_source_name(dtype) == name for dtype in dtypes.values()):
            yield (
                f"computes in float32, the type of the weights; Keras' policy {name} computes in "
                "16 bits"
            )
    quantized = [display_path(path) for path, dtype in dtypes.items() if _mode(dtype) == "int8"]
    if quantized:
        yield (
            f"int8 weights of {', '.join(quantized)} are multiplied by their scales; Keras also "
            "rounds the inputs of a Dense with such weights to 8 bits in every call"
        )


@dataclass(frozen=True)
class _Dequantized(ComputedSource):
    """A weight of int8 with one scale per row or column: ``weight / scale``."""

    weight: Source
    scale: Source
    axis: int

    @property
    def parts(self) -> tuple[Source, ...]:
        return self.weight, self.scale

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self) -> Array:
        scale = read_array(self.scale, (self.shape[self.axis],)).astype(np.float64)
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise Refusal(f"{self.scale.path}: expected positive scales")
        return np.asarray(self.weight.read() / (scale if self.axis else scale[:, None]), np.float32)


def dequantize(class_name: str, dtype: Any, tensors: LayerTensors) -> LayerTensors:
    """Return a layer's arrays with an int8 weight multiplied by its scales.

    Raises
    ------
    Refusal
        If the arrays are not one int8 weight and its scales.
    """
    weights = [s for s in tensors.sources if s.dtype == np.int8]
    if _mode(dtype) is None or class_name not in _QUANTIZED:
        return tensors
    # Files of Keras 3 number the arrays, the scales last; legacy files name them.
    named = [s for s in tensors.sources if role_of(s.path, tensors.layer).endswith("_scale")]
    scales = named or [*tensors.sources[-1:]]
    axis = _QUANTIZED[class_name]
    if len(weights) != 1 or len(scales) != 1 or len(weights[0].shape) != 2:
        found = ", ".join(f"{s.path} {s.dtype} {s.shape}" for s in tensors.sources) or "none"
        raise Refusal(f"is quantized to 'int8': expected one weight and its scales; found {found}")
    others = [s for s in tensors.sources if s not in (*weights, *scales)]
    return tensors.of([_Dequantized(weights[0], scales[0], axis), *others])


def in_float32(value: Any) -> Any:
    """Return a model config with float32 in place of mixed policies."""
    if isinstance(value, list):
        return [in_float32(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    changed = {key: in_float32(entry) for key, entry in value.items()}
    if changed.get("name") in _MIXED:  # a policy
        changed["name"] = "float32"
    for key in ("dtype", "source_name"):
        if changed.get(key) in _MIXED:
            changed[key] = "float32"
    return changed
