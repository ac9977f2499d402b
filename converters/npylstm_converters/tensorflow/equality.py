"""Find tensors that are equal in every call, because they are computed in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from npylstm.arrays import Array

__all__ = ["are_equal"]

_LARGEST = 64  # entries of a constant that is compared by its values


def are_equal(nodes: Iterable[Any], constants: Mapping[str, Array], a: str, b: str) -> bool:
    """Whether the same operations compute two tensors from the same tensors and constants.

    Parameters
    ----------
    nodes
        Of ONNX, each after those that it reads.
    constants
        Arrays by the name of their tensor.
    a, b
        The names of the tensors.

    Returns
    -------
    bool
        False where it is not known, as of tensors that different operations compute.
    """
    if a == b:
        return True
    first: dict[Any, str] = {}  # the first tensor that is computed in one way
    equal: dict[str, str] = {}
    for name, array in constants.items():
        if array.size <= _LARGEST:
            key = (array.dtype.str, array.shape, array.tobytes())
            equal[name] = first.setdefault(key, name)
    for node in nodes:
        if node.op_type == "Loop":
            continue
        inputs = tuple(equal.get(name, name) for name in node.input)
        attributes = tuple(sorted(part.SerializeToString() for part in node.attribute))
        for k, name in enumerate(node.output):
            equal[name] = first.setdefault((node.op_type, inputs, attributes, k), name)
    return equal.get(a, a) == equal.get(b, b)
