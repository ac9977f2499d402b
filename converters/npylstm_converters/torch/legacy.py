"""The legacy file of ``torch.save``: five pickles, then the bytes of the storages.

The pickles are a magic number, the protocol, a description of the system, the object, and the keys
of the storages in their order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from npylstm import FormatError
from npylstm_converters.torch.pickle_reader import Buffer
from npylstm_converters.torch.pickle_values import DTYPES, Storage, Tensor
from npylstm_converters.torch.pickle_walk import reachable

__all__ = ["LEGACY_HEAD", "load_legacy"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
LEGACY_HEAD = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled
Spans = dict[str, tuple[int, int]]


def load_legacy(
    data: Buffer, load: Callable[[int], tuple[Any, int, Iterable[Storage]]]
) -> tuple[Any, Spans]:
    """Return the object, and the first byte and end of each storage.

    Parameters
    ----------
    data
        The whole file.
    load
        Reads the pickle at a position; returns its object, the position of its end, and all
        storages that it names.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    magic, position, _ = load(0)
    if magic != _MAGIC:
        raise FormatError("expected the magic number of torch.save")
    protocol, position, _ = load(position)
    if protocol != _PROTOCOL:
        raise FormatError(f"expected protocol {_PROTOCOL} of torch.save")
    system, position, _ = load(position)
    if not isinstance(system, dict):
        raise FormatError("expected a description of the system")
    value, position, storages = load(position)
    keys, position, _ = load(position)
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise FormatError("expected the keys of the storages")
    sizes = _element_sizes(value, storages)
    spans: Spans = {}
    for key in keys:
        if position + 8 > len(data):
            raise FormatError(f"storage {key}: missing")
        (count,) = struct.unpack_from("<q", data, position)
        position += 8
        size = count * sizes.get(key, 0)
        if count < 0 or key not in sizes or position + size > len(data):
            raise FormatError(f"storage {key}: {count} elements do not fit the file")
        spans[key] = (position, position + size)
        position += size
    return value, spans


def _element_sizes(value: Any, storages: Iterable[Storage]) -> dict[str, int]:
    """Return the element size in bytes of each storage that the pickle names."""
    found: dict[str, int] = {}
    tensors = (item for item in reachable(value) if isinstance(item, Tensor))
    known = [(s, s.dtype) for s in storages]
    for storage, dtype in [*known, *((t.storage, t.storage.dtype or t.dtype) for t in tensors)]:
        if storage.data is None and dtype is not None:
            itemsize = np.dtype(DTYPES[dtype]).itemsize
            if found.setdefault(storage.key, itemsize) != itemsize:
                raise FormatError(f"storage {storage.key}: is of two types")
    return {storage.key: 1 for storage, _ in known} | found
