"""The child process that reads HDF5.

libhdf5 is C: on damaged files it may loop, allocate gigabytes or crash. So it runs in this separate
process, under limits of memory and time, and sends the contents over a pipe. This file runs as a
script and imports nothing of npylstm.

Protocol. Argument: the path. First reply: the inventory, JSON. Then for each line on stdin, a JSON
string naming an array, one reply: its bytes. A reply is ``b"+"`` or ``b"-"`` (then the
payload is the error's text), the payload's length as 8 bytes little-endian, the payload.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

if __name__ == "__main__":
    sys.path.pop(0)  # h5py must not import modules of this folder

import h5py
import numpy as np

# The attributes of Keras that we read; long lists are split into NAME0, NAME1, ...
_ATTRIBUTES = (
    "model_config", "config", "model", "keras_version", "backend", "layer_names", "weight_names",
    "name",
)  # fmt: skip

_MAX_OBJECTS = 50_000
_MAX_DEPTH = 64
_MAX_NAMES = 100_000
_SMALL = 16 << 20  # bytes; smaller arrays are never checked for decompression bombs
_RATIO = 20

# Limits, in addition to the needs of Python, NumPy and h5py.
_MEMORY = 32 << 20
_SECONDS = 2


class Refused(Exception):
    """Raised for contents that Keras does not write."""


def limit(size: int) -> None:
    """Limit memory and processor time by the file's size, if the system supports it."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(used.ru_utime + used.ru_stime) + _SECONDS + (size >> 25)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = int(stream.read().split()[0])
        memory = pages * resource.getpagesize() + _MEMORY + 2 * size
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # not a Unix, or no /proc: the other limits remain


def inventory(file: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the groups with their attributes, and the arrays with shape and element type."""
    groups: dict[str, dict[str, Any]] = {"": attributes(file)}
    arrays: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    seen = {h5py.h5o.get_info(file.id).addr}
    addresses = {"": 0}  # addresses rise in the order of writing: layer by layer
    waiting = [("", file, 0)]
    while waiting:
        prefix, group, depth = waiting.pop()
        if depth > _MAX_DEPTH or len(groups) + len(arrays) > _MAX_OBJECTS:
            raise Refused("expected fewer groups")
        for name in group:
            path = prefix + name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{path}: is a link, expected data in the file itself")
            child = group[name]
            if isinstance(child, h5py.Dataset):
                if child.external is not None or child.is_virtual:
                    raise Refused(f"{path}: its data lies outside of the file")
                arrays[path] = {
                    "shape": [int(d) for d in child.shape or ()],
                    "dtype": child.dtype.str,
                }
                sources[path] = child
            elif isinstance(child, h5py.Group):
                address = h5py.h5o.get_info(child.id).addr
                if address in seen:
                    raise Refused(f"{path}: is a second link to a group")
                seen.add(address)
                groups[path], addresses[path] = attributes(child), address
                waiting.append((path + "/", child, depth + 1))
    in_order = {path: groups[path] for path in sorted(groups, key=addresses.__getitem__)}
    return {"groups": in_order, "arrays": arrays}, sources


def attributes(group: Any) -> dict[str, Any]:
    """Return the attributes that Keras writes: texts and lists of names."""
    found: dict[str, Any] = {}
    for name in group.attrs:
        if name.rstrip("0123456789") not in _ATTRIBUTES:
            continue
        size = int(np.prod(group.attrs.get_id(name).shape or (1,), dtype=object))
        if size > _MAX_NAMES:
            raise Refused(f"attribute {name}: expected up to {_MAX_NAMES} names, got {size}")
        value = group.attrs[name]
        if isinstance(value, np.ndarray):
            found[name] = [text(name, v) for v in value.reshape(-1).tolist()]
        else:
            found[name] = text(name, value)
    return found


def text(name: str, value: Any) -> str:
    """Return the decoded text."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(f"attribute {name}: expected UTF-8") from None
    if not isinstance(value, str):
        raise Refused(f"attribute {name}: expected a text, got {type(value).__name__}")
    return value


def array_bytes(source: Any) -> memoryview:
    """Return the bytes of a complete array, in C order."""
    stored = source.id.get_storage_size()
    if source.nbytes > _SMALL and source.nbytes > _RATIO * stored:
        raise Refused(f"{source.name}: {stored} bytes claim to hold {source.nbytes}")
    # libhdf5 unpacks one whole chunk at a time, even if the array needs only a part.
    if source.chunks and np.prod(source.chunks, dtype=object) > 4 * max(source.size, 1 << 16):
        raise Refused(f"{source.name}: expected chunks no larger than the array")
    return np.ascontiguousarray(source[()]).reshape(-1).view(np.uint8).data


def answer(out: Any, ok: bool, payload: bytes | memoryview) -> None:
    """Send one reply."""
    out.write((b"+" if ok else b"-") + len(payload).to_bytes(8, "little"))
    out.write(payload)
    out.flush()


def serve(path: str, requests: Any, out: Any) -> None:
    """Reply to requests until stdin is closed, or until the first error."""
    try:
        limit(os.stat(path).st_size)
        with h5py.File(path, "r") as file:
            listed, sources = inventory(file)
            answer(out, True, json.dumps(listed).encode())
            for line in requests:
                answer(out, True, array_bytes(sources[json.loads(line)]))
    except BrokenPipeError:
        pass
    except BaseException as error:  # h5py may raise any type; the reply reports it
        message = " ".join(str(error).split()) or type(error).__name__
        answer(out, False, message.encode("utf-8", "replace")[:500])


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin, sys.stdout.buffer)
