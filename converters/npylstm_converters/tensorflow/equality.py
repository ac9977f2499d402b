"""Find tensors that are equal in every call, because they are computed in the same way."""

from __future__ import annotations

from typing import Any

from npylstm.arrays import Array

__all__ = ["Equality"]

_LARGEST = 64  # entries of a constant that is compared by its values


class Equality:
    """Which tensors the same operations compute from the same tensors and constants."""

    def __init__(self) -> None:
        self._first: dict[Any, str] = {}  # the first tensor that is computed in one way
        self._equal: dict[str, str] = {}

    def add_constant(self, name: str, array: Array) -> None:
        """Add a tensor with its values."""
        if array.size <= _LARGEST:
            key = (array.dtype.str, array.shape, array.tobytes())
            self._equal[name] = self._first.setdefault(key, name)

    def add_node(self, node: Any) -> None:
        """Add the outputs of a node of ONNX, after those that it reads."""
        if node.op_type == "Loop":  # its body is not compared
            return
        inputs = tuple(self.first(name) for name in node.input)
        attributes = tuple(sorted(part.SerializeToString() for part in node.attribute))
        for k, name in enumerate(node.output):
            key = (node.op_type, inputs, attributes, k)
            self._equal[name] = self._first.setdefault(key, name)

    def first(self, name: str) -> str:
        """Return the first tensor that is known to be equal to a tensor in every call."""
        return self._equal.get(name, name)
