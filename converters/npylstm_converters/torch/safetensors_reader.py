"""Reads safetensors: a header in JSON, then the bytes of the tensors."""

from __future__ import annotations

import json
import math
import os
import struct
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm_converters.torch.containers import Contents
from npylstm_converters.torch.mapping import MAX_HEADER, mapped
from npylstm_converters.torch.pickle_values import DTYPES, Storage, Tensor
from npylstm_converters.torch.storages import Storages

__all__ = ["read_safetensors"]

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MOST_AXES = 32


def read_safetensors(path: str | os.PathLike[str]) -> Contents:
    """Return the tensors of a safetensors file by name."""
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        held = os.fstat(stream.fileno()).st_size - 8
        if not 2 <= length <= min(MAX_HEADER, held):
            raise FormatError(f"expected a header of up to {held} bytes, got {length}")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_no_twins)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"header: not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError("header: expected an object")
    data, first = mapped(path), 8 + length
    size_of_data = len(data) - first
    header.pop("__metadata__", None)
    value: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(a), int(b)]}:
                pass
            case _:
                raise FormatError(f"{name}: expected dtype, shape and data_offsets")
        if dtype not in _TYPES:
            known = ", ".join(_TYPES)
            raise FormatError(f"{name}: expected a dtype of {known}, got {dtype!r:.40}")
        if len(shape) > _MOST_AXES or any(
            type(d) is not int or not 0 <= d < 1 << 62 for d in shape
        ):
            raise FormatError(f"{name}: expected a shape, got {shape!r:.80}")
        kind = _TYPES[dtype]
        size = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
        if not 0 <= a <= b <= size_of_data or b - a != size:
            raise FormatError(
                f"{name}: expected {size} bytes for shape {shape} of {dtype}, got {a} to {b} of "
                f"{size_of_data}"
            )
        spans.append((a, b, name))
        count = math.prod(shape)
        strides = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
        value[name] = Tensor(Storage(name, kind, count, 0, count), 0, tuple(shape), strides, kind)
    end = 0
    for a, b, name in sorted(spans):
        if a != end:
            raise FormatError(f"{name}: begins at {a}, expected {end}")
        end = b
    if end != size_of_data:
        raise FormatError(f"{size_of_data - end} bytes belong to no tensor")
    places = {name: (first + a, first + b) for a, b, name in spans}
    return Contents(value, Storages(data, places, ""))


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is in it twice")
    return made
