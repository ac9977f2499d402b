"""Describes a pickled module without running it: classes, sizes and options of its parts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm.arrays import Array
from npylstm_converters.torch.containers import read_legacy, read_zip, walk
from npylstm_converters.torch.files import Kind, sniff
from npylstm_converters.torch.mapping import damage_named
from npylstm_converters.torch.modules import find_modules
from npylstm_converters.torch.pickle_values import Opaque, Tensor

__all__ = ["describe_pickled"]

# Options that a state_dict does not hold.
_OPTIONS = ("batch_first", "nonlinearity", "mode", "stride", "padding", "dilation", "groups", "eps",
            "negative_slope", "alpha", "dim", "p")  # fmt: skip
_DEEPEST = 30


def describe_pickled(path: str | os.PathLike[str]) -> list[str]:
    """Return one line for each part of a file's pickled module; none if it holds no module.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    kind = sniff(path)
    if kind not in (Kind.ZIP, Kind.LEGACY):
        return []
    with damage_named(path):
        read = read_zip if kind is Kind.ZIP else read_legacy
        value, _ = read(path, opaque=True)
        roots = [item for _, item in walk(value, opaque=True) if _is_module(item)]
        return [line for root in roots[:1] for line in _parts(root, "", 0)]


def _is_module(value: Any) -> bool:
    return isinstance(value, Opaque) and {"_modules", "_parameters"} <= value.state.keys()


def _parts(module: Opaque, path: str, depth: int) -> Iterator[str]:
    """Yield the lines of a module without submodules, or of its submodules in order."""
    children = module.state["_modules"]
    found = [(k, m) for k, m in _items(children) if _is_module(m)]
    if not found or depth > _DEEPEST:
        yield _line(module, path or "model")
        return
    own = [k for k, v in _items(module.state["_parameters"]) if isinstance(v, Tensor)]
    if own:
        yield f"{path or 'model'}: {module.name.name}, with tensors of its own: {', '.join(own)}"
    for name, child in found:
        yield from _parts(child, f"{path}.{name}" if path else name, depth + 1)


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(k), v) for k, v in value.items()] if isinstance(value, Mapping) else []


def _line(module: Opaque, path: str) -> str:
    """Return ``lstm: LSTM(3 -> 8), batch_first=True``."""
    entries = [*_items(module.state["_parameters"]), *_items(module.state.get("_buffers"))]
    arrays = {f"x.{k}": _of_shape(v) for k, v in entries if isinstance(v, Tensor)}
    sizes = [found.sizes for found in find_modules(arrays)] if arrays else []
    options = [
        f"{name}={value}"
        for name in _OPTIONS
        if isinstance(value := module.state.get(name), (bool, int, float, str, tuple))
    ]
    return ", ".join([f"{path}: {module.name.name}({'; '.join(sizes)})", *options])


def _of_shape(tensor: Tensor) -> Array:
    """Return an array of a tensor's shape that stores one number."""
    try:
        return np.broadcast_to(np.float32(0), tensor.size)
    except ValueError:
        raise FormatError(f"a tensor of size {tensor.size}") from None
