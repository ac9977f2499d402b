"""A call of an operation in a traced program: the graph for the functions of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npylstm.arrays import Array
from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.integer_checks import check_behind, check_numbers
from npylstm_converters.torch.builder import Builder, ConstantTensor, Ref, TracedShape
from npylstm_converters.torch.layers import Layer

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
    dtype, source
        The element types of its output and of its first input.
    types
        The element types of its inputs, by the identity of the values.
    """

    builder: Builder
    node: str
    module: tuple[str, str]
    traced: Sequence[TracedShape]
    truncates: bool = False
    dtype: str = ""
    source: str = ""
    types: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The layer's name: the path of the ``torch.nn`` module, else the node's name."""
        path, cls = self.module
        return path if path and cls.startswith("torch.nn.modules") else self.node

    def tensor(self, value: Any) -> Ref:
        """Return the tensor of the graph for an argument."""
        if isinstance(value, ConstantTensor) and not value.value.is_floating_point():
            check_numbers(value.value.detach().numpy(), self.builder.dtype)
        return self.builder.ref(value, f"{self.node}_input")

    def number(self, value: Any) -> float | None:
        """Return an argument that is a number, or a constant tensor without axes."""
        if isinstance(value, ConstantTensor) and value.traced == ():
            return float(value.value.detach())
        return float(value) if isinstance(value, (int, float)) else None

    def shape(self, tensor: Ref) -> Shape:
        """Return the shape of a tensor, with symbols."""
        return self.builder.shapes[tensor.name]

    def is_bool(self, value: Any) -> bool:
        """Whether an argument holds truth values."""
        return self.types.get(id(value)) == "bool"

    def rank(self, value: Any) -> int:
        """Return the number of axes of an argument."""
        return len(value.traced)

    def axis(self, value: Any, axis: int, extra: int = 0) -> int:
        """Return a non-negative axis of an argument."""
        return int(axis) % (self.rank(value) + extra)

    def array(self, value: Any) -> Array:
        """Return the array of a weight."""
        return self.builder.array(value)

    def check_rank(self, value: Any, rank: int) -> None:
        """Check that a weight has so many axes.

        Raises
        ------
        Refusal
            If it has not, or is computed from inputs.
        """
        if value is None or self.array(value).ndim != rank:
            raise Refusal(f"expected weights of {rank} axes")

    def add_layer(self, make: Callable[..., Layer], x: Any, **weights: Any) -> Ref:
        """Add an operation with weights; ``make`` gets the arrays of those that are there."""
        there = {name: value for name, value in weights.items() if value is not None}
        operation, arrays = make(**{name: self.array(value) for name, value in there.items()})
        share = tuple(id(value.value) for value in there.values())
        source = [self.tensor(x)]
        return self.builder.add_traced(self.name, operation, source, [()], arrays, share)[0]

    def add(self, operation: Operation, *tensors: Ref, part: str = "") -> Ref:
        """Add an operation with one output; ``part`` names one that computes an intermediate."""
        name = f"{self.node}_{part}" if part else self.name
        (made,) = self.builder.add_traced(name, operation, tensors, [()])
        check = check_behind(operation, self.dtype, self.builder.dtype)
        counts = self.source == "bool" and len(tensors) == 1 and operation.operand is None
        if check is None or counts:  # counts of truth values are small
            return made
        return self.builder.add_traced(f"{name}_integers", check, [made], [()])[0]
