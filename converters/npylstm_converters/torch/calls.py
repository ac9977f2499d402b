"""A call of an operation in a traced program: the graph for the functions of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.torch.builder import Builder, ConstantTensor, Ref, TracedShape

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """One call of an operation, and the graph under construction.

    Attributes
    ----------
    builder
        The graph.
    node
        The operation's name in the program.
    module
        Path and class of the module that contains it.
    traced
        The shapes of its outputs.
    truncates
        Whether it casts floats to integers that are not only embedding indices.
    """

    builder: Builder
    node: str
    module: tuple[str, str]
    traced: Sequence[TracedShape]
    truncates: bool = False

    @property
    def name(self) -> str:
        """The layer's name: the path of the ``torch.nn`` module, else the node's name."""
        path, cls = self.module
        return path if path and cls.startswith("torch.nn.modules") else self.node

    def tensor(self, value: Any) -> Ref:
        """Return the tensor of the graph for an argument."""
        return self.builder.ref(value, f"{self.node}_input")

    def number(self, value: Any) -> float | None:
        """Return an argument that is a number, or a constant tensor without axes."""
        if isinstance(value, ConstantTensor) and value.traced == ():
            return float(value.value.detach())
        return float(value) if isinstance(value, (int, float)) else None

    def shape(self, tensor: Ref) -> Shape:
        """Return the shape of a tensor, with symbols."""
        return self.builder.shapes[tensor.name]

    def rank(self, value: Any) -> int:
        """Return the number of axes of an argument."""
        return len(value.traced)

    def axis(self, value: Any, axis: int, extra: int = 0) -> int:
        """Return a non-negative axis of an argument."""
        return int(axis) % (self.rank(value) + extra)

    def array(self, value: Any) -> Array:
        """Return the array of a weight."""
        return self.builder.array(value)

    def weights(self, **values: Any) -> tuple[dict[str, Array], tuple[Any, ...]]:
        """Return the arrays of the weights that are not None, and their share key."""
        there = {name: value for name, value in values.items() if value is not None}
        arrays = {name: self.array(value) for name, value in there.items()}
        return arrays, tuple(id(value.value) for value in there.values())

    def matrix(self, value: Any, rank: int) -> Array:
        """Return the array of a weight that must have ``rank`` axes."""
        if value is None or self.array(value).ndim != rank:
            raise Refusal(f"expected weights of {rank} axes")
        return self.array(value)

    def add(
        self,
        operation: Operation,
        *tensors: Ref,
        part: str = "",
        weights: Mapping[str, Array] | None = None,
        share: tuple[Any, ...] = (),
    ) -> Ref:
        """Add an operation with one output.

        Parameters
        ----------
        part
            Name suffix of an operation that computes an intermediate.
        weights
            Arrays by npylstm's names.
        share
            Key of the weights: calls with equal keys share them.
        """
        name = f"{self.node}_{part}" if part else self.name
        return self.builder.add_traced(name, operation, tensors, [()], weights, share)[0]
